"""What people say of answers, as records: files, merging, and what the terminal's chat keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from said_of_answers import one_answer

from heedful.errors import DataError
from heedful.flows.update import marks_of
from heedful.hearing import Hearing
from heedful.models.policy import load_base
from heedful.opinions import (
    Opinions,
    add_opinions,
    corrected,
    merged,
    named_in,
    paired,
    preferences_of,
    read_opinions,
    require_whole,
    tally,
    voted,
    without,
    write_opinions,
)
from heedful.records import Completion, Judgement, Message, Prompt, Sampling, read_jsonl
from heedful.store import write_json

SAMPLING = Sampling(temperature=1.0, top_p=1.0, seed=0, max_new_tokens=20)
PROMPT = Prompt(id="p", messages=(Message(role="user", content="Knock, knock."),))
FIRST, SECOND = (
    Completion(id=f"p/{n}", prompt_id="p", text=text, model="m", finish="stop", sampling=SAMPLING)
    for n, text in ((1, "Clap, clap."), (2, "Who's there?"))
)


def test_a_correction_is_ranked_above_what_it_corrects() -> None:
    own, judgement = corrected(FIRST, "Who's there?", "ada", "2026-01-01")
    assert (own.model, own.finish, own.text) == ("person", "stop", "Who's there?")
    assert judgement.ranks == {own.id: 1, FIRST.id: 2}
    assert judgement.source == "human"
    (pair,) = preferences_of(Opinions([PROMPT], [FIRST, own], [], [judgement]))
    assert (pair.chosen, pair.rejected, pair.prompt) == ("Who's there?", "Clap, clap.", PROMPT.messages)
    assert corrected(FIRST, "Come in.", "ada", "2026-01-01")[0].id != own.id


def test_the_latest_thumb_of_a_person_counts() -> None:
    votes = [voted(FIRST, "ada", 1, "2026-01-01"), voted(FIRST, "ada", 0, "2026-01-02"), voted(SECOND, "ada", 1, "2026-01-01")]
    found = merged([Opinions([PROMPT], [FIRST, SECOND], votes, [])] * 2)
    assert [(vote.completion_id, vote.value) for vote in found.votes] == [("p/1", 0), ("p/2", 1)]
    (pair,) = preferences_of(found)
    assert (pair.chosen_id, pair.rejected_id) == ("p/2", "p/1")


def test_only_what_is_new_is_left() -> None:
    old = Opinions([PROMPT], [FIRST], [voted(FIRST, "ada", 1, "2026-01-01")], [])
    own, judgement = corrected(SECOND, "Who is there?", "ada", "2026-01-03")
    said = merged([old, Opinions([PROMPT], [SECOND, own], [voted(FIRST, "ada", 0, "2026-01-02")], [judgement])])
    new = without(said, old)
    assert [vote.value for vote in new.votes] == [0], "a changed mind is new"
    assert new.judgements == [judgement]
    assert {completion.id for completion in new.completions} == {FIRST.id, SECOND.id, own.id}
    assert without(said, said) == Opinions([], [], [], [])


def test_the_latest_correction_of_a_person_counts() -> None:
    """As the web's chat exports them, and also when an earlier one was learned from."""
    own, first = corrected(FIRST, "Come in.", "ada", "2026-01-01")
    other, second = corrected(FIRST, "Who's there?", "ada", "2026-01-02")
    bobs, his = corrected(FIRST, "Not today.", "bob", "2026-01-01")
    earlier = Opinions([PROMPT], [FIRST, own, bobs], [], [first, his])
    found = merged([earlier, Opinions([PROMPT], [FIRST, other], [], [second])])
    assert found.judgements == [second, his]
    assert merged([found, earlier]).judgements == [second, his], "a stale copy changes nothing"
    assert without(found, earlier).judgements == [second]
    assert tally(found) == {other.id: 1, FIRST.id: -2, bobs.id: 1}


