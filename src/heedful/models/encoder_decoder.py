"""Encoder-decoder models of T5's family behind the seam of the others: states of response tokens, given a prompt.

The encoder reads the prompt, once for all its responses; the decoder reads the response behind a start token. Everything goes
through the model's own modules, a padded row a response.
"""

# B responses, P distinct prompts, S prompt tokens, T response tokens, D hidden size, N packed tokens, A rows in flight

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from heedful.errors import ModelError
from heedful.models.trunk.cache import Entry
from heedful.models.trunk.packed import Packed

if TYPE_CHECKING:
    from heedful.models.policy import LanguageModel

FAMILIES = ("t5", "mt5")
PADDED_TOKENS = 2048  # of prompts and responses, computed side by side


def require_known(causal: Any, source: str) -> None:
    """Raises ModelError for an encoder-decoder model of another family, whose head or start token may be other ones."""
    kind = causal.config.model_type
    if kind not in FAMILIES:
        raise ModelError(
            f"{source}: encoder-decoder models of type {kind!r} are not known; known are {', '.join(FAMILIES)}. Choose one of "
            "these (such as google/flan-t5-base), or a causal language model"
        )
    if start_token(causal) is None:
        raise ModelError(f"{source}: config.json names no decoder_start_token_id, with which every answer begins; add it there")


def start_token(causal: Any) -> int | None:
    """What the decoder reads first."""
    found = getattr(causal.config, "decoder_start_token_id", None)
    return found if found is not None or causal.generation_config is None else causal.generation_config.decoder_start_token_id


def layers_to_adapt(causal: Any, layers: int, source: str) -> dict[str, Any]:
    """For PEFT: the uppermost `layers` blocks of encoder and decoder; 0: all. Raises ModelError where the two differ in
    depth.
    """
    if not layers:
        return {"layers_to_transform": None}
    config = causal.config
    total = int(config.num_layers)
    if int(config.num_decoder_layers or total) != total:
        raise ModelError(
            f"{source}: encoder and decoder have {total} and {config.num_decoder_layers} blocks, so 'the uppermost {layers}' "
            "are not the same in both; set lora.layers = 0"
        )
    return {"layers_to_transform": list(range(total - min(layers, total), total)), "layers_pattern": "block"}


