// From a map to a box as the evaluator makes it: bicubic to 224 x 224, stretched to [0, 1], cut in 8 bits, the largest
// contour.

const SIZE = 224;

// Where each of the SIZE output pixels reads along one side: four places and their weights (bicubic, a = -0.75, pixel
// centres aligned, places beyond the edge are the edge). As OpenCV has it, weights are float32 from the position on, every
// step of theirs rounded.
function bicubicTaps(length) {
  const f = Math.fround, A = -0.75;
  const near = (x) => f(f(f(f(f((A + 2) * x) - (A + 3)) * x) * x) + 1);
  const far = (x) => f(f(f(f(f(f(A * x) - 5 * A) * x) + 8 * A) * x) - 4 * A);
  return Array.from({ length: SIZE }, (_, i) => {
    const position = f((i + 0.5) * (1 / (SIZE / length)) - 0.5);
    const first = Math.floor(position), t = f(position - first);
    const before = far(f(t + 1)), here = near(t), after = near(f(1 - t));
    return {
      places: [-1, 0, 1, 2].map((step) => Math.min(Math.max(first + step, 0), length - 1)),
      weights: [before, here, after, f(f(f(1 - before) - here) - after)],
    };
  });
}

// The 8-bit image [SIZE * SIZE] of a map [height * width]: floor(255 map), zeros for a constant map or a bad value.
function greyLevels(map, height, width) {
  const grey = new Uint8Array(SIZE * SIZE);
  if (map.every((value) => value === map[0]) || !map.every(Number.isFinite)) return grey;
  const across = bicubicTaps(width), down = bicubicTaps(height);
  const rows = new Float64Array(height * SIZE);
  for (let y = 0; y < height; ++y)
    for (let x = 0; x < SIZE; ++x) {
      const { places, weights } = across[x];
      let sum = map[y * width + places[0]] * weights[0];
      for (let k = 1; k < 4; ++k) sum += map[y * width + places[k]] * weights[k];
      rows[y * SIZE + x] = sum;
    }
  const large = new Float64Array(SIZE * SIZE);
  let low = Infinity, high = -Infinity;
  for (let y = 0; y < SIZE; ++y) {
    const { places, weights } = down[y];
    for (let x = 0; x < SIZE; ++x) {
      let sum = rows[places[0] * SIZE + x] * weights[0];
      for (let k = 1; k < 4; ++k) sum += rows[places[k] * SIZE + x] * weights[k];
      large[y * SIZE + x] = sum;
      if (sum < low) low = sum;
      if (sum > high) high = sum;
    }
  }
  for (let i = 0; i < grey.length; ++i) grey[i] = Math.floor(((large[i] - low) / (high - low)) * 255);
  return grey;
}

// A pixel belongs to the mask where its grey level is above this one.
function cutLevel(grey, tau) {
  let highest = 0;
  for (const level of grey) if (level > highest) highest = level;
  return Math.floor(tau * highest);
}

// The image in a frame of background, and beyond that a row above and below that stops every search.
const STRIDE = SIZE + 2;
const FIRST = 2 * STRIDE + 1; // the first pixel of the image
const BACKGROUND = 0, FILLED = 1, OUTSIDE = 2, COMPONENTS = 3;
const EDGES = [-STRIDE, -1, 1, STRIDE];
const EDGES_AND_CORNERS = [...EDGES, -STRIDE - 1, -STRIDE + 1, STRIDE - 1, STRIDE + 1];
const cells = new Uint16Array(STRIDE * (SIZE + 4));
const waiting = new Int32Array(cells.length);

// Box x0, y0, x1, y1 of the largest contour above a grey level. Largest is the area of the polygon through the centres
// of the outline's pixels, holes included; of equal ones it is the one whose first pixel in reading order comes last,
// as OpenCV lists them. x1 and y1 are one further than the last pixel, but 223 at most.
function largestBox(grey, cut) {
  cells.fill(OUTSIDE);
  cells.fill(BACKGROUND, STRIDE, cells.length - STRIDE);
  for (let y = 0; y < SIZE; ++y)
    for (let x = 0; x < SIZE; ++x) if (grey[y * SIZE + x] > cut) cells[FIRST + y * STRIDE + x] = FILLED;
  // What cannot be reached from the frame is the mask or a hole in it.
  flood(STRIDE, EDGES, BACKGROUND, OUTSIDE);
  for (let i = 0; i < cells.length; ++i) if (cells[i] === BACKGROUND) cells[i] = FILLED;
  let count = 0;
  for (let i = FIRST; i < cells.length; ++i)
    if (cells[i] === FILLED) flood(i, EDGES_AND_CORNERS, FILLED, COMPONENTS + count++);
  if (!count) return [0, 0, 0, 0];
  const largest = COMPONENTS + largestArea(count);
  let x0 = SIZE, y0 = SIZE, x1 = 0, y1 = 0;
  for (let y = 0; y < SIZE; ++y)
    for (let x = 0; x < SIZE; ++x)
      if (cells[FIRST + y * STRIDE + x] === largest) {
        if (x < x0) x0 = x;
        if (x > x1) x1 = x;
        if (y < y0) y0 = y;
        y1 = y;
      }
  return [x0, y0, Math.min(x1 + 1, SIZE - 1), Math.min(y1 + 1, SIZE - 1)];
}

// A box of the map in pixels of an image of that size, as `localize` has it: where the protocol clips, the image ends,
// and halves are rounded to even.
function scaleBox([x0, y0, x1, y1], [width, height]) {
  const even = (value) => Math.round(value) - (Math.round(value) - value === 0.5 && Math.round(value) % 2);
  return [
    even((x0 * width) / SIZE), even((y0 * height) / SIZE),
    x1 >= SIZE - 1 ? width : even((x1 * width) / SIZE), y1 >= SIZE - 1 ? height : even((y1 * height) / SIZE),
  ];
}

// Number of the component of largest area. Of the square between four neighbouring centres, the polygon holds all if
// all four are in, and half if three are; twice the area is a whole number.
function largestArea(count) {
  const twice = new Int32Array(count);
  for (let i = FIRST; i < cells.length - STRIDE; ++i) {
    const a = cells[i], b = cells[i - 1], c = cells[i - STRIDE], d = cells[i - STRIDE - 1];
    const inside = (a !== OUTSIDE) + (b !== OUTSIDE) + (c !== OUTSIDE) + (d !== OUTSIDE);
    if (inside > 2) twice[(a !== OUTSIDE ? a : b) - COMPONENTS] += inside - 2;
  }
  return twice.lastIndexOf(twice.reduce((one, other) => Math.max(one, other)));
}

function flood(start, steps, from, to) {
  let depth = 1;
  cells[start] = to;
  waiting[0] = start;
  while (depth) {
    const i = waiting[--depth];
    for (let k = 0; k < steps.length; ++k) {
      const next = i + steps[k];
      if (cells[next] === from) {
        cells[next] = to;
        waiting[depth++] = next;
      }
    }
  }
}
