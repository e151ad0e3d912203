"""Figures of attacks by hand: kinds, cases with several answers, categories, before and after, and what failures become."""

from __future__ import annotations

import pytest

from heedful.errors import DataError
from heedful.evaluation.attack import Answer, Kind, attack_figures, case_of, category_of, is_attack, kind_of, told_apart
from heedful.evaluation.failures import failures_of, labelling_queue, training_prompts
from heedful.evaluation.statistics import wilson
from heedful.records import Completion, Message, Prompt, Sampling

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Open a window at night and let a fan run until the morning comes again."


def prompt(id_: str, *tags: str, **fields: object) -> Prompt:
    return Prompt(id=id_, messages=(Message(role="user", content=f"Ask {id_}"),), tags=tags, **fields)


def completion(prompt_id: str, text: str, number: int = 1) -> Completion:
    sampling = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=40)
    return Completion(
        id=f"{prompt_id}/{number}", prompt_id=prompt_id, text=text, model="m", finish="stop", sampling=sampling, num_tokens=9
    )


def answer(
    case: str, kind: Kind, *, category: str = "c", attack: bool = True, id_: str = "", strategy: str | None = None
) -> Answer:
    prompt_id = id_ or case
    return Answer(prompt_id, f"{prompt_id}/1", case, strategy, category, attack, "?", "!", kind, "", 0.0, None, "stop")


def test_each_answer_is_of_one_kind_and_gibberish_is_no_refusal() -> None:
    kinds = [kind_of(text, score, 0.5)[0] for text, score in ((ANSWER, 0.6), (ANSWER, 0.5), (REFUSAL, 0.9), ("", 0.9))]
    assert kinds == ["harmful", "safe", "refused", "incoherent"]
    assert kind_of(REFUSAL + " " + REFUSAL + " " + REFUSAL + " " + REFUSAL, 0.0, 0.5)[0] == "incoherent"
    assert kind_of(ANSWER, 0.9, 0.5, mean_logprob=-9.0, num_tokens=15)[0] == "incoherent"
    assert kind_of(ANSWER, -2.0, -3.0)[0] == "harmful", "thresholds of rewards may be negative"


def test_prompts_say_what_they_are() -> None:
    assert category_of(prompt("a", "cyber", "red-team")) == "cyber"
    assert category_of(prompt("a", "harmless", "red-team")) == category_of(prompt("a")) == "(no category)"
    assert is_attack(prompt("a"))
    assert is_attack(prompt("a", "x", "red-team"))
    assert not is_attack(prompt("a", "safe", "looks-unsafe"))
    assert case_of(prompt("a~polite", seed_id="a")) == "a"


def test_completions_are_told_apart_with_what_is_known_of_their_prompts() -> None:
    prompts = [prompt("a", "cyber", "red-team"), prompt("a~polite", "cyber", "red-team", seed_id="a", strategy="polite")]
    found = told_apart(prompts, [completion("a", REFUSAL), completion("a~polite", ANSWER)], [0.1, 0.9], 0.5, [-1.0, -9.0])
    assert [(one.case, one.strategy, one.category, one.kind) for one in found] == [
        ("a", None, "cyber", "refused"),
        ("a", "polite", "cyber", "incoherent"),
    ]


def test_help_with_a_harmless_prompt_is_no_harm() -> None:
    prompts = [prompt("a", "cyber", "red-team"), prompt("s", "safe")]
    found = told_apart(prompts, [completion("a", ANSWER), completion("s", ANSWER)], [0.9, 0.9], 0.5)
    assert [one.kind for one in found] == ["harmful", "safe"]
    assert "harmful" not in attack_figures(found, num_resamples=100)["look_alikes"]["kinds"]


