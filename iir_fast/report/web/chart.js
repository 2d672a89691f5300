// Accuracy at every threshold, drawn as SVG; a rule follows the pointer, or else the slider.

const CHART = { height: 280, left: 40, right: 12, top: 28, bottom: 46 };
const pointed = { tau: null };

function curvesOf(map) {
  const { curves_v2: all, curve_v1: largest } = overview.metrics[map];
  const curves = all.map((curve, i) => ({ ...curve, name: `IoU ${curve.delta}`, style: `v2-${i}` }));
  if (largest) curves.push({ ...largest, name: `IoU ${largest.delta}, largest contour only`, style: "v1" });
  return curves;
}

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function drawChart() {
  const place = document.getElementById("chart");
  const width = Math.max(place.clientWidth, 240);
  const across = (tau) => CHART.left + tau * (width - CHART.left - CHART.right);
  const down = (value) => CHART.top + (1 - value / 100) * (CHART.height - CHART.top - CHART.bottom);
  const picture = svg("svg", { width, height: CHART.height, "aria-hidden": "true" });
  for (const value of [0, 25, 50, 75, 100]) {
    picture.append(svg("line", { class: "grid", x1: across(0), x2: across(1), y1: down(value), y2: down(value) }));
    picture.append(svg("text", { x: CHART.left - 8, y: down(value) + 4, "text-anchor": "end" }, value));
  }
  for (const tau of [0, 0.2, 0.4, 0.6, 0.8, 1])
    picture.append(svg("text", { x: across(tau), y: CHART.height - 28, "text-anchor": "middle" }, tau.toFixed(1)));
  picture.append(svg("text", { x: across(0.5), y: CHART.height - 8, "text-anchor": "middle" }, "threshold τ"));
  picture.append(svg("text", { x: 0, y: 12 }, "% of images with a right box"));
  const { step } = overview.metrics[state.map];
  for (const curve of curvesOf(state.map)) {
    const points = curve.accuracy.map((value, i) => `${across(i * step).toFixed(1)},${down(value).toFixed(1)}`);
    picture.append(svg("polyline", { class: `curve ${curve.style}`, points: points.join(" ") }));
    if (curve.style !== "v1")
      picture.append(
        svg("circle", { class: `best ${curve.style}`, cx: across(curve.threshold), cy: down(curve.best), r: 4 }));
  }
  const rule = svg("line", { class: "rule", y1: CHART.top, y2: CHART.height - CHART.bottom });
  picture.append(rule);
  place.replaceChildren(picture);
  place.setAttribute("aria-label", `Percent of images with a right box at each threshold, ${state.map} map`);
  pointed.rule = (tau) => ["x1", "x2"].forEach((end) => rule.setAttribute(end, across(tau)));
  picture.onpointermove = ({ offsetX }) => {
    const tau = (offsetX - CHART.left) / (width - CHART.left - CHART.right);
    pointed.tau = Math.min(Math.max(tau, 0), 1);
    readChart();
  };
  picture.onpointerleave = () => {
    pointed.tau = null;
    readChart();
  };
  readChart();
}

// What the curves say under the pointer, or at the slider's threshold, and where each is highest.
function readChart() {
  const { step } = overview.metrics[state.map];
  const curves = curvesOf(state.map);
  if (!curves.length) return;
  const tau = pointed.tau ?? overview.taus[state.tau];
  const i = Math.min(Math.round(tau / step), curves[0].accuracy.length - 1);
  pointed.rule(i * step);
  const table = document.getElementById("readout");
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  for (const name of ["all contours", `τ ${tauText(i * step)}`, "best"]) head.append(cell("th", name, "col"));
  const body = table.createTBody();
  for (const curve of curves) {
    const row = body.insertRow();
    const name = cell("th", curve.name, "row");
    name.className = `curve-name ${curve.style}`;
    row.append(name, cell("td", percent(curve.accuracy[i])), cell("td", percent(curve.best)));
    row.lastChild.append(cell("small", `τ ${tauText(curve.threshold)}`));
  }
}
