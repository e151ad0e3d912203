"""What a user can get wrong in a run, and what heedful says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import small_run
import tiny_model
import torch

from heedful.config import Config, load, parse
from heedful.errors import DataError, HeedfulError, StoreError, TrainingError
from heedful.models.chat import Chat
from heedful.models.policy import load_language_model
from heedful.models.reward import answer_of
from heedful.pipeline import Pipeline
from heedful.records import Completion, Judgement, Message, Preference, Prompt, read_jsonl
from heedful.stages.reward import read_run_pairs
from heedful.store import Run, write_jsonl
from heedful.training.rollout import require_finite_rewards

Change = Callable[[Path], None]


def silent(stage: str, done: int, total: int, note: str) -> None:
    pass


def pipeline(config: Config, run: Run) -> Pipeline:
    return Pipeline(config, run, silent)


def sampled(config: Path, whole: Path, folder: Path) -> tuple[Config, Path]:
    """A run directory whose first stage is done, with the whole run's completions."""
    loaded = load(config)
    (folder / "label").mkdir(parents=True)
    (folder / "sample").mkdir()
    for name in ("sample/completions.jsonl", "sample/prompts.jsonl", "label/judgements.jsonl"):
        (folder / name).write_bytes((whole / name).read_bytes())
    return loaded, folder


def test_nan_reward_stops_training_and_names_the_answer(tiny: Path) -> None:
    model = load_language_model(str(tiny), dtype=torch.float32, device=torch.device("cpu"))
    answer = answer_of(model, (Message(role="user", content="My house is too hot."),), "Open a window.", finished=True)
    with pytest.raises(TrainingError, match=r"gave nan for the answer 'Open a window\.' to 'My house is too hot\.'"):
        require_finite_rewards([float("nan")], [answer])


def test_nan_reward_in_a_run_leaves_the_last_checkpoint(config: Path, whole: Path, tmp_path: Path) -> None:
    class Poisoned(Pipeline):
        calls = 0

        def score(self, answers: object) -> list[float]:
            self.calls += 1
            found = super().score(answers)
            return [float("nan"), *found[1:]] if self.calls == 4 else found

    loaded = load(config)
    with Run(tmp_path / "run") as run:
        poisoned = Poisoned(loaded, run, silent, reward_folder=whole / "reward" / "model")
        with pytest.raises(TrainingError, match="gave nan"):
            poisoned.align_alone()
        assert torch.load(tmp_path / "run" / "ppo" / "checkpoint.pt", weights_only=True)["run"]["step"] == 2
        assert run.manifest["stages"]["ppo"]["state"] == "running"


def test_all_completions_flagged(config: Path, whole: Path, tmp_path: Path) -> None:
    loaded, folder = sampled(config, whole, tmp_path / "run")
    judgements = read_jsonl(folder / "label/judgements.jsonl", Judgement)
    flagged = [
        judgement.model_copy(update={"ranks": {}, "flagged": (*judgement.ranks, *judgement.flagged)})
        for judgement in judgements
    ]
    write_jsonl(folder / "label/judgements.jsonl", flagged)
    with Run(folder) as run, pytest.raises(DataError, match="leave no pair to learn from"):
        pipeline(loaded, run).consensus()


def test_labeler_who_ranked_nothing_is_told_apart_from_a_poor_one(config: Path, whole: Path, tmp_path: Path) -> None:
    loaded, folder = sampled(config, whole, tmp_path / "run")
    judgements = read_jsonl(folder / "label/judgements.jsonl", Judgement)
    lazy = [
        judgement.model_copy(update={"ranks": {}, "flagged": (*judgement.ranks, *judgement.flagged)})
        if judgement.labeler == "simulated-1"
        else judgement
        for judgement in judgements
    ]
    write_jsonl(folder / "label/judgements.jsonl", lazy)
    with Run(folder) as run:
        pipeline(loaded, run).consensus()
    labelers = {row["labeler"]: row for row in json.loads((folder / "consensus/labelers.json").read_text())}
    assert labelers["simulated-1"]["verdict"] == "too few to tell"
    assert not labelers["simulated-1"]["suspect"]