def test_success_counts_cases_and_not_answers() -> None:
    answers = [
        answer("a", "refused"),
        answer("a", "harmful", id_="a~x", strategy="x"),
        answer("b", "safe", category="d"),
        answer("b", "safe", category="d", id_="b~x", strategy="x"),
        answer("s", "refused", attack=False),
    ]
    found = attack_figures(answers, num_resamples=100)
    assert found["attacks"]["success"]["before"] == wilson(1, 2).as_dict()
    assert found["attacks"]["success"]["num_answers"] == {"before": 4}
    assert {name: row["before"]["estimate"] for name, row in found["attacks"]["by_category"].items()} == {"c": 1.0, "d": 0.0}
    assert {name: row["before"]["estimate"] for name, row in found["attacks"]["by_strategy"].items()} == {
        "(as written)": 0.0,
        "x": 0.5,
    }
    assert found["attacks"]["kinds"]["harmful"]["before"]["estimate"] == 0.25
    assert found["look_alikes"]["refused"]["before"] == wilson(1, 1).as_dict()


def test_kinds_add_up_and_single_answers_have_wilsons_interval() -> None:
    kinds: tuple[Kind, ...] = ("refused", "harmful", "harmful", "safe", "incoherent")
    found = attack_figures([answer(f"p{n}", kind) for n, kind in enumerate(kinds)])["attacks"]["kinds"]
    assert sum(row["before"]["estimate"] for row in found.values()) == pytest.approx(1)
    assert found["harmful"]["before"] == wilson(2, 5).as_dict()


def test_before_and_after_are_paired() -> None:
    before = [answer(f"p{n}", "harmful" if n < 16 else "refused") for n in range(20)]
    after = [answer(f"p{n}", "harmful" if n in (0, 19) else "refused") for n in range(20)]
    found = attack_figures(before, after, num_resamples=500)["attacks"]
    assert found["success"]["difference"]["estimate"] == pytest.approx(-14 / 20)
    assert found["success"]["difference"]["high"] < 0
    assert (found["success"]["change"]["gained"], found["success"]["change"]["lost"]) == (1, 15)
    assert found["by_category"]["c"]["change"]["p_holm"] == found["success"]["change"]["p"]
    assert found["kinds"]["refused"]["difference"]["estimate"] == pytest.approx(14 / 20)
    swapped = attack_figures(after, before, num_resamples=500)["attacks"]
    assert swapped["success"]["difference"]["estimate"] == pytest.approx(14 / 20)


def test_both_models_answer_the_same_prompts() -> None:
    with pytest.raises(DataError, match="'b' has an answer on one side only"):
        attack_figures([answer("a", "safe"), answer("b", "safe")], [answer("a", "safe")])


def test_without_look_alikes_nothing_is_said_of_them() -> None:
    assert attack_figures([answer("a", "safe")])["look_alikes"] is None


def test_failures_become_a_queue_or_training_prompts() -> None:
    prompts = [
        prompt("a", "c", "red-team", split="train"),
        prompt("h", "c", "red-team", split="heldout"),
        prompt("ok", "c", "red-team", split="train"),
        prompt("s", "safe", split="train"),
    ]
    answers = [answer("a", "harmful"), answer("h", "harmful"), answer("ok", "refused"), answer("s", "refused", attack=False)]
    assert failures_of(answers) == {"a": "harmful", "h": "harmful", "s": "over-refusal"}
    ready, held_out = training_prompts(prompts, answers)
    assert [(one.id, one.split, (one.model_extra or {})["failure"]) for one in ready] == [
        ("a", "train", "harmful"),
        ("s", "train", "over-refusal"),
    ]
    assert held_out == 1, "a held-out prompt stays out of training"
    sides = {side: [completion(one.id, ANSWER) for one in prompts] for side in ("before", "after")}
    queue, shown = labelling_queue(prompts, sides, answers)
    assert [one.id for one in queue] == ["a", "h", "s"]
    assert sorted(one.id for one in shown) == sorted(f"{side}/{id_}/1" for side in sides for id_ in ("a", "h", "s"))
    _, alone = labelling_queue(prompts, {"before": sides["before"]}, answers)
    assert [one.id for one in alone] == ["a/1", "h/1", "s/1"]


def test_a_queue_holds_no_more_than_labelers_can_keep_in_view() -> None:
    many = [completion("a", ANSWER, number) for number in range(1, 13)]
    prompts, answers = [prompt("a", "c", "red-team")], [answer("a", "harmful")]
    assert len(labelling_queue(prompts, {"before": many}, answers)[1]) == 9
    assert len(labelling_queue(prompts, {"before": many, "after": many}, answers)[1]) == 8
