"""A local model as judge: the log-probabilities of the letters A and B as its answer."""

from __future__ import annotations

from collections.abc import Sequence

from heedful.engine import scoring
from heedful.engine.device import choose_device, choose_dtype
from heedful.errors import DataError, ModelError
from heedful.judging.judge import LETTERS
from heedful.models.policy import LanguageModel, load_language_model
from heedful.records import Message


class LocalLetters:
    """From questions to log p(A) - log p(B) of a language model, its adapter included."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.letters = [model.chat.response_ids(letter, finished=False) for letter in LETTERS]
        if len({len(ids) for ids in self.letters}) > 1 or self.letters[0] == self.letters[1]:
            raise ModelError(f"{model.source}: its tokenizer does not tell the letters A and B apart; take another judge")

    def __call__(self, questions: Sequence[tuple[Message, ...]]) -> list[float]:
        prompts, answers = [], []
        for messages in questions:
            ids = self.model.chat.prompt_ids(messages)
            if len(ids) + len(self.letters[0]) > self.model.max_tokens:
                shown = " ".join(messages[-1].content.split())[60:130]
                raise DataError(
                    f"a question to the judge has {len(ids)} tokens ('...{shown}...'); {self.model.source} reads "
                    f"{self.model.max_tokens}. Leave that prompt out, or take a judge that reads more"
                )
            prompts += [ids, ids]
            answers += self.letters
        found = scoring.score_responses(self.model, prompts, answers, temperature=1.0)
        sums = [float(row.logprobs_T.double().sum()) for row in found]
        return [a - b for a, b in zip(sums[::2], sums[1::2], strict=True)]


def local_letters(source: str) -> LocalLetters:
    """source: a folder, a hub id, or an alias."""
    device = choose_device()
    return LocalLetters(load_language_model(source, dtype=choose_dtype("auto", device), device=device))
