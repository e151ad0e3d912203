"""A personal reward model on disk: one folder, written whole or not at all.

| file | holds |
|---|---|
| `persons.json` | settings, source of the features, names of the safety heads, persons with their counts |
| `heads.safetensors` | the heads, the scale of the features, the safety heads |
| `weights.safetensors` | each person's weights and their covariance |
| `labels.jsonl` | every label, and whether the heads were fitted on it |
| `texts.jsonl`, `texts.safetensors` | the texts that were judged: ids, digests, frozen features (not the words) |
"""

# P persons, T texts, D features, K weights a person

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from heedful.config import PERSONS
from heedful.errors import DataError, StoreError
from heedful.models.sources import loading
from heedful.persons.basis import Scale
from heedful.persons.features import Reads
from heedful.persons.fitting import Settings
from heedful.persons.labels import Array, Label
from heedful.persons.model import Heads, PersonalReward
from heedful.persons.posterior import Posterior
from heedful.persons.safety import Safety
from heedful.records import NonEmpty, Record, read_jsonl
from heedful.store import named_folder, read_json, write_json, write_jsonl

VERSION = 1


class LabelRecord(Record):
    """A label as it is kept. second: absent for a vote. in_heads: the heads were fitted on it."""

    person: NonEmpty
    first: NonEmpty
    second: str | None = None
    value: float
    in_heads: bool

    def label(self) -> Label:
        return Label(self.person, self.first, self.second, self.value)


class TextRecord(Record):
    """A text as it is kept: what tells it from another under the same id, not its words."""

    id: NonEmpty
    prompt_id: NonEmpty
    digest: str


@dataclass(frozen=True)
class Kept:
    """All that a folder holds. features_TD: of texts, float32, raw."""

    model: PersonalReward
    source: str
    reads: Reads
    safety_least: float
    labels: tuple[LabelRecord, ...]
    texts: tuple[TextRecord, ...]
    features_TD: Array

    def features(self) -> dict[str, Array]:
        return {text.id: row for text, row in zip(self.texts, self.features_TD, strict=True)}


def save(path: Path, kept: Kept) -> None:
    """Replaces the folder. Raises StoreError where it holds what heedful did not write."""
    heads, model = kept.model.heads, kept.model
    tensors = {
        "mean_D": heads.scale.mean_D,
        "weights_FC": heads.weights_FC,
        "slopes_SC": heads.slopes_SC,
        "safety_mean_S": heads.safety_mean_S,
        "population_S": heads.population_S,
        "directions_SD": heads.safety.directions_SD,
        "constants_S": heads.safety.constants_S,
    }
    weights = {"mean_PK": model.posterior.mean_PK, "covariance_PKK": model.posterior.covariance_PKK}
    about = {
        "version": VERSION,
        "features": kept.source,
        "reads": kept.reads,
        "settings": asdict(heads.settings),
        "root_mean_square": heads.scale.root_mean_square,
        "safety": list(heads.safety.names),
        "safety_least": kept.safety_least,
        "texts_with_a_place": list(heads.texts),
        "persons": [
            {"person": person, "num_labels": int(count)} for person, count in zip(model.persons, model.counts_P, strict=True)
        ],
    }
    with named_folder(path) as folder:
        write_json(folder / PERSONS, about)
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "heads.safetensors")
        save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, folder / "weights.safetensors")
        save_file({"features_TD": np.ascontiguousarray(kept.features_TD, dtype=np.float32)}, folder / "texts.safetensors")
        write_jsonl(folder / "labels.jsonl", kept.labels)
        write_jsonl(folder / "texts.jsonl", kept.texts)


def load(path: Path) -> Kept:
    """What `save` wrote. Raises StoreError or SourceError, naming what is missing or broken."""
    if not (path / PERSONS).is_file():
        raise StoreError(f"{path}: holds no {PERSONS}; name a folder that 'heedful persons fit' wrote")
    about: dict[str, Any] = read_json(path / PERSONS, "fit the persons anew")
    with loading(path, "a personal reward model"):
        if about["version"] != VERSION:
            raise DataError(f"{path}: was written as version {about['version']}, this heedful reads {VERSION}; fit it anew")
        found, weights = load_file(path / "heads.safetensors"), load_file(path / "weights.safetensors")
        heads = Heads(
            Settings(**about["settings"]),
            Scale(found["mean_D"], float(about["root_mean_square"])),
            found["weights_FC"],
            found["slopes_SC"],
            found["safety_mean_S"],
            found["population_S"],
            Safety(tuple(about["safety"]), found["directions_SD"], found["constants_S"]),
            tuple(about["texts_with_a_place"]),
        )
        persons = tuple(row["person"] for row in about["persons"])
        counts_P = np.array([row["num_labels"] for row in about["persons"]], dtype=np.int64)
        posterior = Posterior(weights["mean_PK"], weights["covariance_PKK"])
        model = PersonalReward(heads, persons, counts_P, posterior)
        features_TD = load_file(path / "texts.safetensors")["features_TD"]
        rest = str(about["features"]), about["reads"], float(about["safety_least"])
        if len(persons) != len(posterior.mean_PK):
            raise ValueError(f"{len(persons)} persons and {len(posterior.mean_PK)} weight vectors")
    labels = tuple(read_jsonl(path / "labels.jsonl", LabelRecord))
    texts = tuple(read_jsonl(path / "texts.jsonl", TextRecord, unique="id"))
    if len(texts) != len(features_TD):
        raise StoreError(f"{path}: {len(texts)} texts and features of {len(features_TD)}; fit the persons anew")
    return Kept(model, *rest, labels, texts, features_TD)


def without(kept: Kept, person: str) -> tuple[tuple[LabelRecord, ...], tuple[TextRecord, ...], Array]:
    """Labels of all others, the texts that these name, and their features."""
    labels = tuple(record for record in kept.labels if record.person != person)
    used = {name for record in labels for name in (record.first, record.second)}
    places = [number for number, text in enumerate(kept.texts) if text.id in used]
    return labels, tuple(kept.texts[number] for number in places), kept.features_TD[places]


def require_person(kept: Kept, person: str) -> None:
    """Raises DataError with the nearest name when nobody of this name is there."""
    import difflib

    if person not in kept.model.persons:
        near = difflib.get_close_matches(person, kept.model.persons, n=1, cutoff=0.0)
        said = f"the nearest name is {near[0]!r}" if near else "there is nobody"
        raise DataError(
            f"there is no person {person!r} here; {said} ('heedful persons list' shows all {len(kept.model.persons)})"
        )


def with_model(
    kept: Kept, model: PersonalReward, labels: Sequence[LabelRecord], texts: Sequence[TextRecord], features_TD: Array
) -> Kept:
    return replace(kept, model=model, labels=tuple(labels), texts=tuple(texts), features_TD=features_TD)
