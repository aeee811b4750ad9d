// Curves and histograms as SVG, drawn for the width that there is, with their values at the pointer or the arrow keys.

const MARGIN = { left: 46, right: 14, top: 12, bottom: 34 };
const HEIGHT = 250;

function niceStep(span, most) {
  const rough = span / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((one) => one * power).find((step) => step >= rough * 0.999);
}

function ticks(low, high, most) {
  const step = niceStep(high - low || 1, most);
  const first = Math.ceil(low / step - 1e-9);
  const values = [];
  for (let n = first; n * step <= high + step * 1e-6; n += 1) values.push(n * step);
  return values;
}

// Ticks of a scale that ends with one of them.
function roundUp(low, high, most) {
  const step = niceStep(high - low || 1, most);
  const values = [];
  for (let n = Math.floor(low / step + 1e-9); values.push(n * step) && n * step < high - step * 1e-6; n += 1);
  return values;
}

function label(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toFixed(1)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toFixed(1)}k`;
  return String(+value.toPrecision(3));
}

class Tooltip {
  constructor() {
    this.box = byId("tooltip");
  }

  show(x, y, lines) {
    this.box.replaceChildren(...lines);
    this.box.hidden = false;
    const { width, height } = this.box.getBoundingClientRect();
    const left = x + 14 + width > innerWidth ? x - width - 14 : x + 14;
    this.box.style.left = `${Math.max(4, left)}px`;
    this.box.style.top = `${Math.max(4, Math.min(y - height / 2, innerHeight - height - 4))}px`;
  }

  hide() {
    this.box.hidden = true;
  }
}

// A plot with a place for each stop of the pointer: `stops` are x values, `tell(at)` the tooltip's lines.
class Plot {
  constructor(figure, tooltip) {
    this.figure = figure;
    this.tooltip = tooltip;
    this.at = null;
    this.holder = make("div");
    figure.append(this.holder);
    new ResizeObserver(() => this.drawAgain()).observe(this.holder);
  }

  drawAgain() {
    const width = Math.floor(this.holder.clientWidth);
    if (!width || width === this.width) return;
    this.width = width;
    const { low, high, left, right, xTicks, yTicks } = this.ranges();
    this.x = (value) => MARGIN.left + ((value - left) / (right - left || 1)) * (width - MARGIN.left - MARGIN.right);
    this.y = (value) => HEIGHT - MARGIN.bottom - ((value - low) / (high - low || 1)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, tabindex: "0", role: "img", "aria-label": this.title() });
    for (const [at, text] of yTicks) {
      svg.append(draw("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: this.y(at), y2: this.y(at) }));
      svg.append(draw("text", { x: MARGIN.left - 7, y: this.y(at) + 4, "text-anchor": "end" }, text));
    }
    for (const [at, text] of xTicks) {
      svg.append(draw("text", { x: this.x(at), y: HEIGHT - MARGIN.bottom + 17, "text-anchor": "middle" }, text));
    }
    svg.append(draw("text", { x: width - MARGIN.right, y: HEIGHT - 3, "text-anchor": "end" }, this.xName));
    this.paint(svg);
    this.cursor = draw("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
    svg.append(this.cursor);
    this.listen(svg);
    this.holder.replaceChildren(svg);
  }

  listen(svg) {
    const leave = () => {
      this.cursor.setAttribute("visibility", "hidden");
      this.tooltip.hide();
    };
    svg.addEventListener("pointermove", (event) => {
      const x = event.clientX - svg.getBoundingClientRect().left;
      const gaps = this.stops.map((stop) => Math.abs(this.x(stop) - x));
      this.point(svg, gaps.indexOf(Math.min(...gaps)));
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      this.point(svg, this.at === null ? 0 : this.at + by);
    });
  }

  point(svg, at) {
    if (!this.stops.length) return;
    this.at = Math.max(0, Math.min(at, this.stops.length - 1));
    const x = this.x(this.stops[this.at]);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.cursor.setAttribute("visibility", "visible");
    const box = svg.getBoundingClientRect();
    this.tooltip.show(box.left + x, box.top + HEIGHT / 2, this.tell(this.at));
  }

  legend(entries) {
    this.figure.append(make("ul", { class: "legend" }, ...entries));
  }
}

class CurvePlot extends Plot {
  constructor(figure, tooltip, runs, series, factor) {
    super(figure, tooltip);
    this.runs = runs;
    this.series = series.map((one) => ({ ...one, points: one.points.map(([step, value]) => [step, value * factor]) }));
    this.stops = [...new Set(this.series.flatMap((one) => one.points.map(([step]) => step)))].sort((a, b) => a - b);
    this.xName = "step";
    const several = runs.length > 1;
    this.legend(this.series.map((one) => make("li", {}, make("span", { class: `key run${one.run % 6}${one.validation ? "" : " train"}` }), this.name(one, several))));
  }

  name(one, several) {
    const kind = one.validation ? "validation" : "training";
    return several ? `${this.runs[one.run]}, ${kind}` : kind;
  }

  title() {
    return `${this.figure.querySelector("figcaption").textContent}, over steps; ${this.series.length} curves`;
  }

  ranges() {
    const values = this.series.flatMap((one) => one.points.map(([, value]) => value));
    const low = Math.min(0, ...values);
    const yTicks = roundUp(low, Math.max(...values, low + 1e-6), 5);
    const [left, right] = [Math.min(0, this.stops[0]), this.stops.at(-1)];
    const words = (at) => [at, label(at)];
    return { low, high: yTicks.at(-1), left, right, yTicks: yTicks.map(words), xTicks: ticks(left, right, 6).map(words) };
  }

  paint(svg) {
    for (const one of this.series) {
      const places = one.points.map(([step, value]) => [this.x(step).toFixed(1), this.y(value).toFixed(1)]);
      const colour = `run${one.run % 6}`;
      svg.append(draw("path", { class: `${colour}${one.validation ? "" : " train"}`, d: `M${places.map((place) => place.join(" ")).join("L")}` }));
      if (one.validation && places.length < 40) {
        svg.append(...places.map(([x, y]) => draw("circle", { class: colour, cx: x, cy: y, r: 3.5 })));
      }
    }
  }

  tell(at) {
    const step = this.stops[at];
    const lines = [make("div", {}, `step ${step.toLocaleString("en")}`)];
    for (const one of this.series) {
      const gaps = one.points.map(([there]) => Math.abs(there - step));
      const [there, value] = one.points[gaps.indexOf(Math.min(...gaps))];
      const note = there === step ? "" : ` (step ${there.toLocaleString("en")})`;
      lines.push(make("div", {}, dot(one.run), `${this.name(one, this.runs.length > 1)} ${label(value)}${note}`));
    }
    return lines;
  }
}

class Histogram extends Plot {
  constructor(figure, tooltip, runs, bins) {
    super(figure, tooltip);
    this.runs = runs;
    this.edges = bins.edges.map((edge) => 100 * edge);
    this.counts = bins.counts;
    this.stops = this.edges.slice(0, -1).map((edge, n) => (edge + this.edges[n + 1]) / 2);
    this.xName = `${bins.measure} × 100`;
    if (runs.length > 1) this.legend(runs.map((name, n) => make("li", {}, make("span", { class: `key run${n % 6}` }), name)));
  }

  title() {
    return `How many captions score how much, by ${this.xName}`;
  }

  ranges() {
    const words = (at) => [at, label(at)];
    const right = this.edges.at(-1);
    const counts = roundUp(0, Math.max(...this.counts.flat(), 1), 4);
    return { low: 0, high: counts.at(-1), left: 0, right, yTicks: counts.map(words), xTicks: ticks(0, right, 5).map(words) };
  }

  paint(svg) {
    const width = (this.x(this.edges[1]) - this.x(0) - 4) / this.counts.length;
    this.counts.forEach((counts, run) => {
      counts.forEach((count, n) => {
        const y = this.y(count);
        const x = this.x(this.edges[n]) + 2 + run * width;
        svg.append(draw("rect", { class: `bin run${run % 6}`, x, y, width: Math.max(1, width - 1), height: HEIGHT - MARGIN.bottom - y, rx: 2 }));
      });
    });
  }

  tell(at) {
    const lines = [make("div", {}, `${label(this.edges[at])} to ${label(this.edges[at + 1])}`)];
    this.counts.forEach((counts, run) => lines.push(make("div", {}, dot(run), `${counts[at].toLocaleString("en")} captions`)));
    return lines;
  }
}
