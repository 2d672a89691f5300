// Classes one by one, and what they are taken for, at the slider's threshold.

const MATRIX_LIMIT = 20; // classes; of more the pairs are listed
const LISTED_PAIRS = 50;
const CLASS_COLUMNS = ["class", "images", "Top-1 Cls", "GT-known Loc", "Top-1 Loc", "mean IoU"];
const classOrder = { column: 3, isRising: true };

// Per class its number, images, shares in percent and mean IoU, null where there is nothing to count.
function tallyClasses() {
  const tallies = overview.classes.map(() => ({ images: 0, classified: 0, boxed: 0, known: 0, top1: 0, iou: 0 }));
  for (let number = 0; number < COUNT; ++number) {
    const tally = tallies[index.labels[number]];
    const outcome = outcomeOf(number);
    ++tally.images;
    tally.classified += outcome % 2 === 0;
    if (!hasBox(number)) continue;
    ++tally.boxed;
    tally.known += outcome < 2;
    tally.top1 += outcome === 0;
    tally.iou += iouOf(number);
  }
  const share = (count, all) => (all ? (100 * count) / all : null);
  return tallies.map(({ images, classified, boxed, known, top1, iou }, label) => [
    label, images, share(classified, images), share(known, boxed), share(top1, boxed), boxed ? iou / boxed : null,
  ]);
}

function drawClasses() {
  const { column, isRising } = classOrder;
  const table = byId("classes");
  const isFocused = table.tHead?.contains(document.activeElement);
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  CLASS_COLUMNS.forEach((name, i) => {
    const title = cell("th", "", "col");
    const sorter = button(i === column ? `${name} ${isRising ? "↑" : "↓"}` : name, () => {
      classOrder.isRising = i === column ? !isRising : true;
      classOrder.column = i;
      drawClasses();
    });
    if (i === column) title.ariaSort = isRising ? "ascending" : "descending";
    title.append(sorter);
    head.append(title);
    if (isFocused && i === classOrder.column) sorter.focus();
  });
  // Nothing to count comes last.
  const key = (row) => (column ? row[column] ?? (isRising ? Infinity : -Infinity) : overview.classes[row[0]]);
  const compare = (one, other) => (one < other ? -1 : Number(one > other));
  const rows = tallyClasses().sort((one, other) => (isRising ? 1 : -1) * compare(key(one), key(other)));
  const body = table.createTBody();
  for (const [label, images, ...shares] of rows) {
    const title = cell("th", "", "row");
    title.append(button(overview.classes[label], () => filterBy(label, "")));
    const iou = shares.pop();
    body.insertRow().append(
      title, cell("td", images), ...shares.map((share) => cell("td", percent(share))),
      cell("td", iou === null ? "–" : iou.toFixed(2)));
  }
}

function drawConfusions() {
  const classes = overview.classes.length;
  const counts = new Map(); // by class * classes + prediction
  for (let number = 0; number < COUNT; ++number) {
    const key = index.labels[number] * classes + index.predicted[number];
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const isMatrix = classes <= MATRIX_LIMIT;
  byId("confusions-note").textContent = isMatrix
    ? "Rows are the classes, columns what was predicted, by the number before a class. A count shows its images."
    : `The ${LISTED_PAIRS} most frequent errors. A count shows its images.`;
  (isMatrix ? drawMatrix : drawPairs)(byId("confusions"), counts, classes);
}

function drawMatrix(table, counts, classes) {
  table.className = "matrix";
  const head = table.createTHead().insertRow();
  head.append(cell("th", "class", "col"), ...overview.classes.map((_, label) => cell("th", label + 1, "col")));
  const body = table.createTBody();
  overview.classes.forEach((name, label) => {
    const row = body.insertRow();
    row.append(cell("th", `${label + 1} ${name}`, "row"));
    const counted = overview.classes.map((_, predicted) => counts.get(label * classes + predicted) ?? 0);
    const all = counted.reduce((one, other) => one + other, 0);
    counted.forEach((count, predicted) => {
      const data = row.insertCell();
      if (!count) return;
      data.className = predicted === label ? "agreed" : "confused";
      data.style.setProperty("--share", `${Math.round((40 * count) / all)}%`);
      const show = button(count, () => filterBy(label, predicted));
      show.ariaLabel = `${count} of ${name} predicted as ${overview.classes[predicted]}`;
      data.append(show);
    });
  });
}

function drawPairs(table, counts, classes) {
  table.createTHead().insertRow().append(...["class", "predicted", "images"].map((name) => cell("th", name, "col")));
  const body = table.createTBody();
  const pairs = [...counts].map(([key, count]) => [Math.floor(key / classes), key % classes, count]);
  const confused = pairs.filter(([label, predicted]) => label !== predicted).sort((one, other) => other[2] - one[2]);
  for (const [label, predicted, count] of confused.slice(0, LISTED_PAIRS)) {
    const data = cell("td", "");
    data.append(button(count, () => filterBy(label, predicted)));
    body.insertRow().append(
      cell("th", overview.classes[label], "row"), cell("td", overview.classes[predicted]), data);
  }
}

function button(text, act) {
  const element = cell("button", text);
  element.type = "button";
  element.onclick = act;
  return element;
}
