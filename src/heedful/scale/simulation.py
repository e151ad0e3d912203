"""What a step of PPO takes with 1 to 1,024 workers, from costs measured on one: where the time goes, and what the limit is.

A stage of a step ends when the slowest worker has done its share. Shares are dealt by the very function that deals a run's work
(`heedful.team.spread`), so what cannot be split (an answer, a prompt's answers) shows as it does in a run. No torch is needed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from heedful.errors import ConfigError
from heedful.team import spread

PHASES = ("rollout", "measure", "gradient", "wait", "all-reduce", "exchange", "controller")
SOLO = ("exchange", "controller")  # what every worker does for the whole batch, however many there are
HOST = ("controller_answer_s", "unpack_answer_s", "checkpoint_s")  # costs of Python, whatever computes
FLOAT32 = 4
WRITER = "python benchmarks/scale.py phases --output FILE"


@dataclass(frozen=True)
class Costs:
    """What one worker takes, in seconds; measured by benchmarks/scale.py.

    decode_step_s: of a step of decoding, decode_row_s besides for each row in it. prompt_token_s: of a prompt's token that is
    read before decoding. measure_token_s: of reference, KL and value, reward_token_s: of the reward model, a token of prompts
    and answers. train_token_s: forward and backward, a token. optimiser_s: an update. controller_answer_s: an answer in columns
    and metrics. unpack_answer_s, answer_bytes: an answer as it comes from another worker. checkpoint_s: the state
    packed. learned_numbers: that learn, and are summed over the trainers.
    """

    model: str
    threads: int
    decode_step_s: float
    decode_row_s: float
    prompt_token_s: float
    measure_token_s: float
    reward_token_s: float
    train_token_s: float
    optimiser_s: float
    controller_answer_s: float
    unpack_answer_s: float
    answer_bytes: int
    checkpoint_s: float
    learned_numbers: int


@dataclass(frozen=True)
class Network:
    """Between workers: bytes a second of each one's link, and seconds that a message takes however short it is."""

    bytes_per_s: float
    latency_s: float


# Links as their makers rate them, at 80% of what they carry; latencies of TCP over them, and of NCCL over NVLink.
NETWORKS = {
    "loopback": Network(2e9, 30e-6),
    "1gbit": Network(0.1e9, 150e-6),
    "10gbit": Network(1e9, 60e-6),
    "100gbit": Network(10e9, 30e-6),
    "nvlink": Network(300e9, 10e-6),
}


def network_named(name: str) -> Network:
    """Raises ConfigError naming those that are known."""
    if name not in NETWORKS:
        raise ConfigError(f"network {name!r} is not known; known are {', '.join(NETWORKS)}")
    return NETWORKS[name]


@dataclass(frozen=True)
class Job:
    """A step of PPO. prompt_tokens: least and most. mean_response: of answers that end by themselves, cut at max_new_tokens."""

    episodes: int = 32
    samples_per_prompt: int = 2
    epochs: int = 2
    num_minibatches: int = 4
    prompt_tokens: tuple[int, int] = (16, 96)
    mean_response: float = 0.0  # 0: every answer is as long as it may be
    max_new_tokens: int = 40
    checkpoint_every: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """Seconds of a step by phase. wait: of the mean worker for the slowest. limit: the phase that takes most."""

    workers: int
    seconds: dict[str, float]
    tokens: int  # written

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def limit(self) -> str:
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def controller_share(self) -> float:
        """Of the step that no further worker makes shorter."""
        return sum(self.seconds[name] for name in SOLO) / self.total

    def as_dict(self) -> dict[str, Any]:
        return {
            "workers": self.workers,
            "step_s": self.total,
            "tokens_per_s": self.tokens / self.total,
            "limit": self.limit,
            "controller_share": self.controller_share,
            "seconds": self.seconds,
        }


