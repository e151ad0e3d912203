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
from typing import Any, Literal, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from heedful.errors import ModelError, SourceError
from heedful.models.head import RewardHead
from heedful.models.policy import REWARD, LanguageModel, load_language_model
from heedful.models.sources import loading, read_object, resolve, same_source
from heedful.models.trunk.packed import pack, shared_tokens
from heedful.records import Message

SHOWN = 80  # characters of a text in an error
MEAN_TOKENS = 40  # the mean reads the last tokens of the response only: long answers would drown their end


@dataclass(frozen=True)
class Played:
    """What an environment adds to an answer. written: True on the response tokens that the policy wrote, False on those that
    the environment did. earned: the sum of the rewards of all steps. info: what the environment measured.
    """

    written: tuple[bool, ...]
    earned: float
    info: dict[str, float]


@dataclass(frozen=True)
class Answer:
    """An answer to be scored: the very tokens the policy read and wrote, and the same as text. finished: ended by itself.

    played: where an environment wrote some of the response's tokens.
    """

    messages: tuple[Message, ...]
    text: str
    prompt_ids: list[int]
    response_ids: list[int]
    finished: bool = True
    played: Played | None = None

    @property
    def written(self) -> list[bool]:
        """True on response tokens that the policy wrote: nothing is learned from the others, and no penalty taken for them."""
        return list(self.played.written) if self.played is not None else [True] * len(self.response_ids)

    def shown(self) -> str:
        """As an error names it: the beginning of the answer, and of what it answers."""
        to = f" to {self.messages[-1].content[:SHOWN]!r}" if self.messages else ""
        return f"the answer {self.text[:SHOWN]!r}{to}"


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
    return Answer(messages, text, model.chat.prompt_ids(messages), response, model.chat.finished(response))


class AnswerScorer(Protocol):
    """What scoring needs of a model."""

    def num_tokens(self, answer: Answer) -> int:
        """Tokens this model reads for the answer."""

    def rewards(self, answers: Sequence[Answer]) -> Tensor:
        """Rewards (B,), float32."""


class RewardModel(AnswerScorer, Protocol):
    """What training needs besides; the rewards are differentiable in `parameter_groups`."""

    def cost(self, answers: Sequence[Answer]) -> int:
        """Tokens that are computed when these answers are read together."""

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """What is trained, by name: "body" (adapter or encoder) and "head"."""

    def save(self, folder: Path) -> None:
        """Writes the model so that `load_reward_model` finds it."""


Reads = Literal["prompt+answer", "answer"]


