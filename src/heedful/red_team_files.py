"""What a red team reads and leaves: the prompts that it is given, and files made of the failures that it found."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from heedful.data.bundled import choose, gather, load_bundled
from heedful.data.formats import read_prompts
from heedful.errors import DataError
from heedful.evaluation.attack import Answer, category_of, is_attack
from heedful.evaluation.failures import labelling_queue, training_prompts
from heedful.ownership import strangers
from heedful.records import Completion, Prompt
from heedful.store import named_folder, write_jsonl

BUNDLED = "bundled:"


def chosen_prompts(
    files: Sequence[str],
    *,
    categories: Sequence[str] = (),
    split: str = "all",
    num_attacks: int = 0,
    num_safe: int = 0,
    seed: int = 0,
) -> list[Prompt]:
    """Prompts of files, or `bundled:NAME`; of none, the bundled red team and its look-alikes.

    categories: of attacks; look-alikes stay. split: train, heldout or all. num_attacks, num_safe: that many, drawn so that
    categories keep their shares; 0 for all. Raises DataError for an unknown category.
    """
    found = gather((name, _read(name)) for name in files or (f"{BUNDLED}red-team", f"{BUNDLED}look-alikes"))
    attacks = [prompt for prompt in found if is_attack(prompt)]
    safe = [prompt for prompt in found if not is_attack(prompt)]
    known = list(dict.fromkeys(category_of(prompt) for prompt in attacks))
    if unknown := [name for name in categories if name not in known]:
        raise DataError(f"there is no category {unknown[0]!r} among the prompts; there are {', '.join(known) or 'none'}")
    attacks = [prompt for prompt in attacks if not categories or category_of(prompt) in categories]
    sides = []
    for prompts, count in ((attacks, num_attacks), (safe, num_safe)):
        kept = [prompt for prompt in prompts if split == "all" or prompt.split == split]
        sides.append(choose(kept, count, seed) if count else kept)
    return [*sides[0], *sides[1]]


def _read(name: str) -> list[Prompt]:
    return load_bundled((name.removeprefix(BUNDLED),)) if name.startswith(BUNDLED) else read_prompts(Path(name))


def drop_failures(folder: Path) -> None:
    """Removes files that were made of failures; a folder that holds anything else is left as it is."""
    if folder.is_dir() and not strangers(folder):
        shutil.rmtree(folder)


def write_failures(
    prompts: Sequence[Prompt],
    completions: Mapping[str, Sequence[Completion]],
    answers: Sequence[Answer],
    folder: Path,
    kind: Literal["labels", "prompts"],
) -> dict[str, Any]:
    """Of a model's failures, prompts.jsonl and completions.jsonl for `heedful label import`, or training prompts alone.

    answers: of the model whose failures count. Returns the kind and counts; where nothing failed nothing is written.
    """
    queue, shown = labelling_queue(prompts, completions, answers)
    if not queue:
        drop_failures(folder)  # of an earlier run with others
        return {"kind": kind, "prompts": 0}
    with named_folder(folder) as temporary:
        if kind == "prompts":
            ready, held_out = training_prompts(prompts, answers)
            write_jsonl(temporary / "prompts.jsonl", ready)
            return {"kind": kind, "prompts": len(ready), "held_out": held_out}
        write_jsonl(temporary / "prompts.jsonl", queue)
        write_jsonl(temporary / "completions.jsonl", shown)
    least = min(Counter(one.prompt_id for one in shown).values())
    counts = {"prompts": len(queue), "completions": len(shown), "least_completions": least}
    return {"kind": kind, **counts, "held_out": sum(prompt.split == "heldout" for prompt in queue)}
