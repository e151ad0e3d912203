"""The best answer for a person, and the pair to ask next."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.special import expit
from simulated_persons import World, questioned, world

from heedful.persons.asking import ask, information
from heedful.persons.choosing import best
from heedful.persons.fitting import Settings
from heedful.persons.model import PersonalReward, fit_persons
from heedful.persons.safety import no_safety

NEW = "somebody"


@pytest.fixture(scope="module")
def known() -> tuple[World, PersonalReward]:
    """Heads from sixty persons."""
    found = world(60, 80, seed=3)
    labels = found.labels(30, pairs=True, seed=1)
    return found, fit_persons(labels, found.features_TD, no_safety(12), Settings(num_heads=2, ridge_heads=1.0, text_scale=0.0))


def test_best_is_each_persons_own(known: tuple[World, PersonalReward]) -> None:
    """Of four answers, over many sets: the personal choice is truly worth more to the person than the population's."""
    found, model = known
    chance = np.random.default_rng(0)
    gains, rights, said = [], [], []
    for place, person in enumerate(found.persons):
        four = chance.choice(80, 4, replace=False)
        ids = [found.texts[i] for i in four]
        own, common = (best(model, who, "p", ids, found.features_TD[four]) for who in (person, NEW))
        true = dict(zip(ids, found.reward_PT[place][four], strict=True))
        gains.append(true[own.completion_id] - true[common.completion_id])
        rights.append(own.completion_id == max(true, key=lambda id_: true[id_]))
        said.append(own.probability)
    assert np.mean(gains) > 0.4
    # The probabilities are worth believing: their mean is the share that is right.
    assert np.mean(said) == pytest.approx(np.mean(rights), abs=0.15)


def test_caution_prefers_what_is_sure(known: tuple[World, PersonalReward]) -> None:
    found, model = known
    mean, sd = model.rewards(NEW, found.features_TD, found.texts)
    bold = best(model, NEW, "p", found.texts, found.features_TD)
    careful = best(model, NEW, "p", found.texts, found.features_TD, caution=50)
    assert bold.completion_id == found.texts[int(np.argmax(mean))]
    assert careful.completion_id == found.texts[int(np.argmax(mean - 50 * sd))]
    assert careful.sd < bold.sd


def test_one_answer_is_the_best_for_sure(known: tuple[World, PersonalReward]) -> None:
    found, model = known
    only = best(model, NEW, "p", ["t00003"], found.features_TD[3:4])
    assert (only.completion_id, only.probability, only.num_answers) == ("t00003", 1.0, 1)


def test_information_by_hand() -> None:
    """A sure difference tells nothing; a coin of unknown side, with the side all but certain once known, tells log 2."""
    told, forecast = information(np.array([0.0, 1.3, 0.0]), np.array([0.0, 0.0, 1e6]))
    assert told[:2] == pytest.approx([0, 0], abs=1e-9)
    assert forecast[:2] == pytest.approx([0.5, expit(1.3)])
    assert told[2] == pytest.approx(np.log(2), abs=0.01)
    nearer, _ = information(np.array([0.0, 3.0]), np.array([1.0, 1.0]))
    assert nearer[0] > 2 * nearer[1], "an answer that is known beforehand tells little, however wide the weights"


def test_what_tells_most_beats_chance(known: tuple[World, PersonalReward]) -> None:
    found, model = known
    pairs = list(combinations(range(80), 2))
    by = {
        name: np.mean([questioned(found, model, pairs, name, range(8), seed, 4, num_offered=150) for seed in range(2)])
        for name in ("information", "variance", "random")
    }
    assert by["information"] > by["random"] + 0.02, by
    assert by["variance"] > by["random"] + 0.02, by


def test_several_questions_at_once_do_not_repeat_each_other(known: tuple[World, PersonalReward]) -> None:
    """Two copies of the same text make a second question that tells less than another pair does."""
    found, model = known
    features = np.concatenate([found.features_TD, found.features_TD])
    ids = [*found.texts, *(f"{text}-copy" for text in found.texts)]
    pairs = [(a, b) for a, b in combinations(range(80), 2)]
    both = [*pairs, *((a + 80, b + 80) for a, b in pairs)]
    first, second = ask(model, NEW, both, ids, features, count=2)
    assert {second.first.removesuffix("-copy"), second.second.removesuffix("-copy")} != {first.first, first.second}
    assert second.information < first.information
