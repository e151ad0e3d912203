"""What a user can get wrong at the command line: one paragraph that names the thing, exit 1, no traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command import assert_one_paragraph, heedful

from heedful.data.bundled import load_bundled
from heedful.records import Preference, read_jsonl
from heedful.store import write_jsonl


def test_missing_file_of_a_stage_names_the_stages(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "consensus/preferences.jsonl").unlink()
    failed = heedful("run", copy / "heedful.toml", "--dir", copy)
    assert_one_paragraph(failed, "preferences.jsonl: cannot be read", "heedful run --from STAGE")


def broken_model(tiny: Path, folder: Path, config: str) -> Path:
    shutil.copytree(tiny, folder)
    (folder / "config.json").write_text(config)
    return folder


@pytest.mark.parametrize("config", ["{", "[]", '{"model_type": "unheard-of"}', '{"architectures": 5}'])
def test_broken_config_of_a_model_is_one_paragraph(run: Path, tiny: Path, tmp_path: Path, config: str) -> None:
    broken = broken_model(tiny, tmp_path / "broken", config)
    pairs = run / "consensus/preferences.jsonl"
    failed = heedful("reward", "train", "--model", broken, "--preferences", pairs, "--output", tmp_path / "rm")
    assert_one_paragraph(failed, f"{broken}: not a", "that can be loaded")
    assert_one_paragraph(heedful("chat", broken, "--once", "Hello."), f"{broken}: not a language model")


def test_adapter_as_the_base_of_a_reward_model_is_one_paragraph(run: Path, tmp_path: Path) -> None:
    adapter, pairs = run / "ppo/policy", run / "consensus/preferences.jsonl"
    failed = heedful("reward", "train", "--model", adapter, "--preferences", pairs, "--output", tmp_path / "rm")
    assert_one_paragraph(failed, f"{adapter}: is an adapter", "heedful export")


@pytest.mark.parametrize("name", ["ppo/policy/adapter_model.safetensors", "ppo/policy/adapter_config.json"])
def test_broken_adapter_is_one_paragraph(run: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / name).write_text("{")
    assert_one_paragraph(heedful("chat", copy, "--once", "Hello."), f"{copy / 'ppo/policy'}: not an adapter")


@pytest.mark.parametrize("name", ["reward.json", "head.safetensors"])
def test_broken_reward_model_is_one_paragraph(run: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "model"
    shutil.copytree(run / "reward/model", copy)
    (copy / name).write_text("[]")
    failed = heedful("reward", "evaluate", copy, "--preferences", run / "consensus/preferences.jsonl")
    assert_one_paragraph(failed, f"{copy}: not a reward model")


@pytest.mark.parametrize("asked", [256, 300])
def test_answer_longer_than_the_context_is_one_paragraph(tiny: Path, tmp_path: Path, asked: int) -> None:
    failed = heedful("chat", tiny, "--once", "Hello.", "--max-new-tokens", str(asked), "--json")
    assert_one_paragraph(failed, f"max_new_tokens = {asked} leaves no room for a message", "holds 256 tokens")
    most = failed.stderr.rpartition("at most ")[2].strip()
    assert heedful("chat", tiny, "--once", "Hello.", "--max-new-tokens", most, "--json").returncode == 0
    prompts = tmp_path / "prompts.jsonl"
    write_jsonl(prompts, load_bundled()[:2])
    files = ("--prompts", prompts, "--output", tmp_path / "out.jsonl")
    failed = heedful("sample", "--model", tiny, *files, "--max-new-tokens", str(asked))
    assert_one_paragraph(failed, f"max_new_tokens = {asked} leaves no room for a prompt", "model.source")


def test_empty_files_are_named(run: Path, tmp_path: Path) -> None:
    empty, prompts = tmp_path / "empty.jsonl", run / "sample/prompts.jsonl"
    empty.write_text("")
    message = f"{empty}: holds no completion"
    assert_one_paragraph(heedful("evaluate", "toxicity", "--completions", empty, "--json"), message)
    assert_one_paragraph(heedful("evaluate", "refusal", "--prompts", prompts, "--completions", empty), message)
    model, files = run / "reward/model", ("--prompts", prompts, "--completions", empty)
    assert_one_paragraph(heedful("reward", "score", model, *files), message)
    assert_one_paragraph(heedful("label", "simulate", *files, "--output", tmp_path / "out.jsonl"), message)
    ties = tmp_path / "ties.jsonl"
    pairs = read_jsonl(run / "consensus/preferences.jsonl", Preference)
    write_jsonl(ties, [pair.model_copy(update={"probability": 0.5}) for pair in pairs])
    failed = heedful("reward", "evaluate", model, "--preferences", ties)
    assert_one_paragraph(failed, f"{ties}: all pairs are ties")


def test_folder_that_is_no_run(run: Path, tmp_path: Path) -> None:
    for command in (("evaluate", "all"), ("report",)):
        failed = heedful(*command, tmp_path)
        assert_one_paragraph(failed, f"{tmp_path}: no run directory; name one that 'heedful run' wrote")
    (tmp_path / "manifest.json").write_bytes((run / "manifest.json").read_bytes())
    assert_one_paragraph(heedful("evaluate", "all", tmp_path), "the evaluation of this run has not finished")
