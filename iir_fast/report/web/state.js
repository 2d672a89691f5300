// What is looked at, and what follows from it for every image.

const { index } = overview;
const COUNT = index.ids.length;
const RIGHT_FROM = 0.5 * overview.iouSteps;
const OUTCOMES = ["right", "wrong class", "wrong box", "both wrong"];
const state = {
  panel: "", // what is open above the images, "" for nothing
  map: overview.maps[0], // of the map
  tau: 0, // position in overview.taus
  view: "all",
  outcome: "", // position in OUTCOMES, "" for any
  label: "", // "" for any
  predicted: "", // likewise
  low: 0,
  high: 1,
  search: "",
  sort: "data",
};
// Per map floor(iouSteps * IoU) of every image at every threshold, [T * COUNT], noBox for an image without a box; null
// where there are no boxes.
const tables = new Map();
const byId = (id) => document.getElementById(id);

function report(message) {
  byId("notice").textContent = message;
  byId("notice").hidden = false;
}

function iouStepsOf(number) {
  return tables.get(state.map)[state.tau * COUNT + number];
}

function hasBox(number) {
  return Boolean(tables.get(state.map)) && iouStepsOf(number) !== overview.noBox;
}

function iouOf(number) {
  return hasBox(number) ? iouStepsOf(number) / overview.iouSteps : null;
}

// Position in OUTCOMES.
function outcomeOf(number) {
  const wrongClass = index.predicted[number] !== index.labels[number];
  const wrongBox = hasBox(number) && iouStepsOf(number) < RIGHT_FROM;
  return wrongClass + 2 * wrongBox;
}

function countOutcomes() {
  const counts = [0, 0, 0, 0];
  for (let number = 0; number < COUNT; ++number) ++counts[outcomeOf(number)];
  return counts;
}

// Of the images with a box: how many there are, how many are localized, and how many with the right class.
function countLocalized() {
  const counts = { boxed: 0, known: 0, top1: 0 };
  for (let number = 0; number < COUNT; ++number) {
    if (!hasBox(number)) continue;
    const outcome = outcomeOf(number);
    ++counts.boxed;
    counts.known += outcome < 2;
    counts.top1 += outcome === 0;
  }
  return counts;
}

// The images that pass every filter, sorted.
function select() {
  const wanted = state.outcome === "" ? null : Number(state.outcome);
  const label = state.label === "" ? null : Number(state.label);
  const predicted = state.predicted === "" ? null : Number(state.predicted);
  const search = state.search.toLowerCase();
  const order = [];
  for (let number = 0; number < COUNT; ++number) {
    if (wanted !== null && outcomeOf(number) !== wanted) continue;
    if (label !== null && index.labels[number] !== label) continue;
    if (predicted !== null && index.predicted[number] !== predicted) continue;
    const iou = iouOf(number);
    if (iou !== null && (iou < state.low || iou > state.high)) continue;
    if (search && !index.ids[number].toLowerCase().includes(search)) continue;
    order.push(number);
  }
  const keys = {
    worst: (number) => iouStepsOf(number),
    best: (number) => (hasBox(number) ? -iouStepsOf(number) : 1),
    confident: (number) => -index.probability[number],
    class: (number) => index.labels[number],
  };
  const key = keys[state.sort];
  return key ? order.sort((one, other) => key(one) - key(other)) : order;
}
