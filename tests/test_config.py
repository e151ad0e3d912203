"""heedful.toml: what is written reads back equal, and what is wrong is named with its place."""

from __future__ import annotations

import functools
import math
import re
import tomllib
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from heedful.config import Config, PPOSection, Section, known_keys, load, parse, to_toml
from heedful.config.file import ALIASES, CONSTITUTIONS, FILES, MODELS
from heedful.errors import ConfigError

# Everything UTF-8 can carry: quotes, controls, line ends, the delete character.
texts = st.text(st.characters(codec="utf-8"), max_size=20)


def bounds(field: FieldInfo) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rule in field.metadata:
        if isinstance(rule, annotated_types.Ge):
            found["min_value"] = rule.ge
        elif isinstance(rule, annotated_types.Gt):
            found |= {"min_value": rule.gt, "exclude_min": True}
        elif isinstance(rule, annotated_types.Le):
            found["max_value"] = rule.le
        elif isinstance(rule, annotated_types.Lt):
            found |= {"max_value": rule.lt, "exclude_max": True}
    return found


def values_of(kind: Any, field: FieldInfo) -> st.SearchStrategy[Any]:
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        return st.lists(values_of(get_args(kind)[0], field), min_size=1, max_size=3).map(tuple)
    if get_origin(kind) is tuple and issubclass(get_args(kind)[0], Section):
        return st.lists(sections(get_args(kind)[0]), max_size=2).map(tuple)
    if get_origin(kind) is tuple:
        return st.lists(texts, max_size=3).map(tuple)
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of(*(values_of(part, field) for part in get_args(kind)))
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(**bounds(field))
    if kind is float:
        return st.floats(**bounds(field), allow_nan=False, allow_infinity=False)
    if kind is str:
        return texts
    if kind is type(None):
        return st.none()
    if issubclass(kind, Section):
        return sections(kind)
    raise NotImplementedError(kind)


def sections(kind: type[Section]) -> st.SearchStrategy[dict[str, Any]]:
    fields = st.fixed_dictionaries({name: values_of(field.annotation, field) for name, field in kind.model_fields.items()})
    return fields.map(meant)


def meant(fields: dict[str, Any]) -> dict[str, Any]:
    """Without the values that validators refuse beside others."""
    if 0 < fields.get("dual_clip", 0) <= 1:
        fields["dual_clip"] = 2.0
    if "in_flight" in fields:  # a feedback model, here a local one
        # Not the name of a folder that is there, as "." is: that becomes an absolute path.
        fields |= {"source": "m" + fields["source"].replace("://", ""), "model": "", "token_env": ""}
    if fields.get("loss") not in (None, "sigmoid", "robust"):
        fields["label_smoothing"] = 0.0
    if "num_trainers" in fields:
        fields |= {"runner": "ray"} if fields["address"] else {}
        fields |= {"runner": "processes"} if fields["runner"] == "local" else {}
        fields |= {"vllm_url": f"http://{fields['vllm_url']}"}
    if "quota" in fields:
        fields |= {"server": f"http://{fields['server']}" if fields["judges"] == "people" else ""}
    return fields


def leaves(kind: type[Section], prefix: str = "") -> list[tuple[str, FieldInfo]]:
    found: list[tuple[str, FieldInfo]] = []
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += leaves(field.annotation, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field))
    return found


def file_of(folder: Path, text: str) -> Path:
    path = folder / "heedful.toml"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def without_paths(config: Config) -> dict[str, Any]:
    """All values but those that are joined to a folder on reading."""
    found = config.model_dump()
    for *sections, name in (key.split(".") for key in (*FILES, *MODELS, *CONSTITUTIONS)):
        del functools.reduce(dict.__getitem__, sections, found)[name]
    for term in found["reward"]["terms"]:
        del term["source"]
    return found


# Round trip


@pytest.mark.parametrize("explain", [False, True])
def test_the_default_reads_back_equal(tmp_path: Path, explain: bool) -> None:
    assert load(file_of(tmp_path, to_toml(Config(), explain=explain))) == Config()
    assert load(file_of(tmp_path, "")) == Config()


@settings(deadline=None, max_examples=60)
@given(sections(Config), st.booleans())
def test_any_configuration_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], explain: bool
) -> None:
    config = Config.model_validate(fields)
    first = load(file_of(tmp_path_factory.mktemp("config"), to_toml(config, explain=explain)))
    assert without_paths(first) == without_paths(config)
    text = to_toml(first, explain=explain)
    again = load(file_of(tmp_path_factory.mktemp("elsewhere"), text))
    assert again == first, "paths are absolute once they have been read"
    assert to_toml(again, explain=explain) == text


