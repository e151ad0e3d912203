"""Which revisions are worth learning from, as far as their texts tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from heedful.constitution.chains import Finish
from heedful.feedback.refusals import is_degenerate, repeated_share

Cut = Literal["trim", "keep", "drop"]

PHRASE_WORDS = 4
_WORD = re.compile(r"\w+(?:['’]\w+)*")
# "Revised answer:", "Here is a new version of my answer:" before the answer itself.
_NAMES = r"(?:answer|response|reply|revision|rewrite|version)"
_LABEL = re.compile(
    rf"\W*(?:(?:sure|of course|okay)\W+)?(?:(?:here is|here's|this is|here are)\s+)?"
    rf"(?:(?:the|a|an|my|your|one)\s+)?(?:(?:revised|new|rewritten|improved|better|corrected|possible|final|updated)\s+)?"
    rf"{_NAMES}\b(?! is (?:yes|no)\b)[^:\n]{{0,60}}:\W*",
    re.IGNORECASE,
)
# What speaks of the exercise and not to the person. "The answer is no" and "criticise" may stand in an answer.
_COMMENTS = re.compile(
    rf"^\W*(?:the|this|your) {_NAMES} (?!is (?:yes|no|that)\b)"
    # Said to whoever criticised.
    r"|^\W*you(?:'|’| a)re (?:absolutely |quite )?(?:right|correct)\b"
    r"|^\W*thank you for (?:pointing|(?:the|your) feedback)\b"
    r"|^\W*(?:i am|i'm|i’m)? ?(?:so )?(?:sorry|apologi[sz]e|apologies) for (?:the|any|my) "
    r"(?:confusion|misunderstanding|mistake)\b"
    rf"|\bcritiques?\b|\b(?:this|the|my|your|a) revision\b|\b(?:revised|rewritten) {_NAMES}s?\b"
    rf"|\b(?:the|your|my) (?:last|previous|original|first|new|given) {_NAMES}\b"
    rf"|\b(?:revis|rewrit)(?:e|ing) (?:the|your|my|this) {_NAMES}\b"
    r"|\bthe (?:answer|response) (?:was|does|should|could|would|helps|gives|seems|provides)\b",
    re.IGNORECASE,
)
# A turn that the writer went on to write for the other side, or the next request as requests.py quotes one.
_NEXT_TURN = re.compile(
    r"\n\s*(?:user|human|question|assistant|person|you were asked|your last answer|what is wrong with it)\s*:", re.IGNORECASE
)
_SENTENCE = re.compile(r".*[.!?][\"')\]”’]*(?=\s|$)", re.DOTALL)


class Cleaned(NamedTuple):
    """A revision as it would be learned. finish: "stop" also where it was trimmed to its last whole sentence."""

    text: str
    finish: Finish


@dataclass(frozen=True)
class Rules:
    """Bounds of what is kept. The pages explain each, as settings of the same names."""

    cut: Cut = "trim"
    min_words: int = 6
    max_repeated: float = 0.2
    max_similarity: float = 0.9
    max_copied: float = 0.5

    def reason(self, text: Cleaned, *, answer: str, critique: str, requests: Sequence[str]) -> str:
        """The first rule that the text breaks, one of `chains.REASONS`; "" when it breaks none.

        answer: the first answer of the chain. requests: what else the writer was shown.
        """
        if not text.text.strip():
            return "empty"
        if text.finish == "length" and self.cut != "keep":
            return "cut"
        if len(words(text.text)) < self.min_words:
            return "short"
        if is_degenerate(text.text) or repeated_share(text.text) > self.max_repeated:
            return "loops"
        if _COMMENTS.search(text.text):
            return "comments"
        if is_copy(text.text, answer, self.max_similarity):
            return "copies-answer"
        if is_copy(text.text, critique, self.max_similarity) or copied_share(text.text, critique) > self.max_copied:
            return "copies-critique"
        if any(
            is_copy(text.text, other, self.max_similarity) or copied_share(text.text, other) > self.max_copied
            for other in requests
        ):
            return "copies-request"
        return ""

    def clean(self, text: str, finish: Finish) -> Cleaned:
        """Without a label before it, quotation marks around it, and turns that were written for the other side.

        A text that the limit cut off is trimmed to its last whole sentence, where `cut` says so and there is one.
        """
        label = _LABEL.match(text)
        text = text[label.end() :] if label else text
        following = _NEXT_TURN.search(text)
        if following:
            text, finish = text[: following.start()], "stop"
        text = text.strip()
        if len(text) > 1 and text[0] + text[-1] in ('""', "“”") and not set(text[1:-1]) & set('"“”'):
            text = text[1:-1].strip()
        if finish == "length" and self.cut == "trim" and (whole := whole_sentences(text)):
            return Cleaned(whole, "stop")
        return Cleaned(text, finish)


def whole_sentences(text: str) -> str:
    """The text up to the end of its last whole sentence; "" where it has none."""
    found = _SENTENCE.match(text)
    return found.group().strip() if found else ""


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def is_copy(text: str, other: str, max_similarity: float) -> bool:
    """Whether a text is another one but for case, punctuation and a few words, or only its beginning.

    A few words: the similarity, twice the words in matching runs over all words (Ratcliff and Obershelp), is above the bound.
    """
    said, known = words(text), words(other)
    if not known or known[: len(said)] == said:
        return bool(known)
    matcher = SequenceMatcher(None, said, known, autojunk=False)
    # Cheap upper bounds of the ratio first.
    return all(ratio() > max_similarity for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio))


def copied_share(text: str, source: str) -> float:
    """Share of a text's phrases of four words that stand in the source, 0 to 1; 0 for a text of fewer words."""
    said, known = _phrases(text), set(_phrases(source))
    return sum(phrase in known for phrase in said) / len(said) if said else 0.0


def _phrases(text: str) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[i : i + PHRASE_WORDS]) for i in range(len(found) - PHRASE_WORDS + 1)]
