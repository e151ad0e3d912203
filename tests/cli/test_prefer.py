"""heedful constitution prefer: answers, gate, judgements and preferences; resumed without a call repeated; what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from chat_server import chat_server, completion
from in_process import Done, assert_told, heedful

from heedful.data.bundled import load_bundled
from heedful.records import Completion, Judgement, Message, Preference, read_jsonl
from heedful.store import write_jsonl

NUM_PROMPTS = 8
REWARD = "def length(prompts, completions, **columns):\n    return [len(text) / 20 for text in completions]\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("prefer") / "tiny", context=512)


@pytest.fixture(scope="module")
def place(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, its prompts, its reward and pairs in which people chose the longer answer."""
    folder = tmp_path_factory.mktemp("prefer-files")
    prompts = [prompt.model_copy(update={"split": None}) for prompt in load_bundled()[:NUM_PROMPTS]]
    write_jsonl(folder / "prompts.jsonl", prompts)
    asked = [(Message(role="user", content=f"What is {n}?"),) for n in range(30)]
    pairs = [Preference(prompt_id=f"p{n}", prompt=one, chosen=f"it is {n}", rejected="no") for n, one in enumerate(asked)]
    write_jsonl(folder / "labelled.jsonl", pairs)
    write_jsonl(
        folder / "turned.jsonl",
        [p.model_copy(update={"chosen": p.rejected, "rejected": p.chosen}) for p in pairs[:15]] + pairs[15:],
    )
    (folder / "rewards.py").write_text(REWARD)
    (folder / "heedful.toml").write_text(
        f"""
[model]
source = "{tiny}"
[prompts]
files = ["prompts.jsonl"]
[prefer]
num_sampled = 2
num_contrasted = 1
max_new_tokens = 12
scorer = "reward"
reward = "rewards.py:length"
gate = ["labelled.jsonl"]
[prefer.feedback]
source = "{tiny}"
"""
    )
    return folder


def prefer(place: Path, output: Path, *overrides: str) -> Done:
    sets = [part for override in overrides for part in ("--set", override)]
    return heedful("constitution", "prefer", "--config", place / "heedful.toml", "--output", output, "--json", *sets)


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("preferred") / "run"
    found = prefer(place, output)
    assert found.returncode == 0, found.stderr
    return output, json.loads(found.stdout)


