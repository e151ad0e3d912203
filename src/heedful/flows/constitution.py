"""Both stages of a constitution, top to bottom: `heedful constitution run`.

FOLDER/stage1: chains of critique and revision, and fine-tuning on what was kept. FOLDER/tuned: its policy, merged into a plain
model. FOLDER/stage2: AI feedback on that model's answers; in `run`, a run directory, the reward model and the policy that PPO
makes of it. FOLDER/red-team/stage1 and stage2: either policy beside the model as it was, on held-out prompts. Each part is
skipped once it is finished, so the same command goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heedful.config import Config
from heedful.engine.device import choose_device
from heedful.errors import ConfigError, DataError
from heedful.models.policy import export_merged
from heedful.pipeline import Pipeline
from heedful.progress import Progress
from heedful.prompt_files import gathered
from heedful.red_team_files import chosen_prompts
from heedful.report.card import export_card
from heedful.stages.prefer import STAGE as PREFER
from heedful.stages.prefer import prefer, require_gate
from heedful.stages.red_team import Attack, red_team
from heedful.stages.revise import revise
from heedful.store import CARD, Run, file_hash, named_folder, write_json

STAGE1, TUNED, STAGE2, RED_TEAM, SUMMARY = "stage1", "tuned", "stage2", "red-team", "summary.json"
MADE_OF = "made-of.txt"  # in the merged model: hash of the adapter


def constitution_run(config: Config, folder: Path, progress: Progress, command: str) -> dict[str, Any]:
    """Returns, and writes into summary.json, the results of both stages and what the red team found of each.

    Raises DataError for prompts without a split: either stage and the report would each hold out others; ConfigError where
    the judge of stage 2 is neither to be measured nor forced, and for several rounds or an environment.
    """
    require_gate(config)
    if config.rounds > 1 or config.environment.kind != "prompts":
        raise ConfigError(
            f"rounds = {config.rounds}, environment.kind = {config.environment.kind!r}: both stages of a constitution are one "
            "round over prompts; leave rounds at 1 and environment.kind at 'prompts'"
        )
    if config.prompts.files and not all(prompt.split for prompt in gathered(config.prompts.files)):
        raise DataError(
            f"{', '.join(config.prompts.files)}: not every prompt says whether it is for training; give each a 'split', train "
            "or heldout, so that both stages learn from the same ones and the report is about the others"
        )
    found: dict[str, Any] = {"revise": revise(config, folder / STAGE1, progress)}
    first = folder / STAGE1 / "sft" / "policy"
    found["red_team"] = {STAGE1: _attacked(config, first, folder / RED_TEAM / STAGE1, progress)}
    tuned = folder / TUNED
    _merge(first, tuned)

    # From here on the tuned model is the base, and so the reference that the KL penalty holds the policy to. A scorer that
    # reads with a language model reads with the one that was there before, which the gate can know.
    judged = config.prefer.model_copy(update={"policy": str(tuned)})
    found["prefer"] = prefer(config.model_copy(update={"prefer": judged}), folder / STAGE2, progress)
    pairs = folder / STAGE2 / PREFER / "preferences.jsonl"
    learned = config.model_copy(
        update={
            "model": config.model.model_copy(update={"source": str(tuned)}),
            "reward": config.reward.model_copy(update={"preferences": (str(pairs),)}),
        }
    )
    with Run(folder / STAGE2 / "run") as run:
        pipeline = Pipeline(learned, run, progress, command)
        found["aligned"] = pipeline()
    found["red_team"][STAGE2] = _attacked(config, pipeline.layout.policy_folder, folder / RED_TEAM / STAGE2, progress)
    write_json(folder / SUMMARY, found)
    return found


def _attacked(config: Config, policy: Path, folder: Path, progress: Progress) -> dict[str, Any]:
    """The red team's figures of a policy beside the model as it was, on prompts that nothing was learned from."""
    settings = config.evaluate
    attack = Attack(
        model=config.model.source,
        against=str(policy),
        num_completions=settings.num_completions,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        batch_rows=config.sample.batch_rows,
        seed=config.seed,
        num_resamples=settings.num_resamples,
    )
    return red_team(chosen_prompts((), split="heldout", seed=config.seed), folder, attack, progress).figures


def _merge(policy: Path, target: Path) -> None:
    made_of = file_hash(policy)
    if (target / MADE_OF).is_file() and (target / MADE_OF).read_text(encoding="utf-8") == made_of:
        return
    with named_folder(target) as folder:
        export_merged(str(policy), folder, choose_device())
        (folder / CARD).write_text(export_card(policy), encoding="utf-8")
        (folder / MADE_OF).write_text(made_of, encoding="utf-8")
