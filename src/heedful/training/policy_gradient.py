"""Policy gradients on sampled completions: what PPO, RLOO, REINFORCE++ and GRPO share.

One step is a batch of rollouts (rollout.py) and `epochs` passes over it. A method brings a `Recipe`: how scores become
advantages, how tokens are averaged, where the KL penalty stands, and perhaps a critic.
"""

# B batch of rollouts, T response tokens, N response tokens laid end to end

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn.functional import pad as pad_columns
from torch.nn.utils.rnn import pad_sequence

from heedful.config import PolicySection
from heedful.engine.episodes import World
from heedful.engine.generation import Decoding
from heedful.errors import ConfigError
from heedful.functional.advantages import explained_variance, sampled_kl
from heedful.functional.masking import masked_mean
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.reward import Answer
from heedful.training.adapter import add_policy, save_policy
from heedful.training.control import AdaptiveKL, RunningMoments
from heedful.training.critic import Critic
from heedful.training.loop import Outcome, Progress, Sample, Stop, run, shuffled, silent
from heedful.training.metrics import Metrics
from heedful.training.optimiser import Optimiser, warmup
from heedful.training.policy_update import Batch, PolicyUpdate, Recipe
from heedful.training.rollout import (
    HELDOUT_SEED,
    Question,
    RewardFunction,
    Rollout,
    answers_to,
    collect,
    episodes_of,
    measured_by,
    require_finite_rewards,
)
from heedful.training.stale import StaleSampler, collect_stale
from heedful.training.vllm import VllmServer
from heedful.training.watch import Watch

STALE_RATIO_CAP = 2.0  # of tokens that older weights drew, where sampler_ratio_cap sets none
MOST_RAISED = 100.0  # times kl_coef, that a monitor raises the coefficient to


