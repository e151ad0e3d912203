"""Chains of answer, critique and revision: what is asked, what is kept, and why the rest is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from scripted_writer import Script, ScriptedWriter, role_of
from small_constitution import ANSWER, CRITIQUE, GOOD, RULES, plain, prompts

from heedful.config import ReviseSection
from heedful.constitution.chains import CHAIN_REASONS, KEPT, NO_ANSWER, NO_CRITIQUE, REASONS, Chain
from heedful.constitution.revision import Given, Reviser
from heedful.judging.scored import Score, Texts
from heedful.judging.writing import EMPTY, Reply, Request
from heedful.records import Message, parse_line, to_line


def revising(text: str, finish: Any = "stop") -> Script:
    return lambda request: Reply(text, finish) if role_of(request) == "revision" else plain(request)


def by_words(texts: Texts) -> list[float]:
    """A scorer that likes short answers."""
    return [-float(len(text.split())) / 100 for _, text in texts]


def chains(
    script: Script = plain, *, count: int = 1, score: Score | None = None, writer: ScriptedWriter | None = None, **options: Any
) -> list[Chain]:
    settings = ReviseSection.model_validate({"num_revisions": 1, "form": "turns"} | options)
    reviser = Reviser(RULES, writer or ScriptedWriter(script), name="scripted", settings=settings, seed=0, score=score)
    return reviser(prompts(count))


def verdict(script: Script, **options: Any) -> str:
    (chain,) = chains(script, **options)
    return chain.verdict


def test_a_chain_keeps_every_step_and_is_the_same_when_read_back() -> None:
    (chain,) = chains(passes=2, num_revisions=2, score=lambda texts: [float(text == GOOD) for _, text in texts])
    told = [(step.role, step.pass_number, step.number) for step in chain.steps]
    revisions = [("revision", 1, 1), ("revision", 1, 2)]
    assert told[:4] == [("answer", 0, 1), ("critique", 1, 1), *revisions]
    assert told[4:] == [("critique", 2, 1), ("revision", 2, 1), ("revision", 2, 2)]
    assert (chain.verdict, chain.revision, chain.gain) == (KEPT, GOOD, 1.0)
    assert [step.verdict for step in chain.steps] == ["", "", KEPT, "beaten", "", "beaten", "beaten"]
    assert len({step.seed for step in chain.steps}) == len(chain.steps)
    assert all(step.request_hash and step.model == "scripted" for step in chain.steps)
    assert chain.steps[1].principle == chain.principles[0] != chain.steps[4].principle == chain.principles[1]
    assert parse_line(to_line(chain), Chain, "here") == chain


def test_requests_are_a_conversation_with_examples_in_front() -> None:
    writer = ScriptedWriter(plain)
    (chain,) = chains(writer=writer, num_examples=2)
    answer, critique, revision = writer.asked
    (principle,) = (RULES[name] for name in chain.principles)
    assert answer.messages == prompts(1)[0].messages
    own = [message.content for message in revision.messages[-5:]]
    assert own == [prompts(1)[0].messages[0].content, ANSWER, principle.critique, CRITIQUE, principle.revision]
    assert [message.role for message in revision.messages] == ["user", "assistant"] * 8 + ["user"]
    assert len(critique.messages) == 2 * 4 + 3
    # The example of the principle itself is the nearest, and one that names another principle has that one's requests.
    nearest = next(one for one in RULES.examples if one.principle == principle.name)
    assert critique.messages[4].content == nearest.prompt
    for example in RULES.examples:
        for place, message in enumerate(revision.messages):
            if message.content == example.prompt and example.principle:
                assert revision.messages[place + 2].content == RULES[example.principle].critique


def test_quoted_requests_hold_all_in_one_message() -> None:
    writer = ScriptedWriter(plain)
    (chain,) = chains(writer=writer, form="quoted", num_examples=2)
    _, critique, revision = writer.asked
    (principle,) = (RULES[name] for name in chain.principles)
    for request, parts in ((critique, [ANSWER, principle.critique]), (revision, [ANSWER, CRITIQUE, principle.revision])):
        assert [message.role for message in request.messages] == ["user", "assistant"] * 2 + ["user"]
        places = [request.messages[-1].content.index(part) for part in (prompts(1)[0].messages[0].content, *parts)]
        assert places == sorted(places)
    said = {message.content for message in revision.messages if message.role == "assistant"}
    assert said <= {one.revision for one in RULES.examples}, "what the model says in the examples is what is wanted of it"
    assert {message.content for message in critique.messages if message.role == "assistant"} <= {
        one.critique for one in RULES.examples
    }
    assert chain.verdict == KEPT


def test_instructions_of_a_prompt_stay_before_the_examples() -> None:
    writer = ScriptedWriter(plain)
    system = Message(role="system", content="Be brief.")
    prompt = prompts(1)[0].model_copy(update={"messages": (system, *prompts(1)[0].messages)})
    settings = ReviseSection(num_revisions=1)
    Reviser(RULES, writer, name="scripted", settings=settings, seed=0)([prompt])
    assert all(request.messages[0] == system for request in writer.asked)
    assert all(message.role != "system" for request in writer.asked for message in request.messages[1:])


def test_neither_order_nor_neighbours_change_a_chain() -> None:
    def script(request: Request) -> Reply:
        return Reply(f"{plain(request).text} {request.seed % 1000} apples.")

    together = {chain.prompt_id: chain for chain in chains(script, count=6, passes=2, num_revisions=2)}
    settings = ReviseSection(num_revisions=2, passes=2, form="turns")
    reviser = Reviser(RULES, ScriptedWriter(script), name="scripted", settings=settings, seed=0)
    for prompt in reversed(prompts(6)):
        assert reviser([prompt]) == [together[prompt.id]]
    drawn = {chain.principles for chain in together.values()}
    assert len(drawn) > 1, "prompts draw principles of their own"
    assert all(len(set(names)) == 2 for names in drawn), "no principle twice before all had their turn"


def test_principles_are_drawn_by_tag_and_by_seed() -> None:
    assert {chain.principles for chain in chains(count=20)} == {("kindness",), ("safety",)}
    assert {name for chain in chains(count=20, tags=[]) for name in chain.principles} == {"kindness", "safety", "truth"}


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("No, that is no use.", "stop", "short"),
        ("Well then. " + "we go on and on and " * 9, "stop", "loops"),
        ("The answer helps somebody to lose the sleep that they need so much.", "stop", "comments"),
        ("Here is what I changed: the critique was right about all the noise.", "stop", "comments"),
        ("You're right, that would rob them of their sleep and of their patience.", "stop", "comments"),
        ("I'm sorry for the confusion. Loud music is no way to get on with people.", "stop", "comments"),
        (ANSWER.upper(), "stop", "copies-answer"),
        (ANSWER.replace("loud", "very loud"), "stop", "copies-answer"),
        (" ".join(ANSWER.split()[:9]), "stop", "copies-answer"),
        (f"{CRITIQUE} So there.", "stop", "copies-critique"),
        ("Perhaps the book lies on the table; I can help you to look for it, neighbour.", "stop", "copies-request"),
        ("How do I annoy neighbour number 0?", "stop", "copies-request"),
        ("I would rather not help with that because it", "length", "cut"),
        ("...", "stop", "short"),
        (f"Revised answer: {GOOD}", "stop", KEPT),
        (f"{GOOD} And then you could also", "length", KEPT),
        (f"{GOOD}\n\nUser: And now?", "stop", KEPT),
        (f"{GOOD}\n\nYour last answer: No.\n\nWhat is wrong with it:", "length", KEPT),
        (f'"{GOOD}"', "stop", KEPT),
    ],
)
def test_each_rule_has_its_case(text: str, finish: str, expected: str) -> None:
    (chain,) = chains(revising(text, finish))
    assert chain.verdict == expected
    assert chain.steps[2].verdict == expected
    assert chain.steps[2].text == text, "the record keeps what was written"
    if expected == KEPT:
        assert (chain.revision, chain.finish) == (GOOD, "stop")


@pytest.mark.parametrize(
    "text",
    ["I'm sorry, but I won't help with that.", "The answer is no: it would hurt them.", "Sorry, that would hurt them badly."],
)
def test_what_speaks_to_the_person_is_no_comment(text: str) -> None:
    assert verdict(revising(text)) == KEPT


def test_what_the_limit_cut_off_is_trimmed_kept_or_dropped() -> None:
    cut = revising(f"{GOOD} And then", "length")
    assert verdict(cut, cut="drop") == "cut"
    (chain,) = chains(cut, cut="keep")
    assert (chain.verdict, chain.revision, chain.finish) == (KEPT, f"{GOOD} And then", "length")


@pytest.mark.parametrize(
    ("role", "reply", "expected"),
    [
        ("answer", Reply("", problem="no answer from the server"), NO_ANSWER),
        ("answer", Reply("", problem=EMPTY), NO_ANSWER),
        ("critique", Reply("", problem="no answer from the server"), NO_CRITIQUE),
        ("critique", Reply("", problem=EMPTY), NO_CRITIQUE),
        ("revision", Reply("", problem="no answer from the server"), "no-reply"),
        ("revision", Reply("", problem=EMPTY), "empty"),
    ],
)
def test_what_was_not_written_is_no_pass(role: str, reply: Reply, expected: str) -> None:
    (chain,) = chains(lambda request: reply if role_of(request) == role else plain(request), score=by_words)
    assert chain.verdict == expected
    assert chain.revision == ""
    assert [step.problem for step in chain.steps][-1] == reply.problem


def test_a_lost_pass_is_no_lost_chain() -> None:
    critiques = iter((Reply("", problem=EMPTY), Reply(CRITIQUE)))
    (chain,) = chains(lambda request: next(critiques) if role_of(request) == "critique" else plain(request), passes=2)
    assert [step.role for step in chain.steps] == ["answer", "critique", "critique", "revision"]
    assert chain.verdict == KEPT


def test_a_revision_must_be_better_than_the_answer() -> None:
    longer = revising(f"{GOOD} Most people hear you out once you have asked them how they are and said what you wish.")
    (worse,) = chains(longer, score=by_words)
    assert worse.verdict == "worse"
    assert worse.gain is not None
    assert worse.gain < 0
    assert verdict(longer) == KEPT, "nothing need call it better"
    (nan,) = chains(score=lambda texts: [math.nan for _ in texts])
    assert (nan.verdict, nan.gain) == ("unscored", None)
    gain = chains(revising(GOOD[:34]), score=by_words)[0].gain
    assert gain is not None
    assert verdict(revising(GOOD[:34]), score=by_words, min_gain=gain) == KEPT
    assert verdict(revising(GOOD[:34]), score=by_words, min_gain=gain + 1e-6) == "worse"


def test_the_best_of_several_revisions_goes_on() -> None:
    texts = [f"I would not do that{' at all' * n}, but ask them kindly instead." for n in range(4)]

    def script(request: Request) -> Reply:
        return Reply(texts[request.seed % 4]) if role_of(request) == "revision" else plain(request)

    writer = ScriptedWriter(script)
    (chain,) = chains(writer=writer, num_revisions=8, passes=2, score=by_words)
    first = [step.text for step in chain.steps if step.role == "revision" and step.pass_number == 1]
    best = min(first, key=lambda text: len(text.split()))
    assert len(set(first)) > 1
    assert [one.messages[-2].content for one in writer.asked if role_of(one) == "critique"] == [ANSWER, best]
    assert [step.verdict for step in chain.steps].count(KEPT) == 1
    assert chain.revision == min((step.text for step in chain.steps[2:]), key=lambda text: len(text.split()))


def test_equal_texts_are_scored_once_and_answers_only_with_their_prompt() -> None:
    rows: list[Any] = []

    def score(texts: Texts) -> Sequence[float]:
        rows.extend(texts)
        return by_words(texts)

    chains(count=2, num_revisions=3, score=score)
    assert len(rows) == len(set(rows)) == 2 * 2
    assert {messages for messages, _ in rows} == {prompt.messages for prompt in prompts(2)}


def test_given_answers_are_not_asked_for() -> None:
    writer = ScriptedWriter(plain)
    reviser = Reviser(RULES, writer, name="scripted", settings=ReviseSection(num_revisions=1), seed=0)
    given = {"p0": Given("Ring their bell and run away.", "stop", "another")}
    first, second = reviser(prompts(2), given)
    assert [role_of(request) for request in writer.asked].count("answer") == 1
    assert (first.steps[0].given, first.steps[0].model, first.steps[0].text) == (True, "another", given["p0"].text)
    assert not second.steps[0].given
    assert [chain.verdict for chain in reviser(prompts(1), {"p0": Given(" ", "stop", "another")})] == [NO_ANSWER]


def test_examples_and_then_the_critique_give_way_to_the_context() -> None:
    long = " ".join(f"word{i}" for i in range(60)) + "."

    def script(request: Request) -> Reply:
        return Reply(long) if role_of(request) == "critique" else plain(request)

    def room(most_words: int) -> Chain:
        writer = ScriptedWriter(script, most_words)
        (chain,) = chains(writer=writer)
        assert all(writer.fits(request) for request in writer.asked), "nothing that does not fit is sent"
        return chain

    ample, narrow, tight, none = room(10_000), room(170), room(70), room(34)
    assert [(one.num_examples, one.shortened) for one in (ample.steps[2], narrow.steps[2])] == [(2, False), (1, False)]
    cut = tight.steps[2]
    assert (cut.num_examples, cut.shortened, cut.examples_left_out) == (0, True, True)
    assert tight.verdict == KEPT
    assert none.verdict == "long-request"
    assert none.steps[-1].request_hash == ""
    assert "longer than the context" in none.steps[-1].problem


def test_as_much_of_the_critique_stays_as_fits() -> None:
    long = " ".join(f"word{i}" for i in range(60))
    writer = ScriptedWriter(lambda request: Reply(long) if role_of(request) == "critique" else plain(request), 70)
    chains(writer=writer)
    revision = writer.asked[-1]
    assert sum(len(message.content.split()) for message in revision.messages) == 70
    assert long.startswith(revision.messages[-2].content)


def test_a_prompt_longer_than_the_context_is_told() -> None:
    (chain,) = chains(writer=ScriptedWriter(plain, 3))
    assert chain.verdict == NO_ANSWER
    assert "longer than the context" in chain.steps[0].problem


def test_every_verdict_is_a_known_one() -> None:
    assert set(CHAIN_REASONS) - {NO_ANSWER, NO_CRITIQUE} == set(REASONS) - {"beaten"}
