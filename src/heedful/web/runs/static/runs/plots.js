// Curves over steps. A plot is drawn when it comes into view, and again when there is something new to show in it; one without a
// value is not there. The page does not wait for the library that draws.
"use strict";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const COLOURS = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5"];
const waiting = new Map(); // plots out of sight, and what they would show
const inView = new Set();

function layoutOf(plot, curves, target) {
  const quiet = css("--quiet"), line = css("--line");
  const levels = (plot.dataset.limits || "").split(",").filter(Boolean).map(Number).concat(target ? [target] : []);
  const axis = { gridcolor: line, zeroline: false, linecolor: line };
  return {
    margin: { l: 48, r: 8, t: curves.length > 1 ? 24 : 8, b: 28 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: quiet, size: 11, family: "system-ui, sans-serif" },
    showlegend: curves.length > 1, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hovermode: "x unified", hoverlabel: { bgcolor: css("--sheet"), bordercolor: line, font: { color: css("--ink") } },
    xaxis: { ...axis, tickformat: ",d", nticks: 6 }, yaxis: { ...axis, nticks: 5 },
    shapes: levels.map((y) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: css("--bad"), width: 1, dash: "dot" } })),
    dragmode: "zoom", uirevision: "kept", // who has zoomed in stays there
  };
}

const LABELS = { reward: "rollouts", heldout_reward: "held-out", heldout_gold: "gold, held-out", tokens_per_s: "tokens a second" };

// curves: [{name, steps, values, label?, colour?}]
function traces(curves) {
  return curves.map((curve, i) => {
    const few = curve.steps.length <= 40, marked = curve.name.startsWith("heldout_");
    const colour = css(COLOURS[(curve.colour ?? curves.length - 1 - i) % COLOURS.length]);
    return {
      x: curve.steps, y: curve.values, name: curve.label || LABELS[curve.name] || curve.name.replaceAll("_", " "), type: "scatter",
      mode: few || (marked && curve.steps.length <= 120) ? "lines+markers" : "lines",
      line: { color: colour, width: 1.6 }, marker: { color: colour, size: marked ? 6 : 4, symbol: marked ? "diamond" : "circle" },
    };
  });
}

function draw(plot) {
  const shown = waiting.get(plot);
  if (!shown || !window.Plotly || !inView.has(plot)) return;
  waiting.delete(plot);
  Plotly.react(plot, traces(shown.curves), layoutOf(plot, shown.curves, shown.target), { displayModeBar: false, responsive: true });
}

const seeing = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) inView.add(entry.target); else inView.delete(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "100px" });

function show(plot, curves, target) {
  plot.closest(".plotcard").hidden = !curves.length;
  if (!curves.length) return;
  waiting.set(plot, { curves, target });
  seeing.observe(plot);
  draw(plot);
}

document.getElementById("plotly").addEventListener("load", () => inView.forEach(draw));
const plotsOnPage = () => [...document.querySelectorAll(".plot")];
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("repaint")));
