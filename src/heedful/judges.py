"""Judges opened as a user names them, and led through the gate: letters of a model, contrastive scores, rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from heedful.config import RewardTermSection, parse, with_reward
from heedful.config.feedback import FeedbackSection
from heedful.config.prefer import Against
from heedful.constitution.council import Council
from heedful.constitution.principles import Constitution, load
from heedful.data.formats import read_preferences
from heedful.engine.device import choose_device, choose_dtype
from heedful.errors import ConfigError, DataError
from heedful.evaluation import gate
from heedful.evaluation.hhh import Item, bundled_items
from heedful.judging.calls import Calls
from heedful.judging.contrastive import Contrast, Contrastive
from heedful.judging.feedback import open_feedback
from heedful.judging.judge import CRITERION, Judge
from heedful.judging.reasoning import Reasoned
from heedful.judging.scored import JournaledScore, PairJudge, Score, Scored, Texts
from heedful.models.policy import load_language_model
from heedful.models.sources import resolve
from heedful.records import Preference
from heedful.rewards import asking
from heedful.rewards import source as sources
from heedful.store import file_hash
from heedful.training.rollout import require_finite_rewards

# A nat of preference, in nats a token of contrast; found on pairs of which no figure is reported.
CONTRASTIVE_UNIT = 0.1
CLAMP = 0.1  # after reasons
AGAINST: tuple[Against, ...] = ("plain", "bad")

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Named:
    """A judge as a user names it. kind and source: letters or contrastive of a model, or a reward.

    constitution: whose principles are asked or contrasted; None, for letters: one question by `criterion`. number: of
    principles by which a pair is judged, 0 for all. against: of a contrast, whether a good instruction is held against the bad
    one or against the conversation as it stands. reasoning: letters after written reasons.
    """

    kind: Literal["letters", "contrastive", "reward"]
    source: str
    feedback: FeedbackSection = field(default_factory=FeedbackSection)
    constitution: Constitution | None = None
    tags: tuple[str, ...] = ()
    number: int = 0
    against: Against = "plain"
    criterion: str = CRITERION
    reasoning: bool = False
    reasoning_tokens: int = 128
    clamp: float = CLAMP
    seed: int = 0

    @property
    def name(self) -> str:
        """What the judge is called in records and tables."""
        short = self.feedback.model or self.source
        if self.kind == "reward":
            short = next(iter(sources.named([_term(self.source)])))
        return (
            short
            if self.kind == "letters" and not self.reasoning
            else f"{short} ({'reasons' if self.reasoning else self.kind})"
        )


def open_judge(named: Named, calls: Path | None = None, told: Told = lambda done, total: None) -> PairJudge:
    """calls: a file of finished calls, so that a killed job repeats none. told: hears of what is done and of how much.

    Raises SourceError and ModelError for what cannot be opened, DataError where a constitution has nothing to contrast.
    """
    if named.kind == "reward":
        return Scored(named.name, _journaled(_rewards(named.source), _identity(named.source), calls, told))
    if named.kind == "contrastive":
        return _contrastive(named, calls, told)
    feedback = open_feedback(named.feedback.model_copy(update={"source": named.source}), calls)
    ask = feedback.letters
    if named.reasoning:
        ask = Reasoned(feedback.writer, ask, max_new_tokens=named.reasoning_tokens, seed=named.seed)
    if named.constitution is None:
        return Judge(named.name, ask, named.criterion)
    clamp = named.clamp if named.reasoning else 0.5
    chosen: dict[str, Any] = {"tags": named.tags, "number": named.number, "seed": named.seed}
    return Council(named.name, ask, named.constitution, clamp=clamp, told=told, **chosen)


def _contrastive(named: Named, calls: Path | None, told: Told) -> PairJudge:
    if named.feedback.remote or "://" in named.source:
        raise ConfigError(
            f"{named.source}: a contrastive score reads likelihoods of whole answers, which only a local model gives"
        )
    if named.constitution is None:
        raise DataError("a contrastive score needs a constitution with good and bad instructions")
    principles = [one for one in named.constitution.tagged(named.tags) if one.good.strip()]
    device = choose_device()
    model = load_language_model(named.source, dtype=choose_dtype("auto", device), device=device)
    contrasts = [Contrast(one.good, one.bad if named.against == "bad" else "", one.weight) for one in principles]
    chosen: dict[str, Any] = {"number": named.number, "seed": named.seed}
    identity = f"contrastive {_identity(named.source)} {model.dtype} {contrasts} {chosen}"
    score = Contrastive(model, contrasts, **chosen)
    return Scored(named.name, _journaled(score, identity, calls, told), unit=CONTRASTIVE_UNIT)


def _journaled(score: Score, identity: str, calls: Path | None, told: Told) -> Score:
    return JournaledScore(score, identity, Calls(calls) if calls else None, told)


def _identity(source: str) -> str:
    """A source and the hash of what it is made of, where it is a model or lies here."""
    if sources.is_url(source):
        return source
    return " ".join([source, *(file_hash(path) for path in local_inputs_of(source) or [resolve(source)])])


def local_inputs_of(reward: str) -> list[Path]:
    """Files and folders that a reward is made of, so that a stage notices when they change."""
    return sources.local_inputs(_term(reward))


def _term(reward: str) -> RewardTermSection:
    return with_reward(parse({}, reward), reward, "", "auto").reward.terms[0]


def _rewards(source: str) -> Score:
    """A reward of any kind as a score. It is opened when it is first asked, which a journal may make needless."""
    opened: list[asking.Judge] = []

    def score(texts: Texts) -> list[float]:
        if not opened:
            opened.append(asking.Judge(with_reward(parse({}, source), source, "", "auto")))
        answers = [opened[0].answer(messages, text, finished=True) for messages, text in texts]
        rewards = opened[0].reward(answers)
        require_finite_rewards(rewards, answers)
        return rewards

    return score


def tried(
    named: Sequence[Named],
    labelled: Sequence[Preference],
    items: Sequence[Item] = (),
    *,
    calls: Path | None = None,
    max_pairs: int = 0,
    num_resamples: int = 10_000,
    seed: int = 0,
    told: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> list[dict[str, Any]]:
    """What the gate measures of each judge, with `kind` and `source`, in order; with items also `hhh`. told: hears whose turn
    it is. Raises DataError where two have one name, for their figures could not be told apart.
    """
    names = [one.name for one in named]
    if len(set(names)) < len(names):
        raise ConfigError(f"two judges are called {max(names, key=names.count)!r}; name each once")
    found = []
    for one in named:
        judge = open_judge(one, calls, partial(told, one.name))
        try:
            figures = gate.measured(judge, labelled, max_pairs=max_pairs, seed=seed, num_resamples=num_resamples)
        except DataError as error:
            if len(named) == 1:
                raise
            figures = {"name": one.name, "passed": False, "problem": str(error)}
        found.append(
            figures | {"kind": one.kind, "source": one.source} | ({"hhh": gate.on_items(judge, items)} if items else {})
        )
    return found


PLAIN = "none"  # as constitution: letters go by one question


def named_judges(
    *,
    judges: Sequence[str],
    scorers: Sequence[str],
    rewards: Sequence[str],
    model: str,
    judge_model: str,
    token_env: str,
    constitution: str,
    tags: Sequence[str],
    principles: int,
    against: str,
    reasoning: bool,
    seed: int,
) -> list[Named]:
    """Of the options of `heedful constitution gate`. Raises ConfigError."""
    if not (judges or scorers or rewards):
        raise ConfigError(
            "say who is measured: --judge MODEL, --scorer contrastive or --reward SOURCE, each as often as you like"
        )
    if wrong := sorted(set(scorers) - {"contrastive"}):
        raise ConfigError(
            f"--scorer {wrong[0]}: there is one, 'contrastive'; a reward is named with --reward, letters with --judge"
        )
    if against not in AGAINST:
        raise ConfigError(f"--against {against}: expected {' or '.join(AGAINST)}")
    addresses = [source for source in judges if "://" in source]
    if (judge_model or token_env) and not addresses:
        raise ConfigError("--judge-model and --token-env belong to a --judge that is an address, https://.../v1")
    rules = None if constitution == PLAIN else load(constitution)
    found = []
    for source in judges:
        remote = {"model": judge_model, "token_env": token_env} if "://" in source else {}
        if remote and not judge_model:
            raise ConfigError(f"--judge {source}: say with --judge-model which of its models judges")
        feedback = FeedbackSection.model_validate({"source": source} | remote)
        how: dict[str, Any] = {"constitution": rules, "tags": tuple(tags), "number": principles, "reasoning": reasoning}
        found.append(Named("letters", source, feedback, seed=seed, **how))
    chosen: dict[str, Any] = {"constitution": rules, "tags": tuple(tags), "number": principles, "against": against}
    found += [Named("contrastive", model, seed=seed, **chosen) for _ in scorers]
    return found + [Named("reward", source) for source in rewards]


def gated(
    named: Sequence[Named],
    files: Sequence[Path],
    *,
    hhh: bool = False,
    calls: Path | None = None,
    max_pairs: int = 0,
    seed: int = 0,
    force: bool = False,
    told: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """What `heedful constitution gate` says: judges, best, and forced, true where nobody passed and `force` was
    asked for."""
    labelled = [pair for file in files for pair in read_preferences(file)]
    items = bundled_items() if hhh else []
    found = tried(named, labelled, items, calls=calls, max_pairs=max_pairs, seed=seed, told=told)
    best = gate.best_of(found)
    return {"judges": found, "best": best, "forced": force and best is None, "preferences": [file.name for file in files]}
