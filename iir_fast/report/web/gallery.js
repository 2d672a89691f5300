// Tiles of the images that were asked for. Only those in sight exist, however many there are.

const GAP = 20; // px between tiles
const PICTURE_GAP = 6; // px between the pictures of one
const TITLE = { all: 24, mask: 44, map: 44 }; // px below the pictures
const PICTURE_CAPTION = { all: 20, mask: 0, map: 0 }; // px below each of them
const MARGIN_ROWS = 1; // drawn beyond the window, so that Tab finds the next row
const WIDTHS = { all: 520, mask: 168, map: 168 }; // of a tile, at least

const gallery = {
  element: document.getElementById("gallery"),
  order: [], // numbers of the images, as filtered and sorted
  tiles: new Map(), // by position in that order

  setOrder(order) {
    if (order.length === this.order.length && order.every((number, i) => number === this.order[i])) return;
    this.order = order;
    this.layOut();
  },

  // Starts anew: another order, other pictures, another width.
  layOut() {
    for (const tile of this.tiles.values()) tile.element.remove();
    this.tiles.clear();
    const width = this.element.clientWidth;
    const least = Math.min(WIDTHS[state.view], width);
    this.columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    this.pitch = Math.floor((width + GAP) / this.columns); // from one tile to the next
    const pictures = VIEWS[state.view].length;
    const abreast = pictures > 1 && this.pitch - GAP < 440 ? 3 : pictures;
    this.side = Math.floor((this.pitch - GAP - PICTURE_GAP * (abreast - 1)) / abreast);
    this.tileWidth = abreast * this.side + PICTURE_GAP * (abreast - 1);
    this.tileHeight = Math.ceil(pictures / abreast) * (this.side + PICTURE_CAPTION[state.view]) + TITLE[state.view];
    const rows = Math.ceil(this.order.length / this.columns);
    this.element.style.height = `${rows * (this.tileHeight + GAP)}px`;
    this.update();
  },

  // Makes the tiles that have come into sight and drops the others.
  update() {
    const pitch = this.tileHeight + GAP;
    const top = -this.element.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / pitch) - MARGIN_ROWS) * this.columns;
    const last = Math.min(this.order.length, (Math.ceil((top + innerHeight) / pitch) + MARGIN_ROWS) * this.columns);
    for (const [position, tile] of this.tiles)
      if ((position < first || position >= last) && !tile.element.contains(document.activeElement)) {
        tile.element.remove();
        this.tiles.delete(position);
      }
    // In the order of positions, which is the order of Tab.
    const sorted = [...this.tiles.keys()].sort((one, other) => one - other);
    for (let position = first; position < last; ++position) {
      if (this.tiles.has(position)) continue;
      const tile = makeTile(position);
      const next = sorted.find((other) => other > position);
      this.element.insertBefore(tile.element, next === undefined ? null : this.tiles.get(next).element);
      this.tiles.set(position, tile);
      tile.strip.show(this.order[position]);
    }
  },

  redraw(names) {
    for (const tile of this.tiles.values()) {
      tile.strip.redraw(names);
      tile.describe();
    }
  },
};

function makeTile(position) {
  const number = gallery.order[position];
  const strip = new Strip(VIEWS[state.view], gallery.side);
  strip.element.ariaHidden = "true"; // the caption says it in words
  const element = document.createElement("div");
  element.className = `tile view-${state.view}`;
  element.setAttribute("role", "listitem");
  element.setAttribute("aria-setsize", gallery.order.length);
  element.setAttribute("aria-posinset", position + 1);
  element.style.left = `${(position % gallery.columns) * gallery.pitch}px`;
  element.style.top = `${Math.floor(position / gallery.columns) * (gallery.tileHeight + GAP)}px`;
  element.style.width = `${gallery.tileWidth}px`;
  element.style.height = `${gallery.tileHeight}px`;
  const button = document.createElement("button");
  button.type = "button";
  button.onclick = () => detail.open(position);
  const caption = document.createElement("span");
  caption.className = "caption";
  const title = document.createElement("span");
  title.className = "title";
  title.textContent = overview.classes[index.labels[number]];
  const verdict = document.createElement("span");
  caption.append(title, verdict);
  button.append(strip.element, caption);
  element.append(button);
  const describe = () => {
    const outcome = outcomeOf(number);
    const iou = iouOf(number);
    verdict.className = `verdict outcome-${outcome}`;
    verdict.textContent = [iou === null ? "" : `IoU ${iou.toFixed(2)}`, OUTCOMES[outcome]].filter(Boolean).join(" · ");
    button.title = index.ids[number];
  };
  describe();
  return { element, strip, describe };
}
