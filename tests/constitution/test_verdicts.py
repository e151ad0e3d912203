"""From opinions to records: ranks, probabilities, near ties; and a consensus that weighs a bad AI judge like a bad labeler."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from heedful.constitution.council import Settled
from heedful.constitution.verdicts import Verdicts, compared, verdicts
from heedful.feedback.settlement import settle_into
from heedful.judging.judge import Opinion, Pair
from heedful.judging.scored import Scored, Texts, sharpened
from heedful.records import Completion, Judgement, Message, Preference, Prompt, Sampling, read_jsonl
from heedful.store import write_jsonl

WHEN = "2026-01-01T00:00:00+00:00"
CRITERION = "helpful"


def prompt(number: int) -> Prompt:
    return Prompt(id=f"p{number}", messages=(Message(role="user", content=f"What is {number}?"),))


def answer(number: int, name: str, text: str, **more: object) -> Completion:
    sampling = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=40)
    fields = {"id": f"p{number}/{name}", "prompt_id": f"p{number}", "text": text, "model": "m", "finish": "stop"}
    return Completion.model_validate(fields | {"sampling": sampling} | more)


def worth(texts: Texts) -> list[float]:
    """The number that an answer ends with."""
    return [math.nan if text == "?" else float(text.split()[-1]) for _, text in texts]


def made(completions: list[Completion], *, near_tie: float = 0.05, judge: object = None, slope: float = 1.0) -> Verdicts:
    prompts = [prompt(n) for n in sorted({int(one.prompt_id[1:]) for one in completions})]
    found = compared(judge or Scored("worth", worth), prompts, completions, temper=lambda one: sharpened(one, slope))  # type: ignore[arg-type]
    return verdicts(found, labeler="worth", criterion=CRITERION, near_tie=near_tie, created_at=WHEN, scorer="reward")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_pair_by_hand() -> None:
    found = made([answer(0, "a", "so 1"), answer(0, "b", "so 3")])
    (pair,) = found.preferences
    assert (pair.chosen, pair.rejected, pair.chosen_id, pair.source) == ("so 3", "so 1", "p0/b", "ai")
    assert pair.probability == pytest.approx(sigmoid(2))
    (judgement,) = found.judgements
    assert (judgement.source, judgement.labeler, judgement.criterion) == ("ai", "worth", CRITERION)
    assert judgement.ranks == {"p0/b": 1, "p0/a": 2}
    assert judgement.shown_order == ("p0/a", "p0/b")
    assert (judgement.model_extra or {})["probability"] == pytest.approx(sigmoid(2))


def test_three_answers_two_of_them_level() -> None:
    found = made([answer(0, "a", "so 1"), answer(0, "b", "so 3"), answer(0, "c", "so 1.01")])
    assert found.judgements[0].ranks == {"p0/b": 1, "p0/c": 2, "p0/a": 2}
    assert [(one.chosen_id, one.rejected_id) for one in found.preferences] == [("p0/b", "p0/a"), ("p0/b", "p0/c")]
    assert found.left_out == {"near tie": 1}
    assert len(made([answer(0, "a", "so 1"), answer(0, "c", "so 1.01")], near_tie=0).preferences) == 1


def test_what_nobody_could_judge_is_counted_and_no_tie() -> None:
    found = made(
        [answer(0, "a", "so 1"), answer(0, "b", "?"), answer(1, "a", "?"), answer(1, "b", "so 2"), answer(2, "a", "so 2")]
    )
    assert found.left_out == {"no readable opinion": 2}
    assert (found.preferences, found.judgements) == ([], [])
    some = made([answer(0, "a", "so 1"), answer(0, "b", "?"), answer(0, "c", "so 3")])
    assert some.judgements[0].ranks == {"p0/c": 1, "p0/a": 2}
    assert some.left_out == {"no readable opinion": 2}


def test_a_slope_makes_probabilities_softer_and_more_ties() -> None:
    soft = made([answer(0, "a", "so 1"), answer(0, "b", "so 3")], slope=0.25)
    assert soft.preferences[0].probability == pytest.approx(sigmoid(0.5))
    assert made([answer(0, "a", "so 1"), answer(0, "b", "so 3")], slope=0.05).left_out == {"near tie": 1}


def test_each_principle_has_its_own_judgements() -> None:
    class Two:
        name, ordered = "two", True

        def __call__(self, pairs: Sequence[Pair]) -> list[Opinion]:
            return [Settled(0.7, 0.7, by={"kind": 0.9, "brief": 0.2, "mute": math.nan}) for _ in pairs]

    found = made([answer(0, "a", "x"), answer(0, "b", "y")], judge=Two())
    assert found.judgements[0].ranks == {"p0/b": 1, "p0/a": 2}
    by = {one.criterion: one for one in found.by_principle}
    assert {name: one.ranks["p0/b"] for name, one in by.items()} == {"kind": 1, "brief": 2}
    assert (by["brief"].model_extra or {})["probability"] == pytest.approx(0.8)
    assert (found.preferences[0].model_extra or {})["principles"] == ["brief", "kind", "mute"]
    assert len({one.id for one in (*found.judgements, *found.by_principle)}) == 3


def test_contrasted_pairs_tell_how_often_the_judge_sides_with_the_good_instruction() -> None:
    def side(number: int, name: str, text: str, instruction: str, contrast: int = 1) -> Completion:
        return answer(number, name, text, instruction=instruction, contrast=contrast, principle="kind")

    found = made(
        [
            *(side(0, "a", "so 3", "good"), side(0, "b", "so 1", "bad")),
            *(
                side(1, "a", "so 1", "good"),
                side(1, "b", "so 3", "bad"),
                side(1, "c", "so 9", "good", 2),
                answer(1, "d", "so 7"),
            ),
        ]
    )
    assert found.agreement == (1, 2)


def people_and_a_judge(flips: float) -> tuple[list[Prompt], list[Completion], list[Judgement]]:
    """Three people who know the order but for some slips, and an AI judge that turns it round in `flips` of the pairs."""
    draw = random.Random(0)
    prompts = [prompt(n) for n in range(24)]
    completions = [answer(n, name, f"so {value}") for n in range(24) for name, value in zip("abc", (3, 2, 1), strict=True)]

    def turned(texts: Texts) -> list[float]:
        # Of a prompt all or nothing, so that the judge stays one of whole orders.
        return [
            value * (-1 if random.Random(f"{messages[0].content}").random() < flips else 1)
            for (messages, _), value in zip(texts, worth(texts), strict=True)
        ]

    ai = verdicts(
        compared(Scored("machine", turned), prompts, completions),
        labeler="machine",
        criterion=CRITERION,
        near_tie=0.02,
        created_at=WHEN,
    ).judgements
    people = []
    for n in range(24):
        for who in ("ann", "bob", "eve"):
            order = ["a", "b", "c"]
            if draw.random() < 0.15:
                order[0], order[1] = order[1], order[0]
            people.append(
                Judgement(
                    id=f"{who}/{n}",
                    prompt_id=f"p{n}",
                    labeler=who,
                    source="human",
                    criterion=CRITERION,
                    ranks={f"p{n}/{name}": place for place, name in enumerate(order, start=1)},
                    created_at=WHEN,
                )
            )
    return prompts, completions, [*people, *ai]


def test_a_consensus_weighs_a_bad_judge_like_a_bad_labeler(tmp_path: Path) -> None:
    weights, suspects, right = {}, {}, {}
    for name, flips in (("good", 0.05), ("coin", 0.5)):
        prompts, completions, judgements = people_and_a_judge(flips)
        # Through their files, as heedful consensus reads them.
        write_jsonl(tmp_path / "judgements.jsonl", judgements)
        read = read_jsonl(tmp_path / "judgements.jsonl", Judgement, unique="id")
        settled = settle_into(tmp_path / name, prompts, completions, read, by="reliability")
        weights[name] = settled["weights"]
        labelers = json.loads((tmp_path / name / "labelers.json").read_text())
        suspects[name] = [row["labeler"] for row in labelers if row["suspect"]]
        pairs = read_jsonl(tmp_path / name / "preferences.jsonl", Preference)
        assert {pair.source for pair in pairs} == {"mixed"}
        right[name] = sum((pair.chosen_id or "") < (pair.rejected_id or "") for pair in pairs) / len(pairs)
    people = ("ann", "bob", "eve")
    assert weights["coin"]["machine"] < min(weights["coin"][who] for who in people) / 2
    assert weights["good"]["machine"] > 0.5
    assert suspects == {"good": [], "coin": ["machine"]}
    assert right["coin"] > 0.95