def encode(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The encoder's states (P, S, D), and True on real tokens. An empty prompt is an end-of-text token: it must read something.

    The adapter is the caller's choice (`LanguageModel.using`).
    """
    rows = [list(prompt) or [model.chat.end_id] for prompt in prompts]
    width = max(map(len, rows))
    ids_PS = torch.full((len(rows), width), model.chat.pad_id, dtype=torch.long)
    mask_PS = torch.zeros(len(rows), width, dtype=torch.bool)
    for place, row in enumerate(rows):
        ids_PS[place, : len(row)] = torch.tensor(row)
        mask_PS[place, : len(row)] = True
    ids_PS, mask_PS = ids_PS.to(model.device), mask_PS.to(model.device)
    encoded_PSD: Tensor = model.causal.encoder(input_ids=ids_PS, attention_mask=mask_PS.long())[0]
    return encoded_PSD, mask_PS


def decode(model: LanguageModel, ids_BT: Tensor, encoded_BSD: Tensor, mask_BS: Tensor, **cache: Any) -> Tensor:
    """The decoder's states (B, T, D) as the language-model head reads them."""
    hidden_BTD: Tensor = model.causal.decoder(
        input_ids=ids_BT, encoder_hidden_states=encoded_BSD, encoder_attention_mask=mask_BS.long(), **cache
    )[0]
    config = model.causal.config
    scaled = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
    return hidden_BTD * config.d_model**-0.5 if scaled else hidden_BTD


def read_packed(model: LanguageModel, packed: Packed, adapter: str | None) -> Tensor:
    """States (N, D) of a packed batch: at a response token the decoder's state after it, at a prompt's last token the one from
    which the response's first token is predicted. At a prompt's other tokens they are 0, for nobody reads them.
    """
    ids = packed.ids
    prompts = [tuple(ids[start : start + length]) for start, length in packed.prompts]
    responses = [ids[first : first + length] for first, length in zip(packed.first, packed.lengths, strict=True)]

    def some(rows: list[int]) -> Tensor:
        """States of the rows laid end to end: of the start token, then of each response token."""
        distinct = list(dict.fromkeys(prompts[i] for i in rows))
        place_of = {prompt: place for place, prompt in enumerate(distinct)}
        width = 1 + max(len(responses[i]) for i in rows)
        read_BT = torch.full((len(rows), width), model.chat.pad_id, dtype=torch.long)
        real_BT = torch.zeros(len(rows), width, dtype=torch.bool)
        for row, i in enumerate(rows):
            read_BT[row, : 1 + len(responses[i])] = torch.tensor([start_token(model.causal), *responses[i]])
            real_BT[row, : 1 + len(responses[i])] = True
        with model.using(adapter):
            encoded_PSD, mask_PS = encode(model, distinct)
            own_B = torch.tensor([place_of[prompts[i]] for i in rows], device=model.device)
            hidden_BTD = decode(model, read_BT.to(model.device), encoded_PSD[own_B], mask_PS[own_B])
        return hidden_BTD[real_BT.to(model.device)]

    lots = _lots([len(prompts[i]) + len(responses[i]) + 1 for i in range(len(responses))])
    again = torch.is_grad_enabled() and (len(lots) > 1 or model.recompute)
    found = [checkpoint(some, lot, use_reentrant=False, preserve_rng_state=False) if again else some(lot) for lot in lots]
    states_KD = torch.cat(found)
    # Where each packed token's state lies among those found; the last row of zeros is for tokens that have none.
    source = [len(states_KD)] * len(ids)
    first = 0
    for lot in lots:
        for i in lot:
            start, length = packed.prompts[i]
            if length:
                source[start + length - 1] = first
            source[packed.first[i] : packed.first[i] + len(responses[i])] = range(first + 1, first + 1 + len(responses[i]))
            first += 1 + len(responses[i])
    states_KD = torch.cat([states_KD, states_KD.new_zeros(1, states_KD.shape[1])])
    return states_KD.index_select(0, torch.tensor(source, device=states_KD.device))


def _lots(costs: Sequence[int]) -> list[list[int]]:
    """Rows in order, cut so that the rows of a lot, padded to its longest, stay within PADDED_TOKENS."""
    lots: list[list[int]] = []
    widest = 0
    for i, cost in enumerate(costs):
        widest = max(widest, cost)
        if not lots or (len(lots[-1]) + 1) * widest > PADDED_TOKENS:
            lots.append([])
            widest = cost
        lots[-1].append(i)
    return lots


class EncodedDecoder:
    """Decoding behind an encoder (`trunk.cache.Decoder`). Rows enter when none are in flight."""

    joins = False

    def __init__(self, model: LanguageModel, adapter: str | None) -> None:
        self.model, self.adapter = model, adapter
        self.cache: Any = None
        self.encoded_ASD, self.mask_AS = torch.zeros(0), torch.zeros(0)

    def enter(self, entries: Sequence[Entry]) -> Tensor:
        from transformers import DynamicCache, EncoderDecoderCache

        model = self.model
        with model.using(self.adapter):
            encoded_PSD, mask_PS = encode(model, [entry.prompt for entry in entries])
        rows = torch.tensor([row for row, entry in enumerate(entries) for _ in range(entry.copies)], device=model.device)
        self.encoded_ASD, self.mask_AS = encoded_PSD[rows], mask_PS[rows]
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())  # a config would name the encoder's depth
        return self.step(torch.full((len(rows),), start_token(model.causal), device=model.device))  # type: ignore[arg-type]

    def step(self, tokens_A: Tensor) -> Tensor:
        with self.model.using(self.adapter):
            cache = {"past_key_values": self.cache, "use_cache": True}
            return decode(self.model, tokens_A[:, None], self.encoded_ASD, self.mask_AS, **cache)[:, -1]

    def leave(self, places: Sequence[int]) -> list[int]:
        gone = set(places)
        order = [place for place in range(len(self.mask_AS)) if place not in gone]
        kept = torch.tensor(order, dtype=torch.long, device=self.mask_AS.device)
        self.cache.batch_select_indices(kept)
        self.encoded_ASD, self.mask_AS = self.encoded_ASD[kept], self.mask_AS[kept]
        return order
