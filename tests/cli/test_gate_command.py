"""heedful constitution gate: several judges beside each other, who is refused, and what is forced."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from in_process import assert_told, heedful
from json_server import server

from heedful.endpoint import Endpoint
from heedful.evaluation.hhh import bundled_items
from heedful.records import Message, Preference
from heedful.store import write_jsonl

NUM_PAIRS = 40


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("gate") / "tiny", context=512)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs in which people chose the longer answer."""
    path = tmp_path_factory.mktemp("labelled") / "pairs.jsonl"
    asked = [(Message(role="user", content=f"What is {n}?"),) for n in range(NUM_PAIRS)]
    write_jsonl(
        path, [Preference(prompt_id=f"p{n}", prompt=a, chosen=f"it is {n}", rejected="no") for n, a in enumerate(asked)]
    )
    return path


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / "rewards.py"
    path.write_text(
        "def length(prompts, completions, **columns):\n    return [float(len(text)) for text in completions]\n"
        "def hashed(prompts, completions, **columns):\n"
        "    import zlib\n    pairs = zip(prompts, completions)\n"
        "    return [float(zlib.crc32((str(p) + t).encode()) % 97) for p, t in pairs]\n"
    )
    return path


def test_several_judges_are_measured_and_the_best_is_named(tiny: Path, labelled: Path, rewards: Path, tmp_path: Path) -> None:
    given: list[Any] = [
        "--reward",
        f"{rewards}:length",
        "--reward",
        f"{rewards}:hashed",
        "--scorer",
        "contrastive",
        "--model",
        tiny,
    ]
    given += ["--judge", tiny, "--principles", 1, "--preferences", labelled, "--gate-pairs", 16]
    done = heedful(
        "constitution", "gate", *given, "--calls", tmp_path / "calls.jsonl", "--output", tmp_path / "g.json", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "g.json").read_text())
    by = {one["name"]: one for one in found["judges"]}
    assert (found["best"], found["forced"]) == ("length (reward)", False)
    assert by["length (reward)"]["accuracy"]["estimate"] == 1
    assert by["length (reward)"]["order_consistency"] is None
    assert by["hashed (reward)"]["passed"] is False
    letters, contrast = by[str(tiny)], by[f"{tiny} (contrastive)"]
    assert 0 <= letters["order_consistency"]["estimate"] <= 1
    assert (letters["num_pairs"], contrast["num_pairs"], contrast["ties"]) == (16, 16, 0)
    # Nothing is asked twice.
    calls = (tmp_path / "calls.jsonl").read_text()
    shown = heedful("constitution", "gate", *given, "--calls", tmp_path / "calls.jsonl")
    assert shown.returncode == 0
    assert (tmp_path / "calls.jsonl").read_text() == calls
    assert "The best is length (reward)." in shown.stdout
    assert "refused: hashed (reward). The interval holds 50%" in " ".join(shown.stdout.split())
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_hhh_items_beside_the_pairs(labelled: Path, rewards: Path) -> None:
    done = heedful("constitution", "gate", "--reward", f"{rewards}:length", "--preferences", labelled, "--hhh", "--json")
    (judge,) = json.loads(done.stdout)["judges"]
    assert {name: row["num_items"] for name, row in judge["hhh"].items()} == {
        "harmless": 16,
        "helpful": 16,
        "honest": 16,
        "all": 48,
    }
    items = bundled_items()
    longer = sum(len(item.better) > len(item.worse) for item in items)
    assert judge["hhh"]["all"]["accuracy"]["estimate"] == pytest.approx(longer / 48)


def always_a(body: Any) -> tuple[int, str]:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "A"}}]})


def test_a_judge_that_always_says_a_is_found_and_refused(labelled: Path, tmp_path: Path) -> None:
    with server([always_a]) as (url, _):
        given = ("--judge", url, "--judge-model", "big", "--constitution", "none", "--preferences", labelled)
        refused = heedful("constitution", "gate", *given)
        assert refused.returncode == 1
        assert "refused: big. The interval holds 50%" in " ".join(refused.stdout.split())
        forced = heedful("constitution", "gate", *given, "--force", "--output", tmp_path / "gate.json")
    assert forced.returncode == 0
    assert "forced: none passes" in forced.stdout
    found = json.loads((tmp_path / "gate.json").read_text())
    assert (found["forced"], found["best"]) == (True, None)
    (judge,) = found["judges"]
    assert (judge["order_consistency"]["estimate"], judge["ties"]) == (0, 1)


def test_no_letter_is_invalid_and_counted(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(body: Any) -> tuple[int, str]:
        """Names the longer answer, and neither where What is 3?, 13?, 23?, 33? is asked."""
        text = body["messages"][0]["content"]
        a, b = (len(text.split(f"Answer {letter}:\n")[1].split("\n")[0]) for letter in "AB")
        said = "Both." if "3?" in text else "A" if a >= b else "B"
        return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]})

    monkeypatch.setattr("heedful.judging.feedback.Endpoint", partial(Endpoint, sleep=lambda _: None))
    with server([reply]) as (url, _):
        done = heedful(
            *("constitution", "gate", "--judge", url, "--judge-model", "big", "--constitution", "none"),
            *("--preferences", labelled, "--json"),
        )
    assert done.returncode == 0, done.stderr
    (judge,) = json.loads(done.stdout)["judges"]
    assert (judge["invalid"], judge["num_pairs"], judge["accuracy"]["estimate"], judge["ties"]) == (4, 36, 1, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "say who is measured"),
        (["--scorer", "cosine"], "--scorer cosine: there is one, 'contrastive'"),
        (["--judge", "https://models.example.org/v1"], "say with --judge-model"),
        (["--reward", "x", "--judge-model", "big"], "belong to a --judge that is an address"),
        (["--scorer", "contrastive", "--constitution", "none"], "needs a constitution"),
        (["--scorer", "contrastive", "--against", "evil"], "--against evil: expected plain or bad"),
        (["--reward", "a.py:f", "--reward", "a.py:f"], "two judges are called"),
    ],
)
def test_wrong_use(labelled: Path, given: list[str], said: str) -> None:
    assert_told(heedful("constitution", "gate", "--preferences", labelled, *given), said)
