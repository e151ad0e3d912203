"""What the writer of a chain is asked, as turns of a conversation, and what gives way where that exceeds the context."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from heedful.constitution.principles import Constitution, Example, Principle
from heedful.judging.writing import Request
from heedful.records import Message

Turns = tuple[Message, ...]
# turns: the conversation goes on, as if a person criticised the answer. quoted: one message holds prompt, answer and critique,
# so that all that the model says in the examples is what is wanted of it.
Form = Literal["turns", "quoted"]

MIN_CRITIQUE_WORDS = 8  # fewer say nothing any more


@dataclass(frozen=True)
class Worked:
    """A worked example with the principle by whose requests it is shown."""

    example: Example
    principle: Principle

    @property
    def texts(self) -> tuple[str, ...]:
        one = self.example
        return one.prompt, one.answer, one.critique, one.revision, self.principle.critique, self.principle.revision

    def turns(self, form: Form, *, revised: bool) -> Turns:
        """The example as the request that follows is put, with the critique, or the revision, as its reply."""
        one = self.example
        asked = _put(form, (_user(one.prompt),), one.answer, self.principle, one.critique if revised else None)
        return *asked, _assistant(one.revision if revised else one.critique)


@dataclass(frozen=True)
class Asked:
    """A request that fits. examples: those before it. critique: as it was shown. shortened: whether it lost words."""

    request: Request
    examples: tuple[Worked, ...]
    critique: str = ""
    shortened: bool = False


Fits = Callable[[Request], bool]


def examples_for(
    constitution: Constitution, principle: Principle, count: int, rng: random.Random, messages: Sequence[Message]
) -> tuple[Worked, ...]:
    """`count` worked examples, drawn at random after those of the principle itself; none on the very prompt.

    The nearest to the request comes last. One that names a principle is shown with that one's requests.
    """
    said = messages[-1].content.strip()
    found = [one for one in constitution.examples if one.prompt.strip() != said]
    rng.shuffle(found)
    found.sort(key=lambda one: one.principle != principle.name)
    return tuple(Worked(one, constitution[one.principle] if one.principle else principle) for one in found[:count][::-1])


def critique_request(
    form: Form,
    messages: Sequence[Message],
    text: str,
    principle: Principle,
    examples: Sequence[Worked],
    draw: Request,
    fits: Fits,
) -> Asked | None:
    """Asks what is wrong with the text; None where not even that without examples fits. Examples give way, the first first.

    draw: how the text is drawn, in a request whose conversation is not read.
    """
    for shown in _fewer(examples):
        turns = [turn for one in shown for turn in one.turns(form, revised=False)]
        request = replace(draw, messages=_after(turns, _put(form, messages, text, principle)))
        if fits(request):
            return Asked(request, shown)
    return None


def revision_request(
    form: Form,
    messages: Sequence[Message],
    text: str,
    critique: str,
    principle: Principle,
    examples: Sequence[Worked],
    draw: Request,
    fits: Fits,
) -> Asked | None:
    """Asks for the text to be written anew after the critique; None where not even that alone fits.

    Examples give way first, one by one; then the critique loses words at its end, as few as needed, and is never cut to fewer
    than MIN_CRITIQUE_WORDS.
    """

    def asked(shown: tuple[Worked, ...], said: str) -> Asked:
        turns = [turn for one in shown for turn in one.turns(form, revised=True)]
        request = replace(draw, messages=_after(turns, _put(form, messages, text, principle, said)))
        return Asked(request, shown, said, said != critique)

    for shown in _fewer(examples):
        found = asked(shown, critique)
        if fits(found.request):
            return found
    words = critique.split(" ")
    least, most = MIN_CRITIQUE_WORDS, len(words) - 1  # the whole one does not fit
    if most < least or not fits(asked((), " ".join(words[:least])).request):
        return None
    while least < most:
        middle = (least + most + 1) // 2
        if fits(asked((), " ".join(words[:middle])).request):
            least = middle
        else:
            most = middle - 1
    return asked((), " ".join(words[:least]))


def _fewer(examples: Sequence[Worked]) -> Iterator[tuple[Worked, ...]]:
    return (tuple(examples[first:]) for first in range(len(examples) + 1))


def _put(form: Form, messages: Sequence[Message], text: str, principle: Principle, critique: str | None = None) -> Turns:
    """What is asked about an answer to a conversation: for a critique, or with one for a revision."""
    if form == "turns":
        asked = (*messages, _assistant(text), _user(principle.critique))
        return asked if critique is None else (*asked, _assistant(critique), _user(principle.revision))
    *before, last = messages
    parts = [f"You were asked: {last.content}", f"Your last answer: {text}"]
    parts += [principle.critique] if critique is None else [f"What is wrong with it: {critique}", principle.revision]
    return *before, _user("\n\n".join(parts))


def _after(turns: Sequence[Message], messages: Sequence[Message]) -> Turns:
    """Examples before the conversation, but behind its instructions."""
    place = 1 if messages[0].role == "system" else 0
    return (*messages[:place], *turns, *messages[place:])


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _assistant(text: str) -> Message:
    return Message(role="assistant", content=text)
