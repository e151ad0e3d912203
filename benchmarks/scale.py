"""What a step of PPO costs, phase by phase. docs/operations.md has the figures.

python benchmarks/scale.py phases [--output FILE]   costs of one worker with one thread, for `heedful scale simulate --costs`
python benchmarks/scale.py workers [--repeats 3]    tokens a second of one and of two rollout workers, a thread each
python benchmarks/scale.py runners [--repeats 3]    seconds a step of one worker, by itself and under Ray

The model is smollm2-135m with random prompts, 32 answers of 40 tokens a step and default settings; --model names another. One
thread computes. Of phases seconds are the processor's; the others are wall time in turns, so that a busy hour meets all alike,
and want as many idle cores as there are workers.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

EPISODES, NEW_TOKENS = 32, 40
PROMPT_TOKENS = (16, 96)


def now() -> float:
    """Seconds of this process on a processor: one thread is measured, and others' work on the machine does not count."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def timed(work: Callable[[], object]) -> float:
    began = now()
    work()
    return now() - began


def new_method(source: str, episodes: int = EPISODES) -> Any:
    """PPO on random prompts with a reward model on the same base; no token ends an answer."""
    import torch

    from heedful.config import LoraSection, PPOSection
    from heedful.engine import scoring
    from heedful.engine.device import choose_device, choose_dtype
    from heedful.models.head import RewardHead
    from heedful.models.policy import REWARD, load_language_model
    from heedful.models.reward import AdapterReward
    from heedful.records import Message
    from heedful.training.ppo import ppo
    from heedful.training.rollout import Question

    torch.set_num_threads(1)
    lora, generator, device = LoraSection(), random.Random(0), choose_device()
    model = load_language_model(source, dtype=choose_dtype("auto", device), device=device)
    model.chat.eos_ids = ()
    model.add_adapter(REWARD, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=0)
    judge = AdapterReward(model, RewardHead(model.hidden_size, "last+mean"))
    said = (Message(role="user", content="random tokens"),)
    largest = min(40_000, model.head_VD.shape[0])
    prompts = [generator.choices(range(3, largest), k=generator.randint(*PROMPT_TOKENS)) for _ in range(256)]
    questions = [Question(str(i), said, ids) for i, ids in enumerate(prompts)]
    settings = PPOSection(episodes=episodes, max_new_tokens=NEW_TOKENS, target_kl_update=0.0, critic_warmup_steps=0)
    return ppo(model, lambda answers: scoring.rewards(judge, answers), questions, [], settings=settings, seed=0)


class Stopwatch:
    """Seconds spent in functions, by the phase that they belong to."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def on(self, owner: Any, name: str, phase: str) -> None:
        """From now on owner.name is timed."""
        inner = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            began = now()
            try:
                return inner(*arguments, **named)
            finally:
                self.spent[phase] = self.spent.get(phase, 0.0) + now() - began

        setattr(owner, name, timed)


def decoding_costs(method: Any) -> tuple[float, float, float]:
    """Seconds of a decoding step, of each row in it besides, and of a prompt's token that enters."""
    from heedful.engine.generation import sample
    from heedful.models.policy import POLICY

    laps: dict[int, list[float]] = {}
    entered: list[float] = []
    for rows in (2, 8, 32):
        clock = [now()]

        def on_tokens(_: int, clock: list[float] = clock) -> None:
            clock.append(now())

        prompts = [question.ids for question in method.train[:rows]]
        sample(
            *(method.model, prompts, method.decoding),
            adapter=POLICY,
            samples_per_prompt=1,
            generator=_generator(),
            on_tokens=on_tokens,
        )
        steps = [later - earlier for earlier, later in pairwise(clock)]
        laps[rows] = steps[1:]
        entered.append((steps[0] - statistics.median(steps[1:])) / sum(map(len, prompts)))
    middle = {rows: statistics.median(found) for rows, found in laps.items()}
    row_s = (middle[32] - middle[2]) / 30
    return max(0.0, middle[2] - 2 * row_s), row_s, max(0.0, statistics.median(entered))


def _generator() -> Any:
    import torch

    return torch.Generator().manual_seed(0)


