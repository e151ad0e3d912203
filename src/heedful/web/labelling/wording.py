"""The instructions that a new project begins with."""

from __future__ import annotations

from heedful.web.labelling.models import Mode

_DECIDE = """\
## How to decide

- **Correct comes first.** An answer that says what is not so is worse than one that says less. You may look facts up on
  the web, and should where you are not sure.
- **Then informative.** Of two correct answers the better one is that which serves the person who asked: it answers what was
  asked, to the point, and leaves nothing out that they need. Longer is not better.
- Judge what is said, not how polished it sounds.
"""
_KNOW = """\
## Good to know

The answers come in random order and without names. You may skip a set that you would rather not read; nobody counts it
against you. What you send cannot be changed afterwards, but everything before that can be undone. Now and then a set comes
whose answer is known, or one that you have seen before.
"""
_RANK = f"""\
## The task

You see what a person asked, and several answers that language models gave. Rank the answers from best to worst by
**{{criterion}}**. Read the whole question and all answers before you decide.

{_DECIDE}
## Ties

Two answers may share a rank when you cannot tell which is better, or when they say the same. Use this sparingly: a small
difference is a difference.

## Flag what cannot be ranked

Flag an answer (key **F**) instead of ranking it when it is nonsensical, confusing, or has nothing to do with the question.

{_KNOW}"""
_THUMBS = f"""\
## The task

You see what a person asked, and what a language model answered. Give each answer a thumb up or a thumb down by
**{{criterion}}**: up if you would be content with it had you asked, down if not. Each answer stands for itself; all may go
up, or all down. Read the whole question first.

{_DECIDE}
An answer that is nonsensical, confusing, or has nothing to do with the question gets a thumb down.

{_KNOW}"""
_VERSUS = f"""\
## The task

You see what a person asked, and two answers, A and B. Choose the better one by **{{criterion}}**. Read the whole question
and both answers before you decide.

{_DECIDE}
## Level, or both useless

Call the two level (key **=**) when you cannot tell which is better. Use this sparingly: a small difference is a difference.
Flag an answer (key **F**) when it is nonsensical, confusing, or has nothing to do with the question; it loses to one that is
not flagged.

{_KNOW}"""

INSTRUCTIONS = {Mode.RANK: _RANK, Mode.THUMBS: _THUMBS, Mode.VERSUS: _VERSUS}
