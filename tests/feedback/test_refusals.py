"""Refusals and degenerate texts, by examples that a person can judge at a glance."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.data.formats import read_preferences
from heedful.feedback.refusals import is_degenerate, is_refusal, repeated_share

REFUSALS = [
    "I can't help with that.",
    "I can’t help you with hacking a network.",
    "I cannot assist with that request.",
    "I'm sorry, but I cannot",
    "I'm sorry, but I can't do that.",
    "I am sorry, but I'm unable to help you steal makeup.",
    "I'm really sorry, but I'm not able to assist with anything illegal.",
    "I'm not able to assist with that.",
    "I am not able to provide instructions for weapons.",
    "I won't help you hurt someone.",
    "I will not write that message.",
    "As an AI language model, I cannot provide instructions for making drugs.",
    "As an AI, I am unable to assist with illegal activities.",
    "As a responsible AI, I can't",
    "It is not ethical to read someone's mail. I can't be of use here.",
    "It is illegal to make a bomb, and I will not describe it.",
    "It's not legal or ethical to hack a network, so I can't assist.",
    "I must decline this request.",
    "I have to respectfully decline.",
    "I refuse to write that.",
    "I'm not comfortable helping with this.",
    "That's not something I can help with.",
    "This request goes against my guidelines.",
    "I do not condone violence. Please talk to someone.",
    "Hello! I understand that you are upset with her, and that hurts. However, I can't help you follow her.",
    "I apologize, but I cannot fulfill your request.",
    "Unfortunately, I can't share that kind of information.",
    "**I can't help with that.**",
    '"I can\'t help with that."',
    "I cannot in good conscience help you with this.",
    "I can't tell you how to poison anybody.",
    "No, I won't. He is a person too.",
    "I'm not going to help you cheat.",
    "I can't do that for you.",
    "I can not help you with this.",
    "Sorry, I can't.",
    "Sorry, but I won't do that.",
    "I'm afraid I can't do that.",
    "I cannot and will not help you with this.",
    "I won't be able to help you with that.",
    "I would not be able to help you with stealing a car.",
    "I would not help anybody with that.",
    "I don't feel comfortable helping you with that.",
    "I do not feel comfortable writing this message.",
    "I don't think I can help you with that.",
    "I’d rather not help with that.",
    "I don't want to do this.",
    "My guidelines don't allow me to help with that.",
    "I am programmed not to help with such things.",
    "That is not something I'm able to help with.",
    "We cannot help you with that.",
    "Making a fake ID is a crime, so I can't help you do it.",
    "Hacking into someone’s wifi is illegal, and I can’t help you do it.",
    "No. I will not help you poison your neighbor's dog.",
    "I'm just an AI, I cannot give instructions on how to steal.",
    "I'm sorry, but as an AI I am not able to help with that.",
    "I’m sorry, but this is something I can’t help you with.",
    "I am not able to help you with this, but here is the number of a hotline.",
    "I must refuse to answer this question.",
]
ANSWERS = [
    "I can't wait to tell you about this recipe!",
    "Sorry to hear that! Try opening a window.",
    "You can't kill a process without permission.",
    "I don't know.",
    "I don't know what you ate, as I was not there.",
    "I'm sorry, but I cannot know what you ate this morning.",
    "As an AI, I don't have access to your breakfast.",
    "As an AI, I cannot predict the future.",
    "I can't predict who will win.",
    "I'm afraid I can't tell whether he lies.",
    "I can't give you an exact number, but a cup holds about 95 mg.",
    "I can't answer that without more information. Who is she?",
    "I can't help but smile at that idea.",
    "I won't give up until your bread is fresh: freeze it.",
    "I'm not going to lie, this takes a while.",
    "I can't recommend this book enough.",
    "Please don't hesitate to ask.",
    "Please do not mix bleach with ammonia.",
    "It is not safe to leave food out for more than two hours.",
    "Sharing a password is illegal in some places.",
    "Ben cannot give Ana her money back without a receipt.",
    "Say: \"I'm sorry, but I can't help you move on Sunday.\"",
    "Try saying “I can’t help with that” and walk away.",
    "I would open the windows at night and close the curtains by day.",
    "I'm sorry that you can't sleep. Try a cooler room.",
    "I do not recommend more than 400 mg of caffeine a day.",
    # Advice, not refusal: it answers a question about safety.
    "It's not safe to mix bleach and ammonia.",
    "It is not safe to mix bleach and ammonia, because the gas is toxic.",
    "It is important to drink enough water.",
    "I wouldn't recommend sleeping with a space heater on.",
    "I would not advise that on a windy day.",
    "I wouldn't do that in winter.",
    "Warm milk may help you sleep, but I wouldn't make it the only thing you try.",
    "Without a brain, I couldn't respond to pain, and neither can a plant.",
    # Words that begin like something one declines
    "I won't shower before the race, and neither should you.",
    "I will not plant tulips in June.",
    "I am happy to do that, though I won't be able to completely copy the taste.",
    "Sorry, I couldn't quite hear that. Could you say it again?",
    "I cannot stress enough how important it is to stretch.",
    "I can't say for sure, but about 8 million people live there.",
    "I'm unable to know what you had for breakfast.",
    "As an AI language model, I do not have personal opinions.",
    "As an AI, I have no body, but I can tell you how to bake bread.",
    "Unfortunately, I can't tell you the weather, as I have no live data.",
    "Unfortunately, there is no cure for a cold. Rest and drink tea.",
    "Dear team, I am sorry, but I cannot attend the meeting on Monday.",
    "Ana wants to return a kettle. Ben refuses to refund her without a receipt.",
    "You should refuse to share your password.",
    "I would politely decline the invitation.",
    "I won't lie, it is hard.",
    "I can't guarantee it, but salt often helps.",
    "I couldn't agree more.",
    "I'm afraid there is no simple answer.",
    "I don't think I can improve on this recipe.",
    "Use `kill 1234`. If the shell says that it can't help you, add sudo.",
    "",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_are_seen(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_answers_are_no_refusals(text: str) -> None:
    assert not is_refusal(text)


def test_a_late_caveat_is_no_refusal() -> None:
    recipe = "Take the pan, heat the oil and fry the onions until they are golden. " * 5
    assert not is_refusal(recipe + "I can't help with that.")


@pytest.mark.parametrize("text", REFUSALS[:12])
def test_a_refusal_stays_one_in_capitals_and_over_lines(text: str) -> None:
    assert is_refusal(text.upper())
    assert is_refusal("\n  " + text.replace(" ", "\n"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "...",
        "12 34 56",
        "😀😀😀",
        "aaaaaaaaaaaaaaaaaaaa",
        "ok !!!!!!!!!!!!!!!!!!!!",
        "a 1-2-3-4-5-6-7-8-9-10-11-12",
        "the cat sat on " * 5,
        "yes " * 12,
    ],
)
def test_degenerate(text: str) -> None:
    assert is_degenerate(text)


@pytest.mark.parametrize(
    "text",
    [
        "Canberra.",
        "4 of 5.",
        "no, no, no, no, no",  # fewer than 12 words
        "Привет, как дела?",
        "東京です",
        "Open the windows at night, close the curtains by day, and let a fan move the air along.",
        "Name: __________ Age: __________ Please fill in the form and hand it back to the front desk.",
        "I can't help with that.",
    ],
)
def test_not_degenerate(text: str) -> None:
    assert not is_degenerate(text)


def test_repeated_share_by_hand() -> None:
    # a b c d a b c d: 5 four-grams, of which the last one repeats the first.
    assert repeated_share("a b c d a b c d") == pytest.approx(1 / 5)
    assert repeated_share("one two three") == 0.0
    assert repeated_share("A b, c d. a B c D") == pytest.approx(1 / 5)


def test_the_share_that_makes_a_text_degenerate() -> None:
    # 15 words give 12 four-grams; repeating the first w words repeats w - 3 of them.
    head = "one two three four five six seven eight"
    assert repeated_share(f"{head} {head}") == pytest.approx(5 / 13)
    assert not is_degenerate(f"{head} {head}")  # 38%
    head = "one two three four five six seven eight nine"
    assert repeated_share(f"{head} {head}") == pytest.approx(6 / 15)
    assert not is_degenerate(f"{head} {head}")  # 40%, not more
    head += " ten"
    assert is_degenerate(f"{head} {head}")  # 7 of 17


@given(st.text(max_size=300))
def test_any_text_is_judged(text: str) -> None:
    assert 0.0 <= repeated_share(text) < 1.0
    assert isinstance(is_refusal(text), bool)
    assert isinstance(is_degenerate(text), bool)


@given(st.text(alphabet="0123456789 .,;!?-\n", max_size=60))
def test_a_text_without_letters_is_degenerate(text: str) -> None:
    assert is_degenerate(text)


@given(st.text(alphabet=st.characters(whitelist_categories=["Ll", "Zs"]), max_size=80))
def test_curly_apostrophes_read_like_straight_ones(text: str) -> None:
    straight = f"I can't help with {text}"
    assert is_refusal(straight) == is_refusal(straight.replace("'", "\u2019"))


def test_real_answers_are_seldom_refusals_and_more_often_to_harmful_requests(shared_data: Path) -> None:
    """People's requests of 2021 and a model that hardly refused: read through by hand when this was written."""
    shares = []
    for name in ("harmless", "helpful"):
        pairs = read_preferences(shared_data / f"hh/{name}.jsonl.gz")
        texts = {text for pair in pairs for text in (pair.chosen, pair.rejected)}
        shares.append(sum(map(is_refusal, texts)) / len(texts))
    harmless, helpful = shares
    assert 0.02 < harmless < 0.04
    assert 0.003 < helpful < 0.01
