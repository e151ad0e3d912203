"""Implicit Q-learning on the tiny model: it learns what was liked, decodes accordingly, resumes, and says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import judged
import pytest
import tiny_model
import torch

from heedful.config import Config, ILQLSection, ModelSection
from heedful.data.bundled import load_bundled
from heedful.data.formats import read_preferences
from heedful.engine.generation import Decoding, sample
from heedful.errors import ConfigError, DataError, SourceError
from heedful.models.ilql import ILQLHeads, load_policy
from heedful.models.policy import LanguageModel, load_language_model
from heedful.models.reward import Answer, answer_of
from heedful.records import Completion, Message, Preference, Sampling, Vote
from heedful.stages import ilql
from heedful.stages.ilql import align_ilql, outcomes, read_episodes
from heedful.store import read_metrics, write_jsonl
from heedful.training.ilql import ILQL

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("m") / "tiny")


@pytest.fixture(scope="module")
def model(tiny: Path) -> LanguageModel:
    return load_language_model(str(tiny), dtype=torch.float32, device=CPU)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judged.write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", 60)


def config_of(tiny: Path, **ilql: object) -> Config:
    given = {"epochs": 40, "learning_rate": 0.01, "polyak": 0.1, "width": 32, "rank": 8, "top_k": 0} | ilql
    return Config(model=ModelSection(source=str(tiny), dtype="float32"), ilql=ILQLSection.model_validate(given))


@pytest.fixture(scope="module")
def trained(tiny: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    align_ilql(config_of(tiny), folder, preferences=[pairs])
    return folder


def fresh_heads(model: LanguageModel, seed: int = 0) -> ILQLHeads:
    heads = ILQLHeads(model.head_VD, rank=8, width=16, seed=seed)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return heads


def test_heldout_pairs_are_told_apart(trained: Path) -> None:
    result = json.loads((trained / "ilql" / "result.json").read_text())
    assert result["num_pairs"] >= 5
    assert result["accuracy"]["estimate"] > 0.8
    rows = read_metrics(trained)
    assert rows[-1]["heldout_accuracy"] > 0.8
    assert rows[-1]["heldout_advantage_accuracy"] > 0.5
    assert rows[-1]["td_loss"] < 0.5 * rows[0]["td_loss"]


def test_decoding_prefers_what_was_liked(trained: Path, model: LanguageModel) -> None:
    """After prompts it never learned from, a liked completion gains log-probability over a disliked one as beta rises."""
    prompts = [prompt.messages for prompt in load_bundled()[60:70]]
    answers = [answer_of(model, prompt, text) for prompt in prompts for text in (judged.GOOD[0], judged.BAD[0])]
    episodes = read_episodes(model, answers, [0.0] * len(answers))
    leads = []
    for beta in (0.0, 4.0, 16.0):
        _, reweight = load_policy(str(trained / "ilql" / "policy"), dtype=torch.float32, device=CPU, beta=beta)
        assert reweight is not None
        logprobs = []
        for episode in episodes:
            logits_TV = torch.nn.functional.linear(episode.features_TD, model.head_VD)
            weighed_TV = torch.log_softmax(reweight(episode.features_TD, logits_TV), dim=1)
            logprobs.append(float(weighed_TV.gather(1, episode.actions_T[:, None]).detach().mean()))
        leads.append(sum(logprobs[0::2]) - sum(logprobs[1::2]))
    assert leads[0] < leads[1] < leads[2], leads


def test_beta_zero_samples_what_the_model_samples(trained: Path, model: LanguageModel) -> None:
    _, reweight = load_policy(str(trained / "ilql" / "policy"), dtype=torch.float32, device=CPU, beta=0.0)
    prompts = [model.chat.prompt_ids(prompt.messages) for prompt in load_bundled()[:4]]
    plain, weighed = (
        sample(
            model,
            prompts,
            Decoding(1.0, 1.0, 8),
            adapter=None,
            samples_per_prompt=2,
            generator=torch.Generator().manual_seed(0),
            reweight=how,
        )
        for how in (None, reweight)
    )
    assert [[r.ids for r in row] for row in plain] == [[r.ids for r in row] for row in weighed]


def test_q_of_all_tokens_equals_q_of_each(model: LanguageModel) -> None:
    """Decoding and training see the same Q: log-weights less log-probs are beta (Q - V), token by token."""
    heads = fresh_heads(model)
    heads.target.load_state_dict(heads.q.state_dict())
    hidden_ND = torch.randn(3, model.hidden_size, generator=torch.Generator().manual_seed(0))
    logits_NV = torch.randn(3, model.head_VD.shape[0], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        weighed_NV = heads.reweight(beta=2.0, top_k=0)(hidden_ND, logits_NV)
        gained_NV = weighed_NV - torch.log_softmax(logits_NV, dim=1)
        for token in (0, 5, 77):
            q_N = heads.q_of(hidden_ND, torch.full((3,), token))
            torch.testing.assert_close(gained_NV[:, token], 2.0 * (q_N - heads.values(hidden_ND)), atol=1e-4, rtol=1e-4)


def test_fresh_heads_value_everything_at_zero_and_are_smaller_than_a_q_head(model: LanguageModel) -> None:
    heads = ILQLHeads(model.head_VD, rank=4, width=8, seed=0)
    hidden_ND = torch.randn(5, model.hidden_size)
    assert not heads.values(hidden_ND).any()
    assert not heads.q_of(hidden_ND, torch.arange(5)).any()
    names = set(heads.state_dict())
    assert not any("embedding" in name for name in names), "the unembedding belongs to the model"
    assert sum(p.numel() for p in heads.q.parameters()) < model.head_VD.numel()


def test_features_are_those_before_each_response_token(model: LanguageModel) -> None:
    texts = ["Of course, with pleasure, as soon as I can.", "No."]
    answers = [answer_of(model, (Message(role="user", content="Hi."),), text) for text in texts]
    episodes = read_episodes(model, answers, [1.0, -0.5])
    for answer, episode, outcome in zip(answers, episodes, (1.0, -0.5), strict=True):
        ids = torch.tensor([[*answer.prompt_ids, *answer.response_ids]])
        with torch.no_grad():
            hidden_SD = model.hidden(ids, torch.ones_like(ids, dtype=torch.bool), adapter=None)[0]
        start = len(answer.prompt_ids) - 1
        # Another batch shape rounds otherwise.
        torch.testing.assert_close(
            episode.features_TD, hidden_SD[start : start + len(answer.response_ids)], atol=1e-4, rtol=1e-4
        )
        assert episode.actions_T.tolist() == answer.response_ids
        assert episode.rewards_T.tolist() == [0.0] * (len(answer.response_ids) - 1) + [outcome]


def test_outcomes_are_means_over_pairs_and_votes() -> None:
    asked = (Message(role="user", content="Hi."),)

    def pair(chosen: str, rejected: str, probability: float) -> Preference:
        fields = {"chosen": chosen, "rejected": rejected, "probability": probability}
        return Preference(prompt_id="p", prompt=asked, judges=1, source="human", **fields)

    found = outcomes([pair("a", "b", 1.0), pair("a", "c", 0.75), pair("b", "c", 0.5)], [("p", asked, "c", 1.0)])
    # a: (1 + 0.5) / 2; b: (-1 + 0) / 2; c: (-0.5 + 0 + 1) / 3.
    assert {key[1]: outcome for key, (_, outcome) in found.items()} == pytest.approx({"a": 0.75, "b": -0.5, "c": 1 / 6})


def test_a_sample_of_tokens_estimates_the_conservative_term(model: LanguageModel) -> None:
    """Over many draws the mean over a sample, weighed up, is the mean over all; each draw comes from the step's number."""
    heads = fresh_heads(model)
    draw = torch.Generator().manual_seed(0)
    z_NR, actions_N = torch.randn(12, 8, generator=draw), torch.randint(0, 400, (12,), generator=draw)
    with torch.no_grad():
        keys_VR = heads.q.keys(heads.embedding_VD)
        whole, part = (ILQL(heads, [], [], settings=ILQLSection(cql_tokens=n), seed=0) for n in (0, 5))
        exact = whole._q_logprobs(z_NR, keys_VR, actions_N, 0)
        torch.testing.assert_close(exact, torch.log_softmax(z_NR @ keys_VR.T, 1).gather(1, actions_N[:, None])[:, 0])
        drawn = torch.stack([part._q_logprobs(z_NR, keys_VR, actions_N, step).mean() for step in range(2000)])
        assert torch.equal(part._q_logprobs(z_NR, keys_VR, actions_N, 3), part._q_logprobs(z_NR, keys_VR, actions_N, 3))
        assert int((part._q_logprobs(z_NR, keys_VR, actions_N, 3) != 0).sum()) == 5
    assert abs(float(drawn.mean() - exact.mean())) < 4 * float(drawn.std()) / 2000**0.5
    assert float(drawn.std()) > 0


