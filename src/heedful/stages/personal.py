"""An adapter of a person's or a group's own, once there are enough labels: `heedful align dpo` or `kto` on theirs alone.

The personal reward model needs a handful of labels and changes no weights of the language model; an adapter has a million
weights and is refused below a stated count.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from heedful.config import LEAST_LABELS, Config
from heedful.errors import DataError
from heedful.persons.enough import require_enough
from heedful.persons.labels import Label
from heedful.persons.reading import Files, Said, read_said
from heedful.progress import Progress
from heedful.records import Preference, Vote
from heedful.stages.offline import align_dpo, align_kto
from heedful.store import write_jsonl

OWN = "own"  # folder of the output with what was picked from the files
Method = Literal["dpo", "kto"]


def align_persons(
    config: Config,
    output: Path,
    progress: Progress,
    *,
    files: Files,
    persons: Sequence[str],
    method: Method,
    least: int = LEAST_LABELS,
) -> dict[str, Any]:
    """Trains an adapter on the labels of these persons. dpo takes pairs; kto votes, or pairs where there are none.

    Raises DataError below `least` labels, naming how many there are.
    """
    said = read_said(files)
    strangers = [person for person in persons if person not in {label.person for label in said.labels}]
    if strangers:
        raise DataError(f"there is no label of {strangers[0]!r} in the files; check the name and --person")
    own = [label for label in said.labels if label.person in persons and label.value != 0.5]
    votes, pairs = ([label for label in own if (label.second is None) == alone] for alone in (True, False))
    used, what = (votes, "votes") if method == "kto" and votes else (pairs, "decided pairs")
    require_enough(persons, len(used), what, least)
    if used is votes:
        path = output / OWN / "votes.jsonl"
        write_jsonl(path, [_vote(label, said) for label in votes])
        found = align_kto(config, output, progress, votes=[path], completions=files.completions, prompts=files.prompts)
    else:
        path = output / OWN / "preferences.jsonl"
        write_jsonl(path, [_preference(label, said) for label in pairs])
        run = align_dpo if method == "dpo" else align_kto
        found = run(config, output, progress, preferences=[path], completions=files.completions)
    return {"persons": list(persons), "method": method, "num_labels": len(used)} | found


def _vote(label: Label, said: Said) -> Vote:
    prompt_id = said.texts[label.first].prompt_id
    value: Literal[0, 1] = 1 if label.value > 0.5 else 0
    return Vote(completion_id=label.first, prompt_id=prompt_id, labeler=label.person, value=value, created_at="")


def _preference(label: Label, said: Said) -> Preference:
    assert label.second is not None
    first, second = said.texts[label.first], said.texts[label.second]
    chosen, rejected = (first, second) if label.value > 0.5 else (second, first)
    return Preference(
        prompt_id=chosen.prompt_id,
        prompt=chosen.messages,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        probability=max(label.value, 1 - label.value),
    )
