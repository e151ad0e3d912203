"""Does heedful learn what TRL learns? Reward model and DPO on the same human pairs, step by step beside TRL's.

    python benchmarks/quality.py --data FOLDER --peer PYTHON

FOLDER holds hh/harmless.jsonl.gz and hh/helpful.jsonl.gz; PYTHON is that of an environment with trl==1.16.0. Both sides get the
same token ids in the same order, the same adapter to begin with, the same rates and the same number of steps; a seed
decides order and adapter. Writes benchmarks/quality.json and prints the table of docs/methods/benchmarks.md. A finished
run of a side is kept in WORK and not done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from heedful.config import DPOSection, LoraSection, RewardSection
from heedful.data.formats import read_preferences
from heedful.engine import scoring
from heedful.engine.device import choose_device
from heedful.engine.responses import num_tokens
from heedful.models.policy import POLICY, REWARD, LanguageModel, load_language_model
from heedful.models.reward import AdapterReward, RewardHead, answer_of
from heedful.training.dpo import DPO, read_references
from heedful.training.loop import batch_of_step
from heedful.training.optimiser import warmup_and_decay
from heedful.training.reward import Group, PairwiseTraining, group_pairs, verdicts

BASE = "smollm2-135m"
BATCH = 8
MAX_TOKENS = 112
SIZES = {"dpo": (48, 48), "reward": (96, 48)}  # training and held-out pairs
EPOCHS = {"dpo": 4, "reward": 3}
RATES = {"dpo": 5e-4, "reward": 3e-4}
SEEDS = (0, 1, 2)
# heedful's reward head reads hidden states divided by their spread, TRL's the raw ones. The spread of this base's last ones is
# 1.93, so the same step of a weight moves TRL's rewards that much further; "matched" has the head's rate times this.
HEAD_SCALE = 1.93
SIDES = {"dpo": ("heedful", "trl"), "reward": ("heedful", "matched", "trl")}


def read_groups(model: LanguageModel, data: Path, method: str) -> tuple[list[Group], list[Group]]:
    """Training and held-out pairs, one a group, half harmless and half helpful; the same for every seed."""
    num_train, num_heldout = SIZES[method]
    sides = []
    for name in ("harmless", "helpful"):
        pairs = list(read_preferences(data / "hh" / f"{name}.jsonl.gz"))
        groups = group_pairs(pairs, lambda _, messages, text: answer_of(model, messages, text))
        groups = [g for g in groups if len(g.pairs) == 1 and all(num_tokens(a) <= MAX_TOKENS for a in g.answers)]
        random.Random(0).shuffle(groups)
        sides.append(groups)
    half_train, half_heldout = num_train // 2, num_heldout // 2
    train = [group for groups in sides for group in groups[:half_train]]
    return train, [group for groups in sides for group in groups[half_train : half_train + half_heldout]]


def job_of(method: str, seed: int, train: Sequence[Group], heldout: Sequence[Group], folder: Path) -> dict[str, Any]:
    """What TRL is given: token ids in the order in which heedful reads them, rates, and where the adapter lies."""

    def row(group: Group) -> dict[str, list[int]]:
        chosen, rejected = group.answers[group.pairs[0].chosen], group.answers[group.pairs[0].rejected]
        return {"prompt_ids": chosen.prompt_ids, "chosen_ids": chosen.response_ids, "rejected_ids": rejected.response_ids}

    steps = EPOCHS[method] * len(train) // BATCH
    order = [i for step in range(steps) for i in batch_of_step(step, len(train), BATCH, seed)]
    return {
        "method": method,
        "seed": seed,
        "batch": BATCH,
        "beta": DPOSection().beta,
        "rates": [RATES[method] * warmup_and_decay(step, steps) for step in range(steps)],
        "train": [row(train[i]) for i in order],
        "heldout": [row(group) for group in heldout],
        "adapter": str(folder / f"adapter-{seed}"),
    }


def run_heedful(method: str, seed: int, data: Path, folder: Path, head_scale: float) -> dict[str, Any]:
    model = load_language_model(BASE, dtype=torch.bfloat16, device=choose_device())
    train, heldout = read_groups(model, data, method)
    steps = EPOCHS[method] * len(train) // BATCH
    if method == "dpo":
        settings = DPOSection(learning_rate=RATES["dpo"], batch_prompts=BATCH, epochs=1)
        references = read_references(model, [*train, *heldout], folder / "reference.jsonl")
        dpo = DPO(model, train, heldout, references, settings=settings, num_steps=steps, seed=seed)
        rows = [dpo.step(step) for step in range(steps)]
        measured = dpo.measure(heldout)
        right = [float(v.margin > 0) for v in measured.verdicts]
        return {"loss": [row["loss"] for row in rows], "heldout_loss": measured.loss, "right": right}
    lora = LoraSection()
    model.add_adapter(REWARD, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=seed)
    reward = AdapterReward(model, RewardHead(model.hidden_size, "last"))
    rate = RATES["reward"]
    section = RewardSection(
        learning_rate=rate,
        head_learning_rate=rate * head_scale,
        batch_prompts=BATCH,
        epochs=1,
        center_weight=0.0,
        pooling="last",
    )
    training = PairwiseTraining(reward, train, heldout, settings=section, num_steps=steps, seed=seed)
    rows = [training.step(step) for step in range(steps)]
    rewards = scoring.rewards(reward, [answer for group in heldout for answer in group.answers])
    logits = torch.tensor(
        [rewards[2 * i + g.pairs[0].chosen] - rewards[2 * i + g.pairs[0].rejected] for i, g in enumerate(heldout)]
    )
    heldout_loss = float(torch.nn.functional.softplus(-logits).mean())
    right = [correct for correct, _ in verdicts(heldout, rewards)]
    return {"loss": [row["loss"] for row in rows], "heldout_loss": heldout_loss, "right": right}


def prepare(method: str, seed: int, data: Path, folder: Path) -> Path:
    """The job file of TRL's side, with the adapter that both begin with."""
    path = folder / f"{method}-{seed}-job.json"
    if not path.exists():
        model = load_language_model(BASE, dtype=torch.bfloat16, device=choose_device())
        lora = LoraSection()
        model.add_adapter(POLICY, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=seed)
        model.save_adapter(POLICY, folder / f"adapter-{seed}")
        base = folder / "base"
        if not base.exists():
            model = load_language_model(BASE, dtype=torch.float32, device=choose_device())
            model.causal.save_pretrained(base)
            model.chat.tokenizer.save_pretrained(base)
        train, heldout = read_groups(model, data, method)
        path.write_text(json.dumps(job_of(method, seed, train, heldout, folder)))
    return path


