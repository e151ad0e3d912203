"""heedful persons on files: each command as it is typed, on a tiny encoder and a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_data
import tiny_bert
import tiny_model
from in_process import Done, assert_told, heedful

from heedful.records import Vote
from heedful.store import write_jsonl

CONFIG = """
[model]
source = {model!r}
dtype = "float32"
[evaluate]
num_resamples = 200
[dpo]
learning_rate = 0.003
heldout_share = 0.2
[kto]
learning_rate = 0.003
heldout_share = 0.2
"""
NUM_PROMPTS = 30


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Votes of l0, l1, l2 for kind answers and of opposite against them; pairs of ada, whose labeler is named."""
    folder = tmp_path_factory.mktemp("persons-cli")
    files = small_data.write(folder, NUM_PROMPTS)
    votes = small_data.votes(NUM_PROMPTS)
    turned = [
        vote.model_copy(update={"labeler": "opposite", "value": 1 - vote.value}) for vote in votes if vote.labeler == "l0"
    ]
    write_jsonl(folder / "votes.jsonl", [*votes, *turned])
    pairs = [pair.model_copy(update={"labeler": "ada"}) for pair in small_data.preferences(NUM_PROMPTS)]
    write_jsonl(folder / "preferences.jsonl", pairs)
    team = [Vote(**vote.model_dump() | {"labeler": "team"}) for vote in votes if vote.labeler == "l1"]
    write_jsonl(folder / "polite.jsonl", team)
    (folder / "heedful.toml").write_text(CONFIG.format(model=str(tiny_model.make(folder / "tiny"))))
    return files | {"folder": folder, "bert": tiny_bert.make(folder / "bert"), "config": folder / "heedful.toml"}


def both(project: dict[str, Path]) -> tuple[str | Path, ...]:
    return "--prompts", project["prompts"], "--completions", project["completions"]


