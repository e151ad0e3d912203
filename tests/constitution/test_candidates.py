"""Answers to compare: what is asked of the writer, what is kept, and what is left out with which count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from heedful.constitution.candidates import candidates
from heedful.constitution.principles import Constitution
from heedful.errors import DataError
from heedful.judging.calls import Usage
from heedful.judging.writing import Finished, Reply, Request
from heedful.records import Message, Prompt

PROMPTS = [Prompt(id=f"p{n}", messages=(Message(role="user", content=f"What is {n}?"),)) for n in range(6)]


def constitution(*, good: str = "Be kind.", bad: str = "Be rude.") -> Constitution:
    one = {"critique": "c", "revision": "r", "question": "Which is kinder?"}
    principles = [one | {"name": "kind", "good": good, "bad": bad}, one | {"name": "bare"}]
    return Constitution.model_validate({"name": "two", "principles": principles})


class Echo:
    """Says what it was told and by which seed; nothing to p5."""

    identity, usage = "echo", Usage()

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def fits(self, request: Request) -> bool:
        return True

    def __call__(self, requests: Sequence[Request], finished: Finished | None = None) -> list[Reply]:
        self.requests += requests
        return [
            Reply("", problem="the reply is empty")
            if "5" in one.messages[-1].content
            else Reply(f"{one.messages[0].content} {one.seed % 2}", "length")
            for one in requests
        ]


def asked(echo: Echo, **changed: Any) -> tuple[list[Any], dict[str, int]]:
    given: dict[str, Any] = {"num_sampled": 2, "num_contrasted": 1, "temperature": 0.8, "top_p": 0.9, "max_new_tokens": 12}
    return candidates(echo, PROMPTS, constitution(), name="m", **(given | changed))  # type: ignore[arg-type]


def test_sampled_and_contrasted_answers() -> None:
    echo = Echo()
    found, dropped = asked(echo)
    assert len(echo.requests) == 4 * len(PROMPTS)
    first = [one for one in found if one.prompt_id == "p0"]
    assert [one.id for one in first] == [f"p0/{n}" for n in range(1, len(first) + 1)]
    good, bad = (next(one for one in first if (one.model_extra or {}).get("instruction") == side) for side in ("good", "bad"))
    assert (good.text[:8], bad.text[:8]) == ("Be kind.", "Be rude.")
    assert good.model_extra == {"instruction": "good", "principle": "kind", "contrast": 1}
    assert good.sampling.seed == bad.sampling.seed, "they part where the instructions make them"
    assert (good.finish, good.sampling.max_new_tokens, good.sampling.temperature) == ("length", 12, 0.8)
    assert dropped["invalid answer"] == 4, "all four of p5"
    plain = [one for one in found if not (one.model_extra or {}).get("instruction")]
    assert dropped.get("equal answer", 0) == 2 * 5 - len(plain), "whose seeds are both even or both odd"
    assert 0 < dropped["equal answer"] < 5


def test_the_same_seeds_again_and_others_by_another_seed() -> None:
    seeds = []
    for seed in (0, 0, 1):
        echo = Echo()
        asked(echo, seed=seed)
        seeds.append([one.seed for one in echo.requests])
    assert seeds[0] == seeds[1] != seeds[2]
    assert len(set(seeds[0])) == 3 * len(PROMPTS)


def test_too_many_answers_and_a_constitution_without_instructions() -> None:
    with pytest.raises(DataError, match=r"4 answers and 3 contrasted pairs are more than 9"):
        asked(Echo(), num_sampled=4, num_contrasted=3)
    with pytest.raises(DataError, match="no principle of the constitution 'two' has a good and a bad instruction"):
        candidates(
            Echo(),
            PROMPTS,
            constitution(good="", bad=""),
            name="m",
            num_sampled=1,
            num_contrasted=1,
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=4,
        )
