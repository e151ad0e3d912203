"""The table of docs/memory.md: predicted and measured peaks of smollm2-135m, each work in a process of its own.

python tests/peak_memory.py               all of it, as the page's table (about ten minutes on two cores)
python tests/peak_memory.py ppo recompute  one line of it, as JSON
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m"
STEPS = {"reward": 3, "dpo": 3, "ppo": 2}
PROMPTS = (64, 160)  # tokens, at least and at most
RESPONSES = (32, 96)
NEW_TOKENS = 48


def measure(stage: str, *, recompute: bool) -> dict[str, Any]:
    """One stage's method on random tokens of realistic lengths, and the peak of this process."""
    import torch

    from heedful.config import DPOSection, LoraSection, PPOSection, RewardSection
    from heedful.engine import memory, scoring
    from heedful.engine.device import peak_memory
    from heedful.engine.lanes import cpu_lanes
    from heedful.models.head import RewardHead
    from heedful.models.policy import REWARD, load_language_model
    from heedful.models.reward import AdapterReward, Answer
    from heedful.models.sources import model_config
    from heedful.records import Message
    from heedful.training.dpo import DPO
    from heedful.training.ppo import ppo
    from heedful.training.reward import Group, Pair, PairwiseTraining
    from heedful.training.rollout import Question

    lora, generator = LoraSection(), random.Random(0)
    model = load_language_model(MODEL, dtype=torch.bfloat16, device=torch.device("cpu"), recompute=recompute)
    model.chat.eos_ids = ()  # every answer is as long as it may be

    def ids(least: int, most: int) -> list[int]:
        return generator.choices(range(1000, 40_000), k=generator.randint(least, most))

    def reward_model() -> AdapterReward:
        model.add_adapter(REWARD, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=0)
        return AdapterReward(model, RewardHead(model.hidden_size, "last+mean"))

    messages = (Message(role="user", content="random tokens"),)
    lengths: set[int] = set()  # of the parts that were read with gradients
    read = model.read

    def listening(packed: Any, **options: Any) -> Any:
        if torch.is_grad_enabled():
            lengths.add(len(packed.ids_N))
        return read(packed, **options)

    model.read = listening  # type: ignore[method-assign]
    groups = []
    for i in range(48):
        prompt = ids(*PROMPTS)
        groups.append(Group(str(i), [Answer(messages, "", prompt, ids(*RESPONSES)) for _ in range(2)], [Pair(0, 1, 1.0)]))
    method: Any
    if stage == "reward":
        method = PairwiseTraining(reward_model(), groups, [], settings=RewardSection(), num_steps=STEPS[stage], seed=0)
    elif stage == "dpo":
        references = {group.prompt_id: [-100.0, -100.0] for group in groups}
        method = DPO(model, groups, [], references, settings=DPOSection(), num_steps=STEPS[stage], seed=0)
    else:
        judge = reward_model()
        questions = [Question(group.prompt_id, messages, group.answers[0].prompt_ids) for group in groups]
        settings = PPOSection(max_new_tokens=NEW_TOKENS, temperature=0.7)
        method = ppo(model, lambda answers: scoring.rewards(judge, answers), questions, [], settings=settings, seed=0)
    for step in range(STEPS[stage]):
        method.step(step)
    measured = peak_memory()
    work = memory.Work(
        width=2,
        part_tokens=max(lengths),
        lanes=cpu_lanes().count,
        rollout_tokens=32 * (PROMPTS[1] + NEW_TOKENS) if stage == "ppo" else 0,
        prompt_tokens=PROMPTS[1] if stage == "ppo" else sum(PROMPTS) // 2,
        response_tokens=NEW_TOKENS if stage == "ppo" else sum(RESPONSES),  # two answers to a prompt
        rows=32,
        scored_tokens=scoring.MAX_TOKENS if stage == "ppo" else max(lengths),
        rank=lora.rank,
        adapted_layers=lora.layers,
        recompute=recompute,
        tempered=stage == "ppo",
        num_lengths=len(lengths),
    )
    predicted = memory.peak(memory.shape_of(model_config(MODEL), MODEL), work, stage)
    return {"stage": stage, "work": asdict(work), "predicted": predicted, "measured": measured}


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], recompute="recompute" in sys.argv[2:])))
        return
    print("| stage | activations | lengths | predicted, GB | measured, GB | ratio |\n|---|---|---|---|---|---|")
    for stage in STEPS:
        for how in ("kept", "recompute"):
            command = [sys.executable, str(Path(__file__)), stage, how]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            found = json.loads(line)
            ratio = found["predicted"] / found["measured"]
            shown = " | ".join(f"{found[name] / 1e9:.2f}" for name in ("predicted", "measured"))
            lengths = found["work"]["num_lengths"]
            print(f"| {stage} | {'kept' if how == 'kept' else 'recomputed'} | {lengths} | {shown} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
