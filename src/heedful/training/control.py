"""What a run learns about its rewards and its distance from the reference, and steers by."""

from __future__ import annotations

from collections.abc import Sequence


class RunningMoments:
    """Mean and standard deviation of all rewards seen (Welford)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: Sequence[float]) -> None:
        for value in values:
            self.count += 1
            delta = value - self.mean
            self.mean += delta / self.count
            self.squares += delta * (value - self.mean)

    def normalise(self, values: Sequence[float], limit: float) -> list[float]:
        """(value - mean) / sd, clipped to +-limit; 0 while all values seen were equal."""
        sd = (self.squares / max(1, self.count - 1)) ** 0.5
        return [max(-limit, min(limit, (value - self.mean) / sd)) if sd > 1e-8 else 0.0 for value in values]


class AdaptiveKL:
    """Coefficient that steers the sequence KL to a target (Ziegler et al. 2019, section 2.2); fixed with target 0."""

    def __init__(self, coef: float, target: float, horizon: float) -> None:
        self.coef, self.target, self.horizon = coef, target, horizon

    def update(self, kl: float, episodes: int) -> None:
        """kl: mean sequence KL in nats of the last batch of `episodes` rollouts."""
        if self.target > 0:
            error = max(-0.2, min(0.2, kl / self.target - 1))
            # At most halved or doubled at once: a horizon shorter than the batch must not turn the penalty into a bonus.
            self.coef *= max(0.5, min(2.0, 1 + error * episodes / self.horizon))
