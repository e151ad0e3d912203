"""Phase 1 of PPO and its kin: complete prompts, and measure each under policy, reference, value head and reward model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from heedful.engine.episodes import World, play, tasks_of
from heedful.engine.generation import Decoding, Response, decoding_costs, sample
from heedful.engine.scoring import ScoredResponse, score_responses
from heedful.errors import TrainingError
from heedful.models.policy import POLICY, LanguageModel, ValueHead
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.team import shared, team, together

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
    keep_hidden: bool = False,
    only: Sequence[int] | None = None,
) -> tuple[list[Answer], list[Response]]:
    """Sampled answers, those to one question side by side, and what the sampler gave for each. only: as of `sample`."""
    sampled = sample(
        model,
        [question.ids for question in questions],
        decoding,
        adapter=adapter,
        samples_per_prompt=samples_per_prompt,
        generator=torch.Generator().manual_seed(seed),
        keep_hidden=keep_hidden,
        only=only,
    )
    answers, drawn = [], []
    asked = questions if only is None else [questions[i] for i in only]
    for question, responses in zip(asked, sampled, strict=True):
        for response in responses:
            text = model.chat.text(response.ids)
            finished = model.chat.finished(response.ids)
            answers.append(Answer(question.messages, text, question.ids, response.ids, finished))
            drawn.append(response)
    return answers, drawn


def episodes_of(
    model: LanguageModel,
    world: World,
    questions: Sequence[Question],
    decoding: Decoding,
    *,
    adapter: str | None,
    samples_per_prompt: int,
    seed: int,
) -> list[Answer]:
    """As the answers of `answers_to`, of a policy that acts in an environment. Members of a team share the questions."""
    asked = [question.prompt_id for question in questions]

    def some(places: Sequence[int]) -> list[list[Answer]]:
        tasks = tasks_of(asked, samples_per_prompt=samples_per_prompt, seed=seed, only=places)
        found = [episode.answer for episode in play(model, world, tasks, decoding, adapter=adapter)]
        return [found[start : start + samples_per_prompt] for start in range(0, len(found), samples_per_prompt)]

    costs = decoding_costs([question.ids for question in questions], decoding, samples_per_prompt)
    return [answer for one in shared(costs, some, "episodes") for answer in one]


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
    rescore: bool = False,
    world: World | None = None,
) -> list[Rollout]:
    """Rollouts under the current policy. Log-probs, entropy, KL and values come of the states from which the tokens were drawn.

    rescore: of a second pass with the trainer's arithmetic instead, as always where a world answers the policy. Members of a
    team share the questions. Raises TrainingError when a reward is not finite, and when a member of the team holds other
    weights than the first.
    """
    require_one_policy(model, policy_version)
    answered = shared(
        decoding_costs([question.ids for question in questions], decoding, samples_per_prompt),
        lambda places: _answered(
            model,
            value_head,
            questions,
            decoding,
            places,
            samples_per_prompt=samples_per_prompt,
            seed=seed,
            policy_version=policy_version,
            rescore=rescore,
            world=world,
        ),
        "rollouts",
    )
    answers = [answer for one in answered for answer in one.answers]
    scored = [score for one in answered for score in one.scored]
    drawn = [logprobs for one in answered for logprobs in one.sampler_logprobs]
    rewards = reward(answers)
    require_finite_rewards(rewards, answers)
    owners = [question for question in questions for _ in range(samples_per_prompt)]
    rollouts = [
        Rollout(question, answer, score, value, answer.finished, policy_version, logprobs)
        for question, answer, score, value, logprobs in zip(owners, answers, scored, rewards, drawn, strict=True)
    ]
    return rollouts


class _Answered(NamedTuple):
    """Answers to one question, and what phase 2 needs of them."""

    answers: list[Answer]
    scored: list[ScoredResponse]
    sampler_logprobs: list[list[float]]


def _answered(
    model: LanguageModel,
    value_head: ValueHead | None,
    questions: Sequence[Question],
    decoding: Decoding,
    places: Sequence[int],
    *,
    samples_per_prompt: int,
    seed: int,
    policy_version: int,
    rescore: bool,
    world: World | None,
) -> list[_Answered]:
    """Of the questions with these numbers, by this process."""
    hidden: list[torch.Tensor | None] | None = None
    if world is not None:
        asked = [question.prompt_id for question in questions]
        tasks = tasks_of(asked, samples_per_prompt=samples_per_prompt, seed=seed, only=places)
        episodes = play(model, world, tasks, decoding, adapter=POLICY)
        answers, logprobs = [episode.answer for episode in episodes], [episode.logprobs for episode in episodes]
    else:
        answers, drawn = answers_to(
            model,
            questions,
            decoding,
            adapter=POLICY,
            samples_per_prompt=samples_per_prompt,
            seed=seed,
            keep_hidden=not rescore,
            only=places,
        )
        logprobs, hidden = [response.logprobs for response in drawn], [response.hidden_TD for response in drawn]
    scored = score_responses(
        model,
        [answer.prompt_ids for answer in answers],
        [answer.response_ids for answer in answers],
        temperature=decoding.temperature,
        value_head=value_head,
        hidden=hidden,
    )
    starts = range(0, len(answers), samples_per_prompt)
    ends = [start + samples_per_prompt for start in starts]
    return [
        _Answered(answers[start:end], scored[start:end], logprobs[start:end]) for start, end in zip(starts, ends, strict=True)
    ]


def require_one_policy(model: LanguageModel, policy_version: int) -> None:
    """The handshake of a team before its rollouts: each member says which step's weights it holds, and a digest of them.

    Raises TrainingError naming the members that hold others than member 0: what they sample would come of another policy.
    """
    if team().size == 1:
        return
    held = together(lambda: (policy_version, weights_digest(model)), "policy version")
    stale = [rank for rank, one in enumerate(held) if one != held[0]]
    if stale:
        version, digest = held[stale[0]]
        raise TrainingError(
            f"policy version {policy_version}: worker {', '.join(map(str, stale))} holds weights {digest[:12]} of version "
            f"{version}, worker 0 holds {held[0][1][:12]} of version {held[0][0]}; nothing was sampled with them. Run the same "
            "command again: all workers then begin with the weights of the last checkpoint"
        )


def weights_digest(model: LanguageModel) -> str:
    """Hash of the policy's adapter, the only weights of it that change."""
    return tensors_digest(model.adapter_parameters(POLICY).values())


def tensors_digest(tensors: Iterable[torch.Tensor]) -> str:
    """Hash of what tensors hold, in their order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_same_weights(gap: float, dtype: torch.dtype, policy_version: int) -> None:
    """Raises TrainingError when log-probs of sampler and trainer are further apart than rounding takes them.

    gap: mean absolute difference a token, nats, before the first update on the rollouts.
    """
    if gap > MAX_SAMPLER_GAP.get(dtype, 0.25):
        raise TrainingError(
            f"policy version {policy_version}: the sampler's log-probs differ from the trainer's by {gap:.3f} nats a token on "
            "average, so the rollouts come from other weights (stale adapter, other temperature or other number type). Run "
            "the same command again; if it says so again, use model.dtype = 'float32'"
        )


def require_finite_rewards(rewards: Sequence[float], answers: Sequence[Answer]) -> None:
    """Raises TrainingError naming the first answer whose reward is NaN or infinite."""
    for value, answer in zip(rewards, answers, strict=True):
        if not torch.isfinite(torch.tensor(value)):
            raise TrainingError(
                f"the reward model gave {value} for {answer.shown()}; "
                "nothing was learned from this batch. Retrain the reward model, or use model.dtype = 'float32'"
            )
