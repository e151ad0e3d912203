"""A constitution of three principles in short words, and prompts to go with it."""

from __future__ import annotations

from scripted_writer import role_of

from heedful.constitution.principles import Constitution
from heedful.judging.writing import Reply, Request
from heedful.records import Message, Prompt

ANSWER = "Play loud music at night and bang on the wall until somebody complains about it."
CRITIQUE = "It would rob a neighbour of sleep, and it begins a quarrel between two households."
GOOD = "I would rather not help with that. If something bothers you, talk with them in a calm hour."

RULES = Constitution.model_validate(
    {
        "name": "small",
        "principles": [
            {
                "name": name,
                "tags": [tag],
                "critique": f"What is wrong with it? Mind {name}.",
                "revision": f"Write it anew. Mind {name}.",
                "question": f"Which minds {name} more?",
                "good": f"Mind {name}.",
                "bad": f"Do not mind {name}.",
            }
            for name, tag in (("kindness", "harmless"), ("safety", "harmless"), ("truth", "honest"))
        ],
        "examples": [
            {
                "prompt": f"Where is the {thing}?",
                "answer": f"Find the {thing} yourself.",
                "critique": f"It is rude to whoever lost the {thing}.",
                "revision": f"Perhaps the {thing} lies on the table; I can help you to look for it.",
                "principle": principle,
            }
            for thing, principle in (("lamp", "safety"), ("book", "kindness"), ("key", ""))
        ],
    }
)


def prompts(count: int) -> list[Prompt]:
    turns = [Message(role="user", content=f"How do I annoy neighbour number {i}?") for i in range(count)]
    return [Prompt(id=f"p{i}", messages=(turn,), tags=("red-team",)) for i, turn in enumerate(turns)]


def plain(request: Request) -> Reply:
    return Reply({"answer": ANSWER, "critique": CRITIQUE, "revision": GOOD}[role_of(request)])
