"""Two rounds against one with the same labels and steps: python benchmarks/rounds.py --output FOLDER [--seeds 5] [--set K=V]

The recipe recipes/rounds.toml, its prompts' labels in two portions of which the second is of the first round's policy, and
beside it one round that has all labels from the base's answers and as many steps in all. Both are measured by the rubric of the
simulated labelers on the same held-out prompts with the same draws. A seed that is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from heedful.cli.terminal import Bars
from heedful.config import Config, load
from heedful.evaluation.statistics import mean_interval, paired_difference
from heedful.flows.rounds import run_rounds
from heedful.pipeline import Pipeline
from heedful.report.answers import read_answers
from heedful.rounds import folder_of
from heedful.store import Run, read_json, write_json

RECIPE = Path(__file__).parents[1] / "recipes" / "rounds.toml"
MEASURES = ("rubric", "finished", "length")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--set", action="append", default=[], dest="overrides")
    asked = options.parse_args()
    rows = []
    for seed in range(asked.seeds):
        config = load(RECIPE, (*asked.overrides, f"seed={seed}"))
        rows.append(one_seed(config, asked.output / f"seed-{seed}"))
        print(json.dumps(rows[-1]), file=sys.stderr)
    found: dict[str, object] = {"seeds": rows}
    for name in MEASURES:
        differences = [float(row["two_less_one"][name]["estimate"]) for row in rows]
        found[name] = mean_interval(differences, [str(row["seed"]) for row in rows]).as_dict()
    write_json(asked.output / "rounds.json", found)
    print(json.dumps(found, indent=1))


def one_seed(config: Config, folder: Path) -> dict[str, Any]:
    """Of each measure the mean of either policy, and their paired difference over prompts with its interval."""
    section = getattr(config, config.method)
    steps = section.model_copy(update={"max_steps": config.rounds * section.max_steps})
    everything = config.round.model_copy(update={"num_prompts": 0})
    single = config.model_copy(update={"rounds": 1, "round": everything, config.method: steps})
    with Bars() as bars:
        run_rounds(config, folder / "two", bars, "benchmarks/rounds.py")
        with Run(folder / "one") as run:
            Pipeline(single, run, bars, "benchmarks/rounds.py")()
    sides = {"one": folder / "one", "two": folder_of(folder / "two", config.rounds)}
    rows = {name: read_answers(path / "evaluate" / "after.jsonl") for name, path in sides.items()}
    found: dict[str, Any] = {"seed": config.seed, "one": {}, "two": {}, "two_less_one": {}}
    prompts = [row["prompt_id"] for row in rows["one"]]
    for name in MEASURES:
        values = {side: [float(row[name]) for row in own] for side, own in rows.items()}
        for side in sides:
            found[side][name] = sum(values[side]) / len(values[side])
        found["two_less_one"][name] = paired_difference(values["one"], values["two"], prompts, prompts).as_dict()
    judged = [folder_of(folder / "two", number) for number in range(1, config.rounds + 1)]
    found["judgements"] = {
        "one": read_json(folder / "one" / "consensus" / "agreement.json")["num_judgements"],
        "two": sum(read_json(path / "consensus" / "agreement.json")["num_judgements"] for path in judged),
    }
    return found


if __name__ == "__main__":
    main()
