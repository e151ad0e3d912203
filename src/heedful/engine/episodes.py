"""Episodes: a policy and an environment write in turns, and it is kept which of them wrote which token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from heedful.engine.generation import Decoding, sample
from heedful.errors import ModelError
from heedful.models.chat import Chat
from heedful.models.policy import LanguageModel
from heedful.models.reward import Answer, Played
from heedful.records import Completion, Message, Prompt

NUM_SEEDS = 1 << 64  # that torch's generators tell apart


class Step(NamedTuple):
    """What an action led to, in the order of Gymnasium. observation: text that the policy reads before its next action.

    terminated: the task has ended, well or badly. truncated: it was broken off. info: numbers that are measured, not learned
    from.
    """

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, float]

    @property
    def done(self) -> bool:
        """Whether there is no next action."""
        return self.terminated or self.truncated


class Environment(Protocol):
    """One episode at a time: `reset`, then `step` until it is done. Actions and observations are text.

    An action may hold anything: it is what a model wrote. An environment answers it with an observation and raises nothing.
    """

    def reset(self, prompt: Prompt, *, seed: int) -> tuple[tuple[Message, ...], Mapping[str, float]]:
        """Begins the task that a prompt names; what the policy reads first, and info. Equal seeds, equal episodes."""

    def step(self, action: str, *, cut: bool = False) -> Step:
        """What comes of the policy's words since its last action, or since the beginning.

        cut: the policy had no tokens left to end them, so "12" may be the beginning of "1234". It cannot go on.
        """

    def ends_turn(self, written: str) -> bool:
        """Whether the policy, having written this since its last action, waits for the environment; an end-of-text token
        ends its turn in any case.
        """


@dataclass(frozen=True)
class World:
    """The tasks of a run. make: an environment of its own for an episode. prompts: by id, each a task.

    max_turns: actions of an episode. max_observation_tokens: a longer observation is cut.
    """

    make: Callable[[], Environment]
    prompts: Mapping[str, Prompt]
    max_turns: int
    max_observation_tokens: int

    def begin(self, prompt_id: str, seed: int) -> tuple[Environment, tuple[Message, ...], dict[str, float]]:
        """An environment at the beginning of a task, what the policy reads first, and the first info."""
        environment = self.make()
        messages, info = environment.reset(self.prompts[prompt_id], seed=seed)
        return environment, messages, dict(info)

    def opened(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts with the messages that an episode begins with, as long as they are in any of them."""
        return [prompt.model_copy(update={"messages": self.begin(prompt.id, 0)[1]}) for prompt in prompts]

    @property
    def observed_tokens(self) -> int:
        """Tokens that the environment writes in an episode at most."""
        return (self.max_turns - 1) * self.max_observation_tokens


class Task(NamedTuple):
    """A task to be played: its prompt, and the seed of all its chances."""

    prompt_id: str
    seed: int


class Episode(NamedTuple):
    """answer: the whole of it, observations included. logprobs: of each token when it was drawn, 0 for the environment's."""

    answer: Answer
    logprobs: list[float]


@dataclass
class _Playing:
    """An episode under way. first: where in `ids` the turn began that is being written."""

    environment: Environment
    messages: tuple[Message, ...]
    prompt: list[int]
    generator: torch.Generator
    info: dict[str, float]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    written: list[bool] = field(default_factory=list)
    earned: float = 0.0
    num_turns: int = 0
    over: bool = False
    finished: bool = False

    @property
    def num_written(self) -> int:
        """Tokens that the policy has written."""
        return sum(self.written)


