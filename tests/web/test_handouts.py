"""Which sets come when: what tells most, by lot, gold, seen before; and how many labelers a set gets."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from labelled_project import COMPLETIONS, PROMPTS, SAMPLING
from labelling import fields, label_all, send, sent, set_overlap

from heedful.errors import DataError
from heedful.records import Completion, Message, Prompt
from heedful.records import Judgement as Record
from heedful.web.labelling import assignment, files, judging, overlap, people, quality
from heedful.web.labelling.files import Task, create_project
from heedful.web.labelling.models import Arm, CompletionSet, Handout, Judgement, Project, User
from heedful.web.labelling.shared_text import groups


def best_first(handout: Handout) -> list[list[int]]:
    """The order of the file, whatever was shown: all who send this agree."""
    shown = groups(handout.set.completions, handout.shown_order)
    order = [completion["id"] for completion in handout.set.completions]
    return [[number] for number in sorted(range(len(shown)), key=lambda n: min(order.index(id_) for id_ in shown[n]))]


def agree(handout: Handout) -> Judgement:
    return send(handout, tiers=best_first(handout))


def differ(handout: Handout) -> Judgement:
    return send(handout, tiers=best_first(handout)[::-1])


def hand(project: Project, labeler: User) -> Handout:
    found = assignment.next_handout(project, labeler)
    assert found is not None
    return found


def many(num_sets: int, name: str = "Many", **settings: int | bool) -> Project:
    prompts = [Prompt(id=f"p{i}", messages=(Message(role="user", content=f"{i}?"),)) for i in range(num_sets)]
    answers = [
        Completion(id=f"p{i}/{n}", prompt_id=f"p{i}", text=f"{n} of {i}", model="m", finish="stop", sampling=SAMPLING)
        for i in range(num_sets)
        for n in range(3)
    ]
    project = create_project(name, prompts, answers, Task())
    set_overlap(project, 3, gold_percent=0, **settings)
    return project


def join(project: Project, labelers: list[User]) -> None:
    project.members.add(*labelers)
    project.instructions.get().readers.add(*labelers)


def test_a_set_that_two_agree_on_is_done_and_a_disputed_one_gets_more(project: Project, labelers: list[User]) -> None:
    set_overlap(project, 4, adaptive=True, random_percent=0)
    clear, disputed = project.sets.get(prompt_id="odd"), project.sets.get(prompt_id="knock")
    project.sets.exclude(pk__in=(clear.pk, disputed.pk)).delete()
    assert {found.wanted for found in project.sets.all()} == {2}
    for number, labeler in enumerate(labelers[:2]):
        for _ in range(2):
            handout = hand(project, labeler)
            (differ if number and handout.set == disputed else agree)(handout)
    for found in (clear, disputed):
        found.refresh_from_db()
    assert (clear.wanted, disputed.wanted) == (2, 3)
    assert disputed.information > clear.information
    assert send(hand(project, labelers[2]), tiers=[[0, 1, 2]]).set == disputed
    assert assignment.next_handout(project, labelers[2]) is None
    assert agree(hand(project, labelers[3])).set == disputed
    assert assignment.next_handout(project, labelers[4]) is None
    disputed.refresh_from_db()
    assert (disputed.judgements.count(), clear.judgements.count()) == (4, 2), "the cap, and no more"
    standing = assignment.standing(project)
    assert (standing.judgements, standing.wanted, standing.finished_sets) == (6, 6, 2)


def test_without_adapting_everything_gets_the_overlap(project: Project, labelers: list[User]) -> None:
    for labeler in labelers[:2]:
        while (handout := assignment.next_handout(project, labeler)) is not None:
            agree(handout)
    assert {found.wanted for found in project.sets.all()} == {3}


def test_what_tells_most_comes_first(labelers: list[User]) -> None:
    """A set that one labeler judged tells less than an untouched one, a disputed one more than one that two agree on."""
    project = many(3, random_percent=0, repeat_percent=0)
    join(project, labelers)
    first = agree(hand(project, labelers[0])).set
    for labeler in labelers[1:3]:
        assert hand(project, labeler).set != first
    Handout.objects.all().delete()
    for set_ in project.sets.all():
        for number, labeler in enumerate(labelers[:2]):
            if not Judgement.objects.filter(set=set_, labeler=labeler).exists():
                handout = Handout.objects.create(**handed(set_, labeler))
                (differ if number and set_ == first else agree)(handout)
    assert hand(project, labelers[2]).set == first


def handed(set_: CompletionSet, labeler: User) -> dict[str, object]:
    order = [completion["id"] for completion in set_.completions]
    now = timezone.now()
    later = now + timedelta(minutes=5)
    return {"set": set_, "labeler": labeler, "shown_order": order, "nonce": "n", "begun_at": now, "expires_at": later}


def test_a_share_comes_by_lot_and_says_so(labelers: list[User]) -> None:
    """Of 100 hand-outs at 30 percent between 12 and 50 but for a chance of 1e-4; the records tell which."""
    project = many(100, random_percent=30, repeat_percent=0)
    join(project, labelers[:1])
    label_all(project, labelers[0])
    arms = Counter(record.model_extra["arm"] for record in files.judgements_of(project) if record.model_extra)
    assert set(arms) == {Arm.RANDOM, Arm.INFORMATION}
    assert 12 <= arms[Arm.RANDOM] <= 50
    none = many(20, "None", random_percent=0, repeat_percent=0)
    join(none, labelers[:1])
    label_all(none, labelers[0])
    assert set(Judgement.objects.filter(set__project=none).values_list("arm", flat=True)) == {Arm.INFORMATION}


def gold(prompt_id: str, ranks: dict[str, int]) -> Record:
    return Record(
        id=f"gold-{prompt_id}",
        prompt_id=prompt_id,
        labeler="gold",
        source="human",
        criterion="helpfulness",
        ranks=ranks,
        created_at="2026-01-01T00:00:00Z",
    )


KNOWN = gold("knock", {"knock/1": 1, "knock/2": 2, "knock/3": 2})


def test_gold_sets_go_to_everybody_and_are_answered(labelers: list[User], admin: User) -> None:
    project = create_project("Known", PROMPTS, COMPLETIONS, Task(overlap=1), gold=[KNOWN])
    set_overlap(project, 1, gold_percent=100, random_percent=0, repeat_percent=0)
    join(project, labelers)
    assert assignment.standing(project).wanted == 3, "gold sets are no work to be done"
    told = []
    for number, labeler in enumerate(labelers[:2]):
        client, page = Client(), reverse("label", args=[project.slug])
        client.force_login(labeler, backend="django.contrib.auth.backends.ModelBackend")
        shown = client.get(page).content.decode()
        assert "gold" not in shown.lower(), "nobody can tell it beforehand"
        handout = labeler.handouts.get()
        assert (handout.set.prompt_id, handout.arm) == ("knock", Arm.GOLD)
        tiers = best_first(handout) if number == 0 else best_first(handout)[::-1]
        told.append(client.post(page, fields(handout, tiers=tiers), follow=True).content.decode())
        Handout.objects.all().delete()
    assert "of 2 pairs you put 2 in the right order" in told[0]
    assert "of 2 pairs you put 0 in the right order" in told[1]
    assert hand(project, labelers[0]).arm == Arm.INFORMATION, "each gold set once"
    found = quality.shown(project, 60).quality
    assert found is not None
    assert found.gold == {"labeler-0": (2, 2), "labeler-1": (0, 2)}
    assert assignment.standing(project).judgements == 0


def test_a_flag_on_gold(labelers: list[User]) -> None:
    project = create_project("Known", PROMPTS, COMPLETIONS, Task(), gold=[KNOWN])
    set_overlap(project, 3, gold_percent=100, random_percent=0, repeat_percent=0)
    join(project, labelers)
    scores = []
    for labeler, flagged in zip(labelers, ("knock/2", "knock/1"), strict=False):
        handout = hand(project, labeler)
        number = handout.shown_order.index(flagged)
        rest = [tier for tier in best_first(handout) if tier != [number]]
        scores.append(judging.gold_score(send(handout, tiers=rest, flagged=[number])))
    assert scores == [(2, 2), (0, 2)]


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ([KNOWN, KNOWN], "twice"),
        ([gold("knock", {"knock/9": 1, "knock/1": 2})], "'knock/9'"),
        ([gold("knock", {"knock/1": 1, "knock/2": 1})], "puts no completion before another"),
        ([gold("elsewhere", {"a": 1, "b": 2})], "no set"),
        ([gold(p.id, {f"{p.id}/1": 1, f"{p.id}/2": 2}) for p in PROMPTS], "every set is gold"),
        ([gold("hot", {"hot/1": 1, "hot/3": 2, "hot/4": 3})], "of the same text different ranks"),
    ],
)
def test_gold_files_that_do_not_do(db: None, ranks: list[Record], told: str) -> None:
    with pytest.raises(DataError, match=told):
        create_project("Known", PROMPTS, COMPLETIONS, Task(), gold=ranks)
    assert not Project.objects.exists()


def test_gold_for_thumbs_is_up_or_down(db: None) -> None:
    with pytest.raises(DataError, match="more than two ranks"):
        create_project(
            "Known", PROMPTS, COMPLETIONS, Task(mode="thumbs"), gold=[gold("knock", {f"knock/{n}": n for n in (1, 2, 3)})]
        )
    made = create_project("Known", PROMPTS, COMPLETIONS, Task(mode="thumbs"), gold=[KNOWN])
    assert made.sets.filter(gold__isnull=False).count() == 1


def test_repeats_are_hidden_and_take_no_place(labelers: list[User]) -> None:
    project = many(30, random_percent=0, repeat_percent=100)
    join(project, labelers[:1])
    for _ in range(assignment.REPEAT_AFTER):
        assert agree(hand(project, labelers[0])).arm == Arm.INFORMATION, "not so soon"
    first = Judgement.objects.order_by("created_at").first()
    assert first is not None
    agree(hand(project, labelers[0]))
    again = hand(project, labelers[0])
    assert (again.set, again.arm) == (first.set, Arm.REPEAT)
    second = differ(again)
    assert second.repeat
    assert Judgement.objects.filter(set=first.set, labeler=labelers[0]).count() == 2
    assert assignment.standing(project).judgements == assignment.REPEAT_AFTER + 1
    own = [record for record in files.judgements_of(project) if record.prompt_id == first.set.prompt_id]
    assert [dict(record.ranks) for record in own] == [first.ranks, second.ranks]
    label_all(project, labelers[0])
    counts = Counter(Judgement.objects.values_list("set", flat=True))
    assert max(counts.values()) == 2, "no set comes a third time"
    assert Judgement.objects.filter(repeat=False).count() == 30


def test_an_answer_sent_again_while_its_repeat_is_open_changes_nothing(labelers: list[User]) -> None:
    project = many(30, random_percent=0, repeat_percent=100)
    join(project, labelers[:1])
    handout = hand(project, labelers[0])
    page = sent(handout)
    first = judging.submit(project, labelers[0], page)[0]
    for _ in range(assignment.REPEAT_AFTER):
        agree(hand(project, labelers[0]))
    assert hand(project, labelers[0]).set == first.set
    assert judging.submit(project, labelers[0], page) == (first, False)
    assert not Judgement.objects.filter(repeat=True).exists()


def test_a_page_that_is_too_old_does_not_tell_a_repeat(labelers: list[User]) -> None:
    """It is refused in the words that it would be refused in the first time."""
    project = many(30, random_percent=0, repeat_percent=100)
    join(project, labelers[:1])
    for _ in range(assignment.REPEAT_AFTER + 1):
        agree(hand(project, labelers[0]))
    old = hand(project, labelers[0])
    assert old.arm == Arm.REPEAT
    stale = sent(old)
    Handout.objects.filter(pk=old.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    new = hand(project, labelers[0])
    assert (new.set, new.nonce != old.nonce) == (old.set, True)
    with pytest.raises(judging.RefusedError, match="another order"):
        judging.submit(project, labelers[0], stale)
    assignment.skip(new)
    with pytest.raises(judging.RefusedError, match="not in your hands"):
        judging.submit(project, labelers[0], sent(new))


def test_more_sets_than_fit_a_query_are_brought_up_to_date(labelers: list[User], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "AT_ONCE", 4)
    project = many(10, random_percent=0)
    join(project, labelers)
    label_all(project, labelers[0])
    expected = sorted(project.sets.values_list("pk", "wanted", "num_judged", "information"))
    assert {row[2] for row in expected} == {1}
    project.sets.update(wanted=9, num_judged=9, information=9)
    overlap.refresh(project)
    assert sorted(project.sets.values_list("pk", "wanted", "num_judged", "information")) == expected
    project.sets.update(wanted=9, num_judged=9, information=9)
    overlap.refresh(project, project.sets.all())
    assert sorted(project.sets.values_list("pk", "wanted", "num_judged", "information")) == expected


def test_leaving_out_and_deleting_bring_the_sets_up_to_date(project: Project, labelers: list[User], admin: User) -> None:
    set_overlap(project, 4, adaptive=True, random_percent=0)
    for labeler in labelers[:2]:
        while (handout := assignment.next_handout(project, labeler)) is not None:
            agree(handout)
    before = {found.pk: found.information for found in project.sets.all()}
    assert {found.wanted for found in project.sets.all()} == {2}
    people.count_in(project, labelers[0], admin, counted=False)
    assert all(found.information > before[found.pk] for found in project.sets.all())
    assert assignment.next_handout(project, labelers[2]) is not None
    Handout.objects.all().delete()
    people.count_in(project, labelers[0], admin, counted=True)
    assert {found.pk: found.information for found in project.sets.all()} == pytest.approx(before)
    people.delete(labelers[0], admin)
    assert all(found.information > before[found.pk] for found in project.sets.all())


def test_settings_are_a_form(project: Project, labelers: list[User], admin: User) -> None:
    boss = Client()
    boss.force_login(admin, backend="django.contrib.auth.backends.ModelBackend")
    address = reverse("handouts", args=[project.slug])
    given = {"overlap": 5, "lease_minutes": 10, "random_percent": 0, "gold_percent": 0, "repeat_percent": 0}
    assert boss.post(address, given).status_code == 302
    project.refresh_from_db()
    assert (project.overlap, project.lease_minutes, project.adaptive) == (5, 10, False)
    assert {found.wanted for found in project.sets.all()} == {5}
    shown = boss.post(address, given | {"random_percent": 90, "gold_percent": 20}).content.decode()
    assert "add up to 110 percent" in shown
    listed = boss.get(reverse("project", args=[project.slug])).content.decode()
    assert "set overlap 5, lease minutes 10" in listed


def test_wanted_by_hand(project: Project) -> None:
    project.adaptive, project.overlap = True, 4
    cases = {
        (0, False): 2,
        (1, False): 2,
        (1, True): 2,
        (2, True): 2,
        (2, False): 3,
        (3, True): 3,
        (3, False): 4,
        (4, False): 4,
    }
    assert {case: overlap.wanted(project, *case) for case in cases} == cases
    project.overlap = 1
    assert overlap.wanted(project, 0, False) == 1
