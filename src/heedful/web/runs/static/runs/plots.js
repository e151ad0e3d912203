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

// The bare lines, for the second or two until the library that draws is there.
function sketch(plot, curves) {
  const kind = "http://www.w3.org/2000/svg", box = document.createElementNS(kind, "svg");
  const every = curves.flatMap((curve) => curve.values), low = Math.min(...every), high = Math.max(...every);
  const last = Math.max(...curves.map((curve) => curve.steps.at(-1)));
  box.setAttribute("viewBox", "0 0 100 100");
  box.setAttribute("preserveAspectRatio", "none");
  for (const [i, trace] of traces(curves).entries()) {
    const line = document.createElementNS(kind, "polyline");
    const points = curves[i].steps.map((step, k) => [(100 * step) / last, 95 - (90 * (curves[i].values[k] - low)) / (high - low || 1)]);
    for (const [name, value] of Object.entries({ points: points.join(" "), fill: "none", stroke: trace.line.color, "vector-effect": "non-scaling-stroke" })) line.setAttribute(name, value);
    box.append(line);
  }
  plot.replaceChildren(box);
}

function draw(plot) {
  const shown = waiting.get(plot);
  if (!shown || !inView.has(plot)) return;
  if (!window.Plotly) return sketch(plot, shown.curves);
  waiting.delete(plot);
  if (!plot.data) plot.replaceChildren();
  Plotly.react(plot, traces(shown.curves), layoutOf(plot, shown.curves, shown.target), { displayModeBar: false, responsive: true });
}

// Asked for when there are curves to draw, for reading it keeps the page from drawing anything.
function fetchLibrary() {
  if (document.getElementById("plotly")) return;
  const script = document.createElement("script");
  script.id = "plotly";
  script.src = document.getElementById("library").href;
  script.addEventListener("load", () => inView.forEach(draw));
  requestAnimationFrame(() => setTimeout(() => document.head.append(script)));
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

const plotsOnPage = () => [...document.querySelectorAll(".plot")];
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("repaint")));
