"""Phase 1 of PPO and its kin: complete prompts, and measure each under policy, reference, value head and reward model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from heedful.engine.generation import Decoding, sample
from heedful.engine.scoring import ScoredResponse, score_responses
from heedful.errors import TrainingError
from heedful.models.policy import POLICY, LanguageModel, ValueHead
from heedful.models.reward import Answer
from heedful.records import Message

# Mean |log p(sampler) - log p(trainer)| a token. The two differ in how they pad and batch, which in bfloat16 is worth
# about 0.05; weights that are one PPO step apart, several times that; a wrong adapter, more than 1.
MAX_SAMPLER_GAP = {torch.bfloat16: 0.25, torch.float32: 0.01}

# The one seam between a policy's training and whatever judges its answers. A function may have an attribute `measured`.
RewardFunction = Callable[[Sequence[Answer]], list[float]]


def measured_by(reward: RewardFunction) -> dict[str, float]:
    """What a reward function measured on its last answers besides the rewards: shares of terms, disagreement of members."""
    return dict(getattr(reward, "measured", {}))


HELDOUT_SEED = 7_919  # held-out prompts are always sampled with the same random numbers


@dataclass(frozen=True)
class Question:
    """A prompt ready for the policy."""

    prompt_id: str
    messages: tuple[Message, ...]
    ids: list[int]


@dataclass(frozen=True)
class Rollout:
    """One completion with what phase 2 needs. reward: of the reward model, raw. finished: ended by itself."""

    question: Question
    answer: Answer
    scored: ScoredResponse
    reward: float
    finished: bool
    policy_version: int
    sampler_logprobs: Sequence[float]  # of the tokens, as they were drawn


def answers_to(
    model: LanguageModel,
    questions: Sequence[Question],
    decoding: Decoding,
    *,
    adapter: str | None,
    samples_per_prompt: int,
    seed: int,
) -> tuple[list[Answer], list[list[float]]]:
    """Sampled answers, those to one question side by side, and the log-probs they were drawn with."""
    sampled = sample(
        model,
        [question.ids for question in questions],
        decoding,
        adapter=adapter,
        samples_per_prompt=samples_per_prompt,
        generator=torch.Generator().manual_seed(seed),
    )
    answers, logprobs = [], []
    for question, responses in zip(questions, sampled, strict=True):
        for response in responses:
            text = model.chat.text(response.ids)
            finished = model.chat.finished(response.ids)
            answers.append(Answer(question.messages, text, question.ids, response.ids, finished))
            logprobs.append(response.logprobs)
    return answers, logprobs


def collect(
    model: LanguageModel,
    value_head: ValueHead | None,
    reward: RewardFunction,
    questions: Sequence[Question],
    decoding: Decoding,
    *,
    samples_per_prompt: int,
    seed: int,
    policy_version: int,
) -> tuple[list[Rollout], float]:
    """Rollouts under the current policy, and the mean gap between the sampler's and the trainer's log-probs.

    Raises TrainingError when that gap says that the sampler used other weights, or when a reward is not finite.
    """
    answers, drawn = answers_to(model, questions, decoding, adapter=POLICY, samples_per_prompt=samples_per_prompt, seed=seed)
    prompts, responses = [a.prompt_ids for a in answers], [a.response_ids for a in answers]
    scored = score_responses(model, prompts, responses, temperature=decoding.temperature, value_head=value_head)
    gap = sampler_gap([s.logprobs_T for s in scored], drawn)
    if gap > MAX_SAMPLER_GAP.get(model.dtype, 0.25):
        raise TrainingError(
            f"policy version {policy_version}: the sampler's log-probs differ from the trainer's by {gap:.3f} nats a token on "
            "average, so the rollouts come from other weights (stale adapter, other temperature or other number type). Run "
            "the same command again; if it says so again, use model.dtype = 'float32'"
        )
    rewards = reward(answers)
    require_finite_rewards(rewards, answers)
    owners = [question for question in questions for _ in range(samples_per_prompt)]
    rollouts = [
        Rollout(question, answer, score, value, model.chat.finished(answer.response_ids), policy_version, logprobs)
        for question, answer, score, value, logprobs in zip(owners, answers, scored, rewards, drawn, strict=True)
    ]
    return rollouts, gap


def sampler_gap(rescored: Sequence[torch.Tensor], drawn: Sequence[Sequence[float]]) -> float:
    """Mean absolute difference a token between two lists of log-probs; 0 when no answer has a token."""
    sampled = torch.tensor([logprob for row in drawn for logprob in row])
    return float((torch.cat(list(rescored)) - sampled).abs().sum()) / max(1, len(sampled))


def require_finite_rewards(rewards: Sequence[float], answers: Sequence[Answer]) -> None:
    """Raises TrainingError naming the first answer whose reward is NaN or infinite."""
    for value, answer in zip(rewards, answers, strict=True):
        if not torch.isfinite(torch.tensor(value)):
            raise TrainingError(
                f"the reward model gave {value} for {answer.shown()}; "
                "nothing was learned from this batch. Retrain the reward model, or use model.dtype = 'float32'"
            )
