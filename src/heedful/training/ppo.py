"""Proximal policy optimisation against a reward model, with a KL penalty from the frozen reference.

Phase 1 (rollout.py): complete prompts, score them, estimate values. Phase 2 (here): small updates inside a trust region.
docs/methods/ppo.md explains each number that a step reports.
"""

# B batch of rollouts, T response tokens, N response tokens laid end to end

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from heedful.config import PPOSection
from heedful.engine.batching import batches_by_tokens, pad
from heedful.engine.generation import Decoding
from heedful.functional.advantages import explained_variance, gae, kl_advantages, token_rewards
from heedful.functional.logprobs import token_scores
from heedful.functional.losses.ppo import entropy_bonus, policy_loss, value_loss
from heedful.functional.masking import masked_mean, whiten
from heedful.models.policy import POLICY, LanguageModel, ValueHead
from heedful.store import new_folder
from heedful.training.loop import Optimiser, Progress, Stop, copy_into, run, shuffled, silent, warmup
from heedful.training.metrics import Metrics
from heedful.training.rollout import Question, RewardFunction, Rollout, answers_to, collect, measured_by, require_finite_rewards

MICROBATCH_TOKENS = 1024  # as in reward.py
HELDOUT_SEED = 7_919  # held-out prompts are always sampled with the same random numbers


