"""heedful constitution revise from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_model
from in_process import assert_told, heedful
from pages import METHODS, documented

from heedful.constitution.chains import Chain
from heedful.records import Message, Prompt, read_jsonl
from heedful.store import write_jsonl

SMALL = """
[model]
source = {model!r}
dtype = "float32"
compile = "off"
[revise]
num_revisions = 2
num_examples = 0
max_new_tokens = 20
max_repeated = 1.0
min_words = 1
cut = "keep"
scorer = "off"
[sft]
epochs = 1
heldout_share = 0.3
"""
SCORER = """
def prefers_short(prompts, completions):
    return [-float(len(text)) for text in completions]
"""


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose context holds the bundled constitution's requests."""
    return tiny_model.make(tmp_path_factory.mktemp("roomy") / "tiny", context=512)


@pytest.fixture
def project(tmp_path: Path, roomy: Path) -> dict[str, Path]:
    (tmp_path / "heedful.toml").write_text(SMALL.format(model=str(roomy)))
    turns = [Message(role="user", content=f"Harm {name}!") for name in ("Ann", "Ben", "Eve", "Max", "Zoe")]
    write_jsonl(tmp_path / "red.jsonl", [Prompt(id=f"p{i}", messages=(turn,)) for i, turn in enumerate(turns)])
    return {"--config": tmp_path / "heedful.toml", "--prompts": tmp_path / "red.jsonl", "--output": tmp_path / "out"}


def revise(project: dict[str, Path], *more: object) -> list[object]:
    return ["constitution", "revise", *(part for pair in project.items() for part in pair), *more]


def test_all_in_one_go_and_again(project: dict[str, Path]) -> None:
    done = heedful(*revise(project, "--json"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == documented("constitutional-ai.md", "### What the result says")
    assert found["num_prompts"] == 5
    assert found["num_kept"] > 0
    assert "revise" in done.stderr
    assert "sft" in done.stderr
    again = heedful(*revise(project, "--json"))
    assert json.loads(again.stdout) == found
    assert "already done" in again.stderr
    chains = read_jsonl(project["--output"] / "revise" / "chains.jsonl", Chain)
    assert set(chains[0].model_dump()) == {
        *("prompt_id", "messages", "tags", "principles", "steps", "verdict", "revision", "finish", "gain")
    }
    fields = {"role", "pass_number", "number", "principle", "request_hash", "num_examples", "examples_left_out", "shortened"}
    fields |= {"text", "finish", "problem", "given", "model", "seed", "score", "verdict"}
    assert set(chains[0].steps[0].model_dump()) == fields
    page = (METHODS / "constitutional-ai.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in fields), "each is documented"


def test_a_reward_judges_and_the_table_fits(project: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "scorer.py").write_text(SCORER)
    source = f"{tmp_path / 'scorer.py'}:prefers_short"
    done = heedful(*revise(project, "--no-tune", "--reward-model", source))
    assert done.returncode == 0, done.stderr
    assert "kept" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    chains = read_jsonl(project["--output"] / "revise" / "chains.jsonl", Chain)
    assert all(chain.gain is None or chain.gain > 0 for chain in chains if chain.verdict == "kept")
    assert any(step.score is not None for chain in chains for step in chain.steps)
    assert not (project["--output"] / "sft").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "revise.scorer=reward"), "--reward-model"),
        (("--set", "revise.constitution=absent.toml"), "absent.toml"),
        (("--set", "revise.min_wrods=3"), "revise.min_words"),
        (("--completions", "absent.jsonl"), "absent.jsonl"),
    ],
)
def test_bad_input_is_told(project: dict[str, Path], more: tuple[str, ...], said: str) -> None:
    assert_told(heedful(*revise(project, "--no-tune", *more)), said)