def measure_phases(source: str, steps: int, episodes: int) -> dict[str, Any]:
    """Costs as heedful.scale.simulation.Costs has them, and the phases of each step as they were measured."""
    import torch

    from heedful.models.trunk.packed import shared_tokens
    from heedful.scale.simulation import Costs
    from heedful.team import shared
    from heedful.training import loop, rollout

    method = new_method(source, episodes)
    step_s, row_s, prompt_s = decoding_costs(method)
    watch = Stopwatch()
    watch.on(rollout, "answers_to", "rollout")
    watch.on(rollout, "score_responses", "measure")
    reward = method.reward
    inner = method.reward

    def judged(answers: Any) -> Any:
        began = now()
        found = inner(answers)
        watch.spent["reward"] = watch.spent.get("reward", 0.0) + now() - began
        return found

    method.reward = judged
    watch.on(method.optimiser, "update", "optimiser")
    accumulate = type(method.update)._accumulate

    def accumulated(self: Any, *arguments: Any) -> Any:
        began = now()
        found = accumulate(self, *arguments)
        watch.spent["gradient"] = watch.spent.get("gradient", 0.0) + now() - began
        return found

    type(method.update)._accumulate = accumulated
    seen: list[Any] = []

    def sharing(costs: Any, work: Any, at: str, **named: Any) -> Any:
        found = shared(costs, work, at, **named)
        seen.extend(found if at == "rollouts" else [])
        return found

    rollout.shared = sharing  # type: ignore[attr-defined]
    laps = []
    for number in range(steps + 1):  # the first compiles, allocates and reads for the first time, and is not counted
        watch.spent.clear()
        seen.clear()
        began = now()
        method.step(number)
        laps.append(dict(watch.spent) | {"step": now() - began})
    rollout.shared, method.reward, type(method.update)._accumulate = shared, reward, accumulate  # type: ignore[attr-defined]
    del laps[0]
    middle = {name: statistics.median(lap[name] for lap in laps) for name in laps[0]}
    settings = method.settings
    answers = [answer for one in seen for answer in one.answers]
    pairs = [(answer.prompt_ids, answer.response_ids) for answer in answers]
    tokens, shown = shared_tokens(pairs), sum(len(response) for _, response in pairs)
    passes = settings.epochs
    whole = pickle.dumps(seen)
    unpacked = statistics.median(timed(lambda: pickle.loads(whole)) for _ in range(5))
    packed = loop._packed({"method": method.state_dict()})
    checkpoint = statistics.median(timed(lambda: loop._packed({"method": method.state_dict()})) for _ in range(5))
    # A prompt counts once for all its answers; a minibatch may hold one of two, so its tokens are counted as they are read.
    generator = torch.Generator().manual_seed(0)
    read = 0
    for _ in range(passes):
        order = torch.randperm(len(pairs), generator=generator).tolist()
        read += sum(
            shared_tokens([pairs[i] for i in order[k :: settings.num_minibatches]]) for k in range(settings.num_minibatches)
        )
    rest = middle["step"] - sum(middle[name] for name in ("rollout", "measure", "reward", "optimiser", "gradient"))
    costs = Costs(
        model=source,
        threads=1,
        decode_step_s=step_s,
        decode_row_s=row_s,
        prompt_token_s=prompt_s,
        measure_token_s=middle["measure"] / tokens,
        reward_token_s=middle["reward"] / tokens,
        train_token_s=middle["gradient"] / read,
        optimiser_s=middle["optimiser"] / (settings.epochs * settings.num_minibatches),
        controller_answer_s=max(0.0, rest) / len(answers),
        unpack_answer_s=unpacked / len(answers),
        answer_bytes=len(whole) // len(answers),
        checkpoint_s=checkpoint,
        learned_numbers=sum(tensor.numel() for tensor in method.optimiser.tensors),
    )
    return {
        "costs": asdict(costs),
        "measured": {
            "seconds": middle,
            "episodes": episodes,
            "steps": steps,
            "width": method.model.dtype.itemsize,
            "tokens": tokens,
            "response_tokens": shown,
            "tokens_learned": read,
            "checkpoint_bytes": len(packed),
            **machine_rates(method.model.hidden_size, method.model.causal.config.intermediate_size, method.model.dtype),
        },
    }


def rate_of(work: Callable[[], object], amount: float) -> float:
    """Of an amount of work that is done again and again for two seconds: how much a second, in the upper decile."""
    found: list[float] = []
    end = now() + 2.0
    while now() < end or len(found) < 3:
        began = now()
        work()
        found.append(amount / max(now() - began, 1e-9))
    return statistics.quantiles(found, n=10)[-1]


def machine_rates(hidden: int, inner: int, dtype: Any) -> dict[str, float]:
    """Operations a second of the model's widest product, and bytes a second of weights that one row is multiplied with."""
    import torch

    many, one, weights = (torch.randn(*shape).to(dtype) for shape in ((2048, hidden), (1, 2048), (16_384, 2048)))
    wide = torch.randn(inner, hidden).to(dtype)
    product = torch.nn.functional.linear
    return {
        "flops_per_s": rate_of(lambda: product(many, wide), 2.0 * 2048 * hidden * inner),
        "bytes_per_s": rate_of(lambda: product(one, weights), float(weights.numel() * weights.element_size())),
    }


