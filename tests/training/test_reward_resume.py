"""A training of a reward model that was interrupted ends with the very weights of one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch

from heedful.config import LabelledSection, LoraSection, RewardSection
from heedful.models.policy import load_language_model
from heedful.records import Message, Preference
from heedful.stages.reward import train_reward
from heedful.store import read_metrics

CPU = torch.device("cpu")


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


def pairs() -> list[Preference]:
    found = []
    for i in range(60):
        tie = i % 3 == 0
        found.append(
            Preference(
                prompt_id=f"p{i}", prompt=(Message(role="user", content=f"Question {i}?"),), chosen="Kind.",
                rejected="Kind!" if tie else "Rude.", probability=0.5 if tie else 0.8, margin=0.0 if tie else 1.0,
            )
        )  # fmt: skip
    return found


def train(tiny: Path, folder: Path, settings: RewardSection, stop_at: int | None = None) -> dict[str, Any]:
    def progress(done: int, total: int, note: str) -> None:
        if done == stop_at:
            raise StoppedError

    base = load_language_model(str(tiny), dtype=torch.float32, device=CPU)
    _, result = train_reward(
        base, settings, folder / "reward", pairs=pairs(), written={}, seed=0, device=CPU, num_resamples=100,
        progress=progress,
    )  # fmt: skip
    return result


@pytest.mark.parametrize("kind", ["davidson", "classifier"])
def test_resumed_equals_uninterrupted(tiny: Path, tmp_path: Path, kind: str) -> None:
    rows = [{"text": f"Text {i} {'kind' if i % 2 else 'rude'}.", "label": "kind" if i % 2 else "rude"} for i in range(120)]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = (str(tmp_path / "labelled.jsonl"),) if kind == "classifier" else ()
    settings = RewardSection(
        lora=LoraSection(rank=4, layers=2), epochs=3, head_learning_rate=1e-2, margin_weight=0.0 if files else 0.5,
        ties="davidson" if kind == "davidson" else "drop", labelled=LabelledSection(files=files, wanted="kind"),
    )  # fmt: skip
    whole = train(tiny, tmp_path / "whole", settings)
    with pytest.raises(StoppedError):
        train(tiny, tmp_path / "cut", settings, stop_at=13)  # three steps after a checkpoint
    assert train(tiny, tmp_path / "cut", settings) == whole
    logged = [
        [{k: v for k, v in row.items() if k != "time"} for row in read_metrics(tmp_path / name)] for name in ("whole", "cut")
    ]
    assert logged[0] == logged[1]
    assert len(logged[0]) == whole["steps"]
    heads = [(tmp_path / name / "reward" / "model" / "head.safetensors").read_bytes() for name in ("whole", "cut")]
    assert heads[0] == heads[1]
