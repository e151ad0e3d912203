"""Python functions as rewards: loaded only when named, called with conversations and texts, checked in what they give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from heedful.config import RewardTermSection
from heedful.errors import ConfigError, RewardError, SourceError
from heedful.models.reward import Answer
from heedful.records import Message
from heedful.rewards.source import Sources, local_inputs, named

ANSWERS = [
    Answer((Message(role="system", content="Be kind."), Message(role="user", content=f"Question {i}")), text, [1], [2])
    for i, text in enumerate(("one", "three words here"))
]


def reward_from(source: str | Path) -> object:
    sources = Sources(None, dtype=torch.float32, device=torch.device("cpu"))
    return sources.reward(RewardTermSection(source=str(source)))


def written(folder: Path, body: str) -> str:
    (folder / "mine.py").write_text(body)
    return f"{folder / 'mine.py'}:score"


def test_called_with_conversations_and_texts(tmp_path: Path) -> None:
    source = written(
        tmp_path, "seen = []\ndef score(prompts, texts):\n    seen.append((prompts, texts))\n    return [1, 2.5]\n"
    )
    reward = reward_from(source)
    assert reward(ANSWERS) == [1.0, 2.5]  # type: ignore[operator]
    prompts, texts = reward.function.__globals__["seen"][0]  # type: ignore[attr-defined]
    assert prompts[1] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Question 1"}]
    assert texts == ["one", "three words here"]


def test_arrays_and_tensors_are_taken(tmp_path: Path) -> None:
    source = written(tmp_path, "import numpy, torch\ndef score(p, t):\n    return numpy.array([0.5, 1.5], dtype='float32')\n")
    assert reward_from(source)(ANSWERS) == [0.5, 1.5]  # type: ignore[operator]
    source = written(tmp_path, "import torch\ndef score(p, t):\n    return [torch.tensor(0.5), torch.tensor(1.5)]\n")
    assert reward_from(source)(ANSWERS) == [0.5, 1.5]  # type: ignore[operator]


def test_a_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "ours_for_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rules.py").write_text("def words(prompts, texts):\n    return [len(text.split()) for text in texts]\n")
    monkeypatch.chdir(tmp_path)
    reward = reward_from("python:ours_for_test.rules:words")
    assert reward(ANSWERS) == [1.0, 3.0]  # type: ignore[operator]
    assert local_inputs(RewardTermSection(source="python:ours_for_test.rules:words")) == [package / "rules.py"]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("[1.0]", "gave 1 rewards for 2 answers; expected one for each"),
        ("[1.0, float('nan')]", "gave nan for the answer 'three words here' to 'Question 1'; expected a finite number"),
        ("[float('inf'), 1]", "gave inf for the answer 'one' to 'Question 0'"),
        ("['good', 1]", "gave 'good' for the answer 'one'"),
        ("[10 ** 400, 1]", "gave 1000"),
        ("[True, 1]", "gave True for the answer 'one'"),
        ("[None, 1]", "gave None for the answer 'one'"),
        ("'12'", "gave '12'; expected a list of 2 numbers"),
        ("None", "gave None; expected a list of 2 numbers"),
        ("1.5", "gave 1.5; expected a list of 2 numbers"),
    ],
)
def test_what_is_no_list_of_finite_numbers_is_named(tmp_path: Path, returned: str, said: str) -> None:
    reward = reward_from(written(tmp_path, f"def score(prompts, texts):\n    return {returned}\n"))
    with pytest.raises(RewardError, match=said.replace("(", r"\(")):
        reward(ANSWERS)  # type: ignore[operator]


def test_an_exception_is_named_with_its_place(tmp_path: Path) -> None:
    reward = reward_from(written(tmp_path, "def score(prompts, texts):\n    return {}['absent']\n"))
    with pytest.raises(RewardError, match=r"failed with KeyError: 'absent' \(.*mine\.py:2\)"):
        reward(ANSWERS)  # type: ignore[operator]


def test_absent_files_modules_and_functions(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        reward_from(f"{tmp_path / 'absent.py'}:score")
    with pytest.raises(SourceError, match="ModuleNotFoundError"):
        reward_from("python:absent_package_of_mine.rules:score")
    with pytest.raises(SourceError, match=r"there is no function 'other'; there are: score"):
        reward_from(written(tmp_path, "def score(p, t):\n    return []\n").replace(":score", ":other"))
    with pytest.raises(SourceError, match="expected python:package"):
        reward_from("python:no-colon")
    with pytest.raises(SourceError, match="SyntaxError"):
        reward_from(written(tmp_path, "def score(:\n"))


def test_a_model_folder_can_name_no_code(tmp_path: Path) -> None:
    """reward.json lists members by folder name only: a path that leaves the folder, or a function, is not followed."""
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\ndef score(p, t):\n    return [0.0] * len(t)\n")
    folder = tmp_path / "model"
    folder.mkdir()
    about = (
        '{"kind": "ensemble", "members": ["%s:score", "0"], "aggregate": "mean", "disagreement_coef": 0, "scales": [{}, {}]}'
    )
    (folder / "reward.json").write_text(about % (tmp_path / "evil.py"))
    with pytest.raises(SourceError):
        reward_from(folder)
    assert not mark.exists()


def test_a_text_without_a_prompt_is_named_as_well(tmp_path: Path) -> None:
    reward = reward_from(written(tmp_path, "def score(prompts, texts):\n    return [float('nan')]\n"))
    with pytest.raises(RewardError, match=r"gave nan for the answer 'alone'; expected a finite number"):
        reward([Answer((), "alone", [], [2])])  # type: ignore[operator]


@pytest.mark.parametrize("url", ["http://", "http://[bad", "https:///rewards"])
def test_an_address_that_is_none_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address; expected one such as"):
        named([RewardTermSection(source=url)])
