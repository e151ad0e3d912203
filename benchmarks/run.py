"""make bench: what this machine does a second with the 135M model, and how much memory it takes.

Each figure is the median of repeated runs with its range, on the bundled prompts, seed 0. Prints a table and writes
benchmarks/results.json. A ratio to Hugging Face's generate is taken in the same run, the two in turn.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from heedful.config import Config, LoraSection
from heedful.data.bundled import load_bundled
from heedful.engine.device import choose_device, choose_dtype
from heedful.engine.generation import Decoding, sample
from heedful.models.policy import POLICY, REWARD, load_language_model
from heedful.models.reward import AdapterReward, RewardHead, answer_of
from heedful.store import versions, write_json
from heedful.training.ppo import ppo
from heedful.training.reward import Group, PairwiseTraining
from heedful.training.rollout import Question

REPEATS = 3
NEW_TOKENS = 40
ROWS = 32


def timed(work: Callable[[], float]) -> float:
    """Useful work a second; `work` returns how much it did."""
    clock = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - clock)


def main() -> None:
    device = choose_device()
    model = load_language_model("smollm2-135m", dtype=choose_dtype("auto", device), device=device)
    lora = LoraSection()
    for name in (POLICY, REWARD):
        model.add_adapter(name, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=0)
    prompts = load_bundled()[:ROWS]
    questions = [Question(p.id, p.messages, model.chat.prompt_ids(p.messages)) for p in prompts]
    decoding = Decoding(0.7, 1.0, NEW_TOKENS)

    def generate(adapter: str | None) -> float:
        ids = [question.ids for question in questions]
        found = sample(model, ids, decoding, adapter=adapter, samples_per_prompt=1, generator=torch.Generator().manual_seed(0))
        return float(sum(len(answer.ids) for answers in found for answer in answers))

    def generate_hugging_face() -> float:
        width = max(len(question.ids) for question in questions)
        ids = torch.tensor([[model.chat.pad_id] * (width - len(q.ids)) + q.ids for q in questions], device=device)
        mask = torch.tensor([[0] * (width - len(q.ids)) + [1] * len(q.ids) for q in questions], device=device)
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": True, "temperature": 0.7, "top_k": 0}
        with torch.no_grad(), model.using(None):
            out = model.causal.generate(ids, attention_mask=mask, pad_token_id=model.chat.pad_id, **options)[:, width:].tolist()
        ends = set(model.chat.eos_ids)
        return float(sum(next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in out))

    texts = ("Open a window at night, and keep the curtains closed by day.", "My house is hot and I like it, I think.")
    answers = [[answer_of(model, p.messages, text, finished=True) for text in texts] for p in prompts]
    groups = [Group(p.id, pair, [(0, 1, 1.0)]) for p, pair in zip(prompts, answers, strict=True)]
    config = Config()
    reward = AdapterReward(model, RewardHead(model.hidden_size, config.reward.pooling))
    settings = config.reward.model_copy(update={"batch_prompts": 8})
    training = PairwiseTraining(reward, groups, [], settings=settings, num_steps=100, seed=0)
    ppo_settings = config.ppo.model_copy(update={"temperature": 0.7, "critic_warmup_steps": 0})
    optimised = ppo(
        model,
        lambda found: [float(len(answer.text)) for answer in found],
        questions,
        [],
        settings=ppo_settings,
        seed=0,
    )

    steps = iter(range(1000))

    def train_reward() -> float:
        training.step(next(steps))
        return 8.0

    def train_ppo() -> float:
        optimised.step(next(steps))
        return float(ppo_settings.episodes)

    work: dict[str, tuple[str, Callable[[], float]]] = {
        "generation, base": ("tokens/s", lambda: generate(None)),
        "generation, adapter": ("tokens/s", lambda: generate(POLICY)),
        "generation, Hugging Face": ("tokens/s", generate_hugging_face),
        "reward model step": ("pairs/s", train_reward),
        "PPO step": ("episodes/s", train_ppo),
    }
    rates: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(REPEATS + 1):  # the first round warms up and is dropped
        for name, (_, job) in work.items():
            rate = timed(job)
            if repeat:
                rates[name].append(rate)
    results = {
        name: {"unit": unit, "median": statistics.median(rates[name]), "low": min(rates[name]), "high": max(rates[name])}
        for name, (unit, _) in work.items()
    }
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    ratio = results["generation, base"]["median"] / results["generation, Hugging Face"]["median"]  # type: ignore[operator]
    for name, row in results.items():
        print(f"{name:<26}{row['median']:>9.2f} {row['unit']:<11} [{row['low']:.2f}, {row['high']:.2f}]")
    print(f"generation is {ratio:.2f} x Hugging Face's on the same base; peak memory {memory:.2f} GB")
    found = {"results": results, "generation_ratio": ratio, "peak_memory_gb": memory, "versions": versions()}
    write_json(Path(__file__).with_name("results.json"), json.loads(json.dumps(found)))


if __name__ == "__main__":
    main()