class PolicyGradient:
    """The method for the loop. settings: what all sections share; a method's own are in its recipe and its critic.

    max_staleness: how many steps ago the weights began that draw a step's answers (stale.py); 0: the step's own.
    """

    sampler: StaleSampler | None = None  # where others than the step's own weights draw

    def __init__(
        self,
        model: LanguageModel,
        reward: RewardFunction,
        train: Sequence[Question],
        heldout: Sequence[Question],
        *,
        recipe: Recipe,
        settings: PolicySection,
        seed: int,
        critic: Critic | None = None,
        max_staleness: int = 0,
    ) -> None:
        self.watch: Watch | None = None  # a hacking monitor, given by whoever runs the method
        self.world: World | None = None  # what answers the policy, likewise; none: a prompt set
        add_policy(model, settings.lora, seed)
        self.model, self.reward, self.train, self.heldout = model, reward, train, heldout
        self.recipe, self.settings, self.seed, self.critic = recipe, settings, seed, critic
        self.decoding = Decoding(settings.temperature, 1.0, settings.max_new_tokens)
        self.heard: list[Sample] = []
        self.moments = RunningMoments()
        self.kl = AdaptiveKL(settings.kl_coef, settings.kl_target, settings.kl_horizon)
        groups = {"policy": (model.adapter_parameters(POLICY), settings.learning_rate)}
        if critic:
            groups["value"] = (dict(critic.head.named_parameters()), critic.learning_rate)
        self.optimiser = Optimiser(groups, max_grad_norm=settings.max_grad_norm)
        self.update = PolicyUpdate(model, self.optimiser, recipe, settings, seed, critic, stale=max_staleness > 0)
        if max_staleness:
            self.sampler = self._new_sampler(max_staleness)

    def _new_sampler(self, max_staleness: int) -> StaleSampler:
        each, most = self.settings.samples_per_prompt, self.settings.max_steps
        found = StaleSampler(self.model, self.decoding, self._questions, each, self._draws, max_staleness, most)
        found.add_adapter(self.settings.lora)
        return found

    def ask_server(self, server: VllmServer) -> None:
        """Answers are drawn by a server from now on."""
        if self.model.encodes:
            raise ConfigError(
                f"scale.vllm_url: {self.model.source} is an encoder-decoder model, which samples here and not by a server; "
                "leave it empty"
            )
        self.sampler = self.sampler or self._new_sampler(0)
        self.sampler.server = server
        self.update = replace(self.update, stale=True)

    @property
    def ratio_cap(self) -> float:
        """What a token's weight of trainer over sampler is cut at; 0: tokens are not weighed."""
        return self.settings.sampler_ratio_cap or (STALE_RATIO_CAP if self.sampler else 0.0)

    def _draws(self, step: int) -> int:
        """The seed of a step's answers."""
        return self.seed * 100_003 + step

    def _questions(self, step: int) -> list[Question]:
        count = max(1, self.settings.episodes // self.settings.samples_per_prompt)
        chosen = islice(shuffled(len(self.train), self.seed, start=step * count), count)
        return [self.train[i] for i in chosen]

    def step(self, step: int) -> dict[str, float]:
        with self.model.remembering():  # reference, reward and each epoch read the same rollouts
            return self._step(step)

    def _step(self, step: int) -> dict[str, float]:
        settings = self.settings
        rollouts, staleness = self._rollouts(step)
        kl_coef = self.kl.coef
        batch = self.batch(rollouts)
        alone = self.critic.warmup_steps if self.critic else 0
        rate = warmup(step - alone, settings.warmup_steps) if step >= alone else 0.0
        self.optimiser.set_rate(rate, value=warmup(step, settings.warmup_steps))
        learned = self.update.learn(rollouts, batch, step, kl_coef)
        sequence_kl = float(batch["kl"].sum(dim=1).mean())
        self.kl.update(sequence_kl, len(rollouts))
        rewards = torch.tensor([rollout.reward for rollout in rollouts])
        measured = {
            "reward": float(rewards.mean()),
            "kl_policy_ref": sequence_kl,
            "reward_sd": float(rewards.std()),
            "score": float(batch["scores"].mean()),
            "entropy": float(masked_mean(batch["entropy"], batch["mask"])),
            "length": float(batch["mask"].sum(dim=1).float().mean()),
            "finished": sum(rollout.finished for rollout in rollouts) / len(rollouts),
            "kl_coef": kl_coef,
            "skipped_groups": float(len(set(batch["groups"].tolist()) - set(batch["groups"][batch["kept"]].tolist()))),
            **measured_by(self.reward),
            **learned,
        }
        if self.critic:
            measured |= {
                "return": float(masked_mean(batch["returns"], batch["mask"])),
                "explained_variance": explained_variance(batch["returns"], batch["values"], batch["mask"]),
            }
        if self.sampler:
            drawn_BT = batch["old_logprobs"] - batch["drawn"]
            measured |= {
                "staleness": float(staleness),
                "truncated_share": float(masked_mean((drawn_BT.exp() > self.ratio_cap).float(), batch["mask"])),
            }
        if self.watch:
            answers = [rollout.answer for rollout in rollouts]
            measured |= self.watch.after_step(measured, answers, [rollout.reward for rollout in rollouts])
        return measured

    def _rollouts(self, step: int) -> tuple[list[Rollout], int]:
        """Of a step, and how many steps ago the weights began that drew them."""
        settings, head = self.settings, self.critic.head if self.critic else None
        if self.sampler:
            self.sampler.begins(step)
            return collect_stale(self.sampler, head, self.reward, step)
        rollouts = collect(
            self.model,
            head,
            self.reward,
            self._questions(step),
            self.decoding,
            samples_per_prompt=settings.samples_per_prompt,
            seed=self._draws(step),
            policy_version=step,
            rescore=settings.sampler_ratio_cap > 0,
            world=self.world,
        )
        return rollouts, 0

    def batch(self, rollouts: Sequence[Rollout]) -> Batch:
        """Columns of all rollouts, (B, T) with the mask True on response tokens, or (B,): scores, groups, kept.

        Of a rollout in an environment the columns are the tokens that the policy wrote, without gaps: an advantage goes back
        from turn to turn, and of what the environment wrote there is nothing that a loss or a penalty could read.
        scores: rewards normalised and clipped, less the penalties. groups: which prompt of the batch a rollout answers.
        """
        settings = self.settings
        raw = [rollout.reward for rollout in rollouts]
        self.moments.add(raw)
        limit = settings.reward_clip
        shown = self.moments.normalise(raw, limit) if settings.normalise_rewards else [max(-limit, min(limit, r)) for r in raw]
        own = [torch.tensor(rollout.answer.written, dtype=torch.bool) for rollout in rollouts]
        lengths_B = torch.tensor([int(written_T.sum()) for written_T in own])
        scores_B = torch.tensor(shown)
        scores_B = scores_B - settings.missing_eos_penalty * torch.tensor([not rollout.finished for rollout in rollouts])
        scores_B = scores_B - settings.length_penalty * lengths_B / settings.max_new_tokens
        scored = [rollout.scored for rollout in rollouts]
        columns = {
            "old_logprobs": [s.logprobs_T for s in scored],
            "ref_logprobs": [s.ref_logprobs_T for s in scored],
            "entropy": [s.entropy_T for s in scored],
            "kl": [s.kl_T for s in scored],
            "values": [s.values_T for s in scored],
            "drawn": [torch.tensor(rollout.sampler_logprobs) for rollout in rollouts],
            "mask": [torch.ones_like(s.values_T, dtype=torch.bool) for s in scored],
        }
        batch = {
            name: pad_sequence([row[written_T] for row, written_T in zip(rows, own, strict=True)], batch_first=True)
            for name, rows in columns.items()
        }
        if not lengths_B.any():  # a column of padding, for what looks for a last token
            batch = {name: pad_columns(rows_BT, (0, 1)) for name, rows_BT in batch.items()}
        if settings.kl != "exact":
            batch["kl"] = sampled_kl(batch["old_logprobs"], batch["ref_logprobs"], settings.kl)
        batch |= {"scores": scores_B, "groups": torch.arange(len(rollouts)) // settings.samples_per_prompt}
        found = self.recipe.estimate(batch, self.kl.coef)
        advantages_BT = found.advantages_BT
        if self.ratio_cap > 0:
            weight_BT = (batch["old_logprobs"] - batch["drawn"]).exp().clamp(max=self.ratio_cap)
            advantages_BT = advantages_BT * weight_BT
        return batch | {"advantages": advantages_BT, "returns": found.returns_BT, "kept": found.kept_B & (lengths_B > 0)}

    # Held-out prompts, checkpoints

    def evaluate(self, step: int) -> dict[str, float]:
        if not self.heldout:
            return {}
        watched: dict[str, float] = {}
        if self.watch and not self.watch.begun:
            self.watch.begin(*self._answers(None))
        answers, rewards = self._answers(POLICY)
        if self.watch:
            watched = self.watch.after_evaluation(answers, rewards)
            self.kl.coef = min(self.kl.coef * self.watch.kl_factor(), max(self.kl.coef, MOST_RAISED * self.settings.kl_coef))
        self.heard = [
            Sample(answer.messages[-1].content, answer.text, reward) for answer, reward in zip(answers, rewards, strict=True)
        ][: self.settings.log_samples]
        return {"heldout_reward": sum(rewards) / len(rewards)} | watched

    def _answers(self, adapter: str | None) -> tuple[list[Answer], list[float]]:
        """One answer to each held-out prompt, and its reward."""
        asked: dict[str, Any] = {"adapter": adapter, "samples_per_prompt": 1, "seed": HELDOUT_SEED}
        if self.world is not None:
            answers = episodes_of(self.model, self.world, self.heldout, self.decoding, **asked)
        else:
            answers, _ = answers_to(self.model, self.heldout, self.decoding, **asked)
        rewards = self.reward(answers)
        require_finite_rewards(rewards, answers)
        return answers, rewards

    def signs(self, step: int) -> list[dict[str, Any]]:
        """What the monitor holds against the run after the last evaluation."""
        return self.watch.signs() if self.watch else []

    def samples(self, step: int) -> list[Sample]:
        """The first of the answers that the last evaluation judged."""
        return self.heard

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimiser": self.optimiser.state_dict(),
            "moments": [self.moments.count, self.moments.mean, self.moments.squares],
            "kl_coef": self.kl.coef,
        } | self._others_state()

    def _others_state(self) -> dict[str, Any]:
        """Of who looks on, and of the weights that draw what comes next."""
        watch = {"watch": self.watch.state_dict()} if self.watch else {}
        return watch | ({"sampler": self.sampler.state_dict()} if self.sampler else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        self.moments.count, self.moments.mean, self.moments.squares = state["moments"]
        self.kl.coef = state["kl_coef"]
        if self.watch and "watch" in state:
            self.watch.load_state_dict(state["watch"])
        if self.sampler and "sampler" in state:
            self.sampler.load_state_dict(state["sampler"])


def train(
    method: PolicyGradient, folder: Path, *, record: str = "", roll_back: bool = False, progress: Progress = silent
) -> Outcome:
    """Trains the adapter "policy" in place with checkpoints in `folder`. record, roll_back: see `Stop`."""
    settings, stage = method.settings, method.recipe.stage
    stop = Stop(
        "heldout_reward",
        settings.reward_threshold,
        patience=settings.patience,
        max_kl=settings.max_kl or math.inf,
        record=record,
        roll_back=roll_back,
    )
    try:
        return run(
            method,
            folder / "checkpoint.pt",
            lambda first: Metrics(folder.parent, stage, first),
            max_steps=settings.max_steps,
            checkpoint_every=settings.checkpoint_every,
            eval_every=settings.eval_every,
            stop=stop,
            progress=progress,
        )
    finally:
        if method.sampler:  # which may be drawing answers to steps that nobody will take
            method.sampler.close()


def save(method: PolicyGradient, folder: Path, *, policy_version: str) -> None:
    """The policy in PEFT's format, a critic's value head beside it, and which version of which base it is."""
    heads = {"value_head": method.critic.head.state_dict()} if method.critic else {}
    save_policy(method.model, folder, policy_version=policy_version, temperature=method.settings.temperature, heads=heads)


def take_critic(method: PolicyGradient, policy: Path) -> None:
    """Goes on with the value head that `save` put beside a policy, where the method has a critic and there is one."""
    file = policy / "value_head.safetensors"
    if method.critic and file.is_file():
        method.critic.head.load_state_dict(load_file(file))
