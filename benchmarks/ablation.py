"""Does each part of PPO earn its place? The same steps with all of it and without one part, on several seeds.

    python benchmarks/ablation.py --work FOLDER

A reward model is trained as in the demo (bundled prompts, simulated labelers, the 135M model) and then optimised by every
variant from its own seed. One long run without a KL penalty shows what the penalty is there to prevent. Each run is a
`heedful run` of its own in WORK, with a report; a finished one is not done again. Writes benchmarks/ablation.json and
prints the tables of docs/methods/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from heedful.stages.evaluate import phrases_of

CONFIG = """
[prompts]
num_train = 96
num_heldout = 48

[sample]
temperature = 0.7
max_new_tokens = 48

[ppo]
max_steps = 12
eval_every = 12
episodes = 16
temperature = 0.7
max_new_tokens = 32
missing_eos_penalty = 0.0
kl_target = 4.0
kl_horizon = 100

[evaluate]
temperature = 0.7
max_new_tokens = 32
"""
NO_KL = ("ppo.kl_coef=0", "ppo.kl_target=0")
VARIANTS: dict[str, tuple[str, ...]] = {
    "all of it": (),
    "no KL penalty": NO_KL,
    "no whitening": ("ppo.whiten_advantages=false",),
    "no value head": ("ppo.value_coef=0", "ppo.critic_warmup_steps=0"),
}
LONG = ("no KL penalty, 40 steps", (*NO_KL, "ppo.max_steps=40", "ppo.eval_every=20"))
SEEDS, FEWER = (0, 1, 2), (0, 1)  # of the whole, and of the runs without a part


def heedful(*arguments: str) -> None:
    print("heedful", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "heedful.cli.app", *arguments], check=True)


def run(folder: Path, config: Path, overrides: tuple[str, ...]) -> dict[str, Any]:
    """A variant's summary and how its KL and reward went, from its run directory."""
    if not (folder / "summary.json").exists():
        listed = [part for override in overrides for part in ("--set", override)]
        heedful("run", str(config), "--dir", str(folder), *listed)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["stage"] == "ppo"]
    summary = json.loads((folder / "summary.json").read_text())
    kept = {name: summary[name] for name in ("compare", "kl", "seed")} | {"phrases": phrases_of(folder / "evaluate")}
    columns = ("reward", "kl_policy_ref", "explained_variance", "length", "entropy")
    return kept | {"steps": {name: [row[name] for row in steps] for name in columns}}


def bounds(interval: dict[str, float]) -> str:
    return f"{interval['estimate']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


def tables(found: dict[str, list[dict[str, Any]]]) -> str:
    """One line a run, then means over the seeds that all variants share."""
    lines = ["| run | seed | reward, difference | rubric, difference | KL, nats a sequence | length |", "|---" * 6 + "|"]
    for name, runs in found.items():
        for one in runs:
            compared = one["compare"]
            length = compared["length"]["after"]["estimate"]
            reward, rubric = (bounds(compared[key]["difference"]) for key in ("reward", "rubric"))
            lines.append(f"| {name} | {one['seed']} | {reward} | {rubric} | {one['kl']['estimate']:.2f} | {length:.1f} |")
    lines += ["", f"| means of seeds {FEWER} | reward, difference | rubric, difference | KL |", "|---" * 4 + "|"]
    for name in VARIANTS:
        shared = [one for one in found[name] if one["seed"] in FEWER]
        reward, rubric = (
            statistics.mean(one["compare"][key]["difference"]["estimate"] for one in shared) for key in ("reward", "rubric")
        )
        lines.append(
            f"| {name} | {reward:+.3f} | {rubric:+.3f} | {statistics.mean(one['kl']['estimate'] for one in shared):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("ablation-work"))
    folder: Path = parser.parse_args().work.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "ablation.toml"
    config.write_text(CONFIG)
    judge = folder / "judge"
    if not (judge / "reward" / "result.json").exists():
        heedful("run", str(config), "--dir", str(judge), "--until", "reward")
    against = folder / "against.toml"
    against.write_text(CONFIG + f'\n[[reward.terms]]\nsource = "{judge / "reward" / "model"}"\n')
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*VARIANTS, LONG[0])}

    def add(name: str, overrides: tuple[str, ...], seed: int) -> None:
        place = folder / f"{name.replace(',', '').replace(' ', '-')}-{seed}"
        found[name].append(run(place, against, (*overrides, f"seed={seed}")))

    whole = next(iter(VARIANTS))
    add(whole, (), SEEDS[0])
    add(*LONG, SEEDS[0])
    for seed in SEEDS[1:]:
        add(whole, (), seed)
    for seed in FEWER:
        for name, overrides in VARIANTS.items():
            if name != whole:
                add(name, overrides, seed)
    Path(__file__).with_name("ablation.json").write_text(json.dumps(found, indent=1) + "\n")
    print(tables(found))
    print("\nRepeated phrases:")
    for name, runs in found.items():
        for one in runs:
            for row in one["phrases"]:
                shares = f"{100 * row['before']:.0f}% -> {100 * row['after']:.0f}% of the answers"
                print(f"  {name}, seed {one['seed']}: {row['phrase']!r}, {shares}")


if __name__ == "__main__":
    main()
