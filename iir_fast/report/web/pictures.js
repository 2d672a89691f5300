// The pictures of one image, side by side: the image, both CAMs, the map and the mask, with the boxes.

// A caption, and what is said of it where there is room.
const PICTURES = {
  image: () => ["Image", "as it is, with the true boxes"],
  "cam-a": () => ["CAM A", "where the first classifier sees the class: dark is nothing, light is most"],
  "cam-b": () => ["CAM B", "where the second one does"],
  map: () => [`Map: ${state.map}`, "what the box is cut out of, made of both"],
  mask: () => ["Mask", "the map above the threshold; the box is around its largest piece"],
  original: () => ["Original", "the file itself, with true and predicted box"],
};
const VIEWS = { all: ["image", "cam-a", "cam-b", "map", "mask"], mask: ["mask"], map: ["map"] };
const MOVES_WITH_TAU = ["map", "mask", "original"];

// Dark to light, so that it also reads without colour.
const HEAT_STOPS = [[10, 8, 40], [88, 24, 110], [190, 50, 90], [245, 130, 45], [252, 235, 150]];
const heatColours = rampColours(HEAT_STOPS);
const HEAT_OPACITY = 0.72;
const SHADE_OPACITY = 0.65; // of what is not in the mask

function rampColours(stops) {
  const colours = new Uint8ClampedArray(256 * 4);
  for (let level = 0; level < 256; ++level) {
    const position = (level / 255) * (stops.length - 1);
    const below = Math.min(Math.floor(position), stops.length - 2), share = position - below;
    for (let c = 0; c < 3; ++c)
      colours[4 * level + c] = stops[below][c] * (1 - share) + stops[below + 1][c] * share;
    colours[4 * level + 3] = 255;
  }
  return colours;
}

// A canvas of the protocol's size, its pixels looked up among 256 colours of four bytes each.
function paintPixels(grey, colours) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIZE;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(SIZE, SIZE);
  const from = new Uint32Array(colours.buffer), to = new Uint32Array(pixels.data.buffer);
  for (let i = 0; i < grey.length; ++i) to[i] = from[grey[i]];
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function shadeColours(cut) {
  const colours = new Uint8ClampedArray(256 * 4);
  for (let level = 0; level <= cut; ++level) colours[4 * level + 3] = 255 * SHADE_OPACITY;
  return colours;
}

// As large as fits into width and height.
function paint(canvas, name, record, [within, below]) {
  const picture = name === "original" ? record.original : record.thumbnail;
  const scale = Math.min(within / picture.naturalWidth, below / picture.naturalHeight);
  const density = Math.min(window.devicePixelRatio || 1, 2);
  canvas.style.width = `${picture.naturalWidth * scale}px`;
  canvas.style.height = `${picture.naturalHeight * scale}px`;
  canvas.width = Math.round(picture.naturalWidth * scale * density);
  canvas.height = Math.round(picture.naturalHeight * scale * density);
  const context = canvas.getContext("2d");
  const cover = (layer) => context.drawImage(layer, 0, 0, canvas.width, canvas.height);
  const tau = overview.taus[state.tau];
  cover(picture);
  if (name === "cam-a" || name === "cam-b" || name === "map") {
    context.globalAlpha = HEAT_OPACITY;
    cover(record.heat(name === "map" ? state.map : name));
    context.globalAlpha = 1;
  }
  if (name === "mask") {
    const grey = record.grey(state.map);
    cover(paintPixels(grey, shadeColours(cutLevel(grey, tau))));
  }
  if (name !== "cam-a" && name !== "cam-b")
    for (const box of record.trueBoxes) outline(context, box, record.size, overview.colours.true, density, true);
  if (MOVES_WITH_TAU.includes(name))
    outline(context, record.box(state.map, tau), record.size, overview.colours.predicted, density);
}

function outline(context, box, size, colour, density, dashed = false) {
  const { width, height } = context.canvas;
  const line = 2 * density;
  const [left, top, right, bottom] = box.map((edge, i) => (edge * (i % 2 ? height : width)) / size[i % 2]);
  context.setLineDash(dashed ? [3 * line, 1.5 * line] : []);
  context.lineWidth = line;
  context.strokeStyle = `rgb(${colour.join(" ")})`;
  const inset = line / 2;
  context.strokeRect(
    left + inset, top + inset, Math.max(right - left - line, 0), Math.max(bottom - top - line, 0));
}

// Canvases of one image. They are drawn when there is time, a few per frame.
class Strip {
  constructor(names, room, isExplained = false) {
    this.room = room; // width and height of each
    this.isExplained = isExplained;
    this.element = document.createElement("div");
    this.element.className = "strip";
    this.canvases = new Map();
    for (const name of names) {
      const figure = document.createElement("figure");
      const canvas = document.createElement("canvas");
      const caption = document.createElement("figcaption");
      figure.style.width = `${room[0]}px`;
      const place = document.createElement("div");
      place.style.height = `${room[1]}px`;
      place.append(canvas);
      figure.append(place, caption);
      this.element.append(figure);
      this.canvases.set(name, { canvas, caption });
    }
  }

  async show(number, onError = (error) => report(error.message)) {
    this.number = number;
    this.record = undefined;
    try {
      const record = await openRecord(number);
      if (this.canvases.has("original")) record.original = await openOriginal(number);
      if (this.number !== number) return;
      this.record = record;
      this.redraw();
    } catch (error) {
      onError(error);
    }
  }

  redraw(names = [...this.canvases.keys()]) {
    this.stale = new Set([...(this.stale ?? []), ...names]);
    drawSoon(this);
  }

  draw() {
    if (!this.record || !this.element.isConnected) return;
    for (const name of this.stale) {
      if (!this.canvases.has(name)) continue;
      const { canvas, caption } = this.canvases.get(name);
      paint(canvas, name, this.record, this.room);
      const [title, explanation] = PICTURES[name]();
      caption.textContent = title;
      if (this.isExplained) caption.append(cell("small", explanation));
    }
    this.stale.clear();
    this.onDraw?.();
  }
}

const FRAME_BUDGET = 12; // ms
const undrawn = new Set();

function drawSoon(strip) {
  if (!undrawn.size) requestAnimationFrame(drawSome);
  undrawn.add(strip);
}

function drawSome() {
  const end = performance.now() + FRAME_BUDGET;
  for (const strip of undrawn) {
    undrawn.delete(strip);
    strip.draw();
    if (performance.now() > end) break;
  }
  if (undrawn.size) requestAnimationFrame(drawSome);
}
