"""PPO against rewards that no run trained: functions, endpoints and weighted sums, from heedful.toml to the metrics."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import small_run

from heedful.config import Config, load
from heedful.errors import ConfigError, RewardError
from heedful.pipeline import Pipeline
from heedful.rounds import Round
from heedful.run_layout import Layout
from heedful.store import Run, read_metrics

# Shares of terms are rounded once each, the reward's mean in float32.
SAME_SUM = 1e-5

FUNCTIONS = """
def early_letters(prompts, texts):
    return [sum(c < "n" for c in text.lower()) / max(1, len(text)) for text in texts]

def words(prompts, texts):
    return [float(len(text.split())) for text in texts]

def flat(prompts, texts):
    return [0.25] * len(texts)
"""


def silent(stage: str, done: int, total: int, note: str) -> None:
    pass


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    return tmp_path / "mine.py"


def run_of(config: Config, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    with Run(folder) as run:
        summary = Pipeline(config, run, silent)()
    return summary, [row for row in read_metrics(folder) if row["stage"] == "ppo"]


def test_a_run_with_weighted_terms(tiny: Path, functions: Path, tmp_path: Path) -> None:
    terms = f"""
[[reward.terms]]
source = "trained"
weight = 2

[[reward.terms]]
source = "{functions}:words"
name = "brief"
weight = -0.25
"""
    config = load(small_run.write_config(tmp_path / "small.toml", tiny, more=terms))
    summary, rows = run_of(config, tmp_path / "run")
    assert len(rows) == 6
    for row in rows:
        assert row["term_trained"] + row["term_brief"] == pytest.approx(row["reward"], abs=SAME_SUM)
        assert row["term_brief"] < 0
    assert summary["reward_model"]["num_pairs"] > 0
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert load(tmp_path / "run" / "heedful.toml") == config
    # The same command again finds everything done; an edited function asks for PPO anew, and for nothing before it.
    with Run(tmp_path / "run") as run:
        Pipeline(config, run, silent)()
        stages = {name: entry["finished"] for name, entry in run.manifest["stages"].items()}
    functions.write_text(FUNCTIONS.replace("float(len", "2.0 * float(len"))
    with Run(tmp_path / "run") as run:
        Pipeline(config, run, silent)()
        changed = {name for name, entry in run.manifest["stages"].items() if entry["finished"] != stages[name]}
    assert changed == {"ppo", "evaluate", "report"}


def test_a_run_without_a_trained_model_trains_none(tiny: Path, functions: Path, tmp_path: Path) -> None:
    terms = f'\n[[reward.terms]]\nsource = "{functions}:early_letters"\n'
    summary, rows = run_of(load(small_run.write_config(tmp_path / "small.toml", tiny, more=terms)), tmp_path / "run")
    assert {"sample", "label", "consensus", "reward"}.isdisjoint(summary["seconds"])
    assert not (tmp_path / "run" / "sample").exists()
    assert "reward_model" not in summary
    assert summary["simulated_labelers"] is False
    assert not any(name.startswith("term_") for name in rows[0])
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_ppo_raises_what_a_function_rewards(tiny: Path, functions: Path, tmp_path: Path) -> None:
    terms = f'\n[[reward.terms]]\nsource = "{functions}:early_letters"\n'
    changed = ("ppo.max_steps=14", "ppo.episodes=16", "ppo.learning_rate=0.01", "ppo.kl_coef=0.01", "ppo.missing_eos_penalty=0")
    config = load(small_run.write_config(tmp_path / "small.toml", tiny, more=terms), (*changed, "evaluate.num_completions=4"))
    summary, _ = run_of(config, tmp_path / "run")
    reward = summary["compare"]["reward"]
    assert reward["verdict"] == "improved", reward
    assert reward["difference"]["low"] > 0.05


def test_constant_rewards_are_survived_and_said(
    tiny: Path, functions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terms = f'\n[[reward.terms]]\nsource = "{functions}:flat"\n'
    _, rows = run_of(load(small_run.write_config(tmp_path / "small.toml", tiny, more=terms)), tmp_path / "run")
    assert [row["reward_sd"] for row in rows] == [0.0] * 6
    assert "all 8 answers got the same reward, 0.25" in capsys.readouterr().err


class Flaky:
    """An endpoint that rewards length, and can be told to fail from its n-th request on."""

    def __init__(self) -> None:
        self.fail_from = 10**9
        self.requests = 0
        flaky = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                flaky.requests += 1
                numbers = [float(len(text)) for text in body["completions"]]
                if flaky.requests >= flaky.fail_from:
                    numbers[0] = float("nan")
                text = json.dumps({"rewards": numbers}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/"


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    server = Flaky()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.mark.parametrize(
    ("request_", "steps", "left"), [(6, 3, 3 + 1 + 2), (5, 2, 1 + 3 + 1 + 2), (4, 2, 2 + 3 + 1 + 2), (9, 5, 1 + 2)]
)
def test_an_endpoint_that_fails_loses_nothing(
    tiny: Path, flaky: Flaky, tmp_path: Path, request_: int, steps: int, left: int
) -> None:
    """It fails between two checkpoints: in the fourth step, on the held-out prompts after the third, on the reference's
    answers to them before that, and after the last.

    The run that goes on ends with the numbers of one undisturbed, and asks for nothing twice.
    """
    terms = f'\n[[reward.terms]]\nsource = "{flaky.url}"\nmax_retries = 1\nbackoff_s = 0.01\n'
    config = load(small_run.write_config(tmp_path / "small.toml", tiny, more=terms), ("ppo.checkpoint_every=100",))
    whole, undisturbed = run_of(config, tmp_path / "whole")
    # Three steps, then the held-out prompts, the first time the reference's answers too, three steps, the held-out prompts
    # again; then before and after.
    flaky.requests, flaky.fail_from = 0, request_
    with pytest.raises(RewardError, match=r"gave nan for the answer .* Nothing that was learned is lost"):
        run_of(config, tmp_path / "run")
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == list(range(steps))
    flaky.requests, flaky.fail_from = 0, 10**9
    resumed, rows = run_of(config, tmp_path / "run")
    assert flaky.requests == left
    ignored = {"time"}
    assert [{k: v for k, v in row.items() if k not in ignored} for row in rows] == [
        {k: v for k, v in row.items() if k not in ignored} for row in undisturbed
    ]
    assert resumed["compare"] == whole["compare"]


@pytest.mark.parametrize("ties", ["soft", "davidson"])
def test_a_run_keeps_ties_from_the_consensus_on(tiny: Path, tmp_path: Path, ties: str) -> None:
    """Judgements in which every labeler calls half of the prompts level."""
    from heedful.records import Preference, read_jsonl

    whole = load(small_run.write_config(tmp_path / "first.toml", tiny))
    with Run(tmp_path / "first") as run:
        flow = Pipeline(whole, run, silent)
        flow.sample()
        flow.label()
    lines = (tmp_path / "first/label/judgements.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    level = {row["prompt_id"] for row in rows[: len(rows) // 2]}
    for row in rows:
        if row["prompt_id"] in level:
            row["ranks"] = dict.fromkeys(row["ranks"], 1)
    (tmp_path / "judgements.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = (
        f'reward.ties="{ties}"',
        f'label.judgements="{tmp_path / "judgements.jsonl"}"',
        "ppo.max_steps=1",
        "reward.heldout_share=0.5",
    )
    summary, _ = run_of(load(tmp_path / "first.toml", changed), tmp_path / "run")
    kept = read_jsonl(tmp_path / "run/consensus/preferences.jsonl", Preference)
    tied = [pair for pair in kept if pair.probability == 0.5 and pair.margin == 0]
    levelled = {pair.prompt_id for pair in kept if pair.prompt_id in level}
    assert levelled
    assert levelled <= {pair.prompt_id for pair in tied}
    assert len(tied) < len(kept)
    assert summary["reward_model"]["num_training_ties"] > 0
    assert ("tie_parameter" in summary["reward_model"]) == (ties == "davidson")


def test_a_run_with_an_ensemble_is_the_same_from_memory_and_from_disk(tiny: Path, tmp_path: Path) -> None:
    config = load(small_run.write_config(tmp_path / "small.toml", tiny), ("reward.ensemble=2", "ppo.max_steps=2"))
    first, rows = run_of(config, tmp_path / "run")
    assert len(first["reward_model"]["members"]) == 2
    assert all(row["ensemble_sd"] > 0 for row in rows)
    with Run(tmp_path / "run") as run:
        again = Pipeline(config, run, silent)("evaluate")
    assert again["compare"] == first["compare"]


@pytest.mark.parametrize(
    ("fields", "again"),
    [
        ({"max_retries": 20, "backoff_s": 2.0}, False),
        ({"timeout_s": 5.0, "batch_rows": 8}, False),
        ({"token_env": "TOKEN"}, False),
        ({"weight": 2.0}, True),
        ({"label": "kind"}, True),
    ],
)
def test_asking_otherwise_makes_no_finished_stage_anew(tmp_path: Path, fields: dict[str, Any], again: bool) -> None:
    def settings(**more: Any) -> dict[str, Any]:
        config = Config.model_validate({"reward": {"terms": [{"source": "http://127.0.0.1:9"} | more]}})
        return Layout(config, tmp_path, Round(), config.reward.terms).align_settings

    assert (settings(**fields) != settings()) == again


@pytest.mark.parametrize(("deadline_s", "num_trainers", "refused"), [(60, 2, True), (60, 1, False), (600, 2, False)])
def test_a_team_waits_longer_than_a_reward_that_is_down(
    tiny: Path, tmp_path: Path, deadline_s: float, num_trainers: int, refused: bool
) -> None:
    more = f"\n[scale]\nnum_trainers = {num_trainers}\ndeadline_s = {deadline_s}\n[[reward.terms]]\nsource = 'http://127.0.0.1:9'\n"
    config = load(small_run.write_config(tmp_path / "small.toml", tiny, more=more))
    said = r"tried again for 123 s while it is down, and with scale\.deadline_s = 60 .* above 153"
    with pytest.raises(ConfigError, match=said) if refused else nullcontext(), Run(tmp_path / "run") as run:
        Pipeline(config, run, lambda *_: None, "heedful run")
