"""Log-probabilities of given responses: with gradient for methods that learn from files, without for the reference."""

# B responses, T response tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from heedful.engine.batching import packed_batches
from heedful.engine.scoring import MAX_TOKENS, batch_room
from heedful.functional.logprobs import sequence_logprobs, token_scores
from heedful.models.policy import LanguageModel
from heedful.models.reward import Answer
from heedful.models.trunk.packed import pack
from heedful.team import shared


class ResponseLogprobs(NamedTuple):
    """logprobs_BT: nats, float32, 0 on padding. mask_BT: True on response tokens that the policy wrote, end of text
    included.
    """

    logprobs_BT: Tensor
    mask_BT: Tensor


def response_logprobs(model: LanguageModel, answers: Sequence[Answer], *, adapter: str | None) -> ResponseLogprobs:
    """log pi(y_t | x, y_<t) of each answer in one forward pass, differentiable in the adapter's weights.

    adapter: whose log-probs; None for the base. The caller keeps the answers few enough for memory.
    """
    responses = [answer.response_ids for answer in answers]
    packed = pack([answer.prompt_ids for answer in answers], responses, device=model.device)
    hidden_MD = packed.predicting(model.read(packed, adapter=adapter))
    scores = token_scores(hidden_MD, model.head_VD, packed.targets_M)
    logprobs_BT = pad_sequence(list(torch.split(scores.logprobs_N, packed.lengths)), batch_first=True)
    written = [torch.tensor(answer.written, dtype=torch.bool) for answer in answers]
    return ResponseLogprobs(logprobs_BT, pad_sequence(written, batch_first=True).to(model.device))


def num_tokens(answer: Answer) -> int:
    """Tokens of prompt and response."""
    return len(answer.prompt_ids) + len(answer.response_ids)


def answer_batches(answers: Sequence[Answer], max_tokens: int = MAX_TOKENS) -> list[list[int]]:
    """Indices of answers grouped so that a batch stays within max_tokens, each prompt of it counting once."""
    return packed_batches([answer.prompt_ids for answer in answers], [answer.response_ids for answer in answers], max_tokens)


@torch.no_grad()
def sum_logprobs(model: LanguageModel, answers: Sequence[Answer], *, adapter: str | None) -> list[float]:
    """log pi(y | x) of each answer, summed over its tokens, in order, without gradient. Members of a team share the batches."""
    sums = [0.0] * len(answers)
    costs = [num_tokens(answer) for answer in answers]
    batches = answer_batches(answers, batch_room(costs))

    def some(places: list[int]) -> list[list[float]]:
        read = [[answers[i] for i in batches[place]] for place in places]
        return [sequence_logprobs(*response_logprobs(model, batch, adapter=adapter)).tolist() for batch in read]

    found = shared([sum(costs[i] for i in batch) for batch in batches], some, "log-probabilities")
    for batch, values in zip(batches, found, strict=True):
        for i, value in zip(batch, values, strict=True):
            sums[i] = value
    return sums
