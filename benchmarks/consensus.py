"""How long the consensus over labelers takes, and how surely it finds those who click at random, on real votes.

    python benchmarks/consensus.py --data FOLDER [--clickers SEEDS]

FOLDER holds ukpconvarg1/votes.jsonl.gz, 58,843 votes of 3,759 people. Prints a Markdown table of the time that a fit takes and
of the peak memory of the process, each size in a process of its own. With --clickers instead: a tenth of the people's
votes replaced by random ones, as many times as there are seeds; precision and recall among those with 30 votes or more.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from heedful.feedback.bradley_terry import Comparisons, fit
from heedful.feedback.clickers import random_clickers

SIZES = (15_000, 30_000, 60_000)  # the last is cut to all there are
OUTCOME = {"a1": 1, "equal": 0, "a2": -1}


def read(data: Path, num_votes: int) -> Comparisons:
    """Some of the votes, drawn at random; items and labelers are those of these votes."""
    with gzip.open(data / "ukpconvarg1" / "votes.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    picked = np.sort(np.random.default_rng(0).permutation(len(rows))[:num_votes])
    rows = [rows[k] for k in picked]
    items = {name: k for k, name in enumerate(sorted({row[side] for row in rows for side in "ab"}))}
    people = {name: k for k, name in enumerate(sorted({row["labeler"] for row in rows}))}
    columns = [(items[row["a"]], items[row["b"]], people[row["labeler"]], OUTCOME[row["value"]]) for row in rows]
    a, b, labeler, outcome = np.array(columns).T
    return Comparisons(a, b, labeler, outcome, len(items), len(people))


def measure(data: Path, num_votes: int) -> None:
    """One line of the table."""
    votes = read(data, num_votes)
    began = time.perf_counter()
    fit(votes)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    print(
        f"| {len(votes.outcome_C):,} | {votes.num_items:,} | {votes.num_labelers:,} | {seconds:.1f} | {peak:.2f} |", flush=True
    )


def count(data: Path, seed: int) -> tuple[int, int, int]:
    """How many of the accused click at random, how many are accused, how many click at random."""
    votes = read(data, SIZES[-1])
    chance = np.random.default_rng(seed)
    clicks_L = np.zeros(votes.num_labelers, dtype=bool)
    clicks_L[chance.permutation(votes.num_labelers)[: votes.num_labelers // 10]] = True
    drawn = chance.integers(-1, 2, len(votes.outcome_C))
    mixed = replace(votes, outcome_C=np.where(clicks_L[votes.labeler_C], drawn, votes.outcome_C))
    listed = random_clickers(mixed)
    accused = [entry for entry in listed if entry.suspect]
    return (
        sum(bool(clicks_L[entry.labeler]) for entry in accused),
        len(accused),
        int(clicks_L[[e.labeler for e in listed]].sum()),
    )


def line(name: str, hits: int, accused: int, clickers: int) -> None:
    print(f"| {name} | {clickers} | {accused} | {hits / max(accused, 1):.3f} | {hits / max(clickers, 1):.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of real data")
    parser.add_argument("--clickers", type=int, default=0, metavar="SEEDS", help="find random clickers under so many seeds")
    parser.add_argument("--votes", type=int, help=argparse.SUPPRESS)  # one size, in this process
    arguments = parser.parse_args()
    if arguments.votes:
        measure(arguments.data, arguments.votes)
    elif arguments.clickers:
        print("| seed | clickers | accused | precision | recall |\n|---|---|---|---|---|", flush=True)
        counts = np.zeros(3, dtype=int)
        for seed in range(arguments.clickers):
            found = count(arguments.data, seed)
            counts += found
            line(str(seed), *found)
        line("all", *counts.tolist())
    else:
        print("| votes | items | labelers | seconds | peak memory, GB |\n|---|---|---|---|---|", flush=True)
        for size in SIZES:
            own = [sys.executable, __file__, "--data", str(arguments.data), "--votes", str(size)]
            subprocess.run(own, check=True)


if __name__ == "__main__":
    main()
