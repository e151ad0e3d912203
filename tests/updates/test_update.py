"""Updates: what is new is learned, what makes evaluation worse is refused, and going back gives the old outputs to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import assert_told, heedful
from safetensors.torch import load_file
from said_of_answers import liked, listed, opinions_on, say

from heedful.cli.talk import policy_of
from heedful.config import Config
from heedful.engine.generation import Decoding, sample
from heedful.errors import ConfigError, DataError, StoreError
from heedful.flows.update import update
from heedful.models.policy import POLICY, load_language_model
from heedful.opinions import FOLDER, Opinions, corrected, read_opinions, voted, write_opinions
from heedful.records import Completion, Preference, Prompt, read_jsonl
from heedful.stages.offline import align_kto
from heedful.store import read_metrics
from heedful.version_log import Versions
from heedful.versions import policy_in_use


def quiet(*_: object) -> None:
    """Progress that nobody watches."""


def outputs(run: Path) -> tuple[list[list[int]], torch.Tensor]:
    """What `heedful chat RUN` would say to a few prompts, and the hidden states behind it."""
    model = load_language_model(policy_of(str(run)), dtype=torch.float32, device=torch.device("cpu"))
    asked = [[5, 6, 7, 8], [9, 10, 11], [12, 13]]
    generator = torch.Generator().manual_seed(3)
    drawn = sample(model, asked, Decoding(1.0, 1.0, 12), adapter=POLICY, samples_per_prompt=2, generator=generator)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        hidden = model.hidden(ids, torch.ones_like(ids, dtype=torch.bool), adapter=POLICY)
    return [list(one.ids) for own in drawn for one in own], hidden


@pytest.fixture(scope="module")
def updated(aligned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 learned from thumbs for what the reward likes."""
    run = tmp_path_factory.mktemp("updated") / "run"
    shutil.copytree(aligned, run)
    say(run, opinions_on(run, as_the_reward=True))
    result = update(run, quiet)
    assert result["why_not"] == []
    return run


def test_an_update_that_holds_is_promoted(updated: Path, aligned: Path) -> None:
    result = json.loads((updated / "versions/1/result.json").read_text())
    assert result["promoted"]
    assert result["compare"]["reward"]["difference"]["low"] > 0
    assert policy_in_use(updated) == updated / "versions/1/kto/policy"
    assert policy_of(str(updated)) == str(updated / "versions/1/kto/policy")
    assert [(row["version"], row.get("parent"), row["promoted"]) for row in listed(updated)] == [(0, None, True), (1, 0, True)]
    assert outputs(updated)[0] != outputs(aligned)[0]
    assert not (aligned / "versions").exists()