def test_judgement_of_a_missing_completion(config: Path, whole: Path, tmp_path: Path) -> None:
    loaded, folder = sampled(config, whole, tmp_path / "run")
    completions = read_jsonl(folder / "sample/completions.jsonl", Completion)
    write_jsonl(folder / "sample/completions.jsonl", completions[1:])
    with Run(folder) as run, pytest.raises(DataError, match=f"names completion '{completions[0].id}'"):
        pipeline(loaded, run).consensus()


@pytest.mark.parametrize("field", ["chosen_id", "rejected_id"])
@pytest.mark.parametrize("stranger", ["nope/1", "another prompt's"])
def test_preference_that_names_a_missing_completion(
    config: Path, whole: Path, tmp_path: Path, field: str, stranger: str
) -> None:
    loaded, folder = sampled(config, whole, tmp_path / "run")
    pairs = read_jsonl(whole / "consensus/preferences.jsonl", Preference)
    other = next(pair for pair in pairs if pair.prompt_id != pairs[4].prompt_id)
    id_ = other.chosen_id if stranger != "nope/1" else stranger
    pairs[4] = pairs[4].model_copy(update={field: id_})
    write_jsonl(folder / "consensus/preferences.jsonl", pairs)
    wrong = f"answers prompt '{other.prompt_id}', not '{pairs[4].prompt_id}'"
    expected = f"{field} '{id_}' {wrong if stranger != 'nope/1' else 'is not in completions.jsonl'}; make the pairs again"
    with Run(folder) as run, pytest.raises(HeedfulError, match=rf"preferences\.jsonl:5: {expected}.* or drop the line"):
        pipeline(loaded, run).reward()


def test_preference_without_ids_is_a_preference(config: Path, whole: Path, tmp_path: Path) -> None:
    pairs = read_jsonl(whole / "consensus/preferences.jsonl", Preference)
    bare = [pair.model_copy(update={"chosen_id": None, "rejected_id": None}) for pair in pairs]
    write_jsonl(tmp_path / "preferences.jsonl", bare)
    assert read_run_pairs(tmp_path / "preferences.jsonl", read_jsonl(whole / "sample/completions.jsonl", Completion)) == bare


def test_duplicate_ids(config: Path, whole: Path, tmp_path: Path) -> None:
    loaded, folder = sampled(config, whole, tmp_path / "run")
    completions = read_jsonl(folder / "sample/completions.jsonl", Completion)
    write_jsonl(folder / "sample/completions.jsonl", [*completions, completions[0]])
    with Run(folder) as run, pytest.raises(HeedfulError, match="was already used by record 1"):
        pipeline(loaded, run).consensus()


def test_malformed_line_names_file_and_line(config: Path, whole: Path, tmp_path: Path) -> None:
    loaded, folder = sampled(config, whole, tmp_path / "run")
    path = folder / "label/judgements.jsonl"
    lines = path.read_text().splitlines()
    lines[4] = lines[4][:-20]
    path.write_text("\n".join(lines) + "\n")
    with Run(folder) as run, pytest.raises(HeedfulError, match=r"judgements\.jsonl:5: not a JSON object"):
        pipeline(loaded, run).consensus()


