"""Section of AI feedback: which answers are compared, and who says which is better."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from heedful.config.feedback import FeedbackSection
from heedful.config.section import Names, Section

SCORERS = ("reward", "contrastive", "letters")
Against = Literal["plain", "bad"]


class PreferSection(Section):
    """Stage 2 of a constitution: pairs of the model's own answers, judged by a model."""

    policy: str = Field(
        "", description="The model that answers: a folder, such as stage 1's, a hub id or an alias; empty: model.source."
    )
    num_sampled: int = Field(2, ge=0, le=8, description="Answers a prompt as the model gives them.")
    num_contrasted: int = Field(
        0, ge=0, le=4, description="Pairs a prompt of an answer under a principle's good instruction and one under its bad one."
    )
    temperature: float = Field(1.0, gt=0, description="Divides the logits of the answers.")
    top_p: float = Field(1.0, gt=0, le=1, description="Smallest set of tokens with this probability is kept.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer, end-of-text token included.")
    constitution: str = Field("bundled", description="A constitution file, or the one that comes with heedful.")
    tags: Names = Field((), description="Only principles with one of these tags; empty: all.")
    principles: int = Field(2, ge=0, description="Principles by which a pair is judged, drawn by weight; 0: all.")
    against: Against = Field(
        "plain", description="A contrast of a good instruction with the conversation as it stands, or with the bad one."
    )
    scorer: Literal["best", "reward", "contrastive", "letters"] = Field(
        "best", description="Who judges; best: the most accurate of those at hand that pass the gate."
    )
    reward: str = Field("", description="A reward model or classifier that may judge, as reward.terms.source.")
    reasoning: bool = Field(False, description="Letters: have reasons written before them.")
    reasoning_tokens: int = Field(128, ge=1, description="Longest reasons.")
    clamp: float = Field(0.1, gt=0, le=0.5, description="After reasons, probabilities are held this near to one half.")
    gate: Names = Field((), description="Files of pairs that people have judged, on which each scorer is measured first.")
    gate_pairs: int = Field(400, ge=0, description="At most so many of them, drawn at random; 0: all.")
    force: bool = Field(False, description="Use a scorer that the gate refuses, or no gate at all; the result says so.")
    calibrate: bool = Field(True, description="Fit the sureness of the probabilities to the pairs of the gate.")
    near_tie: float = Field(
        0.02, ge=0, lt=0.5, description="A pair whose probability is nearer to one half makes no preference."
    )
    criterion: str = Field("helpful, honest, harmless", description="What the judgements are said to go by, beside people's.")
    feedback: FeedbackSection = FeedbackSection()
