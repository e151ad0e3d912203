"""Thumbs and A or B: what is stored, what comes out, what it says of two models."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from label_server import command
from labelled_project import COMPLETIONS, PROMPTS, SAID
from labelling import send, sent

from heedful.errors import DataError
from heedful.records import Completion, Vote, parse_line
from heedful.store import write_jsonl
from heedful.web.labelling import assignment, files, judging, quality
from heedful.web.labelling.files import Task, create_project
from heedful.web.labelling.models import Handout, Mode, Project, User
from heedful.web.labelling.sets import FIRST, SECOND, names_of_sides
from heedful.web.labelling.shared_text import groups

BASE = [found for found in COMPLETIONS if found.id.endswith("/1")]
ALIGNED = [
    found.model_copy(update={"id": f"{found.prompt_id}/1", "model": "aligned", "text": text})
    for found, text in zip(BASE, ["Use a fan.", SAID["knock"][0], "Ask them.", "A greeting."], strict=True)
]


def join(project: Project, labelers: list[User]) -> list[User]:
    project.members.add(*labelers)
    project.instructions.get().readers.add(*labelers)
    return labelers


def hand(project: Project, labeler: User) -> Handout:
    found = assignment.next_handout(project, labeler)
    assert found is not None
    return found


@pytest.fixture
def thumbs(db: None) -> Project:
    return create_project("Thumbs", PROMPTS, COMPLETIONS, Task(mode=Mode.THUMBS))


@pytest.fixture
def versus(db: None) -> Project:
    return create_project("Versus", PROMPTS, BASE, Task(mode=Mode.VERSUS), against=ALIGNED)


def test_thumbs_become_votes(thumbs: Project, labelers: list[User]) -> None:
    labeler = join(thumbs, labelers)[0]
    meant = {}
    while (handout := assignment.next_handout(thumbs, labeler)) is not None:
        shown = groups(handout.set.completions, handout.shown_order)
        ups = [n for n, ids in enumerate(shown) if ids[0].endswith("1")]
        send(handout, tiers=[ups, [n for n in range(len(shown)) if n not in ups]])
        meant |= {id_: int(n in ups) for n, ids in enumerate(shown) for id_ in ids}
    votes = files.votes_of(thumbs)
    assert {vote.completion_id: vote.value for vote in votes} == meant
    assert len(votes) == len(COMPLETIONS)
    boss = User.objects.create_user("boss", password="quiet-harbour-91", is_staff=True)
    client = Client()
    client.force_login(boss, backend="django.contrib.auth.backends.ModelBackend")
    answer = client.get(reverse("export", args=[thumbs.slug]))
    assert 'filename="thumbs-votes.jsonl"' in answer["Content-Disposition"]
    assert [parse_line(line, Vote, "here") for line in answer.content.decode().splitlines()] == votes


@pytest.mark.parametrize(
    "answer",
    [
        {"tiers": [[0, 1, 2]]},
        {"tiers": [[0], [1], [2]]},
        {"tiers": [[0], [1]], "flagged": [2]},
        {"tiers": [[0, 1], []]},
        {"tiers": [[0, 1, 2], [2]]},
    ],
)
def test_what_is_no_set_of_thumbs_is_refused(thumbs: Project, labelers: list[User], answer: dict[str, object]) -> None:
    thumbs.sets.exclude(prompt_id="knock").delete()
    handout = hand(thumbs, join(thumbs, labelers)[0])
    with pytest.raises(judging.RefusedError, match="Every answer"):
        judging.submit(thumbs, labelers[0], sent(handout, **answer))
    assert send(handout, tiers=[[], [0, 1, 2]]).ranks == dict.fromkeys(handout.shown_order, 2), "all may go down"


def test_thumbs_are_held_against_a_bar(thumbs: Project, labelers: list[User]) -> None:
    """Two who always agree, though all of a set goes up or down together: agreement is not lost in ties."""
    thumbs.sets.exclude(prompt_id__in=("knock", "odd")).delete()
    for labeler in join(thumbs, labelers)[:2]:
        while (handout := assignment.next_handout(thumbs, labeler)) is not None:
            every = list(range(len(groups(handout.set.completions, handout.shown_order))))
            send(handout, tiers=[every, []] if handout.set.prompt_id == "odd" else [[], every])
    found = quality.shown(thumbs, 60).quality
    assert found is not None
    assert found.agreement["krippendorff_alpha"] == pytest.approx(1.0)
    assert (found.num_clear, found.num_settled) == (7, 7)
    assert {row.agreement for row in found.labelers} == {1.0}


def test_one_completion_is_enough_for_a_thumb(db: None) -> None:
    assert create_project("One", PROMPTS, BASE, Task(mode=Mode.THUMBS)).sets.count() == 4
    with pytest.raises(DataError, match="nothing to judge"):
        create_project("Two", PROMPTS, BASE, Task())


def test_a_or_b_pairs_two_models_and_says_who_wins(versus: Project, labelers: list[User]) -> None:
    """Three prompts in which they differ, one in which both say the same: a tie."""
    assert (versus.sets.count(), versus.num_identical) == (3, 1)
    for number, labeler in enumerate(join(versus, labelers)[:3]):
        while (handout := assignment.next_handout(versus, labeler)) is not None:
            shown = groups(handout.set.completions, handout.shown_order)
            aligned = next(n for n, ids in enumerate(shown) if ids[0].startswith("second/"))
            if handout.set.prompt_id == "hot":
                send(handout, tiers=[[aligned], [1 - aligned]])
            elif handout.set.prompt_id == "wifi":
                send(handout, tiers=[[0, 1]])
            elif number == 0:  # one of three prefers it, one flags the other, one both
                send(handout, tiers=[[1 - aligned], [aligned]])
            else:
                send(handout, tiers=[[aligned]] if number == 1 else [], flagged=[1 - aligned] if number == 1 else [0, 1])
    found = quality.shown(versus, 60).quality
    assert found is not None
    assert found.versus is not None
    result = found.versus
    # hot 1, wifi 1/2, odd (0 + 1 + 1/2) / 3 = 1/2, knock, where both say the same, 1/2
    assert result.rate.estimate == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 4)
    assert (result.wins, result.ties, result.losses, result.num_identical) == (1, 3, 0, 1)
    assert (result.first, result.second, result.num_judgements) == ("secret-model-1", "aligned", 9)
    assert result.rate.low is not None
    assert 0 <= result.rate.low <= result.rate.estimate <= (result.rate.high or 0) <= 1


def test_the_page_does_not_tell_whose_answer_it_is(versus: Project, labelers: list[User]) -> None:
    client = Client()
    client.force_login(join(versus, labelers)[0], backend="django.contrib.auth.backends.ModelBackend")
    page = client.get(reverse("label", args=[versus.slug])).content.decode()
    assert not any(word in page for word in ("second/", "first/", "aligned", "secret-model"))
    firsts = set()
    for _ in range(40):
        handout = hand(versus, labelers[1])
        firsts.add(handout.shown_order[0].partition("/")[0])
        handout.delete()
    assert firsts == {"first", "second"}


def test_the_same_model_twice_is_told_apart_by_version(labelers: list[User]) -> None:
    again = [found.model_copy(update={"model": BASE[0].model, "policy_version": "step 9"}) for found in ALIGNED]
    base = [found.model_copy(update={"model": BASE[0].model}) for found in BASE]
    project = create_project("Twins", PROMPTS, base, Task(mode=Mode.VERSUS), against=again)
    send(hand(project, join(project, labelers)[0]))
    found = quality.shown(project, 60).quality
    assert found is not None
    assert found.versus is not None
    assert (found.versus.first, found.versus.second) == ("secret-model-1", "secret-model-1 step 9")


@pytest.mark.parametrize(
    ("versions", "names"),
    [
        (("step 1", "step 9"), ("m step 1", "m step 9")),
        (("m", "base"), ("m", "m base")),  # as `heedful sample` and `heedful run` call the same model
        (("base", "base"), ("m first", "m second")),
        ((None, None), ("m first", "m second")),
    ],
)
def test_names_of_sides_differ(versions: tuple[str | None, str | None], names: tuple[str, str]) -> None:
    sides = zip((FIRST, SECOND), versions, strict=True)
    told = names_of_sides([{"side": side, "model": "m", "policy_version": version} for side, version in sides])
    assert told == dict(zip((FIRST, SECOND), names, strict=True))


@pytest.mark.parametrize(
    ("task", "against", "told"),
    [
        (Task(mode=Mode.VERSUS), None, "second file of completions"),
        (Task(), ALIGNED, "second file of completions"),
        (Task(mode="stars"), None, "there are rank, thumbs, versus"),
        (Task(mode=Mode.VERSUS), BASE, "nothing to judge"),
        (Task(mode=Mode.VERSUS), [], "nothing to judge"),
    ],
)
def test_files_that_do_not_fit_the_mode(db: None, task: Task, against: list[Completion] | None, told: str) -> None:
    with pytest.raises(DataError, match=told):
        create_project("p", PROMPTS, BASE if task.mode == Mode.VERSUS else COMPLETIONS, task, against=against)


def test_reasons_are_stored_and_unknown_ones_are_not(project: Project, labelers: list[User]) -> None:
    handout = hand(project, labelers[0])
    given = judging.Sent(**vars(sent(handout)) | {"reasons": ("tone", "correctness", "<b>")})
    assert judging.submit(project, labelers[0], given)[0].reasons == ["correctness", "tone"]
    (record,) = files.judgements_of(project)
    assert record.model_extra is not None
    assert record.model_extra["reasons"] == ["correctness", "tone"]


def test_by_command(tmp_path: Path) -> None:
    for name, rows in (("prompts", PROMPTS), ("base", BASE), ("aligned", ALIGNED)):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)

    def run(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(verb, tmp_path / "labels", *words), capture_output=True, text=True, check=False)

    files_ = ("--prompts", str(tmp_path / "prompts.jsonl"), "--completions", str(tmp_path / "base.jsonl"))
    other = ("--mode", "versus", "--against", str(tmp_path / "aligned.jsonl"))
    made = run("import", "--project", "wins", *files_, *other, "--json")
    assert json.loads(made.stdout) == {"project": "wins", "sets": 3, "gold_sets": 0, "identical": 1}, made.stderr
    told = run("import", "--project", "more", *files_, "--mode", "stars").stderr
    assert "mode 'stars': there are rank, thumbs, versus" in told
    told = run("quality", "--project", "wins").stderr
    assert "has no judgements yet" in told
