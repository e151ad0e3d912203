"""Training every kind of reward model: classifiers, margins, ties, ensembles; saved, loaded and asked as a source."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import tiny_bert
import tiny_model
import torch

from heedful.config import LabelledSection, LoraSection, RewardSection, RewardTermSection
from heedful.errors import ConfigError, DataError, ModelError, SourceError
from heedful.models.policy import LanguageModel, load_language_model
from heedful.models.reward import AdapterReward, Answer, answer_of
from heedful.models.sources import resolve
from heedful.records import Message, Preference
from heedful.rewards.mixture import Ensemble, Reward
from heedful.rewards.source import Retokenised, Sources
from heedful.stages.reward import require_consistent, train_reward
from heedful.store import read_metrics
from heedful.training.reward import group_pairs

CPU = torch.device("cpu")
# Rewards of a batch and of single answers differ by the order of sums.
SAME = 1e-5
QUICK: dict[str, Any] = {
    "lora": LoraSection(rank=4, layers=2),
    "epochs": 6,
    "learning_rate": 1e-3,
    "head_learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert.make(tmp_path_factory.mktemp("bert") / "bert")


def base_of(tiny: Path) -> LanguageModel:
    return load_language_model(str(tiny), dtype=torch.float32, device=CPU)


def pairs(count: int = 40, *, ties: int = 0) -> list[Preference]:
    """People here prefer "kind" to "rude", whatever else is said; the first `ties` prompts have two kind answers, level."""
    found = []
    for i in range(count):
        prompt = (Message(role="user", content=f"question number {i} ?"),)
        filler = "word " * (i % 4)
        worse, probability, margin = ("kind ?", 0.5, 0.0) if i < ties else ("rude .", 1.0, 1.0 + i % 3)
        found.append(
            Preference(
                prompt_id=f"p{i}", prompt=prompt, chosen=f"{filler}kind .", rejected=f"{filler}{worse}",
                probability=probability, margin=margin,
            )
        )  # fmt: skip
    return found


def trained(
    base: LanguageModel, folder: Path, settings: RewardSection, given: list[Preference] | None = None
) -> tuple[Reward, dict[str, Any]]:
    return train_reward(
        base, settings, folder / "reward", pairs=pairs() if given is None else given, written={}, seed=0, device=CPU,
        num_resamples=200, progress=lambda *_: None,
    )  # fmt: skip


def answers_of(base: LanguageModel) -> list[Answer]:
    return [answer_of(base, pair.prompt, text, finished=True) for pair in pairs(6) for text in (pair.chosen, pair.rejected)]


def labelled(folder: Path, count: int = 240) -> Path:
    """Texts of the words the tiny BERT knows, rude ones in two kinds."""
    rng = random.Random(0)
    rows = []
    for i in range(count):
        label = ("kind", "rude", "vile")[i % 3]
        word = "kind" if label == "kind" else "rude"
        rows.append({"text": " ".join(["number", *rng.choices("0123456789", k=1 + i % 4), word, "."]), "label": label})
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "labelled.jsonl"


@pytest.mark.parametrize("kind", ["adapter", "frozen", "encoder", "frozen encoder"])
def test_classifier_learns_and_is_the_same_as_a_source(tiny: Path, bert: Path, tmp_path: Path, kind: str) -> None:
    base = base_of(tiny)
    settings = RewardSection(
        model=str(bert) if "encoder" in kind else "",
        trunk="frozen" if "frozen" in kind else "adapter",
        pooling="mean" if "encoder" in kind else "last+mean",
        labelled=LabelledSection(files=(str(labelled(tmp_path)),), wanted="kind"),
        **QUICK,
    )
    reward, result = trained(base, tmp_path, settings)
    assert result["accuracy"]["low"] > result["majority_class"], result
    assert result["auc"]["estimate"] > 0.9
    assert (result["reward_label"], result["other_label"]) == ("kind", "other")
    about = json.loads((tmp_path / "reward" / "model" / "reward.json").read_text())
    assert about["labels"] == ["other", "kind"]
    assert about["reads"] == "answer"
    answers = answers_of(base)
    before = reward(answers)
    assert all(kind_ > rude for kind_, rude in zip(before[::2], before[1::2], strict=True))
    sources = Sources(base, dtype=torch.float32, device=CPU)
    source = RewardTermSection(source=str(tmp_path / "reward" / "model"))
    assert sources.reward(source)(answers) == pytest.approx(before, abs=SAME)
    other = sources.reward(source.model_copy(update={"label": "other"}))(answers)
    assert other == pytest.approx([-value for value in before], abs=1e-4), "two logits that began at zero mirror each other"
    with pytest.raises(ModelError, match="no label 'good'; its labels: 'other', 'kind'"):
        sources.reward(source.model_copy(update={"label": "good"}))


def test_classifier_of_answers_alone_does_not_see_the_prompt(tiny: Path, tmp_path: Path) -> None:
    base = base_of(tiny)
    settings = RewardSection(labelled=LabelledSection(files=(str(labelled(tmp_path)),), wanted="kind"), **QUICK)
    reward, _ = trained(base, tmp_path, settings)
    texts = [answer_of(base, (Message(role="user", content=asked),), "kind .", finished=True) for asked in ("Hi", "Why so?")]
    first, second = reward(texts)
    assert first == pytest.approx(second, abs=SAME)
    empty = Answer(texts[0].messages, "", texts[0].prompt_ids, [])
    assert len(reward([empty])) == 1


def test_real_labelled_tweets_beat_the_larger_class(shared_data: Path, tiny: Path, tmp_path: Path) -> None:
    """300 tweets without offence and 300 hateful or offensive ones (Davidson et al. 2017), a head on a frozen encoder."""
    try:
        resolve("minilm-22m")
    except SourceError as error:
        if os.environ.get("HEEDFUL_CI") == "1":
            raise
        pytest.skip(str(error))
    with gzip.open(shared_data / "davidson" / "tweets.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    random.Random(0).shuffle(rows)
    fine = [row for row in rows if row["class"] == "2"][:300]
    rude = [row for row in rows if row["class"] != "2"][:300]
    lines = [json.dumps({"text": row["tweet"], "label": row["class"]}) + "\n" for row in (*fine, *rude)]
    (tmp_path / "tweets.jsonl").write_text("".join(lines))
    settings = RewardSection(
        model="minilm-22m",
        trunk="frozen",
        pooling="mean",
        labelled=LabelledSection(files=(str(tmp_path / "tweets.jsonl"),), wanted="2"),
    )
    _, result = trained(base_of(tiny), tmp_path, settings)
    assert result["majority_class"] < 0.6
    assert result["accuracy"]["low"] > result["majority_class"] + 0.1, result
    assert result["auc"]["low"] > 0.75, result


def test_margins_push_rewards_apart(tiny: Path, tmp_path: Path) -> None:
    """Margins are 1 to 3: with weight 2, rewards are asked to differ by 2 to 6 more."""
    spread = {}
    for weight in (0.0, 2.0):
        base = base_of(tiny)
        quick = QUICK | {"epochs": 12, "head_learning_rate": 3e-2}
        settings = RewardSection(margin_weight=weight, **quick)
        reward, _ = trained(base, tmp_path / str(weight), settings)
        rewards = reward(answers_of(base))
        spread[weight] = sum(a - b for a, b in zip(rewards[::2], rewards[1::2], strict=True)) / 6
    assert spread[2.0] > spread[0.0] + 0.5, spread


@pytest.mark.parametrize("model", ["davidson", "rao-kupper"])
def test_ties_teach_their_parameter(tiny: Path, tmp_path: Path, model: Any) -> None:
    learnt = {}
    for ties in (0, 30):
        settings = RewardSection(ties=model, **QUICK)
        _, result = trained(base_of(tiny), tmp_path / str(ties), settings, pairs(60, ties=ties))
        learnt[ties] = result["tie_parameter"]
        assert (result["num_training_ties"] > 0) == (ties > 0)
    start = 1.0 if model == "davidson" else 2.0
    assert learnt[0] < start, "where nothing ties, ties become unlikely"
    assert learnt[30] > learnt[0] + 0.1, learnt
    fixed = RewardSection(ties=model, tie_parameter=3.0, **QUICK)
    _, result = trained(base_of(tiny), tmp_path / "fixed", fixed, pairs(ties=10))
    assert result["tie_parameter"] == pytest.approx(3.0, rel=1e-5)
    rows = read_metrics(tmp_path / "fixed")
    assert rows[0]["tie_parameter"] == pytest.approx(3.0, rel=1e-5)


def test_ties_are_dropped_or_kept_at_one_half(tiny: Path, tmp_path: Path) -> None:
    counted = {}
    for ties in ("drop", "soft"):
        settings = RewardSection(ties=ties, **QUICK)  # type: ignore[arg-type]
        _, counted[ties] = trained(base_of(tiny), tmp_path / ties, settings, pairs(60, ties=30))
    assert "num_training_ties" not in counted["drop"]
    assert counted["soft"]["num_training_ties"] > 10
    assert counted["soft"]["num_training_prompts"] > counted["drop"]["num_training_prompts"] + 10
    assert counted["soft"]["num_pairs"] == counted["drop"]["num_pairs"], "a tie has no right answer to be measured on"


def test_first_loss_of_a_model_with_ties_is_log_3(tiny: Path, tmp_path: Path) -> None:
    """A head at zero says that all three outcomes are as likely."""
    trained(base_of(tiny), tmp_path, RewardSection(ties="davidson", **QUICK), pairs(ties=10))
    assert read_metrics(tmp_path)[0]["loss"] == pytest.approx(1.098612, abs=1e-5)


@pytest.mark.parametrize("kind", ["adapter", "encoder"])
def test_ensemble_is_trained_saved_and_asked(tiny: Path, bert: Path, tmp_path: Path, kind: str) -> None:
    base = base_of(tiny)
    settings = RewardSection(
        model=str(bert) if kind == "encoder" else "", ensemble=3, aggregate="mean-sd", disagreement_coef=0.7, **QUICK
    )
    reward, result = trained(base, tmp_path, settings)
    assert isinstance(reward, Ensemble)
    assert len(result["members"]) == 3
    assert result["accuracy"]["estimate"] == 1.0
    answers = answers_of(base)
    before = reward(answers)
    spread = reward.measured["ensemble_sd"]
    assert spread > 1e-3, "members from three seeds differ"
    again = Sources(base_of(tiny), dtype=torch.float32, device=CPU).reward(
        RewardTermSection(source=str(tmp_path / "reward" / "model"))
    )
    assert again(answers) == pytest.approx(before, abs=1e-4)
    assert again.measured["ensemble_sd"] == pytest.approx(spread, abs=1e-4)
    stages = [row["stage"] for row in read_metrics(tmp_path)]
    assert set(stages) == {"reward", "reward-1", "reward-2"}
    # The rule is what is in the folder: mean less 0.7 sd of the scaled members.
    columns = [
        [(value - scale.mean) / scale.sd for value in member(answers[:1])]
        for member, scale in zip(reward.members, reward.scales, strict=True)
    ]
    values = torch.tensor(columns, dtype=torch.float64)[:, 0]
    assert before[0] == pytest.approx(float(values.mean() - 0.7 * values.std(correction=0)), abs=SAME)


def test_several_folders_make_an_ensemble(tiny: Path, bert: Path, tmp_path: Path) -> None:
    base = base_of(tiny)
    for name, model in (("a", ""), ("b", str(bert))):
        trained(base, tmp_path / name, RewardSection(model=model, **QUICK))
    folders = [str(tmp_path / name / "reward" / "model") for name in "ab"]
    sources = Sources(base, dtype=torch.float32, device=CPU, aggregate="worst", coef=0.0)
    both = sources.reward(RewardTermSection(source="ensemble:" + ",".join(folders)))
    answers = answers_of(base)
    single = [sources.reward(RewardTermSection(source=folder))(answers) for folder in folders]
    assert both(answers) == pytest.approx([min(row) for row in zip(*single, strict=True)], abs=SAME)


def test_a_reward_model_on_another_base_reads_its_own_tokens(tiny: Path, tmp_path: Path) -> None:
    """The policy's ids mean other words there: fed as they are, the reward would be of another text."""
    other = tiny_model.make(tmp_path / "other", pad_is_eos=False, seed=1)
    theirs = load_language_model(str(other), dtype=torch.float32, device=CPU)
    tokenizer = theirs.chat.tokenizer
    tokenizer.chat_template = tokenizer.chat_template.replace("user", "user").replace("assistant\n", "assistant: ")
    tokenizer.save_pretrained(other)
    theirs = load_language_model(str(other), dtype=torch.float32, device=CPU)
    trained(theirs, tmp_path, RewardSection(**QUICK))
    policy = base_of(tiny)
    reward = Sources(policy, dtype=torch.float32, device=CPU).reward(
        RewardTermSection(source=str(tmp_path / "reward" / "model"))
    )
    assert isinstance(reward.model, Retokenised)  # type: ignore[attr-defined]
    alone = Sources(None, dtype=torch.float32, device=CPU).reward(RewardTermSection(source=str(tmp_path / "reward" / "model")))
    assert reward(answers_of(policy)) == pytest.approx(alone(answers_of(theirs)), abs=SAME)