def play(
    model: LanguageModel,
    world: World,
    tasks: Sequence[Task],
    decoding: Decoding,
    *,
    adapter: str | None,
    on_tokens: Callable[[int], None] | None = None,
) -> list[Episode]:
    """One episode a task, side by side, in order. Each has random numbers of its own: it does not depend on the others.

    decoding.max_new_tokens: what the policy itself may write in an episode, over all its turns.
    """
    if model.encodes and world.max_turns > 1:
        raise ModelError(
            f"{model.source}: an encoder reads the prompt and no more of the episode, so this model cannot go on behind an "
            "observation; take a causal language model, or environment.kind = 'retrieval', which has one turn"
        )
    playing = []
    for task in tasks:
        environment, messages, info = world.begin(task.prompt_id, task.seed)
        generator = torch.Generator().manual_seed(task.seed)
        playing.append(_Playing(environment, messages, model.chat.prompt_ids(messages), generator, info))
    while live := [one for one in playing if not one.over]:

        def ends(place: int, ids: Sequence[int], live: list[_Playing] = live) -> bool:
            one = live[place]
            return one.num_written + len(ids) >= decoding.max_new_tokens or one.environment.ends_turn(model.chat.plain(ids))

        drawn = sample(
            model,
            [one.prompt + one.ids for one in live],
            decoding,
            adapter=adapter,
            samples_per_prompt=1,
            generator=[one.generator for one in live],
            on_tokens=on_tokens,
            only=range(len(live)),  # whoever calls has shared the tasks out
            ends=ends,
        )
        for one, (response,) in zip(live, drawn, strict=True):
            one.ids += response.ids
            one.logprobs += response.logprobs
            one.written += [True] * len(response.ids)
            _take_turn(one, model.chat, world, response.ids, room=decoding.max_new_tokens)
    return [_episode(one, model.chat) for one in playing]


def _take_turn(one: _Playing, chat: Chat, world: World, action: Sequence[int], *, room: int) -> None:
    """The environment's answer to an action, behind it in the episode's tokens."""
    ended = chat.finished(action)
    text = chat.plain(action[:-1] if ended else action)
    cut = not ended and one.num_written >= room and not one.environment.ends_turn(text)
    step = one.environment.step(text, cut=cut)
    one.num_turns += 1
    one.earned += step.reward
    one.info |= step.info
    one.finished = step.terminated and not cut
    one.over = step.done or one.num_turns >= world.max_turns or one.num_written >= room
    if not one.over:
        observed = chat.observation_ids(step.observation, max_tokens=world.max_observation_tokens, new_turn=ended)
        one.ids += observed
        one.logprobs += [0.0] * len(observed)
        one.written += [False] * len(observed)


def _episode(one: _Playing, chat: Chat) -> Episode:
    played = Played(tuple(one.written), one.earned, one.info | {"turns": float(one.num_turns)})
    text = chat.text(one.ids)
    return Episode(Answer(one.messages, text, one.prompt, one.ids, one.finished, played), one.logprobs)


def parts_of(chat: Chat, answer: Answer) -> list[dict[str, str | bool]] | None:
    """Who wrote which text of an episode, in order, as a completion's field `parts`: tokens tell that to their own model alone.

    None where the text cannot be told apart there, as when a letter of several tokens is half the policy's.
    """
    written = answer.written
    ends = [i for i in range(1, len(written) + 1) if i == len(written) or written[i] != written[i - 1]]
    whole = chat.plain(answer.response_ids)
    first, last = len(whole) - len(whole.lstrip()), len(whole.rstrip())  # an answer's text is without white space at its ends
    cuts = [min(max(first, len(chat.plain(answer.response_ids[:end]))), last) for end in ends]
    parts: list[dict[str, str | bool]] = [
        {"text": whole[start:stop], "written": written[end - 1]}
        for start, stop, end in zip([first, *cuts], cuts, ends, strict=False)
        if stop > start
    ]
    told = all(whole.startswith(chat.plain(answer.response_ids[:end])) for end in ends)
    return parts if told and whole.strip() == answer.text else None


def played_of(record: Completion, written: Sequence[object]) -> Played:
    """What a completion's fields tell of the episode that it is. written: True on each token that the policy wrote."""
    extra = record.model_extra or {}
    return Played(tuple(bool(own) for own in written), float(extra.get("earned", 0.0)), dict(extra.get("info", {})))


def tasks_of(prompt_ids: Sequence[str], *, samples_per_prompt: int, seed: int, only: Sequence[int]) -> list[Task]:
    """The tasks of the prompts with these numbers, each several times, with seeds that depend on nothing else."""
    return [
        Task(prompt_ids[place], ((seed * 1_000_003 + place) * 1_009 + k) % NUM_SEEDS)
        for place in only
        for k in range(samples_per_prompt)
    ]
