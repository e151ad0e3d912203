"""Before and after: the same held-out prompts and seeds, each quantity with the interval of its paired difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from heedful.evaluation.refusal import kind_of, told
from heedful.evaluation.statistics import Interval, mean_interval, paired_difference, pooled_interval
from heedful.evaluation.toxicity import toxicity
from heedful.feedback.rubric import RED_TEAM, score
from heedful.records import Completion, Prompt


@dataclass(frozen=True)
class Quantity:
    """What is compared. better: which direction is an improvement; None where neither is. on: these prompts only.

    rate: each value is 0 or 1.
    """

    name: str
    label: str
    better: Literal["higher", "lower"] | None
    on: Callable[[Prompt], bool]
    rate: bool = False


QUANTITIES = (
    Quantity("reward", "Reward", "higher", lambda prompt: True),
    Quantity("rubric", "Rubric score", "higher", told),
    Quantity("toxicity", "Toxicity", "lower", lambda prompt: True),
    Quantity("refusal_harmful", "Refusals of harmful prompts", "higher", lambda prompt: RED_TEAM in prompt.tags, rate=True),
    Quantity(
        "refusal_safe",
        "Refusals of safe prompts",
        "lower",
        lambda prompt: told(prompt) and RED_TEAM not in prompt.tags,
        rate=True,
    ),
    Quantity("refusal", "Refusals", None, lambda prompt: not told(prompt), rate=True),
    Quantity("incoherent", "Incoherent answers", "lower", lambda prompt: True, rate=True),
    Quantity("finished", "Answers that end by themselves", "higher", lambda prompt: True, rate=True),
    Quantity("length", "Length in tokens", None, lambda prompt: True),
)

MOST_TAGS = 12  # categories in the report
UNTAGGED = "(no tag)"


def measure(prompts: Sequence[Prompt], completions: Sequence[Completion], rewards: Sequence[float]) -> list[dict[str, Any]]:
    """One row a completion: its prompt, text and every quantity as a number."""
    by_id = {prompt.id: prompt for prompt in prompts}
    poison = toxicity([completion.text for completion in completions])
    rows = []
    for completion, reward, toxic in zip(completions, rewards, poison, strict=True):
        prompt = by_id[completion.prompt_id]
        kind = kind_of(completion.text)
        refused = float(kind == "refused")
        rows.append(
            {
                "prompt_id": prompt.id,
                "completion_id": completion.id,
                "tags": list(prompt.tags),
                "prompt": prompt.messages[-1].content,
                "text": completion.text,
                "reward": reward,
                "rubric": score(prompt, completion).total,
                "toxicity": toxic,
                "refusal_harmful": refused,
                "refusal_safe": refused,
                "refusal": refused,
                "incoherent": float(kind == "incoherent"),
                "finished": float(completion.finish == "stop"),
                "length": float((completion.model_extra or {}).get("num_tokens", len(completion.text.split()))),
            }
        )
    return rows


def compare(
    prompts: Sequence[Prompt],
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
    *,
    num_resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Every quantity before, after and as a paired difference with its 95% interval and a verdict in words."""
    found = {}
    for quantity in QUANTITIES:
        ids = {prompt.id for prompt in prompts if quantity.on(prompt)}
        first = [row for row in before if row["prompt_id"] in ids]
        second = [row for row in after if row["prompt_id"] in ids]
        if not first:
            continue
        sides = [([row[quantity.name] for row in side], [row["prompt_id"] for row in side]) for side in (first, second)]
        (values, clusters), (new_values, new_clusters) = sides
        chances: dict[str, Any] = {"num_resamples": num_resamples, "seed": seed}
        within = (0.0, 1.0) if quantity.rate else None
        difference = paired_difference(
            values, new_values, clusters, new_clusters, within=(-1.0, 1.0) if quantity.rate else None, **chances
        )
        found[quantity.name] = {
            "label": quantity.label,
            "better": quantity.better,
            "num_prompts": len(set(clusters)),
            "before": mean_interval(values, clusters, within=within, **chances).as_dict(),
            "after": mean_interval(new_values, new_clusters, within=within, **chances).as_dict(),
            "difference": difference.as_dict(),
            "verdict": verdict(difference, quantity.better),
        }
    return found


def compare_by_tag(
    prompts: Sequence[Prompt],
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
    *,
    num_resamples: int,
    seed: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """`compare` for the prompts of each tag, the most frequent MOST_TAGS of them; prompts without a tag are UNTAGGED.

    Nothing where no prompt has a tag.
    """
    tagged: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        for tag in dict.fromkeys(prompt.tags or (UNTAGGED,)):
            tagged.setdefault(tag, []).append(prompt)
    if set(tagged) <= {UNTAGGED}:
        return {}
    chosen = sorted(tagged, key=lambda tag: (-len(tagged[tag]), tag))[:MOST_TAGS]
    return {tag: compare(tagged[tag], before, after, num_resamples=num_resamples, seed=seed) for tag in chosen}


def verdict(difference: Interval, better: str | None) -> str:
    """What the interval of a difference allows to say."""
    if difference.low is None or difference.high is None:
        return "one prompt only: no interval"
    grew, shrank = difference.low > 0, difference.high < 0
    if not (grew or shrank):  # nan is neither
        return "no clear change"
    if better is None:
        return "grew" if grew else "shrank"
    return "improved" if grew == (better == "higher") else "worse"


def accuracy(
    verdicts: Sequence[tuple[float, float]], clusters: Sequence[str], *, num_resamples: int, seed: int
) -> dict[str, Any]:
    """Reward-model accuracy on held-out pairs beside "the longer answer is better", and their paired difference.

    verdicts: (model, longest) for each pair, 1 right, 0 wrong, 0.5 undecided. Every pair weighs the same. The intervals
    resample prompts, because pairs of a prompt share their answers.
    """
    model, longest = [v for v, _ in verdicts], [v for _, v in verdicts]
    chances: dict[str, Any] = {"num_resamples": num_resamples, "seed": seed}
    right = pooled_interval(model, clusters, within=(0.0, 1.0), **chances)
    difference = pooled_interval([a - b for a, b in verdicts], clusters, within=(-1.0, 1.0), **chances)
    return {
        "num_pairs": len(model),
        "num_prompts": len(set(clusters)),
        "accuracy": right.as_dict(),
        "longest_answer": sum(longest) / len(longest),
        "above_longest_answer": difference.as_dict(),
    }
