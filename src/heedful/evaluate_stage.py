"""Before and after: the base and the policy answer the same held-out prompts, and both are measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from heedful.config import EvaluateSection
from heedful.engine import scoring
from heedful.engine.generation import Decoding
from heedful.engine.sampling import sample_completions, tokens_of
from heedful.evaluation.compare import compare, compare_by_tag, measure
from heedful.evaluation.phrases import repeated_phrases
from heedful.evaluation.statistics import mean_interval
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.reward import Answer, answer_of
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
) -> None:
    """Writes into `folder`: completions of both sides, what was measured of each, and compare.json.

    The model carries the adapter "policy". An interrupted evaluation goes on with the completions that are there.
    """
    messages = {id_: prompt.messages for id_, prompt in by_id(prompts).items()}
    sides: dict[str, list[dict[str, Any]]] = {}
    for number, (name, adapter) in enumerate(SIDES):
        completions = sample_completions(
            model,
            prompts,
            folder / f"completions-{name}.jsonl",
            Decoding(settings.temperature, 1.0, settings.max_new_tokens),
            adapter=adapter,
            name=model.source,
            policy_version=name,
            num_completions=settings.num_completions,
            batch_rows=batch_rows,
            max_prompt_tokens=max_prompt_tokens,
            seed=seed + 1,
            progress=progress,
        )
        answers = [answer_of(model, messages[c.prompt_id], c.text, token_ids=tokens_of(model, c)) for c in completions]
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
    kl = mean_interval([float(s.kl_T.sum()) for s in scored], [record.prompt_id for record in completions], **chances)
    answered = {row["prompt_id"] for row in sides["before"]}
    asked = [prompt for prompt in prompts if prompt.id in answered]
    compared = compare(asked, sides["before"], sides["after"], **chances)
    by_tag = compare_by_tag(asked, sides["before"], sides["after"], **chances)
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
    (old, new), rows = sampled.values(), {}
    found: dict[str, tuple[list[float], list[float]]] = {}
    answers = [
        [answer_of(model, messages[one.prompt_id], one.text, token_ids=tokens_of(model, one)) for one in side]
        for side in (old, new)
    ]
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


def phrases_of(folder: Path) -> list[dict[str, Any]]:
    """Phrases that the policy has come to repeat, from the answers that `evaluate` left in the folder."""
    lines = [(folder / f"{name}.jsonl").read_text("utf-8").split("\n") for name, _ in SIDES]
    before, after = ([str(json.loads(line)["text"]) for line in side if line] for side in lines)
    return [phrase._asdict() for phrase in repeated_phrases(before, after)]
