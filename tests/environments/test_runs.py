"""Environments by the ordinary way: runs, alignment alone, evaluation, chat, and the demonstration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from typer.testing import CliRunner

from heedful.cli.app import app
from heedful.config import Config, parse
from heedful.engine.conversation import Conversation
from heedful.engine.episodes import Step, World
from heedful.engine.generation import Decoding
from heedful.engine.responses import response_logprobs
from heedful.engine.sampling import play_completions, recorded_answer
from heedful.environments.conversation import Assistant, Called, ToolConversation
from heedful.environments.tool_worker import calculate
from heedful.environments.tools import ToolUse
from heedful.environments.worlds import with_tools
from heedful.errors import ConfigError, DataError
from heedful.flows.tool import demonstrate, tasks
from heedful.models.policy import load_language_model
from heedful.pipeline import Pipeline
from heedful.records import Completion, Message, Prompt, read_jsonl
from heedful.stages.offline import _answer
from heedful.store import Run, read_metrics

SMALL: dict[str, Any] = {
    "max_steps": 2,
    "episodes": 8,
    "samples_per_prompt": 2,
    "max_new_tokens": 24,
    "eval_every": 2,
    "lora": {"rank": 4, "layers": 0},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("tiny") / "model")


def config(model: Path, folder: Path, method: str, environment: dict[str, Any], **more: Any) -> Config:
    rows = [
        {
            "id": f"t{i}",
            "messages": [{"role": "user", "content": f"What is {i} * 3?"}],
            "answer": str(3 * i),
            "split": "train" if i < 8 else "heldout",
        }
        for i in range(12)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {
        "method": method,
        "model": {"source": str(model), "dtype": "float32"},
        "prompts": {"files": [str(folder / "prompts.jsonl")]},
        "environment": {"instructions": False, "max_observation_tokens": 32, **environment},
        method: SMALL,
        "evaluate": {"max_new_tokens": 24, "num_resamples": 200},
    }
    return parse(fields | more, "test")


def quiet(*_: object) -> None:
    pass


def test_a_run_with_tools_goes_from_end_to_end_and_is_done_then(model: Path, tmp_path: Path) -> None:
    settings = config(model, tmp_path / "data", "rloo", {"kind": "tools", "call_cost": 0.5})
    with Run(tmp_path / "run") as run:
        summary = Pipeline(settings, run, quiet, "heedful run")()
    assert summary["align"]["steps"] == 2
    rows = read_metrics(tmp_path / "run")
    learned = [row for row in rows if row["stage"] == "rloo" and "env_turns" in row]
    assert len(learned) == 2
    assert {"env_right", "env_right_with_tool", "env_calls", "env_failed_calls"} <= set(learned[0])
    assert learned[0]["reward"] == pytest.approx(learned[0]["env_right"] - 0.5 * learned[0]["env_calls"])
    episodes = json.loads((tmp_path / "run/evaluate/episodes.json").read_text())
    assert set(episodes["turns"]) == {"before", "after", "difference"}
    records = read_jsonl(tmp_path / "run/evaluate/completions-after.jsonl", Completion, unique="id")
    assert len(records) == 8
    for record in records:
        extra = record.model_extra or {}
        assert len(extra["written"]) == len(extra["token_ids"])
        assert extra["num_tokens"] == sum(extra["written"])
    said: list[tuple[str, str]] = []
    with Run(tmp_path / "run") as run:
        Pipeline(settings, run, lambda stage, _, __, note: said.append((stage, note)), "heedful run")()
    assert ("rloo", "already done") in said


def test_alignment_alone_needs_no_reward_in_an_environment(model: Path, tmp_path: Path) -> None:
    written = config(model, tmp_path / "data", "ppo", {"kind": "tictactoe", "opponent": "perfect"})
    from heedful.config import to_toml

    (tmp_path / "a.toml").write_text(to_toml(written))
    done = CliRunner().invoke(
        app, ["align", "ppo", "--config", str(tmp_path / "a.toml"), "--output", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 2
    row = read_metrics(tmp_path / "out")[0]
    assert row["env_won"] + row["env_drawn"] + row["env_lost"] <= 1
    assert row["env_illegal"] > 0.5, "a model of random weights names no square"
    assert (tmp_path / "out/ppo/policy/adapter_model.safetensors").is_file()


def test_retrieval_with_a_term_on_top_notices_changed_documents(model: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.md").write_text("Three times two is 6.\n\nThree times nine is 27.\n")
    (tmp_path / "r.py").write_text("def one(prompts, completions):\n    return [1.0 for _ in completions]\n")
    environment = {"kind": "retrieval", "documents": [str(tmp_path / "docs.md")]}
    term = {"terms": [{"source": f"{tmp_path / 'r.py'}:one"}]}
    settings = config(model, tmp_path / "data", "grpo", environment, reward=term)
    with Run(tmp_path / "run") as run:
        Pipeline(settings, run, quiet).align_alone()
    row = read_metrics(tmp_path / "run")[0]
    assert 1.0 <= row["reward"] <= 2.0
    assert 0 <= row["env_retrieved"] <= 1
    assert row["env_turns"] == 1
    (tmp_path / "docs.md").write_text("Other words.\n")
    said: list[str] = []
    with Run(tmp_path / "run") as run:
        Pipeline(settings, run, lambda _, __, ___, note: said.append(note)).align_alone()
    assert "already done" not in said


def test_an_episode_that_does_not_fit_says_what_to_lower(model: Path, tmp_path: Path) -> None:
    settings = config(model, tmp_path / "data", "rloo", {"kind": "tools", "max_turns": 20})
    with Run(tmp_path / "run") as run, pytest.raises(DataError, match=r"environment\.max_turns"):
        Pipeline(settings, run, quiet).align_alone()


def test_an_interrupted_evaluation_of_episodes_goes_on_to_the_same_completions(model: Path, tmp_path: Path) -> None:
    loaded = load_language_model(str(model), dtype=torch.float32, device=torch.device("cpu"))
    prompts = [Prompt.model_validate(p.model_dump() | {"answer": "1"}) for p in tasks("tictactoe", 3, 1, 0)]
    world = World(lambda: ToolUse({"calculator": calculate}, told=False), {p.id: p for p in prompts}, 3, 16)
    options: dict[str, Any] = {
        "adapter": None, "name": loaded.source, "policy_version": "base", "num_completions": 2, "batch_rows": 4,
        "max_prompt_tokens": 200, "seed": 4,
    }  # fmt: skip
    decoding = Decoding(1.0, 1.0, 12)
    whole = play_completions(loaded, world, prompts, tmp_path / "a.jsonl", decoding, progress=quiet, **options)

    class StopError(Exception):
        pass

    def stop(done: int, *_: object) -> None:
        raise StopError

    with pytest.raises(StopError):
        play_completions(loaded, world, prompts, tmp_path / "b.jsonl", decoding, progress=stop, **options)
    assert not (tmp_path / "b.jsonl").exists()
    again = play_completions(loaded, world, prompts, tmp_path / "b.jsonl", decoding, progress=quiet, **options)
    assert again == whole
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    for record in whole:
        answer = recorded_answer(loaded, prompts[0].messages, record)
        assert answer.played is not None
        assert answer.response_ids == (record.model_extra or {})["token_ids"]
        read = response_logprobs(loaded, [answer], adapter=None)
        assert read.mask_BT[0].tolist() == answer.written


def test_who_wrote_what_is_known_to_another_model_too(model: Path, tmp_path: Path) -> None:
    """Its tokens are others, so it is told by the text; where nothing tells it, the observations must not be learned."""
    loaded = load_language_model(str(model), dtype=torch.float32, device=torch.device("cpu"))
    prompts = [Prompt.model_validate(p.model_dump() | {"answer": "1"}) for p in tasks("tictactoe", 4, 1, 0)]

    class Talkative(ToolUse):
        def step(self, action: str, *, cut: bool = False) -> Step:
            return Step("Observation: 7\n", 0.5, False, False, {"read": float(len(action))})

        def ends_turn(self, written: str) -> bool:
            return len(written) >= 4

    world = World(lambda: Talkative({}, told=False), {p.id: p for p in prompts}, 3, 24)
    records = play_completions(
        loaded, world, prompts, tmp_path / "a.jsonl", Decoding(1.0, 1.0, 12), progress=quiet, adapter=None, name=loaded.source,
        policy_version="base", num_completions=2, batch_rows=8, max_prompt_tokens=200, seed=4,
    )  # fmt: skip
    told = 0
    for record in records:
        extra = record.model_extra or {}
        foreign = record.model_copy(update={"model": "another"})
        if "parts" in extra:
            told += 1
            assert "".join(part["text"] for part in extra["parts"]) == record.text
            answer = recorded_answer(loaded, prompts[0].messages, foreign)
            assert answer.played is not None
            assert (answer.played.earned, answer.played.info) == (extra["earned"], extra["info"])
            theirs = [token for token, own in zip(answer.response_ids, answer.written, strict=True) if not own]
            assert loaded.chat.plain(theirs).count("Observation: 7") == extra["info"]["turns"] - 1
            assert loaded.chat.text(answer.response_ids) == record.text
        bare = {name: value for name, value in foreign.model_dump().items() if name != "parts"}
        with pytest.raises(DataError, match=r"'another' has played.*add 'parts'"):
            recorded_answer(loaded, prompts[0].messages, Completion.model_validate(bare))
        chosen = _answer(loaded, {(record.id, record.text): record}, record.id, prompts[0].messages, record.text)
        assert chosen.written == extra["written"], "a preference's answers are episodes, too"
    assert told > len(records) / 2


# Talking


def test_what_is_called_in_a_chat_is_run_and_shown() -> None:
    environment = Assistant({"calculator": calculate})
    environment.reset(Prompt(id="a", messages=(Message(role="user", content="?"),)), seed=0)
    assert environment.step("Action: calculator[6 * 7]\n").observation == "Observation: 42\n"
    assert not environment.step("Action: what").done, "the end of text ends the line"
    assert environment.step("Answer: 42").done
    assert environment.answer == "42"
    assert environment.calls == [
        Called("calculator[6 * 7]", "42"),
        Called("(no call that can be read)", "error: write an action as Action: tool[input]"),
    ]
    for written, answer in (
        ("Thought: hm.\nAnswer: Three things:\n1. a\n2. b\n", "Three things:\n1. a\n2. b"),
        ("Answer:\nThe result is 4.", "The result is 4."),
        ("Answer: 1\nAnswer: 2\n", "2"),
        ("Answer:", "Answer:"),
    ):
        environment.step(written)
        assert environment.answer == answer
    environment.step(" I do not know.")
    assert environment.answer == "I do not know."


def test_a_chat_with_tools_answers_and_remembers(tmp_path: Path) -> None:
    roomy = tiny_model.make(tmp_path / "roomy", context=2048)
    talk = ToolConversation(Conversation(str(roomy), max_new_tokens=8), {"calculator": calculate}, seed=0)
    (told,) = talk.answer("What is 6 * 7?").values()
    assert told.text
    (history,) = talk.talk.histories.values()
    assert [message.role for message in history] == ["user", "assistant"]
    assert history[1].content == told.text
    talk.answer("And 7 * 8?")
    assert len(next(iter(talk.talk.histories.values()))) == 4
    talk.reset()
    assert next(iter(talk.talk.histories.values())) == []
    (tmp_path / "d.md").write_text("Words.\n")
    with pytest.raises(ConfigError, match="add --tools"):
        with_tools(talk.talk, [tmp_path / "d.md"], seed=0, asked=False)
    assert set(with_tools(talk.talk, [tmp_path / "d.md"], seed=0, asked=True).tools) == {"calculator", "search"}
    done = CliRunner().invoke(app, ["chat", str(roomy), "--tools", "--once", "2 + 2?", "--max-new-tokens", "8", "--json"])
    assert done.exit_code == 0, done.output
    (answer,) = json.loads(done.stdout.splitlines()[-1])["answers"].values()
    assert set(answer) == {"text", "calls"}
    talking = ["chat", str(roomy), "--tools", "--max-new-tokens", "8", "--json"]
    done = CliRunner().invoke(app, talking, input="2 + 2?\n/up\n/fix It is 4.\n\n")
    assert done.exit_code == 0, done.output
    assert [turn["message"] for turn in json.loads(done.stdout.splitlines()[-1])["turns"]] == ["2 + 2?"]
    assert done.stderr.count("Nothing was kept") == 2


def test_a_small_context_is_refused_in_words(model: Path) -> None:
    talk = ToolConversation(Conversation(str(model), max_new_tokens=8), {"calculator": calculate}, seed=0)
    with pytest.raises(ConfigError, match="do not fit into; take a model with a longer context"):
        talk.answer("What is 6 * 7?")


# The demonstration


def test_the_demonstration_runs_whole_and_is_resumed(tmp_path: Path) -> None:
    """Two steps of each: that it learns is measured on the method's page."""
    small = ("rloo.max_steps=2", "rloo.episodes=8", "rloo.eval_every=2", "prompts.num_train=8", "prompts.num_heldout=4")
    found = demonstrate(tmp_path / "tools", quiet, method="rloo", overrides=(*small, "evaluate.num_resamples=200"), steps=2)
    assert found["pretrain"]["steps"] == 2
    assert set(found["episodes"]) >= {"right", "right_with_tool", "calls"}
    first = (tmp_path / "tools/model/model.safetensors").stat().st_mtime_ns
    demonstrate(tmp_path / "tools", quiet, method="rloo", overrides=(*small, "evaluate.num_resamples=200"), steps=2)
    assert (tmp_path / "tools/model/model.safetensors").stat().st_mtime_ns == first


