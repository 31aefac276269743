"use strict";
// Figures are Plotly's JSON without colors of text and grid: those are the page's, light or dark.
const figures = JSON.parse(document.getElementById("figures").textContent);
const options = {
  displaylogo: false,
  responsive: true,
  modeBarButtons: [["toImage", "resetScale2d"]],
};

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const axis = (given) => ({
    ...given,
    gridcolor: color("--grid"),
    linecolor: color("--line"),
    tickcolor: color("--line"),
    title: { ...given.title, font: { size: 12, color: color("--soft") } },
    tickfont: { color: color("--soft"), ...given.tickfont },
  });
  return {
    ...layout,
    font: { ...layout.font, color: color("--ink") },
    hoverlabel: { ...layout.hoverlabel, bgcolor: color("--panel"), bordercolor: color("--line"), font: { color: color("--ink") } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--line"), activecolor: color("--soft") },
    xaxis: axis(layout.xaxis),
    yaxis: axis(layout.yaxis),
  };
}

function draw(plot) {
  const figure = figures[Number(plot.dataset.figure)];
  const small = plot.closest(".small") !== null; // no room for buttons
  Plotly.react(plot, figure.data, themed(figure.layout), { ...options, displayModeBar: small ? false : "hover" });
  plot.dataset.drawn = "yes";
}

// Charts inside a closed <details> have no width yet: they are drawn when it opens.
const hidden = (plot) => plot.closest("details:not([open])") !== null;
const plots = [...document.querySelectorAll(".plot")];
plots.filter((plot) => !hidden(plot)).forEach(draw);
for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => {
    if (details.open) details.querySelectorAll(".plot:not([data-drawn])").forEach(draw);
  });
}

// A button of the legend hides its lines in every chart of the target.
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    for (const plot of button.closest(".target").querySelectorAll(".plot[data-drawn]")) {
      const lines = plot.data.flatMap((trace, i) => (trace.meta === button.dataset.group ? [i] : []));
      if (lines.length) Plotly.restyle(plot, { visible: shown }, lines);
    }
  });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  plots.filter((plot) => plot.dataset.drawn).forEach(draw);
});
