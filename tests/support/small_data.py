"""Pairs, votes and completions with something to learn in them, for the tiny model."""

from __future__ import annotations

from pathlib import Path

from heedful.data.bundled import load_bundled
from heedful.records import Completion, Preference, Prompt, Sampling, Vote
from heedful.store import write_jsonl

GOOD, BAD = "Yes, gladly: ", "No. "
SAMPLING = Sampling(temperature=1.0, top_p=1.0, seed=0, max_new_tokens=20)


def prompts(count: int) -> list[Prompt]:
    return load_bundled()[:count]


def answers(prompt: Prompt) -> tuple[str, str]:
    """(good, bad): the good one begins with GOOD, the bad one with BAD, both go on with words of the prompt."""
    words = prompt.messages[-1].content.split()
    return GOOD + " ".join(words[:3]), BAD + " ".join(words[-2:])


def preferences(count: int) -> list[Preference]:
    found = []
    for i, prompt in enumerate(prompts(count)):
        good, bad = answers(prompt)
        pair = {"prompt_id": prompt.id, "prompt": prompt.messages, "chosen": good, "rejected": bad}
        found.append(Preference(**pair, probability=1.0 if i % 3 else 0.8))  # type: ignore[arg-type]
    return found


def completions(count: int) -> list[Completion]:
    found = []
    for prompt in prompts(count):
        for name, text in zip(("good", "bad"), answers(prompt), strict=True):
            finish = "length" if name == "bad" else "stop"
            about = {"id": f"{prompt.id}/{name}", "prompt_id": prompt.id, "text": text, "model": "m", "finish": finish}
            found.append(Completion(**about, sampling=SAMPLING))  # type: ignore[arg-type]
    return found


def votes(count: int) -> list[Vote]:
    """Three labelers, of whom the third errs on every fourth prompt."""
    found = []
    for i, completion in enumerate(completions(count)):
        good = completion.id.endswith("good")
        for labeler in range(3):
            value = int(good != (labeler == 2 and i % 4 == 0))
            about = {"completion_id": completion.id, "prompt_id": completion.prompt_id, "labeler": f"l{labeler}"}
            found.append(Vote(**about, value=value, created_at="2026-01-01T00:00:00+00:00"))  # type: ignore[arg-type]
    return found


def write(folder: Path, count: int) -> dict[str, Path]:
    """The same as files, by what they hold."""
    records = {
        "prompts": prompts(count),
        "preferences": preferences(count),
        "completions": completions(count),
        "votes": votes(count),
    }
    for name, found in records.items():
        write_jsonl(folder / f"{name}.jsonl", found)
    return {name: folder / f"{name}.jsonl" for name in records}
