"""Options by which commands name a feedback model, and the settings they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from heedful.config import FeedbackSection
    from heedful.judging.calls import Usage

FEEDBACK = Annotated[
    str, typer.Option("--feedback", help="A model that gives feedback: a folder, a hub id, an alias, or https://.../v1.")
]
FEEDBACK_MODEL = Annotated[
    str, typer.Option("--feedback-model", help="Of a --feedback behind an address: the model's name there.")
]
FEEDBACK_TOKEN = Annotated[
    str, typer.Option("--token-env", help="Of a --feedback behind an address: environment variable that holds its token.")
]
FEEDBACK_SET = Annotated[
    list[str] | None,
    typer.Option("--feedback-set", help="Another setting of the feedback model, as in in_flight=8. Repeatable."),
]


def feedback_section(source: str, model: str, token_env: str, settings: Sequence[str] | None) -> FeedbackSection:
    """The settings that these options name. A run directory stands for the policy in it. Raises ConfigError."""
    from heedful.cli.talk import policy_of
    from heedful.config import FeedbackSection
    from heedful.config.section import with_overrides

    named = source if "://" in source else policy_of(source)
    given = {"source": named, "model": model, "token_env": token_env}
    return with_overrides(FeedbackSection, settings or (), option="--feedback-set", **given)


def told_of_usage(usage: Usage) -> str:
    """One line: calls, what was had from the journal, what could not be used, tokens and cost."""
    parts = [f"{usage.calls:,} calls", f"{usage.cached:,} known already", f"{usage.invalid:,} unusable"]
    parts += [f"{usage.retries:,} sent again"] if usage.retries else []
    parts += [f"{usage.prompt_tokens:,} tokens read, {usage.completion_tokens:,} written"]
    parts += [f"cost {usage.cost:,.4f}"] if usage.cost else []
    parts += [f"{usage.uncounted:,} replies did not say how many tokens they took"] if usage.uncounted else []
    return "; ".join(parts)
