"""An AI judge that goes by a constitution: asked by several principles, in both orders each, the verdicts settled into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from heedful.constitution.principles import Constitution, Principle
from heedful.judging.contrastive import drawn
from heedful.judging.judge import Ask, Judge, Opinion, Pair


@dataclass(frozen=True)
class Settled(Opinion):
    """What the principles come to. by: each principle's probability that the second answer is better; NaN: could not be had."""

    by: dict[str, float] = field(default_factory=dict)


class Council:
    """A `PairJudge` over principles. number: of principles a pair is judged by, drawn by weight from a seed that the pair's own
    texts give, so a pair meets the same ones whenever it is judged; 0: all.

    clamp: probabilities of both orders are held within 1/2 - clamp and 1/2 + clamp, as after reasoning, which makes any judge
    too sure (Bai et al. 2022, "Constitutional AI", section 4.1, with 0.1); 0.5 leaves them as they are.
    """

    ordered = True

    def __init__(
        self,
        name: str,
        ask: Ask,
        constitution: Constitution,
        *,
        tags: Sequence[str] = (),
        number: int = 0,
        clamp: float = 0.5,
        seed: int = 0,
        told: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.name = name
        self.ask = ask
        self.constitution = constitution
        self.tags = tuple(tags)
        self.number = number
        self.clamp = clamp
        self.seed = seed
        self.told = told

    def __call__(self, pairs: Sequence[Pair]) -> list[Settled]:
        drawn = [self.principles_for(pair) for pair in pairs]
        found: list[dict[str, Opinion]] = [{} for _ in pairs]
        done, total = 0, sum(map(len, drawn))
        for principle in self.constitution.tagged(self.tags):
            own = [n for n, principles in enumerate(drawn) if principle in principles]
            judge = Judge(self.name, self.ask, principle.question)
            for n, opinion in zip(own, judge([pairs[n] for n in own]) if own else (), strict=True):
                found[n][principle.name] = Opinion(*(self._held(p) for p in (opinion.as_b, opinion.as_a)))
            done += len(own)
            self.told(done, total)
        return [self._settled(opinions) for opinions in found]

    def principles_for(self, pair: Pair) -> tuple[Principle, ...]:
        """Those that the pair is judged by; the two answers may be exchanged."""
        among = self.constitution.tagged(self.tags)
        key = (self.seed, pair.messages, sorted((pair.first, pair.second)))
        return tuple(among[place] for place in drawn([one.weight for one in among], self.number, *key))

    def _held(self, p: float) -> float:
        return p if p != p else min(0.5 + self.clamp, max(0.5 - self.clamp, p))

    def _settled(self, opinions: dict[str, Opinion]) -> Settled:
        by = {name: opinion.probability for name, opinion in opinions.items()}
        sides = ({name: getattr(one, side) for name, one in opinions.items()} for side in ("as_b", "as_a"))
        as_b, as_a = (self._by_deciding(by, side) for side in sides)
        return Settled(as_b, as_a, by)

    def _by_deciding(self, by: dict[str, float], side: dict[str, float]) -> float:
        """The mean of one order over the principles that decide, so that the mean of both orders is what settles the pair."""
        shares = self.constitution.shares(by)
        return sum(share * side[name] for name, share in shares.items()) if shares else float("nan")
