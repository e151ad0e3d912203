"""Who is given which set: overlap, leases, nothing twice."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from labelling import label_all, send, sent, set_overlap

from heedful.web.labelling import assignment, judging
from heedful.web.labelling.models import Handout, Judgement, Project, User


def test_each_set_gets_its_overlap_and_no_labeler_a_set_twice(project: Project, labelers: list[User]) -> None:
    ranked = [label_all(project, labeler) for labeler in labelers]
    assert [len(own) for own in ranked] == [4, 4, 4, 0, 0]
    assert all(len(set(own)) == len(own) for own in ranked)
    assert {found.judgements.count() for found in project.sets.all()} == {3}
    standing = assignment.standing(project)
    assert (standing.judgements, standing.wanted, standing.finished_sets, standing.sets) == (12, 12, 4, 4)


def test_sets_in_hands_count_until_they_expire(project: Project, labelers: list[User]) -> None:
    set_overlap(project, 1)
    held = [assignment.next_handout(project, labeler) for labeler in labelers]
    assert held[4] is None
    assert len({handout.set.pk for handout in held[:4] if handout}) == 4
    assert held[0] is not None
    Handout.objects.filter(pk=held[0].pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    again = assignment.next_handout(project, labelers[4])
    assert again is not None
    assert again.set == held[0].set


def test_whoever_comes_back_finds_the_same_set_in_the_same_order(project: Project, labelers: list[User]) -> None:
    first, second = (assignment.next_handout(project, labelers[0]) for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.pk, first.shown_order) == (second.pk, second.shown_order)


def test_of_sets_that_tell_as_much_those_in_hands_come_first(project: Project, labelers: list[User]) -> None:
    Project.objects.filter(pk=project.pk).update(random_percent=0)
    begun = {assignment.next_handout(project, labeler).set.pk for labeler in labelers[:3]}  # type: ignore[union-attr]
    assert len(begun) == 1


def test_a_skipped_set_does_not_come_back_and_is_free_for_others(project: Project, labelers: list[User]) -> None:
    set_overlap(project, 1)
    first = assignment.next_handout(project, labelers[0])
    assert first is not None
    assignment.skip(first)
    assert first.set.prompt_id not in label_all(project, labelers[0])
    assert label_all(project, labelers[1]) == [first.set.prompt_id]


def test_the_order_is_blind(project: Project, labelers: list[User]) -> None:
    """By lot: of 60 hand-outs of four completions at least 12 of the 24 orders are seen but for a chance of 1e-12."""
    odd = project.sets.get(prompt_id="odd")
    ids = [completion["id"] for completion in odd.completions]
    project.sets.exclude(pk=odd.pk).delete()
    drawn = []
    for _ in range(60):
        handout = assignment.next_handout(project, labelers[0])
        assert handout is not None
        drawn.append(tuple(handout.shown_order))
        handout.delete()
    assert len(set(drawn)) >= 12
    assert all(sorted(order) == ids for order in drawn)


def test_a_paused_project_hands_nothing_out(project: Project, labelers: list[User]) -> None:
    Project.objects.filter(pk=project.pk).update(paused=True)
    assert assignment.next_handout(project, labelers[0]) is None


def test_an_answer_counts_once(project: Project, labelers: list[User]) -> None:
    handout = assignment.next_handout(project, labelers[0])
    assert handout is not None
    given = sent(handout)
    first, stored = judging.submit(project, labelers[0], given)
    again, stored_again = judging.submit(project, labelers[0], given)
    assert (again.pk, stored, stored_again) == (first.pk, True, False)
    assert Judgement.objects.count() == 1


def test_a_page_from_before_a_new_hand_out_is_refused(project: Project, labelers: list[User]) -> None:
    """It shows another order: its numbers would be read as those of the present one."""
    old = assignment.next_handout(project, labelers[0])
    assert old is not None
    page = sent(old)
    Handout.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    project.sets.exclude(pk=old.set.pk).delete()
    new = assignment.next_handout(project, labelers[0])
    assert new is not None
    assert (new.pk, new.nonce == old.nonce) == (old.pk, False)
    with pytest.raises(judging.RefusedError, match="another order"):
        judging.submit(project, labelers[0], page)
    assert not Judgement.objects.exists()
    assert send(new).shown_order == new.shown_order


def test_what_was_begun_counts_while_the_project_is_paused(project: Project, labelers: list[User]) -> None:
    handout = assignment.next_handout(project, labelers[0])
    assert handout is not None
    Project.objects.filter(pk=project.pk).update(paused=True)
    assert send(handout).pk


def test_a_late_answer_counts_while_its_place_is_free(project: Project, labelers: list[User]) -> None:
    set_overlap(project, 1)
    late = assignment.next_handout(project, labelers[0])
    assert late is not None
    Handout.objects.filter(pk=late.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert send(late).set == late.set
    lost = assignment.next_handout(project, labelers[1])
    assert lost is not None
    Handout.objects.filter(pk=lost.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    taker = assignment.next_handout(project, labelers[2])
    while taker is not None and taker.set != lost.set:
        send(taker)
        taker = assignment.next_handout(project, labelers[2])
    assert taker is not None
    send(taker)
    with pytest.raises(judging.RefusedError, match="somebody else"):
        send(lost)
    assert Judgement.objects.filter(set=lost.set).count() == 1
