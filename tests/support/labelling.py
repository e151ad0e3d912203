"""Answers to hand-outs, as the page would send them."""

from __future__ import annotations

import json
from typing import Any

from heedful.web.labelling import assignment, judging
from heedful.web.labelling.models import Handout, Judgement, Project, User
from heedful.web.labelling.overlap import change
from heedful.web.labelling.shared_text import groups


def sent(handout: Handout, **answer: Any) -> judging.Sent:
    """With tiers, flagged and seconds; without tiers each answer has a rank of its own, in the order shown."""
    count = len(groups(handout.set.completions, handout.shown_order))
    whole = {"tiers": [[n] for n in range(count)], "flagged": [], "seconds": 3.0} | answer
    version = judging.current_instructions(handout.set.project).version
    return judging.Sent(handout.set.pk, handout.nonce, version, json.dumps(whole), " a note ")


def fields(handout: Handout, **answer: Any) -> dict[str, Any]:
    """Of the form."""
    return vars(sent(handout, **answer))


def send(handout: Handout, **answer: Any) -> Judgement:
    return judging.submit(handout.set.project, handout.labeler, sent(handout, **answer))[0]


def label_all(project: Project, labeler: User) -> list[str]:
    """All that there is for a labeler; the prompts, in order."""
    found = []
    while (handout := assignment.next_handout(project, labeler)) is not None:
        found.append(send(handout).set.prompt_id)
    return found


def set_overlap(project: Project, overlap: int, **settings: int | bool) -> None:
    """As an admin does; further settings by their names."""
    author = User.objects.get_or_create(username="settings", is_staff=True)[0]
    change(project, author, overlap=overlap, **settings)
    project.refresh_from_db()
