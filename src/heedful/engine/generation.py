"""Sampling completions: a prompt is computed once for its samples, finished rows leave, waiting prompts take their places."""

# A rows in flight, D hidden size, V vocabulary

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from heedful.errors import TrainingError
from heedful.models.encoder_decoder import EncodedDecoder
from heedful.models.policy import LanguageModel
from heedful.models.trunk.cache import Decoder, Entry, ModelDecoder, PackedDecoder
from heedful.team import shared

MAX_ROWS = 128  # answers in flight: beyond it a step's matrices are large enough, and the cache grows
BLOCK = 256  # entries of the vocabulary whose probabilities are summed before they are searched
ENTER_SHARE = 0.25  # prompts enter when this share of the rows is free: a few at once cost as much as many


@dataclass(frozen=True)
class Response:
    """One sampled answer: its tokens (end of text included when it ended) and their log-probs when drawn.

    hidden_TD: the states from which they were drawn, where `sample` was asked to keep them.
    """

    ids: list[int]
    logprobs: list[float]
    hidden_TD: Tensor | None = None


@dataclass(frozen=True)
class Decoding:
    """How tokens are drawn. temperature 0 takes the likeliest token."""

    temperature: float
    top_p: float
    max_new_tokens: int


@dataclass
class _Row:
    """An answer being written. number: its place among all answers."""

    number: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def sample(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    adapter: str | None,
    samples_per_prompt: int,
    generator: torch.Generator | Sequence[torch.Generator],
    on_tokens: Callable[[int], None] | None = None,
    reweight: Callable[[Tensor, Tensor], Tensor] | None = None,
    keep_hidden: bool = False,
    max_rows: int = MAX_ROWS,
    only: Sequence[int] | None = None,
    ends: Callable[[int, Sequence[int]], bool] | None = None,
) -> list[list[Response]]:
    """`samples_per_prompt` answers to each prompt, in the prompts' order, at most max_rows decoded side by side.

    Log-probs are those of the distribution at this temperature before top-p cuts it. Each token of each answer has its random
    number from the start: the draw depends on the generator, the number of answers and max_new_tokens, and not on which are in
    flight together (beyond the last bits, which the shape of a matrix product decides). So members of a team share the prompts.
    Of several generators, one a prompt, each draws for its prompt alone: then an answer does not depend on the others either.
    on_tokens hears how many tokens each step drew. reweight: from the hidden states (A, D) and the logits (A, V) of the next
    token, the logits to draw it from. keep_hidden: those states are kept in the answers. only: the prompts with these numbers
    are answered, by this process alone; the others merely have their random numbers. ends: from a prompt's number and the
    tokens of one of its answers so far, whether the answer ends here although no end-of-text token was drawn.
    """
    each = samples_per_prompt
    if not prompts:
        return []
    # Drawn on the processor, so that a seed means the same on every device.
    uniform = _uniform(generator, len(prompts), each, decoding.max_new_tokens)

    def some(places: Sequence[int]) -> list[list[Response]]:
        rows = [i * each + k for i in places for k in range(each)]
        return _decode(
            model,
            [prompts[i] for i in places],
            decoding,
            uniform[rows],
            adapter=adapter,
            samples_per_prompt=each,
            on_tokens=on_tokens,
            reweight=reweight,
            keep_hidden=keep_hidden,
            max_rows=max_rows,
            ends=None if ends is None else lambda place, ids: ends(places[place], ids),
        )

    return some(only) if only is not None else shared(decoding_costs(prompts, decoding, each), some, "sampling")


def decoding_costs(prompts: Sequence[Sequence[int]], decoding: Decoding, samples_per_prompt: int) -> list[int]:
    """Tokens that answering each prompt takes at most."""
    return [len(prompt) + samples_per_prompt * decoding.max_new_tokens for prompt in prompts]


