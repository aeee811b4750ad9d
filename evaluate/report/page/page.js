// What happens when the page opens.

(() => {
  const content = JSON.parse(byId("data").textContent);

  const tooltip = new Tooltip();
  for (const figure of document.querySelectorAll("figure[data-plot='loss'], figure[data-plot='exact']")) {
    const series = content.curves.flatMap((curves, run) =>
      curves.filter((one) => one.plot === figure.dataset.plot).map((one) => ({ ...one, run })),
    );
    if (!series.length) {
      figure.append(make("p", { class: "empty" }, "there was no validation"));
      continue;
    }
    new CurvePlot(figure, tooltip, content.runs, series, Number(figure.dataset.factor ?? 1));
  }
  if (content.histogram) {
    byId("histogram-panel").hidden = false;
    byId("histogram-measure").textContent = `${content.histogram.measure} × 100`;
    new Histogram(document.querySelector("figure[data-plot='histogram']"), tooltip, content.runs, content.histogram);
  }

  const gallery = new Gallery(content, new Cards(content));
  for (const button of document.querySelectorAll("[data-change]")) {
    const { change, other, task } = button.dataset;
    button.addEventListener("click", () => gallery.look({ change, other, task: task === "Questions" ? "qa" : "caption", sort: "change" }));
  }
  for (const button of document.querySelectorAll("[data-search]")) {
    button.addEventListener("click", () => gallery.look({ query: button.dataset.search, task: "qa", grade: "wrong" }));
  }
})();
