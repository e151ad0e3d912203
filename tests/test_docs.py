"""What the pages say exists, and what exists is on the pages: settings, metrics, links, commands."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import line_links
import pytest

from heedful.config import (
    Config,
    DPOSection,
    EnvironmentSection,
    EvaluateSection,
    FeedbackSection,
    GRPOSection,
    ILQLSection,
    KTOSection,
    LabelledSection,
    LabelSection,
    LoraSection,
    ModelSection,
    MonitorSection,
    PPOSection,
    PreferSection,
    PromptsSection,
    ReviseSection,
    RewardSection,
    RewardTermSection,
    RLOOSection,
    RoundSection,
    SampleSection,
    ScaleSection,
    Section,
    SFTSection,
    UpdateSection,
)
from heedful.config.file import FILES, MODELS
from heedful.training.tictactoe.settings import BoardPPOSection, BoardQSection

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "heedful"
PAGES = line_links.pages()
CONFIG_PAGE = ROOT / "docs" / "configuration.md"
PPO_PAGE = ROOT / "docs" / "methods" / "ppo.md"
REWARD_PAGE = ROOT / "docs" / "methods" / "reward-model.md"
SFT_PAGE, DPO_PAGE, KTO_PAGE = (ROOT / "docs" / "methods" / f"{name}.md" for name in ("sft", "dpo", "kto"))
ILQL_PAGE = ROOT / "docs" / "methods" / "ilql.md"
BOARD_PAGE = ROOT / "docs" / "methods" / "tictactoe.md"
REWARDS_PAGE = ROOT / "docs" / "methods" / "rewards.md"
CONSTITUTION_PAGE = ROOT / "docs" / "constitution-files.md"
CONSTITUTIONAL_PAGE = ROOT / "docs" / "methods" / "constitutional-ai.md"
ROUNDS_PAGE, UPDATES_PAGE = (ROOT / "docs" / "methods" / f"{name}.md" for name in ("rounds", "updates"))
ENVIRONMENTS_PAGE = ROOT / "docs" / "methods" / "environments.md"
HACKING_PAGE = ROOT / "docs" / "methods" / "hacking.md"


# Reading pages


def section(text: str, heading: str) -> str:
    """The text under a heading up to the next one of its level or above."""
    level = len(heading) - len(heading.lstrip("#"))
    match = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, f"no heading {heading!r}"
    return match.group(1)


def table(text: str) -> dict[str, list[str]]:
    """Rows of the tables in a text: the name in backticks in the first cell, and the other cells."""
    rows = {}
    for line in text.splitlines():
        match = re.match(r"\|\s*`([^`]+)`\s*\|(.*)\|\s*$", line)
        if match:
            rows[match.group(1)] = [cell.strip() for cell in match.group(2).split("|")]
    return rows


def documented_default(cell: str) -> Any:
    """The value in a cell of defaults, in TOML's notation; `none` is None."""
    text = cell.strip("`")
    return None if text == "none" else tomllib.loads(f"value = {text}")["value"]


def sections_in(kind: type[Section], prefix: str = "") -> dict[str, type[Section]]:
    """All sections below one, by their dotted names; also those in lists or unions."""
    found = {}
    for name, field in kind.model_fields.items():
        waiting: list[Any] = [field.annotation]
        while waiting:
            part = waiting.pop()
            if isinstance(part, type) and issubclass(part, Section):
                found |= {prefix + name: part} | sections_in(part, f"{prefix}{name}.")
            waiting += get_args(part)
    return found


