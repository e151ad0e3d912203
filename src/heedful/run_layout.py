"""Where the files of a run lie, and which settings and files decide each stage's result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heedful.config import RUBRIC, Config, MonitorSection, RewardTermSection
from heedful.rewards.source import THUMBS, TRAINED, local_inputs
from heedful.rounds import Round
from heedful.stages.align import settings_of
from heedful.thumbs import thumb_settings


@dataclass(frozen=True)
class Layout:
    """Of a run in one directory. terms: the rewards whose sum is optimised."""

    config: Config
    path: Path
    round: Round
    terms: tuple[RewardTermSection, ...]

    @property
    def trains_reward(self) -> bool:
        return any(term.source == TRAINED for term in self.terms)

    @property
    def ready_made(self) -> bool:
        """Whether pairs or labels that people made elsewhere take the place of the first three stages."""
        return bool(self.config.reward.preferences or self.config.reward.labelled.files)

    @property
    def completions(self) -> Path:
        return self.path / "sample" / "completions.jsonl"

    @property
    def judgements(self) -> Path:
        return self.path / "label" / "judgements.jsonl"

    @property
    def preferences(self) -> Path:
        return self.path / "consensus" / "preferences.jsonl"

    @property
    def policy_folder(self) -> Path:
        return self.path / self.config.method / "policy"

    @property
    def trained_folder(self) -> Path:
        return self.path / "reward" / "model"

    @property
    def start(self) -> list[Path]:
        """The policy that this round goes on from; nothing in the first one."""
        return [self.round.start] if self.round.start else []

    @property
    def earlier_preferences(self) -> list[Path]:
        return [folder / "consensus" / "preferences.jsonl" for folder in self.round.earlier]

    @property
    def sampled_settings(self) -> dict[str, Any]:
        """What of the round decides what is sampled; nothing in a run of one round over all prompts."""
        number, share = self.round.number, self.config.round.num_prompts
        return {} if (number, share) == (1, 0) else {"round": number, "num_prompts": share}

    @property
    def judge_settings(self) -> dict[str, Any]:
        """Who judges; nothing where simulated labelers or a file do."""
        config = self.config
        if config.label.judgements or config.round.judges == "simulated":
            return {}
        asked = {"overlap", "quota"} if config.round.judges == "people" else set()
        ai = {"prefer": config.prefer.model_dump()} if config.round.judges == "ai" else {}
        return {"round": config.round.model_dump(include={"judges", *asked})} | ai

    @property
    def named(self) -> list[Path]:
        """Files and folders that the configuration names; no stage may clear them away."""
        config = self.config
        files = (
            *config.prompts.files,
            *config.environment.documents,
            *config.reward.preferences,
            *config.reward.labelled.files,
            config.label.judgements,
        )
        named = [Path(name).expanduser() for name in (*files, config.model.source, config.reward.model) if name]
        return named + [path for term in (*self.terms, *self.gold_terms) for path in local_inputs(term)]

    @property
    def gold_terms(self) -> tuple[RewardTermSection, ...]:
        """The reward that the policy does not learn from, where it is a source."""
        source = self.config.monitor.gold
        return (RewardTermSection(source=source),) if source not in ("", RUBRIC) else ()

    @property
    def reward_settings(self) -> dict[str, Any]:
        """What of the settings makes the reward, other than the trained model's."""
        if self.terms == (RewardTermSection(),):
            return {}
        section = self.config.reward
        shared = {"aggregate": section.aggregate, "disagreement_coef": section.disagreement_coef}
        thumbs = {"thumbs": thumb_settings(self.config)} if _asks(self.terms) else {}
        return {"reward": shared | {"terms": [term.identity for term in self.terms]} | thumbs}

    @property
    def watch_settings(self) -> dict[str, Any]:
        """What of the monitor's settings can change the policy; none of the defaults does."""
        section = self.config.monitor
        thumbs = {"thumbs": thumb_settings(self.config)} if _asks(self.gold_terms) else {}
        return {} if section == MonitorSection() else {"monitor": section.model_dump() | thumbs}

    @property
    def acts(self) -> bool:
        """Whether the policy acts in an environment that is more than a prompt set."""
        return self.config.environment.kind != "prompts"

    @property
    def world_settings(self) -> dict[str, Any]:
        """What of the settings makes the environment."""
        return {"environment": self.config.environment.model_dump()} if self.acts else {}

    @property
    def reward_inputs(self) -> list[Path]:
        """Files and folders that the reward is made of; the documents that an environment reads among them."""
        trained = [self.trained_folder] if self.trains_reward else []
        trained += [Path(name) for name in self.config.environment.documents] if self.acts else []
        return trained + [path for term in self.terms for path in local_inputs(term)]

    @property
    def align_settings(self) -> dict[str, Any]:
        """What makes the policy: the method's section, the reward, the monitor, and how old the weights that sample may be."""
        scale = self.config.scale
        found = settings_of(self.config).model_dump() | self.reward_settings | self.watch_settings | self.world_settings
        found |= {"max_staleness": scale.max_staleness} if scale.max_staleness else {}
        return found | ({"sampler": "vllm"} if scale.vllm_url else {})

    @property
    def align_inputs(self) -> list[Path]:
        return [*self.reward_inputs, *(path for term in self.gold_terms for path in local_inputs(term)), *self.start]


def _asks(terms: tuple[RewardTermSection, ...]) -> bool:
    return any(term.source == THUMBS for term in terms)
