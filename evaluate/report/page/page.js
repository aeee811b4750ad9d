// What happens when the page opens.

(() => {
  const told = JSON.parse(byId("data").textContent);

  const tooltip = new Tooltip();
  for (const figure of document.querySelectorAll("figure[data-plot='loss'], figure[data-plot='exact']")) {
    const series = told.curves.flatMap((curves, run) =>
      curves.filter((one) => one.plot === figure.dataset.plot).map((one) => ({ ...one, run })),
    );
    if (!series.length) {
      figure.append(make("p", { class: "empty" }, "there was no validation"));
      continue;
    }
    new CurvePlot(figure, tooltip, told.runs, series, Number(figure.dataset.factor ?? 1));
  }
  if (told.histogram) {
    byId("histogram-panel").hidden = false;
    byId("histogram-measure").textContent = `${told.histogram.measure} × 100`;
    new Histogram(document.querySelector("figure[data-plot='histogram']"), tooltip, told.runs, told.histogram);
  }

  const gallery = new Gallery(told, new Cards(told));
  for (const button of document.querySelectorAll("[data-change]")) {
    const { change, other, task } = button.dataset;
    button.addEventListener("click", () => gallery.look({ change, other, task: task === "Questions" ? "qa" : "caption", sort: "change" }));
  }
  for (const button of document.querySelectorAll("[data-search]")) {
    button.addEventListener("click", () => gallery.look({ query: button.dataset.search, task: "qa", grade: "wrong" }));
  }
})();
