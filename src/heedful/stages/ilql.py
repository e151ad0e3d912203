"""Implicit Q-learning on files: `heedful align ilql`. Judged completions in, heads and their held-out accuracy out."""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from heedful.config import Config, ILQLSection, says, to_toml
from heedful.data.formats import read_preferences, read_prompts
from heedful.engine.batching import packed_batches
from heedful.engine.device import choose_device, choose_dtype, compile_where_told
from heedful.engine.sampling import tokens_of
from heedful.engine.scoring import MAX_TOKENS
from heedful.errors import ConfigError, DataError
from heedful.evaluation.compare import accuracy
from heedful.models.ilql import ILQLHeads
from heedful.models.policy import LanguageModel, load_language_model
from heedful.models.reward import Answer, answer_of
from heedful.models.trunk.packed import pack
from heedful.progress import telling
from heedful.records import Completion, Message, Preference, Vote, by_id, read_jsonl
from heedful.store import Run, new_folder, read_json, write_json
from heedful.training import ilql
from heedful.training.ilql import Episode
from heedful.training.loop import Progress, silent
from heedful.training.reward import beats, is_heldout, split_by_prompt

# A completion is known by its prompt's id and its text.
Key = tuple[str, str]


def align_ilql(
    config: Config,
    output: Path,
    *,
    preferences: Sequence[Path],
    votes: Sequence[Path] = (),
    prompts: Path | None = None,
    completions: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Trains in output/ilql, saves the heads in output/ilql/policy; goes on where it stopped."""
    if votes and (prompts is None or completions is None):
        raise ConfigError("--votes name completions by their id: give --prompts and --completions as well")
    if config.scale.fsdp and config.scale.num_workers > 1:  # one alone holds the whole base anyway
        raise ConfigError(
            "scale.fsdp = true: ILQL is learned by one process, which holds the whole base; set scale.fsdp = false, or use "
            "another method (heedful align --help)"
        )
    files = [*preferences, *votes, *(path for path in (prompts, completions) if path is not None)]
    folder = output / "ilql"
    told = partial(telling(output, lambda _, *how: progress(*how)), "ilql")

    def work() -> None:
        device = choose_device()
        dtype, wanted = choose_dtype(config.model.dtype, device), config.model
        model = load_language_model(wanted.source, dtype=dtype, device=device, recompute=wanted.recompute)
        compile_where_told(model, wanted.compile)
        if model.encodes:
            raise ConfigError(
                f"model.source = {wanted.source!r} has an encoder, for which heads of ILQL were not made; use a causal "
                "language model, or another method (heedful align --help)"
            )
        if model.adapters:
            raise ConfigError(
                f"model.source = {config.model.source!r} is an adapter; make a plain model of it first with 'heedful export'"
            )
        pairs = [pair for file in preferences for pair in read_preferences(file)]
        written = read_jsonl(completions, Completion, unique="id") if completions else []
        liked = _liked(votes, prompts, completions, written)
        write_json(folder / "result.json", _train(model, pairs, liked, written, folder, config, told))

    with Run(output) as run:
        run.keep_config(to_toml(config), lambda path: says(path, config))
        settings = config.ilql.model_dump(mode="json") | {"model": config.model.for_results(), "seed": config.seed}
        run.stage("ilql", work, settings=settings, inputs=files)
    return dict(read_json(folder / "result.json"))


def _train(
    model: LanguageModel,
    pairs: list[Preference],
    liked: Sequence[tuple[str, tuple[Message, ...], str, float]],
    written: Sequence[Completion],
    folder: Path,
    config: Config,
    progress: Progress,
) -> dict[str, Any]:
    settings, seed = config.ilql, config.seed
    if settings.max_pairs:
        pairs = random.Random(seed).sample(pairs, min(len(pairs), settings.max_pairs))
    train_pairs, heldout_pairs = split_by_prompt(pairs, settings.heldout_share, seed)
    # A vote says something of a completion that a held-out pair may hold: its prompt must not be learned from.
    heard = [vote for vote in liked if not is_heldout(vote[0], settings.heldout_share, seed)]
    decided = [pair for pair in heldout_pairs if pair.probability > 0.5]
    train = _fitting(model, outcomes(train_pairs, heard), written, settings)
    both = {key: (messages, 0.0) for pair in decided for key, messages in _keys(pair)}
    heldout = _fitting(model, both, written, settings)
    decided = [pair for pair in decided if all(key in heldout for key, _ in _keys(pair))]
    if not train or not decided:
        raise DataError(
            f"{len(train)} completions to learn from and {len(decided)} decided held-out pairs are left within "
            f"ilql.max_tokens = {settings.max_tokens}; raise it, label more prompts, or change ilql.heldout_share"
        )
    answers = [*train.values(), *heldout.values()]
    episodes = read_episodes(model, [answer for answer, _ in answers], [outcome for _, outcome in answers], progress)
    kept = dict(zip(heldout, episodes[len(train) :], strict=True))
    heads = ILQLHeads(model.head_VD, rank=settings.rank, width=settings.width, seed=seed)
    judged = [(kept[_keys(pair)[0][0]], kept[_keys(pair)[1][0]]) for pair in decided]
    method, steps = ilql.train(heads, episodes[: len(train)], judged, folder, settings=settings, seed=seed, progress=progress)
    about = {"base": model.source, "policy_version": f"ilql-{seed}-{steps}", "beta": settings.beta, "top_k": settings.top_k}
    with new_folder(folder / "policy") as temporary:
        heads.save(temporary, about)
    verdicts = [
        (beats(method.worth(better)[0], method.worth(worse)[0]), beats(len(pair.chosen), len(pair.rejected)))
        for pair, (better, worse) in zip(decided, judged, strict=True)
    ]
    owners = [pair.prompt_id for pair in decided]
    measured = accuracy(verdicts, owners, num_resamples=config.evaluate.num_resamples, seed=seed)
    return measured | {"steps": steps, "num_training_completions": len(train)}


def outcomes(
    pairs: Sequence[Preference], liked: Sequence[tuple[str, tuple[Message, ...], str, float]]
) -> dict[Key, tuple[tuple[Message, ...], float]]:
    """The outcome of each completion, -1 to 1: the mean over votes and pairs of 2 p - 1 (1 - 2 p where rejected)."""
    heard: dict[Key, list[float]] = defaultdict(list)
    asked: dict[Key, tuple[Message, ...]] = {}
    for pair in pairs:
        for (key, messages), sign in zip(_keys(pair), (1, -1), strict=True):
            heard[key].append(sign * (2 * pair.probability - 1))
            asked[key] = messages
    for prompt_id, messages, text, outcome in liked:
        heard[prompt_id, text].append(outcome)
        asked[prompt_id, text] = messages
    return {key: (asked[key], sum(values) / len(values)) for key, values in heard.items()}


def _keys(pair: Preference) -> list[tuple[Key, tuple[Message, ...]]]:
    return [((pair.prompt_id, text), pair.prompt) for text in (pair.chosen, pair.rejected)]


def _liked(
    votes: Sequence[Path], prompts: Path | None, completions: Path | None, written: Sequence[Completion]
) -> list[tuple[str, tuple[Message, ...], str, float]]:
    """Each vote as prompt id, conversation, text and outcome: 1 for thumbs up, -1 for thumbs down."""
    if not votes or prompts is None or completions is None:
        return []
    asked = by_id(read_prompts(prompts))
    known = {record.id: record for record in written}
    found = []
    for file in votes:
        for vote in read_jsonl(file, Vote):
            completion = known.get(vote.completion_id)
            if completion is None or completion.prompt_id not in asked:
                where = completions if completion is None else prompts
                raise DataError(f"{file}: the completion {vote.completion_id!r} or its prompt is not in {where}")
            messages = asked[completion.prompt_id].messages
            found.append((completion.prompt_id, messages, completion.text, 2.0 * vote.value - 1))
    return found


def _fitting(
    model: LanguageModel,
    judged: dict[Key, tuple[tuple[Message, ...], float]],
    written: Sequence[Completion],
    settings: ILQLSection,
) -> dict[Key, tuple[Answer, float]]:
    """The completions that fit into max_tokens, as the model reads them.

    written: knows the tokens, and what the limit cut off; the others are read from their text and end with an end of text.
    """
    tokens = {(record.prompt_id, record.text): tokens_of(model, record) for record in written}
    answers = {
        key: (answer_of(model, messages, key[1], token_ids=tokens.get(key)), outcome)
        for key, (messages, outcome) in judged.items()
    }
    room = min(settings.max_tokens, model.max_tokens)
    kept = {key: (a, r) for key, (a, r) in answers.items() if len(a.prompt_ids) + len(a.response_ids) <= room}
    if len(kept) < len(answers):
        print(f"{len(answers) - len(kept)} completions beyond {room} tokens were left out", file=sys.stderr)
    return kept


@torch.no_grad()
def read_episodes(
    model: LanguageModel, answers: Sequence[Answer], rewards: Sequence[float], progress: Progress = silent
) -> list[Episode]:
    """Hidden states of the frozen trunk before each response token, in the model's type; the reward is on the last token."""
    found: dict[int, Episode] = {}
    for batch in packed_batches([a.prompt_ids for a in answers], [a.response_ids for a in answers], MAX_TOKENS):
        rows = [answers[i] for i in batch]
        packed = pack([a.prompt_ids for a in rows], [a.response_ids for a in rows], device=model.device)
        hidden_MD = packed.predicting(model.read(packed, adapter=None))
        sizes = packed.lengths
        parts = zip(batch, torch.split(hidden_MD, sizes), torch.split(packed.targets_M, sizes), strict=True)
        for i, hidden_TD, actions_T in parts:
            rewards_T = torch.zeros(len(actions_T), device=model.device)
            rewards_T[-1:] = rewards[i]
            found[i] = Episode(hidden_TD.clone(), actions_T, rewards_T)
        progress(0, 0, f"reading completions {len(found)}/{len(answers)}")
    return [found[i] for i in range(len(answers))]