def test_a_reward_model_on_the_policys_base_reads_the_policys_very_tokens(tiny: Path) -> None:
    base = base_of(tiny)
    group = group_pairs(pairs(1), lambda _, messages, text: answer_of(base, messages, text, finished=True))[0]
    from heedful.stages.reward import new_reward_model

    fresh = new_reward_model(base, RewardSection(**QUICK), 0, CPU)
    assert isinstance(fresh, AdapterReward)
    answer = group.answers[0]
    assert fresh.tokens(answer) == (answer.prompt_ids, answer.response_ids)
    assert answer.response_ids[-1] == base.chat.end_id


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tie_parameter": 2.0}, "tie_parameter belongs to"),
        ({"ties": "rao-kupper", "tie_parameter": 1.0}, "is above 1"),
        ({"trunk": "frozen", "ties": "davidson"}, "knows neither margins nor models of ties"),
        ({"trunk": "frozen", "margin_weight": 1.0}, "knows neither margins"),
        ({"trunk": "frozen", "ensemble": 2}, "one best head whatever the seed"),
        ({"labelled": {"files": ["a"]}}, "labelled.wanted must name the label"),
        ({"labelled": {"files": ["a"], "wanted": "x"}, "preferences": ["b"]}, "not from both"),
    ],
)
def test_settings_that_cannot_be_meant_together(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_consistent(RewardSection.model_validate(settings))


def test_too_few_labelled_texts(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    settings = RewardSection(labelled=LabelledSection(files=(str(tmp_path / "few.jsonl"),), wanted="x"), **QUICK)
    with pytest.raises(DataError, match="not of both classes; label more texts"):
        trained(base_of(tiny), tmp_path, settings)
