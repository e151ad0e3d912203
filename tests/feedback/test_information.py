"""How clear a set is, and what one more judgement of it would tell."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.feedback.information import ACCURACY, Ranking, outlook

SLIP = (1 - ACCURACY) / 2
EXACT = 1e-12


def ranking(order: str, flagged: str = "") -> Ranking:
    """Best first; with a space in it, tiers: "a bc" has b and c level."""
    tiers = order.split() if " " in order else list(order)
    return Ranking({id_: rank for rank, tier in enumerate(tiers, start=1) for id_ in tier}, list(flagged))


def test_by_hand() -> None:
    """Two outcomes of three votes: the odds are (0.84 / 0.08) to the power of the lead."""
    assert outlook("ab", []).confidence == pytest.approx(1 / 3, abs=EXACT)
    one = outlook("ab", [ranking("ab")])
    assert one.confidence == pytest.approx(ACCURACY, abs=EXACT)
    two = outlook("ab", [ranking("ab"), ranking("ab")])
    assert two.confidence == pytest.approx(ACCURACY**2 / (ACCURACY**2 + 2 * SLIP**2), abs=EXACT)
    assert (one.clear, two.clear) == (False, True)
    split = outlook("ab", [ranking("ab"), ranking("ba")])
    assert split.confidence == pytest.approx(ACCURACY / (2 * ACCURACY + SLIP), abs=EXACT)
    three = outlook("ab", [ranking("ab"), ranking("ba"), ranking("ab")])
    share = ACCURACY**2 * SLIP
    assert three.confidence == pytest.approx(share / (share + ACCURACY * SLIP**2 + SLIP**3), abs=EXACT)
    level = outlook("ab", [ranking("ab "), ranking("ab ")])  # both level
    assert level.confidence == pytest.approx(two.confidence, abs=EXACT)


def test_the_information_is_the_mutual_information() -> None:
    """Summed over truths and votes, as it is defined."""
    for votes in ([], ["ab"], ["ab", "ba"], ["ab", "ab"], ["ab", "ab", "ba"]):
        counts = [votes.count("ab"), 0, votes.count("ba")]
        weights = [ACCURACY**n * SLIP ** (len(votes) - n) for n in counts]
        truth = [weight / sum(weights) for weight in weights]
        joint = [[p * (ACCURACY if t == v else SLIP) for v in range(3)] for t, p in enumerate(truth)]
        vote = [sum(joint[t][v] for t in range(3)) for v in range(3)]
        expected = sum(joint[t][v] * math.log(joint[t][v] / (truth[t] * vote[v])) for t, v in product(range(3), range(3)))
        found = outlook("ab", [ranking(order) for order in votes]).information
        assert found == pytest.approx(expected, abs=1e-9), votes


def test_an_untouched_set_tells_most_and_a_disputed_one_more_than_a_settled_one() -> None:
    fresh, once = outlook("abcd", []), outlook("abcd", [ranking("abcd")])
    agreed = outlook("abcd", [ranking("abcd")] * 2)
    disputed = outlook("abcd", [ranking("abcd"), ranking("dcba")])
    assert fresh.information > disputed.information > once.information > agreed.information > 0
    assert agreed.clear
    assert not disputed.clear


def test_flags() -> None:
    """What most flag leaves the pairs; what somebody flags is to be decided itself."""
    binary = ACCURACY / (1 - ACCURACY)
    both = outlook("ab", [ranking("a", "b"), ranking("a", "b")])
    assert both.confidence == pytest.approx(binary**2 / (1 + binary**2), abs=EXACT), "the flag alone; no pair is left"
    torn = outlook("ab", [ranking("a", "b"), ranking("ab")])
    assert torn.confidence == pytest.approx((0.5 + ACCURACY) / 2, abs=EXACT), "the flag, and a pair with one vote"
    everything = outlook("ab", [ranking("", "ab")])
    assert everything.confidence == pytest.approx(ACCURACY, abs=EXACT)


def test_thumbs_are_decided_one_by_one() -> None:
    up, down = Ranking({"a": 1, "b": 1}, []), Ranking({"a": 1, "b": 2}, [])
    found = outlook("ab", [up, down], thumbs=True)
    binary = ACCURACY / (1 - ACCURACY)
    assert found.confidence == pytest.approx((binary**2 / (1 + binary**2) + 0.5) / 2, abs=EXACT)
    assert outlook("ab", [up, up], thumbs=True).clear


def test_nothing_to_decide_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to decide"):
        outlook([], [])


ORDERS = st.lists(st.permutations("abcd"), max_size=6)


@given(ORDERS, st.randoms())
def test_neither_names_nor_the_order_of_judgements_matter(orders: list[list[str]], chance: random.Random) -> None:
    found = outlook("abcd", [ranking("".join(order)) for order in orders])
    renamed = dict(zip("abcd", "wxyz", strict=True))
    shuffled = orders.copy()
    chance.shuffle(shuffled)
    again = outlook("zxyw", [Ranking({renamed[i]: r for r, i in enumerate(order, 1)}, []) for order in shuffled])
    assert found.confidence == pytest.approx(again.confidence, abs=EXACT)
    assert found.information == pytest.approx(again.information, abs=EXACT)
    assert 1 / 3 <= found.confidence <= 1
    assert 0 <= found.information <= math.log(3)
