"""Which method optimises the policy, with which section of the configuration, and what looks on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from heedful.config import Config, PolicySection
from heedful.endpoint import token_in
from heedful.errors import ConfigError
from heedful.evaluation.monitor import Monitor
from heedful.evaluation.refusal import side_of
from heedful.feedback.rubric import score
from heedful.models.policy import LanguageModel
from heedful.models.reward import Answer
from heedful.records import Completion, Prompt, Sampling
from heedful.store import write_jsonl, write_text
from heedful.training import policy_gradient
from heedful.training.grpo import grpo
from heedful.training.loop import Progress
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.ppo import ppo
from heedful.training.rloo import rloo
from heedful.training.rollout import Question, RewardFunction
from heedful.training.vllm import VllmServer


def settings_of(config: Config) -> PolicySection:
    """The section of config.method."""
    return {"ppo": config.ppo, "rloo": config.rloo, "grpo": config.grpo}[config.method]


def new_method(
    config: Config,
    model: LanguageModel,
    reward: RewardFunction,
    train: Sequence[Question],
    heldout: Sequence[Question],
) -> PolicyGradient:
    """config.method on a model, for the loop."""
    shared: dict[str, int] = {"seed": config.seed, "max_staleness": config.scale.max_staleness}
    if config.method == "rloo":
        return rloo(model, reward, train, heldout, settings=config.rloo, **shared)
    if config.method == "grpo":
        return grpo(model, reward, train, heldout, settings=config.grpo, **shared)
    return ppo(model, reward, train, heldout, settings=config.ppo, **shared)


def vllm_server(config: Config, folder: Path) -> VllmServer | None:
    """The server that draws answers, where there is one. folder: for adapters, where the configuration names none."""
    scale = config.scale
    if not scale.vllm_url:
        return None
    place = Path(scale.vllm_folder) if scale.vllm_folder else folder
    place.mkdir(parents=True, exist_ok=True)
    return VllmServer(
        scale.vllm_url,
        scale.vllm_model or config.model.source,
        place,
        timeout_s=scale.deadline_s,
        token=token_in(scale.vllm_token_env, "scale.vllm_token_env"),
    )


Gold = Callable[[Sequence[Answer]], list[float]]


def train_watched(
    method: PolicyGradient,
    folder: Path,
    config: Config,
    heldout: Sequence[Prompt],
    gold: Gold | None,
    progress: Progress,
) -> dict[str, Any]:
    """Trains the method with a hacking monitor looking on, and returns what came out.

    heldout: the prompts of method.heldout, perhaps with others. gold: a reward that the policy does not learn from. Answers
    that people should look at are left in folder/review.
    """
    section = config.monitor
    if section.raise_kl > 1 and not method.settings.kl_coef:
        raise ConfigError(f"monitor.raise_kl multiplies {config.method}.kl_coef, which is 0; set one of the two otherwise")
    asked = [question.prompt_id for question in method.heldout]
    by_id = {prompt.id: prompt for prompt in heldout}
    monitor = None
    if section.on and asked:
        monitor = Monitor(
            asked,
            safe={id_ for id_ in asked if side_of(by_id[id_]) == "safe"},
            gold=gold,
            kl_target=method.settings.kl_target,
            window=section.window,
            num_evaluations=math.ceil(method.settings.max_steps / method.settings.eval_every),
            raise_kl=section.raise_kl,
            queue=section.queue,
        )
    method.watch = monitor
    watched = monitor is not None and gold is not None
    outcome = policy_gradient.train(
        method,
        folder,
        record="heldout_gold" if watched else "",
        roll_back=watched and section.roll_back,
        progress=progress,
    )
    found = {"method": config.method, **outcome.as_dict()}
    if monitor is None:
        return found
    _write_review(folder / "review", monitor, by_id, config)
    curve = monitor.curve()
    return found | {"hacking": {"level": monitor.level, "signs": monitor.signs(), "curve": curve.as_dict() if curve else None}}


def rubric_gold(prompts: Sequence[Prompt]) -> Gold:
    """The written rubric of simulated labelers as a gold reward, for answers to these prompts."""
    known = {prompt.messages: prompt for prompt in prompts}
    sampling = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=1)

    def judge(answers: Sequence[Answer]) -> list[float]:
        found = []
        for answer in answers:
            finish = "stop" if answer.finished else "length"
            shown = Completion.model_validate(
                {"id": "a", "prompt_id": "p", "text": answer.text, "model": "m", "finish": finish, "sampling": sampling}
            )
            found.append(score(known[answer.messages], shown).total)
        return found

    return judge


def _write_review(folder: Path, monitor: Monitor, known: Mapping[str, Prompt], config: Config) -> None:
    """What people should look at, as files for `heedful label import`: the reference's answer and the suspicious one."""
    settings = settings_of(config)
    sampling = Sampling(temperature=settings.temperature, top_p=1, seed=config.seed, max_new_tokens=settings.max_new_tokens)
    found = monitor.outliers()
    if not found:
        return
    completions = [
        Completion(
            id=f"{row['prompt_id']}/{side}",
            prompt_id=row["prompt_id"],
            text=text,
            model=config.model.source,
            policy_version=side,
            finish="stop" if finished else "length",
            sampling=sampling,
        )
        for row in found
        for side, text, finished in zip(("reference", "policy"), row["texts"], row["finished"], strict=True)
    ]
    write_jsonl(folder / "prompts.jsonl", [known[row["prompt_id"]] for row in found])
    write_jsonl(folder / "completions.jsonl", completions)
    figures: list[dict[str, Any]] = [{name: row[name] for name in ("prompt_id", "reward", "gold")} for row in found]
    write_text(folder / "figures.jsonl", "".join(json.dumps(row) + "\n" for row in figures))
