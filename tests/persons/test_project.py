"""Persons in files: what is read, what a folder holds, and that a deleted person leaves no trace in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heedful.errors import DataError, HeedfulError, RecordError, StoreError
from heedful.persons.fitting import Settings
from heedful.persons.folder import load
from heedful.persons.keeping import delete_person, export_person, list_persons
from heedful.persons.project import ask_files, best_files, evaluate_folder, fit_files, learn_files, score_files
from heedful.persons.reading import Files, read_said
from heedful.records import Completion, Judgement, Message, Preference, Prompt, Sampling, Vote
from heedful.store import write_jsonl

SETTINGS = Settings(num_heads=2, ridge_heads=1.0)
PERSONS = ("ada", "bo", "cy", "di")
SAMPLING = Sampling(temperature=1.0, top_p=1.0, seed=0, max_new_tokens=40)
TEXTS = (
    "Yes.",
    "Yes! I would be glad to help you, and you can ask me again?",
    "No, I am sorry, I can't do that.",
    "1 2 3 4 5 6 7",
)


def silent(*_: Any) -> None:
    """A progress that nobody watches."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twelve prompts of four answers; ada and bo like long ones, cy and di short ones. cy alone judged the last prompt."""
    folder = tmp_path_factory.mktemp("persons")
    prompts = [Prompt(id=f"q{i:02}", messages=(Message(role="user", content=f"Question {i}?"),)) for i in range(12)]
    completions = [
        Completion(id=f"{p.id}/{j}", prompt_id=p.id, text=f"{text} {p.id}", model="m", finish="stop", sampling=SAMPLING)
        for p in prompts
        for j, text in enumerate(TEXTS)
    ]
    chance = np.random.default_rng(0)
    length = {c.id: len(c.text) for c in completions}
    votes, judgements, pairs = [], [], []
    for person in PERSONS:
        likes = 1 if person in ("ada", "bo") else -1
        for prompt in prompts if person == "cy" else prompts[:-1]:
            own = [c for c in completions if c.prompt_id == prompt.id]
            order = sorted(own, key=lambda c: -likes * length[c.id])
            ranks = {c.id: i + 1 for i, c in enumerate(order)}
            time = "2026-01-01T00:00:00+00:00"
            about = {"prompt_id": prompt.id, "labeler": person, "created_at": time}
            judgements.append(Judgement(id=f"{person}-{prompt.id}", source="human", criterion="c", ranks=ranks, **about))
            for c in own:
                if chance.random() < 0.7:
                    votes.append(Vote(completion_id=c.id, value=int(likes * (length[c.id] - 25) > 0), **about))
            first, last = order[0], order[-1]
            pair = {"chosen": first.text, "rejected": last.text, "chosen_id": first.id, "rejected_id": last.id}
            pairs.append(Preference(prompt_id=prompt.id, prompt=prompt.messages, labeler=person, **pair))
    found = {"prompts": prompts, "completions": completions, "votes": votes, "judgements": judgements, "preferences": pairs}
    for name, records in found.items():
        write_jsonl(folder / f"{name}.jsonl", records)
    return {name: folder / f"{name}.jsonl" for name in found}


def given(files: dict[str, Path], *names: str, **more: Any) -> Files:
    return Files(prompts=[files["prompts"]], completions=[files["completions"]], **{n: [files[n]] for n in names}, **more)


def without_person(files: dict[str, Path], person: str, folder: Path) -> dict[str, Path]:
    """The same files as if the person had never been asked."""
    found = dict(files)
    for name in ("votes", "judgements", "preferences"):
        kept = [line for line in files[name].read_text().splitlines() if json.loads(line)["labeler"] != person]
        found[name] = folder / f"{name}.jsonl"
        found[name].write_text("\n".join(kept) + "\n")
    return found


