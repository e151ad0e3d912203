"""What a run's page draws: which metrics share a plot, what it is called, and which limits are drawn into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from heedful.evaluation.limits import Limits

SPEED = "tokens_per_s"  # made here, of lengths and times


@dataclass(frozen=True)
class Plot:
    """curves: metrics, the one that counts last. limits: levels beyond which the hacking monitor sees a sign."""

    title: str
    caption: str
    curves: tuple[str, ...]
    limits: tuple[float, ...] = ()

    @property
    def names(self) -> str:
        return ",".join(self.curves)

    @property
    def levels(self) -> str:
        return ",".join(f"{limit:g}" for limit in self.limits)


REWARD = Plot(
    "Reward",
    "Mean of a step's rollouts; of held-out answers; gold, which it is not trained on.",
    ("reward", "heldout_gold", "heldout_reward"),
)
KL = Plot("Distance from the base", "KL(policy || reference), nats a sequence.", ("kl_policy_ref",))
LEARNING = (
    REWARD,
    KL,
    Plot("Entropy", "Nats a token. Falling to 0: collapse.", ("entropy",)),
    Plot("Value loss", "Squared error, clipped.", ("value_loss",)),
    Plot("Clip fraction", "Share of tokens past the clip.", ("clip_fraction",)),
    Plot("Length", "Tokens of a rollout.", ("length",)),
    Plot("Ends by itself", "Share of rollouts that are not cut off.", ("finished",)),
    Plot("Speed", "Tokens of rollouts a second, learning and evaluation included.", (SPEED,)),
)
HACKING = (
    Plot(
        "Reward and length",
        "Correlation over the last 128 rollouts.",
        ("reward_length_correlation",),
        (-Limits.correlation, Limits.correlation),
    ),
    Plot("Repetition", "Share of an answer's 4-grams that stood in it before.", ("repeated",), (Limits.repeated,)),
    Plot("Longer", "Length of held-out answers, of the reference's.", ("length_ratio",), (Limits.length_ratio,)),
    Plot("Variety", "Different pairs of words, of the reference's.", ("distinct_ratio",), (Limits.distinct,)),
    Plot("Cut off", "Share of held-out answers, less the reference's.", ("more_truncated",), (Limits.truncated,)),
    Plot("Refusals of safe prompts", "Share, less the reference's.", ("more_safe_refusals",), (Limits.refusals,)),
)
COMPARED = (
    Plot("Reward", "Held-out answers.", ("heldout_reward",)),
    Plot("Reward of rollouts", "Mean of a step.", ("reward",)),
    KL,
    Plot("Gold", "Held-out answers, by the reward that is not trained on.", ("heldout_gold",)),
    Plot("Entropy", "Nats a token.", ("entropy",)),
    Plot("Length", "Tokens of a rollout.", ("length",)),
)


METHODS = ("ppo", "rloo", "grpo")  # stages that optimise a policy
EVALUATED = {name for plot in HACKING for name in plot.curves} - {
    "reward_length_correlation",
    "repeated",
}  # of evaluations alone


def plots_of(stage: str, columns: set[str]) -> dict[str, list[Plot]]:
    """`learning`, `hacking` and `rest`. Of a policy's stage all of the first two are there from the start: a plot shows itself
    when its first value comes. What belongs to none of them is in rest, or of another stage in learning.
    """
    if stage not in METHODS:
        return {"learning": _each(columns), "hacking": [], "rest": []}
    drawn = {name for plot in (*LEARNING, *HACKING) for name in plot.curves} | {"hacking_level"}
    return {"learning": list(LEARNING), "hacking": list(HACKING), "rest": _each(columns - drawn)}


def compared_plots(columns: Sequence[set[str]]) -> list[Plot]:
    """For runs with these metrics: what is compared of policies; where there is none, what two have in common."""
    found = [plot for plot in COMPARED if sum(bool(set(plot.curves) & own) for own in columns)]
    if found:
        return found
    counts = Counter(name for own in columns for name in own)
    return _each({name for name, count in counts.items() if count > 1 or len(columns) == 1})


def _each(names: set[str]) -> list[Plot]:
    return [Plot(name, "", (name,)) for name in sorted(names)]
