// The table of metrics, one column per map.

const percent = (value) => (value === null || value === undefined ? "–" : value.toFixed(1));

// Name, what it says, value and, where it was taken at one, threshold.
function rowsOf(metrics) {
  const fixed = metrics.fixed_threshold?.value;
  const { curve_v1: largest, piou, miou } = metrics;
  const most = "at the threshold where they are most";
  return [
    ["GT-known Loc", "right boxes: IoU 0.5 or more, at one threshold for all images", metrics.gt_known_loc, fixed],
    ["Top-1 Loc", "right box, and the class is the one predicted", metrics.top1_loc, fixed],
    ["Top-5 Loc", "right box, and the class is among the five likeliest", metrics.top5_loc, fixed],
    ["Top-1 Cls", "the class is the one predicted, wherever the box", metrics.top1_accuracy],
    ["Top-5 Cls", "the class is among the five likeliest, wherever the box", metrics.top5_accuracy],
    ["GT-known Loc, no box", "right boxes, each image at a threshold of its own, which no box has chosen",
      metrics.no_box_gt_known_loc],
    ["MaxBoxAcc", `right boxes, ${most}`, metrics.max_box_acc, largest?.threshold],
    ["MaxBoxAccV2", "mean of the next ones, which take any piece of the mask, not only the largest",
      metrics.max_box_acc_v2],
    ...metrics.curves_v2.map(
      ({ delta, best, threshold }) => [`IoU ${delta}`, `boxes from it on, ${most}`, best, threshold]),
    ["PxAP", "pixels against true masks: area under precision over recall", metrics.pxap],
    ["pIoU", "IoU of all objects' pixels, at the threshold where it is largest", piou?.best, piou?.threshold],
    ["mIoU", "mean of that and of the background's, likewise", miou?.best, miou?.threshold],
  ];
}

function drawFigures() {
  const table = byId("metrics");
  const { maps } = overview;
  const columns = maps.map((map) => rowsOf(overview.metrics[map]));
  table.createTHead().insertRow().append(...["in %", ...maps].map((name) => cell("th", name, "col")));
  const body = table.createTBody();
  columns[0].forEach(([name, explanation], i) => {
    const figures = columns.map((rows) => rows[i].slice(2));
    if (figures.every(([value]) => value === null || value === undefined)) return;
    const title = cell("th", name, "row");
    title.append(cell("small", explanation));
    body.insertRow().append(title, ...figures.map(([value, tau]) => {
      const data = cell("td", percent(value));
      if (tau !== undefined && tau !== null) data.append(cell("small", `τ ${tauText(tau)}`));
      return data;
    }));
  });
}

// The column of the map that is looked at, and which split chose its thresholds.
function markFigures() {
  const column = overview.maps.indexOf(state.map) + 1;
  for (const row of byId("metrics").rows)
    [...row.cells].forEach((each, i) => each.classList.toggle("current", i === column));
  const { split, fixed_threshold: fixed } = overview.metrics[state.map];
  byId("origin").textContent = fixed
    ? "A threshold τ is a share of the map's maximum: what lies above is mask. MaxBoxAcc, V1 and V2, pIoU and mIoU " +
      `take the best one on the evaluated split (${split}) itself, as their protocols have it. Threshold of GT-known ` +
      `and Top-k Loc, τ = ${tauText(fixed.value)}, chosen on: ${fixed.chosen_on}.`
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
