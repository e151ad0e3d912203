"""One turn of Hugging Face's generate, in TRL's environment. Argument: the job file."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from peer_models import PAD, autocast, fixed_logprobs
from transformers import AutoModelForCausalLM
from turn import Clock, read_job


def main() -> None:
    torch.manual_seed(0)
    job = read_job()
    clock, settings = Clock(job), job["settings"]
    weights = settings["weights"]
    folder = job["inputs"]["folders"][weights]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, weights), attn_implementation="sdpa").eval()
    model.generation_config.eos_token_id = None  # no token ends a row
    clock.facts["logprobs"] = fixed_logprobs(job, model)
    prompts = [job["inputs"]["prompts"][i] for i in job["prompts"]]
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    options: dict[str, Any] = {
        "max_new_tokens": job["new_tokens"],
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
    }
    if settings["cache"] != "dynamic":
        options["cache_implementation"] = settings["cache"]
    outer = autocast(job) if settings["autocast"] else contextlib.nullcontext()
    clock.begin()
    for _ in range(job["warmup"] + job["steps"]):
        clock.read(prompts)
        with torch.no_grad(), outer:
            out = model.generate(ids, attention_mask=mask, pad_token_id=PAD, **options)
        clock.facts.setdefault("new_tokens", []).append(out[:, width:].numel())
        clock.end()
    clock.write(units_per_step=job["units"])


if __name__ == "__main__":
    main()