def test_who_goes_back_to_an_earlier_opinion_is_heard(tmp_path: Path) -> None:
    """A, then B, then A again, as fast as a script says it: A counts, and whether it is new depends on what was learned."""
    heard = Hearing(tmp_path, one_answer(), seed=0, who="ada")
    learned = []
    for said in ("Good day.", "Good evening.", "Good day."):
        heard.take(f"/fix {said}")
        learned.append(merged([read_opinions(tmp_path / "feedback")]))
    ids = [one.id for one in read_jsonl(tmp_path / "feedback" / "judgements.jsonl", Judgement, unique="id")]
    assert len(ids) == 3, "nothing that was said is lost, and each has an id of its own"
    first, second, third = learned
    assert [preferences_of(one)[0].chosen for one in learned] == ["Good day.", "Good evening.", "Good day."]
    assert len(preferences_of(third)) == 1
    assert without(third, second).judgements == third.judgements, "a version that learned B has not learned A"
    assert without(third, first).judgements == [], "one that learned A has"
    for word in ("/up", "/down", "/up"):
        heard.take(word)
    found = merged([read_opinions(tmp_path / "feedback")])
    assert [vote.value for vote in found.votes] == [1]
    answer = found.votes[0].completion_id
    assert tally(found)[answer] == 1, "the thumb came after the correction, in the same second"


def test_corrections_that_were_learned_under_an_older_form_of_id_are_known() -> None:
    own, judgement = corrected(FIRST, "Come in.", "ada", "2026-01-01")
    older = judgement.model_copy(update={"id": f"{own.id}/judgement"})
    assert older.id != judgement.id
    assert without(Opinions([PROMPT], [FIRST, own], [], [judgement]), Opinions([], [], [], [older])).judgements == []


def test_a_correction_takes_the_place_of_the_persons_own_thumb() -> None:
    own, judgement = corrected(FIRST, "Who's there?", "ada", "2026-01-02")
    before, after, bobs = (
        voted(FIRST, who, 1, at) for who, at in (("ada", "2026-01-01"), ("ada", "2026-01-03"), ("bob", "2026-01-01"))
    )
    assert tally(Opinions([PROMPT], [FIRST, own], [before], [judgement])) == {FIRST.id: -1, own.id: 1}
    assert tally(Opinions([PROMPT], [FIRST, own], [before, bobs], [judgement])) == {FIRST.id: 0, own.id: 1}
    assert tally(Opinions([PROMPT], [FIRST, own], [after], [judgement])) == {FIRST.id: 1, own.id: 1}


def test_marks_are_by_majority_of_all_and_a_changed_mind_is_in_no_replay(tiny: Path) -> None:
    model = load_base(str(tiny), dtype=torch.float32, device=torch.device("cpu"))
    people = ("ada", "bob", "eve")
    others = [Completion.model_validate(SECOND.model_dump() | {"id": f"p/{n}", "text": f"Answer {n}."}) for n in (3, 4)]
    answers = [FIRST, SECOND, *others]
    learned = [voted(answer, who, 1, "2026-01-01") for answer in (SECOND, others[0]) for who in people]
    old = Opinions([PROMPT], answers, [voted(FIRST, "ada", 1, "2026-01-01"), *learned], [])
    now = [
        voted(FIRST, "ada", 0, "2026-01-02"),
        voted(SECOND, "max", 0, "2026-01-02"),
        voted(others[1], "ada", 0, "2026-01-02"),
    ]
    said = merged([old, Opinions([PROMPT], answers, now, [])])
    new = without(said, old)
    marks, replay = marks_of(model, said, named_in(new.votes, new.judgements))
    assert {one.answer.text: one.desirable for one in marks} == {FIRST.text: False, SECOND.text: True, others[1].text: False}
    assert {one.answer.text: one.desirable for one in replay} == {others[0].text: True}


def test_votes_that_make_no_pair_stay_new() -> None:
    """Each answer of a chat has a prompt of its own, so only corrections make pairs there."""
    prompts = [Prompt(id=f"q{n}", messages=PROMPT.messages) for n in range(3)]
    answers = [Completion.model_validate(FIRST.model_dump() | {"id": f"q{n}/1", "prompt_id": f"q{n}"}) for n in range(3)]
    own, judgement = corrected(answers[0], "Who's there?", "ada", "2026-01-01")
    same, useless = corrected(answers[1], answers[1].text, "ada", "2026-01-01")
    votes = [voted(answer, "ada", n % 2, "2026-01-01") for n, answer in enumerate(answers)]
    new = Opinions(prompts, [*answers, own, same], votes, [judgement, useless])
    used = paired(new, preferences_of(new))
    assert used == Opinions(prompts[:1], [answers[0], own], votes[:1], [judgement])
    assert without(new, used).votes == votes[1:]


