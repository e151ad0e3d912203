"""A person's 0 or 1 as the reward itself: no reward model stands between people and the policy.

The answers of a step wait for thumbs on the labelling server. What was said of an answer once is kept and not asked again, so a
run that goes on from a checkpoint, and samples the same answers, finds their thumbs. Where somebody else is to judge, or by
something else, it is asked anew.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from heedful.config import Config
from heedful.errors import ConfigError, DataError
from heedful.feedback.rubric import score
from heedful.journal import Journal
from heedful.models.reward import Answer
from heedful.people import People
from heedful.progress import Progress
from heedful.records import Completion, Message, Prompt, Sampling

FILE = "thumbs.jsonl"
UP = 0.5  # rubric totals from here on are a simulated thumb up


class Thumb(BaseModel):
    """What people said of an answer. key: hash of conversation, answer and who judges. value: the share of thumbs up."""

    key: str
    value: float = Field(ge=0, le=1)


class ThumbsReward:
    """measured: thumbs_asked, answers of the last call that nobody had judged before."""

    measured: dict[str, float]

    def __init__(
        self, judge: Callable[[Sequence[Answer]], Sequence[float]], journal: Path, settings: Mapping[str, Any]
    ) -> None:
        """judge: asks for a number an answer, 0 to 1. settings: what tells it from other judges in the same journal."""
        self.judge = judge
        self.settings = json.dumps(settings, sort_keys=True)
        self.journal = Journal(journal, Thumb)
        self.known: dict[str, float] = {thumb.key: thumb.value for thumb in self.journal.records}
        self.measured = {}

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        keys = [hashlib.sha256(f"{self.settings}/{_key(answer)}".encode()).hexdigest() for answer in answers]
        fresh = {key: answer for key, answer in zip(keys, answers, strict=True) if key not in self.known}
        if fresh:
            values = self.judge(list(fresh.values()))
            self.journal.append(Thumb(key=key, value=value) for key, value in zip(fresh, values, strict=True))
            self.known |= dict(zip(fresh, values, strict=True))
        self.measured = {"thumbs_asked": float(len(fresh))}
        return [self.known[key] for key in keys]


def thumb_settings(config: Config) -> dict[str, Any]:
    """What of the settings decides a thumb, other than the answer."""
    judges = config.round.judges
    if judges == "people":
        return {"judges": judges, "overlap": config.round.overlap, "criterion": config.label.criterion}
    return {"judges": judges, "noise": config.label.noise, "seed": config.seed}


def thumbs_reward(config: Config, run: Path, prompts: Sequence[Prompt], progress: Progress) -> ThumbsReward:
    """Of the people, or simulated labelers, that the settings name. Raises ConfigError where a model is named."""
    if config.round.judges == "ai":
        raise ConfigError("a reward 'thumbs' comes from people or simulated labelers; a model's opinion is a reward of its own")
    if config.scale.num_workers > 1:
        raise ConfigError("a reward 'thumbs' with several workers: they would be taken for lost; set scale.num_trainers = 1")
    if config.round.judges == "people":
        settings = config.round.model_copy(update={"quota": 0})  # each answer needs its reward
        people = People(settings, run, lambda done, total, note: progress("thumbs", done, total, note))
        return ThumbsReward(lambda answers: _of_people(people, run, config, answers), run / FILE, thumb_settings(config))
    judge = simulated(prompts, noise=config.label.noise, seed=config.seed)
    return ThumbsReward(judge, run / FILE, thumb_settings(config))


def simulated(prompts: Sequence[Prompt], *, noise: float, seed: int) -> Callable[[Sequence[Answer]], list[float]]:
    """*Simulated* thumbs: up where the written rubric, plus noise, gives UP or more. Chance is drawn per answer."""
    known: Mapping[tuple[Message, ...], Prompt] = {prompt.messages: prompt for prompt in prompts}

    def judge(answers: Sequence[Answer]) -> list[float]:
        totals = [score(known[answer.messages], _shown(answer, "a", "p", "m")).total for answer in answers]
        chances = [random.Random(f"{seed}/{_key(answer)}").gauss(0.0, noise) for answer in answers]
        return [float(total + chance >= UP) for total, chance in zip(totals, chances, strict=True)]

    return judge


def _of_people(people: People, run: Path, config: Config, answers: Sequence[Answer]) -> list[float]:
    """Each answer is a set of its own, so that nobody sees it beside another one."""
    ids = [_key(answer)[:32] for answer in answers]
    prompts = [Prompt(id=id_, messages=answer.messages) for id_, answer in zip(ids, answers, strict=True)]
    shown = [_shown(answer, f"{id_}/1", id_, config.model.source) for id_, answer in zip(ids, answers, strict=True)]
    judgements = people.judge(f"{run.resolve().name} thumbs", prompts, shown, criterion=config.label.criterion, mode="thumbs")
    given: dict[str, list[float]] = {id_: [] for id_ in ids}
    for judgement in judgements:  # rank 1 is up and rank 2 down
        if judgement.prompt_id in given:
            given[judgement.prompt_id] += [float(rank == 1) for rank in judgement.ranks.values()] or [0.0]
    missing = [id_ for id_, values in given.items() if not values]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(ids)} answers have no thumb although their sets are finished, as when a labeler was left "
            "out; take the labeler in again or remove the project, then run the same command again"
        )
    return [sum(values) / len(values) for values in given.values()]


def _shown(answer: Answer, id_: str, prompt_id: str, model: str) -> Completion:
    sampling = Sampling(temperature=1, top_p=1, seed=0, max_new_tokens=1)
    finish = "stop" if answer.finished else "length"
    fields = {"id": id_, "prompt_id": prompt_id, "text": answer.text, "model": model, "finish": finish, "sampling": sampling}
    return Completion.model_validate(fields)


def _key(answer: Answer) -> str:
    told = [[message.role, message.content] for message in answer.messages]
    return hashlib.sha256(json.dumps([told, answer.text, answer.finished]).encode()).hexdigest()
