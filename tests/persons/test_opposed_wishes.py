"""Two groups of opposed wishes on real pairs of hh-rlhf: one model for all is at chance, the personal one recovers each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import opposed_wishes

from heedful.persons.features import surface
from heedful.persons.fitting import Settings
from heedful.persons.measures import compare


def test_one_model_for_all_fails_and_the_personal_one_recovers_each(shared_data: Path) -> None:
    """On counts of the surface; docs/methods/personalisation.md has the encoder's features as well."""
    texts = opposed_wishes.texts(shared_data, "helpful")
    counts = np.stack([surface(text.text) for text in texts])
    features_TD = (counts - counts.mean(axis=0)) / np.maximum(counts.std(axis=0), 1e-6)
    settings = Settings(num_heads=2, ridge_global=30.0, ridge_heads=30.0, text_scale=0.0)
    groups = opposed_wishes.GROUPS["opposed, on helpful"]
    found = opposed_wishes.measure(groups, [text.id for text in texts], features_TD, [settings], 0)
    for group, judges in found.items():
        told = compare(judges["global"], judges["personal"])["accuracy"]
        assert told["before"]["estimate"] < 0.54, group
        assert told["difference"]["low"] > 0.03, group
        alone = np.mean(list(judges["group"]["accuracy"].values()))
        # Told apart by nobody, the groups lose little against two models that were told.
        assert told["after"]["estimate"] > alone - 0.04, group
