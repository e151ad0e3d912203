"""Which stages a run has, and which of them a command asks for."""

from __future__ import annotations

from heedful.config import Config
from heedful.errors import ConfigError


def all_stages(config: Config) -> list[str]:
    """The stages that there are, in order."""
    return ["sample", "label", "consensus", "reward", config.method, "evaluate", "report"]


def stages_of(config: Config, from_stage: str | None = None, until: str | None = None) -> list[str]:
    """The stages that a run goes through, none after `until`. Raises ConfigError when there is no stage of that name."""
    known = all_stages(config)
    ready_made = config.reward.preferences or config.reward.labelled.files
    names = known[known.index("reward") :] if ready_made else known
    for option, name in (("--from", from_stage), ("--until", until)):
        if name is not None and name not in known:
            raise ConfigError(f"{option} {name}: no such stage; the stages are {', '.join(known)}")
    if until is None:
        return names
    if until not in names:
        raise ConfigError(f"--until {until}: ready-made pairs or labels take its place; the stages are {', '.join(names)}")
    if from_stage is not None and known.index(from_stage) > known.index(until):
        raise ConfigError(f"--from {from_stage} --until {until}: '{until}' comes first; swap the two or drop one")
    return names[: names.index(until) + 1]
