"""The works that are measured: what a step of each does, in which unit its useful work is counted, and who the peer is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BATCH = 8  # pairs or completions an optimiser step
GRPO_PROMPTS, GRPO_SAMPLES = 8, 4
EPISODES, PPO_EPOCHS, PPO_MINIBATCHES = 32, 2, 4
NEW_TOKENS = 48
RANK = 16
BETA = 0.1
LINEAR_PAIRS = (4, 8, 16, 32)
WARMUP = 1  # steps of each turn that are not counted: what is compiled, allocated or read for the first time

TRL, TRL_PPO = "trl-1.16", "trl-1.12"  # the peers' environments

Settings = dict[str, Any]

# The fastest of what was tried on a processor with bfloat16; docs/methods/speed.md has the table, peer_settings.py makes it.
AUTOCAST: Settings = {"weights": "float32", "autocast": True, "gradient_checkpointing": False, "rows": 8}
PRECOMPUTE: Settings = AUTOCAST | {"precompute": True}
IN_STEP: Settings = AUTOCAST | {"precompute": False, "rows": 2}
# bfloat16 weights, because the trainers sample outside their autocast.
ONLINE: Settings = AUTOCAST | {"weights": "bfloat16", "rows": 32}
ONLINE_GRPO: Settings = ONLINE | {"autocast": False, "rows": 8}
ONLINE_PPO: Settings = ONLINE | {"value": "adapter"}
PLAIN: Settings = {"weights": "bfloat16", "autocast": False, "cache": "dynamic"}


@dataclass(frozen=True)
class Work:
    """name: as on the command line. unit: of useful work. steps: timed ones of a turn. units: of useful work a step.

    batch: examples a step; num_prompts: that are sampled from. peer: the environment; empty for work that only heedful does.
    script: the peer's turn. settings: the peer's.
    """

    name: str
    title: str
    unit: str
    steps: int
    units: int
    batch: int = 0
    num_prompts: int = 0
    peer: str = ""
    script: str = ""
    settings: Settings = field(default_factory=dict)


def _trl(name: str, title: str, unit: str, steps: int, settings: Settings) -> Work:
    return Work(name, title, unit, steps, BATCH, batch=BATCH, peer=TRL, script="trl_turn.py", settings=settings)


def _generation(rows: int, steps: int) -> Work:
    name, title = f"generate-{rows}", f"generation, {rows} rows"
    units = rows * NEW_TOKENS
    return Work(name, title, "tokens/s", steps, units, num_prompts=rows, peer=TRL, script="generate_turn.py", settings=PLAIN)


LISTED = (
    _trl("reward", "reward model", "pairs/s", 3, AUTOCAST),
    _trl("dpo", "DPO", "pairs/s", 2, IN_STEP),
    _trl("sft", "SFT", "completions/s", 3, AUTOCAST),
    _trl("kto", "KTO", "completions/s", 2, PRECOMPUTE),
    Work("grpo", "GRPO", "episodes/s", 2, EPISODES, EPISODES, GRPO_PROMPTS, TRL, "trl_turn.py", ONLINE_GRPO),
    Work("ppo", "PPO step", "episodes/s", 1, EPISODES, EPISODES, EPISODES, TRL_PPO, "trl_ppo_turn.py", ONLINE_PPO),
    _generation(32, 2),
    _generation(128, 1),
    Work("train", "forward and backward", "pairs/s", 3, BATCH, BATCH),
    Work("linear", "DPO, 1x to 8x pairs", "pairs/s", len(LINEAR_PAIRS), 0, sum(LINEAR_PAIRS) // len(LINEAR_PAIRS)),
)
WORKS = {work.name: work for work in LISTED}
