"""What is learned from chains, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_writer import ScriptedWriter
from small_constitution import GOOD, RULES, plain, prompts

from heedful.config import ReviseSection
from heedful.constitution.chains import KEPT
from heedful.constitution.learning import counts_of, given_answers, kept_revisions, num_helpful, own_answers
from heedful.constitution.revision import Reviser
from heedful.errors import DataError
from heedful.judging.writing import Reply, Request
from heedful.records import Completion, Sampling

SETTINGS = ReviseSection(num_revisions=2)


def completion(prompt_id: str, number: int) -> Completion:
    sampling = Sampling(temperature=1.0, top_p=1.0, seed=0, max_new_tokens=20)
    text = f"Answer {number} to {prompt_id}."
    return Completion(id=f"{prompt_id}/{number}", prompt_id=prompt_id, text=text, model="m", finish="stop", sampling=sampling)


def reviser(**options: Any) -> Reviser:
    writer = ScriptedWriter(options.pop("script", plain))
    return Reviser(RULES, writer, name="scripted", settings=SETTINGS, seed=0, **options)


def test_a_kept_revision_answers_the_prompt_itself() -> None:
    chains = reviser(score=lambda texts: [float(text == GOOD and "0" in turns[0].content) for turns, text in texts])(prompts(2))
    found = kept_revisions(chains, SETTINGS)
    assert [prompt.id for prompt in found.prompts] == ["p0"]
    (record,) = found.completions
    assert (record.prompt_id, record.text, record.finish) == ("p0", GOOD, "stop")
    assert found.prompts[0].messages == prompts(1)[0].messages, "not the critique's conversation"
    assert record.model_extra == {"kind": "revision", "principle": chains[0].principles[0], "gain": 1.0}


def test_counts_add_up() -> None:
    def script(request: Request) -> Reply:
        reply = plain(request)
        return Reply("", problem="down") if reply.text == GOOD and "number 1" in str(request.messages[-1]) else reply

    found = counts_of(reviser(script=script)(prompts(3)))
    assert found["num_prompts"] == sum(found["chains"].values()) == 3
    assert found["num_kept"] == found["chains"][KEPT] == 2
    assert found["chains"]["no-reply"] == 1
    assert sum(found["revisions"].values()) == 6
    assert (found["revisions"]["no-reply"], found["revisions"]["beaten"]) == (2, 2)
    assert (found["num_critiques"], found["num_without_reply"], found["num_without_room"]) == (3, 2, 0)
    assert found["mean_gain"] is None


@pytest.mark.parametrize(("kept", "share", "expected"), [(10, 0.5, 10), (10, 0.0, 0), (3, 0.75, 9), (0, 0.5, 0), (10, 0.25, 3)])
def test_the_share_of_helpful_answers(kept: int, share: float, expected: int) -> None:
    assert num_helpful(kept, share) == expected


def test_own_answers_that_are_no_use_are_counted_and_replaced() -> None:
    bad = {"number 3?": Reply("No."), "number 4?": Reply("", problem="down"), "number 5?": Reply("and so on", "length")}

    def script(request: Request) -> Reply:
        said = request.messages[-1].content
        return next((reply for end, reply in bad.items() if said.endswith(end)), Reply(GOOD))

    def ask(count: int) -> Any:
        return own_answers(prompts(8), ScriptedWriter(script), count, name="m", settings=SETTINGS, seed=0)

    found = ask(5)
    assert len(found.completions) == 5
    all_of_them = ask(8)
    assert [one.prompt_id for one in all_of_them.completions] == ["p0", "p1", "p2", "p6", "p7"]
    assert all_of_them.counts == {"short": 1, "no-reply": 1, "cut": 1}
    assert {one.kind for one in all_of_them.completions} == {"helpful"}


def test_given_answers_are_drawn_one_a_prompt_first() -> None:
    records = [completion(f"p{i}", number) for i in range(3) for number in range(2)]
    for seed in range(5):
        found = given_answers(prompts(3), records, 3, seed=seed)
        assert {one.prompt_id for one in found.completions} == {"p0", "p1", "p2"}
    assert len(given_answers(prompts(3), records, 9, seed=0).completions) == 6
    with pytest.raises(DataError, match="p9"):
        given_answers(prompts(3), [completion("p9", 0)], 1, seed=0)