def test_the_records_agree_with_the_result(done: tuple[Path, dict[str, Any]]) -> None:
    output, result = done
    completions = {one.id: one for one in read_jsonl(output / "prefer" / "completions.jsonl", Completion, unique="id")}
    judgements = read_jsonl(output / "prefer" / "judgements.jsonl", Judgement, unique="id")
    pairs = read_jsonl(output / "prefer" / "preferences.jsonl", Preference)
    assert (result["judge"], result["forced"], result["num_prompts"]) == ("length (reward)", False, NUM_PROMPTS)
    assert (len(completions), len(judgements), len(pairs)) == (
        result["num_completions"],
        result["num_judgements"],
        result["num_preferences"],
    )
    counts = [sum(one.prompt_id == j.prompt_id for one in completions.values()) for j in judgements]
    possible = sum(n * (n - 1) // 2 for n in counts)
    assert (
        len(pairs) + sum(n for why, n in result["left_out"].items() if why in ("near tie", "no readable opinion")) == possible
    )
    assert len(completions) + sum(n for why, n in result["left_out"].items() if why.endswith("answer")) == 4 * NUM_PROMPTS
    for pair in pairs:
        assert pair.source == "ai"
        assert len(pair.chosen) > len(pair.rejected)
        assert completions[pair.chosen_id or ""].text == pair.chosen
        assert 0.52 <= pair.probability < 1
    assert len({round(pair.probability, 3) for pair in pairs}) > 3, "soft labels"
    for judgement in judgements:
        lengths = [len(completions[id_].text) for id_ in sorted(judgement.ranks, key=lambda id_: judgement.ranks[id_])]
        assert judgement.source == "ai"
        assert lengths[0] == max(lengths)
    assert result["contrasted"]["pairs"] > 0


def test_a_reward_model_and_dpo_and_the_consensus_read_what_it_wrote(done: tuple[Path, dict[str, Any]], tiny: Path) -> None:
    output, _ = done
    folder = output / "prefer"
    settled = heedful(
        *("consensus", "--prompts", folder / "prompts.jsonl", "--completions", folder / "completions.jsonl"),
        *("--judgements", folder / "judgements.jsonl", "--output", output.parent / "consensus"),
    )
    assert settled.returncode == 0, settled.stderr
    trained = heedful(
        *("reward", "train", "--model", tiny, "--preferences", folder / "preferences.jsonl", "--output", output.parent / "rm"),
        *("--set", "reward.epochs=1", "--set", "reward.heldout_share=0.3", "--json"),
    )
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["num_pairs"] > 0


def test_what_was_finished_is_not_asked_again(place: Path, done: tuple[Path, dict[str, Any]]) -> None:
    """As after a kill: the stage half done, the journal cut in the middle of a line."""
    output, result = done
    written = (output / "prefer" / "preferences.jsonl").read_text()
    calls = output / "feedback.jsonl"
    lines = calls.read_bytes().splitlines(keepends=True)
    calls.write_bytes(b"".join(lines[:-5]) + lines[-5][:20])
    manifest = json.loads((output / "manifest.json").read_text())
    manifest["stages"]["prefer"]["state"] = "running"
    (output / "manifest.json").write_text(json.dumps(manifest))
    (output / "prefer" / "result.json").unlink()
    again = prefer(place, output)
    assert again.returncode == 0, again.stderr
    assert sorted(calls.read_bytes().splitlines()) == sorted(line.rstrip() for line in lines)
    assert (output / "prefer" / "preferences.jsonl").read_text() == written
    usage = json.loads(again.stdout)["usage"]
    assert usage["cached"] + usage["calls"] == 4 * NUM_PROMPTS
    assert usage["calls"] <= 5
    assert result["usage"]["calls"] == 4 * NUM_PROMPTS
    third = prefer(place, output)
    assert json.loads(third.stdout) == json.loads(again.stdout)


def test_other_settings_judge_anew_what_was_already_written(
    place: Path, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    output, first = done
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "feedback.jsonl").write_bytes((output / "feedback.jsonl").read_bytes())
    found = prefer(place, tmp_path / "run", "prefer.near_tie=0.2", "prefer.calibrate=false")
    result = json.loads(found.stdout)
    assert result["usage"]["calls"] == 0
    assert result["left_out"]["near tie"] > first["left_out"].get("near tie", 0)


def test_letters_of_several_principles(place: Path, tmp_path: Path) -> None:
    found = prefer(
        *(place, tmp_path / "run", "prefer.scorer=letters", "prefer.force=true", "prefer.gate_pairs=8", "prompts.num_train=3"),
        *("prefer.num_contrasted=0", "prefer.num_sampled=3", "prefer.near_tie=0.0"),
    )
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert result["scorer"] == "letters"
    by = read_jsonl(tmp_path / "run" / "prefer" / "principles.jsonl", Judgement, unique="id")
    assert len({one.criterion for one in by}) > 1
    gate = json.loads((tmp_path / "run" / "prefer" / "gate.json").read_text())
    if gate["forced"]:  # a random model may agree with people by luck
        assert result["forced"]
        assert "coin" in result["why_refused"]


def test_a_judge_behind_an_address_is_asked_again_of_what_it_did_not_say(place: Path, tmp_path: Path) -> None:
    """The same command, and nothing else is asked anew."""
    shown = re.compile(r"Answer A:\n(.*)\n\nAnswer B:\n(.*)\n\n", re.DOTALL)
    mute = [load_bundled()[0].messages[-1].content]

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        text = body["messages"][-1]["content"]
        if mute and mute[0] in text:
            return 200, completion("I would rather not say.")
        first, second = shown.findall(text)[0]
        return 200, completion("A" if (len(first), first) > (len(second), second) else "B")

    with chat_server(answer) as (url, seen):
        feedback = ("source=" + url, "model=big", "max_retries=0", "backoff_s=0")
        sets = [f"prefer.feedback.{one}" for one in feedback]
        sets += ["prefer.scorer=letters", "prefer.force=true", "prefer.gate=[]", "prefer.num_contrasted=0"]
        cut = prefer(place, tmp_path / "run", *sets)
        assert cut.returncode == 0, cut.stderr
        lacking = json.loads(cut.stdout)["left_out"]["no readable opinion"]
        assert lacking >= 1
        mute.clear()
        before = len(seen.bodies)
        whole = prefer(place, tmp_path / "run", *sets)
        assert whole.returncode == 0, whole.stderr
        asked = len(seen.bodies) - before
        again = prefer(place, tmp_path / "run", *sets)
        assert len(seen.bodies) - before == asked, "whole is whole"
    first, second = json.loads(cut.stdout), json.loads(whole.stdout)
    assert "no readable opinion" not in second["left_out"]
    assert second["num_preferences"] == first["num_preferences"] + lacking
    assert asked == lacking * 2 * 2, "both orders of two principles each"
    assert json.loads(again.stdout) == second


def test_a_judge_that_may_be_a_coin_is_refused_and_forced(place: Path, tmp_path: Path) -> None:
    turned = f'prefer.gate=["{place / "turned.jsonl"}"]'
    assert_told(
        prefer(place, tmp_path / "refused", turned),
        "the gate refuses every judge",
        "length (reward) agrees with people on 50.0%",
    )
    assert not (tmp_path / "refused" / "prefer" / "completions.jsonl").exists(), "nothing is written before somebody may judge"
    forced = prefer(place, tmp_path / "forced", turned, "prefer.force=true", "prefer.calibrate=false", "prompts.num_train=3")
    assert forced.returncode == 0, forced.stderr
    result = json.loads(forced.stdout)
    assert result["forced"]
    assert "holds 50%" in result["why_refused"]
    assert result["gate_accuracy"]["estimate"] == 0.5


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("prefer.gate=[]", "nobody knows whether the judge is better than a coin"),
        ("prefer.reward=", "prefer.scorer = 'reward' needs prefer.reward"),
        ("prefer.num_sampled=8", "more than 9 answers a prompt"),
        ("prefer.near_tie=0.49", "no preference came of 8 prompts"),
        ("prefer.tags=['nowhere']", "no principle with the tag"),
        ("prefer.constitution=nowhere.toml", "nowhere.toml"),
    ],
)
def test_wrong_settings(place: Path, tmp_path: Path, override: str, said: str) -> None:
    assert_told(prefer(place, tmp_path / "run", "prefer.calibrate=false", override), said)
