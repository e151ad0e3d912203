// Curves of several runs in the same plots; each run has one colour.
"use strict";

const chosen = [...document.querySelectorAll("#chosen li")];
let found = [];

function drawAll() {
  for (const plot of plotsOnPage()) {
    const name = plot.dataset.curves;
    const own = found.flatMap((curves, i) => (curves[name]?.values.length ? [{ name, label: chosen[i].dataset.name, colour: i, ...curves[name] }] : []));
    show(plot, own, null);
  }
}

async function curvesOf(one) {
  const curves = plotsOnPage().map((plot) => plot.dataset.curves).join(",");
  const answer = await fetch(`${one.dataset.url}?${new URLSearchParams({ stage: one.dataset.stage, curves })}`);
  if (!answer.ok) throw new Error(answer.status);
  return (await answer.json()).curves;
}

Promise.allSettled(chosen.map(curvesOf)).then((all) => {
  found = all.map((one) => one.value ?? {});
  document.getElementById("unreached").hidden = all.every((one) => one.status === "fulfilled");
  drawAll();
  fetchLibrary();
});
document.addEventListener("repaint", drawAll);