SECTIONS = sections_in(Config)
SETTINGS = [
    pytest.param(CONFIG_PAGE, "## Top level", Config, id="top-level"),
    pytest.param(CONFIG_PAGE, "## [model]", ModelSection, id="model"),
    pytest.param(CONFIG_PAGE, "## [prompts]", PromptsSection, id="prompts"),
    pytest.param(CONFIG_PAGE, "## [sample]", SampleSection, id="sample"),
    pytest.param(CONFIG_PAGE, "## [label]", LabelSection, id="label"),
    pytest.param(CONFIG_PAGE, "## [evaluate]", EvaluateSection, id="evaluate"),
    pytest.param(CONFIG_PAGE, "## [scale]", ScaleSection, id="scale"),
    pytest.param(PPO_PAGE, "## Settings", PPOSection, id="ppo"),
    pytest.param(REWARD_PAGE, "## Settings", RewardSection, id="reward"),
    pytest.param(SFT_PAGE, "## Settings", SFTSection, id="sft"),
    pytest.param(DPO_PAGE, "## Settings", DPOSection, id="dpo"),
    pytest.param(KTO_PAGE, "## Settings", KTOSection, id="kto"),
    pytest.param(REWARD_PAGE, "### [reward.lora] and [ppo.lora]", LoraSection, id="lora"),
    pytest.param(ILQL_PAGE, "## Settings", ILQLSection, id="ilql"),
    pytest.param(BOARD_PAGE, "## Settings of PPO", BoardPPOSection, id="tictactoe-ppo"),
    pytest.param(BOARD_PAGE, "## Settings of Q-learning", BoardQSection, id="tictactoe-q"),
    pytest.param(REWARD_PAGE, "### [reward.labelled]", LabelledSection, id="labelled"),
    pytest.param(REWARDS_PAGE, "## Settings", RewardTermSection, id="terms"),
    pytest.param(HACKING_PAGE, "## Settings", MonitorSection, id="monitor"),
    pytest.param(ROUNDS_PAGE, "## Settings", RoundSection, id="round"),
    pytest.param(UPDATES_PAGE, "## Settings", UpdateSection, id="update"),
    pytest.param(ENVIRONMENTS_PAGE, "## Settings", EnvironmentSection, id="environment"),
    pytest.param(CONSTITUTION_PAGE, "### Settings", FeedbackSection, id="feedback"),
    pytest.param(CONSTITUTIONAL_PAGE, "### Settings of stage 1", ReviseSection, id="revise"),
    pytest.param(CONSTITUTIONAL_PAGE, "### Settings of stage 2", PreferSection, id="prefer"),
]


@pytest.mark.parametrize(("page", "heading", "kind"), SETTINGS)
def test_each_setting_is_documented_with_its_default(page: Path, heading: str, kind: type[Section]) -> None:
    text = section(page.read_text(encoding="utf-8"), heading)
    rows = table(text.split("\n### ")[0])
    # The sections of the whole file are no keys of its top level; a method's `lora` is one of the method.
    fields = {name: field for name, field in kind.model_fields.items() if kind is not Config or name not in SECTIONS}
    assert set(rows) == set(fields)
    for name, field in fields.items():
        if isinstance(field.default, Section):
            continue
        expected = list(field.default) if isinstance(field.default, tuple) else field.default
        assert documented_default(rows[name][0]) == expected, f"{page.name}: default of {name}"
        assert rows[name][1], f"{page.name}: {name} says nothing"


SHARING = {RLOOSection: PPO_PAGE.parent / "rloo.md", GRPOSection: PPO_PAGE.parent / "grpo.md"}


@pytest.mark.parametrize(("kind", "page"), SHARING.items())
def test_a_sections_own_settings_are_documented_and_the_shared_ones_are_ppos(kind: type[Section], page: Path) -> None:
    text = section(page.read_text(encoding="utf-8"), "## Settings")
    rows = table(text)
    assert set(rows) == set(kind.__annotations__)
    assert "(ppo.md#settings)" in text
    assert set(kind.model_fields) - set(rows) <= set(PPOSection.model_fields)
    for name, cells in rows.items():
        assert documented_default(cells[0]) == kind.model_fields[name].default, name


def pages_of_sections() -> dict[type[Section], Path]:
    """Where the tests above look for the keys of each section."""
    return SHARING | {kind: page for page, _, kind in (case.values for case in SETTINGS)}


def without_page(kinds: Mapping[str, type[Section]]) -> list[str]:
    return [name for name, kind in kinds.items() if kind not in pages_of_sections()]


def test_every_section_has_a_page() -> None:
    assert {"prompts", "kto.lora", "reward.labelled", "reward.terms"} <= set(SECTIONS)
    assert without_page(SECTIONS) == [], "document its keys on a page, and add it to SETTINGS"


def test_a_section_without_a_page_is_seen() -> None:
    class Inner(Section):
        size: int = 1

    class Outer(Section):
        one: Inner = Inner()
        many: tuple[Inner, ...] = ()
        perhaps: Inner | None = None
        label: LabelSection = LabelSection()

    class New(Config):
        outer: Outer = Outer()

    assert without_page(sections_in(New)) == ["outer", "outer.one", "outer.many", "outer.perhaps"]


