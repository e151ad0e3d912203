"""From the section [environment] to what a run plays in."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from heedful.config import RUBRIC, Config, EnvironmentSection
from heedful.engine.conversation import Conversation
from heedful.engine.episodes import Environment, World
from heedful.environments.conversation import ToolConversation
from heedful.environments.retrieval import Retrieval
from heedful.environments.tictactoe import TicTacToe
from heedful.environments.tool import Tool
from heedful.environments.tools import ToolUse
from heedful.errors import ConfigError, DataError
from heedful.records import Prompt, by_id

MAX_PASSAGE = 600  # characters


def world_of(section: EnvironmentSection, prompts: Sequence[Prompt]) -> World | None:
    """None for a prompt set, the environment whose only action is the completion: the ordinary way of runs, with what the
    protocol would give (tests/environments/test_episodes.py plays it so).
    """
    if section.kind == "prompts":
        return None
    turns = {"tools": section.max_turns, "retrieval": 1, "tictactoe": 5}[section.kind]
    return World(maker(section), by_id(prompts), turns, section.max_observation_tokens)


def maker(section: EnvironmentSection) -> Callable[[], Environment]:
    """What makes an environment for an episode; episodes share the tools."""
    if section.kind == "tictactoe":
        return lambda: TicTacToe(section.opponent)
    if section.kind == "retrieval":
        search = new_tools(section, ("search",))["search"]
        return lambda: Retrieval(search)
    tools = new_tools(section, section.tools)
    return lambda: ToolUse(tools, call_cost=section.call_cost, told=section.instructions)


def new_tools(section: EnvironmentSection, names: Sequence[str]) -> Mapping[str, Tool]:
    """The tools with these names. Raises ConfigError for a search without documents."""
    found = {}
    for name in names:
        about: dict[str, object] = {}
        if name == "search":
            if not section.documents:
                raise ConfigError(
                    "environment: a search needs documents; name text, markdown or JSONL files in environment.documents"
                )
            about = {"passages": read_passages(section.documents), "count": section.num_passages}
        found[name] = Tool(name, timeout_s=section.timeout_s, memory_mb=section.memory_mb, about=about)
    return found


def with_tools(talk: Conversation, documents: Sequence[Path], *, seed: int, asked: bool) -> ToolConversation:
    """A conversation with the tools of `heedful chat --tools`: a calculator, and a search where there are documents."""
    if not asked:
        raise ConfigError("--documents are for a search, which is a tool: add --tools")
    section = EnvironmentSection(documents=tuple(map(str, documents)), num_passages=2)
    names = ("calculator", "search") if documents else ("calculator",)
    return ToolConversation(talk, new_tools(section, names), seed=seed)


def read_passages(files: Sequence[str]) -> list[str]:
    """Passages of files: paragraphs of text and markdown, the field `text` of JSONL's lines; long ones are cut into several at
    spaces. Raises DataError.
    """
    found: list[str] = []
    for name in files:
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a document ({error}); environment.documents names text files") from None
        if path.suffix == ".jsonl":
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    found.append(_field(line, f"{path}:{number}"))
        else:
            found += re.split(r"\n\s*\n", text)
    passages = [
        passage for text in found for passage in textwrap.wrap(" ".join(text.split()), MAX_PASSAGE, break_on_hyphens=False)
    ]
    if not passages:
        raise DataError(f"{', '.join(files)}: hold no passage to search in")
    return passages


def _field(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise DataError(f"{where}: expected a JSON object with a field 'text'")
    return str(record["text"])


def require_rewards_of_episodes(config: Config, trains_reward: bool) -> None:
    """Raises ConfigError for rewards that know nothing of turns."""
    kind = config.environment.kind
    if kind == "prompts":
        return
    if trains_reward:
        raise ConfigError(
            f"environment.kind = {kind!r} pays by itself, and the completions that a run has labelled are of one turn; name "
            "rewards that exist in reward.terms, or leave the terms out"
        )
    if config.rounds > 1:
        raise ConfigError(
            f"environment.kind = {kind!r} pays by itself, and rounds are for judgements of people; leave rounds at 1"
        )
    if config.scale.max_staleness or config.scale.vllm_url:
        raise ConfigError(
            f"environment.kind = {kind!r}: episodes are played with the weights of the step; leave scale.max_staleness at 0 "
            "and scale.vllm_url empty"
        )
    if config.monitor.gold == RUBRIC:
        raise ConfigError(
            f"monitor.gold = 'rubric' reads answers to prompts, not episodes of {kind!r}; name a source of rewards"
        )
