"""All that follows from judgements, written as the files of a consensus folder; it can be rebuilt at any time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heedful.errors import DataError
from heedful.feedback.consensus import check, consensus
from heedful.feedback.labelers import agreement, labeler_quality
from heedful.feedback.pairs import preferences
from heedful.records import Completion, Judgement, Prompt
from heedful.store import write_json, write_jsonl


def settle_into(
    folder: Path,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    judgements: Sequence[Judgement],
    *,
    include_ties: bool = False,
) -> dict[str, Any]:
    """Writes preferences.jsonl, labelers.json and agreement.json; returns the agreement with the number of pairs.

    include_ties: level completions make pairs too, with probability 0.5 and margin 0.
    Raises DataError when a judgement names what does not exist, or when no pair at all comes out.
    """
    check(prompts, completions, judgements)
    settled = consensus(judgements)
    pairs = preferences(prompts, completions, judgements, settled, include_ties=include_ties)
    if not pairs:
        flagged = sum(len(result.flagged) for result in settled)
        raise DataError(
            f"{len(judgements)} judgements of {len(settled)} prompts leave no pair to learn from ({flagged} completions are "
            "flagged, the rest are level); sample better completions (lower sample.temperature) or label more prompts"
        )
    numbers = agreement(judgements) | {
        "num_pairs": len(pairs),
        "num_flagged_completions": sum(len(result.flagged) for result in settled),
        "num_prompts_without_pair": len(settled) - len({pair.prompt_id for pair in pairs}),
    }
    write_jsonl(folder / "preferences.jsonl", pairs)
    write_json(folder / "labelers.json", [quality.model_dump(mode="json") for quality in labeler_quality(judgements)])
    write_json(folder / "agreement.json", numbers)
    return numbers
