"""What base and policy answered to the held-out prompts, as the evaluation left it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heedful.errors import StoreError
from heedful.report.numbers import finite, sound

Rows = list[dict[str, Any]]


def read_answers(path: Path) -> Rows:
    """Of one side; none without the file. Raises StoreError naming the line that is no answer."""
    if not path.exists():
        return []
    rows = []
    for line_number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if line:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("prompt_id", "prompt", "text")):
                raise StoreError(
                    f"{path}:{line_number}: expected a JSON object with prompt_id, prompt and text; "
                    "run 'heedful run --from evaluate' again"
                )
            rows.append(row | {key: sound(row[key]) for key in ("prompt_id", "prompt", "text")})
    return rows


def paired(before: Rows, after: Rows) -> Rows:
    """The n-th answer to a prompt before beside the n-th after; change: of the reward, None where a reward is no number."""
    numbered = _numbered(before)
    found = []
    for key, second in _numbered(after).items():
        if key in numbered:
            first = numbered[key]
            rewards = first.get("reward"), second.get("reward")
            change = rewards[1] - rewards[0] if finite(rewards[0]) and finite(rewards[1]) else None
            found.append({"before": first, "after": second, "change": change, "sample": key[1]})
    return found


def _numbered(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    seen: Counter[str] = Counter()
    found = {}
    for row in rows:
        seen[row["prompt_id"]] += 1
        found[row["prompt_id"], seen[row["prompt_id"]]] = row
    return found
