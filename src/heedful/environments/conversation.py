"""Talking to a model that may call tools: it thinks and acts, reads what came of it, and answers; history keeps the answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

from heedful.engine.conversation import Conversation
from heedful.engine.episodes import Step, Task, World, play
from heedful.environments import react
from heedful.environments.tools import call_tool
from heedful.errors import ConfigError
from heedful.models.policy import LanguageModel
from heedful.records import Message, Prompt

MAX_TURNS = 6
MAX_OBSERVATION_TOKENS = 128
ONE = "chat"


class Called(NamedTuple):
    """A call that the model made, and what the tool answered."""

    call: str
    observation: str


class Told(NamedTuple):
    """text: the answer. calls: what was called on the way to it. finished: whether the model came to an end by itself."""

    text: str
    calls: list[Called]
    finished: bool


class Assistant:
    """The environment of a conversation: it runs what is called and pays for nothing."""

    def __init__(self, tools: Mapping[str, Callable[[str], str]]) -> None:
        self.tools = tools
        self.calls: list[Called] = []
        self.answer = ""

    def reset(self, prompt: Prompt, *, seed: int) -> tuple[tuple[Message, ...], Mapping[str, float]]:
        return prompt.messages, {}

    def step(self, action: str, *, cut: bool = False) -> Step:
        lines = react.whole_lines(action, cut=cut)
        if react.answer_of(lines) is None and not cut and react.ends_turn(lines):
            call = react.call_of(lines)
            found = call_tool(self.tools, call)
            self.calls.append(Called(f"{call.tool}[{call.text}]" if call else "(no call that can be read)", found))
            return Step(react.observation(found), 0.0, False, False, {})
        self.answer = react.all_behind_answer(action) or action.strip()
        return Step("", 0.0, True, False, {})

    def ends_turn(self, written: str) -> bool:
        return react.ends_turn(written)


class ToolConversation:
    """A conversation whose speakers may use tools. Raises ConfigError for models that cannot go on behind an observation."""

    def __init__(self, talk: Conversation, tools: Mapping[str, Callable[[str], str]], *, seed: int) -> None:
        for name, (model, _, reweight) in talk.speakers.items():
            if reweight is not None or model.encodes:
                raise ConfigError(f"{name}: a model with an encoder or with heads of ILQL cannot use tools; leave out --tools")
        self.talk, self.tools = talk, dict(tools)
        self.told = Message(role="system", content=react.instructions(list(self.tools)))
        self.chance = random.Random(seed)

    def reset(self) -> None:
        """Forgets what was said."""
        self.talk.reset()

    def answer(self, said: str) -> dict[str, Told]:
        """Each speaker's answer to the message. The oldest turns give way to the context's length."""
        return {name: self._answer(name, said, model, adapter) for name, (model, adapter, _) in self.talk.speakers.items()}

    def _answer(self, name: str, said: str, model: LanguageModel, adapter: str | None) -> Told:
        environment = Assistant(self.tools)
        history = [*self.talk.histories[name], Message(role="user", content=said)]
        world = World(lambda: environment, {}, MAX_TURNS, MAX_OBSERVATION_TOKENS)
        room = model.max_tokens - self.talk.decoding.max_new_tokens - world.observed_tokens
        while len(model.chat.prompt_ids([self.told, *history])) > room and len(history) > 1:
            history = history[2:]
        if len(model.chat.prompt_ids([self.told, *history])) > room:
            raise ConfigError(
                f"the context of {model.source} holds {model.max_tokens} tokens, which the message, {MAX_TURNS} turns with "
                "tools and an answer do not fit into; take a model with a longer context, or say less"
            )
        prompt = Prompt(id=ONE, messages=(self.told, *history))
        world = World(lambda: environment, {ONE: prompt}, MAX_TURNS, MAX_OBSERVATION_TOKENS)
        task = Task(ONE, self.chance.randrange(1 << 31))
        ((answer, _),) = play(model, world, [task], self.talk.decoding, adapter=adapter)
        text = environment.answer or "(no answer)"
        self.talk.histories[name] = [*history, Message(role="assistant", content=text)]
        return Told(text, environment.calls, answer.finished)