def test_the_configuration_page_leads_to_the_page_of_each_section() -> None:
    rows = table(section(CONFIG_PAGE.read_text(encoding="utf-8"), "## Sections with pages of their own"))
    elsewhere = {name: kind for name, kind in SECTIONS.items() if pages_of_sections()[kind] != CONFIG_PAGE}
    named = {name.strip("[]"): cells for name, cells in rows.items()}
    assert set(elsewhere.values()) == {elsewhere[name] for name in named}
    assert {name for name in elsewhere if "." not in name} <= set(named)
    for name, cells in named.items():
        (target,) = re.findall(r"\]\(([^)#]+)#[^)]+\)", cells[-1])
        assert CONFIG_PAGE.parent / target == pages_of_sections()[SECTIONS[name]], name


def test_keys_that_hold_paths_are_on_the_configuration_page() -> None:
    assert {*FILES, *MODELS} <= set(table(section(CONFIG_PAGE.read_text(encoding="utf-8"), "## Paths")))


# Reading source


def without_inner_functions(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """All nodes of a function's body but those of functions inside it, whose returns are not its own."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def returned_keys(source: str, owner: str | None, function: str) -> set[str]:
    """Keys of the dictionaries that a function returns at their top level, from the source alone.

    Follows `|`, `**`, local names, conditional expressions, and comprehensions over a local tuple of names. What a call
    returns is not followed.
    """
    body: list[ast.stmt] = ast.parse(source).body
    if owner is not None:
        body = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == owner).body
    found = next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == function)
    own_nodes = list(without_inner_functions(found))
    values: dict[str, list[ast.expr]] = {}
    added: dict[str, set[str]] = {}
    for node in own_nodes:
        if isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets, value = [node.target], node.value
        elif isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                values.setdefault(target.id, []).append(value)
            elif (
                isinstance(target, ast.Subscript)
                and isinstance(target.value, ast.Name)
                and isinstance(target.slice, ast.Constant)
            ):
                added.setdefault(target.value.id, set()).add(str(target.slice.value))

    def strings(node: ast.expr) -> set[str]:
        if isinstance(node, ast.Name):
            return {text for value in values[node.id] for text in strings(value)}
        assert isinstance(node, ast.Tuple | ast.List), f"{function}: keys come from {ast.unparse(node)}, which cannot be read"
        return {str(ast.literal_eval(item)) for item in node.elts}

    def keys(node: ast.expr) -> set[str]:
        if isinstance(node, ast.Dict):
            named = {str(ast.literal_eval(key)) for key in node.keys if key is not None}
            spread = [value for key, value in zip(node.keys, node.values, strict=True) if key is None]
            return named.union(*map(keys, spread))
        if isinstance(node, ast.BinOp):
            return keys(node.left) | keys(node.right)
        if isinstance(node, ast.IfExp):
            return keys(node.body) | keys(node.orelse)
        if isinstance(node, ast.DictComp):
            return strings(node.generators[0].iter)
        if isinstance(node, ast.Name):
            own = values.get(node.id)
            assert own, f"{function}: {node.id} is not made in this function, so its keys cannot be read"
            return added.get(node.id, set()).union(*map(keys, own))
        assert isinstance(node, ast.Call | ast.Await), f"{function}: returns {ast.unparse(node)}, which cannot be read"
        return set()

    return set().union(*(keys(n.value) for n in own_nodes if isinstance(n, ast.Return) and n.value is not None))


def keys_in(file: str, owner: str | None, *functions: str) -> set[str]:
    source = (SOURCE / file).read_text(encoding="utf-8")
    found = [returned_keys(source, owner, function) for function in functions]
    assert all(found), f"{file}: no keys found in one of {functions}"
    return set().union(*found)


def test_keys_are_read_from_every_shape_in_use() -> None:
    source = """
class A:
    def step(self):
        learned = self.learn()
        return {"reward": 1.0, "nested": {"inside": 1}, **learned}
    def learn(self):
        names = ("policy_loss", "value_loss")
        return {name: 0.0 for name in names} | {"grad_norm": 1.0}
    def evaluate(self):
        found = {"heldout": 1.0}
        found["more"] = 2.0
        def inner():
            return {"inner": 1.0}
        return found if found else {}
"""
    assert returned_keys(source, "A", "step") == {"reward", "nested"}
    assert returned_keys(source, "A", "learn") == {"policy_loss", "value_loss", "grad_norm"}
    assert returned_keys(source, "A", "evaluate") == {"heldout", "more"}
    with pytest.raises(AssertionError, match="cannot be read"):
        returned_keys("def f(measured):\n    return measured", None, "f")


def test_each_quantity_of_a_policy_gradient_step_is_documented() -> None:
    measured = keys_in("training/policy_gradient.py", "PolicyGradient", "_step", "evaluate")
    measured |= keys_in("training/policy_update.py", "PolicyUpdate", "learn")
    assert {"kl_policy_ref", "update_kl", "grad_norm", "heldout_reward", "kl_loss", "return"} <= measured
    ppos = set(table(section(PPO_PAGE.read_text(encoding="utf-8"), "## What a step logs")))
    grpos = set(table(section((PPO_PAGE.parent / "grpo.md").read_text(encoding="utf-8"), "## What a step logs")))
    assert ppos | grpos == measured
    assert grpos == {"kl_loss"}


def test_each_quantity_of_the_monitor_is_documented() -> None:
    measured = keys_in("evaluation/monitor.py", "Monitor", "after_step", "after_evaluation")
    assert {"hacking_level", "heldout_gold"} <= measured
    assert set(table(section(HACKING_PAGE.read_text(encoding="utf-8"), "## What a step logs"))) == measured


def test_each_quantity_that_an_environment_measures_is_documented() -> None:
    """Names in the info of every kind; the log shows them with env_ before."""
    measured = {"turns"}
    for file in ("tools", "retrieval", "tictactoe"):
        text = (SOURCE / "environments" / f"{file}.py").read_text(encoding="utf-8")
        measured |= set(re.findall(r'"(\w+)": (?:\d|float|right)', text)) | set(re.findall(r'-?\d: "(\w+)"', text))
    assert {"right", "calls", "won", "illegal", "retrieved"} <= measured
    text = section(ENVIRONMENTS_PAGE.read_text(encoding="utf-8"), "## What a step logs")
    assert set(re.findall(r"`env_(\w+)`", text)) == measured


def test_each_quantity_of_a_reward_model_step_is_documented() -> None:
    measured = keys_in("training/reward.py", "PairwiseTraining", "step", "evaluate")
    measured |= keys_in("training/classifier.py", "ClassifierTraining", "step", "evaluate")
    assert {"loss", "heldout_accuracy", "tie_parameter"} <= measured
    assert set(table(section(REWARD_PAGE.read_text(encoding="utf-8"), "## What a step logs"))) == measured


def test_each_quantity_of_an_ilql_step_is_documented() -> None:
    measured = keys_in("training/ilql.py", "ILQL", "step", "evaluate")
    assert {"td_loss", "heldout_accuracy"} <= measured
    assert set(table(section(ILQL_PAGE.read_text(encoding="utf-8"), "## What a step logs"))) == measured


def test_each_quantity_of_a_tic_tac_toe_step_is_documented() -> None:
    measured = keys_in("training/tictactoe/ppo.py", "BoardPPO", "step", "_update")
    measured |= keys_in("training/tictactoe/q.py", "BoardQ", "step") | keys_in("training/tictactoe/proof.py", None, "measure")
    assert {"unbeaten", "policy_loss", "td_loss"} <= measured
    assert set(table(section(BOARD_PAGE.read_text(encoding="utf-8"), "## What a step logs"))) == measured


def test_each_key_of_a_reward_models_result_is_documented() -> None:
    written = keys_in("evaluation/compare.py", None, "accuracy") | keys_in(
        "evaluation/classification.py", None, "classification"
    )
    written |= keys_in("training/loop.py", "Outcome", "as_dict")
    written |= keys_in("rewards/tasks.py", "PairTask", "fit", "measure") | keys_in(
        "rewards/tasks.py", "LabelledTask", "measure"
    )
    members = re.search(r"return ensemble, measured \| \{(.*)\}", (SOURCE / "rewards" / "tasks.py").read_text(encoding="utf-8"))
    assert members
    written |= set(re.findall(r'"(\w+)":', members.group(1)))
    assert {"longest_answer", "steps", "auc", "members"} <= written
    assert set(table(section(REWARD_PAGE.read_text(encoding="utf-8"), "## What the result says"))) == written


@pytest.mark.parametrize("page", SHARING.values(), ids=lambda page: page.stem)
def test_the_results_of_rloo_and_grpo_are_ppos(page: Path) -> None:
    """What a command writes is compared with PPO's page, in tests/cli."""
    text = section(page.read_text(encoding="utf-8"), "## What the result says")
    assert "(ppo.md#what-the-result-says)" in text
    assert table(text) == {}


FROM_FILES = [
    pytest.param(SFT_PAGE, "training/sft.py", "SFT", {"loss", "heldout_loss"}, id="sft"),
    pytest.param(DPO_PAGE, "training/dpo.py", "DPO", {"margin", "heldout_accuracy"}, id="dpo"),
    pytest.param(KTO_PAGE, "training/kto.py", "KTO", {"kl_mismatched", "reward_desirable", "heldout_accuracy"}, id="kto"),
]


@pytest.mark.parametrize(("page", "file", "method", "some"), FROM_FILES)
def test_each_quantity_of_a_method_from_files_is_documented(page: Path, file: str, method: str, some: set[str]) -> None:
    measured = keys_in(file, method, "step", "evaluate") | keys_in("training/adapter.py", "AdapterTraining", "update")
    assert some | {"grad_norm", "learning_rate"} <= measured
    assert set(table(section(page.read_text(encoding="utf-8"), "## What a step logs"))) == measured


def test_each_quantity_that_a_reward_measures_is_documented() -> None:
    """Whatever is put into an attribute `measured`; a name made of the term's is documented as term_NAME."""
    measured = set()
    for file in sorted((SOURCE / "rewards").glob("*.py")):
        text = file.read_text(encoding="utf-8")
        measured |= set(re.findall(r'measured(?: = \{|\[)f?"(\w+)', text))
    assert {"term_", "ensemble_sd", "endpoint_retries"} <= measured
    documented = table(section(REWARDS_PAGE.read_text(encoding="utf-8"), "## What a step logs"))
    assert {name.removesuffix("NAME") for name in documented} == measured


# Links

FENCE = line_links.FENCE
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|\b(?:src|href)=\"([^\"]+)\"")


