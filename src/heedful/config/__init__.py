"""heedful.toml: one frozen model a stage. Every default and its reason stands in these files and nowhere else."""

from __future__ import annotations

from heedful.config.data import EvaluateSection, LabelSection, ModelSection, PromptsSection, SampleSection
from heedful.config.environment import EnvironmentSection
from heedful.config.feedback import FeedbackSection
from heedful.config.file import (
    PERSONS,
    RUBRIC,
    Config,
    for_revising,
    for_reward_training,
    known_keys,
    load,
    parse,
    says,
    split_persons,
    to_toml,
    with_reward,
)
from heedful.config.offline import DPOSection, FromFilesSection, ILQLSection, KTOSection, SFTSection
from heedful.config.online import GRPOSection, MonitorSection, PolicySection, PPOSection, RLOOSection
from heedful.config.prefer import PreferSection
from heedful.config.revise import ReviseSection
from heedful.config.reward import LEAST_LABELS, LabelledSection, RewardSection, RewardTermSection
from heedful.config.rounds import RoundSection
from heedful.config.scale import ScaleSection
from heedful.config.section import LoraSection, Section
from heedful.config.update import UpdateSection

__all__ = [
    "LEAST_LABELS",
    "PERSONS",
    "RUBRIC",
    "Config",
    "DPOSection",
    "EnvironmentSection",
    "EvaluateSection",
    "FeedbackSection",
    "FromFilesSection",
    "GRPOSection",
    "ILQLSection",
    "KTOSection",
    "LabelSection",
    "LabelledSection",
    "LoraSection",
    "ModelSection",
    "MonitorSection",
    "PPOSection",
    "PolicySection",
    "PreferSection",
    "PromptsSection",
    "RLOOSection",
    "ReviseSection",
    "RewardSection",
    "RewardTermSection",
    "RoundSection",
    "SFTSection",
    "SampleSection",
    "ScaleSection",
    "Section",
    "UpdateSection",
    "for_revising",
    "for_reward_training",
    "known_keys",
    "load",
    "parse",
    "says",
    "split_persons",
    "to_toml",
    "with_reward",
]
