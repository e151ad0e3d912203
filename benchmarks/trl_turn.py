"""One turn of TRL 1.16's side, in TRL's own environment. Argument: the job file."""

from __future__ import annotations

import contextlib
import tempfile
from typing import Any

import torch
from datasets import Dataset
from peer_models import NoEnd, Watch, autocast, fixed_logprobs, fixed_rewards, load_policy, load_reward, load_tokenizer
from trl import DPOConfig, GRPOConfig, KTOConfig, RewardConfig, SFTConfig
from trl_ready import (
    ReadyDPOTrainer,
    ReadyGRPOTrainer,
    ReadyKTOTrainer,
    ReadyRewardTrainer,
    ReadySFTTrainer,
    base_as_reference,
    watched,
)
from turn import Clock, even_share, marked_rows, read_job
from works import BETA, GRPO_SAMPLES

Job = dict[str, Any]


def options(job: Job, folder: str) -> dict[str, Any]:
    """The part of a trainer's configuration that all works share. rows: computed side by side; the rest accumulates."""
    settings = job["settings"]
    return {
        "output_dir": folder,
        "per_device_train_batch_size": settings["rows"],
        "gradient_accumulation_steps": job["batch"] // settings["rows"],
        "max_steps": job["warmup"] + job["steps"],
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": bool(settings["autocast"]),
        "gradient_checkpointing": settings["gradient_checkpointing"],
        "disable_tqdm": True,
        "max_grad_norm": 1.0,
        "learning_rate": 5e-5,
        "dataloader_pin_memory": False,
    }


def rows_of(job: Job) -> list[dict[str, Any]]:
    """The pairs in the order in which heedful reads them."""
    return [job["inputs"]["pairs"][job["examples"][i]] for i in job["order"]]


def attention(job: Job) -> str:
    return str(job["settings"].get("attention", "sdpa"))


def policy_of(job: Job, clock: Clock) -> Any:
    folders, weights = job["inputs"]["folders"], job["settings"]["weights"]
    model = load_policy(folders[weights], folders["policy"], dtype=getattr(torch, weights), attention=attention(job))
    clock.facts["logprobs"] = fixed_logprobs(job, model)
    return model


def shared(job: Job, clock: Clock, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "train_dataset": Dataset.from_list(rows),
        "processing_class": load_tokenizer(job["inputs"]["folders"]["float32"]),
        "callbacks": [Watch(clock)],
    }


def dpo(job: Job, clock: Clock, folder: str) -> Any:
    listed = [{name: row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in rows_of(job)]
    config = DPOConfig(
        beta=BETA,
        max_length=None,
        train_sampling_strategy="sequential",
        precompute_ref_log_probs=job["settings"]["precompute"],
        **options(job, folder),
    )
    trainer = watched(ReadyDPOTrainer, clock)(policy_of(job, clock), args=config, **shared(job, clock, listed))
    base_as_reference(trainer)
    return trainer


def kto(job: Job, clock: Clock, folder: str) -> Any:
    names = ("prompt_ids", "completion_ids", "KL_completion_ids", "label")
    listed = [{name: row[name] for name in names} for row in marked_rows(job)]
    config = KTOConfig(
        beta=BETA, max_length=None, precompute_ref_log_probs=job["settings"]["precompute"], **options(job, folder)
    )
    trainer = watched(ReadyKTOTrainer, clock)(policy_of(job, clock), args=config, **shared(job, clock, listed))
    base_as_reference(trainer)
    return trainer


def sft(job: Job, clock: Clock, folder: str) -> Any:
    listed = []
    for row in rows_of(job):
        ids = row["prompt_ids"] + row["chosen_ids"]
        listed.append({"input_ids": ids, "labels": [-100] * len(row["prompt_ids"]) + row["chosen_ids"]})
    config = SFTConfig(
        max_length=None,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        **options(job, folder),
    )
    return watched(ReadySFTTrainer, clock)(policy_of(job, clock), args=config, **shared(job, clock, listed))


def reward(job: Job, clock: Clock, folder: str) -> Any:
    folders, weights = job["inputs"]["folders"], job["settings"]["weights"]
    head = job["inputs"]["score_head"]
    dtype = getattr(torch, weights)
    model = load_reward(folders[weights], folders["reward"], dtype=dtype, head=head, attention=attention(job))
    clock.facts["rewards"] = fixed_rewards(job, model)
    listed = [{side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")} for row in rows_of(job)]
    config = RewardConfig(max_length=None, train_sampling_strategy="sequential", **options(job, folder))
    return watched(ReadyRewardTrainer, clock)(model, args=config, **shared(job, clock, listed))


def grpo(job: Job, clock: Clock, folder: str) -> Any:
    """Every step samples from the same prompts. No token ends a completion, so all have the same length."""
    prompts = [job["inputs"]["prompts"][i] for i in job["prompts"]]
    model = policy_of(job, clock)
    config = GRPOConfig(
        beta=0.04,
        num_generations=GRPO_SAMPLES,
        max_completion_length=job["new_tokens"],
        temperature=1.0,
        generation_batch_size=job["batch"],
        **options(job, folder),
    )

    def judge(completion_ids: list[list[int]], **_: Any) -> list[float]:
        clock.facts.setdefault("new_tokens", []).append(sum(map(len, completion_ids)))
        return [even_share(ids) for ids in completion_ids]

    trainer = watched(ReadyGRPOTrainer, clock)(
        model, args=config, reward_funcs=judge, **shared(job, clock, [{"prompt": str(i)} for i in range(len(prompts))])
    )
    trainer.add_callback(NoEnd())
    trainer.ready, trainer.heard = prompts, clock.read
    trainer.generation_config.eos_token_id = None
    trainer.eos_token_ids = [-1]
    base_as_reference(trainer)
    return trainer


TURNS = {"dpo": dpo, "kto": kto, "sft": sft, "reward": reward, "grpo": grpo}


def main() -> None:
    torch.manual_seed(0)
    job = read_job()
    clock = Clock(job)
    # "all": autocast around everything, generation and reference included, which the trainer's own does not cover.
    outer = autocast(job) if job["settings"]["autocast"] == "all" else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, outer:
        trainer = TURNS[job["work"]](job, clock, folder)
        clock.begin()
        trainer.train()
    if job["work"] == "grpo":
        clock.facts.pop("loss", None)  # of other completions than heedful's
    clock.write(units_per_step=job["units"])


if __name__ == "__main__":
    main()
