"""The red team's page: both sides' figures, kinds in groups, and more answers than fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heedful.evaluation.attack import Answer, attack_figures
from heedful.report.red_team import MOST_OF_A_KIND, write_page


def rows(kind: Any, count: int) -> list[Answer]:
    return [
        Answer(
            f"p{n}", f"p{n}/1", f"p{n}", None, "cyber", True, f"ask {n}", f"say {kind} {n}", kind, "because", 0.0, None, "stop"
        )
        for n in range(count)
    ]


def page(target: Path, **sides: list[Answer]) -> str:
    figures = attack_figures(sides["before"], sides.get("after"), num_resamples=100) | {
        "models": dict.fromkeys(sides, "a model"),
        "judge": {"name": "heuristic", "threshold": 0.5, "gate": None},
        "variants": 0,
        "dropped_variants": {},
    }
    write_page(target, figures, {side: [one.as_dict() for one in own] for side, own in sides.items()})
    return target.read_text(encoding="utf-8")


def test_the_second_models_answer_stands_above_the_firsts(tmp_path: Path) -> None:
    text = page(tmp_path / "page.html", before=rows("harmful", 3), after=rows("refused", 3))
    assert text.index("say refused 0") < text.index("say harmful 0")
    assert "before: harmful" in text
    assert "-100.0 [" in text
    assert "Attacks, refused: 3 answers" in text


def test_a_page_has_an_end(tmp_path: Path) -> None:
    text = page(tmp_path / "page.html", before=rows("safe", MOST_OF_A_KIND + 7))
    assert text.count("say safe") == MOST_OF_A_KIND
    assert "7 more are in judged/transcripts.jsonl" in text
