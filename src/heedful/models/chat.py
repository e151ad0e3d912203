"""From a conversation to tokens, and from tokens back to text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from heedful.errors import ModelError
from heedful.records import Message

PLAIN_NAMES = {"system": "System", "user": "User", "assistant": "Assistant"}


class Chat:
    """A tokenizer and the way its model wants a conversation written.

    eos_ids: tokens that end an answer. pad_id may be one of them: masks here come from lengths, never from ids. apart: an
    encoder reads the conversation and a decoder writes the answer, so neither continues the other's text; a single message
    is then read as it stands, with the tokenizer's own end of text.
    """

    def __init__(self, tokenizer: Any, eos_ids: Sequence[int], *, apart: bool = False) -> None:
        if not eos_ids:
            raise ModelError(
                "the tokenizer and the model's generation config name no end-of-text token, so no answer would ever end; "
                "set eos_token in the model folder's tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.eos_ids = tuple(eos_ids)
        # Of several, the one that the chat template ends a turn with.
        self.end_id = int(tokenizer.eos_token_id if tokenizer.eos_token_id in self.eos_ids else eos_ids[0])
        self.pad_id = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_ids[0])
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        self.apart = apart
        self.special = _special(tokenizer, apart)
        if not self.has_template and not apart:
            warnings.warn(
                "the tokenizer has no chat template, so conversations are written as 'User: ...' and 'Assistant: ...'; "
                "an instruct model with its own template will answer better",
                stacklevel=3,
            )

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of the conversation up to where the assistant begins to speak.

        A message may quote anything, so what looks like a special token in it is broken by a space and becomes none.
        """
        messages = [message.model_copy(update={"content": self._in_letters(message.content)}) for message in messages]
        if self.has_template:
            turns = [message.model_dump() for message in messages]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        elif self.apart and all(message.role != "assistant" for message in messages):
            ids = self.tokenizer("\n\n".join(message.content for message in messages))["input_ids"]
        else:
            lines = [f"{PLAIN_NAMES[message.role]}: {message.content}\n" for message in messages]
            ids = self.tokenizer("".join([*lines, "Assistant:"]))["input_ids"]
        return [int(token) for token in ids]

    def response_ids(self, text: str, *, finished: bool) -> list[int]:
        """Tokens of an answer given as text; with the end-of-text token when it is finished."""
        written = text if self.has_template or self.apart else " " + text
        ids = [int(token) for token in self.tokenizer(written, add_special_tokens=False)["input_ids"]]
        return [*ids, self.end_id] if finished else ids

    def text(self, response_ids: Sequence[int]) -> str:
        """The answer's text without special tokens."""
        return str(self.tokenizer.decode(list(response_ids), skip_special_tokens=True)).strip()

    def plain(self, ids: Sequence[int]) -> str:
        """Text of tokens inside an answer: white space at its ends stays, special tokens are left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def observation_ids(self, text: str, *, max_tokens: int, new_turn: bool) -> list[int]:
        """Tokens by which an environment goes on behind what the policy wrote, cut to max_tokens.

        new_turn: the policy has ended its turn, so the text is a user's message and the assistant begins anew; else it
        stands in the assistant's own. Text that looks like a special token does not become one: an observation may hold
        anything. The line break at the end of what is cut stays, or the policy would write on in the environment's line.

        Raises ModelError where the user's message has no room beside what frames it.
        """
        before, after = self._around_user() if new_turn else ([], [])
        room = max_tokens - len(before) - len(after)
        if room <= 0:
            raise ModelError(
                f"environment.max_observation_tokens = {max_tokens} leaves no room for an observation: this model's chat form "
                f"takes {len(before) + len(after)} tokens around a message; set it higher than {len(before) + len(after)}"
            )
        ids = self._text_ids(text)
        if len(ids) > room:
            end = self._text_ids("\n") if text.endswith("\n") and not new_turn else []
            ids = [*ids[: max(0, room - len(end))], *end]
        return [*before, *ids, *after]

    def _in_letters(self, text: str) -> str:
        for token in self.special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _text_ids(self, text: str) -> list[int]:
        found = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [int(token) for token in found]

    def _around_user(self) -> tuple[list[int], list[int]]:
        """Tokens before a user's message that follows an ended answer, and those behind it up to where the assistant speaks."""
        if not self.has_template:
            return self._text_ids("\nUser: "), self._text_ids("\nAssistant:")
        said, heard = "SAID", "HEARD"
        turns = [("user", "x"), ("assistant", said), ("user", heard)]
        rows = [{"role": role, "content": content} for role, content in turns]
        text = str(self.tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True))
        between, found, after = text.partition(said)[2].partition(heard)
        if not found:
            raise ModelError("the chat template does not write messages as they are, so no environment can answer in it")
        ends = [str(self.tokenizer.decode([token])) for token in self.eos_ids]
        # The policy has written it; of several, a template may end turns with another than the tokenizer's own.
        before = between.removeprefix(next((end for end in ends if between.startswith(end)), ""))
        both = [self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after)]
        return [int(token) for token in both[0]], [int(token) for token in both[1]]

    def finished(self, response_ids: Sequence[int]) -> bool:
        """Whether the answer ended by itself."""
        return bool(response_ids) and response_ids[-1] in self.eos_ids


def _special(tokenizer: Any, apart: bool) -> list[str]:
    """Texts that the tokenizer reads as special tokens. Of an encoder's only those that frame it: the others, T5's
    `<extra_id_0>`, are what such a model is asked with.
    """
    if apart:
        found = {tokenizer.eos_token, tokenizer.pad_token}
    else:
        added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        found = added | set(tokenizer.all_special_tokens)
    return sorted(token for token in found if token and len(token.strip()) > 1)
