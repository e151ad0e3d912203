"""The instructions that a new project begins with."""

INSTRUCTIONS = """\
## The task

You see what a person asked, and several answers that language models gave. Rank the answers from best to worst by
**{criterion}**. Read the whole question and all answers before you decide.

## How to decide

- **Correct comes first.** An answer that says what is not so is worse than one that says less. You may look facts up on
  the web, and should where you are not sure.
- **Then informative.** Of two correct answers the better one is that which serves the person who asked: it answers what was
  asked, to the point, and leaves nothing out that they need. Longer is not better.
- Judge what is said, not how polished it sounds.

## Ties

Two answers may share a rank when you cannot tell which is better, or when they say the same. Use this sparingly: a small
difference is a difference.

## Flag what cannot be ranked

Flag an answer (key **F**) instead of ranking it when it is nonsensical, confusing, or has nothing to do with the question.

## Good to know

The answers come in random order and without names. You may skip a set that you would rather not read; nobody counts it
against you. What you send cannot be changed afterwards, but everything before that can be undone.
"""