def fitted(project: dict[str, Path], output: Path, *more: str | Path) -> Path:
    done = heedful("persons", "fit", "--votes", project["votes"], *both(project), "--output", output, *more)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def folder(project: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(project, tmp_path_factory.mktemp("fitted") / "persons", "--features", "surface")


def value(done: Done) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def narrow(done: Done) -> str:
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 110  # ids of the bundled prompts are long
    return done.stdout


@pytest.mark.parametrize("source", ["bert", "tiny", "surface"])
def test_fit_on_features_of_each_kind(project: dict[str, Path], tmp_path: Path, source: str) -> None:
    features = source if source == "surface" else project["folder"] / source
    found = value(
        heedful(
            *(
                "persons",
                "fit",
                "--votes",
                project["votes"],
                *both(project),
                "--features",
                features,
                "--output",
                tmp_path / "out",
            ),
            *("--num-heads", "1", "--json"),
        )
    )
    assert (found["num_persons"], found["num_texts"]) == (4, 2 * NUM_PROMPTS)
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "what was read meanwhile is gone"


def test_each_person_gets_their_own_best(project: dict[str, Path], folder: Path) -> None:
    kinds = {}
    for person in ("l0", "opposite"):
        found = value(heedful("persons", "best", folder, "--person", person, *both(project), "--json"))
        kinds[person] = {row["completion_id"].rpartition("/")[2] for row in found["choices"]}  # type: ignore[attr-defined]
    assert kinds == {"l0": {"good"}, "opposite": {"bad"}}
    said = narrow(heedful("persons", "best", folder, "--person", "new", *both(project), "--caution", "1"))
    assert said.startswith("new has given no label, so this is the global model:")


def test_score_list_and_evaluate(project: dict[str, Path], folder: Path) -> None:
    rows = narrow(heedful("persons", "score", folder, "--person", "l0", *both(project))).splitlines()
    assert len(rows) == 1 + 2 * NUM_PROMPTS
    assert rows[0] == f"l0, known by {2 * NUM_PROMPTS} labels:"
    assert "opposite" in narrow(heedful("persons", "list", folder))
    found = value(heedful("persons", "evaluate", folder, "--hide", "0.5", "--seeds", "1", "--json"))
    assert found["log_loss"]["difference"]["estimate"] < 0  # type: ignore[index]
    assert "log_loss" in narrow(heedful("persons", "evaluate", folder, "--hide", "0.5", "--seeds", "1"))


def test_ask_then_learn_from_the_answer(project: dict[str, Path], tmp_path: Path) -> None:
    folder = fitted(project, tmp_path / "out", "--features", "surface")
    asked = value(heedful("persons", "ask", folder, "--person", "new", *both(project), "--json"))
    (question,) = asked["questions"]  # type: ignore[misc]
    pair = {name: question[name] for name in ("first", "second", "prompt_id")}
    ranks = {pair["first"]: 1, pair["second"]: 2}
    judgement = {
        "id": "j",
        "prompt_id": pair["prompt_id"],
        "labeler": "new",
        "source": "human",
        "criterion": "c",
        "ranks": ranks,
    }
    (tmp_path / "new.jsonl").write_text(json.dumps(judgement | {"created_at": "2026-01-01"}) + "\n")
    told = value(heedful("persons", "learn", folder, "--judgements", tmp_path / "new.jsonl", *both(project), "--json"))
    assert told["num_persons"] == 5
    again = value(heedful("persons", "ask", folder, "--person", "new", *both(project), "--json"))
    assert again["num_labels"] == 1
    assert again["questions"] != asked["questions"]


def test_export_and_delete(project: dict[str, Path], tmp_path: Path) -> None:
    folder = fitted(project, tmp_path / "out", "--features", "surface")
    assert "60 labels" in narrow(heedful("persons", "export", folder, "l2", "--output", tmp_path / "l2.json"))
    assert len(json.loads((tmp_path / "l2.json").read_text())["labels"]) == 60
    told = heedful("persons", "delete", folder, "l2")
    assert "60 labels" in told.stdout
    assert "the heads were fitted anew" in told.stdout
    assert_told(heedful("persons", "delete", folder, "l2"), "there is no person 'l2' here", "the nearest name is")


def test_safety_heads_and_a_choice_of_settings(project: dict[str, Path], tmp_path: Path) -> None:
    safety = ("--safety-votes", project["folder"] / "polite.jsonl", "--safety-floor", "0.7")
    folder = fitted(project, tmp_path / "out", "--features", "surface", *safety)
    weights = [row["safety_weights"]["polite"] for row in value(heedful("persons", "list", folder, "--json"))["persons"]]  # type: ignore[attr-defined]
    assert min(weights) == pytest.approx(0.7)  # that of the opposite
    found = value(heedful("persons", "best", folder, "--person", "opposite", *both(project), "--json"))
    assert {row["completion_id"].rpartition("/")[2] for row in found["choices"]} == {"good"}  # type: ignore[attr-defined]


def test_features_once_for_many_fits(project: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "bert.npz"
    told = value(heedful("persons", "features", project["bert"], *both(project), "--output", file, "--json"))
    assert (told["num_texts"], told["num_features"]) == (2 * NUM_PROMPTS, 32)
    direct = fitted(project, tmp_path / "direct", "--features", project["bert"])
    kept = fitted(project, tmp_path / "kept", "--features", file)
    assert (direct / "weights.safetensors").read_bytes() == (kept / "weights.safetensors").read_bytes()


def test_pairs_of_one_person(project: dict[str, Path], tmp_path: Path) -> None:
    command = ("persons", "fit", "--preferences", project["preferences"], "--features", "surface", "--output", tmp_path / "out")
    assert value(heedful(*command, "--json"))["num_persons"] == 1


def test_an_adapter_is_refused_below_its_count(project: dict[str, Path], tmp_path: Path) -> None:
    command = ("persons", "adapter", "--config", project["config"], "--output", tmp_path / "out", "--person", "ada")
    pairs = ("--preferences", project["preferences"])
    assert_told(heedful(*command, *pairs), "'ada' gave 30 decided pairs", "needs 200", "collect 170 more")
    assert not (tmp_path / "out").exists()
    assert_told(heedful(*command[:-1], "eve", *pairs), "no label of 'eve'")


def test_an_adapter_of_ones_own(project: dict[str, Path], tmp_path: Path) -> None:
    command = (
        "persons",
        "adapter",
        "--config",
        project["config"],
        "--output",
        tmp_path / "dpo",
        "--person",
        "ada",
        "--least",
        "30",
    )
    told = value(heedful(*command, "--preferences", project["preferences"], "--json"))
    assert told["num_labels"] == 30
    assert told["accuracy"]["estimate"] > 0.5  # type: ignore[index]
    assert (tmp_path / "dpo/dpo/policy/adapter_config.json").is_file()


def test_an_adapter_of_a_group_by_votes(project: dict[str, Path], tmp_path: Path) -> None:
    command = ("persons", "adapter", "--config", project["config"], "--output", tmp_path / "kto", "--method", "kto")
    group = ("--person", "l0", "--person", "l1", "--votes", project["votes"], *both(project), "--least", "120")
    told = value(heedful(*command, *group, "--json"))
    assert (told["num_labels"], told["persons"]) == (120, ["l0", "l1"])
    assert told["num_desirable"] == told["num_undesirable"], "the votes of the opposite are in none of it"
    assert (tmp_path / "kto/kto/policy/adapter_config.json").is_file()


def test_wrong_folder_and_no_labels(project: dict[str, Path], tmp_path: Path) -> None:
    assert_told(heedful("persons", "list", tmp_path), "holds no persons.json", "heedful persons fit")
    assert_told(heedful("persons", "fit", "--output", tmp_path / "out"), "there is no label to learn from", "--votes")


def test_a_name_that_drives_the_terminal_is_shown_as_text(project: dict[str, Path], folder: Path) -> None:
    for command in ("score", "best", "ask"):
        done = heedful("persons", command, folder, "--person", "a\x1b[2Jb", *both(project))
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert done.stdout.startswith("a\ufffd[2Jb has given no label")