def summary(results: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Held-out accuracy and loss, and the training loss of the last quarter of the steps: mean and range over seeds.

    Then how far two loss curves are apart, a step: of the two sides at the same seed, and of two seeds of TRL's.
    """

    def shown(values: Sequence[float]) -> str:
        return f"{statistics.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"

    def apart(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> float:
        return statistics.mean(abs(a - b) for one, other in pairs for a, b in zip(one["loss"], other["loss"], strict=True))

    lines = [
        "| method | side | held-out accuracy | held-out loss | training loss, last quarter | from TRL's curve |",
        "|---" * 6 + "|",
    ]
    for method, sides in results.items():
        theirs = sides["trl"]
        for side, runs in sides.items():
            accuracy = shown([statistics.mean(run["right"]) for run in runs])
            last = shown([statistics.mean(run["loss"][-(len(run["loss"]) // 4) :]) for run in runs])
            seeds = list(itertools.combinations(theirs, 2))
            away = apart(seeds) if side == "trl" else apart(list(zip(runs, theirs, strict=True)))
            heldout = shown([run["heldout_loss"] for run in runs])
            told = f"{away:.3f} (two seeds)" if side == "trl" else f"{away:.3f}"
            lines.append(f"| {method} | {side} | {accuracy} | {heldout} | {last} | {told} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", type=Path, help="python of the environment with TRL; without it only heedful's side")
    parser.add_argument("--work", type=Path, default=Path("quality-work"))
    parser.add_argument("--only", nargs=2, metavar=("METHOD", "SEED"), help="one run of heedful's side, in this process")
    parser.add_argument("--side", default="heedful", choices=("heedful", "matched"))
    arguments = parser.parse_args()
    folder: Path = arguments.work.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.only:
        method, seed = arguments.only[0], int(arguments.only[1])
        scale = HEAD_SCALE if arguments.side == "matched" else 1.0
        found = run_heedful(method, seed, arguments.data, folder, scale)
        (folder / f"{method}-{seed}-{arguments.side}.json").write_text(json.dumps(found))
        return
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for seed in SEEDS:
        for method in SIZES:
            for side in SIDES[method]:
                path = folder / f"{method}-{seed}-{side}.json"
                if not path.exists():
                    print(f"{method}, seed {seed}, {side} ...", flush=True)
                    if side != "trl":
                        command = [sys.executable, __file__, "--data", str(arguments.data), "--work", str(folder)]
                        command += ["--only", method, str(seed), "--side", side]
                    else:
                        job = prepare(method, seed, arguments.data, folder)
                        command = [str(arguments.peer), str(Path(__file__).with_name("peer_trl.py")), str(job), str(path)]
                    subprocess.run(command, check=True)
                results.setdefault(method, {}).setdefault(side, []).append(json.loads(path.read_text()))
    Path(__file__).with_name("quality.json").write_text(json.dumps(results, indent=1) + "\n")
    print(summary(results))


if __name__ == "__main__":
    main()
