"""`heedful doctor --model`: what fits, from config.json alone, and which wrong names are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_model
from command import assert_one_paragraph, heedful

from heedful import fit
from heedful.config import Config, ScaleSection
from heedful.engine import memory
from heedful.models import sources
from heedful.run_summary import predicted_memory_mb

GB = 10**9
SHAPE = memory.shape_of(sources.ALIASES["smollm2-135m"].config, "smollm2-135m")
WORK = fit.work_of(Config(), "ppo", prompt_tokens=384)


def peaks(kept: float, recomputed: float) -> dict[str, dict[str, int]]:
    return {"dpo": {"kept": 1, "recomputed": 1}, "ppo": {"kept": int(kept * GB), "recomputed": int(recomputed * GB)}}


@pytest.mark.parametrize(
    ("kept", "recomputed", "verdict", "words"),
    [
        (2.0, 1.5, "fits", "largest stage needs 2.0 GB, and 2.0 GB are available"),
        (2.1, 1.5, "fits with model.recompute = true", "1.5 GB instead of 2.1 GB"),
        (9.0, 2.1, "does not fit", "lower prompts.max_prompt_tokens, ppo.episodes and prompts.num_heldout"),
    ],
)
def test_verdicts(kept: float, recomputed: float, verdict: str, words: str) -> None:
    found, sentence = fit.judge(peaks(kept, recomputed), 2 * GB, SHAPE, WORK)
    assert found == verdict
    assert words in sentence


def test_what_to_lower_follows_from_what_is_large() -> None:
    assert "lower lora.rank" in fit.judge(peaks(9, 9), 2 * GB, SHAPE, replace(WORK, rows=1))[1]
    assert "Take a smaller model" in fit.judge(peaks(9, 9), 2 * GB, replace(SHAPE, layers=3000), WORK)[1]


def test_an_alias_is_known_without_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path))
    found = fit.fit("smollm2-135m")
    assert found["num_weights"] == 134_515_008
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_as_large_as_its_larger_stage(tmp_path: Path) -> None:
    config = Config.model_validate({"model": {"source": str(tiny_model.make(tmp_path / "tiny"))}})
    shape = memory.shape_of(sources.model_config(config.model.source), "tiny")
    work = fit.work_of(config, "ppo", prompt_tokens=50)
    assert fit.run_peak(config, longest_prompt=50) == memory.peak(shape, work, "ppo")
    expected = round(fit.run_peak(config, longest_prompt=50) / 2**20, 1)
    assert predicted_memory_mb(config, 50) == expected
    shared = {"fsdp": True, "num_trainers": 2}
    for scale, found in (({"fsdp": True}, expected), ({"num_trainers": 2}, expected), (shared, None)):
        told = config.model_copy(update={"scale": ScaleSection.model_validate(scale)})
        assert predicted_memory_mb(told, 50) == found, "none where a worker holds a share of the base"
    assert work.rows == 60
    assert (work.tempered, work.entropy) == (False, True)


def test_doctor_says_what_fits(tmp_path: Path) -> None:
    tiny = tiny_model.make(tmp_path / "tiny")
    (tiny / "model.safetensors").unlink()  # no weights are read
    shown = heedful("doctor", "--model", tiny)
    assert shown.returncode == 0, shown.stderr
    assert "It fits: the largest stage needs" in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines() if str(tiny) not in line)
    found = json.loads(heedful("doctor", "--model", tiny, "--json").stdout)
    assert found["verdict"] == "fits"
    assert set(found["peaks"]) == {"reward", "dpo", "ppo"}
    assert found["memory"]["available"] <= found["memory"]["total"]


def test_wrong_models_are_one_paragraph(tmp_path: Path) -> None:
    assert_one_paragraph(heedful("doctor", "--model", tmp_path), "holds neither config.json nor adapter_config.json")
    assert_one_paragraph(heedful("doctor", "--model", "minilm-22m"), "models of type 'bert'", "known are llama")
    (tmp_path / "config.json").write_text("{")
    assert_one_paragraph(heedful("doctor", "--model", tmp_path), "not a model that can be loaded")
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    assert_one_paragraph(heedful("doctor", "--model", tmp_path), "models of type 'mamba'")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert_one_paragraph(heedful("doctor", "--model", tmp_path), "does not give the model's sizes")