class AdapterReward:
    """A head on a language model's base, with an adapter of its own or none; it reads the policy's own tokens.

    reads: the whole conversation, or the response alone.
    """

    def __init__(
        self, model: LanguageModel, head: RewardHead, adapter: str | None = REWARD, reads: Reads = "prompt+answer"
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.reads: Reads = reads
        self.head = head.to(model.device)

    def num_tokens(self, answer: Answer) -> int:
        return sum(map(len, self.tokens(answer)))

    def cost(self, answers: Sequence[Answer]) -> int:
        return shared_tokens([self.tokens(answer) for answer in answers])

    def tokens(self, answer: Answer) -> tuple[list[int], list[int]]:
        """The tokens it is fed: those before the response, and the response's."""
        if self.reads == "answer":
            return [], answer.response_ids or [self.model.chat.end_id]
        return answer.prompt_ids, answer.response_ids

    def rewards(self, answers: Sequence[Answer]) -> Tensor:
        return self.head(*self._read(answers))  # type: ignore[no-any-return]

    def logits(self, answers: Sequence[Answer]) -> Tensor:
        """Of each label, (B, L)."""
        return self.head.logits(*self._read(answers))

    def features(self, answers: Sequence[Answer]) -> Tensor:
        """What the head's linear map reads, (B, D or 2 D)."""
        return self.head.pool(*self._read(answers))

    def _read(self, answers: Sequence[Answer]) -> tuple[Tensor, Tensor]:
        """Hidden states of the last tokens of each answer (B, up to MEAN_TOKENS, D), and True on those that the head reads."""
        read = [self.tokens(answer) for answer in answers]
        packed = pack([prompt for prompt, _ in read], [response for _, response in read], device=self.model.device)
        hidden_ND = self.model.read(packed, adapter=self.adapter)
        # An empty answer is judged by the state in which nothing was said.
        last = [packed.places(i)[-max(1, min(len(response), MEAN_TOKENS)) :] for i, (_, response) in enumerate(read)]
        places_BS = pad_sequence([torch.tensor(row) for row in last], batch_first=True, padding_value=-1).to(hidden_ND.device)
        return hidden_ND[places_BS.clamp(min=0)], places_BS >= 0

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        body = {} if self.adapter is None else self.model.adapter_parameters(self.adapter)
        return {"body": body, "head": dict(self.head.named_parameters())}

    def save(self, folder: Path) -> None:
        if self.adapter is not None:
            self.model.save_adapter(self.adapter, folder)
        kind = "frozen" if self.adapter is None else "adapter"
        _save_head(folder, self.head, {"kind": kind, "base": self.model.source, "reads": self.reads})


class EncoderReward:
    """A BERT-like encoder with a head, all of it trained; it reads prompt and answer as a text pair, or the answer alone.

    frozen: the head alone is trained.
    """

    def __init__(
        self,
        encoder: Any,
        tokenizer: Any,
        head: RewardHead,
        source: str,
        reads: Reads = "prompt+answer",
        *,
        frozen: bool = False,
    ) -> None:
        encoder.eval()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.head = head.to(encoder.device)
        self.source = source
        self.reads: Reads = reads
        self.frozen = frozen
        self.max_tokens = int(getattr(encoder.config, "max_position_embeddings", 512))

    def _tokens(self, answer: Answer) -> Any:
        prompt = "\n".join(message.content for message in answer.messages)
        # The prompt gives way first, and from its start: what was said last and the answer are what is judged.
        room = self.max_tokens - 3
        if self.reads == "answer":
            text = self.tokenizer(answer.text, add_special_tokens=False)["input_ids"][: room + 1]
            ids = [self.tokenizer.cls_token_id, *text, self.tokenizer.sep_token_id]
            return ids, [0] * len(ids)
        second = self.tokenizer(answer.text, add_special_tokens=False)["input_ids"][:room]
        first = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        first = first[max(0, len(first) - (room - len(second))) :]
        ids = [self.tokenizer.cls_token_id, *first, self.tokenizer.sep_token_id, *second, self.tokenizer.sep_token_id]
        types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        return ids, types

    def num_tokens(self, answer: Answer) -> int:
        return len(self._tokens(answer)[0])

    def cost(self, answers: Sequence[Answer]) -> int:
        return max(map(self.num_tokens, answers)) * len(answers)

    def rewards(self, answers: Sequence[Answer]) -> Tensor:
        return self.head(*self._read(answers))  # type: ignore[no-any-return]

    def logits(self, answers: Sequence[Answer]) -> Tensor:
        """Of each label, (B, L)."""
        return self.head.logits(*self._read(answers))

    def features(self, answers: Sequence[Answer]) -> Tensor:
        """What the head's linear map reads, (B, D or 2 D)."""
        return self.head.pool(*self._read(answers))

    def _read(self, answers: Sequence[Answer]) -> tuple[Tensor, Tensor]:
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
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            hidden_BSD = self.encoder(**inputs)[0]
        return hidden_BSD, mask_BS.to(device)

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        body = {} if self.frozen else dict(self.encoder.named_parameters())
        return {"body": body, "head": dict(self.head.named_parameters())}

    def save(self, folder: Path) -> None:
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        _save_head(folder, self.head, {"kind": "encoder", "base": self.source, "reads": self.reads})


def _save_head(folder: Path, head: RewardHead, about: dict[str, Any]) -> None:
    save_file({key: value.contiguous() for key, value in head.state_dict().items()}, folder / "head.safetensors")
    if head.labels:
        about |= {"labels": head.labels, "wanted": head.labels[head.index]}
    (folder / "reward.json").write_text(json.dumps(about | {"pooling": head.pooling}, indent=2) + "\n")


def load_encoder_reward(
    source: str,
    pooling: str,
    device: torch.device,
    *,
    labels: Sequence[str] = (),
    wanted: str = "",
    reads: Reads = "prompt+answer",
    frozen: bool = False,
) -> EncoderReward:
    """A fresh reward model on an encoder, in float32."""
    from transformers import AutoModel, AutoTokenizer

    folder = resolve(source)
    with loading(source, "an encoder"):
        encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ModelError(f"{source}: a reward encoder's tokenizer needs CLS and SEP tokens, as BERT's has")
    encoder.to(device)
    head = RewardHead(int(encoder.config.hidden_size), pooling, labels, wanted)
    return EncoderReward(encoder, tokenizer, head, source, reads, frozen=frozen)


def free_adapter(base: LanguageModel) -> str:
    """A name for another reward adapter on a base: reward, reward-1, ..."""
    names = (f"{REWARD}-{number}" if number else REWARD for number in range(len(base.adapters) + 1))
    return next(name for name in names if name not in base.adapters)


def read_about(folder: Path) -> dict[str, Any]:
    """reward.json of a saved reward model: its kind and what that kind needs."""
    if not (folder / "reward.json").is_file():
        raise SourceError(f"{folder}: holds no reward.json; name a folder that 'heedful reward train' wrote")
    with loading(folder, "a reward model"):
        return read_object(folder / "reward.json")


def load_reward_model(
    folder: Path, base: LanguageModel | None, *, dtype: torch.dtype, device: torch.device
) -> AdapterReward | EncoderReward:
    """The reward model saved in a folder.

    base: the model whose tokens are to be scored, which gets the head and the adapter; None loads the one that was saved.
    Raises ModelError when the base is another model than the saved one: its tokens would be read as other words. An encoder
    reads text and goes with any base.
    """
    about = read_about(folder)
    labels, wanted, reads = about.get("labels", ()), about.get("wanted", ""), about.get("reads", "prompt+answer")
    with loading(folder, "a reward model"):
        kind, source, pooling = (str(about[name]) for name in ("kind", "base", "pooling"))
        head = load_file(folder / "head.safetensors")
    if kind == "encoder":
        encoder = load_encoder_reward(str(folder), pooling, device, labels=labels, wanted=wanted, reads=reads)
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
    adapter = free_adapter(base) if kind == "adapter" else None
    if adapter is not None:
        with loading(folder, "a reward model"):
            base.load_adapter(adapter, folder)
    reward = AdapterReward(base, RewardHead(base.hidden_size, pooling, labels, wanted), adapter, reads)
    with loading(folder, f"a reward model on {source}"):
        reward.head.load_state_dict(head)
    return reward