def test_explained_toml_holds_every_description() -> None:
    text = to_toml(Config(), explain=True)
    for key, field in leaves(Config):
        assert f"# {field.description}\n" in text, key
    optional = re.compile(r"^# (reward_threshold|feedback) =$", re.MULTILINE)
    assert "#" not in optional.sub("", to_toml(Config()))


def test_a_value_that_is_none_is_shown_and_left_out(tmp_path: Path) -> None:
    text = to_toml(Config())
    assert "# reward_threshold =" in text
    assert "reward_threshold" not in tomllib.loads(text)["ppo"]
    config = load(file_of(tmp_path, text), ("ppo.reward_threshold=1.5",))
    assert config.ppo.reward_threshold == 1.5


def test_every_field_has_a_description_and_every_section_a_docstring() -> None:
    assert len(leaves(Config)) > 50, "the walk has missed the sections"
    for key, field in leaves(Config):
        assert field.description, key
        assert field.description.endswith("."), key
        assert "\n" not in field.description, f"{key}: a comment ends with its line"
    for name, field in Config.model_fields.items():
        if name not in ("seed", "method", "rounds"):
            assert isinstance(field.annotation, type)
            assert field.annotation.__doc__, name
            assert "\n" not in field.annotation.__doc__.strip(), name


def test_every_default_is_allowed_by_its_own_rules() -> None:
    """Pydantic does not check defaults."""
    assert Config.model_validate(Config().model_dump()) == Config()


