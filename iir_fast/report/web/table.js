// What is filtered, as CSV.

function csvOf(order) {
  const header = ["image", "class", "predicted", "probability", "rank", "map", "threshold", "iou", "outcome"];
  const rows = order.map((number) => [
    index.ids[number],
    overview.classes[index.labels[number]],
    overview.classes[index.predicted[number]],
    index.probability[number],
    index.rank[number] + 1,
    state.map,
    overview.taus[state.tau],
    iouOf(number) ?? "",
    OUTCOMES[outcomeOf(number)],
  ]);
  // As in the CSV of `localize`: a text that a spreadsheet would run as a formula gets an apostrophe.
  const inert = (value) => (typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value));
  const field = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return [header, ...rows].map((row) => `${row.map((value) => field(inert(value))).join(",")}\r\n`).join("");
}

function saveTable() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csvOf(gallery.order)], { type: "text/csv" }));
  link.download = `${overview.run} ${overview.split}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
