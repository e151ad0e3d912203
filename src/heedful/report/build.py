"""A run directory as pages that open offline: did it get better, at what cost, can it be trusted.

report.html for people, report.md for wherever Markdown is read, and a model card in the folder of the policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import escape

from heedful.report import differences, findings, hacking, plots, table
from heedful.report.answers import Rows
from heedful.report.card import write_cards
from heedful.report.contents import Contents, gather, said_on_the_way
from heedful.report.markdown import render
from heedful.report.numbers import bounds, clip, duration, number, percent, plural, signed, sound
from heedful.report.provenance import facts
from heedful.report.reproduction import reproduction
from heedful.store import write_text

READY_MADE = "The preferences came ready-made, or the reward needs none, so there are no judgements to compare."
STAGES = ("consensus", "reward", "ppo", "evaluate", "report")
MAX_REST_BYTES = 2_000_000  # of "All other held-out answers"; the whole page is to stay below 8 MB


def build(run: Path) -> Path:
    """Writes report.html, report.md and the policy's card from the files that are there, and returns the first.

    A stage that has not run yet leaves a sentence in its place. Raises StoreError for a file that is there and cannot be read.
    """
    contents = gather(run)
    common = _common(contents)
    target = run / "report.html"
    _write(target, _html(contents, common))
    _write(run / "report.md", _markdown(contents, common))
    write_cards(run, contents)
    return target


def _common(contents: Contents) -> dict[str, Any]:
    """What both pages show."""
    summary = contents.summary
    return {
        "summary": summary,
        "headline": findings.headline(summary),
        "stopped": findings.stopped(summary),
        "answers": [
            ("Did it get better?", findings.better(summary), "evaluate"),
            ("At what cost?", findings.cost(summary), "ppo"),
            ("Can I trust it?", findings.trust(summary), "reward"),
        ],
        "notices": contents.notices,
        "reward_model": findings.reward_model(summary),
        "table": table.compare_table(summary),
        "categories": table.by_category(summary),
        "watched": hacking.was_watched(contents.metrics),
        "signs": hacking.sign_table(contents.metrics, contents.signs),
        "alpha": findings.alpha_of(summary),
        "facts": facts(contents) if summary else [],
        "again": reproduction(contents),
        "ready_made": READY_MADE,
        "awaited": {stage: _awaited(stage, contents.manifest) for stage in STAGES},
    }


def _html(contents: Contents, common: dict[str, Any]) -> str:
    summary, metrics = contents.summary, contents.metrics
    groups = {
        "differences": differences.difference_figures(summary),
        "evaluate": plots.histogram_figures(contents.before, contents.after) if contents.pairs else [],
        "ppo": plots.ppo_figures(metrics, summary.get("kl_target")),
        "health": plots.health_figures(metrics),
        "monitor": hacking.monitor_figures(metrics, contents.signs, summary),
        "limits": hacking.limit_figures(metrics, summary.get("kl_target")),
        "reward": plots.reward_figures(metrics),
    }
    rest = _within(contents.rest, MAX_REST_BYTES)
    return _template().render(
        **common,
        predicted=findings.predicted(summary),
        figures=groups,
        plotly=plots.script() if any(groups.values()) else "",
        thinned=plots.thinning(metrics),
        said=said_on_the_way(contents.samples),
        num_pairs=len(contents.pairs),
        examples=contents.examples,
        worst=contents.worst,
        rest=rest,
        unshown=len(contents.rest) - len(rest),
        versions=contents.manifest.get("versions", {}),
        git_revision=contents.manifest.get("git_revision"),
    )


def _markdown(contents: Contents, common: dict[str, Any]) -> str:
    summary = contents.summary
    about = [summary.get("model", "a run that is not finished")]
    about += [f"seed {summary['seed']}"] if "seed" in summary else []
    about += [str(summary["created_at"]).replace("T", " ")] if "created_at" in summary else []
    about += [f"heedful {summary['heedful_version']}"] if "heedful_version" in summary else []
    number_of = f"{len(contents.examples)} of {plural(len(contents.pairs), 'held-out answer')}, drawn at random"
    shown = [(number_of, contents.examples), ("The largest losses of reward", contents.worst)] if contents.pairs else []
    return render("report.md.jinja", **common, about=", ".join(map(str, about)), shown_pairs=shown)


def _write(target: Path, page: str) -> None:
    write_text(target, sound(page))


def _within(pairs: Rows, limit: int) -> Rows:
    """As many of the pairs, from the first on, as their text leaves room for."""
    kept, size = [], 0
    for pair in pairs:
        texts = (pair["before"]["prompt"], pair["before"]["text"], pair["after"]["text"])
        size += 600 + sum(len(escape(clip(sound(text))).encode()) for text in texts)
        if size > limit:
            break
        kept.append(pair)
    return kept


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("heedful.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        **{"number": number, "signed": signed, "percent": percent, "bounds": bounds, "duration": duration},
        **{"clip": clip, "plural": plural},
    }
    return environment.get_template("report.html.jinja")


def _awaited(stage: str, manifest: dict[str, Any]) -> str:
    """Why a section is empty. The numbers of a finished stage reach the page only with summary.json."""
    stages = manifest.get("stages", {})
    if stage == "consensus" and stage not in stages and "reward" in stages:
        return READY_MADE
    state = stages.get(stage, {}).get("state")
    if state == "done":
        return f"The {stage} stage has run; its numbers come with the report stage."
    return f"The {stage} stage has not finished yet." if state else f"The {stage} stage has not run yet."
