"""heedful tictactoe and heedful align ilql from the command line, as a person types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import judged
import pytest
import tiny_model
from command import HEEDFUL, heedful
from pages import documented

SHORT = ("--set", "max_steps=4", "--set", "games=16", "--set", "width=8", "--set", "eval_every=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t") / "out"
    done = heedful("tictactoe", "ppo", "--output", folder, *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["steps"] == 4
    assert set(shown) == documented("tictactoe.md")
    assert shown == json.loads((folder / "ppo" / "result.json").read_text()) | {"agent": str(folder / "ppo" / "agent")}
    assert "ppo" in done.stderr
    return folder


def test_each_number_of_the_proof_is_documented(trained: Path) -> None:
    result = json.loads((trained / "ppo" / "result.json").read_text())
    for seat in ("x", "o"):
        assert set(result[seat]) == documented("tictactoe.md", "### Of each seat")
        for games in result[seat].values():
            assert set(games) == documented("tictactoe.md", "### Of each kind of games")


def test_training_shows_its_curve_within_80_columns(trained: Path) -> None:
    done = heedful("tictactoe", "ppo", "--output", trained, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "lines of play not lost" in done.stdout
    assert "█" in done.stdout
    assert max(map(len, done.stdout.split("\nplay against it")[0].splitlines())) <= 80
    assert "4 steps" in done.stdout
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]


def test_a_person_plays_with_digits_and_mistakes(trained: Path) -> None:
    done = heedful("tictactoe", "play", trained, "--seat", "x", stdin="five\n0\n5\n5\n")
    assert done.returncode == 0, done.stderr
    assert "'five' is no square" in done.stdout
    assert "'0' is no square" in done.stdout
    assert "square 5 is taken" in done.stdout
    assert "O takes" in done.stdout
    assert "0 won, 0 drawn, 0 lost" in done.stdout, "the input ended in the middle of the game"
    after = heedful("tictactoe", "ppo", "--output", trained, *SHORT, "--play", stdin="q\n")
    assert after.returncode == 0, after.stderr
    assert "game 1: you are X" in after.stdout


def test_ctrl_c_leaves_the_board(trained: Path) -> None:
    process = subprocess.Popen(
        [*HEEDFUL, "tictactoe", "play", str(trained)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(" 7"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "0 won, 0 drawn, 0 lost" in out
    assert "Traceback" not in err


def test_what_is_wrong_is_said_in_one_paragraph(tmp_path: Path) -> None:
    done = heedful("tictactoe", "play", tmp_path)
    assert done.returncode == 1
    assert "holds no tic-tac-toe agent" in done.stderr
    assert "Traceback" not in done.stderr
    done = heedful("tictactoe", "q", "--output", tmp_path / "q", "--set", "expectile=1.5")
    assert done.returncode == 1
    assert "expectile=1.5" in done.stderr


def test_ilql_from_pairs_to_samples_and_chat(tmp_path: Path) -> None:
    tiny = tiny_model.make(tmp_path / "tiny")
    pairs = judged.write_pairs(tmp_path / "pairs.jsonl", 40)
    config = tmp_path / "heedful.toml"
    config.write_text(
        f'[model]\nsource = "{tiny}"\ndtype = "float32"\n'
        "[ilql]\nepochs = 5\nlearning_rate = 0.02\npolyak = 0.5\nrank = 4\nwidth = 8\n"
    )
    words = ("align", "ilql", "--config", config, "--preferences", pairs, "--output", tmp_path / "out")
    done = heedful(*words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["num_pairs"] > 0
    assert set(found) == documented("ilql.md")
    assert "held-out pairs" in heedful(*words).stdout
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "p", "messages": [{"role": "user", "content": "Hi."}]}\n')
    texts = []
    for beta in ("0", "100"):
        completions = tmp_path / f"{beta}.jsonl"
        done = heedful(
            *("sample", "--model", tmp_path / "out", "--prompts", prompts, "--output", completions),
            *("--num-completions", "4", "--max-new-tokens", "8", "--beta", beta),
        )
        assert done.returncode == 0, done.stderr
        texts.append([json.loads(line)["text"] for line in completions.read_text().splitlines()])
    assert len(texts[0]) == 4
    assert texts[0] != texts[1], "beta changes what is written"
    done = heedful("chat", tmp_path / "out", "--compare", tiny, "--once", "Hi.", "--max-new-tokens", "4", "--json")
    assert set(json.loads(done.stdout)["answers"]) == {"base", "aligned"}, done.stderr
    done = heedful("sample", "--model", tiny, "--prompts", prompts, "--output", tmp_path / "x.jsonl", "--beta", "1")
    assert done.returncode == 1
    assert "leave --beta out" in done.stderr
