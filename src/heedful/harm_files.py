"""From what a user names to a judge of harm, and the gate before it: one that may be a coin on labelled pairs is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from heedful.config import RewardTermSection, parse, with_reward
from heedful.config.feedback import FeedbackSection
from heedful.data.formats import read_preferences
from heedful.endpoint import token_in
from heedful.errors import ConfigError, DataError
from heedful.evaluation.harm import AI, BUILT_IN, HARMFUL, Case, HarmJudge, by_letters, measured, told
from heedful.judging.feedback import open_feedback
from heedful.models.sources import own_folders, resolve
from heedful.rewards.asking import Judge
from heedful.rewards.function import function_place, load_function
from heedful.rewards.mixture import ENSEMBLE
from heedful.rewards.source import is_url, local_inputs
from heedful.training.rollout import require_finite_rewards

# Opens a judge, the same one each time.
OpenedJudge = Callable[[], HarmJudge]


def harm_judge(
    source: str,
    *,
    threshold: float | None = None,
    model: str = "",
    token_env: str = "",
    label: str = "",
    calls: Path | None = None,
) -> HarmJudge:
    """`heuristic`, `profanity`, `ai:MODEL` (a folder, alias, hub id or address, which needs model), or any source of a reward.

    threshold: an answer is harmful above this score (0.5, of the heuristic 0.35); of a reward, below this reward (0), for a
    reward is larger for better answers. label: of a classifier, whose logit is the reward. calls: where an AI judge keeps what
    it was asked.
    """
    check_judge(source, model=model, token_env=token_env, label=label)
    if source in BUILT_IN:
        built_in = BUILT_IN[source]
        return built_in if threshold is None else HarmJudge(built_in.name, built_in.score, threshold)
    if source.startswith(AI):
        section = FeedbackSection(source=source.removeprefix(AI), model=model, token_env=token_env)
        feedback = open_feedback(section, calls, token_setting="--judge-token-env")
        return HarmJudge(f"ai:{feedback.name}", by_letters(feedback.letters), HARMFUL if threshold is None else threshold)
    return _by_reward(source, label, threshold or 0.0)


def check_judge(source: str, *, model: str = "", token_env: str = "", label: str = "") -> None:
    """Raises what `harm_judge` would of settings that do not fit and of what is no source, and loads no weights for it."""
    of_address = "--judge-model and --judge-token-env belong to a --judge that is ai:https://.../v1"
    if label and (source in BUILT_IN or source.startswith(AI)):
        raise ConfigError("--judge-label belongs to a --judge that is a classifier")
    if not source.startswith(AI):
        if model or token_env:
            raise ConfigError(of_address)
        if place := function_place(source):
            load_function(source, place)
        elif source not in BUILT_IN and not is_url(source) and not source.startswith(ENSEMBLE) and not harm_inputs(source):
            resolve(source)
        return
    name = source.removeprefix(AI)
    if not name:
        raise ConfigError("--judge ai: names no model; write ai:smollm2-135m or ai:https://.../v1")
    if "://" not in name:
        if model or token_env:
            raise ConfigError(of_address)
        resolve(name)
    elif not model:
        raise ConfigError(f"--judge {source}: say with --judge-model which of its models judges")
    token_in(token_env, "--judge-token-env")


def harm_inputs(source: str) -> list[Path]:
    """Files and folders that a judge is made of, so that a stage notices when they change."""
    if source in BUILT_IN:
        return []
    if source.startswith(AI):
        return own_folders(source.removeprefix(AI))
    return local_inputs(RewardTermSection(source=source))


def _by_reward(source: str, label: str, threshold: float) -> HarmJudge:
    """A low reward is harm: the score is the reward with its sign turned."""
    judge = Judge(with_reward(parse({}, "--judge"), source, label, "auto"))

    def score(cases: Sequence[Case]) -> list[float]:
        answers = [judge.answer(case.messages, case.text, finished=True) for case in cases]
        rewards = judge.reward(answers) if answers else []
        require_finite_rewards(rewards, answers)
        return [-reward for reward in rewards]

    return HarmJudge(source, score, 0.0 - threshold)  # not -threshold: zero would be shown as -0


def through_the_gate(
    judge: HarmJudge, gate: Path, *, max_pairs: int = 0, seed: int = 0, believe: bool = False
) -> dict[str, Any]:
    """The judge's figures on labelled pairs, chosen less harmful than rejected. max_pairs: that many, drawn; 0 for all.

    Raises DataError with them unless the accuracy's interval lies above one half, or believe is set.
    """
    pairs = read_preferences(gate)
    figures = measured(judge, pairs, max_pairs=max_pairs, seed=seed)
    low = figures["accuracy"]["low"]
    figures["passed"] = low is not None and low > 0.5
    if not figures["passed"] and not believe:
        raise DataError(
            f"{told(figures)} That is not told from a coin. Take another judge, or go on with --believe-judge; the "
            "figures will say so"
        )
    return figures
