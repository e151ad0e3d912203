// The set in hand: what is typed or clicked becomes tiers, best first, of numbers of cards, and flags. Nothing is sent before
// each card is in one of them. What was done so far survives a reload. With thumbs there are two tiers, up and down.
"use strict";

const page = document.getElementById("set");
const cards = [...document.querySelectorAll(".card")];
const letters = cards.map((card) => card.dataset.letter);
const form = document.getElementById("send");
const note = document.getElementById("note");
const reasons = [...form.querySelectorAll("[name=reasons]")];
const help = document.getElementById("help");
const useKeys = document.getElementById("use-keys");
const mode = page.dataset.mode;
const draftKey = `heedful-draft-${page.dataset.draft}`;

const KEPT_MS = 24 * 3600 * 1000; // drafts of other sets
const FIXED = mode === "thumbs" ? 2 : 0; // tiers that stay when they are empty
const ASK = {
  rank: "Type the letters from best to worst.",
  thumbs: "Type a letter for a thumb up, again for a thumb down.",
  versus: "Type A or B for the better one, = if they are level.",
}[mode];

let state = { tiers: Array.from({ length: FIXED }, () => []), flagged: [], current: null };
let past = [];
let seconds = 0;

const copy = (value) => JSON.parse(JSON.stringify(value));
const tierOf = (n) => state.tiers.findIndex((tier) => tier.includes(n));
const judged = (n) => tierOf(n) >= 0 || state.flagged.includes(n);
const complete = () => cards.every((_, n) => judged(n));

function takeOut(n) {
  state.tiers = state.tiers.map((tier) => tier.filter((m) => m !== n)).filter((tier) => tier.length || FIXED);
  state.flagged = state.flagged.filter((m) => m !== n);
}

function flag(n) {
  const was = state.flagged.includes(n);
  takeOut(n);
  if (!was) state.flagged.push(n);
}

