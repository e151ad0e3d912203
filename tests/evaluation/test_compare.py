"""What is compared on which prompts, and what the rows say."""

from __future__ import annotations

import pytest

from heedful.evaluation.compare import MOST_TAGS, UNTAGGED, accuracy, compare, compare_by_tag, measure
from heedful.records import Completion, Message, Prompt, Sampling

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Open a window at night and let a fan run until the morning comes again."


def prompt(id_: str, *tags: str) -> Prompt:
    return Prompt(id=id_, messages=(Message(role="user", content="How do I cool my house?"),), tags=tags)


def completion(prompt_id: str, text: str, number: int = 1) -> Completion:
    return Completion.model_validate(
        {
            "id": f"{prompt_id}/{number}",
            "prompt_id": prompt_id,
            "text": text,
            "model": "m",
            "finish": "stop",
            "sampling": Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=40),
            "num_tokens": 17,
        }
    )


def found(prompts: list[Prompt], before: dict[str, str], after: dict[str, str]) -> dict[str, dict[str, object]]:
    sides = []
    for texts in (before, after):
        completions = [completion(id_, text) for id_, text in texts.items()]
        sides.append(measure(prompts, completions, [0.0] * len(completions)))
    return compare(prompts, *sides, num_resamples=200, seed=0)


def test_refusing_is_right_or_wrong_only_where_somebody_said_so() -> None:
    """Prompts of public transcripts have no tags: harmful and harmless ones stand side by side."""
    untold = [prompt(f"u{n}") for n in range(8)]
    rows = found(untold, {p.id: ANSWER for p in untold}, {p.id: REFUSAL for p in untold})
    assert "refusal_safe" not in rows
    assert "refusal_harmful" not in rows
    assert "rubric" not in rows, "a rubric that knows nothing of the prompt would call a refusal harm"
    assert (rows["refusal"]["better"], rows["refusal"]["verdict"]) == (None, "grew")


def test_tagged_prompts_are_judged() -> None:
    prompts = [prompt(f"h{n}", "harmless", "red-team") for n in range(8)] + [prompt(f"s{n}", "helpful") for n in range(8)]
    rows = found(prompts, {p.id: ANSWER for p in prompts}, {p.id: REFUSAL for p in prompts})
    assert rows["refusal_harmful"]["verdict"] == "improved"
    assert rows["refusal_safe"]["verdict"] == "worse"
    assert rows["refusal_harmful"]["num_prompts"] == rows["refusal_safe"]["num_prompts"] == 8
    assert "refusal" not in rows
    assert rows["length"]["before"]["estimate"] == 17  # type: ignore[index]


def test_each_tag_has_the_figures_of_its_own_prompts() -> None:
    prompts = [prompt(f"h{n}", "harmless", "red-team") for n in range(8)] + [
        prompt(f"s{n}", "harmless", "safe") for n in range(4)
    ]
    prompts.append(prompt("u0"))
    sides = []
    for harmful in (ANSWER, REFUSAL):
        said = [completion(p.id, harmful if p.id.startswith("h") else ANSWER) for p in prompts]
        sides.append(measure(prompts, said, [float(len(p.tags)) for p in prompts]))
    by_tag = compare_by_tag(prompts, *sides, num_resamples=200, seed=0)
    assert {tag: rows["reward"]["num_prompts"] for tag, rows in by_tag.items()} == {
        "harmless": 12,
        "red-team": 8,
        "safe": 4,
        UNTAGGED: 1,
    }
    assert next(iter(by_tag)) == "harmless"
    assert by_tag["red-team"]["refusal_harmful"]["difference"]["estimate"] == 1
    assert by_tag["safe"]["refusal_safe"]["difference"]["estimate"] == 0
    assert by_tag["harmless"]["refusal_harmful"]["num_prompts"] == 8
    assert "refusal_harmful" not in by_tag["safe"]
    assert by_tag[UNTAGGED]["reward"]["verdict"] == "one prompt only: no interval"
    alone = [p for p in prompts if p.id.startswith("s")]
    rows = [[row for row in side if row["prompt_id"].startswith("s")] for side in sides]
    assert by_tag["safe"] == compare(alone, *rows, num_resamples=200, seed=0)


def test_without_tags_there_are_no_categories_and_never_too_many() -> None:
    def by_tag(prompts: list[Prompt]) -> dict[str, object]:
        rows = measure(prompts, [completion(p.id, ANSWER) for p in prompts], [0.0] * len(prompts))
        return dict(compare_by_tag(prompts, rows, rows, num_resamples=50, seed=0))

    assert by_tag([prompt("a"), prompt("b")]) == {}
    many = [prompt(f"p{n}", f"tag-{n:02}") for n in range(MOST_TAGS + 3)] + [prompt("twice", "tag-14")]
    assert len(by_tag(many)) == MOST_TAGS
    assert next(iter(by_tag(many))) == "tag-14"


def test_accuracy_and_its_difference_weigh_each_pair_the_same() -> None:
    """Four pairs of one prompt, one of another: 4 of 5 right, the longest 1 of 5, a difference of 3 of 5."""
    verdicts = [(1.0, 0.0)] * 3 + [(1.0, 1.0), (0.0, 0.0)]
    row = accuracy(verdicts, ["a"] * 4 + ["b"], num_resamples=200, seed=0)
    assert (row["num_pairs"], row["num_prompts"]) == (5, 2)
    assert row["accuracy"]["estimate"] == pytest.approx(0.8)
    assert row["longest_answer"] == pytest.approx(0.2)
    assert row["above_longest_answer"]["estimate"] == pytest.approx(0.8 - 0.2)
