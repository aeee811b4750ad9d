// The list of samples: filters, search, order, and a page of cards at a time, so that thousands of them stay fast.

const PAGE = 24; // cards
const COLLATOR = new Intl.Collator("en", { numeric: true });
const TASKS = { qa: "questions", caption: "captions" };

function plain(text) {
  return text.normalize("NFKC").toLowerCase();
}

class Gallery {
  constructor(content, cards) {
    this.content = content;
    this.cards = cards;
    this.rows = content.rows;
    this.page = 0;
    this.form = byId("filters");
    this.texts = new Map(); // of rows searched before
    this.offer("task", this.rows.map((row) => row.task), (task) => TASKS[task]);
    this.offer("grade", Object.keys(GRADES).filter((one) => this.rows.some((row) => row.grades.includes(one))), (one) => GRADES[one]);
    this.offer("type", this.rows.filter((row) => row.task === "qa").map((row) => row.type || row.start).sort(COLLATOR.compare), String);
    byId("with-media").defaultChecked = this.rows.some((row) => !row.shown) && this.rows.some((row) => row.shown);
    this.form.reset();
    this.form.addEventListener("input", () => this.update());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("reset", () => setTimeout(() => this.update()));
    byId("previous").addEventListener("click", () => this.turn(-1));
    byId("next").addEventListener("click", () => this.turn(1));
    document.addEventListener("keydown", (event) => this.key(event));
    this.update();
  }

  offer(id, values, name) {
    const select = byId(id);
    const distinct = [...new Set(values)].filter(Boolean);
    select.append(...distinct.map((value) => make("option", { value }, name(value))));
    if (distinct.length < 2) select.parentElement.hidden = true;
  }

  value(id) {
    return byId(id)?.value ?? "";
  }

  // The run that the first one is compared with.
  get other() {
    return Number(this.value("other") || 1);
  }

  change(row) {
    const [one, two] = [row.scores[0], row.scores[this.other]];
    return one === null || two === null || two === undefined ? 0 : two - one;
  }

  searched(row) {
    if (!this.texts.has(row)) {
      this.texts.set(row, plain([row.id, row.media, row.prompt, ...row.wanted, ...row.texts.map((text) => text ?? "")].join("\n")));
    }
    return this.texts.get(row);
  }

  hasChanged(row, how) {
    const by = this.change(row);
    const same = row.texts[0] === row.texts[this.other];
    return { texts: !same, same, better: by > 0, worse: by < 0 }[how];
  }

  update() {
    const words = plain(this.value("query")).split(/\s+/).filter(Boolean);
    const [task, grade, type, change] = ["task", "grade", "type", "change"].map((id) => this.value(id));
    const media = byId("with-media").checked;
    this.matching = this.rows.filter(
      (row) =>
        (!task || row.task === task) &&
        (!grade || row.grades.includes(grade)) &&
        (!type || (row.task === "qa" && (row.type || row.start) === type)) &&
        (!change || this.hasChanged(row, change)) &&
        (!media || row.shown) &&
        words.every((word) => this.searched(row).includes(word)),
    );
    this.order(this.value("sort"));
    this.page = 0;
    this.show();
  }

  order(how) {
    const score = (row) => row.scores[0] ?? -1;
    const orders = {
      worst: (a, b) => score(a) - score(b),
      best: (a, b) => score(b) - score(a),
      change: (a, b) => Math.abs(this.change(b)) - Math.abs(this.change(a)),
      id: (a, b) => COLLATOR.compare(a.id, b.id),
    };
    this.matching.sort(orders[how]);
  }

  get pages() {
    return Math.max(1, Math.ceil(this.matching.length / PAGE));
  }

  turn(by) {
    const page = Math.max(0, Math.min(this.page + by, this.pages - 1));
    if (page === this.page) return;
    this.page = page;
    this.show();
    byId("filters").scrollIntoView({ block: "start" });
  }

  show() {
    const first = this.page * PAGE;
    const here = this.matching.slice(first, first + PAGE);
    const total = this.matching.length.toLocaleString("en");
    byId("count").textContent = here.length ? `${(first + 1).toLocaleString("en")} to ${(first + here.length).toLocaleString("en")} of ${total} samples` : "No sample is like that.";
    byId("page-number").textContent = `page ${this.page + 1} of ${this.pages.toLocaleString("en")}`;
    byId("previous").disabled = this.page === 0;
    byId("next").disabled = this.page >= this.pages - 1;
    byId("gallery").replaceChildren(...here.map((row) => this.cards.card(row)));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("closer").open) return;
    if (event.target.closest("input, select, textarea, audio")) return;
    if (event.key === "/") {
      event.preventDefault();
      byId("query").focus();
    } else if (event.key === "ArrowRight") this.turn(1);
    else if (event.key === "ArrowLeft") this.turn(-1);
  }

  // Set the filters to these values, the others to none, and go there.
  look(values) {
    this.form.reset();
    byId("with-media").checked = false;
    for (const [id, value] of Object.entries(values)) if (byId(id)) byId(id).value = value;
    this.update();
    byId("samples").scrollIntoView();
    byId("samples").focus({ preventScroll: true });
  }
}
