"""Passes without gradient over many answers: rewards, and policy beside reference at each response token."""

# N response tokens of a batch laid end to end

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heedful.engine.batching import batches_by_tokens, packed_batches
from heedful.functional.logprobs import compare, token_scores
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.reward import AdapterReward, Answer, AnswerScorer
from heedful.models.trunk.packed import pack
from heedful.team import shared, team

MAX_TOKENS = 4096  # tokens computed side by side; beyond this, memory grows and speed does not


@torch.no_grad()
def rewards(model: AnswerScorer, answers: Sequence[Answer]) -> list[float]:
    """The reward of each answer, in order. Members of a team share the batches."""
    found = [0.0] * len(answers)
    if isinstance(model, AdapterReward):  # it computes a prompt once for all its answers
        read = [model.tokens(answer) for answer in answers]
        costs = [len(prompt) + len(response) for prompt, response in read]
        batches = packed_batches([prompt for prompt, _ in read], [response for _, response in read], batch_room(costs))
    else:
        costs = [model.num_tokens(answer) for answer in answers]
        batches = batches_by_tokens(costs, batch_room(costs))

    def some(places: list[int]) -> list[list[float]]:
        return [model.rewards([answers[i] for i in batches[place]]).tolist() for place in places]

    by_batch = shared([sum(costs[i] for i in batch) for batch in batches], some, "rewards")
    for batch, values in zip(batches, by_batch, strict=True):
        for i, reward in zip(batch, values, strict=True):
            found[i] = reward
    return found


def batch_room(costs: Sequence[int]) -> int:
    """Tokens of a batch: in a team, few enough that each member has one."""
    size = team().size
    return MAX_TOKENS if size == 1 else min(MAX_TOKENS, max(1, -(-sum(costs) // size)))


@dataclass(frozen=True)
class ScoredResponse:
    """One number a response token, float32, on the processor; values are 0 without a value head."""

    logprobs_T: Tensor
    ref_logprobs_T: Tensor
    entropy_T: Tensor
    kl_T: Tensor
    values_T: Tensor


@torch.no_grad()
def score_responses(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    temperature: float,
    value_head: Callable[[Tensor], Tensor] | None = None,
    hidden: Sequence[Tensor | None] | None = None,
    members: int | None = None,
) -> list[ScoredResponse]:
    """Policy and reference on the same tokens, in order. Log-probs in nats at the temperature; KL(policy || reference).

    Members of a team share the batches. hidden: the policy's states (T, D) before each response token, as the sampler kept
    them; where all are there, the policy reads nothing again. members: as of `shared`.
    """
    kept = [] if hidden is None else [row for row in hidden if row is not None]
    found: list[ScoredResponse | None] = [None] * len(prompts)
    adapter = POLICY if POLICY in model.adapters else None

    def score(batch: list[int]) -> list[ScoredResponse]:
        rows = [responses[i] for i in batch]
        packed = pack([prompts[i] for i in batch], rows, device=model.device)
        if len(kept) == len(prompts):
            hidden_ND, ref_hidden_ND = torch.cat([kept[i] for i in batch]), packed.predicting(model.read(packed, adapter=None))
        else:
            sides = model.read_beside_reference(packed, adapter=adapter)
            hidden_ND, ref_hidden_ND = (packed.predicting(side) for side in sides)
        both = compare(hidden_ND, ref_hidden_ND, model.head_VD, packed.targets_M, temperature=temperature)
        values_N = value_head(hidden_ND) if value_head is not None else torch.zeros_like(both.logprobs_N)
        columns = [both.logprobs_N, both.ref_logprobs_N, both.entropy_N, both.kl_policy_ref_N, values_N]
        parts = [torch.split(column.cpu(), [len(row) for row in rows]) for column in columns]
        # Tensors of their own: a view takes its whole batch along to another worker.
        return [ScoredResponse(*(part[place].clone() for part in parts)) for place in range(len(batch))]

    costs = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    batches = packed_batches(prompts, responses, batch_room(costs))
    by_batch = shared(
        [sum(costs[i] for i in batch) for batch in batches],
        lambda places: [score(batches[place]) for place in places],
        "scores",
        members=members,
    )
    for batch, scores in zip(batches, by_batch, strict=True):
        for i, one in zip(batch, scores, strict=True):
            found[i] = one
    return [response for response in found if response is not None]


@torch.no_grad()
def response_logprobs(
    model: LanguageModel, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], *, adapter: str | None = None
) -> list[Tensor]:
    """Natural-log probability of each response token at temperature 1, in order; each (T,), float32, on the processor.

    One pass, with the adapter or without any: half the work of `score_responses`, which reads the reference as well.
    """
    found: list[Tensor | None] = [None] * len(prompts)
    for batch in packed_batches(prompts, responses, MAX_TOKENS):
        rows = [responses[i] for i in batch]
        packed = pack([prompts[i] for i in batch], rows, device=model.device)
        hidden_ND = packed.predicting(model.read(packed, adapter=adapter))
        logprobs_N = token_scores(hidden_ND, model.head_VD, packed.targets_M).logprobs_N.cpu()
        for i, part in zip(batch, torch.split(logprobs_N, [len(row) for row in rows]), strict=True):
            found[i] = part
    return [row for row in found if row is not None]
