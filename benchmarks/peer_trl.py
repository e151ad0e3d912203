"""TRL's side of quality.py: runs in TRL's own environment. Arguments: the job file and where to write the result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peer_models import load_policy, load_reward, load_tokenizer
from transformers import TrainerCallback
from trl import DPOConfig, RewardConfig
from trl_ready import ReadyDPOTrainer, ReadyRewardTrainer, base_as_reference


class Losses(TrainerCallback):  # type: ignore[misc]
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.found.append(float(logs["loss"]))


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    base = str(Path(sys.argv[1]).parent / "base")
    torch.manual_seed(job["seed"])
    tokenizer = load_tokenizer(base)
    reward = job["method"] == "reward"
    model = (load_reward if reward else load_policy)(base, job["adapter"])  # the head begins at zero, as heedful's does
    rates = job["rates"]
    peak = max(rates)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=peak, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rates[min(step, len(rates) - 1)] / peak)
    options: dict[str, Any] = {
        "output_dir": str(Path(sys.argv[2]).with_suffix("")),
        "per_device_train_batch_size": job["batch"],
        "per_device_eval_batch_size": job["batch"],
        "max_steps": len(rates),
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": True,
        "gradient_checkpointing": False,
        "max_length": 1024,
        "disable_tqdm": True,
        "max_grad_norm": 1.0,
    }
    losses = Losses()
    shared: dict[str, Any] = {"processing_class": tokenizer, "callbacks": [losses], "optimizers": (optimiser, schedule)}
    rows = {name: job[name] for name in ("train", "heldout")}
    if reward:
        whole = {
            name: [{side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")} for row in listed]
            for name, listed in rows.items()
        }
        trainer = ReadyRewardTrainer(model, RewardConfig(**options), train_dataset=Dataset.from_list(whole["train"]), **shared)
    else:
        config = DPOConfig(beta=job["beta"], **options)
        trainer = ReadyDPOTrainer(model, args=config, train_dataset=Dataset.from_list(rows["train"]), **shared)
        base_as_reference(trainer)
    trainer.train()

    # Held-out pairs by our own reading of the trained weights, so that the measure is one and the same.
    model.eval()
    lead = []
    for row in rows["heldout"]:
        values = []
        for side in ("chosen_ids", "rejected_ids"):
            ids = torch.tensor([row["prompt_ids"] + row[side]])
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                if reward:
                    values.append(float(model(ids).logits[0, 0]))
                    continue
                first = len(row["prompt_ids"])
                targets = ids[0, first:, None]
                policy = model(ids).logits[0, first - 1 : -1].float().log_softmax(-1).gather(1, targets).sum()
                with model.disable_adapter():
                    plain = model(ids).logits[0, first - 1 : -1].float().log_softmax(-1).gather(1, targets).sum()
                values.append(job["beta"] * float(policy - plain))
        lead.append(values[0] - values[1])
    loss = float(torch.nn.functional.softplus(-torch.tensor(lead)).mean())
    right = [1.0 if value > 0 else 0.5 if value == 0 else 0.0 for value in lead]
    Path(sys.argv[2]).write_text(json.dumps({"loss": losses.found, "heldout_loss": loss, "right": right}))


if __name__ == "__main__":
    main()
