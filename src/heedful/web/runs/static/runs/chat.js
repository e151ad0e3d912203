// Answers appear, and thumbs are stored, without loading the page anew.
"use strict";

const turns = document.getElementById("turns"), say = document.getElementById("say"), said = document.getElementById("said");
const EVERY_MS = 700;

// kept: the address of the form whose text was just stored.
async function refresh(kept = "") {
  const answer = await fetch(turns.dataset.turns);
  if (answer.redirected || !answer.ok) return location.reload();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const typed = corrections(turns);
  turns.replaceChildren(...page.body.childNodes);
  for (const [action, fresh] of corrections(turns)) {
    const old = typed.get(action);
    if (!old || action === kept) continue;
    fresh.closest("details").open = old.closest("details").open;
    fresh.value = old.value;
  }
}

// Corrections that are being typed, by the address of their form.
function corrections(where) {
  return new Map([...where.querySelectorAll("details form textarea")].map((text) => [text.form.action, text]));
}

async function wait() {
  if (!turns.querySelector(".waiting")) return;
  say.querySelector("button").disabled = true;
  try {
    const answer = await fetch(turns.dataset.pending);
    if (answer.redirected) return location.reload(); // logged out meanwhile
    if (answer.ok && !(await answer.json()).pending) {
      await refresh();
      document.getElementById("heard").textContent = [...turns.lastElementChild.querySelectorAll(".side, .error")].map((one) => one.innerText).join(" ");
      say.querySelector("button").disabled = false;
      said.focus();
    }
  } catch { /* the server is away for a moment */ }
  setTimeout(wait, EVERY_MS);
}

said.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!say.querySelector("button").disabled) say.requestSubmit();
  }
});

turns.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = new FormData(event.target, event.submitter);
  const answer = await fetch(event.target.action, { method: "POST", body }).catch(() => null);
  if (!answer?.ok) return event.submitter.setCustomValidity("This was not stored; try again."), event.submitter.reportValidity();
  const name = event.submitter.getAttribute("aria-label");
  await refresh(event.target.action);
  turns.querySelector(`[aria-label="${CSS.escape(name)}"]`)?.focus();
});

wait();
scrollTo(0, document.body.scrollHeight);
