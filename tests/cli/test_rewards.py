"""Rewards of every kind from the command line, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_run
import tiny_bert
import tiny_model
from in_process import assert_told, heedful

from heedful.data.bundled import load_bundled
from heedful.records import Completion, Preference, Sampling
from heedful.store import read_metrics, write_jsonl


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, completions, pairs, labelled texts, a function, and a classifier."""
    folder = tmp_path_factory.mktemp("files")
    prompts = load_bundled()[:20]
    write_jsonl(folder / "prompts.jsonl", prompts)
    sampling = Sampling(temperature=1.0, top_p=1.0, seed=0, max_new_tokens=9)
    texts = ["kind .", "rude rude ."]
    completions = [
        Completion(id=f"{p.id}/{i}", prompt_id=p.id, text=text, model="m", finish="stop", sampling=sampling)
        for p in prompts
        for i, text in enumerate(texts)
    ]
    write_jsonl(folder / "completions.jsonl", completions)
    pairs = [Preference(prompt_id=p.id, prompt=p.messages, chosen=texts[0], rejected=texts[1]) for p in prompts]
    write_jsonl(folder / "pairs.jsonl", pairs)
    rows = [f"number {i % 10} {i // 10 % 10} {word} .,{word}\n" for i in range(60) for word in ("kind", "rude")]
    (folder / "labelled.csv").write_text("text,label\n" + "".join(rows))
    (folder / "mine.py").write_text("def brevity(prompts, texts):\n    return [-len(t.split()) for t in texts]\n")
    tiny_bert.make(folder / "bert")
    tiny_bert.make(folder / "classifier", labels=("kind", "rude"))
    return folder