class RunningMoments:
    """Mean and standard deviation of all rewards seen (Welford)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: Sequence[float]) -> None:
        for value in values:
            self.count += 1
            delta = value - self.mean
            self.mean += delta / self.count
            self.squares += delta * (value - self.mean)

    def normalise(self, values: Sequence[float], limit: float) -> list[float]:
        """(value - mean) / sd, clipped to +-limit; 0 while all values seen were equal."""
        sd = (self.squares / max(1, self.count - 1)) ** 0.5
        return [max(-limit, min(limit, (value - self.mean) / sd)) if sd > 1e-8 else 0.0 for value in values]


class AdaptiveKL:
    """Coefficient that steers the sequence KL to a target (Ziegler et al. 2019, section 2.2); fixed with target 0."""

    def __init__(self, coef: float, target: float, horizon: float) -> None:
        self.coef, self.target, self.horizon = coef, target, horizon

    def update(self, kl: float, episodes: int) -> None:
        """kl: mean sequence KL in nats of the last batch of `episodes` rollouts."""
        if self.target > 0:
            error = max(-0.2, min(0.2, kl / self.target - 1))
            # At most halved or doubled at once: a horizon shorter than the batch must not turn the penalty into a bonus.
            self.coef *= max(0.5, min(2.0, 1 + error * episodes / self.horizon))


class PPO:
    """The method: one step is a batch of rollouts and `epochs` passes over it."""

    def __init__(
        self,
        model: LanguageModel,
        reward: RewardFunction,
        train: Sequence[Question],
        heldout: Sequence[Question],
        *,
        settings: PPOSection,
        seed: int,
    ) -> None:
        lora = settings.lora
        if POLICY not in model.adapters:
            model.add_adapter(POLICY, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=seed)
        self.model, self.reward, self.train, self.heldout = model, reward, train, heldout
        self.settings, self.seed = settings, seed
        self.value_head = ValueHead(model.hidden_size).to(model.device)
        self.decoding = Decoding(settings.temperature, 1.0, settings.max_new_tokens)
        self.moments = RunningMoments()
        self.kl = AdaptiveKL(settings.kl_coef, settings.kl_target, settings.kl_horizon)
        self.policy_parameters = model.adapter_parameters(POLICY)
        self.value_parameters = list(self.value_head.parameters())
        self.optimiser = Optimiser(
            {
                "policy": (self.policy_parameters, settings.learning_rate),
                "value": (self.value_parameters, settings.value_learning_rate),
            },
            max_grad_norm=settings.max_grad_norm,
        )

    # Phase 1

    def _questions(self, step: int) -> list[Question]:
        count = max(1, self.settings.episodes // self.settings.samples_per_prompt)
        chosen = islice(shuffled(len(self.train), self.seed, start=step * count), count)
        return [self.train[i] for i in chosen]

    def step(self, step: int) -> dict[str, float]:
        settings = self.settings
        rollouts, gap = collect(
            self.model,
            self.value_head,
            self.reward,
            self._questions(step),
            self.decoding,
            samples_per_prompt=settings.samples_per_prompt,
            seed=self.seed * 100_003 + step,
            policy_version=step,
        )
        batch = self._batch(rollouts)
        frozen = ["policy"] if step < settings.critic_warmup_steps else []
        self.optimiser.set_rate(warmup(max(0, step - settings.critic_warmup_steps), settings.warmup_steps), frozen=frozen)
        learned = self._learn(rollouts, batch, step)
        sequence_kl = float(batch["kl"].sum(dim=1).mean())
        kl_coef = self.kl.coef
        self.kl.update(sequence_kl, len(rollouts))
        rewards = torch.tensor([rollout.reward for rollout in rollouts])
        return {
            "reward": float(rewards.mean()),
            "kl_policy_ref": sequence_kl,
            "reward_sd": float(rewards.std()),
            "score": float(batch["scores"].mean()),
            "return": float(masked_mean(batch["returns"], batch["mask"])),
            "entropy": float(masked_mean(batch["entropy"], batch["mask"])),
            "length": float(batch["mask"].sum(dim=1).float().mean()),
            "finished": sum(rollout.finished for rollout in rollouts) / len(rollouts),
            "explained_variance": explained_variance(batch["returns"], batch["values"], batch["mask"]),
            "kl_coef": kl_coef,
            "sampler_gap": gap,
            **measured_by(self.reward),
            **learned,
        }

    def _batch(self, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
        """Rewards, values and advantages of all rollouts, (B, T), the mask True on response tokens."""
        settings = self.settings
        raw = [rollout.reward for rollout in rollouts]
        self.moments.add(raw)
        scores_B = torch.tensor(self.moments.normalise(raw, settings.reward_clip))
        cut_off_B = torch.tensor([not rollout.finished for rollout in rollouts])
        scores_B = scores_B - settings.missing_eos_penalty * cut_off_B
        scored = [rollout.scored for rollout in rollouts]
        columns = {
            "old_logprobs": [s.logprobs_T for s in scored],
            "ref_logprobs": [s.ref_logprobs_T for s in scored],
            "entropy": [s.entropy_T for s in scored],
            "kl": [s.kl_T if settings.kl == "exact" else s.logprobs_T - s.ref_logprobs_T for s in scored],
            "values": [s.values_T for s in scored],
            "mask": [torch.ones_like(s.values_T, dtype=torch.bool) for s in scored],
        }
        batch = {name: pad_sequence(rows, batch_first=True) for name, rows in columns.items()}
        rewards_BT = token_rewards(scores_B, batch["kl"], batch["mask"], kl_coef=self.kl.coef)
        found = gae(rewards_BT, batch["values"], batch["mask"], gamma=settings.gamma, lam=settings.lam)
        # Zero for k1, whose reward already depends on the token.
        advantages_BT = found.advantages_BT + kl_advantages(
            batch["old_logprobs"], batch["ref_logprobs"], batch["kl"], batch["mask"], kl_coef=self.kl.coef
        )
        if settings.whiten_advantages:
            advantages_BT = whiten(advantages_BT, batch["mask"])
        return batch | {"scores": scores_B, "advantages": advantages_BT, "returns": found.returns_BT}

    # Phase 2

    def _learn(self, rollouts: Sequence[Rollout], batch: dict[str, Tensor], step: int) -> dict[str, float]:
        settings = self.settings
        totals: dict[str, float] = {}
        updates, norms = 0, 0.0
        for epoch in range(settings.epochs):
            generator = torch.Generator().manual_seed((self.seed * 100_003 + step) * 31 + epoch)
            order = torch.randperm(len(rollouts), generator=generator).tolist()
            moved, seen = 0.0, 0
            for part in range(settings.num_minibatches):
                chosen = order[part :: settings.num_minibatches]
                if not chosen:
                    continue
                sums = self._accumulate(rollouts, batch, chosen)
                norms += self.optimiser.update()
                updates += 1
                for name, value in sums.items():
                    totals[name] = totals.get(name, 0.0) + value
                moved, seen = moved + sums["update_kl"] * sums["num_tokens"], seen + int(sums["num_tokens"])
            if settings.target_kl_update > 0 and moved / seen > settings.target_kl_update:
                break
        names = ("policy_loss", "value_loss", "clip_fraction", "update_kl")
        return {name: totals[name] / updates for name in names} | {
            "grad_norm": norms / updates,
            "epochs": float(epoch + 1),
            "learning_rate": float(self.optimiser.adamw.param_groups[0]["lr"]),
        }

    def _accumulate(self, rollouts: Sequence[Rollout], batch: dict[str, Tensor], chosen: list[int]) -> dict[str, float]:
        """Gradients of one optimiser batch, in parts that fit into memory and add up to it exactly."""
        settings, model = self.settings, self.model
        num_tokens = int(batch["mask"][chosen].sum())
        sums = {"policy_loss": 0.0, "value_loss": 0.0, "clip_fraction": 0.0, "update_kl": 0.0}
        lengths = [len(rollouts[i].question.ids) + len(rollouts[i].answer.response_ids) for i in chosen]
        for part in batches_by_tokens(lengths, MICROBATCH_TOKENS):
            rows = [chosen[place] for place in part]
            padded = pad(
                [rollouts[i].question.ids for i in rows],
                [rollouts[i].answer.response_ids for i in rows],
                pad_id=model.chat.pad_id,
                device=model.device,
            )
            hidden_ND = padded.predicting(model.hidden(padded.ids_BS, padded.mask_BS, adapter=POLICY))
            fresh = token_scores(hidden_ND, model.head_VD, padded.targets_N, temperature=settings.temperature)
            mask_BT = batch["mask"][rows].to(model.device)
            place = {name: batch[name][rows].to(model.device) for name in ("old_logprobs", "advantages", "values", "returns")}
            policy = policy_loss(
                _spread(fresh.logprobs_N, mask_BT),
                place["old_logprobs"],
                place["advantages"],
                mask_BT,
                clip=settings.clip,
                num_tokens=num_tokens,
            )
            value = value_loss(
                _spread(self.value_head(hidden_ND), mask_BT),
                place["values"],
                place["returns"],
                mask_BT,
                clip=settings.value_clip,
                num_tokens=num_tokens,
            )
            entropy = entropy_bonus(_spread(fresh.entropy_N, mask_BT), mask_BT, num_tokens=num_tokens)
            loss = policy.loss + settings.value_coef * value - settings.entropy_coef * entropy
            loss.backward()  # type: ignore[no-untyped-call]
            sums["policy_loss"] += float(policy.loss.detach())
            sums["value_loss"] += float(value.detach())
            sums["clip_fraction"] += float(policy.clipped_tokens) / num_tokens
            sums["update_kl"] += float(policy.update_kl) / num_tokens
        return sums | {"num_tokens": float(num_tokens)}

    # Held-out prompts, checkpoints

    def evaluate(self, step: int) -> dict[str, float]:
        if not self.heldout:
            return {}
        answers, _ = answers_to(
            self.model, self.heldout, self.decoding, adapter=POLICY, samples_per_prompt=1, seed=HELDOUT_SEED
        )
        rewards = self.reward(answers)
        require_finite_rewards(rewards, answers)
        return {"heldout_reward": sum(rewards) / len(rewards)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": [parameter.detach().clone() for parameter in self.policy_parameters],
            "value": [parameter.detach().clone() for parameter in self.value_parameters],
            "adamw": self.optimiser.adamw.state_dict(),
            "moments": [self.moments.count, self.moments.mean, self.moments.squares],
            "kl_coef": self.kl.coef,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        copy_into(self.policy_parameters, state["policy"])
        copy_into(self.value_parameters, state["value"])
        self.optimiser.adamw.load_state_dict(state["adamw"])
        self.moments.count, self.moments.mean, self.moments.squares = state["moments"]
        self.kl.coef = state["kl_coef"]


def _spread(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """Numbers laid end to end, back in their places; 0 where the mask is False. Differentiable."""
    spread_BT = torch.zeros(mask_BT.shape, dtype=values_N.dtype, device=values_N.device)
    return spread_BT.masked_scatter(mask_BT, values_N)


def train(
    model: LanguageModel,
    reward: RewardFunction,
    train_questions: Sequence[Question],
    heldout_questions: Sequence[Question],
    folder: Path,
    *,
    settings: PPOSection,
    seed: int,
    progress: Progress = silent,
) -> tuple[PPO, int]:
    """Trains the adapter "policy" in place with checkpoints in `folder`; returns the method and the steps taken."""
    method = PPO(model, reward, train_questions, heldout_questions, settings=settings, seed=seed)
    threshold = settings.reward_threshold
    steps = run(
        method,
        folder / "checkpoint.pt",
        lambda first: Metrics(folder.parent, "ppo", first),
        max_steps=settings.max_steps,
        checkpoint_every=settings.checkpoint_every,
        eval_every=settings.eval_every,
        stop=Stop("heldout_reward", threshold) if threshold is not None else None,
        progress=progress,
    )
    return method, steps


def save(method: PPO, folder: Path, *, policy_version: str) -> None:
    """The policy in PEFT's format, the value head beside it, and which version of which base it is."""
    with new_folder(folder) as temporary:
        method.model.save_adapter(POLICY, temporary)
        head = {name: tensor.detach().cpu().contiguous() for name, tensor in method.value_head.state_dict().items()}
        save_file(head, temporary / "value_head.safetensors")
        about = {"base": method.model.source, "policy_version": policy_version, "temperature": method.settings.temperature}
        (temporary / "heedful.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
