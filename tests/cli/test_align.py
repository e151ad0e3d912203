"""heedful align sft, dpo, kto on real files: the commands, what they leave, and what they say of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_data
import tiny_model
from command import heedful
from pages import documented
from transformers import AutoTokenizer

from heedful.config import Config, parse
from heedful.data.formats import convert
from heedful.errors import ConfigError, DataError, HeedfulError, RecordError
from heedful.records import Completion, Preference, Vote, read_jsonl
from heedful.stages.offline import align_dpo, align_kto, align_sft
from heedful.store import write_jsonl

SMALL = """
[model]
source = {model!r}
dtype = "float32"
[evaluate]
num_resamples = 200
[sft]
learning_rate = 0.003
epochs = 2
[dpo]
learning_rate = 0.003
heldout_share = 0.2
[kto]
learning_rate = 0.003
heldout_share = 0.2
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files by what they hold, the tiny model, and a configuration."""
    folder = tmp_path_factory.mktemp("align")
    model = tiny_model.make(folder / "tiny")
    (folder / "heedful.toml").write_text(SMALL.format(model=str(model)))
    return small_data.write(folder, 40) | {"folder": folder, "model": model, "config": folder / "heedful.toml"}


def config(project: dict[str, Path], *overrides: str) -> Config:
    import tomllib

    return parse(tomllib.loads(project["config"].read_text()), "test", overrides)


def silent(*_: Any) -> None:
    """A progress that nobody watches."""


def test_dpo_from_the_command_line(project: dict[str, Path], tmp_path: Path) -> None:
    files = ("--config", project["config"], "--preferences", project["preferences"])
    command = ("align", "dpo", *files, "--output", tmp_path / "out")
    done = heedful(*command, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["accuracy"]["low"] <= found["accuracy"]["estimate"] <= found["accuracy"]["high"]
    assert found["accuracy"]["estimate"] > 0.6
    assert found["margin"] > 0
    assert set(found) == documented("dpo.md")
    assert found["num_pairs"] + found["num_training_prompts"] == 40
    assert "dpo" in done.stderr
    assert "reference" in done.stderr
    again = heedful(*command, "--json")
    assert json.loads(again.stdout) == found
    assert "already done" in again.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(found["steps"]))
    assert (rows[-1]["heldout_margin"], rows[-1]["heldout_loss"]) == (found["margin"], found["loss"])
    # The policy is one as PPO leaves it: it talks, and it merges.
    talked = heedful(
        *("chat", tmp_path / "out", "--compare", project["model"], "--once", "Hello.", "--max-new-tokens", "5", "--json")
    )
    assert set(json.loads(talked.stdout)["answers"]) == {"base", "aligned"}, talked.stderr
    assert heedful("export", tmp_path / "out", tmp_path / "merged").returncode == 0
    assert (tmp_path / "merged" / "model.safetensors").exists()


def test_sft_and_kto_from_the_command_line(project: dict[str, Path], tmp_path: Path) -> None:
    files = ("--completions", project["completions"], "--prompts", project["prompts"])
    done = heedful("align", "sft", "--config", project["config"], *files, "--output", tmp_path / "sft", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["loss"] < found["loss_before"]
    assert set(found) == documented("sft.md")
    assert found["num_training_completions"] + found["num_heldout_completions"] == 80
    done = heedful(
        *("align", "kto", "--config", project["config"], "--votes", project["votes"], *files, "--output", tmp_path / "kto")
    )
    assert done.returncode == 0, done.stderr
    assert "good-bad pairings in order" in done.stdout
    found = json.loads((tmp_path / "kto" / "kto" / "result.json").read_text())
    assert found["accuracy"] > 0.6
    assert set(found) == documented("kto.md")
    assert found["num_desirable"] == found["num_undesirable"]
    assert found["num_desirable"] + found["num_undesirable"] + found["num_heldout_completions"] == 80


def test_a_mistake_is_one_paragraph(project: dict[str, Path], tmp_path: Path) -> None:
    files = ("--config", project["config"], "--preferences", project["preferences"])
    command = ("align", "kto", *files, "--output", tmp_path / "o")
    failed = heedful(*command, "--set", "kto.batch_completions=1")
    assert failed.returncode == 1
    assert "kto.batch_completions = 1: KTO measures a mean KL over the batch's mismatched completions" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert failed.stdout == ""


def test_pairs_are_read_in_three_formats(project: dict[str, Path], tmp_path: Path) -> None:
    results = []
    for to in ("heedful", "trl", "hh"):
        convert("heedful", project["preferences"], tmp_path / f"{to}.jsonl", to=to)
        plain = config(project, "dpo.soft_labels=false")
        results.append(align_dpo(plain, tmp_path / to, silent, preferences=[tmp_path / f"{to}.jsonl"]))
    # TRL and HH carry no prompt ids, so that prompts fall to other sides; what was learned is the same.
    assert all(result["accuracy"]["estimate"] > 0.6 for result in results)
    assert results[1] == results[2]


def test_other_settings_start_anew_and_reuse_the_reference(project: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = align_dpo(config(project), out, silent, preferences=[project["preferences"]])
    known = (out / "reference.jsonl").read_bytes()
    second = align_dpo(config(project, "dpo.beta=0.5"), out, silent, preferences=[project["preferences"]])
    assert second["margin"] != first["margin"]
    assert (out / "reference.jsonl").read_bytes() == known, "the same answers under the same base: nothing to compute"
    align_dpo(config(project, "dpo.loss=orpo"), tmp_path / "orpo", silent, preferences=[project["preferences"]])
    assert not (tmp_path / "orpo" / "reference.jsonl").exists(), "without a reference there is none to read"


def test_an_answer_that_was_cut_off_gets_no_end_of_text(
    project: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heedful.training import dpo

    ends: dict[str, bool] = {}

    def train(model: Any, train: Any, heldout: Any, *_: Any, **__: Any) -> Any:
        ends.update({answer.text: answer.finished for group in [*train, *heldout] for answer in group.answers})
        raise KeyboardInterrupt

    monkeypatch.setattr(dpo, "train", train)
    with pytest.raises(KeyboardInterrupt):
        align_dpo(
            *(config(project), tmp_path / "a", silent),
            preferences=[project["preferences"]],
            completions=[project["completions"]],
        )
    good, bad = zip(*map(small_data.answers, small_data.prompts(40)), strict=True)
    assert all(ends[text] for text in good)
    assert not any(ends[text] for text in bad), "their completions say finish = length"


def test_the_tokens_that_were_written_are_learned_from(
    project: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same text in other tokens, as the model itself wrote it: one letter a token, which no tokenizer would choose."""
    from heedful.training import sft

    tokenizer = AutoTokenizer.from_pretrained(project["model"])
    records, letters = [], {}
    for record in read_jsonl(project["completions"], Completion):
        ids = [token for letter in record.text for token in tokenizer(letter, add_special_tokens=False)["input_ids"]]
        letters[record.text] = [*ids, *([tokenizer.eos_token_id] if record.finish == "stop" else [])]
        records.append(record.model_copy(update={"model": str(project["model"]), "token_ids": letters[record.text]}))
    theirs = [record.model_copy(update={"model": "another"}) for record in records]
    found: dict[str, list[int]] = {}

    def train(model: Any, train: Any, heldout: Any, *_: Any, **__: Any) -> Any:
        found.update({answer.text: answer.response_ids for answer in [*train, *heldout]})
        raise KeyboardInterrupt

    monkeypatch.setattr(sft, "train", train)
    for place, (written, own) in enumerate([(records, True), (theirs, False)]):
        write_jsonl(tmp_path / f"{place}.jsonl", written)
        files = {"completions": [tmp_path / f"{place}.jsonl"], "prompts": [project["prompts"]]}
        with pytest.raises(KeyboardInterrupt):
            align_sft(config(project), tmp_path / f"out-{place}", silent, **files)
        assert all((found[text] == letters[text]) is own for text in found)


