"""The record of a chain of critique and revision: every text that was written, what asked for it, and what became of it."""

from __future__ import annotations

from typing import Literal

from heedful.records import Messages, NonEmpty, Record, Several

Role = Literal["answer", "critique", "revision"]
Finish = Literal["stop", "length"]

KEPT = "kept"
# Why a revision is not learned from, in the order in which it is asked: the first that holds is the reason. The pages say what
# each means.
REASONS = (
    "long-request",
    "no-reply",
    "empty",
    "cut",
    "short",
    "loops",
    "comments",
    "copies-answer",
    "copies-critique",
    "copies-request",
    "unscored",
    "worse",
    "beaten",
)
# Of a chain in which no revision could be asked for.
NO_ANSWER, NO_CRITIQUE = "no-answer", "no-critique"
CHAIN_REASONS = (NO_ANSWER, NO_CRITIQUE, *REASONS[:-1])
# In words, of a revision and of a chain alike.
MEANING = {
    KEPT: "learned from",
    NO_ANSWER: "there was no answer to criticise",
    NO_CRITIQUE: "no critique was written",
    "long-request": "what had to be asked is longer than the context",
    "no-reply": "the writer did not reply",
    "empty": "the reply is empty",
    "cut": "the limit cut it off before a whole sentence",
    "short": "too few words",
    "loops": "repeats itself or says nothing",
    "comments": "speaks of the answer or the critique, not to the person",
    "copies-answer": "a copy of the answer",
    "copies-critique": "a copy of the critique",
    "copies-request": "a copy of the prompt, a request or an example",
    "unscored": "the scorer gave no number",
    "worse": "the scorer does not call it better than the answer",
    "beaten": "another revision of the chain scored higher, or came first",
}


class Step(Record):
    """One text of a chain.

    pass_number: 0 for the answer, then 1 and up. number: of a revision among those of its pass, from 1. principle: by whose
    requests it was asked for. request_hash: of the messages that the writer was sent. num_examples: worked examples before
    them. examples_left_out: whether there would have been more, had there been room. shortened: whether the critique was cut so
    that the request fits. text: as it was written. problem: why there is none.
    given: an answer that was handed in, not asked for. score: the scorer's number for it. verdict: "kept" or one of REASONS; ""
    for answers and critiques.
    """

    role: Role
    pass_number: int
    number: int = 1
    principle: str = ""
    request_hash: str = ""
    num_examples: int = 0
    examples_left_out: bool = False
    shortened: bool = False
    text: str
    finish: Finish = "stop"
    problem: str = ""
    given: bool = False
    model: str
    seed: int = 0
    score: float | None = None
    verdict: str = ""


class Chain(Record):
    """A prompt, and what was made of the answer to it.

    principles: drawn for the passes. verdict: "kept", or why there is nothing to learn from it, one of CHAIN_REASONS. revision:
    the text to learn from, as it was cleaned; finish: of it. gain: its score less the answer's; where none was kept, that of
    the best revision that came to be scored. None without a scorer.
    """

    prompt_id: NonEmpty
    messages: Messages
    tags: Several[str] = ()
    principles: Several[str] = ()
    steps: Several[Step]
    verdict: str
    revision: str = ""
    finish: Finish = "stop"
    gain: float | None = None