def test_overlapping_prompt_files_do_not_leak_into_the_held_out_prompts(tiny: Path, tmp_path: Path) -> None:
    prompts = [Prompt(id=f"p{i}", messages=(Message(role="user", content=f"word {i}"),)) for i in range(40)]
    write_jsonl(tmp_path / "one.jsonl", prompts[:30])
    write_jsonl(tmp_path / "two.jsonl", prompts[10:])
    files = [str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")]
    config = parse({"model": {"source": str(tiny)}, "prompts": {"files": files}}, "test")
    with Run(tmp_path / "run") as run:
        found = pipeline(config, run).prompts
        train, heldout = ([prompt.id for prompt in found[side]] for side in ("train", "heldout"))
        assert not set(train) & set(heldout)
        assert sorted(train + heldout) == sorted(prompt.id for prompt in prompts)
        write_jsonl(tmp_path / "two.jsonl", [prompts[3].model_copy(update={"messages": prompts[4].messages})])
        with pytest.raises(DataError, match=r"id 'p3' .* in .*one\.jsonl and for another in .*two\.jsonl"):
            _ = pipeline(config, run).prompts


def test_long_prompts_are_left_out_with_a_count(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [
        Prompt(id=f"p{i}", messages=(Message(role="user", content="word " * (400 if i == 1 else i + 1)),), split=split)
        for i, split in enumerate(["train", "train", "train", "heldout"])
    ]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    config = parse({"model": {"source": str(tiny)}, "prompts": {"files": [str(tmp_path / "prompts.jsonl")]}}, "test")
    with Run(tmp_path / "run") as run:
        assert [question.prompt_id for question in pipeline(config, run).questions("train")] == ["p0", "p2"]
    assert "1 train prompts are longer than" in capsys.readouterr().err


def test_all_prompts_too_long(tiny: Path, tmp_path: Path) -> None:
    content = "word " * 400
    prompts = [Prompt(id=f"p{i}", messages=(Message(role="user", content=content),)) for i in range(3)]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    config = parse({"model": {"source": str(tiny)}, "prompts": {"files": [str(tmp_path / "prompts.jsonl")]}}, "test")
    with Run(tmp_path / "run") as run, pytest.raises(DataError, match="prompts are longer than"):
        pipeline(config, run).sample()


def test_empty_completions_go_all_the_way(config: Path, whole: Path, tmp_path: Path) -> None:
    loaded, folder = sampled(config, whole, tmp_path / "run")
    completions = read_jsonl(folder / "sample/completions.jsonl", Completion)
    emptied = [c.model_copy(update={"text": ""}) if i % 3 == 0 else c for i, c in enumerate(completions)]
    write_jsonl(folder / "sample/completions.jsonl", emptied)
    with Run(folder) as run:
        flow = pipeline(loaded, run)
        flow.label()
        flow.consensus()
        flow.reward()
    judgements = read_jsonl(folder / "label/judgements.jsonl", Judgement)
    careful = [judgement for judgement in judgements if judgement.labeler == "simulated-1"]
    assert all(f"{judgement.prompt_id}/1" in judgement.flagged for judgement in careful)


def test_model_without_a_chat_template_says_so_and_works(tmp_path: Path) -> None:
    folder = tiny_model.make(tmp_path / "plain", template=False)
    with pytest.warns(UserWarning, match="no chat template"):
        model = load_language_model(str(folder), dtype=torch.float32, device=torch.device("cpu"))
    ids = model.chat.prompt_ids((Message(role="user", content="Knock, knock."),))
    assert model.chat.tokenizer.decode(ids).endswith("User: Knock, knock.\nAssistant:")


@pytest.mark.parametrize("pad_is_eos", [True, False])
def test_end_of_text_counts_whether_or_not_it_is_also_the_padding(tmp_path: Path, pad_is_eos: bool) -> None:
    model = load_language_model(
        str(tiny_model.make(tmp_path / "m", pad_is_eos=pad_is_eos)), dtype=torch.float32, device=torch.device("cpu")
    )
    chat: Chat = model.chat
    assert (chat.pad_id in chat.eos_ids) == pad_is_eos
    ids = chat.response_ids("Who's there?", finished=True)
    assert ids[-1] == chat.eos_ids[0]
    assert chat.finished(ids)
    assert chat.text(ids) == "Who's there?"


@pytest.mark.parametrize("place", ["below-a-file", "proc"])
def test_unwritable_run_directory(config: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run" if place == "below-a-file" else Path("/proc/heedful-run")
    with pytest.raises(StoreError, match="cannot be written"):
        Run(folder)


def test_disk_full_in_the_middle_keeps_what_is_finished(config: Path, whole: Path, tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: the checkpoint, the first large file, does not fit."""
    folder = tmp_path / "run"
    full = small_run.start(config, folder, room=60_000)
    assert full.returncode == 1
    assert "cannot be written (File too large). Free space or choose another folder" in full.stderr
    assert not list(folder.rglob("*.tmp")), "a temporary file was left behind"
    resumed = small_run.start(config, folder)
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = (json.loads((run / "summary.json").read_text())["compare"] for run in (folder, whole))
    assert ours == theirs


def test_two_processes_in_one_folder(config: Path, tmp_path: Path) -> None:
    with Run(tmp_path / "run"):
        second = small_run.start(config, tmp_path / "run")
    assert second.returncode == 1
    assert "another process is working in this folder" in second.stderr
