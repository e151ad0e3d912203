"""Rounds judged by a model, and policies that learn from thumbs themselves."""

from __future__ import annotations

import json
from pathlib import Path

from heedful.config import Config, RewardTermSection
from heedful.pipeline import Pipeline
from heedful.records import Completion, Judgement, Message, Prompt, Sampling, read_jsonl
from heedful.rounds import Round
from heedful.stages.label import label
from heedful.store import Run, read_metrics, write_jsonl

SAMPLING = Sampling(temperature=1.0, top_p=1.0, seed=0, max_new_tokens=8)
PROMPTS = [Prompt(id=f"p{n}", messages=(Message(role="user", content=f"Say {n}."),)) for n in range(3)]
COMPLETIONS = [
    Completion(id=f"p{n}/{m}", prompt_id=f"p{n}", text=f"{'word ' * m}{n}", model="m", finish="stop", sampling=SAMPLING)
    for n in range(3)
    for m in range(1, 4)
]


def quiet(*_: object) -> None:
    """Progress that nobody watches."""


def test_a_model_judges_a_round_through_the_judge_of_prefer(config: Config, tiny: Path, tmp_path: Path) -> None:
    feedback = config.prefer.feedback.model_copy(update={"source": str(tiny)})
    prefer = config.prefer.model_copy(update={"scorer": "letters", "force": True, "feedback": feedback, "near_tie": 0.0})
    judged = config.model_copy(update={"prefer": prefer, "round": config.round.model_copy(update={"judges": "ai"})})
    write_jsonl(tmp_path / "completions.jsonl", COMPLETIONS)
    label(judged, tmp_path / "run", Round(2), PROMPTS, tmp_path / "completions.jsonl", quiet)
    found = read_jsonl(tmp_path / "run/label/judgements.jsonl", Judgement, unique="id")
    assert {judgement.prompt_id for judgement in found} == {"p0", "p1", "p2"}
    assert {judgement.source for judgement in found} == {"ai"}
    gate = json.loads((tmp_path / "run/label/gate.json").read_text())
    assert gate["forced"], "it says that nobody measured this judge"


def test_a_policy_learns_from_thumbs_without_a_reward_model(config: Config, tmp_path: Path) -> None:
    reward = config.reward.model_copy(update={"terms": (RewardTermSection(source="thumbs"),)})
    with Run(tmp_path / "run") as run:
        Pipeline(config.model_copy(update={"reward": reward}), run, quiet).align_alone()
    rows = [row for row in read_metrics(tmp_path / "run") if row["stage"] == "ppo"]
    assert len(rows) == config.ppo.max_steps
    kept = [json.loads(line) for line in (tmp_path / "run/thumbs.jsonl").read_text().splitlines()]
    assert {thumb["value"] for thumb in kept} <= {0.0, 1.0}
    assert sum(row["thumbs_asked"] for row in rows) <= len(kept)
    assert not (tmp_path / "run/reward").exists()
