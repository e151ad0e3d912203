"""Who judges a round's completions: a file, simulated labelers, a model, or people, for whom the run waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from heedful import waiting
from heedful.config import Config
from heedful.errors import ConfigError
from heedful.feedback.simulated import simulate
from heedful.people import People
from heedful.progress import Progress
from heedful.records import Completion, Judgement, Prompt, read_jsonl
from heedful.rounds import Round
from heedful.stages.prefer import judge_answers, require_gate
from heedful.store import write_jsonl

FILE = "judgements.jsonl"


def require_judges(config: Config) -> None:
    """Raises ConfigError for judges who cannot be asked, before anything is sampled for them."""
    if config.label.judgements:
        return
    if config.round.judges == "ai":
        require_gate(config)
    if config.round.judges == "people" and config.scale.num_workers > 1:
        raise ConfigError(
            "round.judges = 'people' with several workers: they would hold their machines while people judge, and be taken for "
            "lost; run with scale.num_trainers = 1 and scale.num_rollout_workers = 0"
        )


def label(config: Config, run: Path, round_: Round, prompts: Sequence[Prompt], completions: Path, progress: Progress) -> None:
    """Writes run/label/judgements.jsonl. Waits where people judge."""
    settings, folder = config.label, run / "label"
    shown = read_jsonl(completions, Completion, unique="id")
    if settings.judgements:
        judgements = read_jsonl(Path(settings.judgements), Judgement, unique="id")
    elif config.round.judges == "people":
        people = People(config.round, run, lambda done, total, note: progress("label", done, total, note))
        judgements = people.judge(_title(run, round_), prompts, shown, criterion=settings.criterion)
    elif config.round.judges == "ai":
        judgements = judge_answers(config, prompts, shown, folder, run / "feedback.jsonl", progress).judgements
    else:
        judgements = simulate(
            prompts,
            shown,
            num_labelers=settings.num_labelers,
            num_careless=settings.num_careless,
            noise=settings.noise,
            criterion=settings.criterion,
            seed=round_.seed(config.seed),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    write_jsonl(folder / FILE, judgements)
    (run / waiting.FILE).unlink(missing_ok=True)  # of people who were asked before and are asked no more


def _title(run: Path, round_: Round) -> str:
    inside = run.resolve()
    name = inside.parent.name if inside.name == f"round-{round_.number}" else inside.name
    return f"{name} round {round_.number}"
