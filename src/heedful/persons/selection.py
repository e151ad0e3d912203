"""Which settings foretell best what persons say, tried on labels that are held back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import Any

import numpy as np

from heedful.persons.fitting import Settings
from heedful.persons.labels import Array, Labels
from heedful.persons.measures import by_person, hide
from heedful.persons.model import fit_persons
from heedful.persons.safety import Safety

HELD_BACK = 0.3


def grid(settings: Settings) -> list[Settings]:
    """Settings to try: as given but for the number of heads, their ridge and the scale of texts' own places."""
    choices = product((1, 2, 4, 8), (4.0, 16.0), (0.0, 0.5))
    return [replace(settings, num_heads=k, ridge_heads=ridge, text_scale=scale) for k, ridge, scale in choices]


def choose(
    labels: Labels,
    features_TD: Array,
    safety: Safety,
    candidates: Sequence[Settings],
    *,
    seed: int = 0,
    hidden_N: Array | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> tuple[Settings, list[dict[str, Any]]]:
    """The candidate with the least mean log-loss over persons on hidden labels, and what each reached.

    hidden_N: True on the labels to hide and measure on; by default HELD_BACK of each person's, drawn by the seed.
    """
    if hidden_N is None:
        hidden_N = hide(labels, HELD_BACK, seed)
    seen, unseen = labels.take(~hidden_N), labels.take(hidden_N)
    tried = []
    for number, settings in enumerate(candidates):
        model = fit_persons(seen, features_TD, safety, settings)
        loss = float(np.mean(list(by_person(unseen, model.predict(unseen, features_TD))["log_loss"].values())))
        tried.append(asdict(settings) | {"log_loss": loss})
        progress(number + 1, len(candidates), f"log-loss {loss:.4f}")
    return candidates[int(np.argmin([row["log_loss"] for row in tried]))], tried
