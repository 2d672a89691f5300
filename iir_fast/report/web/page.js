// The controls, and what each of them changes.

function applyFilters() {
  const order = select();
  byId("count").textContent = `${order.length.toLocaleString("en")} of ${COUNT.toLocaleString("en")} images.`;
  byId("csv").disabled = !order.length;
  gallery.setOrder(order);
  if (state.panel === "classes") drawClasses();
  linkSoon();
}

// Everything that follows the slider while it moves; filters wait until it rests and no image is open, so that nothing
// jumps.
function moveTau(tau) {
  state.tau = tau;
  for (const slider of document.querySelectorAll("input.tau")) {
    slider.value = tau;
    slider.setAttribute("aria-valuetext", tauText(overview.taus[tau]));
  }
  for (const output of document.querySelectorAll(".tau-value")) output.textContent = tauText(overview.taus[tau]);
  showCounts();
  readChart();
  gallery.redraw(MOVES_WITH_TAU);
  detail.redraw(MOVES_WITH_TAU);
}

function showCounts() {
  const counts = countOutcomes();
  const share = (count, all) => `${((100 * count) / all).toFixed(1)} %`;
  const { boxed, known, top1 } = countLocalized();
  const sample = COUNT === overview.images ? "" : " of those shown";
  byId("live").textContent = boxed
    ? `GT-known Loc ${share(known, boxed)}, Top-1 Loc ${share(top1, boxed)}${sample}`
    : `Right class ${share(counts[0], COUNT)}${sample}`;
  for (const output of document.querySelectorAll("#outcomes output"))
    output.textContent = output.dataset.outcome === "" ? COUNT : counts[Number(output.dataset.outcome)];
}

let wantedMap;

async function chooseMap(map, tau = overview.start[map]) {
  wantedMap = map;
  if (!tables.has(map)) {
    const table = await part(`iou-${map}`);
    tables.set(map, table && decodeBytes(table));
    iirParts.delete(`iou-${map}`);
  }
  if (map !== wantedMap) return; // another one was chosen while this one was loaded
  state.map = map;
  for (const choice of choicesOf("map")) choice.checked = choice.value === map;
  byId("reset").textContent = `Back to ${tauText(overview.taus[overview.start[map]])}`;
  markFigures();
  if (overview.metrics[map].curve_v1) drawChart();
  moveTau(overview.start[map]);
  checkFigures();
  moveTau(tau);
  applyFilters();
}

// Maps were made anew for this page: on another machine, or with other data, they may differ from those evaluated.
function checkFigures() {
  const evaluated = overview.metrics[state.map].gt_known_loc;
  if (COUNT !== overview.images || !tables.get(state.map)) return;
  const { boxed, known } = countLocalized();
  const here = (100 * known) / boxed;
  if (Math.abs(here - evaluated) > 1e-6)
    report(
      `The ${state.map} maps in this page give GT-known Loc ${percent(here)} % at the threshold where the evaluation found ` +
      `${percent(evaluated)} %: it was made with other data, weights or another device. Evaluate the run again.`);
}

function showPanel() {
  for (const panel of document.querySelectorAll(".panel")) panel.hidden = panel.id !== `${state.panel}-panel`;
  if (state.panel === "classes") drawClasses();
}

// The images of a class, or those of them that were taken for another one.
function filterBy(label, predicted) {
  Object.assign(state, { label: String(label), predicted: String(predicted), outcome: "" });
  showState();
  applyFilters();
  byId("toolbar").scrollIntoView();
}

// A group of radio buttons; options are [value, text, whether it has a count].
function makeChoice(id, options, chosen, onChoose) {
  for (const [value, text, counted] of options) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    input.type = "radio";
    input.name = id;
    input.value = value;
    input.checked = value === chosen;
    input.onchange = () => onChoose(value);
    const shown = document.createElement("span");
    shown.textContent = text;
    if (counted) {
      const output = document.createElement("output");
      output.dataset.outcome = value;
      shown.append(" ", output);
    }
    label.append(input, shown);
    byId(id).append(label);
  }
}

