"""Stage 1 of constitutional AI: an answer, a critique of it by a principle, a revision; and which revisions are kept.

Bai et al. 2022, "Constitutional AI: Harmlessness from AI Feedback", section 3. All prompts go through a step together, so that
a writer has many requests at a time. A request depends on the prompt and the texts before it alone: with a writer that
remembers its finished calls, a run that was killed goes on without a second call for any of them.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from heedful.config import ReviseSection
from heedful.constitution.chains import KEPT, NO_ANSWER, NO_CRITIQUE, REASONS, Chain, Finish, Role, Step
from heedful.constitution.principles import Constitution, Principle
from heedful.constitution.requests import Asked, Worked, critique_request, examples_for, revision_request
from heedful.constitution.rules import Cleaned, Rules, whole_sentences
from heedful.judging.calls import key_of
from heedful.judging.scored import Score
from heedful.judging.writing import EMPTY, Reply, Request, Writer, plain
from heedful.records import Prompt

Progress = Callable[[int, int, str], None]


class Given(NamedTuple):
    """An answer that is there already. model: who wrote it."""

    text: str
    finish: Finish
    model: str


TOO_LONG = "the request is longer than the context, also without examples and with the critique cut"
NOTHING = Cleaned("", "stop")


@dataclass
class _Text:
    """One text of a chain: who asked for it and how, and what came of it. asked: None where no request fits."""

    role: Role
    pass_number: int
    number: int
    seed: int
    model: str
    asked: Asked | None
    principle: str = ""
    most_examples: int = 0
    given: bool = False
    reply: Reply = field(default_factory=lambda: Reply("", problem=TOO_LONG))
    cleaned: Cleaned = NOTHING
    score: float = math.nan
    verdict: str = ""

    def record(self) -> Step:
        messages = self.asked.request.messages if self.asked else ()
        return Step(
            role=self.role,
            pass_number=self.pass_number,
            number=self.number,
            principle=self.principle,
            request_hash=key_of(plain(messages)) if messages else "",
            num_examples=len(self.asked.examples) if self.asked else 0,
            examples_left_out=self.asked is not None and len(self.asked.examples) < self.most_examples,
            shortened=self.asked.shortened if self.asked else False,
            text=self.reply.text,
            finish=self.reply.finish,
            problem=self.reply.problem,
            given=self.given,
            model=self.model,
            seed=self.seed,
            score=None if math.isnan(self.score) else self.score,
            verdict=self.verdict,
        )


@dataclass
class _Chain:
    """A chain in the making. text: what the next pass starts from; best: the revision that it is, if it is one."""

    prompt: Prompt
    principles: tuple[Principle, ...]
    examples: list[tuple[Worked, ...]]
    texts: list[_Text] = field(default_factory=list)
    text: str = ""
    best: _Text | None = None

    @property
    def answer(self) -> _Text:
        return self.texts[0]

    @property
    def revisions(self) -> list[_Text]:
        return [text for text in self.texts if text.role == "revision"]


class Reviser:
    """Makes chains. name: of the writer, for the records. score: what must call a revision better; None: nothing need."""

    def __init__(
        self,
        constitution: Constitution,
        write: Writer,
        *,
        name: str,
        settings: ReviseSection,
        seed: int,
        score: Score | None = None,
        progress: Progress = lambda *_: None,
    ) -> None:
        self.constitution = constitution
        self.write = write
        self.name = name
        self.settings = settings
        self.seed = seed
        self.score = score
        self.progress = progress
        self.rules = Rules(
            settings.cut, settings.min_words, settings.max_repeated, settings.max_similarity, settings.max_copied
        )
        self.done = self.total = 0

    def __call__(
        self,
        prompts: Sequence[Prompt],
        given: Mapping[str, Given] | None = None,
        after_pass: Callable[[list[Chain]], None] = lambda _: None,
    ) -> list[Chain]:
        """One chain a prompt, in order. given: answers by prompt id, not asked for. after_pass hears of each stand."""
        settings = self.settings
        self.done, self.total = 0, len(prompts) * (1 + settings.passes * (1 + settings.num_revisions))
        chains = [self._begin(prompt) for prompt in prompts]
        self._answer(chains, given or {})
        for number in range(1, settings.passes + 1):
            self._pass([chain for chain in chains if chain.text], number)
            # What could not be asked for is not waited for.
            self.done = len(chains) * (1 + number * (1 + settings.num_revisions))
            self.progress(self.done, self.total, f"pass {number} of {settings.passes}")
            after_pass([self._record(chain) for chain in chains])
        return [self._record(chain) for chain in chains]

    def _begin(self, prompt: Prompt) -> _Chain:
        settings = self.settings
        principles = self.constitution.chain(random.Random(self._seed(prompt)), settings.passes, settings.tags)
        examples = [
            examples_for(
                self.constitution,
                principle,
                settings.num_examples,
                random.Random(self._seed(prompt, "examples", number)),
                prompt.messages,
            )
            for number, principle in enumerate(principles)
        ]
        return _Chain(prompt, principles, examples)

    def _seed(self, prompt: Prompt, *parts: object) -> int:
        """By prompt and step: neither order nor neighbours nor earlier runs play a part. Small enough for any server."""
        named = "/".join(map(str, (self.seed, prompt.id, *parts)))
        return int.from_bytes(hashlib.sha256(named.encode()).digest()[:4], "big") >> 1

    def _new(self, chain: _Chain, role: Role, pass_number: int, number: int = 1) -> tuple[_Text, Request]:
        """A text to come, and how it is to be drawn."""
        settings, seed = self.settings, self._seed(chain.prompt, role, pass_number, number)
        principle = chain.principles[pass_number - 1].name if pass_number else ""
        text = _Text(role, pass_number, number, seed, self.name, None, principle)
        text.most_examples = len(chain.examples[pass_number - 1]) if pass_number else 0
        chain.texts.append(text)
        return text, Request((), seed, settings.max_new_tokens, settings.temperature, settings.top_p)

    def _answer(self, chains: Sequence[_Chain], given: Mapping[str, Given]) -> None:
        for chain in chains:
            known = given.get(chain.prompt.id)
            answer, draw = self._new(chain, "answer", 0)
            if known is None:
                request = replace(draw, messages=chain.prompt.messages)
                answer.asked = Asked(request, ()) if self.write.fits(request) else None
            else:
                answer.seed, answer.model, answer.given = 0, known.model, True
                answer.reply = Reply(known.text, known.finish, "" if known.text.strip() else EMPTY)
        self._ask([chain.answer for chain in chains], "answers")
        for chain in chains:
            chain.text = chain.answer.reply.text.strip()
        self._measure([(chain, chain.answer, chain.text) for chain in chains if chain.text])

    def _pass(self, chains: Sequence[_Chain], number: int) -> None:
        place = number - 1
        critiques = []
        for chain in chains:
            critique, draw = self._new(chain, "critique", number)
            asking = (chain.prompt.messages, chain.text, chain.principles[place], chain.examples[place])
            critique.asked = critique_request(self.settings.form, *asking, draw, self.write.fits)
            critiques.append(critique)
        self._ask(critiques, f"critiques, pass {number}")
        written = []
        for chain, critique in zip(chains, critiques, strict=True):
            said = critique.reply.text
            if critique.reply.finish == "length":
                said = whole_sentences(said) or said
            for one in range(1, self.settings.num_revisions + 1) if said else ():
                revision, draw = self._new(chain, "revision", number, one)
                shown = (chain.text, said, chain.principles[place], chain.examples[place])
                revision.asked = revision_request(self.settings.form, chain.prompt.messages, *shown, draw, self.write.fits)
                written.append((chain, critique, revision))
        self._ask([revision for _, _, revision in written], f"revisions, pass {number}")
        for chain, critique, revision in written:
            self._judge(chain, critique, revision)
        self._measure([(chain, one, one.cleaned.text) for chain, _, one in written if not one.verdict])
        for chain in chains:
            self._choose(chain, [one for one in chain.revisions if one.pass_number == number])

    def _ask(self, texts: Sequence[_Text], what: str) -> None:
        """Has the texts written that have a request."""
        asked = [text for text in texts if text.asked is not None]
        self.done += len(texts) - len(asked)
        self.progress(self.done, self.total, what)

        def finished(replies: Mapping[int, Reply]) -> None:
            self.done += len(replies)
            self.progress(self.done, self.total, what)

        replies = self.write([text.asked.request for text in asked if text.asked is not None], finished)
        for text, reply in zip(asked, replies, strict=True):
            text.reply = reply

    def _judge(self, chain: _Chain, critique: _Text, revision: _Text) -> None:
        """By its text alone."""
        reply, asked = revision.reply, revision.asked
        if asked is None:
            revision.verdict = "long-request"
        elif not reply.valid:
            revision.verdict = "empty" if reply.problem == EMPTY else "no-reply"
        else:
            revision.cleaned = self.rules.clean(reply.text, reply.finish)
            principle = chain.principles[revision.pass_number - 1]
            shown = [turn.content for turn in chain.prompt.messages] + [principle.critique, principle.revision]
            shown += [text for one in asked.examples for text in one.texts]
            revision.verdict = self.rules.reason(
                revision.cleaned, answer=chain.answer.reply.text, critique=critique.reply.text, requests=shown
            )

    def _measure(self, texts: Sequence[tuple[_Chain, _Text, str]]) -> None:
        """Scores texts as answers to their chains' prompts, equal ones once."""
        if self.score is None or not texts:
            return
        rows = dict.fromkeys((chain.prompt.messages, said) for chain, _, said in texts)
        scores = dict(zip(rows, self.score(list(rows)), strict=True))
        for chain, text, said in texts:
            text.score = float(scores[chain.prompt.messages, said])

    def _choose(self, chain: _Chain, revisions: Sequence[_Text]) -> None:
        """The best revision of a pass takes the text's place where it is better than that and better than the answer."""
        for one in (one for one in revisions if not one.verdict):
            gain = self._gain(chain, one)
            if gain is not None and math.isnan(gain):
                one.verdict = "unscored"
            elif gain is not None and (gain <= 0 or gain < self.settings.min_gain):
                one.verdict = "worse"
            elif chain.best is None or (gain is not None and one.score > chain.best.score) or self._is_later(chain, one):
                if chain.best is not None:
                    chain.best.verdict = "beaten"
                chain.best, one.verdict = one, KEPT
                chain.text = one.cleaned.text
            else:
                one.verdict = "beaten"

    def _is_later(self, chain: _Chain, one: _Text) -> bool:
        """Without a scorer a pass's first revision that keeps to the rules takes the place of an earlier pass's."""
        return self.score is None and chain.best is not None and one.pass_number > chain.best.pass_number

    def _gain(self, chain: _Chain, one: _Text) -> float | None:
        return None if self.score is None else one.score - chain.answer.score

    def _record(self, chain: _Chain) -> Chain:
        gains = [gain for one in chain.revisions if (gain := self._gain(chain, one)) is not None and not math.isnan(gain)]
        best = chain.best
        return Chain(
            prompt_id=chain.prompt.id,
            messages=chain.prompt.messages,
            tags=chain.prompt.tags,
            principles=tuple(principle.name for principle in chain.principles),
            steps=tuple(text.record() for text in chain.texts),
            verdict=self._verdict(chain),
            revision=best.cleaned.text if best else "",
            finish=best.cleaned.finish if best else "stop",
            gain=self._gain(chain, best) if best else max(gains, default=None),
        )

    def _verdict(self, chain: _Chain) -> str:
        """Of a chain without a kept revision: why, of the revision that came furthest."""
        if chain.best is not None:
            return KEPT
        if not chain.text:
            return NO_ANSWER
        return max((one.verdict for one in chain.revisions), key=REASONS.index, default=NO_CRITIQUE)
