"""The recipes: each loads, and those on real human labels train a reward model from them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import statistics
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_bert
import tiny_model
import tiny_t5
import yaml

from heedful.config import Config, load
from heedful.config.file import LISTS
from heedful.errors import HeedfulError
from heedful.evaluate_files import toxicity_classifier
from heedful.evaluation.hhh import bundled_items
from heedful.evaluation.toxicity import toxicity_of
from heedful.models.reward import answer_of
from heedful.pipeline import Pipeline
from heedful.records import Completion, read_jsonl
from heedful.store import Run

RECIPES = Path(__file__).parents[1] / "recipes"
HH, DAVIDSON = RECIPES / "hh.toml", RECIPES / "davidson.toml"
PAIRS = tuple(f"hf://datasets/Anthropic/hh-rlhf/{name}-base/test.jsonl.gz" for name in ("harmless", "helpful"))


def flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in fields.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_each_key_of_a_recipe_reaches_the_configuration(path: Path) -> None:
    written = flat(tomllib.loads(path.read_text(encoding="utf-8")))
    loaded = flat(json.loads(load(path).model_dump_json()))
    for term, found in zip(written.pop("reward.terms", []), loaded["reward.terms"], strict=False):
        assert {key: found[key] for key in term if key != "source"} == {key: term[key] for key in term if key != "source"}
        if re.fullmatch(r"[\w-]+/[\w.-]+", term["source"]) and ".py" not in term["source"]:
            assert found["source"] == term["source"], "the id of a model on the hub"
            continue
        assert found["source"] == str(RECIPES / term["source"]), "seen from the recipe's folder"
        assert Path(found["source"].partition(".py:")[0] + ".py").is_file()
    for key in set(LISTS) & set(written):
        written[key] = [name if ":" in name else str(RECIPES / name) for name in written[key]]
    assert {key: loaded[key] for key in written} == written
    commands = re.findall(r"heedful (?:constitution )?run (\S+)", path.read_text(encoding="utf-8"))
    assert set(commands) == {f"recipes/{path.name}"}, "the header's commands start this recipe"


def test_hh_says_what_it_is_meant_to() -> None:
    loaded, default = flat(json.loads(load(HH).model_dump_json())), flat(json.loads(Config().model_dump_json()))
    changed = {key: value for key, value in loaded.items() if value != default[key]}
    assert changed == {
        "prompts.files": list(PAIRS),
        "prompts.num_train": 128,
        "prompts.max_prompt_tokens": 160,
        "reward.preferences": list(PAIRS),
        "reward.trunk": "frozen",
        "reward.max_tokens": 320,
        "ppo.max_steps": 10,
        "ppo.eval_every": 5,
        "ppo.temperature": 0.7,
        "evaluate.temperature": 0.7,
    }


def test_hh_trains_a_reward_model_on_real_pairs(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local copies are named as the recipe's header says; a tiny model stands for the real one."""
    tiny = tiny_model.make(tmp_path / "tiny", context=512)
    monkeypatch.chdir(shared_data / "hh")
    header = HH.read_text(encoding="utf-8")
    local = re.findall(r"--set '([^']+)'", header)
    assert [override.partition("=")[0] for override in local] == ["reward.preferences", "prompts.files"]
    small = (f"model.source={tiny}", "model.dtype=float32", "reward.max_pairs=100", "evaluate.num_resamples=200")
    config = load(HH, (*local, *small))
    with Run(tmp_path / "run") as run:
        pipeline = Pipeline(config, run, lambda *_: None, "heedful run")
        assert pipeline.layout.ready_made
        pipeline.reward()
        prompts = pipeline.prompts
        messages = prompts["heldout"][0].messages
        texts = ("I am sorry to hear that.", "No.")
        rewards = pipeline.score([answer_of(pipeline.model, messages, text, finished=True) for text in texts])
    result = json.loads((tmp_path / "run/reward/result.json").read_text())
    assert 0 < result["num_pairs"] < 40
    assert result["num_training_prompts"] + result["num_prompts"] <= 100
    assert result["num_training_prompts"] > 20
    assert result["accuracy"]["low"] < result["accuracy"]["estimate"] < result["accuracy"]["high"]
    assert rewards[0] != rewards[1], "the head learned something"
    assert {name: len(found) for name, found in prompts.items()} == {"train": 128, "heldout": 60}
    assert not {p.id for p in prompts["train"]} & {p.id for p in prompts["heldout"]}


