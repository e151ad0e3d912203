"""Real raters who disagree: with a fifth of a rater's labels known, the personal model foretells the rest better than any
global one.

Counts of the surface stand in for an encoder's features, which take a minute; docs/methods/personalisation.md has both.
"""

from __future__ import annotations

from pathlib import Path

import dices
import numpy as np
import pytest

from heedful.persons.features import surface
from heedful.persons.fitting import Settings
from heedful.persons.labels import Array, Labels
from heedful.persons.measures import compare

Data = tuple[Labels, Array, Array]


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Data:
    """Labels, features, and the raters that no setting was chosen on, as in the benchmark."""
    labels, texts = dices.read(shared_data)
    raters = np.random.default_rng(123).permutation(len(labels.persons))[30:]
    return labels, np.stack([surface(text.text) for text in texts]), raters


def test_personal_beats_every_global_model(data: Data) -> None:
    labels, features_TD, raters = data
    found = dices.measure(labels, features_TD, Settings(), raters, 0, 0.8).by_person
    for other in (dices.GLOBAL, dices.BY_ITSELF, dices.SHARE):
        told = compare(found[other], found[dices.PERSONAL])
        assert told["log_loss"]["num_persons"] == 59
        assert told["log_loss"]["difference"]["high"] < -0.05, other
    # Whom a rater agrees with, and not only how often the rater objects: the order of items within a rater.
    assert compare(found[dices.GLOBAL], found[dices.PERSONAL])["auc"]["difference"]["low"] > 0


def test_without_labels_personal_is_global_to_the_last_bit(data: Data) -> None:
    labels, features_TD, raters = data
    found = dices.measure(labels, features_TD, Settings(), raters, 0, 1.0).by_person
    assert found[dices.PERSONAL] == found[dices.GLOBAL]
