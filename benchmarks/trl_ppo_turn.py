"""One turn of PPO in TRL 1.12, in its own environment. Argument: the job file.

The policy is the base with the adapter, the reference the same without it. TRL has the value model and the reward model as
further whole models: the value model gets an adapter of its own, the reward model has its adapter merged into its weights.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any

import torch
from datasets import Dataset
from peer_models import (
    Watch,
    autocast,
    fixed_logprobs,
    fixed_rewards,
    load_policy,
    load_reward,
    load_tokenizer,
    whole_value_model,
)
from transformers import DataCollatorWithPadding
from turn import Clock, read_job
from works import EPISODES, PPO_EPOCHS, PPO_MINIBATCHES

Job = dict[str, Any]


def models(job: Job, clock: Clock) -> dict[str, Any]:
    """The policy, the value model and the reward model, all on the same base."""
    folders, settings = job["inputs"]["folders"], job["settings"]
    weights, head = settings["weights"], job["inputs"]["score_head"]
    dtype = getattr(torch, weights)
    policy = load_policy(folders[weights], folders["policy"], dtype=dtype)
    policy.generation_config.eos_token_id = None
    clock.facts["logprobs"] = fixed_logprobs(job, policy)
    judge = load_reward(folders["float32"], folders["reward"], head=head).merge_and_unload().eval().requires_grad_(False)
    judge = judge.to(dtype)
    judge.score.float()
    clock.facts["rewards"] = fixed_rewards(job, judge)
    if settings["value"] == "whole":
        value = whole_value_model(folders["float32"], len(head))
    else:
        # The plain model with adapters inside: TRL looks into it for its backbone and its score.
        value = load_reward(folders[weights], folders["policy"], dtype=dtype, head=[0.0] * len(head)).base_model.model
    return {"model": policy, "ref_model": None, "reward_model": judge, "value_model": value}


def main() -> None:
    torch.manual_seed(0)
    job = read_job()
    clock, settings = Clock(job), job["settings"]
    if settings["autocast"]:
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"  # bf16 = True does not reach this trainer's accelerator
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    prompts = [job["inputs"]["prompts"][i] for i in job["prompts"]]
    tokenizer = load_tokenizer(job["inputs"]["folders"]["float32"])
    tokenizer.padding_side = "left"
    collate = DataCollatorWithPadding(tokenizer)

    def heard(rows: list[Any]) -> Any:
        clock.read([row["input_ids"] for row in rows])
        return collate(rows)

    plain = ppo_trainer.batch_generation

    def counted(model: Any, queries: Any, *arguments: Any) -> Any:
        found = plain(model, queries, *arguments)
        clock.facts.setdefault("new_tokens", []).append(found[0][:, queries.shape[1] :].numel())
        return found

    ppo_trainer.batch_generation = counted
    # "all": autocast around everything, generation, reference and reward model included, which the trainer's does not cover.
    outer = autocast(job) if settings["autocast"] == "all" else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, outer:
        config = PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=EPISODES,
            gradient_accumulation_steps=1,
            num_mini_batches=PPO_MINIBATCHES,
            num_ppo_epochs=PPO_EPOCHS,
            local_rollout_forward_batch_size=settings["rows"],
            total_episodes=EPISODES * (job["warmup"] + job["steps"]),
            response_length=job["new_tokens"],
            temperature=1.0,
            kl_coef=0.1,
            learning_rate=5e-5,
            num_sample_generations=0,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=bool(settings["autocast"]),
            gradient_checkpointing=settings["gradient_checkpointing"],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = PPOTrainer(
            config,
            tokenizer,
            train_dataset=Dataset.from_list([{"input_ids": prompt} for prompt in prompts]),
            eval_dataset=Dataset.from_list([{"input_ids": prompts[0]}]),
            data_collator=heard,
            callbacks=[Watch(clock)],
            **models(job, clock),
        )
        for rows in clock.rows:
            rows.clear()
        clock.begin()
        trainer.train()
    clock.facts.pop("loss", None)
    clock.write(units_per_step=job["units"])


if __name__ == "__main__":
    main()
