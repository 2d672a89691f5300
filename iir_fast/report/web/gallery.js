// Tiles of the images that were asked for, in rows, each picture in its image's own shape. Only those in sight exist,
// however many there are.

const GAP = 20; // px between tiles
const PICTURE_GAP = 6; // px between the pictures of one
const TITLE = { all: 46, mask: 66, map: 66 }; // px below the pictures
const PICTURE_CAPTION = { all: 20, mask: 0, map: 0 }; // px below each of them
const MARGIN_ROWS = 1; // drawn beyond the window, so that Tab finds the next row
const HEIGHTS = { all: 120, mask: 180, map: 180 }; // of a picture, about
const NARROW = 440; // px, where the pictures of a tile take two lines
const SHAPES = [0.75, 2.5]; // width by height; beyond, a picture does not fill its place, so that its title has room

const gallery = {
  element: document.getElementById("gallery"),
  order: [], // numbers of the images, as filtered and sorted
  rows: [], // of tiles: first and last position, top, and height of a picture
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
    const pictures = VIEWS[state.view].length;
    const width = this.element.clientWidth;
    this.abreast = pictures > 1 && width < NARROW ? 3 : pictures;
    this.lines = Math.ceil(pictures / this.abreast);
    this.rows = [];
    const wanted = HEIGHTS[state.view], count = this.order.length;
    let top = 0;
    for (let first = 0, last = 0; first < count; first = last) {
      let shapes = 0, height = Infinity, before;
      do {
        before = height;
        shapes += shapeOf(this.order[last++]);
        const gaps = (last - first - 1) * GAP + (last - first) * (this.abreast - 1) * PICTURE_GAP;
        height = Math.floor((width - gaps) / (this.abreast * shapes));
      } while (height > wanted && last < count);
      // With one tile less, if that comes closer; the last row need not be full.
      if (height * before < wanted ** 2) [height, last] = [before, last - 1];
      if (last === count) height = Math.min(height, wanted);
      this.rows.push({ first, last, top, height });
      top += this.lines * (height + PICTURE_CAPTION[state.view]) + TITLE[state.view] + GAP;
    }
    this.element.style.height = `${top}px`;
    this.update();
  },
  // Makes the tiles that have come into sight and drops the others.
  update() {
    const top = -this.element.getBoundingClientRect().top;
    const rows = this.rows.slice(
      Math.max(0, this.rowAt(top) - MARGIN_ROWS), this.rowAt(top + innerHeight) + 1 + MARGIN_ROWS);
    const first = rows[0]?.first ?? 0, last = rows.at(-1)?.last ?? 0;
    for (const [position, tile] of this.tiles)
      if ((position < first || position >= last) && !tile.element.contains(document.activeElement)) {
        tile.element.remove();
        this.tiles.delete(position);
      }
    // In the order of positions, which is the order of Tab.
    const sorted = [...this.tiles.keys()].sort((one, other) => one - other);
    for (const row of rows) {
      let left = 0;
      for (let position = row.first; position < row.last; ++position) {
        const width = Math.floor(row.height * shapeOf(this.order[position]));
        const across = this.abreast * width + (this.abreast - 1) * PICTURE_GAP;
        if (!this.tiles.has(position)) {
          const tile = makeTile(position, [width, row.height], { left, top: row.top, width: across });
          const next = sorted.find((other) => other > position);
          this.element.insertBefore(tile.element, next === undefined ? null : this.tiles.get(next).element);
          this.tiles.set(position, tile);
          tile.strip.show(this.order[position]);
        }
        left += across + GAP;
      }
    }
  },

  // The row at a height, or the one nearest to it.
  rowAt(height) {
    let low = 0, high = this.rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.rows[middle].top <= height) low = middle;
      else high = middle - 1;
    }
    return low;
  },

  redraw(names) {
    for (const tile of this.tiles.values()) {
      tile.strip.redraw(names);
      tile.describe();
    }
  },
};

// Width by height of a picture's place.
function shapeOf(number) {
  const [width, height] = index.sizes[number];
  return Math.min(Math.max(width / height, SHAPES[0]), SHAPES[1]);
}

function makeTile(position, room, place) {
  const number = gallery.order[position];
  const strip = new Strip(VIEWS[state.view], room);
  strip.element.ariaHidden = "true"; // the caption says it in words
  const element = document.createElement("div");
  element.setAttribute("role", "listitem");
  element.setAttribute("aria-setsize", gallery.order.length);
  element.setAttribute("aria-posinset", position + 1);
  for (const [edge, value] of Object.entries(place)) element.style[edge] = `${value}px`;
  const caption = document.createElement("span");
  caption.className = "caption";
  const [title, predicted, verdict] = ["title", "predicted", "verdict"].map((name) => {
    const line = cell("span", "");
    line.className = name;
    return line;
  });
  title.textContent = overview.classes[index.labels[number]];
  predicted.textContent =
    `predicted: ${overview.classes[index.predicted[number]]}, ${(100 * index.probability[number]).toFixed(0)} %`;
  caption.append(title, predicted, verdict);
  const opener = button("", () => detail.open(position));
  opener.title = index.ids[number];
  opener.append(strip.element, caption);
  element.append(opener);
  const describe = () => {
    const outcome = outcomeOf(number);
    const iou = iouOf(number);
    element.className = `tile view-${state.view} ${outcome ? "wrong" : "right"}`;
    verdict.textContent = OUTCOMES[outcome] + (iou === null ? "" : ` · IoU ${iou.toFixed(2)}`);
  };
  describe();
  return { element, strip, describe };
}