def simulate(costs: Costs, job: Job, network: Network, workers: int) -> Step:
    """A step on so many workers, all of which sample and train.

    All-reduce as a ring: 2 (n - 1) messages of an n-th of the numbers (Patarasuk and Yuan 2009, section 3). Exchange: every
    worker gets every answer over its link and unpacks it, as the team's all-gather does.
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers cannot take a step; there is 1 at least")
    prompts, answers = _drawn(job)
    seconds = dict.fromkeys(PHASES, 0.0)

    costs_of_prompts = [prompt + job.samples_per_prompt * job.max_new_tokens for prompt in prompts]
    shares = spread(costs_of_prompts, workers)
    written = [_rollout_s(costs, [prompts[i] for i in share], [answers[i] for i in share]) for share in shares]
    looked = [costs.measure_token_s * sum(prompts[i] + sum(answers[i]) for i in share) for share in shares]
    slowest = max(range(workers), key=lambda rank: written[rank] + looked[rank])
    _add_phase(seconds, "rollout", written, written[slowest])
    _add_phase(seconds, "measure", looked, looked[slowest])
    read = [prompt + sum(some) for prompt, some in zip(prompts, answers, strict=True)]
    judged = [costs.reward_token_s * sum(read[i] for i in share) for share in spread(read, workers)]
    _add_phase(seconds, "measure", judged, max(judged))

    rows = [(i, length) for i, some in enumerate(answers) for length in some]
    order = random.Random(job.seed + 1)
    for _ in range(job.epochs):
        order.shuffle(rows)
        for place in range(job.num_minibatches):
            loads = _part_tokens(prompts, rows[place :: job.num_minibatches], workers)
            took = [costs.train_token_s * load for load in loads]
            _add_phase(seconds, "gradient", took, max(took))
            seconds["controller"] += costs.optimiser_s
            if workers > 1:
                share = FLOAT32 * costs.learned_numbers / workers
                seconds["all-reduce"] += 2 * (workers - 1) * (share / network.bytes_per_s + network.latency_s)
    seconds["controller"] += costs.controller_answer_s * job.episodes + costs.checkpoint_s / job.checkpoint_every
    if workers > 1:
        sent = costs.answer_bytes * job.episodes * (workers - 1) / workers
        seconds["exchange"] = sent / network.bytes_per_s + network.latency_s * (workers - 1)
        seconds["exchange"] += costs.unpack_answer_s * job.episodes
    return Step(workers, seconds, sum(map(sum, answers)))


def sweep(costs: Costs, job: Job, network: Network, most: int, *, grows: bool) -> list[Step]:
    """Steps with 1, 2, 4, ... workers. grows: job.episodes are those of each worker; else of all together."""
    found, workers = [], 1
    while workers <= most:
        sized = Job(**(asdict(job) | {"episodes": job.episodes * workers})) if grows else job
        found.append(simulate(costs, sized, network, workers))
        workers *= 2
    return found


def faster(costs: Costs, factor: float) -> Costs:
    """Of workers that compute so many times as fast, as GPUs do; Python's own work on answers stays as it is."""
    computed = [field.name for field in fields(Costs) if field.name.endswith("_s") and field.name not in HOST]
    return replace(costs, **{name: getattr(costs, name) / factor for name in computed})


def controller_limit(steps: Sequence[Step]) -> int | None:
    """The least number of workers at which what each does for all takes the larger half of a step; None: at none of these."""
    return next((step.workers for step in steps if step.controller_share > 0.5), None)


def _add_phase(seconds: dict[str, float], name: str, each: Sequence[float], slowest: float) -> None:
    """The mean worker's time is work, and the rest until the slowest is done is waiting."""
    mean = sum(each) / len(each)
    seconds[name] += mean
    seconds["wait"] += slowest - mean


def _drawn(job: Job) -> tuple[list[int], list[list[int]]]:
    """Lengths of the prompts, and of the answers to each."""
    chosen = random.Random(job.seed)
    count = max(1, job.episodes // job.samples_per_prompt)
    prompts = [chosen.randint(*job.prompt_tokens) for _ in range(count)]

    def response() -> int:
        if not job.mean_response:
            return job.max_new_tokens
        return min(job.max_new_tokens, 1 + int(chosen.expovariate(1 / job.mean_response)))

    return prompts, [[response() for _ in range(job.samples_per_prompt)] for _ in prompts]


def _rollout_s(costs: Costs, prompts: Sequence[int], answers: Sequence[Sequence[int]]) -> float:
    """A worker decodes its answers side by side, and rows that have ended leave."""
    lengths = sorted(length for some in answers for length in some)
    steps = lengths[-1] if lengths else 0
    return costs.prompt_token_s * sum(prompts) + costs.decode_step_s * steps + costs.decode_row_s * sum(lengths)


def _part_tokens(prompts: Sequence[int], rows: Sequence[tuple[int, int]], workers: int) -> list[int]:
    """Tokens that each worker reads of an optimiser batch: a prompt counts once in a part, and a part is an answer at least."""
    members: dict[int, list[int]] = {}
    for prompt, length in rows:
        members.setdefault(prompt, []).append(length)
    whole = sum(prompts[i] + sum(some) for i, some in members.items())
    room = max(1, -(-whole // workers))
    parts: list[int] = []
    for i, some in sorted(members.items(), key=lambda item: (-prompts[item[0]] - sum(item[1]), item[0])):
        filled = 0
        for length in some:
            if not filled or filled + length > room:
                parts.append(prompts[i])
                filled = prompts[i]
            parts[-1] += length
            filled += length
    return [sum(parts[i] for i in share) for share in spread(parts, workers)]


def read_costs(path: Path | None = None) -> tuple[Costs, dict[str, Any]]:
    """Costs from a file of benchmarks/scale.py, and what was measured beside them; without one those that come with heedful.

    Raises ConfigError naming the file and what is wrong.
    """
    from importlib.resources import files

    try:
        text = path.read_text(encoding="utf-8") if path else (files("heedful.scale") / "costs.json").read_text("utf-8")
        found = json.loads(text)
        given = dict(found["costs"])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); write it with {WRITER}") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: not a file of costs, for it has no object 'costs'; write it with {WRITER}") from None
    names = {field.name for field in fields(Costs)}
    numbers = {name: value for name, value in given.items() if name != "model"}
    wrong = sorted(names ^ set(given)) or [
        name for name, value in numbers.items() if not (isinstance(value, int | float) and value >= 0)
    ]
    if wrong:
        raise ConfigError(f"{path}: costs.{wrong[0]} is missing, unknown or no number from 0 on; write it with {WRITER}")
    return Costs(**given), dict(found.get("measured", {}))
