"""What an answer becomes, and what is no answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_project import COMPLETIONS, PROMPTS
from labelling import send, sent

from heedful.errors import DataError
from heedful.records import Judgement as Record
from heedful.records import parse_line, to_line
from heedful.web.labelling import assignment, files, judging
from heedful.web.labelling.models import Handout, Judgement, Project, User
from heedful.web.labelling.shared_text import RUN, groups, pieces


def handed(project: Project, labeler: User, prompt_id: str) -> Handout:
    while True:
        handout = assignment.next_handout(project, labeler)
        assert handout is not None
        if handout.set.prompt_id == prompt_id:
            return handout
        assignment.skip(handout)


def test_tiers_become_ranks_and_equal_texts_share_theirs(project: Project, labelers: list[User]) -> None:
    handout = handed(project, labelers[0], "hot")
    shown = groups(handout.set.completions, handout.shown_order)
    assert sorted(map(len, shown)) == [1, 1, 2]
    twice = next(n for n, ids in enumerate(shown) if len(ids) == 2)
    one, other = (n for n in range(3) if n != twice)
    judgement = send(handout, tiers=[[one], [twice]], flagged=[other])
    assert judgement.ranks == {shown[one][0]: 1} | dict.fromkeys(shown[twice], 2)
    assert judgement.flagged == shown[other]
    assert judgement.note == "a note"
    assert judgement.instructions.version == 1


def test_the_record_survives_a_file(project: Project, labelers: list[User]) -> None:
    handout = handed(project, labelers[0], "knock")
    send(handout, tiers=[[2], [0, 1]])
    (record,) = files.judgements_of(project)
    assert parse_line(to_line(record), Record, "here") == record
    assert (record.labeler, record.source, record.criterion) == ("labeler-0", "human", "helpfulness")
    assert record.shown_order == tuple(handout.shown_order)
    assert record.ranks == {handout.shown_order[2]: 1, handout.shown_order[0]: 2, handout.shown_order[1]: 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"tiers": [[0], [1]]},  # one is missing
        {"tiers": [[0], [1], [2], [2]]},
        {"tiers": [[0], [1], [2]], "flagged": [2]},
        {"tiers": [[0], [1], [3]]},
        {"tiers": [[0], [1], [-1]]},
        {"tiers": [[0], [1], []], "flagged": [2]},
        {"tiers": [[0], [1], [True]]},
        {"tiers": [[0], [1], [2.0]]},
        {"tiers": "012"},
        {"tiers": [0, 1, 2]},
        {"tiers": [[0], [1], [2]], "flagged": None},
        {"tiers": [[0], [1], [2]], "seconds": "soon"},
        {"tiers": [[0], [1], [2]], "seconds": float("nan")},
        {"tiers": [[0], [1], [2]], "seconds": -1},
        {"tiers": [[0], [1], [2]], "seconds": 10**400},
        {"tiers": None},
    ],
)
def test_nothing_is_stored_before_all_is_done(project: Project, labelers: list[User], wrong: dict[str, Any]) -> None:
    handout = handed(project, labelers[0], "knock")
    with pytest.raises(judging.RefusedError, match="Every answer is judged"):
        send(handout, **wrong)
    assert not Judgement.objects.exists()
    assert send(handout, tiers=[[0], [1], [2]]).ranks


@pytest.mark.parametrize("raw", ["", "[]", "null", "{", "[" * 100_000])
def test_what_is_not_even_json_is_refused(project: Project, labelers: list[User], raw: str) -> None:
    handout = handed(project, labelers[0], "knock")
    with pytest.raises(judging.RefusedError):
        judging.submit(project, labelers[0], replace(sent(handout), answer=raw))


def test_only_what_is_in_hand_can_be_answered(project: Project, labelers: list[User]) -> None:
    handout = handed(project, labelers[0], "knock")
    with pytest.raises(judging.RefusedError, match="not in your hands"):
        judging.submit(project, labelers[1], sent(handout))


def test_a_judgement_keeps_the_version_that_its_page_had(project: Project, labelers: list[User], admin: User) -> None:
    handout = handed(project, labelers[0], "knock")
    page = sent(handout)
    assert judging.write_instructions(project, "Another text.", admin, after=1)
    assert not judging.write_instructions(project, "By whoever edited version 1 as well.", admin, after=1)
    with pytest.raises(judging.RefusedError, match="read the instructions"):
        judging.submit(project, labelers[0], replace(page, version=2))
    assert judging.submit(project, labelers[0], page)[0].instructions.version == 1


def test_a_clock_that_is_set_back_takes_no_time(project: Project, labelers: list[User]) -> None:
    handout = handed(project, labelers[0], "knock")
    Handout.objects.filter(pk=handout.pk).update(begun_at=handout.begun_at + timedelta(minutes=5))
    send(handout)
    (record,) = files.judgements_of(project)
    assert record.seconds == 0


def test_all_may_be_flagged(project: Project, labelers: list[User]) -> None:
    assert send(handed(project, labelers[0], "wifi"), tiers=[], flagged=[1, 0]).ranks == {}


def test_files_that_make_no_project_are_refused(db: None) -> None:
    def create(name: str = "p", prompts: Any = PROMPTS, completions: Any = COMPLETIONS) -> None:
        files.create_project(name, prompts, completions, files.Task())

    with pytest.raises(DataError, match="not among the prompts"):
        create(prompts=PROMPTS[1:])
    with pytest.raises(DataError, match="nothing to judge"):
        create(completions=COMPLETIONS[:1])
    many = [COMPLETIONS[0].model_copy(update={"id": f"hot/{n}", "text": f"{n}"}) for n in range(10)]
    with pytest.raises(DataError, match="up to 9"):
        create(completions=many)
    twins = [COMPLETIONS[2], COMPLETIONS[3]]
    with pytest.raises(DataError, match="two different completions"):
        create(completions=twins)
    with pytest.raises(DataError, match="NUL"):
        create(completions=[COMPLETIONS[0], COMPLETIONS[1].model_copy(update={"text": "a\0b"})])
    create(name="q", completions=[COMPLETIONS[0], COMPLETIONS[1].model_copy(update={"text": "write it as \\u0000"})])
    with pytest.raises(DataError, match="at most 500"):
        create(
            prompts=[PROMPTS[0].model_copy(update={"id": "p" * 501})],
            completions=[found.model_copy(update={"prompt_id": "p" * 501}) for found in COMPLETIONS[:2]],
        )
    with pytest.raises(DataError, match="at most 100"):
        create(name="n" * 101)
    with pytest.raises(DataError, match="letter or digit"):
        create(name="!")
    create(name="p")
    with pytest.raises(DataError, match="another name"):
        create(name="p")
    with pytest.raises(DataError, match="there are: p, q"):
        files.project_named("r")


def test_shared_runs_are_found() -> None:
    same = "Open the windows at night."
    left, right = pieces([f"{same} A fan helps.", f"Well: {same}"])
    assert [(piece.text, piece.shared) for piece in left] == [(f"{same} ", True), ("A fan helps.", False)]
    assert [(piece.text, piece.shared) for piece in right] == [("Well: ", False), (same, True)]
    two_of_three = pieces([same, same + " Now.", "Heat is energy."])
    assert [[piece.shared for piece in row] for row in two_of_three] == [[True], [True, False], [False]]
    assert not any(piece.shared for row in pieces([same, "No.", "Yes.", same]) for piece in row), "half is not most"
    assert not any(piece.shared for row in pieces([same]) for piece in row)
    assert not any(piece.shared for row in pieces(["a b c", "a b c"]) for piece in row), f"fewer than {RUN} words"


@given(st.lists(st.text(alphabet="ab \n\u05d0", max_size=40), min_size=1, max_size=4))
def test_pieces_joined_are_the_text(texts: list[str]) -> None:
    assert ["".join(piece.text for piece in row) for row in pieces(texts)] == texts