def test_going_back_gives_the_outputs_to_the_bit(updated: Path, aligned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(updated, run)
    newer = outputs(run)
    assert Versions(run).roll_back(None).version == 0
    said, hidden = outputs(run)
    first_said, first_hidden = outputs(aligned)
    assert said == first_said
    assert torch.equal(hidden, first_hidden)
    assert not torch.equal(hidden, newer[1])
    assert Versions(run).roll_back(1).version == 1
    assert outputs(run)[0] == newer[0]
    assert torch.equal(outputs(run)[1], newer[1])


def test_an_update_that_makes_evaluation_worse_is_refused(aligned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(aligned, run)
    before = outputs(run)
    say(run, opinions_on(run, as_the_reward=False))
    result = update(run, quiet)
    assert not result["promoted"]
    assert any(sentence.startswith("reward fell by") for sentence in result["why_not"])
    assert result["compare"]["reward"]["difference"]["high"] < 0
    assert policy_in_use(run) == run / "ppo" / "policy"
    assert torch.equal(outputs(run)[1], before[1])
    with pytest.raises(StoreError, match="version 1 was never promoted"):
        Versions(run).roll_back(1)
    # What it was refused for is still new: with more feedback the next attempt is another version from the same parent.
    say(run, opinions_on(run, as_the_reward=True, labeler="bob"))
    say(run, opinions_on(run, as_the_reward=True, labeler="eve"))
    result = update(run, quiet)
    assert (result["version"], result["parent"], result["num_votes"]) == (2, 0, 3 * result["num_votes"] // 3)
    assert result["promoted"]


def test_what_was_learned_is_not_new_and_is_replayed(updated: Path, config: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(updated, run)
    with pytest.raises(DataError, match="nothing was said that version 1 has not learned from"):
        update(run, quiet)
    prompts = read_jsonl(run / "sample/prompts.jsonl", Prompt)
    answers = read_jsonl(run / "sample/completions.jsonl", Completion)[::4]
    made = [corrected(answer, "Here is what it should have been, at some length.", "ada", "2026-01-02") for answer in answers]
    own, judgements = zip(*made, strict=True)
    say(run, Opinions(prompts, [*answers, *own], [], list(judgements)))
    result = update(run, quiet, overrides=("kto.learning_rate=1e-6", "kto.epochs=1", "update.replay=0.25"))
    learned = json.loads((run / "versions/2/kto/result.json").read_text())
    assert (result["num_votes"], result["num_corrections"]) == (0, len(answers))
    assert learned["num_new_marks"] == 2 * len(answers), "what was written is good, and what it corrects is bad"
    assert learned["num_replayed"] == round(learned["num_new_marks"] / 3)
    assert read_opinions(run / "versions/2" / FOLDER).judgements == list(judgements)


def test_an_interrupted_update_goes_on(aligned: Path, updated: Path, tmp_path: Path) -> None:
    """The same weights as an uninterrupted one, and one version."""
    run = tmp_path / "run"
    shutil.copytree(aligned, run)
    say(run, opinions_on(run, as_the_reward=True))

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if (stage, done) == ("kto", 10):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(run, stop, overrides=("kto.checkpoint_every=4",))
    assert policy_in_use(run) == run / "ppo" / "policy"
    assert not (run / "versions" / "versions.jsonl").exists()
    update(run, quiet, overrides=("kto.checkpoint_every=4",))
    assert [row["version"] for row in listed(run)] == [0, 1]
    assert torch.equal(outputs(run)[1], outputs(updated)[1])


def test_a_run_that_was_made_anew_has_no_versions_of_the_old_one(updated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(updated, run)
    weights = run / "ppo/policy/heedful.json"
    weights.write_text(weights.read_text().replace("ppo-0", "ppo-1"))
    with pytest.raises(StoreError, match="is not version 0 any more"):
        Versions(run)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: shutil.rmtree(run / "ppo"), "holds no policy yet"),
        (lambda run: (run / FOLDER / "completions.jsonl").write_text(""), "names completion"),
        (lambda run: shutil.rmtree(run / FOLDER), "nothing was said"),
    ],
)
def test_bad_input_is_named(break_it: Any, message: str, aligned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(aligned, run)
    say(run, opinions_on(run, as_the_reward=True))
    break_it(run)
    with pytest.raises((DataError, StoreError), match=message):
        update(run, quiet)
    assert not (run / "versions" / "versions.jsonl").exists()


def test_the_command_lists_versions_and_goes_back(updated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(updated, run)
    shown = heedful("update", run, "--list")
    assert shown.returncode == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()[2:4]] == ["0", "1"]
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    assert shown.stdout.splitlines()[3].endswith("in use")
    assert heedful("update", run, "--rollback").stdout == "version 0 is in use\n"
    talked = heedful("chat", run, "--once", "Hello", "--max-new-tokens", "4", "--json")
    assert f"{run}: version 0 answers; later, and not answering: version 1\n" in talked.stderr
    assert json.loads(talked.stdout)["message"] == "Hello"
    assert_told(heedful("update", run, "--rollback"), "there is none before it")
    assert_told(heedful("update", run, "--rollback", "7"), "there is no version 7; there are 0, 1")
    assert json.loads(heedful("update", run, "1", "--rollback", "--json").stdout)["in_use"] == 1
    assert heedful("update", run, "1").returncode == 2
    assert_told(heedful("update", tmp_path / "absent"), "no run directory")


def test_a_reward_model_and_ppo_go_on_from_the_version_in_use(aligned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(aligned, run)
    said = opinions_on(run, as_the_reward=True)
    say(run, said)
    # As the chats keep them: an answer with a prompt of its own, which makes no pair.
    alone = Prompt(id="chat-1", messages=said.prompts[0].messages)
    answer = said.completions[0].model_copy(update={"id": "chat-1/1", "prompt_id": "chat-1"})
    say(run, Opinions([alone], [answer], [voted(answer, "ada", 1, "2026-01-01")], []))
    # With a margin of any size nothing but a clear worsening speaks against two small steps.
    small = ("ppo.max_steps=2", "ppo.learning_rate=1e-4", "reward.epochs=1", "update.margin=9.0")
    result = update(run, quiet, overrides=("update.method=ppo", *small))
    assert result["method"] == "ppo"
    pairs = read_jsonl(run / "versions/1/pairs.jsonl", Preference)
    assert pairs
    assert all(liked(pair.chosen) > liked(pair.rejected) for pair in pairs)
    assert json.loads((run / "versions/1/reward/result.json").read_text())["num_pairs"] > 0
    kept = {vote.completion_id for vote in read_opinions(run / "versions/1" / FOLDER).votes}
    assert kept == {id_ for pair in pairs for id_ in (pair.chosen_id, pair.rejected_id)}, "what made no pair stays new"
    assert result["num_votes"] == len(kept) == listed(run)[1]["num_new"]
    assert answer.id not in kept
    old, new = (load_file(run / place / "adapter_model.safetensors") for place in ("ppo/policy", "versions/1/ppo/policy"))
    moved = max(float((new[name] - old[name]).abs().max()) for name in old)
    fresh = max(float(old[name].abs().max()) for name in old if "lora_A" in name)
    assert 0 < moved < 0.1 * fresh, "two small steps from the weights of version 0"
    (row, *_) = [row for row in read_metrics(run / "versions/1") if row["stage"] == "ppo"]
    assert {"term_score", "term_trained"} <= row.keys(), "what the run's reward asks for is not forgotten"
    # Thumbs that all point one way make no pair.
    upward = opinions_on(run, as_the_reward=True, labeler="bob")
    votes = [vote.model_copy(update={"value": 1, "labeler": "bob"}) for vote in upward.votes]
    write_opinions(tmp_path / "upward", upward._replace(votes=votes))
    shutil.rmtree(run / FOLDER)
    with pytest.raises(DataError, match="the new votes make no pair"):
        update(run, quiet, feedback=[tmp_path / "upward"], overrides=("update.method=ppo", *small))


def test_a_run_without_a_reward_is_refused_before_anything_is_learned(aligned: Path, config: Config, tmp_path: Path) -> None:
    """As of `heedful align kto` on files. Named for the update, a reward measures its versions."""
    run, said = tmp_path / "run", tmp_path / "said"
    write_opinions(said, opinions_on(aligned, as_the_reward=True))
    bare = config.model_copy(update={"reward": config.reward.model_copy(update={"terms": ()})})
    files = {name: [said / f"{name}.jsonl"] for name in ("votes", "completions", "prompts")}
    few = bare.kto.model_copy(update={"epochs": 1})
    align_kto(bare.model_copy(update={"kto": few}), run, quiet, **files)
    begun: list[str] = []
    with pytest.raises(ConfigError, match=r"has no reward to measure versions by.*--set 'reward.terms="):
        update(run, lambda stage, *_: begun.append(stage), feedback=[said])
    assert begun == []
    assert not (run / "versions").exists()
    term = f'reward.terms=[{{source = "{config.reward.terms[0].source}"}}]'
    assert update(run, quiet, feedback=[said], overrides=(term, "update.margin=9.0"))["version"] == 1


def test_a_classifiers_files_are_not_forgotten_silently(aligned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(aligned, run)
    say(run, opinions_on(run, as_the_reward=True))
    labelled = ("reward.labelled.files=['texts.jsonl']", "reward.labelled.wanted=good", "update.method=ppo")
    with pytest.raises(ConfigError, match=r"learned from reward.labelled.files.*use update.method = 'kto'"):
        update(run, quiet, overrides=labelled)
    assert not (run / "versions").exists()
