// A run's page: asks what is new, and shows it without loading the page anew.
"use strict";

const page = document.getElementById("run");
const OFTEN_MS = 2000, SELDOM_MS = 15000;
let seen = "", curves = {}, kl = null;
const id = (name) => document.getElementById(name);

function lasting(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return whole + " s";
  if (whole < 3600) return Math.floor(whole / 60) + " min " + (whole % 60) + " s";
  return Math.floor(whole / 3600) + " h " + Math.floor((whole % 3600) / 60) + " min";
}

function element(kind, text, name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

function showStanding(now, stepSeconds) {
  id("state").textContent = now.state;
  id("state").className = "state " + now.state;
  id("where").textContent = now.stage + (now.total ? ` ${now.done}/${now.total}` : "");
  id("eta").textContent = now.eta_s == null ? "" : lasting(now.eta_s) + " to go";
  const speed = curves.tokens_per_s?.values.at(-1);
  const told = [stepSeconds == null ? "" : `${stepSeconds.toPrecision(2)} s a step`, speed ? `${speed.toPrecision(3)} tokens/s` : ""];
  id("speed").textContent = told.filter(Boolean).join(", ");
  id("waiting").hidden = !now.waiting;
  id("note").textContent = now.note;
  id("bar").hidden = !now.total;
  id("bar").max = now.total || 1;
  id("bar").value = now.done || 0;
  id("stages").replaceChildren(...now.stages.map((one) => {
    const item = element("li", one.name + " ", one.state);
    item.append(element("span", one.state === "done" ? lasting(one.seconds || 0) : one.state, "quiet"));
    return item;
  }));
}

function listed(sign) { return element("li", sign.said, sign.level); }

function showHacking({ level, history }) {
  const last = history.at(-1)?.signs ?? [];
  id("level").textContent = level;
  id("level").className = "level " + level;
  id("signs").replaceChildren(...(last.length || level !== "ok" ? last.map(listed) : [element("li", "No sign in the last evaluation.")]));
  id("history").replaceChildren(...history.map((row) => {
    const item = element("li", `after ${row.steps} steps: ` + (row.signs.length ? "" : "none"));
    const inside = document.createElement("ul");
    inside.append(...row.signs.map(listed));
    if (row.signs.length) item.append(inside);
    return item;
  }));
}

function showSaid(said) {
  id("saidbox").hidden = !said.length;
  id("said").replaceChildren(...said.map((row) => {
    const box = document.createElement("section");
    const about = `after ${row.steps} steps` + (row.reward == null ? "" : `, reward ${row.reward.toFixed(2)}`);
    const asked = element("strong", row.prompt, "text"), answered = element("p", row.text || "(nothing)", "text");
    asked.dir = answered.dir = "auto";
    box.append(asked, element("p", about, "quiet"), answered);
    return box;
  }));
}

function drawAll() {
  for (const plot of plotsOnPage()) {
    const names = plot.dataset.curves.split(",");
    const own = names.filter((name) => curves[name]?.values.length).map((name) => ({ name, ...curves[name] }));
    show(plot, own, names.includes("kl_policy_ref") ? kl : null);
  }
}

// A metric that is first measured while one looks gets a card of its own.
function addCards(columns) {
  const known = new Set(plotsOnPage().flatMap((plot) => plot.dataset.curves.split(",")));
  const more = columns.filter((name) => !known.has(name) && name !== "hacking_level");
  for (const name of more) {
    const card = id("card").content.cloneNode(true), plot = card.querySelector(".plot");
    card.querySelector("h3").textContent = name;
    plot.dataset.curves = name;
    plot.setAttribute("aria-label", `${name} over steps`);
    (id("rest") ?? id("learning")).append(card);
  }
  if (more.length && id("restbox")) id("restbox").hidden = false;
  return more.length > 0;
}

// Of plots that can be seen: what a closed box holds is asked for when it is opened.
function wanted() {
  const open = plotsOnPage().filter((plot) => !plot.closest("details:not([open])"));
  return [...new Set(open.flatMap((plot) => plot.dataset.curves.split(",")))].join(",");
}

// The page shows the last stage that trains, unless one was chosen.
function follow(stages) {
  if (stages.length && stages.at(-1) !== page.dataset.stage && !new URLSearchParams(location.search).has("stage")) location.reload();
}

// Returns whether there is something that was not asked for yet.
function take(told) {
  if (told.curves) {
    curves = told.curves;
    kl = told.kl_target;
    seen = told.version;
    drawAll();
    if (Object.keys(curves).length) fetchLibrary();
  }
  showStanding(told.standing, told.step_s);
  if (page.dataset.stage) {
    showHacking(told.hacking);
    showSaid(told.said);
  }
  id("problems").replaceChildren(...told.problems.map((text) => element("p", text, "message error")));
  follow(told.stages);
  if (!page.dataset.stage || !addCards(told.columns)) return false;
  seen = "";
  return true;
}

let timer = 0, asking = null;

async function ask() {
  asking?.abort(); // what was asked before would come too late
  asking = new AbortController();
  const asked = new URLSearchParams({ stage: page.dataset.stage, seen, curves: wanted() });
  const answer = await fetch(`${page.dataset.url}?${asked}`, { signal: asking.signal });
  if (answer.redirected) location.reload(); // logged out meanwhile
  if (!answer.ok) throw new Error(answer.status);
  return answer.json();
}

async function look() {
  clearTimeout(timer);
  let told;
  try {
    told = await ask();
    id("unreached").hidden = true;
  } catch (error) {
    if (error.name === "AbortError") return;
    id("unreached").hidden = false;
  }
  const more = told ? take(told) : false;
  const pause = more ? 0 : !told || ["running", "waiting"].includes(told.standing.state) ? OFTEN_MS : SELDOM_MS;
  timer = setTimeout(() => { if (!document.hidden) look(); }, pause);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
for (const box of document.querySelectorAll("details")) box.addEventListener("toggle", () => { seen = ""; look(); });
document.addEventListener("repaint", drawAll);
look();
