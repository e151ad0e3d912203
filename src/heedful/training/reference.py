"""Log-probabilities under the frozen reference: computed once, kept in the run folder, found again by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel

from heedful.engine.responses import answer_batches, sum_logprobs
from heedful.journal import Journal
from heedful.models.policy import LanguageModel
from heedful.models.reward import Answer
from heedful.training.loop import Progress, silent


class ReferenceLogprob(BaseModel):
    """log ref(y | x) of one answer, nats. key: hash of the base's weights, the prompt's tokens and the response's."""

    key: str
    logprob: float


def reference_logprobs(
    model: LanguageModel, answers: Sequence[Answer], path: Path, progress: Progress = silent, *, adapter: str | None = None
) -> list[float]:
    """log ref(y | x) of each answer, in order, the reference being the base without an adapter, or with one as it is now.

    path: a file that is read first and appended to after each batch. What is found there is not computed again, so an
    interrupted job goes on and a job with other settings on the same answers begins at once. The batches follow from the
    answers alone: a resumed job has the very numbers of an uninterrupted one.
    """
    base = fingerprint(model, adapter)
    keys = [_key(base, answer) for answer in answers]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}  # an answer that occurs twice is read once
    distinct = sorted(first.values())
    journal = Journal(path, ReferenceLogprob)
    known: dict[str, float] = {record.key: record.logprob for record in journal.records}
    batches = answer_batches([answers[i] for i in distinct])
    for number, places in enumerate(batches, start=1):
        batch = [distinct[place] for place in places]
        if not all(keys[i] in known for i in batch):
            found = sum_logprobs(model, [answers[i] for i in batch], adapter=adapter)
            fresh = {keys[i]: value for i, value in zip(batch, found, strict=True) if keys[i] not in known}
            journal.append(ReferenceLogprob(key=key, logprob=value) for key, value in fresh.items())
            known |= fresh
        progress(number, len(batches), "")
    return [known[key] for key in keys]


def fingerprint(model: LanguageModel, adapter: str | None = None) -> str:
    """Hash of the base's source, number type and weights, and of one adapter's; others are not part of it."""
    digest = hashlib.sha256(f"{model.source} {model.dtype}".encode())
    for name, weight in model.causal.named_parameters():
        if "lora_" not in name or (adapter is not None and f".{adapter}." in name):
            digest.update(model.whole(weight).detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _key(base: str, answer: Answer) -> str:
    return hashlib.sha256(f"{base} {answer.prompt_ids} {answer.response_ids}".encode()).hexdigest()[:32]
