"""What is kept of persons: shown, handed out, taken away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from heedful.errors import DataError
from heedful.persons.folder import load, require_person, save, with_model, without
from heedful.persons.model import PersonalReward, know_persons, learn_heads, narrow
from heedful.store import write_json

Result = dict[str, Any]


def list_persons(folder: Path) -> Result:
    """Persons with their labels, weights and how far these are from the population's."""
    model = load(folder).model
    return {"persons": [_person(model, person) for person in model.persons], "safety": list(model.heads.safety.names)}


def export_person(folder: Path, person: str, output: Path) -> Result:
    """All that is kept of a person, as one JSON file: labels, weights, covariance."""
    kept = load(folder)
    require_person(kept, person)
    own = kept.model.of(person)
    labels = [record.model_dump(mode="json", exclude_none=True) for record in kept.labels if record.person == person]
    value = _person(kept.model, person) | {
        "labels": labels,
        "covariance": own.covariance_PKK[0].tolist(),
        "about": "weights and covariance are in units of the prior's sd: 0 is the population's mean, 1 one sd from it",
    }
    write_json(output, value)
    return {"person": person, "num_labels": len(labels), "output": str(output)}


def delete_person(folder: Path, person: str, progress: Callable[[str, int, int, str], None]) -> Result:
    """Takes a person out: labels, weights, texts that nobody else judged; heads that learned from the person are fitted anew.

    What is left is to the last bit what a fit without the person would have written.
    """
    kept = load(folder)
    require_person(kept, person)
    records, texts, features_TD = without(kept, person)
    if not records:
        raise DataError(f"{person!r} is the only person in {folder}; delete the folder")
    features = {text.id: row for text, row in zip(texts, features_TD, strict=True)}
    heads = kept.model.heads
    learned = any(record.in_heads for record in kept.labels if record.person == person)
    if learned:
        basis = [record.label() for record in records if record.in_heads]
        if not basis:
            raise DataError(
                f"the heads in {folder} were fitted on {person!r} alone; delete the folder, and fit the others anew"
            )
        heads = learn_heads(
            *narrow(basis, features),
            heads.safety,
            heads.settings,
            lambda done, total, note: progress("heads", done, total, note),
        )
    labels, features_TD = narrow([record.label() for record in records], features)
    model = know_persons(heads, labels, features_TD)
    save(folder, with_model(kept, model, records, texts, features_TD))
    return {
        "person": person,
        "labels_removed": len(kept.labels) - len(records),
        "texts_removed": len(kept.texts) - len(texts),
        "heads_fitted_anew": learned,
        "num_persons": len(model.persons),
    }


def _person(model: PersonalReward, person: str) -> Result:
    own, heads = model.of(person), model.heads
    k = heads.weights_FC.shape[1] - 1
    mean_K = own.mean_PK[0]
    safety = heads.population_S + heads.settings.safety_sd * mean_K[k:]
    return {
        "person": person,
        "num_labels": model.num_labels(person),
        "weights": mean_K.tolist(),
        "sd": np.sqrt(np.diag(own.covariance_PKK[0])).tolist(),
        "safety_weights": dict(zip(heads.safety.names, map(float, safety), strict=True)),
    }
