"""KTO's marks: what is refused, what is weighed, and which completions are lent to which prompts."""

from __future__ import annotations

import pytest

from heedful.config import KTOSection
from heedful.errors import DataError
from heedful.models.reward import Answer
from heedful.training import kto


def marks(good: int, bad: int) -> list[kto.Marked]:
    answer = Answer((), "text", [1], [2])
    return [kto.Marked(f"p{i}", answer, i < good) for i in range(good + bad)]


@pytest.mark.parametrize(("good", "bad"), [(0, 30), (30, 0), (7, 30), (0, 0)])
def test_labels_of_one_class_are_refused(good: int, bad: int) -> None:
    with pytest.raises(DataError, match=rf"{good} completions are marked good and {bad} bad, and KTO needs 8 of each"):
        kto.class_weights(marks(good, bad), settings=KTOSection())


def test_weights_balance_both_marks() -> None:
    assert kto.class_weights(marks(10, 30), settings=KTOSection()) == (3.0, 1.0)
    assert kto.class_weights(marks(30, 10), settings=KTOSection(desirable_weight=1.2)) == (1.2, 3.0)
    assert kto.class_weights(marks(30, 10), settings=KTOSection(balance=False)) == (1.0, 1.0)


@pytest.mark.parametrize(("balance", "advice"), [(True, "weighs 12"), (False, r"kto\.undesirable_weight = 12")])
def test_a_great_imbalance_is_told(balance: bool, advice: str) -> None:
    with pytest.warns(UserWarning, match=f"120 completions are marked good and 10 bad, beyond 10 to 1: .*{advice}"):
        kto.class_weights(marks(120, 10), settings=KTOSection(balance=balance))


def test_mismatches_come_from_other_prompts_and_fit() -> None:
    examples = [kto.Marked(f"p{i % 5}", Answer((), str(i), [i % 5], [100 + i] * (i + 1)), bool(i % 2)) for i in range(15)]
    found = kto.with_mismatches(examples, max_tokens=6, seed=0)
    lent = set()
    for example, before in zip(found, examples, strict=True):
        assert example.mismatched is not None
        assert example.mismatched.prompt_ids == before.answer.prompt_ids
        owner = example.mismatched.response_ids[0] - 100
        assert owner % 5 != before.answer.prompt_ids[0]
        assert len(example.mismatched.prompt_ids) + len(example.mismatched.response_ids) <= 6
        lent.add(owner)
    assert len(lent) > 8, "completions are lent by many, not by one"
    assert kto.with_mismatches(examples, max_tokens=6, seed=0) == found
    with pytest.raises(DataError, match="all completions answer one prompt"):
        kto.with_mismatches([examples[0], examples[5]], max_tokens=6, seed=0)
