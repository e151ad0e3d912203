"""DICES-350: 89 real raters, each of whom said of the same 233 conversations whether the last answer is unsafe.

Aroyo et al., "DICES dataset: diversity in conversational AI evaluation for safety", NeurIPS 2023. A label of 1 is good: the
rater did not call the answer unsafe. "Unsure" is no label.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from heedful.persons.features import Text
from heedful.persons.labels import Label, Labels, gather
from heedful.records import Message

NUM_ITEMS, NUM_RATERS = 233, 89


def read(data: Path) -> tuple[Labels, list[Text]]:
    """Votes, and the conversations in the order of labels.texts. data: the folder of real data."""
    with gzip.open(data / "dices" / "ratings.jsonl.gz", "rt") as file:
        rows = {row["item"]: row for row in map(json.loads, file)}
    labels = gather(
        Label(rater, item, None, 1.0 - value)
        for item, row in rows.items()
        for rater, value in row["unsafe"].items()
        if value is not None
    )
    assert (len(labels.texts), len(labels.persons)) == (NUM_ITEMS, NUM_RATERS)
    texts = [
        Text(item, item, (Message(role="user", content=rows[item]["prompt"]),), rows[item]["response"]) for item in labels.texts
    ]
    return labels, texts
