// The set in hand: what is typed or clicked becomes tiers, best first, of numbers of cards, and flags. Nothing is sent before
// each card is in one of them. What was done so far survives a reload.
"use strict";

const page = document.getElementById("set");
const cards = [...document.querySelectorAll(".card")];
const letters = cards.map((card) => card.dataset.letter);
const form = document.getElementById("send");
const note = document.getElementById("note");
const help = document.getElementById("help");
const draftKey = `heedful-draft-${page.dataset.draft}`;

const KEPT_MS = 24 * 3600 * 1000; // drafts of other sets

let state = { tiers: [], flagged: [], current: null };
let past = [];
let seconds = 0;

const copy = (value) => JSON.parse(JSON.stringify(value));
const tierOf = (n) => state.tiers.findIndex((tier) => tier.includes(n));
const complete = () => state.tiers.flat().length + state.flagged.length === cards.length;

function takeOut(n) {
  state.tiers = state.tiers.map((tier) => tier.filter((m) => m !== n)).filter((tier) => tier.length);
  state.flagged = state.flagged.filter((m) => m !== n);
}

const acts = {
  rank(n) {
    if (tierOf(n) < 0 && !state.flagged.includes(n)) state.tiers.push([n]);
  },
  tie(n) {
    if (tierOf(n) < 0) { takeOut(n); state.tiers.push([n]); }
    const at = tierOf(n);
    if (at < 1 || state.tiers[at].length > 1) return;
    state.tiers.splice(at, 1);
    state.tiers[at - 1].push(n);
  },
  move(n, rank) {
    // The rank as it is shown now: taking one out may close a gap below it.
    const shown = state.tiers[rank - 1];
    if (shown?.includes(n)) return;
    const mate = shown?.[0];
    takeOut(n);
    if (shown) state.tiers[tierOf(mate)].push(n);
    else state.tiers.push([n]);
  },
  up(n) { shift(n, -1); },
  down(n) { shift(n, 1); },
  flag(n) {
    const was = state.flagged.includes(n);
    takeOut(n);
    if (!was) state.flagged.push(n);
  },
};

// Out of a tie, or past the neighbour.
function shift(n, by) {
  const at = tierOf(n);
  if (at < 0) { acts.rank(n); return; }
  const tier = state.tiers[at];
  if (tier.length > 1) {
    state.tiers[at] = tier.filter((m) => m !== n);
    state.tiers.splice(by < 0 ? at : at + 1, 0, [n]);
  } else if (at + by >= 0 && at + by < state.tiers.length) {
    state.tiers.splice(at, 1);
    state.tiers.splice(at + by, 0, tier);
  }
}

function act(name, n, extra) {
  if (page.classList.contains("warned")) return;
  const before = copy(state);
  acts[name](n, extra);
  state.current = n;
  if (JSON.stringify(before.tiers) !== JSON.stringify(state.tiers) || before.flagged.length !== state.flagged.length) past.push(before);
  show();
}

function undo() {
  if (past.length) state = past.pop();
  show();
}

function show() {
  cards.forEach((card, n) => {
    const at = tierOf(n);
    const flagged = state.flagged.includes(n);
    card.classList.toggle("ranked", at >= 0);
    card.classList.toggle("flagged", flagged);
    card.classList.toggle("current", state.current === n);
    const tied = at >= 0 && state.tiers[at].length > 1;
    card.querySelector(".place").textContent = flagged ? "flagged" : at < 0 ? "not ranked" : `rank ${at + 1}${tied ? ", tied" : ""}`;
  });
  const ranked = state.tiers.map((tier, at) => `${at + 1}: ${tier.map((n) => letters[n]).join(" = ")}`);
  if (state.flagged.length) ranked.push(`flagged: ${state.flagged.map((n) => letters[n]).join(", ")}`);
  document.getElementById("ranking").textContent = ranked.join(" · ") || "Type the letters from best to worst.";
  document.getElementById("submit").disabled = !complete();
  document.getElementById("undo").disabled = !past.length;
  keep();
}

function keep() {
  try { localStorage.setItem(draftKey, JSON.stringify({ state, past, seconds, note: note.value, at: Date.now() })); } catch { /* a full or closed store */ }
}

function resume() {
  let kept;
  try { kept = read(); } catch { return; }
  if (!kept) return;
  ({ state, past, seconds } = kept);
  note.value = kept.note;
}

function read() {
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith("heedful-draft-") || key === draftKey) continue;
    if (!(Date.now() - JSON.parse(localStorage.getItem(key)).at < KEPT_MS)) localStorage.removeItem(key);
  }
  return JSON.parse(localStorage.getItem(draftKey) || "null");
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || event.target === note) return;
  // On other keyboards than Latin ones, the letter that is printed in the same place.
  const key = /^[\x20-\x7e]+$/.test(event.key) ? event.key.toUpperCase() : event.code.replace(/^(Key|Digit)/, "");
  if (event.repeat && key !== "U") return;
  const n = letters.indexOf(key);
  const focused = document.activeElement.closest?.(".card");
  const current = state.current ?? (focused ? Number(focused.dataset.number) : null);
  if (n >= 0) act("rank", n);
  else if (key === "=" && current !== null) act("tie", current);
  else if (key === "F" && current !== null) act("flag", current);
  else if (/^[1-9]$/.test(key) && current !== null) act("move", current, Number(key));
  else if (key === "U") undo();
  else if (key === "ENTER" && !event.target.closest("button, a, summary")) { if (complete()) form.requestSubmit(document.getElementById("submit")); }
  else return;
  event.preventDefault();
  // Where the eye is, the focus is: whoever comes back from another window goes on with the same card.
  if (state.current !== null && key !== "ENTER") cards[state.current].focus({ preventScroll: true });
});

for (const card of cards) {
  card.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) act(button.dataset.do, Number(card.dataset.number));
    if (button && event.detail) button.blur(); // after the mouse, Enter sends and does not press the button again
  });
  card.addEventListener("focusin", () => { state.current = Number(card.dataset.number); show(); });
}
document.getElementById("undo").addEventListener("click", (event) => {
  undo();
  if (event.detail) event.currentTarget.blur();
});
document.getElementById("open-help").addEventListener("click", () => help.showModal());
help.addEventListener("close", () => document.activeElement.blur());
document.getElementById("dim")?.addEventListener("click", (event) => {
  event.target.setAttribute("aria-pressed", String(page.classList.toggle("dim")));
});
document.getElementById("reveal")?.addEventListener("click", () => {
  page.classList.remove("warned");
  for (const hidden of page.querySelectorAll("[inert]")) hidden.inert = false;
});
note.addEventListener("input", keep);
setInterval(() => { if (document.visibilityState === "visible") seconds += 0.25; }, 250);
addEventListener("pagehide", keep);

let sent = false;
form.addEventListener("submit", (event) => {
  if (event.submitter?.hasAttribute("formaction")) return;
  if (sent || !complete()) { event.preventDefault(); return; }
  sent = true;
  form.elements.answer.value = JSON.stringify({ tiers: state.tiers, flagged: state.flagged, seconds });
});
addEventListener("pageshow", () => { sent = false; });

page.classList.add("dim");
resume();
show();