def test_transcripts_are_learned_without_their_observations(model: Path, tmp_path: Path) -> None:
    """The same tokens that an episode would hold; `heedful align sft` takes them from files."""
    files = {name: tmp_path / f"{name}.jsonl" for name in ("prompts", "taught")}
    ask = ["environment", "prompts", "arithmetic", "--output", str(files["prompts"]), "--count", "9", "--heldout", "3"]
    done = CliRunner().invoke(app, [*ask, "--transcripts", str(files["taught"])])
    assert done.exit_code == 0, done.output
    loaded = load_language_model(str(model), dtype=torch.float32, device=torch.device("cpu"))
    records = read_jsonl(files["taught"], Completion, unique="id")
    prompts = {prompt.id: prompt for prompt in read_jsonl(files["prompts"], Prompt)}
    by_tool = 0
    for record in records:
        answer = recorded_answer(loaded, prompts[record.prompt_id].messages, record)
        theirs = [token for token, own in zip(answer.response_ids, answer.written, strict=True) if not own]
        observed = [part["text"] for part in (record.model_extra or {})["parts"] if not part["written"]]
        assert loaded.chat.plain(theirs) == "".join(observed)
        assert loaded.chat.plain(answer.response_ids) == record.text
        assert answer.finished
        by_tool += bool(theirs)
    assert 0 < by_tool < len(records)
    wrong = records[0].model_copy(update={"text": "other"})
    with pytest.raises(DataError, match="'parts'"):
        recorded_answer(loaded, prompts[records[0].prompt_id].messages, wrong)
    (tmp_path / "a.toml").write_text(
        f'[model]\nsource = "{model}"\ndtype = "float32"\n'
        "[sft]\nepochs = 1\nheldout_share = 0.4\nbatch_completions = 4\n[sft.lora]\nrank = 2\n"
    )
    learn = ["align", "sft", "--config", str(tmp_path / "a.toml"), "--completions", str(files["taught"])]
    done = CliRunner().invoke(app, [*learn, "--prompts", str(files["prompts"]), "--output", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output


def test_tasks_are_written_for_each_world(tmp_path: Path) -> None:
    for kind, field in (("arithmetic", "answer"), ("tictactoe", "seat")):
        file = tmp_path / f"{kind}.jsonl"
        done = CliRunner().invoke(
            app, ["environment", "prompts", kind, "--output", str(file), "--count", "6", "--heldout", "2"]
        )
        assert done.exit_code == 0, done.output
        prompts = read_jsonl(file, Prompt, unique="id")
        assert [prompt.split for prompt in prompts] == ["train"] * 6 + ["heldout"] * 2
        assert all(field in (prompt.model_extra or {}) for prompt in prompts)