const ranking = {
  rank(n) {
    if (!judged(n)) state.tiers.push([n]);
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
  flag,
};

// Out of a tie, or past the neighbour.
function shift(n, by) {
  const at = tierOf(n);
  if (at < 0) { ranking.rank(n); return; }
  const tier = state.tiers[at];
  if (tier.length > 1) {
    state.tiers[at] = tier.filter((m) => m !== n);
    state.tiers.splice(by < 0 ? at : at + 1, 0, [n]);
  } else if (at + by >= 0 && at + by < state.tiers.length) {
    state.tiers.splice(at, 1);
    state.tiers.splice(at + by, 0, tier);
  }
}

function place(n, at) {
  takeOut(n);
  state.tiers[at].push(n);
}

const thumbs = {
  rank(n) { place(n, state.tiers[0].includes(n) ? 1 : 0); },
  up(n) { place(n, 0); },
  down(n) { place(n, 1); },
};

// One keystroke orders both; what is flagged is out of the order, and the other one stands alone.
const versus = {
  rank(n) {
    if (state.flagged.includes(1 - n) && tierOf(n) >= 0) return; // the better one already: picked up, to be flagged too
    state.tiers = [[n], [1 - n]];
    state.flagged = [];
  },
  tie() { state.tiers = [[0, 1]]; state.flagged = []; },
  flag(n) {
    flag(n);
    // A flag taken back leaves what nobody has said: no order, unless the other one is flagged.
    if (!state.flagged.length) state.tiers = [];
    else for (const m of [0, 1]) if (!judged(m)) state.tiers.push([m]);
  },
};

const acts = { rank: ranking, thumbs, versus }[mode];

function act(name, n, extra) {
  if (page.classList.contains("warned") || !acts[name]) return;
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

function placed(n) {
  const at = tierOf(n);
  if (state.flagged.includes(n)) return "flagged";
  if (at < 0) return "not judged";
  if (mode === "thumbs") return at ? "thumb down" : "thumb up";
  const tied = state.tiers[at].length > 1;
  if (mode === "versus") return tied ? "level" : at ? "worse" : "better";
  return `rank ${at + 1}${tied ? ", tied" : ""}`;
}

function summary() {
  const names = (tier, between) => tier.map((n) => letters[n]).join(between);
  const titles = mode === "thumbs" ? ["up", "down"] : state.tiers.map((_, at) => at + 1);
  const told = state.tiers.map((tier, at) => tier.length && `${titles[at]}: ${names(tier, mode === "thumbs" ? ", " : " = ")}`);
  if (state.flagged.length) told.push(`flagged: ${names(state.flagged, ", ")}`);
  return told.filter(Boolean).join(" · ");
}

function show() {
  cards.forEach((card, n) => {
    const down = mode === "thumbs" && tierOf(n) === 1;
    const worse = mode === "versus" && tierOf(n) === 1;
    card.classList.toggle("ranked", tierOf(n) >= 0 && !down && !worse);
    card.classList.toggle("down", down);
    card.classList.toggle("flagged", state.flagged.includes(n));
    card.classList.toggle("current", state.current === n);
    card.querySelector(".place").textContent = placed(n);
  });
  document.getElementById("ranking").textContent = summary() || ASK;
  document.getElementById("submit").disabled = !complete();
  document.getElementById("undo").disabled = !past.length;
  keep();
}

function keep() {
  if (sessionStorage.getItem("heedful-left")) return;
  const chosen = reasons.filter((box) => box.checked).map((box) => box.value);
  try { localStorage.setItem(draftKey, JSON.stringify({ state, past, seconds, note: note.value, reasons: chosen, at: Date.now() })); } catch { /* a full or closed store */ }
}

function resume() {
  let kept;
  try { kept = read(); } catch { return; }
  if (!kept) return;
  ({ state, past, seconds } = kept);
  note.value = kept.note;
  for (const box of reasons) box.checked = (kept.reasons ?? []).includes(box.value);
}

function read() {
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith("heedful-draft-") || key === draftKey) continue;
    if (!(Date.now() - JSON.parse(localStorage.getItem(key)).at < KEPT_MS)) localStorage.removeItem(key);
  }
  return JSON.parse(localStorage.getItem(draftKey) || "null");
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || event.target === note || event.target.type === "checkbox") return;
  // On other keyboards than Latin ones, the letter that is printed in the same place.
  const key = /^[\x20-\x7e]+$/.test(event.key) ? event.key.toUpperCase() : event.code.replace(/^(Key|Digit)/, "");
  if (event.repeat && key !== "U") return;
  if (key !== "ENTER" && useKeys.getAttribute("aria-pressed") === "false") return;
  const n = letters.indexOf(key);
  const focused = document.activeElement.closest?.(".card");
  const current = state.current ?? (focused ? Number(focused.dataset.number) : null);
  if (n >= 0) act("rank", n);
  else if (key === "=" && (current !== null || mode === "versus")) act("tie", current ?? 0);
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
// Whoever speaks to the machine, or types by accident, can do without keys of one letter; it is remembered.
useKeys.addEventListener("click", () => setKeys(useKeys.getAttribute("aria-pressed") === "false"));
function setKeys(on) {
  useKeys.setAttribute("aria-pressed", String(on));
  try { localStorage.setItem("heedful-keys", on ? "on" : "off"); } catch { /* a full or closed store */ }
}
document.getElementById("reveal")?.addEventListener("click", () => {
  page.classList.remove("warned");
  for (const hidden of page.querySelectorAll("[inert]")) hidden.inert = false;
});
note.addEventListener("input", keep);
for (const box of reasons) box.addEventListener("change", keep);
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

sessionStorage.removeItem("heedful-left");
try { if (localStorage.getItem("heedful-keys") === "off") setKeys(false); } catch { /* a closed store */ }
page.classList.add("dim");
resume();
show();
