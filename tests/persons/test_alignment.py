"""Personal rewards as what a policy is optimised for: opposed wishes, and what no wish turns off."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import small_run
import tiny_model
import torch
from in_process import assert_told, heedful

from heedful.config import Config, RewardTermSection, load
from heedful.engine.generation import Decoding, sample
from heedful.errors import ConfigError, DataError, SourceError, StoreError
from heedful.models.policy import POLICY, load_language_model
from heedful.models.reward import Answer
from heedful.persons.features import surface
from heedful.persons.folder import load as load_persons
from heedful.records import Completion, Message, Prompt, Sampling, Vote, read_jsonl
from heedful.rewards.personal import personal_place, require_known_persons
from heedful.rewards.source import Sources, local_inputs, named
from heedful.rounds import Round
from heedful.run_layout import Layout
from heedful.store import read_metrics, write_jsonl

NUM_TEXTS = 240
SAID = (Message(role="user", content="Tell me."),)
SMALL = (
    "rloo.missing_eos_penalty=0",
    "rloo.max_steps=4",
    "rloo.episodes=16",
    "rloo.max_new_tokens=16",
    "rloo.learning_rate=0.02",
    "rloo.eval_every=100",
)
SAME = 1e-6  # the same sums, in another order


def words(text: str) -> float:
    return float(np.expm1(surface(text)[0]))


def drawn(policy: Path, adapter: str | None, count: int) -> list[str]:
    """Answers to a few prompts that nobody was trained on, `count` to each."""
    model = load_language_model(str(policy), dtype=torch.float32, device=torch.device("cpu"))
    asked = [model.chat.prompt_ids((Message(role="user", content=text),)) for text in ("Say.", "Why?", "Go on.", "And you?")]
    generator = torch.Generator().manual_seed(1)
    found = sample(model, asked, Decoding(1.0, 1.0, 16), adapter=adapter, samples_per_prompt=count, generator=generator)
    return [model.chat.text(one.ids) for own in found for one in own]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("personal") / "tiny")


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Persons who like long answers (ada) and short ones (bob), one who has hardly spoken, and a team for which long ones are
    unsafe in `guarded`."""
    place = tmp_path_factory.mktemp("wishes")
    texts = drawn(tiny, None, NUM_TEXTS // 4)
    middle = float(np.median([words(text) for text in texts]))
    sampling = Sampling(temperature=1.0, top_p=1.0, seed=0, max_new_tokens=20)
    made = [
        Completion(id=f"t{number}", prompt_id="p", text=text, model="m", finish="stop", sampling=sampling)
        for number, text in enumerate(texts)
    ]

    def votes(who: str, likes_long: bool, count: int) -> list[Vote]:
        return [
            Vote.model_validate(
                {"completion_id": one.id, "prompt_id": "p", "labeler": who, "created_at": "2026-01-01"}
                | {"value": int((words(one.text) > middle) == likes_long)}
            )
            for one in made[:count]
        ]

    write_jsonl(place / "prompts.jsonl", [Prompt(id="p", messages=SAID)])
    write_jsonl(place / "completions.jsonl", made)
    write_jsonl(place / "votes.jsonl", [*votes("ada", True, 220), *votes("bob", False, 220), *votes("eve", True, 20)])
    write_jsonl(place / "brief.jsonl", votes("team", False, NUM_TEXTS))
    given = (
        "--votes",
        place / "votes.jsonl",
        "--prompts",
        place / "prompts.jsonl",
        "--completions",
        place / "completions.jsonl",
    )
    given += ("--features", "surface", "--text-scale", "0", "--num-heads", "1", "--ridge-heads", "1")
    assert heedful("persons", "fit", *given, "--output", place / "persons").returncode == 0
    done = heedful("persons", "fit", *given, "--safety-votes", place / "brief.jsonl", "--output", place / "guarded")
    assert done.returncode == 0, done.stderr
    return place


def rewards(source: str, said: list[str]) -> list[float]:
    term = RewardTermSection(source=source)
    sources = Sources(None, dtype=torch.float32, device=torch.device("cpu"))
    return sources.reward(term)([Answer(SAID, text, [], []) for text in said])


def num_words(policy: Path, adapter: str | None = POLICY) -> float:
    return float(np.mean([words(text) for text in drawn(policy, adapter, 16)]))


@pytest.fixture(scope="module")
def base(tiny: Path) -> float:
    return num_words(tiny, None)


def aligned(tiny: Path, source: str, output: Path, *more: str) -> Path:
    """The policy of `heedful align rloo` for the persons."""
    config = small_run.write_config(output.with_suffix(".toml"), tiny, more="[rloo.lora]\nrank = 4\nlayers = 2\n")
    sets = [part for one in (*SMALL, "monitor.on=false", *more) for part in ("--set", one)]
    done = heedful("align", "rloo", "--config", config, "--reward-model", source, "--output", output, *sets)
    assert done.returncode == 0, done.stderr
    return output / "rloo" / "policy"


def test_opposed_wishes_move_one_base_in_opposite_directions(tiny: Path, folder: Path, base: float, tmp_path: Path) -> None:
    after = {who: num_words(aligned(tiny, f"{folder}/persons#{who}", tmp_path / who)) for who in ("ada", "bob")}
    assert after["bob"] < 0.7 * base
    assert after["ada"] > 1.3 * base


def test_what_the_team_calls_unsafe_no_wish_brings_about(tiny: Path, folder: Path, base: float, tmp_path: Path) -> None:
    """Ada likes long answers as before, and now the team's safety head holds them to be unsafe."""
    policy = aligned(tiny, f"{folder}/guarded#ada", tmp_path / "ada")
    assert num_words(policy) < base
    rows = [row["unsafe_answers"] for row in read_metrics(tmp_path / "ada")]
    assert rows[0] > 0.2
    assert rows[-1] < rows[0]


def test_rewards_by_hand(tiny: Path, folder: Path) -> None:
    """Of each safe answer the person's reward; of the others no more than the worst of the fit, less what they lack."""
    said = ["", "One.", *drawn(tiny, None, 20)]
    kept = load_persons(folder / "guarded")
    counts = np.stack([surface(text) for text in said])
    mean, _ = kept.model.rewards("ada", counts, [f"new {number}" for number in range(len(said))])
    judged, _ = kept.model.rewards("ada", kept.features_TD, [text.id for text in kept.texts])
    safe = kept.model.heads.safety.scores(counts)[:, 0]
    found = rewards(f"{folder}/guarded#ada", said)
    assert 10 < sum(safe < 0) < len(said) - 10, "of both kinds"
    for reward, own, score in zip(found, mean, safe, strict=True):
        expected = own if score >= 0 else min(own, min(judged)) + score
        assert reward == pytest.approx(expected, abs=SAME)
    both = rewards(f"{folder}/guarded#ada, bob", said)
    bobs = rewards(f"{folder}/guarded#bob", said)
    for one, other, group, score in zip(found, bobs, both, safe, strict=True):
        if score >= 0:
            assert group == pytest.approx((one + other) / 2, abs=SAME)
        else:
            assert max(one, other, group) < min(reward for reward, s in zip(both, safe, strict=True) if s >= 0)


def test_new_answers_are_read_as_the_fit_read_its_own(tiny: Path, folder: Path, tmp_path: Path) -> None:
    """With the trunk of the policy's own model, which is not loaded twice, and in a batch of another shape."""
    files = ("--prompts", folder / "prompts.jsonl", "--completions", folder / "completions.jsonl")
    given = ("--votes", folder / "votes.jsonl", *files, "--text-scale", "0", "--num-heads", "1", "--features", tiny)
    assert heedful("persons", "fit", *given, "--output", tmp_path / "trunk").returncode == 0
    kept = load_persons(tmp_path / "trunk")
    expected, _ = kept.model.rewards("bob", kept.features_TD[:30], [""] * 30)
    model = load_language_model(str(tiny), dtype=torch.float32, device=torch.device("cpu"))
    sources = Sources(model, dtype=torch.float32, device=torch.device("cpu"))
    term = sources.reward(RewardTermSection(source=f"{tmp_path}/trunk#bob"))
    wanted = {text.id for text in kept.texts[:30]}
    words_of = {one.id: one.text for one in read_jsonl(folder / "completions.jsonl", Completion) if one.id in wanted}
    found = term([Answer(SAID, words_of[text.id], [], []) for text in kept.texts[:30]])
    assert found == pytest.approx(expected, abs=1e-3)
    assert max(expected) - min(expected) > 0.1


def test_without_a_safety_head_nothing_is_said_to_be_safe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def measured(source: str) -> tuple[dict[str, float], str]:
        term = Sources(None, dtype=torch.float32, device=torch.device("cpu")).reward(RewardTermSection(source=source))
        term([Answer(SAID, "Yes.", [], [])])
        return term.measured, capsys.readouterr().err

    found, said = measured(f"{folder}/persons#ada")
    assert found == {}
    assert said.startswith(f"{folder}/persons#ada: no safety head is in force")
    assert "--safety-votes or --safety-preferences of 'heedful persons fit'" in said
    found, said = measured(f"{folder}/guarded#ada")
    assert (list(found), said) == (["unsafe_answers"], "")


@pytest.mark.parametrize("method", ["ppo", "rloo", "grpo"])
def test_too_few_labels_are_refused_as_an_adapter_from_pairs_is(method: str, tiny: Path, folder: Path, tmp_path: Path) -> None:
    config = small_run.write_config(tmp_path / "small.toml", tiny)
    failed = heedful(
        "align", method, "--config", config, "--reward-model", f"{folder}/persons#eve", "--output", tmp_path / "out"
    )
    assert_told(failed, "'eve' gave 20 decided labels, and an adapter needs 200; collect 180 more", "heedful persons best")
    assert not (tmp_path / "out" / method).exists()
    files = ("--prompts", folder / "prompts.jsonl", "--completions", folder / "completions.jsonl")
    pairs = ("persons", "adapter", "--config", config, "--person", "eve", "--votes", folder / "votes.jsonl", *files)
    failed = heedful(*pairs, "--method", "kto", "--output", tmp_path / "own")
    assert_told(failed, "'eve' gave 20 votes, and an adapter needs 200; collect 180 more")


def test_a_group_is_enough_together_and_the_threshold_is_a_setting(folder: Path) -> None:
    require_known_persons([RewardTermSection(source=f"{folder}/persons#eve,ada")])
    require_known_persons([RewardTermSection(source=f"{folder}/persons#eve", min_labels=20)])
    with pytest.raises(DataError, match="these 2 persons gave 240 decided labels, and an adapter needs 241"):
        require_known_persons([RewardTermSection(source=f"{folder}/persons#eve,ada", min_labels=241)])


def test_another_threshold_makes_no_finished_stage_anew(folder: Path, tmp_path: Path) -> None:
    def settings(**fields: object) -> dict[str, object]:
        config = Config.model_validate({"reward": {"terms": [{"source": f"{folder}/persons#ada"} | fields]}})
        return Layout(config, tmp_path, Round(), config.reward.terms).align_settings

    assert settings(min_labels=20) == settings()
    assert settings(weight=2.0) != settings()


def test_what_cannot_be_meant_is_refused(folder: Path, tmp_path: Path) -> None:
    def refused(source: str, kind: type[Exception], match: str, **fields: float) -> None:
        with pytest.raises(kind, match=match):
            require_known_persons([RewardTermSection.model_validate({"source": source} | fields)])

    refused(f"{folder}/persons#adam", DataError, "there is no person 'adam' here; the nearest name is 'ada'")
    refused(f"{folder}/persons#", DataError, "there is no person ''")
    refused(f"{tmp_path}/absent#ada", StoreError, r"absent: holds no persons.json; name a folder that 'heedful persons fit'")
    refused(f"{folder}/persons#ada", ConfigError, "would turn the safety heads round", weight=-1.0)
    with pytest.raises(SourceError, match=r"'.*#ada' is no model"):
        rewards(f"ensemble:{folder}/persons#ada,{folder}/persons#bob", ["Hm."])
    with pytest.raises(SourceError, match="holds the rewards of persons; name whose"):
        rewards(str(folder / "persons"), ["Hm."])
    features = tmp_path / "own.npz"
    np.savez(
        features, ids=np.array([f"t{n}" for n in range(NUM_TEXTS)]), features=np.random.default_rng(0).random((NUM_TEXTS, 3))
    )
    files = ("--prompts", folder / "prompts.jsonl", "--completions", folder / "completions.jsonl")
    given = ("--votes", folder / "votes.jsonl", *files, "--features", features, "--output", tmp_path / "known")
    assert heedful("persons", "fit", *given).returncode == 0
    refused(f"{tmp_path}/known#ada", DataError, "an answer that is yet to be written has none; fit the persons with")


def test_a_folder_and_names_are_a_source_like_others(folder: Path, tmp_path: Path) -> None:
    assert personal_place("https://example.org/score#ada") is None
    assert personal_place("my#file.py:score") is None
    assert personal_place("hub/name") is None
    (tmp_path / "odd#name").mkdir()
    assert personal_place(f"{tmp_path}/odd#name") is None
    assert personal_place(f"{folder}/persons#a#b") == (folder / "persons", "a#b")
    term = RewardTermSection(source=f"{folder}/persons#ada,bob")
    assert local_inputs(term) == [folder / "persons"]
    assert list(named([term])) == ["persons-ada-bob"]
    (tmp_path / "own" / "persons").mkdir(parents=True)
    (tmp_path / "heedful.toml").write_text('[[reward.terms]]\nsource = "own/persons#ada"\n')
    assert load(tmp_path / "heedful.toml").reward.terms[0].source == f"{tmp_path.resolve()}/own/persons#ada"
    shutil.copytree(folder / "persons", tmp_path / "a#b" / "persons")
    (tmp_path / "heedful.toml").write_text('[[reward.terms]]\nsource = "a#b/persons#ada"\n')
    source = load(tmp_path / "heedful.toml").reward.terms[0].source
    assert source == f"{tmp_path.resolve()}/a#b/persons#ada"
    assert personal_place(source) == (tmp_path.resolve() / "a#b" / "persons", "ada")
