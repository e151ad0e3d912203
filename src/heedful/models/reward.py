"""Reward models: a scalar for an answer to a prompt.

Two kinds with one face (`RewardModel`): an adapter with a head on the policy's own base, and an encoder of its own
(BERT-like) that reads the text with its own special tokens.
"""

# B batch, S prompt + response tokens, D hidden size

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.errors import ModelError, SourceError
from heedful.models.policy import REWARD, LanguageModel, load_language_model
from heedful.models.sources import loading, read_object, resolve, same_source
from heedful.records import Message

MEAN_TOKENS = 40  # the mean reads the last tokens of the response only: long answers would drown their end


@dataclass(frozen=True)
class Answer:
    """An answer to be scored: the very tokens the policy read and wrote, and the same as text."""

    messages: tuple[Message, ...]
    text: str
    prompt_ids: list[int]
    response_ids: list[int]


def answer_of(
    model: LanguageModel,
    messages: tuple[Message, ...],
    text: str,
    *,
    finished: bool = True,
    token_ids: Sequence[int] | None = None,
) -> Answer:
    """An Answer from the tokens that a model wrote; without them from its text, as when it was written by somebody else.

    finished: text without tokens gets an end-of-text token. The same text may be cut into other tokens than were written.
    """
    response = model.chat.response_ids(text, finished=finished) if token_ids is None else list(token_ids)
    return Answer(messages, text, model.chat.prompt_ids(messages), response)


class RewardModel(Protocol):
    """What training and scoring need of a reward model."""

    def num_tokens(self, answer: Answer) -> int:
        """Tokens this model reads for the answer."""

    def rewards(self, answers: Sequence[Answer]) -> Tensor:
        """Rewards (B,), float32, differentiable in `parameter_groups`."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What is trained: "body" (adapter or encoder) and "head"."""

    def save(self, folder: Path) -> None:
        """Writes the model so that `load_reward_model` finds it."""


