"""heedful evaluate winrate and summaries by an AI judge: the gate first, then the wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from in_process import assert_told, heedful
from json_server import server

from heedful.data.formats import prompt_id
from heedful.judging.judge import Judge, Pair
from heedful.judging.local import local_letters
from heedful.records import Completion, Message, Preference, Prompt, Sampling
from heedful.store import write_jsonl

SAMPLING = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=40)
NUM_PROMPTS = 14
ASKED = [(Message(role="user", content=f"What is {n} and {n + 1}?"),) for n in range(NUM_PROMPTS)]


def completions(path: Path, text: str, number: int = NUM_PROMPTS) -> Path:
    """One answer a prompt: the text, and its number."""
    rows = [
        Completion(
            id=f"{path.stem}/{n}",
            prompt_id=prompt_id(asked),
            text=text and f"{text} {n}",
            model=path.stem,
            finish="stop",
            sampling=SAMPLING,
        )
        for n, asked in enumerate(ASKED[:number])
    ]
    write_jsonl(path, rows)
    return path


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    folder = tmp_path_factory.mktemp("contest")
    prompts = [Prompt.model_validate({"id": prompt_id(asked), "messages": asked, "reference": "It is it."}) for asked in ASKED]
    write_jsonl(folder / "prompts.jsonl", prompts)
    first, second = (
        completions(folder / "first.jsonl", "Short"),
        completions(folder / "second.jsonl", "A longer answer is this"),
    )
    return "--prompts", folder / "prompts.jsonl", "--completions", first, "--against", second


def labelled(path: Path, *, chosen: str = "a long answer it is", rejected: str = "no") -> Path:
    """Pairs in which people chose the longer answer."""
    write_jsonl(
        path,
        [
            Preference(prompt_id=prompt_id(asked), prompt=asked, chosen=f"{chosen}{n}", rejected=f"{rejected}{n}")
            for n, asked in enumerate(ASKED)
        ],
    )
    return path


def likes_length(body: Any) -> tuple[int, str]:
    """Names the longer answer, and A where both are as long."""
    assert body["model"] == "big"
    text = body["messages"][0]["content"]
    a, b = (len(text.split(f"Answer {letter}:\n")[1].split("\n")[0]) for letter in "AB")
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "A" if a >= b else "B"}}]})


def names_the_first(_: Any) -> tuple[int, str]:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "A"}}]})


def test_a_judge_behind_an_address_passes_its_gate_and_counts_wins(
    sides: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_TOKEN", "abc")
    gate = labelled(tmp_path / "pairs.jsonl")
    with server([likes_length]) as (url, seen):
        given = ("winrate", *sides, "--judge", url.removesuffix("/score"), "--judge-model", "big", "--gate", gate)
        done = heedful("evaluate", *given, "--token-env", "JUDGE_TOKEN", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        told = heedful("evaluate", *given, "--gate-pairs", 12).stdout
    assert (found["win_rate"]["estimate"], found["wins"], found["num_prompts"]) == (1, NUM_PROMPTS, NUM_PROMPTS)
    assert {"name", "accuracy", "order_consistency", "num_pairs"} <= set(found["judge"])
    assert found["judge"]["name"] == "big"
    assert found["judge"]["accuracy"]["estimate"] == found["judge"]["order_consistency"]["estimate"] == 1
    assert found["judge"]["num_pairs"] == NUM_PROMPTS
    assert "length_controlled" in found
    assert {request["path"] for request in seen} == {"/chat/completions"}
    assert seen[0]["headers"]["Authorization"] == "Bearer abc"
    assert "The judge big agrees with people on 100.0%" in told
    assert "of 12\npairs" in told or "of 12 pairs" in told
    assert max(map(len, told.splitlines())) <= 80


def test_a_judge_that_names_places_is_refused_with_its_figures(sides: tuple[object, ...], tmp_path: Path) -> None:
    with server([names_the_first]) as (url, seen):
        given = ("--judge", url.removesuffix("/score"), "--judge-model", "big", "--gate", labelled(tmp_path / "pairs.jsonl"))
        failed = heedful("evaluate", "winrate", *sides, *given)
    assert_told(failed, "agrees with people on 50.0% [", "in 0.0% [", "The interval holds 50%")
    assert len(seen) == 2 * NUM_PROMPTS, "nothing was judged after the gate"


def test_a_local_judge_whose_taste_is_the_labels(sides: tuple[object, ...], tmp_path: Path) -> None:
    """Random weights have a taste, too: pairs that follow it let the model pass, turned round they do not."""
    tiny = tiny_model.make(tmp_path / "tiny", context=1024)
    judge = Judge("tiny", local_letters(str(tiny)))
    pairs = [
        Pair(asked, f"one{n}, {n}", f"{word} {n}") for n, asked in enumerate(ASKED) for word in ("another", "why?", "No. " * 9)
    ]
    opinions = judge(pairs)
    rows = []
    for pair, opinion in zip(pairs, opinions, strict=True):
        better, worse = (pair.second, pair.first) if opinion.score > 0.5 else (pair.first, pair.second)
        if opinion.score != 0.5:
            rows.append(Preference(prompt_id=prompt_id(pair.messages), prompt=pair.messages, chosen=better, rejected=worse))
    assert len(rows) >= 12, "nearly all ties: choose other weights"
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    turned = [row.model_copy(update={"chosen": row.rejected, "rejected": row.chosen}) for row in rows]
    write_jsonl(tmp_path / "turned.jsonl", turned)
    done = heedful("evaluate", "winrate", *sides, "--judge", tiny, "--gate", tmp_path / "pairs.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["judge"]["name"], found["judge"]["accuracy"]["estimate"]) == (str(tiny), 1)
    first, second = ([row["text"] for row in map(json.loads, Path(str(sides[n])).read_text().splitlines())] for n in (3, 5))
    scores = [one.score for one in judge([Pair(*row) for row in zip(ASKED, first, second, strict=True)])]
    assert found["win_rate"]["estimate"] == pytest.approx(sum(scores) / len(scores), abs=1e-4), "probabilities, not counts"
    failed = heedful("evaluate", "winrate", *sides, "--judge", tiny, "--gate", tmp_path / "turned.jsonl")
    assert_told(failed, "on 0.0%", "worse than a coin")


def test_summaries_among_all_sides_by_a_judge(sides: tuple[object, ...], tmp_path: Path) -> None:
    gate = labelled(tmp_path / "pairs.jsonl")
    files = ("--completions", f"base={sides[3]}", "--completions", f"aligned={sides[5]}")
    with server([likes_length]) as (url, _):
        given = ("summaries", *sides[:2], *files, "--judge", url.removesuffix("/score"), "--judge-model", "big", "--gate", gate)
        done = heedful("evaluate", *given, "--json")
        shown = heedful("evaluate", *given).stdout
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rates = {(row["first"], row["second"]): row["win_rate"]["estimate"] for row in found["win_rates"]}
    assert rates == {("base", "aligned"): 1, ("base", "reference"): 1, ("aligned", "reference"): 0}
    assert found["judge"]["num_pairs"] == NUM_PROMPTS
    assert (found["classifier"], found["classifier_accuracy"]) == ("profanity", None)
    assert "The judge big agrees" in shown
    assert "was not measured" in shown.replace("\n", " ")


def test_options_that_do_not_fit_are_told(sides: tuple[object, ...], tmp_path: Path) -> None:
    gate = labelled(tmp_path / "pairs.jsonl")

    def failed(*words: object, of: tuple[object, ...] = sides) -> Any:
        return heedful("evaluate", "winrate", *of, *words)

    assert_told(failed("--judge", "m"), "--judge needs --gate PREFERENCES", "name a place")
    assert_told(failed("--judge", "m", "--reward", "r", "--gate", gate), "say who judges")
    assert_told(failed("--judge", "m", "--gate", gate, of=sides[2:]), "reads --prompts")
    assert_told(failed("--reward", "r", "--gate", gate), "belong to --judge")
    assert_told(failed("--judge", "https://localhost:9/v1", "--gate", gate), "--judge-model which of its models")
    assert_told(failed("--judge", "m", "--judge-model", "big", "--gate", gate), "an address, https://")
    absent = ("--judge", "https://localhost:9/v1", "--judge-model", "big", "--token-env", "NO_SUCH_TOKEN", "--gate", gate)
    assert_told(failed(*absent), "--token-env = 'NO_SUCH_TOKEN': there is no such")
    files = ("--completions", f"base={sides[3]}", "--judge", "m")
    assert_told(heedful("evaluate", "summaries", *sides[:2], *files), "--judge needs --gate")


def test_one_prompt_and_empty_answers(sides: tuple[object, ...], tmp_path: Path) -> None:
    """One prompt has no interval; of two, empty answers are judged as such and counted."""
    one = (
        *sides[:2],
        "--completions",
        completions(tmp_path / "a.jsonl", "x", 1),
        "--against",
        completions(tmp_path / "b.jsonl", "", 1),
    )
    with server([likes_length]) as (url, seen):
        given = ("--judge", url.removesuffix("/score"), "--judge-model", "big", "--gate", labelled(tmp_path / "pairs.jsonl"))
        done = heedful("evaluate", "winrate", *one, *given)
        found = json.loads(heedful("evaluate", "winrate", *one, *given, "--json").stdout)
    assert "One prompt only: there is no interval" in done.stdout
    assert "1 of the second one's answers is empty" in done.stdout.replace("\n", " ")
    assert found["empty"] == {"first": 0, "second": 1}
    assert (found["win_rate"]["low"], found["win_rate"]["high"]) == (None, None)
    assert any("(no answer)" in request["body"]["messages"][0]["content"] for request in seen)