def test_resumed_equals_uninterrupted(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    short = config_of(tiny, epochs=1, batch_episodes=8, checkpoint_every=4, eval_every=3)

    def stop(done: int, total: int, note: str) -> None:
        if done == 6:
            raise KeyboardInterrupt

    align_ilql(short, tmp_path / "whole", preferences=[pairs])
    with pytest.raises(KeyboardInterrupt):
        align_ilql(short, tmp_path / "cut", preferences=[pairs], progress=stop)
    align_ilql(short, tmp_path / "cut", preferences=[pairs])
    logs = [
        [{key: value for key, value in row.items() if key != "time"} for row in read_metrics(tmp_path / name)]
        for name in ("whole", "cut")
    ]
    assert len(logs[0]) > 6
    assert logs[0] == logs[1]
    heads = [(tmp_path / name / "ilql" / "policy" / "heads.safetensors").read_bytes() for name in ("whole", "cut")]
    assert heads[0] == heads[1]


def test_votes_are_learned_from(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    prompts = load_bundled()[:60]
    written = [
        Completion(
            id=f"{prompt.id}/1",
            prompt_id=prompt.id,
            text="A vote was cast on this.",
            model="m",
            finish="stop",
            sampling=Sampling(temperature=1.0, top_p=1.0, seed=0, max_new_tokens=9),
        )
        for prompt in prompts
    ]
    cast = [
        Vote(completion_id=c.id, prompt_id=c.prompt_id, labeler="l", value=1, created_at="2026-01-01T00:00:00Z")
        for c in written
    ]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    write_jsonl(tmp_path / "completions.jsonl", written)
    write_jsonl(tmp_path / "votes.jsonl", cast)
    short = config_of(tiny, epochs=1)
    with pytest.raises(ConfigError, match="--prompts and --completions"):
        align_ilql(short, tmp_path / "out", preferences=[pairs], votes=[tmp_path / "votes.jsonl"])
    files = {"prompts": tmp_path / "prompts.jsonl", "completions": tmp_path / "completions.jsonl"}
    alone = align_ilql(short, tmp_path / "alone", preferences=[pairs])
    found = align_ilql(short, tmp_path / "out", preferences=[pairs], votes=[tmp_path / "votes.jsonl"], **files)
    train_prompts = len({p.prompt_id for p in read_preferences(pairs)}) - alone["num_prompts"]
    assert found["num_training_completions"] == alone["num_training_completions"] + train_prompts
    write_jsonl(tmp_path / "votes.jsonl", [cast[0].model_copy(update={"completion_id": "absent"})])
    with pytest.raises(DataError, match="'absent'"):
        align_ilql(short, tmp_path / "out", preferences=[pairs], votes=[tmp_path / "votes.jsonl"], **files)


def test_what_cannot_be_loaded_is_named(tiny: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing that beta could weigh"):
        load_policy(str(tiny), dtype=torch.float32, device=CPU, beta=1.0)
    broken = tmp_path / "policy"
    broken.mkdir()
    for name in ("heads.safetensors", "heedful.json"):
        (broken / name).write_bytes((trained / "ilql" / "policy" / name).read_bytes())
    about = json.loads((broken / "heedful.json").read_text())
    (broken / "heedful.json").write_text(json.dumps(about | {"rank": 3}))
    with pytest.raises(SourceError, match="train them again"):
        load_policy(str(broken), dtype=torch.float32, device=CPU)


def test_too_long_completions_are_an_error_that_names_the_setting(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ilql\.max_tokens = 16"):
        align_ilql(config_of(tiny, max_tokens=16), tmp_path, preferences=[pairs])


def test_an_answer_that_was_cut_off_earns_on_its_last_word(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    """An end of text that nobody wrote would carry the reward."""
    given = read_preferences(pairs)
    cut = [
        Completion(
            id=f"c{i}",
            prompt_id=pair.prompt_id,
            text=pair.rejected,
            model="m",
            finish="length",
            sampling=Sampling(temperature=1.0, top_p=1.0, seed=0, max_new_tokens=9),
        )
        for i, pair in enumerate(given)
    ]
    write_jsonl(tmp_path / "completions.jsonl", cut)
    seen: list[Answer] = []
    made = ilql.read_episodes

    def spy(model: LanguageModel, answers: Sequence[Answer], *rest: Any) -> Any:
        seen.extend(answers)
        return made(model, answers, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ilql, "read_episodes", spy)
        align_ilql(config_of(tiny, epochs=1), tmp_path / "out", preferences=[pairs], completions=tmp_path / "completions.jsonl")
    short = {pair.rejected for pair in given} - {pair.chosen for pair in given}
    assert {answer.finished for answer in seen if answer.text in short} == {False}
    assert {answer.finished for answer in seen if answer.text not in short} == {True}
