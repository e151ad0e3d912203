"""Rollouts that were drawn with weights of some steps ago, so that they can be drawn while gradients are computed.

With max_staleness = s the answers of step k come of the weights that step max(0, k - s) began with, whoever draws them and
when: a run is as reproducible as one without. Rollout workers draw ahead, beside their part in the sums of gradients; where
there are none, answers are drawn when their step begins, and nothing is gained.
"""

# T response tokens, N response tokens laid end to end

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from heedful.config import LoraSection
from heedful.engine.generation import Decoding, decoding_costs
from heedful.engine.scoring import score_responses
from heedful.errors import TrainingError
from heedful.functional.logprobs import token_scores
from heedful.models.policy import POLICY, LanguageModel, ValueHead
from heedful.models.reward import Answer
from heedful.models.trunk.packed import pack
from heedful.team import shared, spread, team, together
from heedful.training.optimiser import copy_into
from heedful.training.rollout import (
    Question,
    RewardFunction,
    Rollout,
    answers_to,
    require_finite_rewards,
    require_one_policy,
    require_same_weights,
    tensors_digest,
)
from heedful.training.vllm import VllmServer

SAMPLER = "sampler"  # the adapter that draws: a copy of the policy as it was
CHECKED = 4  # answers of a step whose log-probs are computed again with the weights that they are said to come of


class Drawn(NamedTuple):
    """Answers to one question, their tokens' log-probs, and the weights that drew them: a step's number and a digest."""

    answers: list[Answer]
    logprobs: list[list[float]]
    version: int
    digest: str