def test_files_are_added_to_and_read_back(tmp_path: Path) -> None:
    vote = voted(FIRST, "ada", 1, "2026-01-01")
    add_opinions(tmp_path, Opinions([PROMPT], [FIRST], [vote], []))
    add_opinions(tmp_path, Opinions([PROMPT], [FIRST, SECOND], [voted(SECOND, "ada", 0, "2026-01-01")], []))
    found = read_opinions(tmp_path)
    assert ([one.id for one in found.prompts], [one.id for one in found.completions]) == (["p"], ["p/1", "p/2"])
    assert [one.value for one in found.votes] == [1, 0]
    write_opinions(tmp_path / "other", found)
    assert read_opinions(tmp_path / "other") == found
    with pytest.raises(DataError, match="holds no feedback"):
        read_opinions(tmp_path / "absent")


@pytest.mark.parametrize(
    ("opinions", "message"),
    [
        (Opinions([PROMPT], [], [voted(FIRST, "ada", 1, "t")], []), "a vote of 'ada' names completion 'p/1'"),
        (Opinions([], [FIRST], [voted(FIRST, "ada", 1, "t")], []), "answers prompt 'p', which is not in prompts.jsonl"),
        (Opinions([PROMPT], [FIRST], [], [corrected(FIRST, "x", "ada", "t")[1]]), "judgement 'p/correction-ada"),
    ],
)
def test_what_names_nothing_is_refused(opinions: Opinions, message: str) -> None:
    with pytest.raises(DataError, match=message):
        require_whole(opinions, "chat")


def test_the_terminals_chat_keeps_thumbs_and_corrections(tiny: Path, tmp_path: Path) -> None:
    """A plain model stands for the run's policy; the folder is what counts."""
    from heedful.engine.conversation import Conversation

    run = tmp_path / "run"
    write_json(run / "ppo/policy/heedful.json", {"base": str(tiny), "policy_version": "ppo-0-9"})
    talk = Conversation(str(tiny), max_new_tokens=6, seed=1, temperature=1.0)
    heard = Hearing(run, talk, seed=1, who="ada")
    assert not heard.is_opinion("/upset")
    assert heard.take("/up") == "Nothing was answered yet."
    (said,) = talk.answer("Hello").values()
    assert heard.take("/fix ") == "Say after /fix what the answer should have been."
    assert heard.take("/down") == "Kept: thumbs down."
    assert heard.take("/fix  Good day to you. ") == "Kept, above the answer that it corrects."
    found = read_opinions(run / "feedback")
    (prompt,) = found.prompts
    assert [message.content for message in prompt.messages] == ["Hello"]
    assert [one.text for one in found.completions] == [said, "Good day to you."]
    assert found.completions[0].policy_version == "ppo-0-9"
    assert found.completions[0].finish == ("stop" if talk.last[str(tiny)].finished else "length")
    assert [(vote.value, vote.labeler) for vote in found.votes] == [(0, "ada")]
    assert found.judgements[0].ranks[found.completions[0].id] == 2


@pytest.mark.parametrize(
    ("said", "votes", "written"),
    [
        ("/fix\u00a0The answer is 4.", [], ["The answer is 4."]),
        ("/fix\tgood answer", [], ["good answer"]),
        ("/fix\u2003 Two lines,\tone tab", [], ["Two lines,\tone tab"]),
        ("/up\tgreat", [1], []),
        (" /up\u00a0", [1], []),
        ("/down\tno", [0], []),
    ],
)
def test_any_white_space_ends_the_word(said: str, votes: list[int], written: list[str], tmp_path: Path) -> None:
    """What is pasted has tabs and no-break spaces; a correction, or praise, must not be kept as a thumb down."""
    heard = Hearing(tmp_path, one_answer(), seed=0, who="ada")
    assert heard.is_opinion(said)
    heard.take(said)
    found = read_opinions(tmp_path / "feedback")
    assert [vote.value for vote in found.votes] == votes
    assert [one.text for one in found.completions[1:]] == written
