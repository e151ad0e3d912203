"""The prompts that come with heedful, and how a run gathers and chooses prompts."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib.resources import files

from heedful.errors import DataError
from heedful.records import Prompt, parse_line

NAMES = ("prompts", "dialogues", "red-team", "look-alikes")


def load_bundled(names: Sequence[str] = ("prompts",)) -> list[Prompt]:
    """Bundled files by name: "prompts" (helpful, honest, harmless), "dialogues" (to summarise), "red-team" (to be refused or
    turned to something else) and "look-alikes" (harmless prompts that look harmful). Raises DataError.
    """
    found = []
    for name in names:
        if name not in NAMES:
            raise DataError(f"there are no bundled prompts {name!r}; there are {', '.join(NAMES[:-1])} and {NAMES[-1]}")
        text = files("heedful").joinpath("data", "bundled", f"{name}.jsonl").read_text(encoding="utf-8")
        lines = text.split("\n")  # splitlines would also cut at separators that stand inside a text
        found += [parse_line(line, Prompt, f"{name}.jsonl:{n}") for n, line in enumerate(lines, start=1) if line]
    return found


def gather(sources: Iterable[tuple[str, Sequence[Prompt]]]) -> list[Prompt]:
    """Prompts of several named files, each once: the first copy stays, with the split that either of two copies has.

    Raises DataError when files give one id two texts or two splits.
    """
    found: dict[str, tuple[str, Prompt]] = {}
    for name, prompts in sources:
        for prompt in prompts:
            where, known = found.setdefault(prompt.id, (name, prompt))
            if known.messages != prompt.messages:
                raise DataError(
                    f"prompt id {prompt.id!r} stands for one text in {where} and for another in {name}; give one of them "
                    "another id"
                )
            if known.split and prompt.split and known.split != prompt.split:
                raise DataError(
                    f"prompt {prompt.id!r} has split {known.split!r} in {where} and {prompt.split!r} in {name}; a prompt "
                    "that is trained on must not be held out: drop one of them"
                )
            if prompt.split and not known.split:
                found[prompt.id] = name, known.model_copy(update={"split": prompt.split})
    return [prompt for _, prompt in found.values()]


def split(prompts: Sequence[Prompt], name: str) -> list[Prompt]:
    """The prompts of one split."""
    return [prompt for prompt in prompts if prompt.split == name]


def choose(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """`count` prompts, drawn by seed so that sets of tags keep their shares, in the given order; all when there are fewer."""
    if count >= len(prompts):
        return list(prompts)
    strata: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, prompt in enumerate(prompts):
        strata[prompt.tags[:2]].append(i)
    # Shares by largest remainder: whole parts first, then the largest fractions; ties by tags.
    shares = {tags: count * len(places) / len(prompts) for tags, places in strata.items()}
    numbers = {tags: int(share) for tags, share in shares.items()}
    for tags in sorted(shares, key=lambda tags: (numbers[tags] - shares[tags], tags))[: count - sum(numbers.values())]:
        numbers[tags] += 1
    chosen: list[int] = []
    for tags, places in sorted(strata.items()):
        chosen += random.Random(f"{seed}/{tags}").sample(places, numbers[tags])
    return [prompts[i] for i in sorted(chosen)]
