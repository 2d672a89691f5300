// What is looked at stands in the address: a copied link opens the page as it is.

const LINKED = ["panel", "view", "outcome", "label", "predicted", "low", "high", "search", "sort"];
const atFirst = { ...state };
let linking;

// Browsers refuse an address that changes all the time.
function linkSoon() {
  clearTimeout(linking);
  linking = setTimeout(() => {
    if (linkText() !== location.hash.slice(1)) history.replaceState(null, "", `#${linkText()}`);
  }, 400);
}

// What differs from the page as it opens; classes by their names, the threshold by its value.
function linkText() {
  const link = new URLSearchParams();
  if (state.map !== atFirst.map) link.set("map", state.map);
  if (state.tau !== overview.start[state.map]) link.set("tau", overview.taus[state.tau]);
  for (const name of LINKED) {
    const isClass = name === "label" || name === "predicted";
    if (state[name] !== atFirst[name]) link.set(name, isClass ? overview.classes[state[name]] : state[name]);
  }
  if (detail.dialog.open) link.set("image", index.ids[gallery.order[detail.position]]);
  return link.toString();
}

// Takes from the address what the page has, and leaves the rest as it opens.
async function openLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  Object.assign(state, atFirst, { map: state.map, search: link.get("search") ?? "" });
  for (const name of ["label", "predicted"]) {
    const found = overview.classes.indexOf(link.get(name));
    if (found >= 0) state[name] = String(found);
  }
  for (const name of ["low", "high"]) {
    const value = Number.parseFloat(link.get(name));
    if (value >= 0 && value <= 1) state[name] = value;
  }
  for (const name of ["panel", "outcome", "view", "sort"])
    if (valuesOf(name).includes(link.get(name))) state[name] = link.get(name);
  const map = overview.maps.find((name) => name === link.get("map")) ?? atFirst.map;
  const distances = overview.taus.map((tau) => Math.abs(tau - Number.parseFloat(link.get("tau"))));
  const tau = distances.indexOf(Math.min(...distances));
  detail.dialog.close();
  showState();
  await chooseMap(map, tau < 0 ? overview.start[map] : tau);
  const position = gallery.order.indexOf(index.ids.indexOf(link.get("image")));
  if (position >= 0) detail.open(position);
}

// Every control as the state has it.
function showState() {
  for (const name of ["view", "label", "predicted", "low", "high", "search", "sort"]) byId(name).value = state[name];
  for (const name of ["panel", "outcome"])
    for (const choice of choicesOf(name)) choice.checked = choice.value === state[name];
  showPanel();
}

function choicesOf(name) {
  return [...document.querySelectorAll(`input[name="${name}s"]`)];
}

function valuesOf(name) {
  const options = byId(name)?.options ?? choicesOf(name);
  return [...options].map(({ value }) => value);
}

setUp();
