"""Both stages in one command: what it refuses before anything is learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from heedful.config import parse
from heedful.constitution_flow import constitution_run
from heedful.errors import DataError
from heedful.records import Message, Prompt
from heedful.store import write_jsonl


@pytest.mark.parametrize("splits", [(None, None), ("train", None)])
def test_prompts_without_a_split_are_refused(tmp_path: Path, splits: tuple[str | None, ...]) -> None:
    messages = (Message(role="user", content="Hi."),)
    prompts = [Prompt.model_validate({"id": str(n), "messages": messages, "split": split}) for n, split in enumerate(splits)]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    config = parse({"prompts": {"files": [str(tmp_path / "prompts.jsonl")]}}, "here")
    with pytest.raises(DataError, match=r"prompts.jsonl: not every prompt says .* 'split', train or heldout"):
        constitution_run(config, tmp_path / "run", lambda *_: None, "")
    assert not (tmp_path / "run").exists()
