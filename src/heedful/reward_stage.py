"""Training reward models on files: what the reward stage and `heedful reward train` share."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from heedful.config import Config, RewardSection
from heedful.data.formats import read_preferences
from heedful.engine.device import choose_device, choose_dtype
from heedful.errors import DataError
from heedful.models.policy import LanguageModel, load_language_model
from heedful.models.reward import (
    AdapterReward,
    Answer,
    RewardHead,
    RewardModel,
    answer_of,
    free_adapter,
    load_encoder_reward,
)
from heedful.models.sources import is_encoder
from heedful.records import Message, Preference
from heedful.rewards.asking import measure_on_pairs
from heedful.rewards.mixture import ModelReward
from heedful.store import Run, new_folder, read_json, write_json
from heedful.training import reward
from heedful.training.reward_head import fit_head


def new_reward_model(model: LanguageModel, settings: RewardSection, seed: int, device: torch.device) -> RewardModel:
    """An untrained reward model: an adapter and head on `model`, or an encoder of its own."""
    if settings.model:
        return load_encoder_reward(settings.model, settings.pooling, device)
    if settings.trunk == "frozen":
        return AdapterReward(model, RewardHead(model.hidden_size, settings.pooling), adapter=None)
    lora = settings.lora
    name = free_adapter(model)
    model.add_adapter(name, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=seed)
    return AdapterReward(model, RewardHead(model.hidden_size, settings.pooling), name)


def train_reward_model(
    fresh: RewardModel,
    pairs: Sequence[Preference],
    folder: Path,
    *,
    chat_of: LanguageModel,
    settings: RewardSection,
    seed: int,
    cut_off: set[tuple[str, str]],
    num_resamples: int,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Trains on pairs, saves to folder/model, and returns the accuracy on held-out prompts with its interval.

    cut_off: (prompt id, text) of the answers that the limit ended; all others are read with an end-of-text token.
    """
    if settings.max_pairs:
        pairs = random.Random(seed).sample(list(pairs), min(len(pairs), settings.max_pairs))

    def groups(part: Sequence[Preference]) -> list[reward.Group]:
        def encode(id_: str, messages: tuple[Message, ...], text: str) -> Answer:
            return answer_of(chat_of, messages, text, finished=(id_, text) not in cut_off)

        kept, too_long = reward.drop_long(reward.group_pairs(part, encode), fresh, settings.max_tokens)
        if too_long:
            print(f"{too_long} prompts with answers beyond {settings.max_tokens} tokens were left out", file=sys.stderr)
        return kept

    train_pairs, heldout_pairs = reward.split_by_prompt(pairs, settings.heldout_share, seed)
    train, heldout = groups(train_pairs), groups(heldout_pairs)
    if not train or not heldout:
        raise DataError(f"no prompt is left whose answers all fit into reward.max_tokens = {settings.max_tokens}; raise it")
    if isinstance(fresh, AdapterReward) and fresh.adapter is None:
        steps = fit_head(fresh, train, folder, seed=seed, progress=progress)
    else:
        steps = reward.train(fresh, train, heldout, folder, settings=settings, seed=seed, progress=progress)
    with new_folder(folder / "model") as temporary:
        fresh.save(temporary)
    return measure_on_pairs(ModelReward(fresh), heldout, num_resamples, seed) | {
        "steps": steps,
        "num_training_prompts": len(train),
    }


def train_reward_model_alone(
    source: str, files: Sequence[Path], output: Path, config: Config, seed: int, progress: Callable[[int, int, str], None]
) -> dict[str, Any]:
    """`heedful reward train`: pairs from files, the model and its accuracy into a folder."""
    device = choose_device()
    dtype = choose_dtype(config.model.dtype, device)
    pairs = [pair for file in files for pair in read_preferences(file)]
    settings = config.reward
    if is_encoder(source):
        settings = settings.model_copy(update={"model": source})
    base = load_language_model(config.model.source if settings.model else source, dtype=dtype, device=device)
    with Run(output) as run:
        result: dict[str, Any] = {}

        def work() -> None:
            result.update(
                train_reward_model(
                    new_reward_model(base, settings, seed, device),
                    pairs,
                    output / "reward",
                    chat_of=base,
                    settings=settings,
                    seed=seed,
                    cut_off=set(),
                    num_resamples=config.evaluate.num_resamples,
                    progress=progress,
                )
            )
            write_json(output / "reward" / "result.json", result)

        run.stage("reward", work, settings=settings.model_dump(mode="json") | {"base": source, "seed": seed}, inputs=files)
    return dict(read_json(output / "reward" / "result.json"))
