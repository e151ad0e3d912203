"""Policy gradients on sampled completions: what PPO, RLOO, REINFORCE++ and GRPO share.

One step is a batch of rollouts (rollout.py) and `epochs` passes over it. A method brings a `Recipe`: how scores become
advantages, how tokens are averaged, where the KL penalty stands, and perhaps a critic.
"""

# B batch of rollouts, T response tokens, N response tokens laid end to end

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_columns
from torch.nn.utils.rnn import pad_sequence

from heedful.config import PolicySection
from heedful.engine.batching import packed_batches
from heedful.engine.generation import Decoding
from heedful.engine.lanes import lanes_for
from heedful.functional.advantages import explained_variance, sampled_kl
from heedful.functional.logprobs import token_scores
from heedful.functional.losses.ppo import entropy_bonus, kl_loss, policy_loss
from heedful.functional.masking import masked_mean, spread, token_weights
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.trunk.packed import Packed, pack, shared_tokens
from heedful.training.adapter import add_policy, save_policy
from heedful.training.control import AdaptiveKL, RunningMoments
from heedful.training.critic import Critic
from heedful.training.loop import Optimiser, Outcome, Progress, Sample, Stop, run, shuffled, silent, warmup
from heedful.training.metrics import Metrics
from heedful.training.rollout import (
    HELDOUT_SEED,
    Question,
    RewardFunction,
    Rollout,
    answers_to,
    collect,
    measured_by,
    require_finite_rewards,
    require_same_weights,
)

Batch = dict[str, Tensor]


class Estimate(NamedTuple):
    """advantages_BT: what each token is worth. returns_BT: what a critic should have said, zeros without one.

    kept_B: True for the rollouts that are learned from.
    """

    advantages_BT: Tensor
    returns_BT: Tensor
    kept_B: Tensor


@dataclass(frozen=True)
class Recipe:
    """What differs between the methods.

    stage: name in metrics and folders. estimate: from a batch (see `PolicyGradient.batch`) and the KL coefficient. average:
    what the loss is a mean over (masking.token_weights). kl_in_loss: the penalty is a term of the loss and not of the reward.
    """

    stage: str
    estimate: Callable[[Batch, float], Estimate]
    average: Literal["token", "sequence", "constant"] = "token"
    kl_in_loss: bool = False


