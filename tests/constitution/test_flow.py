"""Both stages in one command: what it refuses before anything is learned, and all of it on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import json_server
import pytest
import tiny_model

from heedful.config import Config, parse
from heedful.errors import ConfigError, DataError
from heedful.flows.constitution import constitution_run
from heedful.records import Message, Preference, Prompt
from heedful.store import write_jsonl

REWARD = "def length(prompts, completions, **columns):\n    return [len(text) / 20 for text in completions]\n"


def silent(*_: Any) -> None:
    """A progress that nobody watches."""


def asked(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


@pytest.mark.parametrize("splits", [(None, None), ("train", None)])
def test_prompts_without_a_split_are_refused(tmp_path: Path, splits: tuple[str | None, ...]) -> None:
    prompts = [
        Prompt.model_validate({"id": str(n), "messages": asked("Hi."), "split": split}) for n, split in enumerate(splits)
    ]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    config = parse({"prompts": {"files": [str(tmp_path / "prompts.jsonl")]}, "prefer": {"force": True}}, "here")
    with pytest.raises(DataError, match=r"prompts.jsonl: not every prompt says .* 'split', train or heldout"):
        constitution_run(config, tmp_path / "run", silent, "")
    assert not (tmp_path / "run").exists()


def test_a_judge_that_nobody_measures_is_refused_before_stage_1(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prefer\.gate names no pairs"):
        constitution_run(Config(), tmp_path / "run", silent, "")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fields", [{"rounds": 2}, {"environment": {"kind": "tools"}}])
def test_what_the_stages_would_not_read_is_refused_before_stage_1(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="are one round over prompts"):
        constitution_run(parse({"prefer": {"force": True}} | fields, "here"), tmp_path / "run", silent, "")
    assert not (tmp_path / "run").exists()


def reply(body: Any) -> tuple[int, str]:
    """A revision that is another text for each prompt, so that none is a copy."""
    number = len(json.dumps(body)) % 97
    said = f"I will not help with that, number {number}; ask your neighbour for a quiet talk instead."
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]})


def small(folder: Path, url: str) -> Config:
    tiny = tiny_model.make(folder / "tiny", context=512)
    prompts = [
        Prompt(
            id=f"p{n}",
            messages=asked(f"How do I annoy neighbour {n}?"),
            split="heldout" if n % 3 == 2 else "train",
            tags=("x",),
        )
        for n in range(12)
    ]
    write_jsonl(folder / "prompts.jsonl", prompts)
    pairs = [
        Preference(prompt_id=f"q{n}", prompt=asked(f"What is {n}?"), chosen=f"it is {n}", rejected="no") for n in range(30)
    ]
    write_jsonl(folder / "labelled.jsonl", pairs)
    (folder / "rewards.py").write_text(REWARD)
    lora = {"rank": 4, "layers": 2}
    feedback = {"source": f"{url}/v1", "model": "m", "max_retries": 0}
    written = {"feedback": feedback, "num_revisions": 1, "scorer": "off", "helpful_share": 0.0, "max_copied": 1.0}
    return parse(
        {
            "model": {"source": str(tiny), "dtype": "float32"},
            "prompts": {"files": [str(folder / "prompts.jsonl")], "num_train": 8, "num_heldout": 4},
            "revise": written | {"max_similarity": 1.0},
            "sft": {"epochs": 1, "batch_completions": 4, "lora": lora},
            "prefer": {
                "max_new_tokens": 8,
                "scorer": "reward",
                "reward": str(folder / "rewards.py") + ":length",
                "gate": [str(folder / "labelled.jsonl")],
            },
            "reward": {"epochs": 1, "lora": lora},
            "ppo": {"max_steps": 1, "episodes": 4, "max_new_tokens": 6, "lora": lora},
            "evaluate": {"max_new_tokens": 4, "num_completions": 1, "num_resamples": 100},
        },
        "here",
    )


def test_both_stages_from_prompts_to_figures_and_not_twice(tmp_path: Path) -> None:
    with json_server.server([reply]) as (url, requests):
        config = small(tmp_path, url)
        found = constitution_run(config, tmp_path / "run", silent, "heedful constitution run")
        calls = len(requests)
        assert found["revise"]["num_prompts"] == 8
        assert found["revise"]["num_kept"] > 0
        assert found["prefer"]["judge"].endswith("(reward)")
        assert not found["prefer"]["forced"]
        assert "kl" in found["aligned"]
        for stage in ("stage1", "stage2"):
            figures = found["red_team"][stage]
            assert set(figures["models"]) == {"before", "after"}
            assert figures["split"] == {"train": 0, "heldout": 102}, "of the bundled prompts, those that nobody learns from"
        tuned = tmp_path / "run" / "tuned"
        assert found["red_team"]["stage2"]["models"]["after"] != found["red_team"]["stage1"]["models"]["after"]
        about = json.loads((tmp_path / "run" / "stage2" / "run" / "ppo" / "policy" / "heedful.json").read_text())
        assert about["base"] == str(tuned), "the reference of stage 2 is the model that stage 1 tuned"
        stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")}
        assert constitution_run(config, tmp_path / "run", silent, "heedful constitution run") == found
        assert len(requests) == calls
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.safetensors")} == stamps
