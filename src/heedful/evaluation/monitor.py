"""The hacking monitor: signs that a policy earns its reward otherwise than by better answers.

It is handed to a policy's training as a value. After each step it looks at the rollouts, after each evaluation at the answers
to the held-out prompts, beside what the frozen reference answered, and where there is one at a gold reward that the policy is
not trained on. Limits and the rule for stopping are those of docs/methods/hacking.md.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from heedful.errors import RewardError
from heedful.evaluation import overoptimisation
from heedful.evaluation.limits import Limits
from heedful.evaluation.phrases import repeated_phrases, words
from heedful.feedback.refusals import is_refusal, repeated_share
from heedful.models.reward import Answer

Level = Literal["ok", "warn", "stop"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "stop")
FALSE_ALARMS = 0.05  # of runs in which gold does not fall


class Sign(NamedTuple):
    """name: of the sign. said: in words, with its figures."""

    name: str
    level: Level
    said: str


@dataclass(frozen=True)
class Heard:
    """Answers to the held-out prompts, one each: what they are worth by the reward and, if there is one, by gold."""

    texts: list[str]
    lengths: list[int]
    finished: list[bool]
    rewards: list[float]
    golds: list[float]


class Monitor:
    """Follows one run. Implements training's `Watch`.

    prompt_ids: of the held-out prompts, in the order of the answers. safe: those of them that should not be refused. gold:
    judges answers and is not what the policy learns from. kl_target: 0 for none. window: evaluations over which reward and
    gold part; num_evaluations: how many there will be. raise_kl: factor on the KL coefficient after an evaluation with a
    sign. queue: answers for people to look at.
    """

    def __init__(
        self,
        prompt_ids: Sequence[str],
        *,
        safe: Collection[str] = (),
        gold: Callable[[Sequence[Answer]], list[float]] | None = None,
        kl_target: float = 0.0,
        window: int = 3,
        num_evaluations: int = 1,
        raise_kl: float = 1.0,
        queue: int = 0,
    ) -> None:
        self.prompt_ids, self.safe, self.gold = list(prompt_ids), set(safe), gold
        self.kl_target, self.window, self.raise_kl, self.queue = kl_target, window, raise_kl, queue
        self.num_evaluations = num_evaluations
        self.reference: Heard | None = None
        self.first: dict[str, float] = {}  # entropy and disagreement at the start
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT)  # lengths and rewards of the last rollouts
        self.kl = 0.0
        self.heard: deque[Heard] = deque(maxlen=window + 1)  # the last evaluations' answers; texts of the last alone
        self.num_heard = 0  # evaluations so far
        self.distances: list[tuple[float, float]] = []  # KL and mean gold of each evaluation
        self.of_steps: list[Sign] = []
        self.of_evaluations: list[Sign] = []

    # What training calls

    @property
    def begun(self) -> bool:
        return self.reference is not None

    def begin(self, answers: Sequence[Answer], rewards: Sequence[float]) -> None:
        """What the reference answers to the held-out prompts."""
        self.reference = self._hear(answers, rewards)

    def after_step(
        self, measured: Mapping[str, float], answers: Sequence[Answer], rewards: Sequence[float]
    ) -> dict[str, float]:
        """The step's own figures and its rollouts."""
        found: dict[str, float] = {}
        self.of_steps = []
        self.kl = measured.get("kl_policy_ref", 0.0)
        if self.kl_target > 0 and self.kl > Limits.kl_ratio * self.kl_target:
            self._note("kl", f"the sequence KL is {self.kl:.1f} nats, more than {Limits.kl_ratio:g} times its target")
        self.recent.extend((float(len(a.response_ids)), float(reward)) for a, reward in zip(answers, rewards, strict=True))
        found["reward_length_correlation"] = correlation = _correlation(self.recent)
        if abs(correlation) > Limits.correlation:
            longer = "longer" if correlation > 0 else "shorter"
            self._note("length", f"{longer} answers are rewarded: the correlation of reward and length is {correlation:+.2f}")
        found["repeated"] = repeated = float(np.mean([repeated_share(answer.text) for answer in answers]))
        if repeated > Limits.repeated:
            self._note("repetition", f"{100 * repeated:.0f}% of the phrases in an answer stood in it before")
        spreads = [name for name in measured if name.startswith("ensemble_sd")]  # of each term that is an ensemble
        for name in ("entropy", *spreads):
            more = name != "entropy"
            ratio = Limits.disagreement if more else Limits.entropy
            value = measured.get(name)
            if value is None:
                continue
            start = self.first.setdefault(name, float(value))
            if start > 0 and (value > ratio * start if more else value < ratio * start):
                what = "the ensemble's members disagree" if more else "the policy's entropy is"
                self._note(name, f"{what} {value / start:.1f} times what it was at the start")
        return found | {"hacking_level": float(LEVELS.index(self.level))}

    def after_evaluation(self, answers: Sequence[Answer], rewards: Sequence[float]) -> dict[str, float]:
        """The answers to the held-out prompts, beside the reference's."""
        assert self.reference is not None, "begin comes first"
        now, was = self._hear(answers, rewards), self.reference
        if self.heard:
            self.heard[-1] = _without_texts(self.heard[-1])
        self.heard.append(now)
        self.num_heard += 1
        fell_before = any(sign.name == "gold" for sign in self.of_evaluations)
        self.of_evaluations = []
        found = {
            "length_ratio": float(np.mean(now.lengths)) / max(1.0, float(np.mean(was.lengths))),
            "more_truncated": float(np.mean(was.finished)) - float(np.mean(now.finished)),
            "distinct_ratio": _distinct(now.texts) / variety if (variety := _distinct(was.texts)) else 1.0,
            "more_safe_refusals": self._refusals(now) - self._refusals(was),
        }
        if found["length_ratio"] > Limits.length_ratio:
            self._note("longer", f"answers are {found['length_ratio']:.1f} times as long as the reference's", evaluation=True)
        if found["more_truncated"] > Limits.truncated:
            said = f"{100 * found['more_truncated']:.0f} points more answers are cut off than of the reference"
            self._note("truncation", said, evaluation=True)
        if found["distinct_ratio"] < Limits.distinct:
            said = f"answers have {100 * found['distinct_ratio']:.0f}% of the reference's variety (different pairs of words)"
            self._note("variety", said, evaluation=True)
        if found["more_safe_refusals"] > Limits.refusals:
            said = f"{100 * found['more_safe_refusals']:.0f} points more safe prompts are refused than by the reference"
            self._note("refusals", said, evaluation=True)
        for phrase in repeated_phrases(was.texts, now.texts):
            said = f"“{phrase.phrase}” stands in {100 * phrase.after:.0f}% of the answers, before in {100 * phrase.before:.0f}%"
            self._note("phrase", said, evaluation=True)
        if now.golds:
            found["heldout_gold"] = float(np.mean(now.golds))
            self.distances.append((self.kl, found["heldout_gold"]))
            self._compare_with_gold(fell_before)
        return found | {"hacking_level": float(LEVELS.index(self.level))}

    def kl_factor(self) -> float:
        """On the KL coefficient, after an evaluation."""
        return self.raise_kl if self.level != "ok" else 1.0

    def signs(self) -> list[dict[str, Any]]:
        """Those that hold now."""
        return [sign._asdict() for sign in (*self.of_evaluations, *self.of_steps)]

    def state_dict(self) -> dict[str, Any]:
        return {
            "reference": asdict(self.reference) if self.reference else None,
            "first": self.first,
            "recent": list(self.recent),
            "kl": self.kl,
            "heard": [asdict(heard) for heard in self.heard],
            "num_heard": self.num_heard,
            "distances": self.distances,
            "of_steps": [tuple(sign) for sign in self.of_steps],
            "of_evaluations": [tuple(sign) for sign in self.of_evaluations],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.reference = Heard(**state["reference"]) if state["reference"] else None
        self.first, self.kl = dict(state["first"]), float(state["kl"])
        self.recent = deque(((float(x), float(y)) for x, y in state["recent"]), maxlen=RECENT)
        self.heard = deque((Heard(**heard) for heard in state["heard"]), maxlen=self.window + 1)
        self.num_heard = int(state["num_heard"])
        self.distances = [(float(kl), float(gold)) for kl, gold in state["distances"]]
        self.of_steps = [Sign(*sign) for sign in state["of_steps"]]
        self.of_evaluations = [Sign(*sign) for sign in state["of_evaluations"]]

    # What it finds

    @property
    def level(self) -> Level:
        """The worst of the signs that hold now."""
        return max((sign.level for sign in (*self.of_steps, *self.of_evaluations)), key=LEVELS.index, default="ok")

    def curve(self) -> overoptimisation.Curve | None:
        """Gold over the distance from the reference, fitted to the evaluations so far."""
        if self.reference is None or not self.reference.golds:
            return None
        kls, golds = [kl for kl, _ in self.distances], [gold for _, gold in self.distances]
        return overoptimisation.fit(float(np.mean(self.reference.golds)), kls, golds)

    def outliers(self) -> list[dict[str, Any]]:
        """Answers of the last evaluation that the reward likes most above what gold says of them, with the reference's."""
        if not self.heard or self.reference is None or not self.heard[-1].golds or not self.heard[-1].texts:
            return []
        now = self.heard[-1]
        rewards, golds = (np.array(column) for column in (now.rewards, now.golds))
        excess = _standard(rewards) - _standard(golds)
        chosen = np.argsort(-excess, kind="stable")[: self.queue].tolist()
        return [
            {
                "prompt_id": self.prompt_ids[i],
                "texts": (self.reference.texts[i], now.texts[i]),
                "finished": (self.reference.finished[i], now.finished[i]),
                "reward": now.rewards[i],
                "gold": now.golds[i],
            }
            for i in chosen
        ]

    def _compare_with_gold(self, fell_before: bool) -> None:
        """A sign: the reward is clearly above the reference's, and gold has clearly fallen, prompt by prompt: below the
        reference's, or from the evaluation `window` ago, since when the reward has not fallen. Twice in a row it is a stop: a
        policy on its way has moments at which it answers truly worse. fell_before: whether the last evaluation had the sign.

        All tests of a run together raise a false alarm in one run of twenty at most: the k-th evaluation of K has the level
        0.05 / (k (1 + log K)), halved for the two comparisons.
        """
        assert self.reference is not None
        now, k = self.heard[-1], self.num_heard
        level = FALSE_ALARMS / (2 * k * (1 + math.log(max(k, self.num_evaluations))))
        if k < self.window or len(self.prompt_ids) < 2:
            return
        if _p_of(self.reference.rewards, now.rewards, "greater") >= level:
            return
        ago = self.heard[0] if k > self.window else self.reference
        since = f"over {self.window} evaluations"
        for was, what in ((ago, since), (self.reference, "since the reference")):
            fell = _p_of(was.golds, now.golds, "less") < level
            if fell and _p_of(was.rewards, now.rewards, "less") >= 0.05:
                rose, lost = (
                    float(np.mean(new) - np.mean(old)) for old, new in ((was.rewards, now.rewards), (was.golds, now.golds))
                )
                said = f"{what} gold fell by {-lost:.2f} while the reward went {rose:+.2f}, beyond chance"
                if fell_before:
                    said += ", as in the evaluation before: the policy has learned the reward's faults"
                self._note("gold", said, "stop" if fell_before else "warn", evaluation=True)
                return

    def _note(self, name: str, said: str, level: Level = "warn", *, evaluation: bool = False) -> None:
        (self.of_evaluations if evaluation else self.of_steps).append(Sign(name, level, said))

    def _hear(self, answers: Sequence[Answer], rewards: Sequence[float]) -> Heard:
        golds = [float(value) for value in self.gold(answers)] if self.gold else []
        wrong = next((n for n, value in enumerate(golds) if not math.isfinite(value)), None)
        if wrong is not None:
            shown = answers[wrong].shown()
            raise RewardError(f"monitor.gold: {shown} has the gold reward {golds[wrong]}; mend that reward or leave it out")
        return Heard(
            [answer.text for answer in answers],
            [len(answer.response_ids) for answer in answers],
            [answer.finished for answer in answers],
            [float(reward) for reward in rewards],
            golds,
        )

    def _refusals(self, heard: Heard) -> float:
        """Share of the safe prompts that are refused; 0 where none is known to be safe."""
        found = [is_refusal(text) for id_, text in zip(self.prompt_ids, heard.texts, strict=True) if id_ in self.safe]
        return float(np.mean(found)) if found else 0.0


RECENT = 128  # rollouts over which reward and length are correlated: a few steps, or chance alone would look like a habit


def _p_of(was: Sequence[float], now: Sequence[float], side: Literal["less", "greater"]) -> float:
    """Of Student's paired test, one-sided; 1 where nothing differs."""
    change = np.array(now) - np.array(was)
    if np.ptp(change) == 0:
        return 0.0 if (change[0] < 0 if side == "less" else change[0] > 0) else 1.0
    return float(stats.ttest_1samp(change, 0.0, alternative=side).pvalue)


def _without_texts(heard: Heard) -> Heard:
    return Heard([], heard.lengths, heard.finished, heard.rewards, heard.golds)


def _correlation(pairs: Collection[tuple[float, float]]) -> float:
    """Pearson's; 0 while either does not vary or there are few."""
    if len(pairs) < RECENT // 4:
        return 0.0
    lengths, rewards = np.array(list(pairs)).T
    if np.ptp(lengths) == 0 or np.ptp(rewards) == 0:
        return 0.0
    found = float(stats.pearsonr(lengths, rewards).statistic)
    return found if math.isfinite(found) else 0.0


def _distinct(texts: Sequence[str]) -> float:
    """Different pairs of words in a row, over all such pairs (distinct-2 of Li et al. 2016)."""
    pairs = [pair for own in map(words, texts) for pair in pairwise(own)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def _standard(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
