"""heedful data convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.flow import JSON

app = typer.Typer()


@app.callback()
def group() -> None:
    """Public data formats."""


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A .jsonl, .json, .csv or .txt file, packed with gzip or not.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The JSONL file to write.")],
    form: Annotated[
        str, typer.Option("--from", help="hh, trl, dialogsum, xstest, rtp, harmbench, advbench, garak or heedful.")
    ],
    to: Annotated[str, typer.Option("--to", help="heedful, trl or hh.")] = "heedful",
    heldout_share: Annotated[float, typer.Option(min=0, max=1, help="Share of prompts that get split heldout.")] = 0.0,
    as_json: JSON = False,
) -> None:
    """Read a public format into heedful's records, or write preferences in one.

    Example: `heedful data convert --from hh harmless.jsonl.gz preferences.jsonl`
    """
    from dataclasses import asdict

    from heedful.cli.terminal import emit
    from heedful.data import formats

    report = formats.convert(form, source, target, to=to, heldout_share=heldout_share)
    skipped = "".join(f"\nleft out {count}: {reason}" for reason, count in (report.skipped or {}).items())
    emit(asdict(report) | {"output": str(target)}, as_json, f"{report.written} of {report.read} rows in {target}{skipped}")
