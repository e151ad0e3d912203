"""heedful evaluate on what a small run left: base and aligned answers to the same prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_bert
from in_process import assert_told, heedful

from heedful.data.bundled import load_bundled
from heedful.records import Completion, Prompt, read_jsonl
from heedful.store import write_jsonl

Files = dict[str, Path]


@pytest.fixture(scope="module")
def files(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("evaluate")
    write_jsonl(folder / "prompts.jsonl", load_bundled())
    sides = {name: run / "evaluate" / f"completions-{name}.jsonl" for name in ("before", "after")}
    return {"prompts": folder / "prompts.jsonl", **sides}


def evaluate(*words: object) -> Any:
    done = heedful("evaluate", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def shown(*words: object) -> str:
    done = heedful("evaluate", *words)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout
    return done.stdout


def both(files: Files) -> tuple[object, ...]:
    return "--prompts", files["prompts"], "--completions", files["before"], "--against", files["after"]


def test_toxicity_of_both_by_tag(files: Files) -> None:
    found = evaluate("toxicity", *both(files))
    assert set(found["toxicity"]) == {"before", "after", "difference"}
    assert found["by_tag"]
    assert found["classifier"] == "profanity"
    told = shown("toxicity", *both(files))
    assert "was not measured" in told
    assert "difference" in told


def test_refusals_of_both(files: Files) -> None:
    found = evaluate("refusal", *both(files))
    shares = [found["safe"][kind]["after"]["estimate"] for kind in ("refused", "incoherent", "answered")]
    assert sum(shares) == pytest.approx(1)
    assert "safe, incoherent" in shown("refusal", *both(files))


def test_hhh_of_base_and_aligned(tiny: Path, run: Path) -> None:
    """The base beside the adapter gives what the base gives alone."""
    alone = evaluate("hhh", "--model", tiny)
    found = evaluate("hhh", "--model", tiny, "--against", run)
    assert set(found) == {"harmless", "helpful", "honest", "all"}
    assert found["all"]["num_items"] == 48
    assert {name: row["before"] for name, row in found.items()} == {name: row["before"] for name, row in alone.items()}
    assert "same in both" in shown("hhh", "--model", tiny, "--against", run)


def test_win_rate_by_a_reward(run: Path, files: Files) -> None:
    given = ("winrate", *both(files), "--reward", run / "reward" / "model")
    found = evaluate(*given)
    assert found["wins"] + found["ties"] + found["losses"] == len(read_jsonl(files["before"], Completion))
    swapped = evaluate(
        *("winrate", "--prompts", files["prompts"], "--completions", files["after"], "--against", files["before"]),
        *("--reward", run / "reward" / "model"),
    )
    assert swapped["win_rate"]["estimate"] == pytest.approx(1 - found["win_rate"]["estimate"])
    assert "As if equally long" in shown(*given)
    assert_told(heedful("evaluate", "winrate", *both(files)), "say who judges")
    assert_told(heedful("evaluate", "winrate", *both(files)[2:], "--reward", run / "reward" / "model"), "reads --prompts")
    assert_told(heedful("evaluate", "winrate", *both(files), "--judgements", files["before"]), "leave one of the two out")


def test_one_prompt_has_no_interval_and_that_is_said(files: Files, tmp_path: Path) -> None:
    first = read_jsonl(files["before"], Completion)[:1]
    write_jsonl(tmp_path / "one.jsonl", first)
    for command in ("toxicity", "refusal"):
        told = shown(command, "--prompts", files["prompts"], "--completions", tmp_path / "one.jsonl")
        assert "One prompt only" in told
        assert "[" not in told
        assert "One prompt only" not in shown(command, "--prompts", files["prompts"], "--completions", files["before"])


def test_empty_completions_are_counted_and_all_of_them_may_be(files: Files, tmp_path: Path) -> None:
    rows = read_jsonl(files["before"], Completion)[:6]
    for empty in (2, 6):
        write_jsonl(tmp_path / "c.jsonl", [c.model_copy(update={"text": " "} if n < empty else {}) for n, c in enumerate(rows)])
        given = ("toxicity", "--completions", tmp_path / "c.jsonl")
        assert evaluate(*given)["empty"] == {"before": empty}
        assert f"{empty} completions are empty and count as not toxic" in shown(*given)
    assert evaluate(*given)["toxicity"]["before"]["estimate"] == 0


def test_a_classifier_whose_labels_say_nothing_is_asked_about(files: Files, tmp_path: Path) -> None:
    classifier = tiny_bert.make(tmp_path / "bert", labels=("LABEL_0", "LABEL_1"))
    given = ("toxicity", "--completions", files["before"], "--classifier", classifier)
    assert_told(heedful("evaluate", *given), "0 = 'LABEL_0', 1 = 'LABEL_1'", "say it with --negative-label")
    sides = [evaluate(*given, "--negative-label", label)["toxicity"]["before"]["estimate"] for label in ("LABEL_0", "1")]
    assert sum(sides) == pytest.approx(1, abs=1e-4)


def test_summaries_of_dialogues(run: Path, files: Files, tmp_path: Path) -> None:
    """Any answers will do for summaries here: references are those of the base."""
    base = read_jsonl(files["before"], Completion)
    first = {completion.prompt_id: completion.text or "nothing" for completion in reversed(base)}
    known = [prompt for prompt in read_jsonl(files["prompts"], Prompt) if prompt.id in first]
    del first[known[0].id]  # one without a human summary, and one that nobody answered
    unanswered = next(
        prompt for prompt in read_jsonl(files["prompts"], Prompt) if prompt.id not in first and prompt != known[0]
    )
    first[unanswered.id] = "A summary of it."
    write_jsonl(
        tmp_path / "prompts.jsonl",
        [
            Prompt.model_validate(prompt.model_dump() | ({"reference": first[prompt.id]} if prompt.id in first else {}))
            for prompt in (*known, unanswered)
        ],
    )
    given = ("summaries", "--prompts", tmp_path / "prompts.jsonl")
    sides = ("--completions", f"base={files['before']}", "--completions", f"aligned={files['after']}")
    found = evaluate(*given, *sides, "--reward", run / "reward" / "model")
    assert found["rouge"]["base"]["rouge1"]["mean"]["estimate"] > found["rouge"]["aligned"]["rouge1"]["mean"]["estimate"]
    assert [(row["first"], row["second"]) for row in found["win_rates"]] == [
        ("base", "aligned"),
        ("base", "reference"),
        ("aligned", "reference"),
    ]
    assert "ROUGE-L" in shown(*given, *sides)
    assert_told(heedful("evaluate", *given, "--completions", str(files["before"])), "NAME=FILE")
    assert_told(heedful("evaluate", "summaries", "--prompts", files["prompts"], *sides), "no prompt has a field 'reference'")
