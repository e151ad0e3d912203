"""The list of runs, a run's page, its answers, its report, and several runs side by side. For admins: labelers judge blind."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.paginator import Paginator
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from heedful.errors import StoreError
from heedful.web.labelling.views.rights import admin_only
from heedful.web.runs import answers, awaited, chains, compared, live
from heedful.web.runs.catalogue import Found, find_run, find_runs
from heedful.web.runs.quantities import compared_plots, plots_of
from heedful.web.runs.standing import config_of, standing
from heedful.web.runs.views.policies import boxed, drawn_by_plotly

A_PAGE = 20  # answers
MOST_COMPARED = 6


def run_or_404(name: str) -> Found:
    found = find_run(settings.RUNS, name)
    if found is None:
        raise Http404(f"there is no run {name!r}")
    return found


@admin_only
@require_GET
def listing(request: HttpRequest) -> HttpResponse:
    rows: list[dict[str, Any]] = []
    found = find_runs(settings.RUNS)
    for run in found.runs:
        config = config_of(run.path)
        rows.append(
            {
                "run": run,
                "standing": awaited.up_to_date(standing(run.path, config)),
                "config": config,
                "outcome": compared.outcomes(run.path).get("reward"),
            }
        )
    rows.sort(key=lambda row: (row["standing"].state not in ("running", "waiting"), -_begun(row["run"])))
    return render(request, "runs/listing.html", {"rows": rows, "most": MOST_COMPARED, "found": found})


def _begun(run: Found) -> float:
    try:
        return (run.path / "manifest.json").stat().st_mtime
    except OSError:
        return 0.0


@admin_only
@drawn_by_plotly
@never_cache
@require_GET
def run(request: HttpRequest, name: str) -> HttpResponse:
    found = run_or_404(name)
    stages = live.stage_names(found.path)
    stage = request.GET.get("stage", "")
    if stage not in stages:
        stage = stages[-1] if stages else ""
    shown = {
        "run": found,
        "settings": compared.settings_text(found.path),
        "stages": stages,
        "stage": stage,
        "plots": plots_of(stage, live.columns_of(found.path, stage)),
        "now": live.look(found.path, stage, curves=(), refreshed=awaited.up_to_date),
        "project": awaited.address_of(standing(found.path, config_of(found.path))),
        "has_report": (found.path / "report.html").exists(),
        "has_answers": (found.path / "evaluate" / "after.jsonl").exists(),
        "has_chains": chains.has_chains(found.path),
        "table": list(compared.outcomes(found.path).values()),
    }
    return render(request, "runs/run.html", shown)


@admin_only
@never_cache
@require_GET
def data(request: HttpRequest, name: str) -> HttpResponse:
    found = run_or_404(name)
    wanted = request.GET.get("curves")
    told = live.look(
        found.path,
        request.GET.get("stage", ""),
        seen=request.GET.get("seen", ""),
        curves=None if wanted is None else wanted.split(","),
        refreshed=awaited.up_to_date,
    )
    return HttpResponse(json.dumps(told, allow_nan=False), content_type="application/json")


@admin_only
@require_GET
def answers_page(request: HttpRequest, name: str) -> HttpResponse:
    found = run_or_404(name)
    text, order, tag = (request.GET.get(field, "").strip() for field in ("q", "order", "tag"))
    shown: dict[str, Any] = {"run": found, "q": text, "order": order, "tag": tag, "orders": answers.ORDERS}
    try:
        rows = answers.search(found.path, text, order, tag)
        page = Paginator(rows, A_PAGE).get_page(request.GET.get("page"))
        shown |= {
            "tags": answers.tags_of(found.path),
            "count": len(rows),
            "page": page,
            "pairs": [answers.shown(row) for row in page],
            "measured": all((found.path / "evaluate" / f"{side}.jsonl").exists() for side in ("before", "after")),
        }
    except StoreError as error:
        shown["problem"] = str(error)
    fields = request.GET.copy()
    fields.pop("page", None)
    return render(request, "runs/answers.html", shown | {"fields": fields.urlencode()})


@admin_only
@require_GET
def chains_page(request: HttpRequest, name: str) -> HttpResponse:
    found = run_or_404(name)
    asked = {field: request.GET.get(field, "").strip() for field in ("q", "verdict", "principle")}
    shown: dict[str, Any] = {"run": found} | asked
    try:
        read = chains.read_chains(found.path)
        rows = chains.search(read, asked["q"], asked["verdict"], asked["principle"])
        page = Paginator(rows, A_PAGE).get_page(request.GET.get("page"))
        shown |= {
            "total": len(read),
            "count": len(rows),
            "page": page,
            "chains": [chains.shown(chain) for chain in page],
            "verdicts": chains.verdicts_of(read),
            "principles": chains.principles_of(read),
        }
    except StoreError as error:
        shown["problem"] = str(error)
    fields = request.GET.copy()
    fields.pop("page", None)
    return render(request, "runs/chains.html", shown | {"fields": fields.urlencode()})


@admin_only
@drawn_by_plotly
@require_GET
def compare(request: HttpRequest) -> HttpResponse:
    asked = request.GET.getlist("run")
    chosen = [run for run in find_runs(settings.RUNS).runs if run.name in asked]
    left_out, chosen = len(chosen[MOST_COMPARED:]), chosen[:MOST_COMPARED]
    stages = [compared.trained_stage(run.path) for run in chosen]
    columns = [live.columns_of(run.path, stage) for run, stage in zip(chosen, stages, strict=True)]
    shown = {
        "chosen": list(zip(chosen, stages, strict=True)),
        "left_out": left_out,
        "plots": compared_plots(columns),
        "table": compared.side_by_side([run.path for run in chosen]),
        "settings": compared.differing([config_of(run.path) for run in chosen]),
    }
    return render(request, "runs/compare.html", shown)


@admin_only
@boxed
@never_cache
@require_GET
def report(request: HttpRequest, name: str) -> HttpResponseBase:
    path = run_or_404(name).path / "report.html"
    if not path.exists():
        raise Http404("this run has no report yet")
    return FileResponse(path.open("rb"), content_type="text/html; charset=utf-8")