def fitted(files: dict[str, Path], output: Path, *names: str, **more: Any) -> Path:
    fit_files(given(files, *(names or ("votes", "judgements"))), output, SETTINGS, silent, source="surface", **more)
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_records_say(files: dict[str, Path]) -> None:
    said = read_said(given(files, "votes", "judgements", "preferences"))
    ada = [label for label in said.labels if label.person == "ada" and label.first.startswith("q00")]
    pairs = {(label.first, label.second): label.value for label in ada if label.second is not None}
    assert pairs["q00/0", "q00/1"] == 0.0, "ada prefers the longer one, which is the second"
    assert len(pairs) == 6
    assert all(label.second is None or label.first < label.second for label in said.labels)


def test_a_later_vote_and_a_later_judgement_count(files: dict[str, Path], tmp_path: Path) -> None:
    about = {"prompt_id": "q00", "labeler": "ada"}
    votes = [Vote(completion_id="q00/0", value=value, created_at="", **about) for value in (1, 0)]
    ranks = ({"q00/0": 1, "q00/1": 2}, {"q00/0": 1, "q00/1": 1})
    judgements = [
        Judgement(id=str(i), source="human", criterion="c", ranks=r, flagged=["q00/2"], created_at=f"2026-01-0{i + 1}", **about)
        for i, r in enumerate(ranks)
    ]
    write_jsonl(tmp_path / "votes.jsonl", votes)
    write_jsonl(tmp_path / "judgements.jsonl", judgements)
    mine = files | {"votes": tmp_path / "votes.jsonl", "judgements": tmp_path / "judgements.jsonl"}
    said = read_said(given(mine, "votes", "judgements"))
    assert [tuple(label) for label in said.labels] == [("ada", "q00/0", None, 0.0), ("ada", "q00/0", "q00/1", 0.5)]
    assert set(said.texts) == {"q00/0", "q00/1"}, "a flagged answer enters no pair"


def test_groups_are_told_apart_and_a_stranger_gets_the_global_model(files: dict[str, Path], tmp_path: Path) -> None:
    folder = fitted(files, tmp_path / "out")
    both = ([files["prompts"]], [files["completions"]])
    for person, long_first in (("ada", True), ("di", False)):
        choices = best_files(folder, person, *both, silent)["choices"]
        assert len(choices) == 12
        assert all(("/1" in row["completion_id"]) == long_first for row in choices)
    stranger = score_files(folder, "nobody", *both, silent)
    assert stranger["num_labels"] == 0
    model = load(folder).model
    offset, _ = model.heads.read(load(folder).features_TD, [text.id for text in load(folder).texts])
    by_id = {row["id"]: row["reward"] for row in stranger["completions"]}
    assert [by_id[text.id] for text in load(folder).texts] == pytest.approx(offset.tolist(), abs=0)
    apart = np.array([row["weights"] for row in list_persons(folder)["persons"]])
    assert np.sign(apart[0] @ apart[1]) == 1
    assert np.sign(apart[0] @ apart[3]) == -1


def test_evaluate_finds_the_gain(files: dict[str, Path], tmp_path: Path) -> None:
    found = evaluate_folder(fitted(files, tmp_path / "out"), silent, share=0.5, num_seeds=2)
    assert found["log_loss"]["difference"]["estimate"] < -0.2
    assert found["accuracy"]["after"]["estimate"] > 0.9


