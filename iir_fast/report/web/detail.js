// One image, large, with all that is known of it.

const DETAIL_PADDING = 24, DETAIL_GAP = 12; // px

const detail = {
  dialog: byId("detail"),
  position: 0,
  isOriginal: false, // whether the file itself is shown, in place of the pictures

  open(position) {
    this.position = position;
    if (!this.dialog.open) this.dialog.showModal();
    this.show();
    linkSoon();
  },

  show() {
    const number = gallery.order[this.position];
    const place = byId("detail-pictures");
    const width = this.dialog.clientWidth - 2 * DETAIL_PADDING;
    const abreast = this.isOriginal ? 1 : width < 600 ? 2 : 3;
    const each = Math.floor((width - DETAIL_GAP * (abreast - 1)) / abreast);
    const [across, down] = index.sizes[number];
    const names = this.isOriginal ? ["original"] : VIEWS.all;
    this.strip = new Strip(names, [each, Math.round((each * down) / across)], true);
    place.replaceChildren(this.strip.element);
    this.strip.onDraw = () => this.describe();
    this.strip.show(number, ({ message }) => (this.isOriginal ? this.refuse(message) : report(message)));
    const original = byId("original");
    original.textContent = `Original, ${across} × ${down} pixels`;
    original.setAttribute("aria-pressed", this.isOriginal);
    byId("detail-notice").hidden = true;
    byId("detail-title").textContent = index.ids[number];
    byId("previous").disabled = this.position === 0;
    byId("next").disabled = this.position === gallery.order.length - 1;
  },

  step(by) {
    const position = this.position + by;
    if (position >= 0 && position < gallery.order.length) this.open(position);
  },

  toggleOriginal() {
    this.isOriginal = !this.isOriginal;
    this.show();
  },

  refuse(message) {
    this.isOriginal = false;
    this.show();
    byId("detail-notice").textContent = message;
    byId("detail-notice").hidden = false;
  },

  describe() {
    const number = this.strip.number;
    const { record } = this.strip;
    const facts = [
      ["Class", overview.classes[index.labels[number]]],
      ["Predicted", `${overview.classes[index.predicted[number]]} (${(100 * index.probability[number]).toFixed(1)} %)`],
      ["Rank of the class", `${index.rank[number] + 1} of ${overview.classes.length}`],
      ["Outcome", OUTCOMES[outcomeOf(number)]],
      ["Predicted box", record.box(state.map, overview.taus[state.tau]).join(", "), "x0, y0, x1, y1 in image pixels"],
    ];
    if (hasBox(number)) {
      facts.push(["True box", record.trueBoxes.map((box) => box.join(", ")).join("; "), "likewise"]);
      facts.push(["IoU", iouOf(number).toFixed(2), "what both boxes share, of what they cover; right from 0.5 on"]);
    }
    document.querySelector("#facts dl").replaceChildren(
      ...facts.map(([name, value, explanation]) => {
        const pair = document.createElement("div");
        pair.append(cell("dt", name), cell("dd", value));
        if (explanation) pair.append(cell("dd", explanation));
        return pair;
      }));
  },

  redraw(names) {
    if (this.dialog.open) this.strip.redraw(names);
  },
};
