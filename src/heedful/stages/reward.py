"""Training reward models on files: what the reward stage and `heedful reward train` share."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from heedful.config import Config, RewardSection
from heedful.data.formats import read_preferences
from heedful.data.labelled import Labelled, read_labelled, two_classes
from heedful.engine.device import choose_device, choose_dtype, compile_where_told
from heedful.errors import ConfigError, RecordError
from heedful.models.head import RewardHead
from heedful.models.policy import LanguageModel, load_language_model
from heedful.models.reward import AdapterReward, Reads, free_adapter, load_encoder_reward
from heedful.models.sources import is_encoder, local_file
from heedful.progress import telling
from heedful.records import Completion, Preference, iter_lines, parse_line
from heedful.rewards.mixture import Reward
from heedful.rewards.tasks import LabelledTask, PairTask, Trainable, labelled_task, pair_task, train_members
from heedful.store import Run, read_json, write_json


def new_reward_model(
    model: LanguageModel,
    settings: RewardSection,
    seed: int,
    device: torch.device,
    *,
    labels: Sequence[str] = (),
    reads: Reads = "prompt+answer",
) -> Trainable:
    """An untrained reward model: an adapter and head on `model`, or an encoder of its own. labels: of a classifier."""
    frozen, wanted = settings.trunk == "frozen", settings.labelled.wanted if labels else ""
    if settings.model:
        shared: dict[str, Any] = {"labels": labels, "wanted": wanted, "reads": reads, "frozen": frozen}
        return load_encoder_reward(settings.model, settings.pooling, device, **shared)
    head = RewardHead(model.hidden_size, settings.pooling, labels, wanted)
    if frozen:
        return AdapterReward(model, head, None, reads)
    lora, name = settings.lora, free_adapter(model)
    model.add_adapter(name, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=seed)
    return AdapterReward(model, head, name, reads)


def read_run_pairs(preferences: Path, completions: Sequence[Completion]) -> list[Preference]:
    """Pairs of a run that has completions of its own; the ids in them must name completions of the pair's prompt.

    Raises RecordError with the line, the field and the id.
    """
    prompt_of = {completion.id: completion.prompt_id for completion in completions}
    pairs = []
    for where, line in iter_lines(preferences):
        pair = parse_line(line, Preference, where)
        for field in ("chosen_id", "rejected_id"):
            id_ = getattr(pair, field)
            if id_ is None or prompt_of.get(id_) == pair.prompt_id:
                continue
            wrong = (
                f"answers prompt {prompt_of[id_]!r}, not {pair.prompt_id!r}"
                if id_ in prompt_of
                else "is not in completions.jsonl"
            )
            raise RecordError(
                where, f"{field} {id_!r} {wrong}; make the pairs again (heedful run --from consensus) or drop the line"
            )
        pairs.append(pair)
    return pairs


def require_consistent(settings: RewardSection) -> None:
    """Raises ConfigError for settings that cannot be meant together."""
    tie_aware = settings.ties in ("davidson", "rao-kupper")
    said = ""
    if settings.tie_parameter and not tie_aware:
        said = "tie_parameter belongs to ties = 'davidson' or 'rao-kupper'"
    elif settings.ties == "rao-kupper" and 0 < settings.tie_parameter <= 1:
        said = "tie_parameter: theta of Rao and Kupper is above 1; at 1 there are no ties"
    elif settings.trunk == "frozen" and (tie_aware or settings.margin_weight):
        said = "trunk = 'frozen' knows neither margins nor models of ties; take trunk = 'adapter'"
    elif settings.trunk == "frozen" and settings.ensemble > 1:
        said = "trunk = 'frozen' has one best head whatever the seed; for an ensemble take trunk = 'adapter'"
    elif settings.trunk == "frozen" and settings.patience:
        said = "trunk = 'frozen' takes no steps that patience could end"
    elif settings.labelled.files and settings.preferences:
        said = "a reward model learns from preferences or from labelled.files, not from both; mix two with [[reward.terms]]"
    elif settings.labelled.files and (settings.margin_weight or settings.ties != "drop"):
        said = "margins and ties belong to pairs, and labelled.files has texts; drop margin_weight and ties"
    elif settings.labelled.files and not settings.labelled.wanted:
        said = "labelled.wanted must name the label whose logit is the reward"
    if said:
        raise ConfigError(f"reward: {said}")


def train_reward(
    base: LanguageModel,
    settings: RewardSection,
    folder: Path,
    *,
    pairs: Sequence[Preference],
    written: Mapping[tuple[str, str], Sequence[int]],
    seed: int,
    device: torch.device,
    num_resamples: int,
    progress: Callable[[int, int, str], None],
) -> tuple[Reward, dict[str, Any]]:
    """The reward model that the settings describe, trained and saved to folder/model, and what it does on held-out data.

    pairs: to learn from, unless the settings name labelled texts. written: tokens that the model wrote, by (prompt id, text);
    all other answers are read from their text and end with an end-of-text token.
    """
    require_consistent(settings)
    section = settings.labelled
    examples: list[Labelled] = []
    labels: tuple[str, ...] = ()
    reads: Reads = "prompt+answer"
    if section.files:
        examples, labels = two_classes(read_examples(settings, seed), section.wanted)
        reads = "prompt+answer" if section.prompt_field else "answer"
    models = [
        new_reward_model(base, settings, seed + number, device, labels=labels, reads=reads)
        for number in range(settings.ensemble)
    ]
    shared: dict[str, Any] = {"chat_of": base, "settings": settings, "seed": seed, "num_resamples": num_resamples}
    task: PairTask | LabelledTask
    if labels:
        task = labelled_task(examples, (labels[0], labels[1]), models[0], **shared)
    else:
        task = pair_task(pairs, models[0], written=written, **shared)
    return train_members(task, models, folder, seed=seed, progress=progress)


def read_examples(settings: RewardSection, seed: int) -> list[Labelled]:
    """The labelled texts of the files in the settings; at most max_pairs of them, drawn at random."""
    section = settings.labelled
    fields = {"text_field": section.text_field, "label_field": section.label_field, "prompt_field": section.prompt_field}
    found = [example for file in section.files for example in read_labelled(local_file(file), **fields)]
    if settings.max_pairs:
        found = random.Random(seed).sample(found, min(len(found), settings.max_pairs))
    return found


def train_reward_model(
    fresh: Trainable,
    pairs: Sequence[Preference],
    folder: Path,
    *,
    chat_of: LanguageModel,
    settings: RewardSection,
    seed: int,
    written: Mapping[tuple[str, str], Sequence[int]],
    num_resamples: int,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """One model trained on pairs, saved to folder/model; returns its accuracy on held-out prompts with its interval."""
    shared: dict[str, Any] = {"settings": settings, "seed": seed, "written": written, "num_resamples": num_resamples}
    task = pair_task(pairs, fresh, chat_of=chat_of, **shared)
    return train_members(task, [fresh], folder, seed=seed, progress=progress)[1]


def train_reward_model_alone(
    source: str, files: Sequence[Path], output: Path, config: Config, progress: Callable[[int, int, str], None]
) -> dict[str, Any]:
    """`heedful reward train`: pairs or labelled texts from files, the model and what it does into a folder."""
    device = choose_device()
    dtype = choose_dtype(config.model.dtype, device)
    settings = config.reward
    if is_encoder(source):
        settings = settings.model_copy(update={"model": source})
    require_consistent(settings)
    pairs = [pair for file in files for pair in read_preferences(file)]
    named = config.model.source if settings.model else source
    base = load_language_model(named, dtype=dtype, device=device, recompute=config.model.recompute)
    compile_where_told(base, config.model.compile)
    inputs = [*files, *(local_file(name) for name in settings.labelled.files)]
    told = partial(telling(output, lambda _, *how: progress(*how)), "reward")
    with Run(output) as run:
        run.check(["reward"], [*inputs, *(Path(name).expanduser() for name in (source, settings.model) if name)])

        def work() -> None:
            _, result = train_reward(
                base,
                settings,
                output / "reward",
                pairs=pairs,
                written={},
                seed=config.seed,
                device=device,
                num_resamples=config.evaluate.num_resamples,
                progress=told,
            )
            write_json(output / "reward" / "result.json", result)

        key = settings.model_dump(mode="json", exclude={"terms"}) | {"base": source, "seed": config.seed}
        run.stage("reward", work, settings=key, inputs=inputs)
    return dict(read_json(output / "reward" / "result.json"))