class PolicyGradient:
    """The method for the loop. settings: what all sections share; a method's own are in its recipe and its critic."""

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
    ) -> None:
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

    # Phase 1

    def _questions(self, step: int) -> list[Question]:
        count = max(1, self.settings.episodes // self.settings.samples_per_prompt)
        chosen = islice(shuffled(len(self.train), self.seed, start=step * count), count)
        return [self.train[i] for i in chosen]

    def step(self, step: int) -> dict[str, float]:
        with self.model.remembering():  # reference, reward and each epoch read the same rollouts
            return self._step(step)

    def _step(self, step: int) -> dict[str, float]:
        settings = self.settings
        rollouts = collect(
            self.model,
            self.critic.head if self.critic else None,
            self.reward,
            self._questions(step),
            self.decoding,
            samples_per_prompt=settings.samples_per_prompt,
            seed=self.seed * 100_003 + step,
            policy_version=step,
            rescore=settings.sampler_ratio_cap > 0,
        )
        kl_coef = self.kl.coef
        batch = self.batch(rollouts)
        alone = self.critic.warmup_steps if self.critic else 0
        rate = warmup(step - alone, settings.warmup_steps) if step >= alone else 0.0
        self.optimiser.set_rate(rate, value=warmup(step, settings.warmup_steps))
        learned = self._learn(rollouts, batch, step, kl_coef)
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
        return measured

    def batch(self, rollouts: Sequence[Rollout]) -> Batch:
        """Columns of all rollouts, (B, T) with the mask True on response tokens, or (B,): scores, groups, kept.

        scores: rewards normalised and clipped, less the penalties. groups: which prompt of the batch a rollout answers.
        """
        settings = self.settings
        raw = [rollout.reward for rollout in rollouts]
        self.moments.add(raw)
        limit = settings.reward_clip
        shown = self.moments.normalise(raw, limit) if settings.normalise_rewards else [max(-limit, min(limit, r)) for r in raw]
        lengths_B = torch.tensor([len(rollout.answer.response_ids) for rollout in rollouts])
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
        batch = {name: pad_sequence(rows, batch_first=True) for name, rows in columns.items()}
        if not lengths_B.any():  # a column of padding, for what looks for a last token
            batch = {name: pad_columns(rows_BT, (0, 1)) for name, rows_BT in batch.items()}
        if settings.kl != "exact":
            batch["kl"] = sampled_kl(batch["old_logprobs"], batch["ref_logprobs"], settings.kl)
        batch |= {"scores": scores_B, "groups": torch.arange(len(rollouts)) // settings.samples_per_prompt}
        found = self.recipe.estimate(batch, self.kl.coef)
        advantages_BT = found.advantages_BT
        if settings.sampler_ratio_cap > 0:
            weight_BT = (batch["old_logprobs"] - batch["drawn"]).exp().clamp(max=settings.sampler_ratio_cap)
            advantages_BT = advantages_BT * weight_BT
        return batch | {"advantages": advantages_BT, "returns": found.returns_BT, "kept": found.kept_B & (lengths_B > 0)}

    # Phase 2

    def _learn(self, rollouts: Sequence[Rollout], batch: Batch, step: int, kl_coef: float) -> dict[str, float]:
        settings = self.settings
        rows = torch.nonzero(batch["kept"])[:, 0].tolist()
        totals: dict[str, float] = {}
        updates, norms, passes, gap = 0, 0.0, 0, 0.0
        for epoch in range(settings.epochs if rows else 0):
            generator = torch.Generator().manual_seed((self.seed * 100_003 + step) * 31 + epoch)
            order = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
            moved, seen = 0.0, 0.0
            for part in range(settings.num_minibatches):
                chosen = order[part :: settings.num_minibatches]
                if not chosen:
                    continue
                sums = self._accumulate(rollouts, batch, chosen, kl_coef)
                if updates == 0:
                    gap = sums["sampler_gap"]  # of the first optimiser batch, which nothing has been learned from
                    require_same_weights(gap, self.model.dtype, step)
                norms += self.optimiser.update()
                updates += 1
                for name, value in sums.items():
                    totals[name] = totals.get(name, 0.0) + value
                moved, seen = moved + sums["update_kl"] * sums["num_tokens"], seen + sums["num_tokens"]
            passes += 1
            if settings.target_kl_update > 0 and moved / seen > settings.target_kl_update:
                break
        names = ("policy_loss", "value_loss", "kl_loss", "clip_fraction", "update_kl")
        return {name: totals.get(name, 0.0) / max(1, updates) for name in names if name in self._quantities()} | {
            "grad_norm": norms / max(1, updates),
            "sampler_gap": gap,
            "epochs": float(passes),
            "learning_rate": float(self.optimiser.adamw.param_groups[0]["lr"]),
        }

    def _quantities(self) -> list[str]:
        """What the parts of an optimiser batch measure, and add up to."""
        found = ["policy_loss", "clip_fraction", "update_kl", "sampler_gap"]
        return found + ["value_loss"] * (self.critic is not None) + ["kl_loss"] * self.recipe.kl_in_loss

    def _accumulate(self, rollouts: Sequence[Rollout], batch: Batch, chosen: list[int], kl_coef: float) -> dict[str, float]:
        """Gradients of one optimiser batch, in parts that fit into memory and add up to it exactly."""
        settings, model = self.settings, self.model
        num_tokens = int(batch["mask"][chosen].sum())
        weights_BT = torch.zeros_like(batch["advantages"])
        weights_BT[chosen] = token_weights(batch["mask"][chosen], self.recipe.average, max_tokens=settings.max_new_tokens)
        weighted = batch | {"advantages": batch["advantages"] * weights_BT, "weights": weights_BT}
        prompts, responses = [rollouts[i].question.ids for i in chosen], [rollouts[i].answer.response_ids for i in chosen]

        def part_loss(part: list[int]) -> tuple[Tensor, dict[str, float]]:
            packed = pack([prompts[place] for place in part], [responses[place] for place in part], device=model.device)
            return self._part_loss(packed, weighted, [chosen[place] for place in part], num_tokens, kl_coef)

        lanes = lanes_for(model, POLICY)
        parts = packed_batches(prompts, responses, lanes.tokens)
        costs = [shared_tokens([(prompts[place], responses[place]) for place in part]) for part in parts]
        found = lanes.each(parts, part_loss, costs=costs, learning=self.optimiser.tensors)
        return {name: sum(part[name] for part in found) for name in self._quantities()} | {"num_tokens": float(num_tokens)}

    def _part_loss(
        self, packed: Packed, batch: Batch, rows: list[int], num_tokens: int, kl_coef: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Of some rows of an optimiser batch of num_tokens: their share of its loss, and of what it measures."""
        settings, model = self.settings, self.model
        at = {name: column[rows].to(model.device) for name, column in batch.items()}
        mask_BT = at["mask"]
        hidden_ND = packed.predicting(model.read(packed, adapter=POLICY))
        learn_entropy = settings.entropy_coef > 0
        fresh = token_scores(
            hidden_ND, model.head_VD, packed.targets_M, temperature=settings.temperature, learn_entropy=learn_entropy
        )
        logprobs_BT = spread(fresh.logprobs_N, mask_BT)
        policy = policy_loss(
            logprobs_BT,
            at["old_logprobs"],
            at["advantages"],
            mask_BT,
            clip=settings.clip,
            clip_high=settings.clip_high or None,
            dual_clip=settings.dual_clip or None,
            num_tokens=num_tokens,
        )
        loss = policy.loss
        if learn_entropy:
            entropy = entropy_bonus(spread(fresh.entropy_N, mask_BT), mask_BT, num_tokens=num_tokens)
            loss = loss - settings.entropy_coef * entropy
        measured = {
            "policy_loss": float(policy.loss.detach()),
            "clip_fraction": float(policy.clipped_tokens) / num_tokens,
            "update_kl": float(policy.update_kl) / num_tokens,
            "sampler_gap": float((logprobs_BT.detach() - at["drawn"]).abs().sum()) / num_tokens,
        }
        if self.critic:
            values_BT = spread(self.critic.head(hidden_ND), mask_BT)
            value = self.critic.loss(values_BT, at["values"], at["returns"], mask_BT, num_tokens)
            loss = loss + self.critic.coef * value
            measured["value_loss"] = float(value.detach())
        if self.recipe.kl_in_loss:
            penalty = kl_loss(logprobs_BT, at["ref_logprobs"], mask_BT, at["weights"], num_tokens=num_tokens)
            loss = loss + kl_coef * penalty
            measured["kl_loss"] = float(penalty.detach())
        return loss, measured

    # Held-out prompts, checkpoints

    def evaluate(self, step: int) -> dict[str, float]:
        if not self.heldout:
            return {}
        answers, _ = answers_to(
            self.model, self.heldout, self.decoding, adapter=POLICY, samples_per_prompt=1, seed=HELDOUT_SEED
        )
        rewards = self.reward(answers)
        require_finite_rewards(rewards, answers)
        self.heard = [
            Sample(answer.messages[-1].content, answer.text, reward) for answer, reward in zip(answers, rewards, strict=True)
        ][: self.settings.log_samples]
        return {"heldout_reward": sum(rewards) / len(rewards)}

    def samples(self, step: int) -> list[Sample]:
        """The first of the answers that the last evaluation judged."""
        return self.heard

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimiser": self.optimiser.state_dict(),
            "moments": [self.moments.count, self.moments.mean, self.moments.squares],
            "kl_coef": self.kl.coef,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        self.moments.count, self.moments.mean, self.moments.squares = state["moments"]
        self.kl.coef = state["kl_coef"]


def train(method: PolicyGradient, folder: Path, *, progress: Progress = silent) -> Outcome:
    """Trains the adapter "policy" in place with checkpoints in `folder`."""
    settings, stage = method.settings, method.recipe.stage
    return run(
        method,
        folder / "checkpoint.pt",
        lambda first: Metrics(folder.parent, stage, first),
        max_steps=settings.max_steps,
        checkpoint_every=settings.checkpoint_every,
        eval_every=settings.eval_every,
        stop=Stop(
            "heldout_reward",
            settings.reward_threshold,
            patience=settings.patience,
            max_kl=settings.max_kl or math.inf,
        ),
        progress=progress,
    )


def save(method: PolicyGradient, folder: Path, *, policy_version: str) -> None:
    """The policy in PEFT's format, a critic's value head beside it, and which version of which base it is."""
    heads = {"value_head": method.critic.head.state_dict()} if method.critic else {}
    save_policy(method.model, folder, policy_version=policy_version, temperature=method.settings.temperature, heads=heads)