def _decode(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    uniform: Tensor,
    *,
    adapter: str | None,
    samples_per_prompt: int,
    on_tokens: Callable[[int], None] | None,
    reweight: Callable[[Tensor, Tensor], Tensor] | None,
    keep_hidden: bool,
    max_rows: int,
    ends: Callable[[int, Sequence[int]], bool] | None,
) -> list[list[Response]]:
    """As `sample`. uniform: the random numbers of each answer, (answers, max_new_tokens)."""
    count = len(prompts) * samples_per_prompt
    if not count:
        return [[] for _ in prompts]
    max_rows = min(max_rows, count)
    decoder = _decoder(model, adapter, max_rows, max(map(len, prompts)) + decoding.max_new_tokens)
    # The longest enter first: prompts of like length are computed side by side.
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    waiting = deque(Entry(prompts[i], samples_per_prompt) for i in order)
    numbers = iter([i * samples_per_prompt + k for i in order for k in range(samples_per_prompt)])
    answers: list[Response | None] = [None] * count
    rows: list[_Row] = []
    hidden_AD = torch.empty(0, model.hidden_size)
    while waiting or rows:
        free = max_rows - len(rows)
        if waiting and (not rows or (decoder.joins and free >= ENTER_SHARE * max_rows)):
            entries = _next(waiting, free)
            hidden_AD = torch.cat([hidden_AD.to(model.device, model.dtype), decoder.enter(entries)])
            rows += [_Row(next(numbers)) for entry in entries for _ in range(entry.copies)]
        logits_AV = torch.nn.functional.linear(hidden_AD, model.head_VD).float()
        if reweight is not None:
            logits_AV = reweight(hidden_AD, logits_AV)
        uniform_A = torch.stack([uniform[row.number, len(row.ids)] for row in rows])
        token_A, logprob_A = draw(logits_AV, decoding, uniform_A)
        done = []
        for place, (row, token, logprob) in enumerate(zip(rows, token_A.tolist(), logprob_A.tolist(), strict=True)):
            row.ids.append(token)
            row.logprobs.append(logprob)
            if keep_hidden:
                row.hidden.append(hidden_AD[place])
            ended = token in model.chat.eos_ids or len(row.ids) == decoding.max_new_tokens
            if ended or (ends is not None and ends(row.number // samples_per_prompt, row.ids)):
                done.append(place)
                answers[row.number] = Response(row.ids, row.logprobs, torch.stack(row.hidden) if keep_hidden else None)
        if on_tokens is not None:
            on_tokens(len(rows))
        if done:
            order = decoder.leave(done)
            rows = [rows[place] for place in order]
            token_A = token_A[torch.tensor(order, dtype=torch.long, device=token_A.device)]
        hidden_AD = decoder.step(token_A) if rows else hidden_AD[:0]
    whole = [answer for answer in answers if answer is not None]
    return [whole[start : start + samples_per_prompt] for start in range(0, count, samples_per_prompt)]


def _uniform(generator: torch.Generator | Sequence[torch.Generator], prompts: int, each: int, tokens: int) -> Tensor:
    """One number in [0, 1) for each token of each answer."""
    if isinstance(generator, torch.Generator):
        return torch.rand(prompts * each, tokens, generator=generator, dtype=torch.float64)
    assert len(generator) == prompts
    return torch.cat([torch.rand(each, tokens, generator=one, dtype=torch.float64) for one in generator])


def _decoder(model: LanguageModel, adapter: str | None, max_rows: int, max_length: int) -> Decoder:
    if model.encodes:
        return EncodedDecoder(model, adapter)
    trunk = model.trunk(adapter)
    if trunk is None:
        return ModelDecoder(model, adapter)
    return PackedDecoder(trunk, adapter, max_rows=max_rows, max_length=max_length)


def _next(waiting: deque[Entry], free: int) -> list[Entry]:
    """The prompts that fit into the free rows; one at least, whose samples may enter in parts."""
    entries: list[Entry] = []
    while waiting and free > 0:
        entry = waiting.popleft()
        taken = min(entry.copies, free)
        if taken < entry.copies:
            waiting.appendleft(Entry(entry.prompt, entry.copies - taken))
        entries.append(Entry(entry.prompt, taken))
        free -= taken
    return entries


def draw(logits_AV: Tensor, decoding: Decoding, uniform_A: Tensor) -> tuple[Tensor, Tensor]:
    """A token (A,) a row and its natural-log probability at the temperature (at 0: at 1), by inverting the cumulative sum.

    uniform_A: one random number in [0, 1) a row, of which float64 has enough to point at each token of a large vocabulary;
    torch.multinomial would draw one for each entry. Raises TrainingError for logits that are NaN or infinite.
    """
    if decoding.temperature not in (0, 1):
        logits_AV = logits_AV / decoding.temperature
    top_A1 = logits_AV.amax(-1, keepdim=True)
    weights_AV = (logits_AV - top_A1).exp_()
    total_A = weights_AV.sum(-1)
    _require_finite(total_A)
    uniform_A1 = uniform_A.to(logits_AV.device, torch.float64)[:, None]
    if decoding.temperature == 0:
        token_A = logits_AV.argmax(-1)
    elif decoding.top_p < 1:
        sorted_AV, order_AV = (weights_AV / total_A[:, None]).sort(dim=-1, descending=True)
        # A token stays while the mass before it is below top_p, so the likeliest always stays.
        before_AV = sorted_AV.cumsum(-1) - sorted_AV
        place_A1 = _invert(torch.where(before_AV < decoding.top_p, sorted_AV, 0.0), uniform_A1)
        token_A = order_AV.gather(-1, place_A1)[:, 0]
    else:
        token_A = _invert_in_blocks(weights_AV, uniform_A1)[:, 0]
    logprob_A = (logits_AV.gather(-1, token_A[:, None]) - top_A1)[:, 0] - total_A.log()
    return token_A, logprob_A


def _require_finite(total_A: Tensor) -> None:
    # One NaN makes its row's sum NaN; minus infinity is a token that cannot be drawn, and adds nothing.
    if not bool(total_A.isfinite().all()):
        raise TrainingError(
            "the logits of the next token are not finite: the weights have overflowed, or were not finite in the file. Use "
            "model.dtype = 'float32', and lower the learning rate if the model was trained here"
        )


def _invert_in_blocks(weights_AV: Tensor, uniform_A1: Tensor) -> Tensor:
    """As `_invert`, but cumulative sums are taken over blocks and then within one of them, not over the vocabulary."""
    rows, vocabulary = weights_AV.shape
    if vocabulary % BLOCK:
        return _invert(weights_AV, uniform_A1)
    blocks_ANK = weights_AV.view(rows, -1, BLOCK)
    sums_AN = blocks_ANK.sum(-1).double()
    block_A1 = _invert(sums_AN, uniform_A1)
    picked_AK = blocks_ANK[torch.arange(rows, device=block_A1.device), block_A1[:, 0]]
    # What is left of the uniform number within the block is uniform again.
    before_A1 = (sums_AN.cumsum(-1) - sums_AN).gather(-1, block_A1)
    inside_A1 = (uniform_A1 * sums_AN.sum(-1, keepdim=True) - before_A1) / sums_AN.gather(-1, block_A1)
    return block_A1 * BLOCK + _invert(picked_AK, inside_A1.clamp(0, 1))


def _invert(weights_AV: Tensor, uniform_A1: Tensor) -> Tensor:
    cumulative_AV = weights_AV.double().cumsum(-1)
    total_A1 = cumulative_AV[:, -1:]
    # Below the total even when the product rounds up to it, so that the entry found always has weight.
    threshold_A1 = torch.minimum(uniform_A1 * total_A1, torch.nextafter(total_A1, torch.zeros_like(total_A1)))
    return torch.searchsorted(cumulative_AV, threshold_A1, right=True)