def test_known_keys_are_every_section_and_field() -> None:
    keys = known_keys()
    assert {key for key, _ in leaves(Config)} <= set(keys)
    assert {"ppo", "ppo.lora", "reward.lora", "model"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().ppo.max_steps = 3  # type: ignore[misc]


# Wrong keys


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("sed = 1", "sed", "seed"),
        ("[pppo]\nmax_steps = 1", "pppo", "ppo"),
        ("[ppo]\nmaxsteps = 1", "ppo.maxsteps", "ppo.max_steps"),
        ("[ppo.lora]\nrnak = 1", "ppo.lora.rnak", "ppo.lora.rank"),
        ("[reward.lora]\nrnak = 1", "reward.lora.rnak", "reward.lora.rank"),
        ("learning_rate = 1", "learning_rate", "ppo.learning_rate"),
        ("[ppo]\nnum_train = 1", "ppo.num_train", "prompts.num_train"),
        ("[reward]\nrank = 4", "reward.rank", "reward.lora.rank"),
        ("[ppo]\nrank = 4", "ppo.rank", "ppo.lora.rank"),
        ("[ppo]\ntargets = ['q_proj']", "ppo.targets", "ppo.lora.targets"),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_known_one(tmp_path: Path, text: str, key: str, near: str) -> None:
    path = file_of(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: unknown key '{key}'; the nearest known key is '{near}'"


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([key for key, _ in leaves(Config)]), st.data())
def test_a_key_with_one_letter_missing_finds_its_own(key: str, data: st.DataObject) -> None:
    section, _, name = key.rpartition(".")
    at = data.draw(st.integers(0, len(name) - 1))
    wrong = name[:at] + name[at + 1 :]
    *parents, _ = key.split(".")
    fields: dict[str, Any] = {wrong: 1}
    for parent in reversed(parents):
        fields = {parent: fields}
    full = f"{section}.{wrong}" if section else wrong
    if not wrong or full in known_keys() or wrong in {known.rpartition(".")[2] for known in known_keys()}:
        return
    with pytest.raises(ConfigError, match=rf"unknown key '{full}'; the nearest known key is '{key}'"):
        parse(fields, "x.toml")


# Wrong values


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[ppo]\nmax_steps = 'ten'", "ppo.max_steps = 'ten'"),
        ("[ppo]\nmax_steps = 1.5", "ppo.max_steps = 1.5"),
        ("[ppo]\nmax_steps = -1", "ppo.max_steps = -1"),
        ("[ppo]\nclip = 1.0", "ppo.clip = 1.0"),
        ("[ppo]\nkl = 'k2'", "ppo.kl = 'k2'"),
        ("[ppo]\nwhiten_advantages = 'maybe'", "ppo.whiten_advantages = 'maybe'"),
        ("[ppo.lora]\nrank = 0", "ppo.lora.rank = 0"),
        ("[prompts]\nfiles = 'one.jsonl'", "prompts.files = 'one.jsonl'"),
        ("[prompts]\nfiles = [3]", "prompts.files.0 = 3"),
        ("[model]\nsource = 3", "model.source = 3"),
        ("[evaluate]\nnum_resamples = 99", "evaluate.num_resamples = 99"),
        ("ppo = 3", "ppo = 3"),
        ("seed = -1", "seed = -1"),
        ("[label]\nnoise = nan", "label.noise = nan"),
        ("[ppo]\nvalue_clip = inf", "ppo.value_clip = inf"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(tmp_path: Path, text: str, place: str) -> None:
    path = file_of(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {place}: ")
    assert "Input should be" in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["[ppo]\nmax_steps = true", "[ppo]\nmax_steps = '3'", "[ppo]\nlam = true", "seed = '7'"])
def test_a_value_of_another_type_is_not_taken_for_a_number(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="Input should be"):
        load(file_of(tmp_path, text))


def test_nan_is_no_threshold(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ppo\.reward_threshold"):
        load(file_of(tmp_path, "[ppo]\nreward_threshold = nan"))


def test_text_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = file_of(tmp_path, "[ppo\nmax_steps = 3")
    with pytest.raises(ConfigError, match=r"heedful\.toml: not valid TOML: .*line 1"):
        load(path)
    path.write_bytes(b"seed = '\xff'")
    with pytest.raises(ConfigError, match=r"heedful\.toml: not valid TOML"):
        load(path)


def test_a_missing_file_is_named_with_the_next_step(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot be read .*'heedful init DIR'") as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")


# Paths


PATHS = """
[model]
source = {source!r}
[prompts]
files = ["prompts.jsonl", "../more/prompts.jsonl", "bundled:dialogues", "hf://datasets/a/b/c.jsonl", "/abs/p.jsonl"]
[label]
judgements = "judgements.jsonl"
[reward]
preferences = ["pairs/one.jsonl.gz"]
model = "encoder"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models in it; the working directory is another one."""
    for name in ("project/encoder", "project/models/small", "project/owner/name", "project/smollm2-135m", "cwd/models/other"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "project"


def test_paths_in_a_file_are_seen_from_its_folder(project: Path) -> None:
    config = load(file_of(project, PATHS.format(source="models/small")))
    assert config.model.source == str(project / "models/small")
    own, beside, *rest = config.prompts.files
    assert (own, Path(beside).resolve()) == (str(project / "prompts.jsonl"), project.parent / "more/prompts.jsonl")
    assert rest == ["bundled:dialogues", "hf://datasets/a/b/c.jsonl", "/abs/p.jsonl"]
    assert config.label.judgements == str(project / "judgements.jsonl")
    assert config.reward.preferences == (str(project / "pairs/one.jsonl.gz"),)
    assert config.reward.model == str(project / "encoder")


def test_the_same_file_is_the_same_configuration_from_everywhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(file_of(project, PATHS.format(source="models/small")))
    found = [load(Path("../project/heedful.toml"))]
    monkeypatch.chdir(project / "models")
    found.append(load(Path("../heedful.toml")))
    monkeypatch.chdir(project)
    found.append(load(Path("heedful.toml")))
    elsewhere = project.parent / "cwd"
    found.append(load(file_of(elsewhere, to_toml(first))))
    assert found == [first] * 4


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("smollm2-135m", "smollm2-135m"),  # an alias, though there is a folder of that name
        ("owner/absent", "owner/absent"),  # no such folder: a hub id
        ("owner/name", "{project}/owner/name"),
        ("./absent", "{project}/absent"),  # cannot be a hub id
        ("../absent", "{project}/../absent"),
        ("/abs/model", "/abs/model"),
    ],
)
def test_only_folders_among_models_are_paths(project: Path, source: str, expected: str) -> None:
    config = load(file_of(project, PATHS.format(source=source)))
    assert config.model.source == expected.format(project=project)


def test_home_is_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    config = load(file_of(project, '[prompts]\nfiles = ["~/p.jsonl"]\n[model]\nsource = "~/models/small"'))
    assert config.prompts.files == ("/home/someone/p.jsonl",)
    assert config.model.source == "/home/someone/models/small"


def test_paths_in_overrides_are_seen_from_the_working_directory(project: Path) -> None:
    here = project.parent / "cwd"
    more = ("prompts.files=['p.jsonl', 'bundled:prompts']", "model.source=models/other", "label={judgements='j.jsonl'}")
    config = load(file_of(project, PATHS.format(source="models/small")), more)
    assert config.prompts.files == (str(here / "p.jsonl"), "bundled:prompts")
    assert config.model.source == str(here / "models/other")
    assert config.label.judgements == str(here / "j.jsonl")
    assert config.reward.preferences == (str(project / "pairs/one.jsonl.gz"),)
    assert load(project / "heedful.toml", ("model.source=models/small",)).model.source == "models/small"


def test_the_aliases_are_those_of_the_sources() -> None:
    from heedful.models import sources

    assert set(ALIASES) == set(sources.ALIASES)


# --set


def test_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = file_of(tmp_path, "seed = 5\n[ppo]\nmax_steps = 7\nlam = 0.5\n")
    config = load(
        path,
        (
            "ppo.max_steps=10",
            "ppo.lora.rank=4",
            "model.source=some/folder-1b",
            'label.criterion="harmless"',
            "prompts.files=['a.jsonl', 'b = c.jsonl']",
            "ppo.whiten_advantages=false",
            " reward.learning_rate = 5e-5 ",
        ),
    )
    assert config.seed == 5
    assert (config.ppo.max_steps, config.ppo.lam, config.ppo.lora.rank) == (10, 0.5, 4)
    assert config.ppo.lora.alpha == PPOSection().lora.alpha
    assert config.reward.lora.rank == Config().reward.lora.rank
    assert (config.model.source, config.label.criterion) == ("some/folder-1b", "harmless")
    assert config.prompts.files == (str(tmp_path / "a.jsonl"), str(tmp_path / "b = c.jsonl"))
    assert config.ppo.whiten_advantages is False
    assert math.isclose(config.reward.learning_rate, 5e-5)


def test_a_later_override_wins(tmp_path: Path) -> None:
    assert load(file_of(tmp_path, "seed = 1"), ("seed=2", "seed=3")).seed == 3


@pytest.mark.parametrize("text", ["helpful, honest", "", "a=b", "what's this", "[half", "# no comment"])
def test_bare_words_are_strings(tmp_path: Path, text: str) -> None:
    assert load(file_of(tmp_path, ""), (f"label.criterion={text}",)).label.criterion == text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.max_steps", "--set ppo.max_steps: expected section.key=value"),
        ("", "--set : expected section.key=value"),
        ("=3", "unknown key ''"),
        ("ppo..max_steps=3", "unknown key 'ppo."),
        ("seed.deeper=3", "--set seed.deeper=3: 'seed' is a value, not a section"),
        ("ppo.max_stepz=3", "unknown key 'ppo.max_stepz'; the nearest known key is 'ppo.max_steps'"),
        ("ppo.max_steps=many", "ppo.max_steps = 'many': Input should be"),
        ("ppo=3", "ppo = 3: Input should be"),
    ],
)
def test_malformed_overrides_are_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file_of(tmp_path, "seed = 1"), (override,))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("ppo.dual_clip=0.5", r"ppo\.dual_clip = 0\.5: dual_clip is above 1"),
        ("grpo.dual_clip=1.0", r"grpo\.dual_clip = 1\.0: dual_clip is above 1"),
        ("dpo.label_smoothing=0.1", r"dpo\.label_smoothing = 0\.1: label_smoothing belongs to loss = 'sigmoid' or 'robust'"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse({"dpo": {"loss": "simpo"}}, "x.toml", (override,))
    assert parse({}, "x.toml", ("ppo.dual_clip=3.0", "dpo.label_smoothing=0.1")).ppo.dual_clip == 3


def test_relative_labelled_files_are_seen_from_the_files_folder(tmp_path: Path) -> None:
    config = file_of(tmp_path, '[reward.labelled]\nfiles = ["labels.jsonl"]\nwanted = "kind"\n')
    assert load(config).reward.labelled.files == (str(tmp_path / "labels.jsonl"),)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("mine.py:score", "{folder}/mine.py:score"),
        ("reward", "{folder}/reward"),
        ("./absent", "{folder}/absent"),
        ("ensemble:reward, owner/name", "ensemble:{folder}/reward,owner/name"),
        ("owner/name", "owner/name"),
        ("python:mine:score", "python:mine:score"),
        ("http://127.0.0.1:8000/rewards", "http://127.0.0.1:8000/rewards"),
        ("trained", "trained"),
    ],
)
def test_rewards_in_a_file_are_seen_from_its_folder(tmp_path: Path, source: str, found: str) -> None:
    (tmp_path / "reward").mkdir()
    config = load(file_of(tmp_path, f'[[reward.terms]]\nsource = "{source}"\n'))
    assert config.reward.terms[0].source == found.format(folder=tmp_path)


def test_gold_is_another_reward() -> None:
    with pytest.raises(ConfigError, match="does not learn from"):
        parse({}, "--set", ("monitor.gold=trained",))
