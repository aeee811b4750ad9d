// One sample as a card of the gallery, and closer, with all its scores.

const GRADES = {
  right: "right", partly: "partly right", wrong: "wrong",
  upper: "upper third", middle: "middle third", lower: "lower third", none: "not scored",
};
const SMALL = 96; // pixels; pictures up to here are shown with their pixels

class Cards {
  constructor(content) {
    this.content = content;
    this.several = content.runs.length > 1;
  }

  card(row) {
    const open = () => this.open(row);
    const words = make("button", { type: "button", class: "words", onclick: open, "aria-haspopup": "dialog" }, ...this.words(row, true));
    return make("article", { class: "card", "data-id": row.id }, this.medium(row, open), words);
  }

  words(row, brief) {
    const clamp = brief ? " clamp" : "";
    const parts = [];
    if (row.prompt) parts.push(make("span", { class: `question${clamp}`, dir: "auto" }, row.prompt));
    row.texts.forEach((text, run) => parts.push(this.prediction(row, text, run, clamp)));
    const wanted = brief ? row.wanted.slice(0, 3) : row.wanted;
    const more = row.wanted.length - wanted.length + row.more;
    if (wanted.length) {
      const texts = wanted.map((text) => make("span", { class: "reference", dir: "auto" }, text));
      parts.push(make("span", { class: "wanted-texts" }, ...texts, more ? make("span", { class: "muted" }, `and ${more} more`) : null));
    }
    const about = [row.id, row.type, row.media].filter(Boolean);
    parts.push(make("span", { class: "about" }, ...about.map((text) => make("bdi", {}, text))));
    return parts;
  }

  prediction(row, text, run, clamp) {
    const words = text === null ? "(no prediction)" : text || "(nothing)";
    return make(
      "span", { class: "prediction" },
      this.several ? dot(run) : null,
      make("span", { class: `text${clamp}`, dir: "auto" }, words),
      make("span", { class: "score" }, hundred(row.scores[run])),
      make("span", { class: `grade ${row.grades[run]}` }, GRADES[row.grades[run]]),
    );
  }

  medium(row, open) {
    const medium = row.shown ? this.content.media[row.media] : null;
    if (!medium) return make("div", { class: "medium absent" }, "not among the samples shown with their media");
    if (medium.fault) return make("div", { class: "medium absent" }, make("span", {}, "no preview: ", make("bdi", {}, medium.fault)));
    if (medium.sound) return this.sound(medium, row);
    const strip = medium.pictures.length > 1;
    const images = medium.pictures.map((url, n) => {
      const alt = strip ? `frame ${n + 1} of ${medium.pictures.length} of ${row.media}` : row.media;
      const image = make("img", { src: url, alt, class: strip ? null : "picture", decoding: "async" });
      image.addEventListener("load", () => image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL));
      return image;
    });
    return make("div", { class: `medium${strip ? " strip" : ""}`, onclick: open }, ...images);
  }

  sound(medium, row) {
    const head = make("span", { class: "head", hidden: true });
    const audio = make("audio", { controls: true, preload: "metadata", src: medium.sound, "aria-label": `sound of ${row.media}, ${medium.seconds} s` });
    audio.addEventListener("timeupdate", () => {
      head.hidden = false;
      head.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
    });
    const picture = make("img", { src: medium.pictures[0], alt: `spectrogram of ${row.media}` });
    return make("div", { class: "medium sound" }, make("div", { class: "spectrum" }, picture, head), audio);
  }

  open(row) {
    const dialog = byId("closer");
    const names = [...new Set(row.all.flatMap(Object.keys))];
    const head = make("tr", {}, make("th", { scope: "col" }, "Scores × 100"), ...this.content.runs.map((name, run) => make("th", { scope: "col", class: "num" }, this.several ? dot(run) : null, make("bdi", {}, name))));
    const lines = names.map((name) => make("tr", {}, make("th", { scope: "row" }, name), ...row.all.map((scores) => make("td", { class: "num" }, hundred(scores[name])))));
    const close = make("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close");
    const title = make("div", { class: "row" }, make("span", { class: "muted" }, row.task === "qa" ? "Question" : "Caption"), close);
    const inside = make("div", { class: "inside" }, title, make("div", { class: "words" }, ...this.words(row, false)));
    if (names.length) inside.append(make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines)));
    dialog.replaceChildren(this.medium(row, null), inside);
    dialog.showModal();
    close.focus();
  }
}
