"""Chains of critique and revision that a run left, to be read and filtered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from heedful.constitution.chains import CHAIN_REASONS, KEPT, MEANING, Chain, Step
from heedful.errors import RecordError, StoreError
from heedful.records import read_jsonl
from heedful.report.numbers import clip, sound

FILE = Path("revise") / "chains.jsonl"


@dataclass(frozen=True)
class Text:
    """A step as the page shows it. said: its text, or why there is none. notes: how it was asked for and what it scored."""

    name: str
    said: str
    missing: bool
    notes: list[str]
    verdict: str
    meaning: str


@dataclass(frozen=True)
class Shown:
    """A chain as the page shows it."""

    prompt_id: str
    prompt: str
    tags: list[str]
    verdict: str
    meaning: str
    gain: float | None
    answer: Text
    passes: list[tuple[str, list[Text]]]


def has_chains(run: Path) -> bool:
    return (run / FILE).is_file()


def read_chains(run: Path) -> list[Chain]:
    """[] without the file. Raises StoreError naming the line that is no chain."""
    try:
        about = (run / FILE).stat()
    except OSError:
        return []
    return _read(run / FILE, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, _time: int, _size: int) -> list[Chain]:
    """By path, time and size, so that a file which was written anew is read anew."""
    try:
        return read_jsonl(path, Chain)
    except RecordError as error:
        raise StoreError(f"{error}; 'heedful constitution revise' writes it anew") from None


def verdicts_of(chains: list[Chain]) -> list[tuple[str, int]]:
    """Each verdict that there is with its number of chains: kept first, then in the order of the rules."""
    counts = Counter(chain.verdict for chain in chains)
    known = [name for name in (KEPT, *CHAIN_REASONS) if name in counts]
    return [(name, counts[name]) for name in (*known, *sorted(set(counts) - set(known)))]


def search(chains: list[Chain], text: str = "", verdict: str = "", principle: str = "") -> list[Chain]:
    """Those whose prompt or any step holds the text, whatever its case."""
    wanted = text.casefold()
    return [
        chain
        for chain in chains
        if (not verdict or chain.verdict == verdict)
        and (not principle or principle in chain.principles)
        and (not wanted or any(wanted in said.casefold() for said in _texts(chain)))
    ]


def principles_of(chains: list[Chain]) -> list[str]:
    return sorted({name for chain in chains for name in chain.principles})


def shown(chain: Chain) -> Shown:
    answer, *others = [_text(step) for step in chain.steps] or [_text(None)]
    passes: dict[int, list[Text]] = {}
    for step, text in zip(chain.steps[1:], others, strict=True):
        passes.setdefault(step.pass_number, []).append(text)
    names = dict(enumerate(chain.principles, start=1))
    return Shown(
        prompt_id=sound(chain.prompt_id),
        prompt=clip(sound(chain.messages[-1].content)),
        tags=[sound(tag) for tag in chain.tags],
        verdict=chain.verdict,
        meaning=MEANING.get(chain.verdict, ""),
        gain=chain.gain,
        answer=answer,
        passes=[(sound(names.get(number, "")), texts) for number, texts in passes.items()],
    )


def _text(step: Step | None) -> Text:
    if step is None:
        return Text("answer", "", True, [], "", "")
    name = f"revision {step.number}" if step.role == "revision" else step.role
    notes = ["handed in"] if step.given else []
    notes += ["critique shortened"] if step.shortened else []
    notes += ["fewer examples"] if step.examples_left_out else []
    notes += ["cut by the limit"] if step.finish == "length" else []
    notes += [f"score {step.score:+.3f}"] if step.score is not None else []
    said = clip(sound(step.text or step.problem))
    return Text(name, said, not step.text.strip(), notes, step.verdict, MEANING.get(step.verdict, ""))


def _texts(chain: Chain) -> list[str]:
    return [chain.messages[-1].content, *(step.text for step in chain.steps)]
