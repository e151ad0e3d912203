"""What no person can turn off: the weight of a safety score, whatever the person's labels say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heedful.errors import DataError
from heedful.persons.basis import Basis
from heedful.persons.choosing import best
from heedful.persons.fitting import Settings
from heedful.persons.labels import Label, Labels, gather
from heedful.persons.model import PersonalReward, fit_persons, know_persons, learn_heads
from heedful.persons.safety import Safety, fit_safety, no_safety

NUM_TEXTS, NUM_FEATURES = 120, 10
FLOOR = 0.5
ADVERSARY, KIND = "adversary", "p00"


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """Harm shows in the first feature (and a little in the second), style in the others."""
    return np.random.default_rng(0).standard_normal((NUM_TEXTS, NUM_FEATURES))


def texts() -> list[str]:
    return [f"t{number:03}" for number in range(NUM_TEXTS)]


def harm(features: np.ndarray) -> np.ndarray:
    return features[:, 0] + 0.3 * features[:, 1]


@pytest.fixture(scope="module")
def safety(features: np.ndarray) -> Safety:
    """The team's own votes: 1 where there is no harm."""
    votes = [Label("team", text, None, float(bad < 0)) for text, bad in zip(texts(), harm(features), strict=True)]
    return fit_safety("harm", gather(votes), features)


def labels_of(features: np.ndarray, *, adversary: bool = True) -> Labels:
    """Twenty persons who want little harm and each a style, and one who calls everything harmful good and the rest bad."""
    chance = np.random.default_rng(1)
    found = []
    for number in range(20):
        style = chance.standard_normal(NUM_FEATURES - 2)
        logit = -harm(features) + features[:, 2:] @ style / 2
        for place in chance.permutation(NUM_TEXTS)[:40]:
            value = float(chance.random() < 1 / (1 + np.exp(-logit[place])))
            found.append(Label(f"p{number:02}", texts()[place], None, value))
    if adversary:
        found += [Label(ADVERSARY, text, None, float(bad > 0)) for text, bad in zip(texts(), harm(features), strict=True)]
    return gather(found, texts=texts())


@pytest.fixture(scope="module")
def model(features: np.ndarray, safety: Safety) -> PersonalReward:
    return fit_persons(labels_of(features), features, safety, Settings(ridge_heads=1.0, text_scale=0.0, safety_floor=FLOOR))


def slope(model: PersonalReward, features: np.ndarray, person: str) -> float:
    """By how much a person's reward rises with the safety score, over the texts: the regression of one on the other."""
    reward, _ = model.rewards(person, features, texts())
    score = model.heads.safety.scores(features)[:, 0]
    return float(np.polyfit(score, reward, 1)[0])


def test_without_a_floor_the_adversary_turns_safety_round(features: np.ndarray) -> None:
    """What the floor is there for: the same labels, no safety head."""
    free = fit_persons(labels_of(features), features, no_safety(NUM_FEATURES), Settings(ridge_heads=1.0, text_scale=0.0))
    reward, _ = free.rewards(ADVERSARY, features, texts())
    assert np.corrcoef(reward, harm(features))[0, 1] > 0.8


def test_the_adversary_keeps_the_floor(model: PersonalReward, features: np.ndarray) -> None:
    """Exact on the texts of the fit, since no other head goes up or down with safety there."""
    found = slope(model, features, ADVERSARY)
    assert found == pytest.approx(FLOOR, abs=1e-6)
    assert slope(model, features, KIND) > FLOOR + 0.1


@pytest.mark.parametrize("times", [1, 50])
def test_no_number_of_labels_lowers_it(model: PersonalReward, features: np.ndarray, times: int) -> None:
    own = labels_of(features)
    mine = own.take(own.person_N == own.persons.index(ADVERSARY))
    columns = (mine.person_N, mine.first_N, mine.second_N, mine.value_N)
    many = Labels(mine.persons, mine.texts, *(np.tile(column, times) for column in columns))
    assert slope(know_persons(model.heads, many, features), features, ADVERSARY) == pytest.approx(FLOOR, abs=1e-6)


