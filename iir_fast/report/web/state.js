// What is looked at, and what follows from it for every image.

const { index } = overview;
const COUNT = index.ids.length;
const RIGHT_FROM = 0.5 * overview.iouSteps;
const OUTCOMES = ["right", "wrong class", "wrong box", "both wrong"];
const state = {
  map: overview.maps[0], // of the map
  tau: 0, // position in overview.taus
  view: "all",
  outcome: "", // position in OUTCOMES, "" for any
  label: "", // "" for any
  low: 0,
  high: 1,
  search: "",
  sort: "data",
};
// Per map floor(iouSteps * IoU) of every image at every threshold, [T * COUNT]; null where there are no boxes.
const tables = new Map();
const byId = (id) => document.getElementById(id);

function report(message) {
  byId("notice").textContent = message;
  byId("notice").hidden = false;
}

function iouStepsOf(number) {
  return tables.get(state.map)[state.tau * COUNT + number];
}

function iouOf(number) {
  return tables.get(state.map) ? iouStepsOf(number) / overview.iouSteps : null;
}

// Position in OUTCOMES.
function outcomeOf(number) {
  const wrongClass = index.predicted[number] !== index.labels[number];
  const wrongBox = tables.get(state.map) ? iouStepsOf(number) < RIGHT_FROM : false;
  return wrongClass + 2 * wrongBox;
}

function countOutcomes() {
  const counts = [0, 0, 0, 0];
  for (let number = 0; number < COUNT; ++number) ++counts[outcomeOf(number)];
  return counts;
}

// The images that pass every filter, sorted.
function select() {
  const wanted = state.outcome === "" ? null : Number(state.outcome);
  const label = state.label === "" ? null : Number(state.label);
  const search = state.search.toLowerCase();
  const order = [];
  for (let number = 0; number < COUNT; ++number) {
    if (wanted !== null && outcomeOf(number) !== wanted) continue;
    if (label !== null && index.labels[number] !== label) continue;
    const iou = iouOf(number);
    if (iou !== null && (iou < state.low || iou > state.high)) continue;
    if (search && !index.ids[number].toLowerCase().includes(search)) continue;
    order.push(number);
  }
  const keys = {
    worst: (number) => iouStepsOf(number),
    best: (number) => -iouStepsOf(number),
    confident: (number) => -index.probability[number],
    class: (number) => index.labels[number],
  };
  const key = keys[state.sort];
  return key ? order.sort((one, other) => key(one) - key(other)) : order;
}