class RewardHead(nn.Module):
    """Pools hidden states and maps them to a scalar; zero to begin with, so that training starts at log 2."""

    def __init__(self, hidden_size: int, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        self.linear = nn.Linear(hidden_size * (2 if pooling == "last+mean" else 1), 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_BSD: Tensor, read_mask_BS: Tensor) -> Tensor:
        """Rewards (B,), float32, of what `pool` makes of the arguments."""
        return self.linear(self.pool(hidden_BSD, read_mask_BS)).squeeze(-1)  # type: ignore[no-any-return]

    def pool(self, hidden_BSD: Tensor, read_mask_BS: Tensor) -> Tensor:
        """What the linear map reads, (B, D or 2 D). read_mask_BS: True on the places to pool; "last" takes the last of them."""
        if not bool(read_mask_BS.any(dim=1).all()):
            raise ModelError("a sequence without a token to read has no reward")
        parts = []
        if self.pooling != "mean":
            places_S = torch.arange(read_mask_BS.shape[1], device=read_mask_BS.device)
            last_B = torch.where(read_mask_BS, places_S, -1).max(dim=1).values
            parts.append(hidden_BSD[torch.arange(len(last_B), device=last_B.device), last_B].float())
        if self.pooling != "last":
            weights_BS = read_mask_BS.float() / read_mask_BS.sum(dim=1, keepdim=True)
            parts.append(torch.einsum("bs,bsd->bd", weights_BS, hidden_BSD.float()))
        # Hidden states of a trunk differ in scale by orders of magnitude between models; the norm takes that away.
        return torch.cat([F.layer_norm(part, part.shape[-1:]) for part in parts], dim=-1)


class AdapterReward:
    """A head on a language model's base, with an adapter of its own or none; it reads the policy's own tokens."""

    def __init__(self, model: LanguageModel, head: RewardHead, adapter: str | None = REWARD) -> None:
        self.model = model
        self.adapter = adapter
        self.head = head.to(model.device)

    def num_tokens(self, answer: Answer) -> int:
        return len(answer.prompt_ids) + len(answer.response_ids)

    def rewards(self, answers: Sequence[Answer]) -> Tensor:
        return self.head(*self._read(answers))  # type: ignore[no-any-return]

    def features(self, answers: Sequence[Answer]) -> Tensor:
        """What the head's linear map reads, (B, D or 2 D)."""
        return self.head.pool(*self._read(answers))

    def _read(self, answers: Sequence[Answer]) -> tuple[Tensor, Tensor]:
        width = max(self.num_tokens(answer) for answer in answers)
        ids_BS = torch.full((len(answers), width), self.model.chat.pad_id, dtype=torch.long)
        mask_BS = torch.zeros(len(answers), width, dtype=torch.bool)
        read_BS = torch.zeros_like(mask_BS)
        for row, answer in enumerate(answers):
            tokens = answer.prompt_ids + answer.response_ids
            ids_BS[row, : len(tokens)] = torch.tensor(tokens)
            mask_BS[row, : len(tokens)] = True
            # An empty answer is judged by the state in which nothing was said.
            first = min(len(answer.prompt_ids), len(tokens) - 1)
            read_BS[row, max(first, len(tokens) - MEAN_TOKENS) : len(tokens)] = True
        device = self.model.device
        return self.model.hidden(ids_BS.to(device), mask_BS.to(device), adapter=self.adapter), read_BS.to(device)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        body = [] if self.adapter is None else self.model.adapter_parameters(self.adapter)
        return {"body": body, "head": list(self.head.parameters())}

    def save(self, folder: Path) -> None:
        if self.adapter is not None:
            self.model.save_adapter(self.adapter, folder)
        kind = "frozen" if self.adapter is None else "adapter"
        _save_head(folder, self.head, {"kind": kind, "base": self.model.source})


class EncoderReward:
    """A BERT-like encoder with a head, all of it trained; it reads prompt and answer as a text pair."""

    def __init__(self, encoder: Any, tokenizer: Any, head: RewardHead, source: str) -> None:
        encoder.eval()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.head = head.to(encoder.device)
        self.source = source
        self.max_tokens = int(getattr(encoder.config, "max_position_embeddings", 512))

    def _tokens(self, answer: Answer) -> Any:
        prompt = "\n".join(message.content for message in answer.messages)
        # The prompt gives way first, and from its start: what was said last and the answer are what is judged.
        room = self.max_tokens - 3
        second = self.tokenizer(answer.text, add_special_tokens=False)["input_ids"][:room]
        first = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        first = first[max(0, len(first) - (room - len(second))) :]
        ids = [self.tokenizer.cls_token_id, *first, self.tokenizer.sep_token_id, *second, self.tokenizer.sep_token_id]
        types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        return ids, types

    def num_tokens(self, answer: Answer) -> int:
        return len(self._tokens(answer)[0])

    def rewards(self, answers: Sequence[Answer]) -> Tensor:
        encoded = [self._tokens(answer) for answer in answers]
        width = max(len(ids) for ids, _ in encoded)
        ids_BS = torch.full((len(answers), width), int(self.tokenizer.pad_token_id or 0), dtype=torch.long)
        types_BS = torch.zeros_like(ids_BS)
        mask_BS = torch.zeros(len(answers), width, dtype=torch.bool)
        for row, (ids, types) in enumerate(encoded):
            ids_BS[row, : len(ids)] = torch.tensor(ids)
            types_BS[row, : len(ids)] = torch.tensor(types)
            mask_BS[row, : len(ids)] = True
        device = self.encoder.device
        inputs = {"input_ids": ids_BS.to(device), "attention_mask": mask_BS.to(device).long()}
        if getattr(self.encoder.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = types_BS.to(device)
        return self.head(self.encoder(**inputs)[0], mask_BS.to(device))  # type: ignore[no-any-return]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"body": list(self.encoder.parameters()), "head": list(self.head.parameters())}

    def save(self, folder: Path) -> None:
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        _save_head(folder, self.head, {"kind": "encoder", "base": self.source})


def _save_head(folder: Path, head: RewardHead, about: dict[str, str]) -> None:
    save_file({key: value.contiguous() for key, value in head.state_dict().items()}, folder / "head.safetensors")
    (folder / "reward.json").write_text(json.dumps(about | {"pooling": head.pooling}, indent=2) + "\n")


def load_encoder_reward(source: str, pooling: str, device: torch.device) -> EncoderReward:
    """A fresh reward model on an encoder, in float32."""
    from transformers import AutoModel, AutoTokenizer

    folder = resolve(source)
    with loading(source, "an encoder"):
        encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ModelError(f"{source}: a reward encoder's tokenizer needs CLS and SEP tokens, as BERT's has")
    encoder.to(device)
    return EncoderReward(encoder, tokenizer, RewardHead(int(encoder.config.hidden_size), pooling), source)


def load_reward_model(folder: Path, base: LanguageModel | None, *, dtype: torch.dtype, device: torch.device) -> RewardModel:
    """The reward model saved in a folder.

    base: the model whose tokens are to be scored, which gets the head and the adapter; None loads the one that was saved.
    Raises ModelError when the base is another model than the saved one: its tokens would be read as other words. An encoder
    reads text and goes with any base.
    """
    if not (folder / "reward.json").is_file():
        raise SourceError(f"{folder}: holds no reward.json; name a folder that 'heedful reward train' wrote")
    with loading(folder, "a reward model"):
        about = read_object(folder / "reward.json")
        kind, source, pooling = (str(about[name]) for name in ("kind", "base", "pooling"))
        head = load_file(folder / "head.safetensors")
    if kind == "encoder":
        encoder = load_encoder_reward(str(folder), pooling, device)
        encoder.source = source
        encoder.head.load_state_dict(head)
        return encoder
    if base is not None and not same_source(base.source, source):
        raise ModelError(
            f"{folder}: this reward model was trained on {source!r} and cannot read the tokens of {base.source!r}; set "
            "model.source to the first, train a reward model on the second, or use an encoder (reward.model)"
        )
    if base is None:
        base = load_language_model(source, dtype=dtype, device=device)
    if kind == "adapter":
        with loading(folder, "a reward model"):
            base.load_adapter(REWARD, folder)
    reward = AdapterReward(base, RewardHead(base.hidden_size, pooling), REWARD if kind == "adapter" else None)
    with loading(folder, f"a reward model on {source}"):
        reward.head.load_state_dict(head)
    return reward
