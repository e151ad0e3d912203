"""Sampling completions: the prompt is computed once for its samples, finished rows leave the batch."""

# B rows in flight, P prompt tokens, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heedful.errors import TrainingError
from heedful.models.policy import LanguageModel

COMPACT_SHARE = 0.25  # rows are dropped once this share has finished: each drop copies the cache


@dataclass(frozen=True)
class Response:
    """One sampled answer: its tokens (end of text included when it ended) and their log-probs when drawn."""

    ids: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class Decoding:
    """How tokens are drawn. temperature 0 takes the likeliest token."""

    temperature: float
    top_p: float
    max_new_tokens: int


@torch.no_grad()
def sample(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    adapter: str | None,
    samples_per_prompt: int,
    generator: torch.Generator,
    on_tokens: Callable[[int], None] | None = None,
    reweight: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> list[list[Response]]:
    """`samples_per_prompt` answers to each prompt, in the prompts' order, all decoded side by side.

    Log-probs are those of the distribution at this temperature before top-p cuts it. The draw depends on the generator
    and on which prompts share the call. on_tokens hears how many tokens each decoding step drew.
    reweight: from the hidden states (B, D) and the logits (B, V) of the next token, the logits to draw it from.
    """
    from transformers import DynamicCache

    chat, device = model.chat, model.device
    width = max(len(prompt) for prompt in prompts)
    # Prompts are padded on the left so that all answers grow at the same place.
    ids_BP = torch.full((len(prompts), width), chat.pad_id, dtype=torch.long)
    mask_BP = torch.zeros(len(prompts), width, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids_BP[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask_BP[row, width - len(prompt) :] = True
    mask_BP = mask_BP.to(device)
    cache = DynamicCache(config=model.causal.config)
    positions_BP = (mask_BP.cumsum(1) - 1).clamp(min=0)
    hidden_BPD = model.hidden(
        ids_BP.to(device), mask_BP, adapter=adapter, past_key_values=cache, position_ids=positions_BP, use_cache=True
    )
    last_BD = hidden_BPD[:, -1].repeat_interleave(samples_per_prompt, dim=0)
    if samples_per_prompt > 1:
        cache.batch_repeat_interleave(samples_per_prompt)
    mask_BP = mask_BP.repeat_interleave(samples_per_prompt, dim=0)
    position_B = mask_BP.sum(1)
    rows = list(range(len(prompts) * samples_per_prompt))  # which answer each row of the batch is writing
    done = [False] * len(rows)
    ids: list[list[int]] = [[] for _ in rows]
    logprobs: list[list[float]] = [[] for _ in rows]

    for step in range(decoding.max_new_tokens):
        logits_BV = torch.nn.functional.linear(last_BD, model.head_VD).float()
        if reweight is not None:
            logits_BV = reweight(last_BD, logits_BV)
        token_B, logprob_B = draw(logits_BV, decoding, generator)
        drawn = 0
        for place, (row, token, logprob) in enumerate(zip(rows, token_B.tolist(), logprob_B.tolist(), strict=True)):
            if not done[place]:
                ids[row].append(token)
                logprobs[row].append(logprob)
                done[place] = token in chat.eos_ids
                drawn += 1
        if on_tokens is not None:
            on_tokens(drawn)
        if all(done) or step == decoding.max_new_tokens - 1:
            break
        if sum(done) >= COMPACT_SHARE * len(done):
            keep = torch.tensor([place for place, over in enumerate(done) if not over], device=device)
            cache.batch_select_indices(keep)
            token_B, mask_BP, position_B = token_B[keep], mask_BP[keep], position_B[keep]
            rows = [rows[place] for place in keep.tolist()]
            done = [False] * len(rows)
        mask_BP = torch.cat([mask_BP, mask_BP.new_ones(len(rows), 1)], dim=1)
        hidden_BPD = model.hidden(
            token_B[:, None],
            mask_BP,
            adapter=adapter,
            past_key_values=cache,
            position_ids=position_B[:, None],
            use_cache=True,
        )
        last_BD = hidden_BPD[:, -1]
        position_B = position_B + 1

    answers = [Response(tokens, chances) for tokens, chances in zip(ids, logprobs, strict=True)]
    return [answers[start : start + samples_per_prompt] for start in range(0, len(answers), samples_per_prompt)]


def draw(logits_BV: Tensor, decoding: Decoding, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A token (B,) a row and its natural-log probability at the temperature, by inverting the cumulative sum.

    torch.multinomial would draw a random number for each entry of the vocabulary; this draws one a row.
    Raises TrainingError for logits that are NaN or infinite.
    """
    if decoding.temperature == 0:
        logprobs_BV = torch.log_softmax(logits_BV, dim=-1)
        _require_finite(logprobs_BV)
        token_B = logits_BV.argmax(-1)
        return token_B, logprobs_BV.gather(-1, token_B[:, None])[:, 0]
    logprobs_BV = torch.log_softmax(logits_BV / decoding.temperature, dim=-1)
    _require_finite(logprobs_BV)
    probability_BV = logprobs_BV.exp()
    # One uniform number a row, drawn on the processor so that a seed means the same on every device.
    uniform_B = torch.rand(logits_BV.shape[0], 1, generator=generator).to(logits_BV.device)
    if decoding.top_p < 1:
        sorted_BV, order_BV = probability_BV.sort(dim=-1, descending=True)
        # A token stays while the mass before it is below top_p, so the likeliest always stays.
        before_BV = sorted_BV.cumsum(-1) - sorted_BV
        place_B = _invert(torch.where(before_BV < decoding.top_p, sorted_BV, 0.0), uniform_B)
        token_B = order_BV.gather(-1, place_B)[:, 0]
    else:
        token_B = _invert(probability_BV, uniform_B)[:, 0]
    return token_B, logprobs_BV.gather(-1, token_B[:, None])[:, 0]


def _require_finite(logprobs_BV: Tensor) -> None:
    # One NaN makes its whole row NaN, so one column tells; minus infinity is a token that cannot be drawn.
    if bool(logprobs_BV[:, 0].isnan().any()):
        raise TrainingError(
            "the logits of the next token are not finite: the weights have overflowed, or were not finite in the file. Use "
            "model.dtype = 'float32', and lower the learning rate if the model was trained here"
        )


def _invert(weights_BV: Tensor, uniform_B: Tensor) -> Tensor:
    cumulative_BV = weights_BV.cumsum(-1)
    total_B = cumulative_BV[:, -1:]
    # Below the total even when the product rounds up to it, so that the entry found always has weight.
    threshold_B = torch.minimum(uniform_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    return torch.searchsorted(cumulative_BV, threshold_B, right=True)
