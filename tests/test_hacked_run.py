"""A policy whose reward is at odds with gold: the monitor stops it, goes back, and leaves for people what to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_run
import tiny_model
from in_process import heedful

from heedful.errors import HeedfulError
from heedful.records import Completion, Prompt, read_jsonl
from heedful.store import read_metrics, read_rows

JUDGES = """
import zlib

def share(text):
    letters = [c for c in text.lower() if c.isalpha()]
    return sum(c in "aeiou" for c in letters) / len(letters) if letters else 0.0

def vowels(prompts, completions):
    return [10 * share(text) for text in completions]

def chance(prompts, completions):
    return [zlib.crc32(text.encode()) / 2**32 for text in completions]

def consonants(prompts, completions):
    return [-10 * share(text) for text in completions]
"""
FAST = (
    *("--set", "ppo.max_steps=40", "--set", "ppo.eval_every=2", "--set", "ppo.episodes=16", "--set", "ppo.kl_coef=0"),
    *("--set", "ppo.kl_target=0", "--set", "ppo.learning_rate=0.02", "--set", "ppo.warmup_steps=0"),
    *("--set", "ppo.critic_warmup_steps=0", "--set", "ppo.missing_eos_penalty=0", "--set", "prompts.num_heldout=24"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hacked")
    (made / "judges.py").write_text(JUDGES)
    small_run.write_config(made / "small.toml", tiny_model.make(made / "tiny"))
    return made


def align(folder: Path, name: str, gold: str, *more: str) -> dict[str, Any]:
    done = heedful(
        *("align", "ppo", "--config", folder / "small.toml", "--reward-model", f"{folder / 'judges.py'}:vowels"),
        *("--output", folder / name, *FAST, "--set", f"monitor.gold={folder / 'judges.py'}:{gold}", "--json", *more),
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_is_hacked_is_stopped_and_rolled_back(folder: Path) -> None:
    found = align(folder, "hacked", "consonants")
    assert found["stopped"] == "hacking monitor"
    assert found["policy_step"] < found["steps"] < 40
    assert found["hacking"]["level"] == "stop"
    assert "gold fell by" in next(sign["said"] for sign in found["hacking"]["signs"] if sign["level"] == "stop")
    rows = [row for row in read_metrics(folder / "hacked") if "heldout_gold" in row]
    best = max(rows, key=lambda row: row["heldout_gold"])
    assert best["step"] + 1 == found["policy_step"]
    assert rows[-1]["hacking_level"] == 2
    assert rows[-1]["heldout_gold"] == pytest.approx(-rows[-1]["heldout_reward"], abs=1e-6)
    assert read_rows(folder / "hacked" / "hacking.jsonl")[-1]["steps"] == found["steps"]
    review = folder / "hacked" / "ppo" / "review"
    prompts = read_jsonl(review / "prompts.jsonl", Prompt)
    assert len(prompts) == 10
    sides = [completion.policy_version for completion in read_jsonl(review / "completions.jsonl", Completion)]
    assert sides == ["reference", "policy"] * 10


def test_what_is_not_hacked_goes_on(folder: Path) -> None:
    found = align(folder, "clean", "chance", "--set", "ppo.max_steps=12")
    assert (found["stopped"], found["steps"], found["policy_step"]) == ("step limit", 12, 12)
    assert found["hacking"]["level"] != "stop"


def test_looking_on_changes_nothing(folder: Path) -> None:
    """The same numbers with a monitor and without one; only its own are missing."""
    short = ("--set", "ppo.max_steps=4")
    align(folder, "watched", "vowels", *short)
    align(folder, "alone", "vowels", *short, "--set", "monitor.on=false")
    watched, alone = (read_metrics(folder / name) for name in ("watched", "alone"))
    for one, other in zip(watched, alone, strict=True):
        assert {name: one[name] for name in other if name != "time"} == {k: v for k, v in other.items() if k != "time"}
        assert "hacking_level" in one
        assert "hacking_level" not in other


def test_raising_what_is_nothing_is_told(folder: Path) -> None:
    with pytest.raises((AssertionError, HeedfulError), match=r"multiplies ppo\.kl_coef, which is 0"):
        align(folder, "raised", "vowels", "--set", "monitor.raise_kl=2.0")


def test_a_gold_reward_that_does_not_exist_is_told(folder: Path) -> None:
    with pytest.raises((AssertionError, HeedfulError), match="no function 'gold'"):
        align(folder, "wrong", "gold")
