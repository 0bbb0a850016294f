// Draws the figures of a report, in the page's own colors, and again when those change.
(() => {
  const plots = [];
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  const pageColors = () => {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    return {
      "font.color": color("--ink"),
      "paper_bgcolor": "rgba(0,0,0,0)",
      "hoverlabel.bgcolor": color("--card"),
      "hoverlabel.bordercolor": color("--line"),
      "hoverlabel.font.color": color("--ink"),
      "modebar.bgcolor": "rgba(0,0,0,0)",
      "modebar.color": color("--soft"),
      "modebar.activecolor": color("--ink"),
    };
  };

  // Where one label per token would not fit, plotly chooses which to write.
  const tokenLabels = ({element, labels}) => {
    if (!labels) return {};
    const room = (0.85 * element.clientWidth) / labels;
    return {"xaxis.dtick": room < 8 ? null : 1};
  };

  const adapt = () => {
    for (const plot of plots) Plotly.relayout(plot.element, {...pageColors(), ...tokenLabels(plot)});
  };

  for (const source of document.querySelectorAll("script.figure")) {
    const figure = JSON.parse(source.textContent);
    const element = source.previousElementSibling;
    const everyToken = figure.layout.xaxis?.dtick === 1;
    Plotly.newPlot(element, figure.data, figure.layout, config);
    plots.push({element, labels: everyToken ? figure.data[0].x.length : 0});
  }
  adapt();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", adapt);
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(adapt, 200);
  });
})();
