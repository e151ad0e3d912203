"""DICES-350: 89 real raters, each of whom said of the same 233 conversations whether the last answer is unsafe.

Aroyo et al., "DICES dataset: diversity in conversational AI evaluation for safety", NeurIPS 2023. A label of 1 is good: the
rater did not call the answer unsafe. "Unsure" is no label.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from heedful.persons.features import Text
from heedful.persons.fitting import Settings
from heedful.persons.labels import Array, Label, Labels, gather
from heedful.persons.measures import auc, by_person, hide
from heedful.persons.model import fit_persons
from heedful.persons.safety import no_safety
from heedful.records import Message

NUM_ITEMS, NUM_RATERS = 233, 89


def read(data: Path) -> tuple[Labels, list[Text]]:
    """Votes, and the conversations in the order of labels.texts. data: the folder of real data."""
    with gzip.open(data / "dices" / "ratings.jsonl.gz", "rt") as file:
        rows = {row["item"]: row for row in map(json.loads, file)}
    labels = gather(
        Label(rater, item, None, 1.0 - value)
        for item, row in rows.items()
        for rater, value in row["unsafe"].items()
        if value is not None
    )
    assert (len(labels.texts), len(labels.persons)) == (NUM_ITEMS, NUM_RATERS)
    texts = [
        Text(item, item, (Message(role="user", content=rows[item]["prompt"]),), rows[item]["response"]) for item in labels.texts
    ]
    return labels, texts


PERSONAL = "personal"
GLOBAL = "global: the same heads, no label of the rater"
BY_ITSELF = "global: logistic regression by itself"
SHARE = "global: share among the item's other labels"


@dataclass(frozen=True)
class Measured:
    """by_person: for each model, for each measure, a value for each rater. pooled_auc: over all hidden labels together."""

    by_person: dict[str, dict[str, dict[str, float]]]
    pooled_auc: dict[str, float]


def item_shares(seen: Labels, unseen: Labels) -> Array:
    """Of each hidden label the share of 1 among the seen labels of its item, with two labels of the overall share added."""
    counts_T = np.bincount(seen.first_N, minlength=len(seen.texts))
    sums_T = np.bincount(seen.first_N, seen.value_N, len(seen.texts))
    return np.asarray((sums_T + 2 * seen.value_N.mean()) / (counts_T + 2))[unseen.first_N]


def measure(labels: Labels, features_TD: Array, settings: Settings, raters: Array, seed: int, hidden: float) -> Measured:
    """All models on the hidden labels of these raters; what else they said and all of the others is known to each."""
    hidden_N = hide(labels, hidden, seed, among=raters)
    seen, unseen = labels.take(~hidden_N), labels.take(hidden_N)
    safety = no_safety(features_TD.shape[1])
    model = fit_persons(seen, features_TD, safety, settings)
    one = fit_persons(seen, features_TD, safety, replace(settings, num_heads=1))
    alone = fit_persons(seen, features_TD, safety, replace(settings, num_heads=0))
    predicted = {
        PERSONAL: model.predict(unseen, features_TD),
        "personal, one head": one.predict(unseen, features_TD),
        GLOBAL: replace(model, persons=()).predict(unseen, features_TD),
        BY_ITSELF: alone.predict(unseen, features_TD),
        SHARE: item_shares(seen, unseen),
    }
    pooled = {name: auc(unseen.value_N > 0.5, p) for name, p in predicted.items()}
    return Measured({name: by_person(unseen, p) for name, p in predicted.items()}, pooled)


def mean_over_draws(found: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """For each measure each person's mean over the draws in which it could be measured."""
    means: dict[str, dict[str, float]] = {}
    for name in found[0]:
        persons = sorted({person for one in found for person in one[name]})
        means[name] = {p: float(np.mean([one[name][p] for one in found if p in one[name]])) for p in persons}
    return means
