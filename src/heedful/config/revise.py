"""How answers are criticised and revised, and which revisions are learned from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from heedful.config.feedback import FeedbackSection
from heedful.config.section import Names, Section


class ReviseSection(Section):
    """Critique and revision by a constitution: stage 1 of constitutional AI."""

    constitution: str = Field("bundled", description="A constitution file, or the one that comes with heedful.")
    tags: Names = Field(("harmless",), description="Principles with one of these tags are drawn; empty: all.")
    feedback: FeedbackSection | None = Field(
        None, description="Who writes answers, critiques and revisions; none: the model of [model]."
    )
    passes: int = Field(1, ge=1, le=4, description="Critiques and revisions one after the other, each by another principle.")
    num_revisions: int = Field(4, ge=1, le=16, description="Revisions that are drawn a pass; the best one goes on.")
    num_examples: int = Field(2, ge=0, le=8, description="Worked examples of the constitution in front of each request.")
    form: Literal["turns", "quoted"] = Field(
        "quoted", description="How it is asked: in one message that quotes prompt and answer, or as turns of the conversation."
    )
    temperature: float = Field(0.7, gt=0, description="Divides the logits.")
    top_p: float = Field(1.0, gt=0, le=1, description="Smallest set of tokens with this probability is kept.")
    max_new_tokens: int = Field(96, ge=8, description="Longest answer, critique and revision, end-of-text token included.")
    scorer: Literal["contrastive", "reward", "off"] = Field(
        "contrastive", description="What must call a revision better than the answer: see the page; off: nothing."
    )
    contrasts: int = Field(
        2, ge=0, description="Contrastive: principles whose good and bad instruction weigh a text, heaviest first; 0: all."
    )
    min_gain: float = Field(0.0, ge=0, description="Least lead over the answer, in the scorer's units; 0: any.")
    cut: Literal["trim", "keep", "drop"] = Field(
        "trim", description="Revisions that the limit cut off: trimmed to whole sentences, kept as they are, or dropped."
    )
    min_words: int = Field(6, ge=1, description="Revisions of fewer words are dropped.")
    max_repeated: float = Field(0.2, ge=0, le=1, description="Largest share of 4-word phrases that stood in it before.")
    max_similarity: float = Field(0.9, gt=0, le=1, description="What is more alike to a text that was shown is a copy of it.")
    max_copied: float = Field(
        0.5, gt=0, le=1, description="Largest share of 4-word phrases from a critique, a request or an example."
    )
    helpful_share: float = Field(0.5, ge=0, lt=1, description="Share of helpful answers among what is learned.")
    helpful_prompts: Names = Field((), description="Their prompts; empty: bundled:prompts without those to be refused.")
    helpful_completions: Names = Field((), description="Their answers; empty: the model's own.")
