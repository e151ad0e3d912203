"""heedful.toml as a whole: reading it, overriding keys, writing it."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from heedful.config.data import EvaluateSection, LabelSection, ModelSection, PromptsSection, SampleSection
from heedful.config.environment import EnvironmentSection
from heedful.config.offline import DPOSection, ILQLSection, KTOSection, SFTSection
from heedful.config.online import GRPOSection, MonitorSection, PPOSection, RLOOSection
from heedful.config.prefer import PreferSection
from heedful.config.revise import ReviseSection
from heedful.config.reward import RewardSection
from heedful.config.rounds import RoundSection
from heedful.config.scale import ScaleSection
from heedful.config.section import Section
from heedful.config.update import UpdateSection
from heedful.errors import ConfigError

# Keys that name files, and keys that name a model: a folder, or else an alias or a hub id.
LISTS = (
    "prompts.files",
    "environment.documents",
    "reward.preferences",
    "reward.labelled.files",
    "prefer.gate",
    "revise.helpful_prompts",
    "revise.helpful_completions",
)
FILES = (*LISTS, "label.judgements", "scale.vllm_folder")
MODELS = ("model.source", "reward.model", "prefer.policy")
CONSTITUTIONS = ("prefer.constitution", "revise.constitution")  # a file, or BUNDLED
TERMS = "reward.terms"
RUBRIC = "rubric"  # as monitor.gold
PERSONS = "persons.json"  # in each folder of `heedful persons fit`
BUNDLED = "bundled"  # as prefer.constitution
ALIASES = ("smollm2-135m", "minilm-22m")  # as in models/sources.py, which lies above this file


class Config(Section):
    """A whole run."""

    seed: int = Field(0, ge=0, description="Every random choice derives from it.")
    method: Literal["ppo", "rloo", "grpo"] = Field(
        "ppo", description="What optimises the policy; its section below holds its settings."
    )
    rounds: int = Field(1, ge=1, description="Times that the newest policy answers, is judged, and learns from all judgements.")
    model: ModelSection = ModelSection()
    prompts: PromptsSection = PromptsSection()
    sample: SampleSection = SampleSection()
    label: LabelSection = LabelSection()
    round: RoundSection = RoundSection()
    reward: RewardSection = RewardSection()
    ppo: PPOSection = PPOSection()
    sft: SFTSection = SFTSection()
    dpo: DPOSection = DPOSection()
    kto: KTOSection = KTOSection()
    rloo: RLOOSection = RLOOSection()
    grpo: GRPOSection = GRPOSection()
    ilql: ILQLSection = ILQLSection()
    revise: ReviseSection = ReviseSection()
    prefer: PreferSection = PreferSection()
    update: UpdateSection = UpdateSection()
    environment: EnvironmentSection = EnvironmentSection()
    monitor: MonitorSection = MonitorSection()
    evaluate: EvaluateSection = EvaluateSection()
    scale: ScaleSection = ScaleSection()


def load(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration in a file. overrides: "section.key=value" with the value in TOML's notation.

    Relative paths in the file are seen from its folder, those in overrides from the working directory; both become absolute.
    Raises ConfigError naming the file and the key; an unknown key comes with the nearest known one.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); 'heedful init DIR' writes one to start from") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return parse(_from_folder("", fields, path.parent), str(path), overrides)


def says(path: Path, config: Config) -> bool:
    """Whether the file at `path` is this very configuration."""
    try:
        return load(path) == config
    except ConfigError:
        return False


def parse(fields: dict[str, Any], where: str, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration in nested dictionaries; `where` begins the error messages. Relative paths: as overrides in `load`."""
    fields = _from_folder("", fields, Path())
    for override in overrides:
        _apply(fields, override)
    try:
        return Config.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        location = tuple(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: {_unknown_key(location)}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {'.'.join(location)} = {first['input']!r}: {message}") from None


def for_reward_training(
    overrides: tuple[str, ...],
    *,
    pairs: bool,
    labelled: Sequence[str] | None,
    wanted: str,
    ensemble: int | None,
    seed: int | None,
) -> Config:
    """The configuration of `heedful reward train`: the overrides, and over them what has an option of its own."""
    given: list[str] = [f"reward.labelled.files={json.dumps(list(labelled))}"] if labelled else []
    given += [f"reward.labelled.wanted={json.dumps(wanted)}"] if wanted else []
    given += [f"reward.ensemble={ensemble}"] if ensemble is not None else []
    given += [f"seed={seed}"] if seed is not None else []
    config = parse({}, "--set", (*overrides, *given))
    if pairs == bool(config.reward.labelled.files):
        raise ConfigError("a reward model learns either from --preferences or from --labelled: name files of one of the two")
    return config


def with_reward(config: Config, source: str | None, label: str, reads: str) -> Config:
    """The configuration with one source of rewards in place of its terms; as it is when no source is given.

    Raises ConfigError when neither names a reward that exists already; an environment other than a prompt set is one.
    """
    terms = config.reward.terms
    if source is not None:
        one = {"source": source, "label": label, "reads": reads}
        terms = parse({"reward": {"terms": [one]}}, "--reward-model").reward.terms
    if not terms and config.environment.kind != "prompts":
        return config
    if not terms or any(term.source == "trained" for term in terms):
        raise ConfigError("name a reward that exists: --reward-model, or [[reward.terms]] without source = 'trained'")
    return config.model_copy(update={"reward": config.reward.model_copy(update={"terms": terms})})


def for_revising(config: Config, source: str | None, label: str, reads: str) -> Config:
    """The configuration of `heedful constitution revise`: with a source of rewards, that is what judges revisions."""
    if source is None:
        return config
    scored = config.revise.model_copy(update={"scorer": "reward"})
    return with_reward(config, source, label, reads).model_copy(update={"revise": scored})


def _apply(fields: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: expected section.key=value, as in --set ppo.max_steps=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string: --set model.source=smollm2-135m
    value = _from_folder(key.strip(), value, Path())
    *sections, last = key.strip().split(".")
    here = fields
    for section in sections:
        here = here.setdefault(section, {})
        if not isinstance(here, dict):
            raise ConfigError(f"--set {override}: '{section}' is a value, not a section")
    here[last] = value


def _from_folder(key: str, value: Any, folder: Path) -> Any:
    """The value of a key, sections included, with the relative paths in it joined to the folder. Wrong types stay."""
    if isinstance(value, dict):
        return {name: _from_folder(f"{key}.{name}" if key else name, inner, folder) for name, inner in value.items()}
    if key in LISTS and isinstance(value, (list, tuple)):
        return [_path(item, folder) if isinstance(item, str) else item for item in value]
    if key in FILES and key not in LISTS and isinstance(value, str):
        return _path(value, folder)
    if key in MODELS and isinstance(value, str):
        return _model(value, folder)
    if key == TERMS and isinstance(value, list):
        return [_from_folder(f"{key}[]", item, folder) for item in value]
    if key in CONSTITUTIONS and isinstance(value, str):
        return value if value == BUNDLED else _path(value, folder)
    if key in (
        f"{TERMS}[].source",
        "monitor.gold",
        "prefer.reward",
        "prefer.feedback.source",
        "revise.feedback.source",
    ) and isinstance(value, str):
        return value if value in ("", RUBRIC) else _source(value, folder)
    return value


def _model(name: str, folder: Path) -> str:
    path = _path(name, folder)
    if name in ALIASES or not (name.startswith(("./", "../", "~/")) or os.path.isdir(path)):
        return name  # an alias, or perhaps a hub id
    return path


def _source(source: str, folder: Path) -> str:
    """What a reward is read from, see RewardTermSection: files and folders joined, the rest as it is."""
    if source.startswith(("python:", "http://", "https://")):
        return source
    if source.startswith("ensemble:"):
        members = source.removeprefix("ensemble:").split(",")
        return "ensemble:" + ",".join(_source(member.strip(), folder) for member in members)
    file, colon, function = source.rpartition(":")
    if colon and file.endswith(".py"):
        return f"{_path(file, folder)}:{function}"
    if "#" in source and not os.path.isdir(_path(source, folder)):
        persons, names = split_persons(source, folder)
        return f"{_model(persons, folder)}#{names}"
    return _model(source, folder)


def split_persons(source: str, folder: Path = Path()) -> tuple[str, str]:
    """What stands before and behind the "#" of FOLDER#PERSON: the first one before which persons are, else the first of all.

    folder: from which a relative path is seen.
    """
    splits = [(source[:place], source[place + 1 :]) for place, character in enumerate(source) if character == "#"]
    kept = (split for split in splits if os.path.isfile(os.path.join(folder, os.path.expanduser(split[0]), PERSONS)))
    return next(kept, splits[0])


def _path(name: str, folder: Path) -> str:
    if not name or name.startswith(("hf://", "bundled:")):
        return name
    return str(folder.resolve() / (os.path.expanduser(name) if name.startswith("~/") else name))


def _unknown_key(location: tuple[str, ...]) -> str:
    known = known_keys()
    key = ".".join(location)
    same_name = [name for name in known if name.rsplit(".", 1)[-1] == location[-1]]
    # Of equally near ones the first in the file's order, for methods share names.
    near = max(same_name or known, key=lambda name: difflib.SequenceMatcher(None, name, key).ratio())
    return f"unknown key '{key}'; the nearest known key is '{near}'"


def known_keys() -> list[str]:
    """Every key as section.key, sections included."""
    return [key for key, _ in _walk(Config)]


def _walk(section: type[Section], prefix: str = "") -> list[tuple[str, FieldInfo]]:
    found: list[tuple[str, FieldInfo]] = []
    for name, field in section.model_fields.items():
        found.append((prefix + name, field))
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                found += _walk(kind, f"{prefix}{name}.")
    return found


def to_toml(config: Section, *, explain: bool = False, prefix: str = "") -> str:
    """The configuration as TOML that `load` reads back to an equal Config. explain: descriptions as comments."""
    values, tables = [], []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Section):
            heading = f"{prefix}{name}"
            doc = f"# {(type(value).__doc__ or '').strip()}\n" if explain else ""
            tables.append(f"{doc}[{heading}]\n{to_toml(value, explain=explain, prefix=heading + '.')}")
            continue
        if explain and field.description:
            values.append(f"# {field.description}")
        if isinstance(value, tuple) and value and isinstance(value[0], Section):
            tables += [f"[[{prefix}{name}]]\n{to_toml(item, prefix=f'{prefix}{name}.')}" for item in value]
            continue
        values.append(f"# {name} =" if value is None else f"{name} = {_literal(value)}")
    return "\n".join(["\n".join(values) + "\n" if values else "", *tables])


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, str):
        # JSON strings are TOML basic strings, save for the delete character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