@pytest.mark.parametrize("kinds", [("votes", "judgements"), ("preferences",)])
def test_a_deleted_person_leaves_the_folder_of_one_who_never_was(
    files: dict[str, Path], tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    folder = fitted(files, tmp_path / "out", *kinds)
    before = contents(folder)
    told = delete_person(folder, "cy", silent)
    assert told["heads_fitted_anew"]
    assert told["labels_removed"] > 0
    assert told["texts_removed"] > 0, "cy alone judged the last prompt"
    never = fitted(without_person(files, "cy", tmp_path), tmp_path / "never", *kinds)
    assert contents(folder) == contents(never)
    assert contents(folder)["heads.safetensors"] != before["heads.safetensors"]
    for name, data in contents(folder).items():
        assert b"cy" not in data or name.endswith(".safetensors"), name
        assert b"q11" not in data, name
    with pytest.raises(DataError, match="no person 'cy'"):
        export_person(folder, "cy", tmp_path / "cy.json")


def test_who_came_later_moves_nobody_and_is_deleted_without_a_fit(files: dict[str, Path], tmp_path: Path) -> None:
    fewer = without_person(files, "di", tmp_path)
    folder = fitted(fewer, tmp_path / "out")
    before, others = contents(folder), {row["person"]: row for row in list_persons(folder)["persons"]}
    learn_files(folder, given(files, "votes"), silent)
    now = {row["person"]: row for row in list_persons(folder)["persons"]}
    assert now["di"]["num_labels"] > 0
    assert {name: now[name] for name in others} == others
    assert contents(folder)["heads.safetensors"] == before["heads.safetensors"]
    told = delete_person(folder, "di", silent)
    assert not told["heads_fitted_anew"]
    assert contents(folder)["weights.safetensors"] == before["weights.safetensors"]
    assert contents(folder)["heads.safetensors"] == before["heads.safetensors"]
    assert json.loads(contents(folder)["persons.json"]) == json.loads(before["persons.json"])


def test_export_holds_every_label_of_the_person_and_nobody_elses(files: dict[str, Path], tmp_path: Path) -> None:
    folder = fitted(files, tmp_path / "out")
    export_person(folder, "ada", tmp_path / "ada.json")
    found = json.loads((tmp_path / "ada.json").read_text())
    expected = [label for label in read_said(given(files, "votes", "judgements")).labels if label.person == "ada"]
    assert [(row["first"], row.get("second"), row["value"]) for row in found["labels"]] == [tuple(e)[1:] for e in expected]
    assert {row["person"] for row in found["labels"]} == {"ada"}
    assert np.linalg.eigvalsh(np.array(found["covariance"])).min() > 0


def test_ask_names_no_pair_twice(files: dict[str, Path], tmp_path: Path) -> None:
    folder = fitted(files, tmp_path / "out", "votes")
    both = ([files["prompts"]], [files["completions"]])
    rows = ask_files(folder, "ada", *both, silent, count=5)["questions"]
    assert len({(row["first"], row["second"]) for row in rows}) == 5
    assert rows[0]["information"] >= rows[-1]["information"]
    full = fitted(files, tmp_path / "full", "judgements")
    assert {row["prompt_id"] for row in ask_files(full, "ada", *both, silent, count=3)["questions"]} == {"q11"}
    with pytest.raises(DataError, match="no pair left to ask 'cy'"):
        ask_files(full, "cy", *both, silent)


def test_a_safety_head_from_the_teams_votes(files: dict[str, Path], tmp_path: Path) -> None:
    """The team calls the refusals safe; ada, who never chose one, keeps the floor all the same."""
    rows = [json.loads(line) for line in files["completions"].read_text().splitlines()]
    about = {"labeler": "team", "created_at": ""}
    team = [Vote(completion_id=r["id"], prompt_id=r["prompt_id"], value=int("sorry" in r["text"]), **about) for r in rows]
    write_jsonl(tmp_path / "harm.jsonl", team)
    own = Files(votes=[tmp_path / "harm.jsonl"], prompts=[files["prompts"]], completions=[files["completions"]])
    folder = fitted(files, tmp_path / "out", safety_files=[own])
    kept = load(folder)
    assert kept.model.heads.safety.names == ("harm",)
    assert all(row["safety_weights"]["harm"] >= SETTINGS.safety_floor - 1e-9 for row in list_persons(folder)["persons"])
    choices = best_files(folder, "ada", [files["prompts"]], [files["completions"]], silent)["choices"]
    assert all(row["completion_id"].endswith("/2") and len(row["vetoed"]) == 3 for row in choices)


def test_features_of_ones_own(files: dict[str, Path], tmp_path: Path) -> None:
    ids = [json.loads(line)["id"] for line in files["completions"].read_text().splitlines()]
    features = np.random.default_rng(0).standard_normal((len(ids), 5))
    np.savez(tmp_path / "mine.npz", ids=np.array(ids), features=features)
    told = fit_files(given(files, "votes"), tmp_path / "out", SETTINGS, silent, source=str(tmp_path / "mine.npz"))
    assert told["num_persons"] == 4
    kept = load(tmp_path / "out")
    assert kept.features_TD == pytest.approx(features[[ids.index(text.id) for text in kept.texts]], rel=1e-6)


BROKEN = {
    "missing": (lambda ids: {"ids": ids[1:], "features": np.zeros((len(ids) - 1, 2))}, "no features of completion 'q00/0'"),
    "no ids": (lambda ids: {"features": np.zeros((len(ids), 2))}, "holds no array"),
    "nan": (lambda ids: {"ids": ids, "features": np.full((len(ids), 2), np.nan)}, "finite numbers"),
    "rows": (lambda ids: {"ids": ids, "features": np.zeros((3, 2))}, "found shape"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_features_are_told(files: dict[str, Path], tmp_path: Path, broken: str) -> None:
    ids = np.array([json.loads(line)["id"] for line in files["completions"].read_text().splitlines()])
    make, said = BROKEN[broken]
    np.savez(tmp_path / "mine.npz", **make(ids))
    with pytest.raises(DataError, match=said):
        fit_files(given(files, "votes"), tmp_path / "out", SETTINGS, silent, source=str(tmp_path / "mine.npz"))


def test_bad_input_is_one_error_that_names_it(files: dict[str, Path], tmp_path: Path) -> None:
    about = {"prompt_id": "q00", "labeler": "ada", "created_at": ""}
    write_jsonl(tmp_path / "votes.jsonl", [Vote(completion_id="absent", value=1, **about)])
    with pytest.raises(RecordError, match=r"votes.jsonl:1: completion_id 'absent'"):
        read_said(given(files | {"votes": tmp_path / "votes.jsonl"}, "votes"))
    with pytest.raises(DataError, match="give --prompts and --completions"):
        read_said(Files(votes=[files["votes"]]))
    with pytest.raises(DataError, match="no file was given"):
        read_said(Files())
    pairs = [json.loads(line) for line in files["preferences"].read_text().splitlines()]
    for row in pairs:
        del row["labeler"]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    with pytest.raises(DataError, match="pair 1: field 'labeler'"):
        read_said(Files(preferences=[tmp_path / "pairs.jsonl"]))
    assert {label.person for label in read_said(Files(preferences=[tmp_path / "pairs.jsonl"], person="ed")).labels} == {"ed"}


def test_a_folder_that_is_not_ours_is_left_alone(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("Dear Ada")
    with pytest.raises(StoreError, match=r"letter\.txt"):
        fitted(files, tmp_path / "mine")
    with pytest.raises(StoreError, match=r"holds no persons\.json"):
        load(tmp_path / "mine")


@pytest.mark.parametrize("name", ["persons.json", "heads.safetensors", "weights.safetensors", "labels.jsonl"])
def test_a_broken_folder_is_told(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = fitted(files, tmp_path / "out", "votes")
    (folder / name).write_text("{")
    with pytest.raises(HeedfulError, match="out"):
        load(folder)


def test_a_text_that_changed_under_its_id_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    folder = fitted(files, tmp_path / "out", "votes")
    (tmp_path / "other.jsonl").write_text(files["completions"].read_text().replace("Yes.", "Yes, yes."))
    with pytest.raises(DataError, match="'q00/0' has another text"):
        score_files(folder, "ada", [files["prompts"]], [tmp_path / "other.jsonl"], silent)


def test_the_last_person_is_not_deleted_from_under_the_heads(files: dict[str, Path], tmp_path: Path) -> None:
    rest = files
    for person in PERSONS[1:]:
        (tmp_path / person).mkdir()
        rest = without_person(rest, person, tmp_path / person)
    folder = fitted(rest, tmp_path / "out", "votes")
    with pytest.raises(DataError, match="'ada' is the only person"):
        delete_person(folder, "ada", silent)
    with pytest.raises(DataError, match="nearest name is 'ada'"):
        delete_person(folder, "adda", silent)
