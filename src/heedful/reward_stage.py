"""Training and asking a reward model on files: what the reward stage and the commands of `heedful reward` share."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from heedful.config import Config, RewardSection
from heedful.data.formats import read_completions, read_preferences, read_prompts
from heedful.engine import scoring
from heedful.engine.device import choose_device, choose_dtype
from heedful.errors import DataError, RecordError
from heedful.evaluation.compare import accuracy
from heedful.models.policy import REWARD, LanguageModel, load_language_model
from heedful.models.reward import (
    AdapterReward,
    Answer,
    RewardHead,
    RewardModel,
    answer_of,
    load_encoder_reward,
    load_reward_model,
)
from heedful.models.sources import is_encoder
from heedful.records import Completion, Message, Preference, by_id, iter_lines, parse_line
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
    model.add_adapter(REWARD, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=seed)
    return AdapterReward(model, RewardHead(model.hidden_size, settings.pooling))


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


def train_reward_model(
    fresh: RewardModel,
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
    """Trains on pairs, saves to folder/model, and returns the accuracy on held-out prompts with its interval.

    written: tokens that the model wrote, by (prompt id, text); all other answers are read from their text, and end with an
    end-of-text token.
    """
    if settings.max_pairs:
        pairs = random.Random(seed).sample(list(pairs), min(len(pairs), settings.max_pairs))

    def groups(part: Sequence[Preference]) -> list[reward.Group]:
        def encode(id_: str, messages: tuple[Message, ...], text: str) -> Answer:
            return answer_of(chat_of, messages, text, token_ids=written.get((id_, text)))

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
    return measure_reward_model(fresh, heldout, num_resamples, seed) | {"steps": steps, "num_training_prompts": len(train)}


def measure_reward_model(model: RewardModel, groups: Sequence[reward.Group], num_resamples: int, seed: int) -> dict[str, Any]:
    """Accuracy on decided pairs beside the longest-answer baseline."""
    verdicts = reward.judge_pairs(model, groups)
    owners = [group.prompt_id for group in groups for *_, probability in group.pairs if probability > 0.5]
    return accuracy(verdicts, owners, num_resamples=num_resamples, seed=seed)


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
        run.check(["reward"], [*files, *(Path(name).expanduser() for name in (source, settings.model) if name)])
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
                    written={},
                    num_resamples=config.evaluate.num_resamples,
                    progress=progress,
                )
            )
            write_json(output / "reward" / "result.json", result)

        run.stage("reward", work, settings=settings.model_dump(mode="json") | {"base": source, "seed": seed}, inputs=files)
    return dict(read_json(output / "reward" / "result.json"))


def evaluate_reward_model(folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """`heedful reward evaluate`: accuracy of a saved reward model on pairs."""
    pairs = [pair for file in files for pair in read_preferences(file)]
    if all(pair.probability <= 0.5 for pair in pairs):  # a tie has no right answer
        raise DataError(f"{', '.join(map(str, files))}: all pairs are ties, which say nothing about a model's accuracy")
    model, base = _saved_reward_model(folder)
    groups = reward.group_pairs(pairs, lambda _, messages, text: answer_of(base, messages, text, finished=True))
    return measure_reward_model(model, groups, Config().evaluate.num_resamples, 0)


def score_completions(folder: Path, prompts: Path, completions: Path) -> dict[str, float]:
    """`heedful reward score`: the reward of each completion by id."""
    model, base = _saved_reward_model(folder)
    known = by_id(read_prompts(prompts))
    records = read_completions(completions)
    for record in records:
        if record.prompt_id not in known:
            raise DataError(f"completion {record.id!r} answers prompt {record.prompt_id!r}, which is not in {prompts}")
    answers = [
        answer_of(base, known[record.prompt_id].messages, record.text, finished=record.finish == "stop") for record in records
    ]
    return dict(zip((record.id for record in records), scoring.rewards(model, answers), strict=True))


def _saved_reward_model(folder: Path) -> tuple[RewardModel, LanguageModel]:
    device = choose_device()
    dtype = choose_dtype("auto", device)
    model = load_reward_model(folder, None, dtype=dtype, device=device)
    base = (
        model.model
        if isinstance(model, AdapterReward)
        else load_language_model(Config().model.source, dtype=dtype, device=device)
    )
    return model, base