function setUp() {
  const shown = overview.images === COUNT ? "" : `, ${COUNT.toLocaleString("en")} of them shown`;
  byId("run").textContent = overview.run;
  document.title = `${overview.run}: iir_fast report`;
  byId("subtitle").textContent =
    `Split ${overview.split}, ${overview.images.toLocaleString("en")} images${shown}, ` +
    `${overview.classes.length.toLocaleString("en")} classes`;
  byId("configuration").textContent = overview.configuration;
  byId("footer").textContent = `iir_fast ${overview.version}`;
  const style = document.documentElement.style;
  for (const [name, colour] of Object.entries(overview.colours))
    style.setProperty(`--${name}`, `rgb(${colour.join(" ")})`);
  byId("original").hidden = overview.originals === null;
  const haveBoxes = overview.metrics[overview.maps[0]].curve_v1 !== null;
  byId("curves").hidden = !haveBoxes;
  for (const element of document.querySelectorAll(".boxes")) element.hidden = !haveBoxes;

  drawFigures();
  drawConfusions();
  const panels = { "": "images only", figures: "figures and curves", classes: "classes", configuration: "configuration" };
  makeChoice("panels", Object.entries(panels), "", (value) => {
    state.panel = value;
    showPanel();
    linkSoon();
  });
  makeChoice("maps", overview.maps.map((map) => [map, map]), state.map, (map) => orReport(chooseMap(map)));
  const outcomes = OUTCOMES.map((name, i) => [String(i), name, true]).slice(0, haveBoxes ? 4 : 2);
  makeChoice("outcomes", [["", "all", true], ...outcomes], "", (value) => {
    state.outcome = value;
    applyFilters();
  });
  for (const id of ["label", "predicted"])
    byId(id).append(...overview.classes.map((name, label) => new Option(name, label)));
  byId("view").onchange = ({ target }) => {
    state.view = target.value;
    gallery.layOut();
    linkSoon();
  };
  byId("csv").onclick = saveTable;
  byId("more").onclick = ({ target }) => (target.ariaExpanded = target.ariaExpanded !== "true");
  for (const name of ["label", "predicted", "low", "high", "search", "sort"])
    byId(name).addEventListener("input", ({ target }) => {
      state[name] = target.type === "number" ? Number(target.value || target.defaultValue) : target.value;
      applyFilters();
    });
  for (const slider of document.querySelectorAll("input.tau")) {
    slider.max = overview.taus.length - 1;
    slider.addEventListener("input", () => moveTau(slider.valueAsNumber));
    slider.addEventListener("change", () => detail.dialog.open || applyFilters());
  }
  byId("reset").onclick = () => {
    moveTau(overview.start[state.map]);
    applyFilters();
  };
  byId("previous").onclick = () => detail.step(-1);
  byId("next").onclick = () => detail.step(1);
  byId("original").onclick = () => detail.toggleOriginal();
  byId("close").onclick = () => detail.dialog.close();
  detail.dialog.onclose = applyFilters;
  detail.dialog.addEventListener("keydown", (event) => {
    if (event.target.type === "range") return;
    if (event.key === "ArrowLeft") detail.step(-1);
    if (event.key === "ArrowRight") detail.step(1);
  });
  addEventListener("scroll", () => gallery.update(), { passive: true });
  onWidth(gallery.element, () => gallery.layOut());
  if (haveBoxes) onWidth(byId("chart"), drawChart);
  addEventListener("hashchange", () => orReport(openLink()));
  orReport(openLink());
}

function onWidth(element, act) {
  let width = element.clientWidth;
  new ResizeObserver(() => {
    if (element.clientWidth === width) return;
    width = element.clientWidth;
    act();
  }).observe(element);
}

function orReport(work) {
  work.catch((error) => report(error.message));
}