def scores(source: str | Path, files: Path, *more: str) -> dict[str, float]:
    both = ("--prompts", files / "prompts.jsonl", "--completions", files / "completions.jsonl")
    done = heedful("reward", "score", source, *both, *more, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_score_by_a_function_and_by_a_classifier_without_any_policy(files: Path) -> None:
    found = scores(f"{files / 'mine.py'}:brevity", files)
    assert set(found.values()) == {-2.0, -3.0}
    kind, rude = (scores(files / "classifier", files, "--label", label) for label in ("kind", "1"))
    assert set(kind) == set(rude) == set(found)
    assert kind != rude


def test_a_classifier_asks_for_its_label(files: Path) -> None:
    both = ("--prompts", files / "prompts.jsonl", "--completions", files / "completions.jsonl")
    failed = heedful("reward", "score", files / "classifier", *both)
    assert failed.returncode == 1
    assert "one of: 0 = 'kind', 1 = 'rude'" in failed.stderr


def test_a_label_of_a_classifier_chooses_in_a_chat(tiny: Path, files: Path) -> None:
    asked = ("chat", tiny, "--once", "Hello.", "--max-new-tokens", "4", "--temperature", "1", "--json")
    best = ("--best-of", "2", "--reward-model", files / "classifier")
    assert_told(heedful(*asked, *best), "one of: 0 = 'kind', 1 = 'rude'")
    done = heedful(*asked, *best, "--label", "kind")
    assert done.returncode == 0, done.stderr
    assert "the reward is the logit of label 'kind'" in done.stderr
    assert_told(heedful(*asked, "--label", "kind"), "--label kind is of a classifier that is the --reward-model")


def test_an_ensemble_on_pairs_is_trained_evaluated_and_scores(tiny: Path, files: Path, tmp_path: Path) -> None:
    done = heedful(
        *("reward", "train", "--model", tiny, "--preferences", files / "pairs.jsonl", "--output", tmp_path / "rm"),
        *("--ensemble", "2", "--set", "reward.lora.rank=4", "--set", "reward.heldout_share=0.3"),
        *("--set", "reward.head_learning_rate=0.01", "--set", "reward.margin_weight=0.5"),
    )
    assert done.returncode == 0, done.stderr
    assert f"saved in {tmp_path / 'rm' / 'reward' / 'model'}" in done.stdout
    evaluated = heedful("reward", "evaluate", tmp_path / "rm", "--preferences", files / "pairs.jsonl", "--json")
    assert json.loads(evaluated.stdout)["num_pairs"] == 20, evaluated.stderr
    assert len(scores(tmp_path / "rm", files)) == 40


def test_a_classifier_asks_which_label_is_toxic(files: Path) -> None:
    given = ("evaluate", "toxicity", "--completions", files / "completions.jsonl", "--classifier", files / "classifier")
    failed = heedful(*given)
    assert_told(failed, "0 = 'kind', 1 = 'rude'", "--negative-label")
    done = heedful(*given, "--negative-label", "rude", "--validate", files / "labelled.csv", "--toxic-label", "rude", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["negative_label"] == "rude"
    assert 0 <= found["classifier_accuracy"]["accuracy"]["estimate"] <= 1
    assert_told(heedful(*given, "--negative-label", "rude", "--toxic-label", "rude"), "go together")


def test_a_classifier_on_labelled_texts_guides_ppo(tiny: Path, files: Path, tmp_path: Path) -> None:
    done = heedful(
        *("reward", "train", "--model", files / "bert", "--labelled", files / "labelled.csv", "--wanted", "kind"),
        *("--output", tmp_path / "rm", "--set", f'model.source="{tiny}"', "--set", 'reward.pooling="mean"'),
        *("--set", "reward.learning_rate=0.001", "--set", "reward.head_learning_rate=0.01"),
    )
    assert done.returncode == 0, done.stderr
    assert "the reward is the logit of 'kind'" in done.stdout
    evaluated = heedful(
        *("reward", "evaluate", tmp_path / "rm", "--labelled", files / "labelled.csv", "--wanted", "kind", "--json")
    )
    assert json.loads(evaluated.stdout)["accuracy"]["low"] > 0.9, evaluated.stderr
    judged = heedful(
        *("evaluate", "toxicity", "--completions", files / "completions.jsonl", "--classifier", tmp_path / "rm"),
        *("--negative-label", "rude", "--json"),
    )
    assert json.loads(judged.stdout)["classifier_accuracy"]["accuracy"]["estimate"] > 0.5, judged.stderr
    config = small_run.write_config(tmp_path / "small.toml", tiny)
    aligned = heedful(
        "align", "ppo", "--config", config, "--reward-model", tmp_path / "rm", "--output", tmp_path / "out", "--json"
    )
    assert aligned.returncode == 0, aligned.stderr
    assert json.loads(aligned.stdout)["steps"] == 6


def test_align_with_a_function_and_with_the_terms_of_the_configuration(tiny: Path, files: Path, tmp_path: Path) -> None:
    function = f"{files / 'mine.py'}:brevity"
    config = small_run.write_config(tmp_path / "small.toml", tiny)
    nothing = heedful("align", "ppo", "--config", config, "--output", tmp_path / "none")
    assert nothing.returncode == 1
    assert "name a reward that exists: --reward-model" in nothing.stderr
    done = heedful("align", "ppo", "--config", config, "--reward-model", function, "--output", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    terms = (
        f'\n[[reward.terms]]\nsource = "{function}"\n\n[[reward.terms]]\nsource = "{files / "classifier"}"\nlabel = "kind"\n'
    )
    config = small_run.write_config(tmp_path / "terms.toml", tiny, more=terms)
    done = heedful("align", "ppo", "--config", config, "--output", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert {"term_brevity", "term_classifier"} <= set(read_metrics(tmp_path / "two")[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "either from --preferences or from --labelled"),
        (("--labelled", "labelled.csv"), "labelled.wanted must name the label"),
        (("--labelled", "labelled.csv", "--wanted", "great"), "Labels: 'kind' (60 texts), 'rude' (60 texts)"),
        (("--labelled", "absent.csv", "--wanted", "kind"), "absent.csv: cannot be read"),
    ],
)
def test_what_training_cannot_do_is_one_paragraph(
    tiny: Path, files: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    given = [str(files / option) if option.endswith(".csv") else option for option in options]
    failed = heedful("reward", "train", "--model", tiny, "--output", tmp_path / "rm", *given)
    assert failed.returncode == 1
    assert said in failed.stderr
