// One image, large, with all that is known of it.

const DETAIL_PADDING = 24, DETAIL_GAP = 12; // px

const detail = {
  dialog: byId("detail"),
  position: 0,

  open(position) {
    this.position = position;
    if (!this.dialog.open) this.dialog.showModal();
    this.show();
  },

  show() {
    const number = gallery.order[this.position];
    const place = byId("detail-pictures");
    const width = this.dialog.clientWidth - 2 * DETAIL_PADDING;
    const abreast = width < 600 ? 2 : 3;
    this.strip = new Strip(VIEWS.all, Math.floor((width - DETAIL_GAP * (abreast - 1)) / abreast));
    place.replaceChildren(this.strip.element);
    this.strip.onDraw = () => this.describe();
    this.strip.show(number);
    byId("detail-title").textContent = index.ids[number];
    byId("previous").disabled = this.position === 0;
    byId("next").disabled = this.position === gallery.order.length - 1;
  },

  step(by) {
    const position = this.position + by;
    if (position >= 0 && position < gallery.order.length) this.open(position);
  },

  describe() {
    const number = this.strip.number;
    const { record } = this.strip;
    const facts = [
      ["Class", overview.classes[index.labels[number]]],
      ["Predicted", `${overview.classes[index.predicted[number]]} (${(100 * index.probability[number]).toFixed(1)} %)`],
      ["Rank of the class", `${index.rank[number] + 1} of ${overview.classes.length}`],
      ["Outcome", OUTCOMES[outcomeOf(number)]],
      ["Predicted box", record.box(state.map, overview.taus[state.tau]).join(", ")],
    ];
    if (hasBox(number)) {
      facts.push(["True box", record.trueBoxes.map((box) => box.join(", ")).join("; ")]);
      facts.push(["IoU", iouOf(number).toFixed(2)]);
    }
    document.querySelector("#facts dl").replaceChildren(
      ...facts.map(([name, value]) => {
        const pair = document.createElement("div");
        pair.append(cell("dt", name), cell("dd", value));
        return pair;
      }));
  },

  redraw(names) {
    if (this.dialog.open) this.strip.redraw(names);
  },
};
