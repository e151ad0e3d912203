"""SFT, DPO and KTO ready to step on the tiny model and small_data, and log-probs computed the plain way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import small_data
import torch

from heedful.config import DPOSection, KTOSection, LoraSection, SFTSection
from heedful.models.policy import LanguageModel, load_language_model
from heedful.models.reward import Answer, answer_of
from heedful.records import Preference
from heedful.training import dpo, kto, sft
from heedful.training.reward import Group, group_pairs

CPU = torch.device("cpu")
# float32 log-probs of some twenty tokens, computed in batches of other shapes.
SAME_LOGPROB = 1e-3
NUM_TRAIN, NUM_ALL = 24, 32


def fresh(tiny: Path) -> LanguageModel:
    return load_language_model(str(tiny), dtype=torch.float32, device=CPU)


def groups_of(model: LanguageModel, pairs: Sequence[Preference]) -> list[Group]:
    return group_pairs(pairs, lambda _, messages, text: answer_of(model, messages, text, finished=True))


def ranked(model: LanguageModel) -> list[Group]:
    """Prompts of one to three pairs among as many as three answers, one pair a tie."""
    pairs = []
    for i, pair in enumerate(small_data.preferences(NUM_ALL)):
        pairs.append(pair)
        if i % 2:
            third = {"rejected": "Perhaps."}
            pairs.append(pair.model_copy(update=third))
            pairs.append(pair.model_copy(update={"chosen": pair.rejected, **third, "probability": 0.5}))
    return groups_of(model, pairs)


LORA = LoraSection(rank=4, layers=2)


def make_dpo(tiny: Path, folder: Path, **options: Any) -> dpo.DPO:
    model = fresh(tiny)
    groups = ranked(model)
    settings = DPOSection.model_validate({"lora": LORA, "learning_rate": 0.003} | options)
    references = dpo.read_references(model, groups, folder / "reference.jsonl")
    return dpo.DPO(model, groups[:NUM_TRAIN], groups[NUM_TRAIN:], references, settings=settings, num_steps=9, seed=0)


def make_kto(tiny: Path, folder: Path, **options: Any) -> kto.KTO:
    model = fresh(tiny)
    settings = KTOSection.model_validate({"lora": LORA, "learning_rate": 0.003, "batch_completions": 8} | options)
    examples = []
    for group in groups_of(model, small_data.preferences(NUM_ALL)):
        examples += [kto.Marked(group.prompt_id, answer, i == 0) for i, answer in enumerate(group.answers)]
    examples = kto.with_mismatches(examples, max_tokens=200, seed=0)
    known = kto.with_references(model, examples, folder / "reference.jsonl")
    train, heldout = known[: 2 * NUM_TRAIN], known[2 * NUM_TRAIN :]
    weights = kto.class_weights(train, settings=settings)
    return kto.KTO(model, train, heldout, settings=settings, weights=weights, num_steps=12, seed=0)


def make_sft(tiny: Path, folder: Path, **options: Any) -> sft.SFT:
    model = fresh(tiny)
    settings = SFTSection.model_validate({"lora": LORA, "learning_rate": 0.003, "batch_completions": 8} | options)
    found = [answer_of(model, p.prompt, p.chosen, finished=True) for p in small_data.preferences(NUM_ALL)]
    return sft.SFT(model, found[:NUM_TRAIN], found[NUM_TRAIN:], settings=settings, num_steps=9, seed=0)


MAKERS: dict[str, Callable[..., Any]] = {"sft": make_sft, "dpo": make_dpo, "kto": make_kto}
LOSSES = ["sigmoid", "robust", "ipo", "hinge", "simpo", "orpo"]


def plain_logprobs(model: LanguageModel, answer: Answer) -> list[float]:
    """One sequence alone, full logits from the plain model, a loop over its response."""
    ids = [*answer.prompt_ids, *answer.response_ids]
    with torch.no_grad():
        logits = model.causal(input_ids=torch.tensor([ids])).logits[0].double()
    start = len(answer.prompt_ids)
    return [float(logits[place - 1, ids[place]] - torch.logsumexp(logits[place - 1], 0)) for place in range(start, len(ids))]


class KilledError(Exception):
    """What a test raises where a process would have died."""
