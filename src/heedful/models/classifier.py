"""Any Hugging Face sequence classifier, as it is: the logit of one of its labels is the reward."""

# B batch, S tokens, L labels

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from heedful.errors import ModelError, SourceError
from heedful.models.chat import Chat
from heedful.models.reward import Answer, Reads
from heedful.models.sources import resolve

# Their position embeddings begin after the padding's index.
OFFSET_POSITIONS = ("roberta", "camembert", "longformer")


class ClassifierReward:
    """The logit of a label, read with the classifier's own tokens.

    A classifier with a chat template reads the conversation in it (the policy's very tokens, where both write tokens alike);
    any other reads prompt and answer as a text pair, or the answer alone, with its tokenizer's special tokens. What is too
    long loses the beginning of the prompt first, then the end of the answer.
    """

    def __init__(self, model: Any, tokenizer: Any, *, label: str, reads: Reads, policy_chat: Chat | None, source: str) -> None:
        model.eval()
        self.model = model
        self.tokenizer = tokenizer
        self.source = source
        self.index = label_index(model.config, label, source)
        self.reads: Reads = reads
        self.chat = _own_chat(tokenizer) if reads == "prompt+answer" and getattr(tokenizer, "chat_template", None) else None
        self.shares_tokens = self.chat is not None and policy_chat is not None and same_tokens(self.chat, policy_chat)
        self.max_tokens = _max_tokens(model.config, tokenizer)
        self.pad_id = getattr(model.config, "pad_token_id", None)
        # Without a padding token, a model that reads its last token cannot tell it from padding.
        self.one_by_one = self.pad_id is None and hasattr(model, "score")

    @property
    def label(self) -> str:
        """The label's name."""
        return str(self.model.config.id2label.get(self.index, self.index))

    def encode(self, answer: Answer) -> dict[str, list[int]]:
        """What the classifier is fed for an answer: input_ids, and token_type_ids where it knows them."""
        if self.chat is not None:
            if self.shares_tokens and answer.prompt_ids:
                ids = [*answer.prompt_ids, *answer.response_ids]
            else:
                ids = self.chat.prompt_ids(answer.messages) + self.chat.response_ids(answer.text, finished=answer.finished)
            return {"input_ids": ids[-self.max_tokens :]}
        if self.reads == "answer":
            encoded = self.tokenizer(answer.text, truncation=True, max_length=self.max_tokens)
        else:
            prompt = "\n".join(message.content for message in answer.messages)
            room = self.max_tokens - int(self.tokenizer.num_special_tokens_to_add(pair=True))
            text = self._cut(answer.text, room, keep="start")
            left = room - self._count(text)
            encoded = self.tokenizer(self._cut(prompt, left, keep="end"), text, truncation=True, max_length=self.max_tokens)
        kept = ("input_ids", "token_type_ids") if getattr(self.model.config, "type_vocab_size", 0) > 1 else ("input_ids",)
        return {name: list(encoded[name]) for name in kept if name in encoded}

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _cut(self, text: str, room: int, *, keep: Literal["start", "end"]) -> str:
        """The text, or as many of its tokens as there is room for, from its start or its end."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) <= room:
            return text
        kept = ids[:room] if keep == "start" else ids[len(ids) - max(0, room) :]
        # Text cut between tokens may come back as one token more.
        return str(self.tokenizer.decode(kept[1:] if keep == "end" else kept[:-1], clean_up_tokenization_spaces=False))

    def num_tokens(self, answer: Answer) -> int:
        return len(self.encode(answer)["input_ids"])

    def rewards(self, answers: Sequence[Answer]) -> Tensor:
        encoded = [self.encode(answer) for answer in answers]
        parts = [[row] for row in encoded] if self.one_by_one else [encoded]
        return torch.cat([self._logits(part)[:, self.index] for part in parts]).float()

    def probabilities(self, answers: Sequence[Answer]) -> Tensor:
        """Softmax over the labels (B, L); the sigmoid of each where they do not exclude each other, and of a single one."""
        encoded = [self.encode(answer) for answer in answers]
        parts = [[row] for row in encoded] if self.one_by_one else [encoded]
        logits_BL = torch.cat([self._logits(part) for part in parts]).float()
        several = getattr(self.model.config, "problem_type", None) == "multi_label_classification"
        return logits_BL.sigmoid() if several or logits_BL.shape[1] == 1 else logits_BL.softmax(dim=1)

    def _logits(self, encoded: Sequence[dict[str, list[int]]]) -> Tensor:
        width = max(len(row["input_ids"]) for row in encoded)
        ids_BS = torch.full((len(encoded), width), 0 if self.pad_id is None else int(self.pad_id), dtype=torch.long)
        types_BS, mask_BS = torch.zeros_like(ids_BS), torch.zeros_like(ids_BS)
        for row, found in enumerate(encoded):
            size = len(found["input_ids"])
            ids_BS[row, :size] = torch.tensor(found["input_ids"])
            mask_BS[row, :size] = 1
            types_BS[row, :size] = torch.tensor(found.get("token_type_ids", [0] * size))
        device = self.model.device
        inputs = {"input_ids": ids_BS.to(device), "attention_mask": mask_BS.to(device)}
        if "token_type_ids" in encoded[0]:
            inputs["token_type_ids"] = types_BS.to(device)
        return self.model(**inputs).logits  # type: ignore[no-any-return]


def label_index(config: Any, label: str, source: str) -> int:
    """The number of a label given by name or number; the only one of a single logit. Else an error that lists them."""
    names = {int(index): str(name) for index, name in config.id2label.items()}
    count = int(config.num_labels)
    for index, name in names.items():
        if label and name.casefold() == label.casefold():
            return index
    if label.isdecimal() and int(label) < count:
        return int(label)
    if count == 1 and not label:
        return 0
    listed = ", ".join(f"{index} = {names.get(index, 'unnamed')!r}" for index in range(count))
    problem = f"has no label {label!r}" if label else f"has {count} labels, and which one is the reward must be said"
    raise ModelError(f"{source}: the classifier {problem}; give label (--label, or label in reward.terms) as one of: {listed}")


def same_tokens(a: Chat, b: Chat) -> bool:
    """Whether two chats write the same conversation as the same tokens."""
    templates = getattr(a.tokenizer, "chat_template", None), getattr(b.tokenizer, "chat_template", None)
    return (
        templates[0] == templates[1]
        and a.apart == b.apart
        and a.end_id == b.end_id
        and a.tokenizer.get_vocab() == b.tokenizer.get_vocab()
    )


def is_classifier(source: str) -> bool:
    """Whether a source is a sequence classifier in Hugging Face's layout."""
    config = resolve(source) / "config.json"
    if not config.exists():
        return False
    names = json.loads(config.read_text(encoding="utf-8")).get("architectures") or ()
    return any(name.endswith("ForSequenceClassification") for name in names)


def load_classifier(
    source: str, *, label: str, reads: Reads, dtype: torch.dtype, device: torch.device, policy_chat: Chat | None
) -> ClassifierReward:
    """The classifier in a folder or on the hub. dtype: of a decoder's weights; an encoder's are read as float32."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = resolve(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"{source}: not a sequence classifier that transformers can load ({error})") from None
    model.requires_grad_(False)
    model.to(device=device, dtype=dtype if hasattr(model, "score") else torch.float32)
    return ClassifierReward(model, tokenizer, label=label, reads=reads, policy_chat=policy_chat, source=source)


def _own_chat(tokenizer: Any) -> Chat:
    ends = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    return Chat(tokenizer, ends)


def _max_tokens(config: Any, tokenizer: Any) -> int:
    positions = int(getattr(config, "max_position_embeddings", 1 << 30) or 1 << 30)
    if any(name in str(config.model_type) for name in OFFSET_POSITIONS):
        positions -= int(config.pad_token_id or 0) + 1
    return min(positions, int(tokenizer.model_max_length))