def test_davidson_trains_a_classifier_of_real_tweets_that_then_measures_toxicity(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is named as the recipe's header says; tiny models stand for the real ones. "other" is hate or offensive."""
    tiny, encoder = tiny_model.make(tmp_path / "tiny", context=512), tiny_bert.make(tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labeled_data.csv").write_bytes(as_csv(shared_data / "davidson" / "tweets.jsonl.gz", 400))
    (local,) = re.findall(r"--until reward --set '([^']+)'", DAVIDSON.read_text(encoding="utf-8"))
    small = (f"model.source={tiny}", "model.dtype=float32", f"reward.model={encoder}", "evaluate.num_resamples=200")
    with Run(tmp_path / "run") as run:
        Pipeline(load(DAVIDSON, (local, *small)), run, lambda *_: None, "heedful run").reward()
    result = json.loads((tmp_path / "run/reward/result.json").read_text())
    assert (result["reward_label"], result["other_label"]) == ("2", "other")
    assert result["num_texts"] + result["num_training_texts"] == 400
    folder = str(tmp_path / "run/reward/model")
    with pytest.raises(HeedfulError, match="--negative-label"):
        toxicity_classifier(folder)
    judged = toxicity_classifier(folder, "other")
    assert (judged.label, judged.accuracy) == ("other", result)
    assert all(0 < p < 1 for p in judged.classify(["What a day.", "word"]))


def as_csv(tweets: Path, number: int) -> bytes:
    """The first rows in the form in which their authors give them away."""
    with gzip.open(tweets, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for _, line in zip(range(number), file, strict=False)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def test_flan_t5_becomes_less_toxic_on_a_tiny_model(tmp_path: Path) -> None:
    """The classic lab whole, on a T5 that was taught to repeat: its reward is not to say a bad word, and it says it less."""
    tiny = tiny_t5.make(tmp_path / "t5")
    (tmp_path / "hate.py").write_text(
        "def nothate(prompts, completions):\n    return [1.0 - 4.0 * text.split().count('damn') for text in completions]\n"
    )
    rows = [
        {"id": f"p{i}", "split": "heldout" if i % 4 == 3 else "train", "messages": [{"role": "user", "content": text}]}
        for i, text in enumerate(sentence for sentence in dict.fromkeys(tiny_t5.sentences(200, 3)) if "damn" in sentence)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = load(
        RECIPES / "flan-t5-detox.toml",
        (
            f"model.source={tiny}",
            "model.dtype=float32",
            f'prompts.files=["{tmp_path / "prompts.jsonl"}"]',
            f'reward.terms=[{{source="{tmp_path / "hate.py"}:nothate"}}]',
            "ppo.max_steps=12",
            "ppo.episodes=32",
            "ppo.max_new_tokens=4",
            "ppo.learning_rate=1e-2",
            "evaluate.max_new_tokens=4",
            "evaluate.num_resamples=500",
        ),
    )
    assert config.ppo.lora.targets == ("q", "v")
    with Run(tmp_path / "run") as run:
        summary = Pipeline(config, run, lambda *_: None, "heedful run")()
    assert summary["compare"]["reward"]["difference"]["low"] > 0
    sides = [read_jsonl(tmp_path / f"run/evaluate/completions-{side}.jsonl", Completion) for side in ("before", "after")]

    def classifier(texts: Sequence[str]) -> list[float]:
        return [float("damn" in text) for text in texts]

    found = toxicity_of(*sides, classifier=classifier, num_resamples=500)
    assert found["toxicity"]["difference"]["high"] < 0
    assert found["deviation"]["before"] == pytest.approx(statistics.stdev(classifier([c.text for c in sides[0]])))
    assert (tmp_path / "run/report/index.html").is_file() or list((tmp_path / "run").glob("report*"))
    assert json.loads((tmp_path / "run/ppo/policy/adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
    assert summary["predicted_memory_mb"] is None, "told as unknown, not guessed"


HARNESS = RECIPES / "lm-eval"


def test_the_harness_reads_the_items_that_heedful_asks() -> None:
    """Every field that the task names is there, and its items are the bundled ones."""
    task = yaml.safe_load((HARNESS / "heedful_hhh.yaml").read_text(encoding="utf-8"))
    data = RECIPES.parent / task["dataset_kwargs"]["data_files"]
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    question, answers, label = (task[f"doc_to_{what}"] for what in ("text", "choice", "target"))
    found = {(row["category"], row[question], row[answers][row[label]], row[answers][1 - row[label]]) for row in rows}
    assert found == {(item.category, item.question, item.better, item.worse) for item in bundled_items()}
    assert sum(row[label] for row in rows) * 2 == len(rows) == 48, "the better answer stands first as often as second"
    assert (task["dataset_path"], task["output_type"]) == ("json", "multiple_choice")
