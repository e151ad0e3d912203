"""make bench: heedful beside its peers on this machine, on the same token ids, each work in turn by either side.

Every turn is a process of its own that warms up one step and times a few. Finished turns are kept in the work folder, so an
interrupted run goes on where it stopped. Prints a table and compares it with benchmarks/results.json, the gate:

Ratios to the peer and shares of the measured limit that fell by more than --gate end the command with code 1 and a sentence
each. This is no unit test, because it takes an hour, needs a quiet machine and the peers' environments, and a time that
passes or fails by itself teaches people to run tests until they pass. It is for the one who changes the engine: run it before
and after. --accept writes this run's figures as the new results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from compare import GATE_SHARE, Figures, same_work, slower, spread, summarise, table
from inputs import prepare
from machine import describe
from measure import Bench, chosen
from works import WORKS, Work

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
BESIDE = HERE.parent.parent / "shared" / "data"


def figures_of(bench: Bench, work: Work, repeats: int) -> Figures:
    """All turns of a work, heedful first and then the peer; ends the command when the two did not do the same work."""
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    gemms: list[dict[str, Any]] = []
    for repeat in range(repeats):
        gemms.append(bench.gemm(work, repeat))
        ours.append(bench.turn(work, "heedful", repeat))
        if work.peer:
            theirs.append(bench.turn(work, "peer", repeat))
            problems = same_work(work.title, ours[-1], theirs[-1])
            if problems:
                sys.exit(
                    "\n".join(problems) + "\nThe sides did different work, so their times say nothing. Turns: "
                    f"{bench.work / 'turns'}; compare heedful_turn.py with {work.script}, or mend the engine"
                )
    found = summarise(ours, theirs, work.unit) | {"title": work.title, "peer_is": work.peer, "settings": work.settings}
    if work.name != "linear":
        needed = bench.needed_flops(work)
        limits = [gemm["bfloat16"]["flops"] for gemm in gemms]
        found["needed_flops"] = needed
        found["share"] = spread([needed / turn["total_s"] / limit for turn, limit in zip(ours, limits, strict=True)])
    return found


def linear_table(figures: Figures) -> str:
    """Seconds a token at each number of pairs, and as a multiple of the smallest's."""
    lines = ["", "DPO on more pairs a step: pairs, tokens, seconds, milliseconds a token, times the first"]
    sizes = [turn["sizes"] for turn in figures["heedful"]["turns"]]
    first = 0.0
    for rows in zip(*sizes, strict=True):
        seconds = spread([row["seconds"] for row in rows])["median"]
        each = 1000 * seconds / rows[0]["num_tokens"]
        first = first or each
        lines.append(f"{rows[0]['pairs']:>6}{rows[0]['num_tokens']:>9}{seconds:>9.2f}{each:>8.2f}{each / first:>8.2f}")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds hh/; default: HEEDFUL_DATA, or ../shared/data, or bundled")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"of {', '.join(WORKS)}; may be repeated")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of turns (default 3)")
    parser.add_argument("--quick", action="store_true", help="one short step a turn: shows that all works; no figures to keep")
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="folder of inputs and finished turns")
    parser.add_argument("--anew", action="store_true", help="forget finished turns first")
    parser.add_argument("--gate", type=float, default=GATE_SHARE, help=f"fall that is reported (default {GATE_SHARE})")
    parser.add_argument("--accept", action="store_true", help="write benchmarks/results.json")
    found = parser.parse_args()
    if found.repeats < 1:
        parser.error(f"--repeats {found.repeats}: give 1 or more")
    if found.quick and found.accept:
        parser.error("--accept: the figures of --quick are of no use; run without it")
    return found


def main() -> None:
    arguments = options()
    listed = chosen(WORKS, arguments.only)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the turn that is under way ends with this process
    given = arguments.data or (Path(os.environ["HEEDFUL_DATA"]) if os.environ.get("HEEDFUL_DATA") else None)
    if given is not None and not (given / "hh").is_dir():
        sys.exit(f"{given}: holds no folder hh; name the one above hh/harmless.jsonl.gz, or leave --data and HEEDFUL_DATA out")
    folder: Path = arguments.work.resolve()
    if arguments.anew:
        shutil.rmtree(folder / "turns", ignore_errors=True)
    works: dict[str, Figures] = {}
    try:
        bench = Bench(prepare(folder, given or BESIDE), folder, arguments.quick)
        for work in listed:
            works[work.name] = figures_of(bench, work, arguments.repeats)
        gemms = [bench.gemm(work, repeat) for work in listed for repeat in range(arguments.repeats)]
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; finished turns are kept, and the same command goes on from there (--anew forgets them)")
    limits = {name: spread([gemm[name]["flops"] for gemm in gemms]) for name in ("bfloat16", "float32")}
    print(table(works))
    if "linear" in works:
        print(linear_table(works["linear"]))
    said = ", ".join(f"{name} {limit['median'] / 1e12:.2f}" for name, limit in limits.items())
    print(f"\nlimit: measured matrix products, TFLOP/s: {said}; peak memory is the process's, loading included")
    latest = {
        "machine": describe(),
        # The folder of data is somebody's own; what it holds is under "data".
        "command": " ".join(["python", "benchmarks/run.py", *("DATA" if Path(a) == given else a for a in sys.argv[1:])]),
        "repeats": arguments.repeats,
        "data": bench.inputs["source"],
        "limit_flops": limits,
        "works": works,
    }
    (folder / "latest.json").write_text(json.dumps(latest, indent=1) + "\n")
    judge(arguments, latest, folder)


def judge(arguments: argparse.Namespace, latest: dict[str, Any], folder: Path) -> None:
    """The regression gate, or the new results."""
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if arguments.accept:
        old, new = (found.get("machine", {}).get("cpu") for found in (before, latest))
        if arguments.only and before and old != new:
            sys.exit(f"--accept with --only: {RESULTS} is of another machine ({old}, here {new}); measure all works here")
        # Works that this run left out keep their figures.
        latest["works"] = before.get("works", {}) | latest["works"]
        RESULTS.write_text(json.dumps(latest, indent=1) + "\n")
        shutil.rmtree(folder / "turns", ignore_errors=True)
        print(f"{RESULTS} holds these figures now")
        return
    if arguments.quick:
        print("a smoke run: nothing compared")
        return
    for key in ("cpu", "bfloat16_flags", "torch_threads"):
        old, new = before.get("machine", {}).get(key), latest["machine"][key]
        if before and old != new:
            print(f"results.json was measured on another machine ({key} {old}, here {new}): ratios may differ for that alone")
    told = slower(latest["works"], before.get("works", {}), arguments.gate)
    if told:
        print(f"\nslower than benchmarks/results.json by more than {arguments.gate:.0%}:")
        print("\n".join(told))
        print("Look for what changed, or accept these figures with --accept when they are what is wanted.")
        sys.exit(1)
    print("nothing is slower than benchmarks/results.json" if before else "no results.json to compare with; --accept writes it")


if __name__ == "__main__":
    main()