def turn(source: str, episodes: int) -> None:
    """One member of a team, told by its environment, or a process alone: the first prints tokens a second of answers."""
    from heedful.models.policy import POLICY
    from heedful.scale.members import ProcessTeam, die_with, this_member
    from heedful.team import ALONE, Team, together, working_in
    from heedful.training.rollout import answers_to

    member = this_member()
    method = new_method(source, episodes)
    ours: Team = ProcessTeam(member) if member else ALONE
    if member:
        die_with(member.parent)
    with working_in(ours):
        for number in range(2):  # the first is not counted
            together(lambda: None, "start")
            began = time.perf_counter()
            answers, _ = answers_to(
                *(method.model, method._questions(number), method.decoding),
                adapter=POLICY,
                samples_per_prompt=method.settings.samples_per_prompt,
                seed=number,
            )
            took = time.perf_counter() - began
    if ours.rank == 0:
        print(json.dumps({"tokens_per_s": sum(len(one.response_ids) for one in answers) / took}))


def tokens_of(workers: int, source: str, episodes: int) -> float:
    """Tokens a second of so many processes with a thread each."""
    from heedful.scale.members import Member
    from heedful.scale.runners import free_port

    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, __file__, "turn", "--model", source, "--episodes", str(episodes)]
    processes = []
    for rank in range(workers):
        told = Member(rank, workers, 1, address, 600.0, parent=os.getpid()).as_environment() if workers > 1 else {}
        output = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
        processes.append(subprocess.Popen(command, env=os.environ | told, stdout=output, stderr=subprocess.DEVNULL, text=True))
    said, _ = processes[0].communicate(timeout=1800)
    for process in processes[1:]:
        process.wait(timeout=60)
    return float(json.loads(said.splitlines()[-1])["tokens_per_s"])


def compare_workers(source: str, episodes: int, repeats: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(repeats):
        for workers in found:
            found[workers].append(tokens_of(int(workers), source, episodes))
    middle = {workers: statistics.median(rates) for workers, rates in found.items()}
    return {"tokens_per_s": found, "median": middle, "gain": middle["2"] / middle["1"]}


RUNNERS = {"local": ["scale.runner=local"], "ray": ["scale.runner=ray"]}
CONFIG = """
[model]
source = {source!r}
[prompts]
num_train = 64
num_heldout = 4
[ppo]
max_steps = {steps}
episodes = {episodes}
checkpoint_every = 100
eval_every = 100
[monitor]
on = false
"""
REWARD = """
def vowels(prompts, completions):
    return [sum(c in "aeiou" for c in text) / (1 + len(text)) for text in completions]
"""


def step_of(runner: str, source: str, episodes: int, steps: int) -> float:
    """Median seconds between the steps that `heedful align ppo` tells, the first not counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "small.toml").write_text(CONFIG.format(source=source, episodes=episodes, steps=steps + 1))
        (folder / "reward.py").write_text(REWARD)
        asked = ["--config", str(folder / "small.toml"), "--reward-model", str(folder / "reward.py:vowels")]
        settings = [part for text in RUNNERS[runner] for part in ("--set", text)]
        command = [sys.executable, "-m", "heedful.cli.app", "align", "ppo", *asked, "--output", str(folder / "run"), *settings]
        subprocess.run(command, check=True, capture_output=True, timeout=3600)
        rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        return statistics.median(later["time"] - earlier["time"] for earlier, later in pairwise(rows))


def compare_runners(source: str, episodes: int, repeats: int, steps: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {runner: [] for runner in RUNNERS}
    for _ in range(repeats):
        for runner in found:
            found[runner].append(step_of(runner, source, episodes, steps))
    middle = {runner: statistics.median(times) for runner, times in found.items()}
    return {"step_s": found, "median": middle, "overhead": middle["ray"] / middle["local"] - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["phases", "workers", "runners", "turn"])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=3, help="how many are measured, after one that is not")
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    if asked.what == "turn":
        turn(asked.model, asked.episodes)
        return
    if asked.what == "phases":
        found = measure_phases(asked.model, asked.steps, asked.episodes)
    elif asked.what == "workers":
        found = compare_workers(asked.model, asked.episodes, asked.repeats)
    else:
        found = compare_runners(asked.model, asked.episodes, asked.repeats, asked.steps)
    text = json.dumps(found, indent=1)
    print(text)
    if asked.output:
        asked.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
