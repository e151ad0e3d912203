"""Before and after: the base and the policy answer the same held-out prompts, and both are measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from heedful.config import EvaluateSection
from heedful.engine import scoring
from heedful.engine.episodes import World
from heedful.engine.generation import Decoding
from heedful.engine.sampling import play_completions, recorded_answer, sample_completions
from heedful.evaluation.compare import compare, compare_by_tag, measure
from heedful.evaluation.phrases import repeated_phrases
from heedful.evaluation.statistics import mean_interval, paired_difference
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.reward import Answer
from heedful.records import Completion, Prompt, by_id
from heedful.store import write_json, write_text

SIDES = (("before", None), ("after", POLICY))  # name and adapter


def evaluate(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    folder: Path,
    *,
    score: Callable[[Sequence[Answer]], list[float]],
    settings: EvaluateSection,
    batch_rows: int,
    max_prompt_tokens: int,
    seed: int,
    progress: Callable[[int, int, str], None],
    world: World | None = None,
) -> None:
    """Writes into `folder`: completions of both sides, what was measured of each, and compare.json.

    The model carries the adapter "policy". An interrupted evaluation goes on with the completions that are there. world: what
    answers the policy while it acts; then episodes.json holds what it measured, before and after.
    """
    messages = {id_: prompt.messages for id_, prompt in by_id(prompts).items()}
    episodes: dict[str, list[Completion]] = {}
    sides: dict[str, list[dict[str, Any]]] = {}
    for number, (name, adapter) in enumerate(SIDES):
        target, decoding = folder / f"completions-{name}.jsonl", Decoding(settings.temperature, 1.0, settings.max_new_tokens)
        how: dict[str, Any] = {
            "adapter": adapter,
            "name": model.source,
            "policy_version": name,
            "num_completions": settings.num_completions,
            "batch_rows": batch_rows,
            "max_prompt_tokens": max_prompt_tokens,
            "seed": seed + 1,
            "progress": progress,
        }
        if world is not None:
            completions = play_completions(model, world, prompts, target, decoding, **how)
            episodes[name] = completions
        else:
            completions = sample_completions(model, prompts, target, decoding, **how)
        answers = [recorded_answer(model, messages[record.prompt_id], record) for record in completions]
        sides[name] = measure(prompts, completions, score(answers))
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in sides[name]))
        progress(number + 1, len(SIDES), name)
    scored = scoring.score_responses(
        model,
        [answer.prompt_ids for answer in answers],
        [answer.response_ids for answer in answers],
        temperature=settings.temperature,
    )
    chances: dict[str, Any] = {"num_resamples": settings.num_resamples, "seed": seed}
    penalised = [float(s.kl_T[torch.tensor(a.written)].sum()) for s, a in zip(scored, answers, strict=True)]
    kl = mean_interval(penalised, [record.prompt_id for record in completions], **chances)
    answered = {row["prompt_id"] for row in sides["before"]}
    asked = [prompt for prompt in prompts if prompt.id in answered]
    compared = compare(asked, sides["before"], sides["after"], **chances)
    by_tag = compare_by_tag(asked, sides["before"], sides["after"], **chances)
    if episodes:
        write_json(folder / "episodes.json", compare_episodes(episodes["before"], episodes["after"], **chances))
    write_json(folder / "compare.json", {"compare": compared, "by_tag": by_tag, "kl": kl.as_dict()})


class Versioned(NamedTuple):
    """compared: as `evaluation.compare.compare` gives it. scores: by name, of old and new answers, in the order of prompts."""

    compared: dict[str, dict[str, Any]]
    scores: dict[str, tuple[list[float], list[float]]]
    prompts: list[str]


def evaluate_versions(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    folder: Path,
    *,
    sides: Sequence[tuple[str, Callable[[], None]]],
    scores: Mapping[str, Callable[[Sequence[Answer]], list[float]]],
    settings: EvaluateSection,
    batch_rows: int,
    max_prompt_tokens: int,
    seed: int,
    progress: Callable[[int, int, str], None],
) -> Versioned:
    """Two versions of the adapter "policy" on the same prompts and seeds; writes what `evaluate` does, compare.json aside.

    sides: "before" and "after", and what puts the version in place. scores: the first of them is the reward.
    """
    messages = {id_: prompt.messages for id_, prompt in by_id(prompts).items()}
    sampled: dict[str, list[Completion]] = {}
    for number, (name, take) in enumerate(sides, start=1):
        take()
        sampled[name] = sample_completions(
            model,
            prompts,
            folder / f"completions-{name}.jsonl",
            Decoding(settings.temperature, 1.0, settings.max_new_tokens),
            adapter=POLICY,
            name=model.source,
            policy_version=name,
            num_completions=settings.num_completions,
            batch_rows=batch_rows,
            max_prompt_tokens=max_prompt_tokens,
            seed=seed + 1,
            progress=lambda *_: None,
        )
        progress(number, len(sides), name)
    old, new = sampled.values()
    rows: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, tuple[list[float], list[float]]] = {}
    answers = [[recorded_answer(model, messages[one.prompt_id], one) for one in side] for side in (old, new)]
    for name, score in scores.items():
        found[name] = (score(answers[0]), score(answers[1]))
    for name, side, rewards in zip(sampled, (old, new), next(iter(found.values())), strict=True):
        rows[name] = measure(prompts, side, rewards)
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows[name]))
    answered = {one.prompt_id for one in old}
    asked = [prompt for prompt in prompts if prompt.id in answered]
    first, second = rows.values()
    compared = compare(asked, first, second, num_resamples=settings.num_resamples, seed=seed)
    return Versioned(compared, found, [one.prompt_id for one in old])


def compare_episodes(
    before: Sequence[Completion], after: Sequence[Completion], *, num_resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Each number that the environment measured: its mean before and after, and the paired difference, with intervals."""
    found: dict[str, dict[str, Any]] = {}
    chances: dict[str, Any] = {"num_resamples": num_resamples, "seed": seed}
    infos = [[(record.prompt_id, dict((record.model_extra or {})["info"])) for record in side] for side in (before, after)]
    for name in dict.fromkeys(name for side in infos for _, info in side for name in info):
        sides = [([float(info.get(name, 0.0)) for _, info in side], [id_ for id_, _ in side]) for side in infos]
        (values, clusters), (new_values, new_clusters) = sides
        found[name] = {
            "before": mean_interval(values, clusters, **chances).as_dict(),
            "after": mean_interval(new_values, new_clusters, **chances).as_dict(),
            "difference": paired_difference(values, new_values, clusters, new_clusters, **chances).as_dict(),
        }
    return found


def phrases_of(folder: Path) -> list[dict[str, Any]]:
    """Phrases that the policy has come to repeat, from the answers that `evaluate` left in the folder."""
    lines = [(folder / f"{name}.jsonl").read_text("utf-8").split("\n") for name, _ in SIDES]
    before, after = ([str(json.loads(line)["text"]) for line in side if line] for side in lines)
    return [phrase._asdict() for phrase in repeated_phrases(before, after)]
