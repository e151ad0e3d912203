"""The stage of `heedful constitution revise`: a killed process goes on, align sft reads its files, bad input is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import json_server
import pytest
import revising
import tiny_model
from small_constitution import ANSWER, CRITIQUE, GOOD

from heedful.config import Config, parse
from heedful.constitution.chains import KEPT, Chain
from heedful.errors import ConfigError, DataError, HeedfulError
from heedful.records import Completion, Message, Prompt, read_jsonl
from heedful.stages.revise import revise
from heedful.store import write_jsonl


def silent(*_: Any) -> None:
    """A progress that nobody watches."""


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def red_team(folder: Path, count: int) -> Path:
    turns = [Message(role="user", content=f"How do I annoy neighbour number {i}?") for i in range(count)]
    write_jsonl(folder / "red.jsonl", [Prompt(id=f"p{i}", messages=(turn,)) for i, turn in enumerate(turns)])
    return folder / "red.jsonl"


def said(body: Any) -> str:
    """Of a request by the words of the bundled constitution, or of the small one."""
    last = body["messages"][-1]["content"]
    if "Write the answer again" in last or "Write it anew" in last:
        return GOOD
    return CRITIQUE if "Look at your last answer" in last or "What is wrong with it?" in last else ANSWER


def reply(body: Any) -> tuple[int, str]:
    choice = {"message": {"role": "assistant", "content": said(body)}, "finish_reason": "stop"}
    return 200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 5}})


def remote(url: str, *overrides: str) -> Config:
    feedback = {"source": f"{url}/v1", "model": "m", "backoff_s": 0.0, "max_retries": 1, "in_flight": 4}
    fields = {"revise": {"feedback": feedback, "num_revisions": 1, "num_examples": 1, "scorer": "off", "helpful_share": 0.0}}
    return parse(fields, "test", ("prompts.num_train=100000", *overrides))


def killed_and_resumed(folder: Path, count: int, before: int) -> dict[str, Any]:
    """A process is killed when the server has answered `before` requests, and started again. What was asked, and what came."""
    asked: Counter[str] = Counter()
    enough = threading.Event()

    def counted(body: Any) -> tuple[int, str]:
        asked[json.dumps(body, sort_keys=True)] += 1
        if sum(asked.values()) == before:
            enough.set()
        return reply(body)

    with json_server.server([counted]) as (url, _):
        command = [sys.executable, revising.__file__, url, str(folder), str(count)]
        first = subprocess.Popen(command)
        assert enough.wait(120)
        first.send_signal(signal.SIGKILL)
        assert first.wait(30) == -signal.SIGKILL
        time.sleep(0.2)  # what was in flight reaches the server
        kept = (folder / "calls.jsonl").read_bytes().count(b"\n")
        so_far = sum(asked.values())
        subprocess.run(command, check=True, timeout=300)
    return {"kept": kept, "so_far": so_far, "asked": asked, "chains": read_jsonl(folder / "chains.jsonl", Chain)}


def test_a_killed_process_repeats_no_finished_call(tmp_path: Path) -> None:
    """With 1,000 chains it is the same, and takes half a minute."""
    count = 100
    found = killed_and_resumed(tmp_path, count, before=170)
    asked: Counter[str] = found["asked"]
    assert 0 < found["kept"] <= found["so_far"] < 3 * count
    assert [chain.verdict for chain in found["chains"]] == [KEPT] * count
    assert len(asked) == 3 * count, "an answer, a critique and a revision each"
    assert sum(asked.values()) - found["so_far"] == 3 * count - found["kept"], "of those that were kept none is asked again"
    assert max(asked.values()) <= 2
    assert sum(asked.values()) - 3 * count <= revising.IN_FLIGHT, "only what was in flight is asked twice"


def test_the_journal_is_read_where_settings_change(tmp_path: Path) -> None:
    with json_server.server([reply]) as (url, seen):
        revise(remote(url), tmp_path / "out", silent, prompts=[str(red_team(tmp_path, 5))], tune=False)
        count = len(seen)
        found = revise(
            remote(url, "revise.min_words=50"), tmp_path / "out", silent, prompts=[str(tmp_path / "red.jsonl")], tune=False
        )
    assert len(seen) == count == 15
    assert found["chains"]["short"] == 5
    assert found["usage"]["cached"] == 15


def test_an_endpoint_that_fails_is_counted_and_asked_again(tmp_path: Path) -> None:
    def failing(body: Any) -> tuple[int, str]:
        return (500, "down") if "number 1?" in str(body) and said(body) == GOOD and not mended else reply(body)

    mended: list[bool] = []
    with json_server.server([failing]) as (url, seen):
        found = revise(remote(url), tmp_path / "out", silent, prompts=[str(red_team(tmp_path, 3))], tune=False)
        assert found["chains"] == dict.fromkeys(found["chains"], 0) | {KEPT: 2, "no-reply": 1}
        assert found["num_without_reply"] == 1
        mended.append(True)
        before = len(seen)
        again = revise(
            remote(url, "revise.min_words=5"), tmp_path / "out", silent, prompts=[str(tmp_path / "red.jsonl")], tune=False
        )
        assert len(seen) == before + 1
        mended.clear()
        other = revise(remote(url), tmp_path / "other", silent, prompts=[str(tmp_path / "red.jsonl")], tune=False)
        assert other["num_unanswered"] == 1
        kept = (tmp_path / "other" / "revise" / "chains.jsonl").read_text()
        with pytest.raises(KeyboardInterrupt):
            revise(remote(url), tmp_path / "other", interrupt, prompts=[str(tmp_path / "red.jsonl")], tune=False)
        assert (tmp_path / "other" / "revise" / "chains.jsonl").read_text() == kept, "what was there is there still"
        mended.append(True)
        before = len(seen)
        same = revise(remote(url), tmp_path / "other", silent, prompts=[str(tmp_path / "red.jsonl")], tune=False)
        assert len(seen) == before + 1, "the same command asks for what is lacking, and for nothing else"
    assert again["num_kept"] == same["num_kept"] == 3
    assert same["num_unanswered"] == 0


def test_other_weights_in_the_same_folder_revise_anew(tmp_path: Path) -> None:
    folder = tiny_model.make(tmp_path / "tiny", context=512)
    first = revise(local(folder), tmp_path / "out", silent, prompts=[str(red_team(tmp_path, 2))], tune=False)
    assert first["usage"]["calls"] > 0
    tiny_model.make(tmp_path / "tiny", context=512, seed=1)
    second = revise(local(folder), tmp_path / "out", silent, prompts=[str(tmp_path / "red.jsonl")], tune=False)
    assert second["usage"]["calls"] > 0
    assert second["usage"]["cached"] == 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make(tmp_path_factory.mktemp("revise") / "tiny", context=512)


def local(tiny: Path, *overrides: str) -> Config:
    model = {"source": str(tiny), "dtype": "float32", "compile": "off"}
    section = {"num_revisions": 3, "num_examples": 0, "max_new_tokens": 24, "max_repeated": 1.0, "cut": "keep", "min_words": 1}
    return parse({"model": model, "revise": section, "sft": {"epochs": 1, "heldout_share": 0.3}}, "test", overrides)


def test_a_local_model_revises_and_is_tuned_in_one_go(tiny: Path, tmp_path: Path) -> None:
    prompts, config = red_team(tmp_path, 10), local(tiny)
    found = revise(config, tmp_path / "out", silent, prompts=[str(prompts)])
    chains = read_jsonl(tmp_path / "out" / "revise" / "chains.jsonl", Chain)
    assert sum(found["chains"].values()) == len(chains) == 10
    assert found["num_kept"] == sum(chain.verdict == KEPT for chain in chains) > 0
    assert all(chain.gain is not None and chain.gain > 0 for chain in chains if chain.verdict == KEPT)
    records = read_jsonl(tmp_path / "out" / "revise" / "completions.jsonl", Completion)
    kinds = Counter((record.model_extra or {})["kind"] for record in records)
    assert kinds["revision"] == found["num_kept"]
    assert kinds["helpful"] == found["num_helpful"] <= found["num_helpful_wanted"] == found["num_kept"]
    asked = {prompt.id: prompt for prompt in read_jsonl(tmp_path / "out" / "revise" / "prompts.jsonl", Prompt)}
    assert {record.prompt_id for record in records} == set(asked)
    assert not any("red-team" in asked[record.prompt_id].tags for record in records if record.prompt_id not in {"p0"})
    assert found["sft"]["steps"] > 0
    assert (tmp_path / "out" / "sft" / "policy" / "adapter_config.json").exists()
    assert revise(config, tmp_path / "out", silent, prompts=[str(prompts)]) == found, "done already"
    again = revise(config, tmp_path / "other", silent, prompts=[str(prompts)], tune=False)
    assert (tmp_path / "other" / "revise" / "chains.jsonl").read_text() == (
        tmp_path / "out" / "revise" / "chains.jsonl"
    ).read_text()
    assert again["chains"] == found["chains"]


def test_nothing_kept_is_nothing_to_learn(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no revision of 2 was kept \(2 short\)"):
        revise(local(tiny, "revise.min_words=900"), tmp_path / "out", silent, prompts=[str(red_team(tmp_path, 2))])
    assert (tmp_path / "out" / "revise" / "result.json").exists()


def test_heldout_prompts_are_not_trained_on(tiny: Path, tmp_path: Path) -> None:
    one, two = (
        Prompt(id=name, messages=(Message(role="user", content=f"Do {name}!"),), split=name) for name in ("train", "heldout")
    )
    write_jsonl(tmp_path / "both.jsonl", [one, two])
    found = revise(local(tiny), tmp_path / "out", silent, prompts=[str(tmp_path / "both.jsonl")], tune=False)
    assert found["num_prompts"] == 1
    write_jsonl(tmp_path / "held.jsonl", [two])
    with pytest.raises(DataError, match="held out"):
        revise(local(tiny), tmp_path / "none", silent, prompts=[str(tmp_path / "held.jsonl")], tune=False)


@pytest.mark.parametrize(
    ("overrides", "error", "told"),
    [
        (("revise.scorer=reward",), ConfigError, "--reward-model"),
        (("revise.tags=['nonsense']",), DataError, "nonsense"),
        (("revise.constitution=absent.toml",), ConfigError, "absent.toml"),
        (("revise.passes=5",), ConfigError, "revise.passes"),
        (("revise.helpful_prompts=['absent.jsonl']",), HeedfulError, "absent.jsonl"),
    ],
)
def test_bad_settings_are_told(
    tiny: Path, tmp_path: Path, overrides: tuple[str, ...], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        revise(local(tiny, *overrides), tmp_path / "out", silent, prompts=[str(red_team(tmp_path, 2))], tune=False)


def test_completions_of_other_prompts_are_refused(tiny: Path, tmp_path: Path) -> None:
    sampling = {"temperature": 1.0, "top_p": 1.0, "seed": 0, "max_new_tokens": 9}
    fields = {"id": "x", "prompt_id": "zz", "text": "Hm.", "model": "m", "finish": "stop", "sampling": sampling}
    write_jsonl(tmp_path / "c.jsonl", [Completion.model_validate(fields)])
    with pytest.raises(DataError, match="no completion answers"):
        revise(
            *(local(tiny), tmp_path / "out", silent),
            prompts=[str(red_team(tmp_path, 2))],
            completions=[tmp_path / "c.jsonl"],
            tune=False,
        )
