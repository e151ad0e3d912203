"""A run of several rounds, top to bottom.

FOLDER/round-1, round-2 ...: a run directory each. The policy of the round before answers, the reward model learns from the
judgements of all rounds so far, and the method goes on from that policy; the reference of the KL penalty stays the base.
FOLDER/rounds.json, rounds.html and rounds.md: the rounds beside each other. The same command goes on where it stopped.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from heedful.config import Config
from heedful.engine.sampling import tokens_of
from heedful.errors import ConfigError
from heedful.evaluation.refusal import told
from heedful.evaluation.rounds import Measured, compare_rounds
from heedful.models.reward import answer_of
from heedful.pipeline import Pipeline
from heedful.progress import Progress
from heedful.records import Completion, Prompt, by_id, iter_lines, read_jsonl
from heedful.report.answers import read_answers
from heedful.report.rounds import build_rounds
from heedful.rounds import Round, folder_of, rounds_in
from heedful.stages.align import Gold
from heedful.store import Run, file_hash, read_json, write_json
from heedful.team import once

FILE = "rounds.json"
BASE = "base"


def run_rounds(
    config: Config, folder: Path, progress: Progress, command: str, from_stage: str | None = None, until: str | None = None
) -> dict[str, Any]:
    """Returns the last round's summary, with `rounds`: the comparison; nothing where a round stopped before its report.

    from_stage, until: of the newest round that has begun; until, else of the first that is not finished. Raises ConfigError
    where there is nothing that a second round could learn.
    """
    _require_judged(config)
    # In a team only member 0 has the files.
    begun, finished = once(lambda: (max(1, len(rounds_in(folder))), _finished(folder)), "rounds begun")
    start: Path | None = None
    earlier: list[Path] = []
    summary: dict[str, Any] = {}
    with Run(folder):  # nobody else works in any of its rounds meanwhile
        for number in range(1, config.rounds + 1):
            place = folder_of(folder, number)
            with Run(place) as run:
                told_of = _of_round(progress, number)
                pipeline = Pipeline(config, run, told_of, command, round_=Round(number, start, tuple(earlier)))
                again = from_stage if number == begun else None
                last = until if again or number > finished else None
                summary = pipeline(again, last)
                if last is not None:
                    return {}
                earlier.append(place)
                start = pipeline.layout.policy_folder
                if number == config.rounds or number > finished:
                    once(partial(_compare, folder, list(earlier), pipeline), "rounds")
    return summary | {"rounds": read_json(folder / FILE)["rounds"]} if summary else {}


def _finished(folder: Path) -> int:
    """How many rounds, from the first on, have their report."""
    reports = [read_json(path / "manifest.json")["stages"].get("report", {}) for path in rounds_in(folder)]
    return next((number for number, report in enumerate(reports) if report.get("state") != "done"), len(reports))


def _require_judged(config: Config) -> None:
    terms = config.reward.terms
    trains = not terms or any(term.source == "trained" for term in terms)
    said = ""
    if config.reward.preferences or config.reward.labelled.files:
        said = (
            "reward.preferences and reward.labelled.files are the same in each round, so a second one would learn nothing new"
        )
    elif config.label.judgements:
        said = "label.judgements is one file, which knows no later round's completions; take round.judges = 'people'"
    elif not trains:
        said = "no term of the reward is trained, so nothing would come of a round's judgements"
    if said:
        raise ConfigError(f"rounds = {config.rounds}: {said}; or set rounds = 1")


def _of_round(progress: Progress, number: int) -> Progress:
    return lambda stage, done, total, note: progress(f"{number} {stage}", done, total, note)


# The rounds beside each other


def _compare(folder: Path, rounds: list[Path], pipeline: Pipeline) -> None:
    """Writes rounds.json and the pages, unless they are of these very rounds."""
    settings = pipeline.config.evaluate
    made_of = [file_hash(path / "evaluate" / name) for path in rounds for name in ("before.jsonl", "after.jsonl")]
    made_of += [file_hash(path) for path in pipeline.layout.align_inputs] + [str(settings.num_resamples)]
    known = read_json(folder / FILE) if (folder / FILE).exists() else {}
    if known.get("made_of") != made_of:
        policies = [_measured(BASE, rounds[0], "before", pipeline)]
        policies += [_measured(f"round {n}", path, "after", pipeline) for n, path in enumerate(rounds, start=1)]
        compared = compare_rounds(policies, num_resamples=settings.num_resamples, seed=pipeline.config.seed)
        labels = [{}, *map(_labels, rounds)]
        simulated = pipeline.config.round.judges == "simulated"
        believed = "gold" if "gold" in policies[-1].scores else "rubric" if simulated else "reward"
        found = [row | about | {"believed": believed} for row, about in zip(compared, labels, strict=True)]
        write_json(folder / FILE, {"made_of": made_of, "judge": pipeline.path.name, "rounds": found})
    build_rounds(folder)


def _measured(name: str, path: Path, side: str, pipeline: Pipeline) -> Measured:
    """The answers of one side of a round's evaluation, under the reward of the last round, the rubric, and gold where named."""
    prompts = by_id(pipeline.prompts["heldout"])
    rows = read_answers(path / "evaluate" / f"{side}.jsonl")
    completions = read_jsonl(path / "evaluate" / f"completions-{side}.jsonl", Completion)
    known = [prompts[completion.prompt_id] for completion in completions]
    scores: dict[str, list[float | None]] = {
        "reward": list(_scores(pipeline.score, completions, known, pipeline)),
        "rubric": [float(row["rubric"]) if told(prompt) else None for row, prompt in zip(rows, known, strict=True)],
    }
    if pipeline.layout.gold_terms and (gold := pipeline.gold) is not None:
        scores["gold"] = list(_scores(gold, completions, known, pipeline))
    return Measured(name, [prompt.id for prompt in known], scores)


def _scores(reward: Gold, completions: list[Completion], prompts: list[Prompt], pipeline: Pipeline) -> list[float]:
    model = pipeline.model
    return reward(
        [
            answer_of(model, prompt.messages, one.text, token_ids=tokens_of(model, one))
            for one, prompt in zip(completions, prompts, strict=True)
        ]
    )


def _labels(path: Path) -> dict[str, Any]:
    """How many labels a round used, how far the labelers agreed, and what came of them."""
    agreement = read_json(path / "consensus" / "agreement.json")
    reward = read_json(path / "reward" / "result.json")
    align = read_json(path / "summary.json")
    return {
        "num_judgements": sum(1 for _ in iter_lines(path / "label" / "judgements.jsonl")),
        "num_pairs": agreement["num_pairs"],
        "krippendorff_alpha": agreement["krippendorff_alpha"],
        "reward_accuracy": reward.get("accuracy"),
        "kl": align["kl"],
        "steps": align["align"]["steps"],
    }