def test_a_whole_population_of_adversaries_keeps_it(features: np.ndarray, safety: Safety) -> None:
    found = [
        Label(f"bad{number}", text, None, float(bad > 0))
        for number in range(8)
        for text, bad in zip(texts(), harm(features), strict=True)
    ]
    for scale in (0.0, 0.5):
        model = fit_persons(gather(found), features, safety, Settings(ridge_heads=1.0, text_scale=scale, safety_floor=FLOOR))
        for person in ("bad0", "somebody new"):
            assert slope(model, features, person) >= FLOOR - 1e-6


def test_best_leaves_out_what_is_unsafe_whoever_asks(model: PersonalReward, features: np.ndarray) -> None:
    scores = model.heads.safety.scores(features)[:, 0]
    unsafe, safe = np.argsort(scores)[:3], np.argsort(scores)[-1:]
    places = [*unsafe, *safe]
    found = best(model, ADVERSARY, "p", [texts()[i] for i in places], features[places])
    assert found.completion_id == texts()[safe[0]]
    assert set(found.vetoed) == {texts()[i] for i in unsafe}
    assert found.probability == 1.0
    none = best(model, ADVERSARY, "p", [texts()[i] for i in unsafe], features[unsafe])
    assert none.unsafe
    assert none.vetoed == ()


def test_the_veto_holds_where_the_person_likes_the_unsafe_better(features: np.ndarray, safety: Safety) -> None:
    """Without a floor to speak of, so that nothing but the veto speaks for the safe one."""
    settings = Settings(ridge_heads=1.0, text_scale=0.0, safety_floor=0.0)
    model = fit_persons(labels_of(features), features, safety, settings)
    mean, _ = model.rewards(ADVERSARY, features, texts())
    scores = safety.scores(features)[:, 0]
    liked = int(np.argmax(np.where(scores < -0.1, mean, -np.inf)))
    disliked = int(np.argmin(np.where(scores > 0.1, mean, np.inf)))
    assert mean[liked] > mean[disliked]
    places = [liked, disliked]
    found = best(model, ADVERSARY, "p", [texts()[i] for i in places], features[places])
    assert (found.completion_id, found.vetoed) == (texts()[disliked], (texts()[liked],))


def test_what_was_fitted_is_what_is_read(features: np.ndarray, safety: Safety) -> None:
    """The heads of the fit and those of a text that comes later are computed in two places: here they must agree."""
    labels = labels_of(features)
    heads = learn_heads(labels, features, safety, Settings(ridge_heads=1.0, text_scale=0.5))
    basis = Basis(heads.scale.apply(features), safety.scores(features), 0.5)
    fitted = basis.heads(heads.weights_FC)
    offset, weighed = heads.read(features, labels.texts)
    score = safety.scores(features)[:, 0]
    assert weighed[:, :-1] == pytest.approx(fitted[:, 1:], abs=1e-9)
    assert offset == pytest.approx(fitted[:, 0] + heads.population_S[0] * score, abs=1e-9)
    assert np.abs((score - score.mean()) @ fitted).max() < 1e-9, "no head goes up or down with safety"


def test_a_heads_score_is_zero_where_the_teams_votes_are_even(features: np.ndarray, safety: Safety) -> None:
    scores = safety.scores(features)[:, 0]
    assert scores.std() == pytest.approx(1)
    assert np.mean((scores > 0) == (harm(features) < 0)) > 0.95
    pairs = [Label("team", texts()[i], texts()[i + 1], float(harm(features)[i] < harm(features)[i + 1])) for i in range(100)]
    of_pairs = fit_safety("pairs", gather(pairs), features[:101])
    assert of_pairs.scores(features[:101]).mean() == pytest.approx(0, abs=1e-9)
    assert np.corrcoef(of_pairs.scores(features)[:, 0], scores)[0, 1] > 0.9


def test_a_team_that_says_one_thing_only_is_refused(features: np.ndarray) -> None:
    with pytest.raises(DataError, match="'flat': its labels are all alike"):
        fit_safety("flat", gather([Label("team", "t000", None, 1.0)]), features[:1])


def test_a_floor_of_zero_sd_is_the_populations_weight(features: np.ndarray, safety: Safety) -> None:
    model = fit_persons(labels_of(features), features, safety, replace(Settings(text_scale=0.0), safety_sd=0.0))
    expected = float(model.heads.population_S[0])
    for person in (ADVERSARY, KIND):
        assert slope(model, features, person) == pytest.approx(expected, abs=1e-6)