# Bad input


def test_pairs_that_say_nothing(project: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = read_jsonl(project["preferences"], Preference)
    same = [pair.model_copy(update={"rejected": pair.chosen}) for pair in pairs[:3]]
    ties = [pair.model_copy(update={"probability": 0.5}) for pair in pairs]
    write_jsonl(tmp_path / "ties.jsonl", [*same, *ties])
    with pytest.raises(DataError, match=r"all 40 pairs are ties \(probability 0\.5\).* label more"):
        align_dpo(config(project), tmp_path / "out", silent, preferences=[tmp_path / "ties.jsonl"])
    assert "3 pairs of two equal answers were left out" in capsys.readouterr().err


def test_files_that_are_missing_on_the_command_line(project: dict[str, Path], tmp_path: Path) -> None:
    for call, files in (
        (align_sft, {}),
        (align_sft, {"completions": [project["completions"]]}),
        (align_kto, {}),
        (align_kto, {"votes": [project["votes"]], "prompts": [project["prompts"]]}),
        (align_kto, {"votes": [project["votes"]], "preferences": [project["preferences"]]}),
    ):
        with pytest.raises(ConfigError, match=r"give --(completions|votes) with --prompts"):
            call(config(project), tmp_path / "out", silent, **files)  # type: ignore[operator]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [0, 1])
def test_votes_of_one_class(value: int, project: dict[str, Path], tmp_path: Path) -> None:
    votes = [vote.model_copy(update={"value": value}) for vote in read_jsonl(project["votes"], Vote)]
    write_jsonl(tmp_path / "votes.jsonl", votes)
    files = {"votes": [tmp_path / "votes.jsonl"], "completions": [project["completions"]], "prompts": [project["prompts"]]}
    with pytest.raises(DataError, match="would raise or lower every completion"):
        align_kto(config(project), tmp_path / "out", silent, **files)


def test_votes_for_what_nobody_wrote(project: dict[str, Path], tmp_path: Path) -> None:
    lines = project["votes"].read_text().splitlines()
    stray = json.loads(lines[1]) | {"completion_id": "c7"}
    (tmp_path / "votes.jsonl").write_text("\n".join([lines[0], json.dumps(stray)]) + "\n")
    files = {"votes": [tmp_path / "votes.jsonl"], "completions": [project["completions"]], "prompts": [project["prompts"]]}
    with pytest.raises(RecordError, match=r"votes\.jsonl:2: completion_id 'c7' is not in .*completions\.jsonl"):
        align_kto(config(project), tmp_path / "out", silent, **files)
    (tmp_path / "votes.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no vote"):
        align_kto(config(project), tmp_path / "out", silent, **files)


def test_completions_of_unknown_prompts(project: dict[str, Path], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "few.jsonl", small_data.prompts(3))
    with pytest.raises(RecordError, match=r"completions\.jsonl:7: prompt_id .* is not in .*few\.jsonl; add the prompt"):
        align_sft(
            *(config(project), tmp_path / "out", silent), completions=[project["completions"]], prompts=[tmp_path / "few.jsonl"]
        )


def test_votes_that_cancel_out_are_left_out(
    project: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = [vote for vote in small_data.votes(40) if vote.labeler != "l0"]  # now every fourth prompt's votes are split
    write_jsonl(tmp_path / "votes.jsonl", two)
    files = {"votes": [tmp_path / "votes.jsonl"], "completions": [project["completions"]], "prompts": [project["prompts"]]}
    found = align_kto(config(project), tmp_path / "out", silent, **files)
    assert "20 completions with as many thumbs up as down were left out" in capsys.readouterr().err
    assert found["num_desirable"] + found["num_undesirable"] + found["num_heldout_completions"] == 60


def test_answers_too_long_or_empty_are_left_out_and_counted(
    project: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = read_jsonl(project["completions"], Completion)
    records[0] = records[0].model_copy(update={"text": "word " * 300})
    records[3] = records[3].model_copy(update={"text": "  "})
    write_jsonl(tmp_path / "completions.jsonl", records)
    files = {"completions": [tmp_path / "completions.jsonl"], "prompts": [project["prompts"]]}
    assert align_sft(config(project), tmp_path / "out", silent, **files)["left_out"] == 2
    assert "2 completions with answers beyond 256 tokens or without any were left out" in capsys.readouterr().err


def test_one_prompt_cannot_be_split(project: dict[str, Path], tmp_path: Path) -> None:
    pair = small_data.preferences(1)[0]
    write_jsonl(tmp_path / "one.jsonl", [pair] * 20)
    with pytest.raises(DataError, match=r"cannot be split into training and held-out .*dpo\.heldout_share"):
        align_dpo(config(project), tmp_path / "out", silent, preferences=[tmp_path / "one.jsonl"])
    with pytest.raises(HeedfulError):
        align_kto(config(project), tmp_path / "out", silent, preferences=[tmp_path / "one.jsonl"])


def test_an_adapter_is_no_base(project: dict[str, Path], tmp_path: Path) -> None:
    align_dpo(config(project), tmp_path / "out", silent, preferences=[project["preferences"]])
    policy = tmp_path / "out" / "dpo" / "policy"
    with pytest.raises(ConfigError, match="is an adapter; make a plain model of it first"):
        align_dpo(config(project, f"model.source={policy}"), tmp_path / "next", silent, preferences=[project["preferences"]])
