// The table of metrics, one row per map.

const percent = (value) => (value === null || value === undefined ? "–" : value.toFixed(1));

function columnsOf(metrics) {
  const fixed = metrics.fixed_threshold?.value;
  return [
    ["GT-known Loc, no box", metrics.no_box_gt_known_loc],
    ["MaxBoxAccV2", metrics.max_box_acc_v2],
    ...metrics.curves_v2.map((curve) => [`IoU ${curve.delta}`, curve.best, curve.threshold]),
    ["MaxBoxAcc", metrics.max_box_acc, metrics.curve_v1?.threshold],
    ["PxAP", metrics.pxap],
    ["GT-known Loc", metrics.gt_known_loc, fixed],
    ["Top-1 Loc", metrics.top1_loc, fixed],
    ["Top-5 Loc", metrics.top5_loc, fixed],
  ];
}

function drawFigures() {
  const table = document.getElementById("metrics");
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  const maps = overview.maps;
  const names = columnsOf(overview.metrics[maps[0]]).map(([name]) => name);
  for (const name of ["map", ...names]) head.append(cell("th", name, "col"));
  const body = table.createTBody();
  for (const map of maps) {
    const row = body.insertRow();
    row.dataset.map = map;
    row.append(cell("th", map, "row"));
    for (const [, value, tau] of columnsOf(overview.metrics[map])) {
      const data = cell("td", percent(value));
      if (tau !== undefined && value !== null) {
        const threshold = document.createElement("small");
        threshold.textContent = `τ ${tauText(tau)}`;
        data.append(threshold);
      }
      row.append(data);
    }
  }
}

// The row of the map that is looked at, and which split chose its thresholds.
function markFigures() {
  for (const row of document.querySelectorAll("#metrics tbody tr")) {
    row.classList.toggle("current", row.dataset.map === state.map);
  }
  const { split, fixed_threshold: fixed } = overview.metrics[state.map];
  document.getElementById("origin").textContent = fixed
    ? `MaxBoxAcc, V1 and V2, takes the best threshold τ on the evaluated split (${split}) itself, as its protocol ` +
      `has it. Threshold of GT-known and Top-k Loc, τ = ${tauText(fixed.value)}, chosen on: ${fixed.chosen_on}. ` +
      "No box: each image cut at a threshold of its own, which no box has chosen."
    : "The data have no boxes: metrics that need them are left out.";
}

function cell(tag, text, scope) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (scope) element.scope = scope;
  return element;
}

// At least two digits, more where the threshold has them.
function tauText(tau) {
  const digits = String(Number(tau.toFixed(6)));
  return digits.split(".")[1]?.length > 2 ? digits : tau.toFixed(2);
}