@dataclass
class StaleSampler:
    """Draws the answers of each step. questions, seed: of a step. max_steps: nothing is drawn beyond.

    held: the policy's tensors as steps began with them, the last max_staleness + 1. A method keeps them in its checkpoint, so
    that an interrupted run draws the very answers again.
    """

    model: LanguageModel
    decoding: Decoding
    questions: Callable[[int], list[Question]]
    samples_per_prompt: int
    seed: Callable[[int], int]
    max_staleness: int
    max_steps: int
    server: VllmServer | None = None
    held: dict[int, list[Tensor]] = field(default_factory=dict)
    waiting: dict[int, Future[list[Drawn]]] = field(default_factory=dict)
    pool: ThreadPoolExecutor | None = None
    written: dict[int, Path] = field(default_factory=dict)  # adapters, for the server

    def add_adapter(self, lora: LoraSection) -> None:
        """Gives the model a second adapter of the policy's form."""
        if SAMPLER not in self.model.adapters:
            self.model.add_adapter(SAMPLER, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=0)

    @property
    def ahead(self) -> bool:
        """Whether this process draws beside its other work: a rollout worker, where two can read the model at once, or with a
        server the first worker.

        What it does meanwhile, an evaluation above all, cannot change what is drawn. The packed trunk is told which adapter to
        read and switches none; where a reward is read by the model's own modules (LanguageModel.using), those switch theirs,
        which the trunk does not look at. Only `take` writes the adapter that draws, on the thread that draws. What is
        remembered of a step's tokens (LanguageModel.remembering) decoding does not ask for, each draw has a generator and a
        cache of its own, and no adapter is added once training has begun. Where the trunk does not know the model, this is
        False, and answers are drawn in turn.
        """
        if self.server:
            return team().rank == 0
        return team().rank >= team().num_trainers and self.model.trunk(SAMPLER) is not None

    def begins(self, step: int) -> None:
        """The policy is now as the step begins with it; what may be drawn with it is begun."""
        tensors = [tensor.detach().clone() for tensor in self.model.adapter_parameters(POLICY).values()]
        kept_on = {version: kept for version, kept in self.held.items() if step - self.max_staleness <= version < step}
        self.held = kept_on | {step: tensors}  # whole before it can be seen: an answer to a later step may be begun just now
        if self.server and team().rank == 0:
            for version, kept in self.held.items():  # more than the newest where a run was resumed
                if version not in self.written:
                    self.take(version)
                    self.written[version] = self.server.write(self.model, SAMPLER, version, tensors_digest(kept))
        if not self.ahead:
            return
        self.pool = self.pool or ThreadPoolExecutor(1, "sampler")
        for later in range(step, min(self.max_steps, step + self.max_staleness + 1)):
            if later not in self.waiting and self.version(later) is not None:
                places = self.mine(later)
                self.waiting[later] = self.pool.submit(self.draw, later, places)

    def version(self, step: int) -> int | None:
        """Whose weights draw the answers of a step: the oldest allowed; None where they do not exist yet."""
        oldest = max(0, step - self.max_staleness)
        return min((version for version in self.held if oldest <= version <= step), default=None)

    def mine(self, step: int) -> list[int]:
        """Numbers of the questions that this process draws ahead, as `shared` will deal them."""
        ours = team()
        if self.server:
            return list(range(len(self.questions(step))))
        prompts = [question.ids for question in self.questions(step)]
        costs = decoding_costs(prompts, self.decoding, self.samples_per_prompt)
        return spread(costs, ours.size - ours.num_trainers)[ours.rank - ours.num_trainers]

    def draw(self, step: int, places: Sequence[int]) -> list[Drawn]:
        """The answers to some of a step's questions, by this process."""
        version = self.version(step)
        assert version is not None, f"step {step} is drawn before there are weights for it"
        if self.server:
            return self.drawn_by(self.server, step, version)
        self.take(version)
        answers, drawn = answers_to(
            self.model,
            self.questions(step),
            self.decoding,
            adapter=SAMPLER,
            samples_per_prompt=self.samples_per_prompt,
            seed=self.seed(step),
            only=places,
        )
        # Of the weights that were really used: what is sent along is no promise.
        digest = tensors_digest(self.model.adapter_parameters(SAMPLER).values())
        each = self.samples_per_prompt
        found = []
        for start in range(0, len(answers), each):
            logprobs = [response.logprobs for response in drawn[start : start + each]]
            found.append(Drawn(answers[start : start + each], logprobs, version, digest))
        return found

    def drawn_by(self, server: VllmServer, step: int, version: int) -> list[Drawn]:
        """All answers of a step, by the server."""
        questions, chat = self.questions(step), self.model.chat
        sampled = server.sample(
            self.written[version],
            [question.ids for question in questions],
            self.decoding,
            samples_per_prompt=self.samples_per_prompt,
            seed=self.seed(step),
            stop_ids=chat.eos_ids,
        )
        digest, found = tensors_digest(self.held[version]), []
        for question, responses in zip(questions, sampled, strict=True):
            said = [
                Answer(question.messages, chat.text(one.ids), question.ids, one.ids, chat.finished(one.ids))
                for one in responses
            ]
            found.append(Drawn(said, [one.logprobs for one in responses], version, digest))
        return found

    def take(self, version: int) -> None:
        """The adapter that draws becomes the policy of that version."""
        copy_into(list(self.model.adapter_parameters(SAMPLER).values()), self.held[version])

    def finished(self, step: int, places: Sequence[int]) -> list[Drawn]:
        """What was drawn ahead, or is drawn now."""
        future = self.waiting.pop(step, None)
        return self.draw(step, places) if future is None else future.result()

    def forget(self) -> None:
        """Drops what is being drawn: the run goes on from somewhere else."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
        self.pool, self.waiting = None, {}

    def close(self) -> None:
        """Drops it because the run is over; a server that is asked, perhaps in vain, is not waited for."""
        if self.server:
            self.server.give_up()
        self.forget()

    def state_dict(self) -> dict[str, Any]:
        return {"versions": list(self.held), "tensors": list(self.held.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.forget()
        self.held = dict(zip(state["versions"], state["tensors"], strict=True))


def collect_stale(
    sampler: StaleSampler, value_head: ValueHead | None, reward: RewardFunction, step: int
) -> tuple[list[Rollout], int]:
    """Rollouts of a step, measured under the policy as it is now, and how many steps ago the weights began that drew them.

    sampler_logprobs of the rollouts are those of the weights that drew. Raises TrainingError when a member holds another
    policy, when answers come of weights that are older than max_staleness steps or not those that they are said to be.
    """
    model, ours = sampler.model, team()
    require_one_policy(model, step)
    questions = sampler.questions(step)
    costs = decoding_costs([question.ids for question in questions], sampler.decoding, sampler.samples_per_prompt)
    among: dict[str, int] = {"skip": ours.num_trainers} if ours.size > ours.num_trainers else {}
    if sampler.server:
        among = {"members": 1}  # who asks the server
    drawn = shared(costs, lambda places: sampler.finished(step, places), "rollouts", **among)
    version = require_known_weights(sampler, drawn, step)
    answers = [answer for one in drawn for answer in one.answers]
    logprobs = [row for one in drawn for row in one.logprobs]
    gap = together(lambda: sampler_gap(sampler, answers, logprobs, version) if ours.rank == 0 else 0.0, "sampler's weights")[0]
    # A server rounds as it likes.
    require_same_weights(gap, torch.bfloat16 if sampler.server else model.dtype, version)
    scored = score_responses(
        model,
        [answer.prompt_ids for answer in answers],
        [answer.response_ids for answer in answers],
        temperature=sampler.decoding.temperature,
        value_head=value_head,
        members=ours.num_trainers,  # the others' processors are drawing
    )
    rewards = reward(answers)
    require_finite_rewards(rewards, answers)
    owners = [question for question in questions for _ in range(sampler.samples_per_prompt)]
    rollouts = [
        Rollout(question, answer, score, value, model.chat.finished(answer.response_ids), version, row)
        for question, answer, score, value, row in zip(owners, answers, scored, rewards, logprobs, strict=True)
    ]
    return rollouts, step - version


def require_known_weights(sampler: StaleSampler, drawn: Sequence[Drawn], step: int) -> int:
    """The version that all answers come of. Raises TrainingError for one that is too old, or has other weights."""
    wanted = sampler.version(step)
    for one in drawn:
        if step - one.version > sampler.max_staleness:
            raise TrainingError(
                f"answers were drawn with the weights of step {one.version}, {step - one.version} steps ago, and "
                f"scale.max_staleness allows {sampler.max_staleness}; nothing was learned from them. Run the same command again"
            )
        if one.version != wanted or one.digest != tensors_digest(sampler.held[one.version]):
            raise TrainingError(
                f"answers are said to come of the weights of step {one.version}, and others drew them ({one.digest[:12]}; "
                f"step {wanted} began with {tensors_digest(sampler.held[wanted or 0])[:12]}). Run the same command again"
            )
    assert wanted is not None
    return wanted


@torch.no_grad()
def sampler_gap(sampler: StaleSampler, answers: Sequence[Answer], logprobs: Sequence[Sequence[float]], version: int) -> float:
    """Mean |log p(drawn) - log p(read again)| a token, nats, of a few answers of the batch, at the version's weights."""
    every = max(1, len(answers) // CHECKED)
    chosen = [i for i in range(0, len(answers), every) if answers[i].response_ids][:CHECKED]
    if not chosen:
        return 0.0
    model = sampler.model
    sampler.take(version)
    packed = pack([answers[i].prompt_ids for i in chosen], [answers[i].response_ids for i in chosen], device=model.device)
    hidden_ND = packed.predicting(model.read(packed, adapter=SAMPLER))
    found_N = token_scores(hidden_ND, model.head_VD, packed.targets_M, temperature=sampler.decoding.temperature).logprobs_N
    said_N = torch.tensor([value for i in chosen for value in logprobs[i]], device=found_N.device)
    return float((found_N - said_N).abs().mean())