def links(text: str) -> list[str]:
    """Targets of links and pictures outside code, save those to other sites."""
    prose = re.sub(r"`[^`\n]*`", "code", FENCE.sub("", text))
    found = [first or second for first, second in LINK.findall(prose)]
    return [target for target in found if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def anchors(text: str) -> set[str]:
    """Names under which a page's headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path, text: str) -> list[str]:
    """Links of a page that lead nowhere."""
    wrong = []
    for target in links(text):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if path and not file.exists():
            wrong.append(target)
        elif anchor and file.suffix == ".md":
            there = text if file == page else file.read_text(encoding="utf-8")
            if anchor not in anchors(there):
                wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_relative_link_leads_somewhere(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_a_link_that_leads_nowhere_is_seen() -> None:
    text = "# A title\n[a](absent.md) [b](#a-title) [c](#absent) [d](https://example.org/x) ![e](absent.png) `[f](code.md)`\n"
    assert broken(ROOT / "page.md", text) == ["absent.md", "#absent", "absent.png"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_to_a_name_leads_to_the_line_of_its_definition(page: Path) -> None:
    revised = line_links.revise(page, page.read_text(encoding="utf-8"))
    assert revised.unknown == [], "the file defines no such name: correct the link, then run 'make links'"
    assert revised.stale == [], "definitions have moved: run 'make links' and commit what it changes"


# Commands


def commands(text: str) -> list[list[str]]:
    """Words of each `heedful ...` command in a page's code blocks."""
    found = []
    for block in FENCE.finditer(text):
        lines = re.sub(r"\\\n\s*", " ", block.group(0)).splitlines()[1:-1]
        for line in lines:
            for part in re.split(r"&&|\|\||[;|]", line.split(" #")[0]):
                match = re.match(r"\s*(?:\$\s+)?(?:[A-Z_]+=\S+\s+)*(?:uv run\s+|time\s+)?heedful(?=\s|$)(.*)", part)
                if match:
                    found.append(shlex.split(match.group(1)))
    return found


def wrong_use(words: list[str], command: Any) -> str | None:
    """What a command line gets wrong: a subcommand or an option that does not exist."""
    known = {"--help", "-h"} | {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word.startswith("-") and word != "-":
            name = word.split("=")[0]
            if name not in known:
                return f"no option {name}"
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return f"no command {word}"
            return wrong_use(waiting, command.commands[word])
    return None


@pytest.fixture(scope="module")
def root_command() -> Any:
    import typer

    from heedful.cli.app import app

    return typer.main.get_command(app)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_on_a_page_exists(page: Path, root_command: Any) -> None:
    found = commands(page.read_text(encoding="utf-8"))
    wrong = {shlex.join(words): wrong_use(words, root_command) for words in found}
    assert {line: why for line, why in wrong.items() if why} == {}


def test_a_command_that_does_not_exist_is_seen(root_command: Any) -> None:
    text = "```bash\n$ heedful run a.toml --dir b && heedful absent x  # why\nA=1 heedful run a.toml \\\n  --absent\n```\n"
    first, second, third = commands(text)
    assert wrong_use(first, root_command) is None
    assert wrong_use(second, root_command) == "no command absent"
    assert wrong_use(third, root_command) == "no option --absent"
