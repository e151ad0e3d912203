"""Which setting of a peer is its fastest on this machine: turns of all settings in rotation, medians as Markdown.

    python benchmarks/peer_settings.py [--only NAME] [--repeats N] [--quick]

The winners stand in works.py, the table in docs/methods/speed.md. Turns are kept like those of run.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from compare import number, spread
from inputs import prepare
from measure import Bench, chosen
from run import BESIDE, HERE
from works import AUTOCAST, ONLINE, ONLINE_PPO, PLAIN, WORKS, Settings

BFLOAT16: Settings = {"weights": "bfloat16", "autocast": False}
BOTH: Settings = {"weights": "bfloat16", "autocast": True}
TRAINING: dict[str, Settings] = {
    "float32 weights, bf16 autocast": AUTOCAST,
    "bf16 weights": AUTOCAST | BFLOAT16,
    "bf16 weights and autocast": AUTOCAST | BOTH,
    "first, gradient checkpointing": AUTOCAST | {"gradient_checkpointing": True},
    "first, 4 rows x 2": AUTOCAST | {"rows": 4},
    "first, 2 rows x 4": AUTOCAST | {"rows": 2},
    "bf16 weights and autocast, 4 rows x 2": AUTOCAST | BOTH | {"rows": 4},
    "bf16 weights and autocast, 2 rows x 4": AUTOCAST | BOTH | {"rows": 2},
    "first, eager attention": AUTOCAST | {"attention": "eager"},
}
REFERENCED = {name: settings | {"precompute": False} for name, settings in TRAINING.items()} | {
    "first, reference precomputed": AUTOCAST | {"precompute": True},
    "bf16 weights, reference precomputed": AUTOCAST | BFLOAT16 | {"precompute": True},
}
SAMPLING: dict[str, Settings] = {
    "float32 weights, bf16 autocast": {"weights": "float32"},
    "float32 weights, autocast around generation as well": {"weights": "float32", "autocast": "all"},
    "bf16 weights": BFLOAT16,
    "bf16 weights and autocast": BOTH,
}
TRIED: dict[str, dict[str, Settings]] = {
    "reward": TRAINING,
    "dpo": REFERENCED,
    "sft": TRAINING,
    # Not in parts: the KL would be a mean over each part.
    "kto": {name: settings for name, settings in REFERENCED.items() if settings["rows"] == 8},
    "grpo": {name: ONLINE | change for name, change in SAMPLING.items()}
    | {
        "bf16 weights, 8 rows x 4": ONLINE | BFLOAT16 | {"rows": 8},
        "bf16 weights and autocast, 8 rows x 4": ONLINE | BOTH | {"rows": 8},
    },
    "ppo": {name: ONLINE_PPO | change for name, change in SAMPLING.items()}
    | {
        "bf16 weights, rollouts by 8": ONLINE_PPO | BFLOAT16 | {"rows": 8},
        "bf16 weights, all of the value model trained": ONLINE_PPO | BFLOAT16 | {"value": "whole"},
    },
    "generate-32": {
        "bf16 weights": PLAIN,
        "float32 weights, bf16 autocast": {"weights": "float32", "autocast": True, "cache": "dynamic"},
        "bf16 weights, static cache": PLAIN | {"cache": "static"},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=BESIDE, help="folder that holds hh/")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"of {', '.join(TRIED)}")
    parser.add_argument("--work", type=Path, default=HERE / ".work")
    parser.add_argument("--repeats", type=int, default=1, help="rounds over all settings (default 1)")
    parser.add_argument("--quick", action="store_true", help="one step on short pairs")
    arguments = parser.parse_args()
    folder = arguments.work.resolve()
    bench = Bench(prepare(folder, arguments.data), folder, arguments.quick)
    print("| work | setting | a second | peak memory, GB |\n|---|---|---|---|")
    for work in chosen({name: WORKS[name] for name in TRIED}, arguments.only):
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in TRIED[work.name]}
        for repeat in range(arguments.repeats):
            for place, (name, settings) in enumerate(TRIED[work.name].items()):
                turns[name].append(bench.turn(work, "peer", repeat, settings, f"setting-{place}"))
        for name, found in turns.items():
            rate, memory = (number(spread([turn[key] for turn in found])["median"]) for key in ("rate", "peak_memory_gb"))
            print(f"| {work.title} | {name} | {rate} {work.unit} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
