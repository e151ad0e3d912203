"""A reward model that gets no better on held-out pairs stops and goes back to its best."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_model
import torch

from heedful.config import LoraSection, RewardSection
from heedful.errors import ConfigError
from heedful.models.policy import load_language_model
from heedful.records import Message, Preference
from heedful.stages.reward import train_reward


def pairs() -> list[Preference]:
    """Polite against rude, and for every fourth prompt the other way round: more can be memorised than learned."""
    found = []
    for i in range(60):
        texts = ("With pleasure.", "Go away.") if i % 4 else ("Go away.", "With pleasure.")
        asked = (Message(role="user", content=f"Question {i}?"),)
        fields = {"chosen": texts[0], "rejected": texts[1], "probability": 1.0}
        found.append(Preference(prompt_id=f"p{i}", prompt=asked, judges=1, source="human", **fields))
    return found


def test_a_reward_model_goes_back_to_its_best(tmp_path: Path) -> None:
    base = load_language_model(str(tiny_model.make(tmp_path / "tiny")), dtype=torch.float32, device=torch.device("cpu"))
    settings = RewardSection(
        lora=LoraSection(rank=4, layers=2), epochs=20, head_learning_rate=1e-2, eval_every=2, patience=3, heldout_share=0.4
    )
    _, result = train_reward(
        *(base, settings, tmp_path / "reward"),
        **{"pairs": pairs(), "written": {}, "seed": 0, "device": torch.device("cpu"), "num_resamples": 100},
        progress=lambda *_: None,
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    looks = {row["step"] + 1: row["heldout_accuracy"] for row in rows if "heldout_accuracy" in row}
    assert result["stopped"] == "patience limit"
    assert result["steps"] == max(looks) < 100
    assert looks[result["policy_step"]] == max(looks.values()) == result["accuracy"]["estimate"]
    assert list(looks).index(result["policy_step"]) == len(looks) - 4


def test_a_frozen_trunk_has_no_steps_to_be_patient_over(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes no steps that patience could end"):
        train_reward(
            *(None, RewardSection(trunk="frozen", patience=2), tmp_path),  # type: ignore[arg-type]
            **{"pairs": pairs(), "written": {}, "seed": 0, "device": torch.device("cpu"), "num_resamples": 100},
            progress=lambda *_: None,
        )
