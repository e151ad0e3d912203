"""What a model was made of, by whom, and what it is for: facts for the report and for the model card."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heedful.errors import StoreError
from heedful.models.aliases import ALIASES, cache_folder
from heedful.report import findings
from heedful.report.contents import Contents
from heedful.report.numbers import bounds, finite, listing, number, percent, plural, sound
from heedful.report.plots import METHODS
from heedful.store import CARD, read_json, read_rows

Facts = list[tuple[str, list[str]]]

KEY_SETTINGS = (
    "max_steps",
    "episodes",
    "samples_per_prompt",
    "epochs",
    "learning_rate",
    "kl_coef",
    "kl_target",
    "temperature",
    "beta",
    "seed",
)
WORDS = {"human": "people", "ai": "an AI judge", "simulated": "simulated labelers who go by a written rubric"}


@dataclass(frozen=True)
class Base:
    """name: as a reader knows it, never a path. hub_id: None where the hub has no such model, as far as is known here."""

    name: str
    hub_id: str | None
    license: str | None
    language: Any
    note: str = ""


def base_model(source: str) -> Base:
    """What its folder, or the list of aliases, tells of a base model; nothing is fetched."""
    source = sound(source)
    if source in ALIASES:
        known = ALIASES[source]
        note = (
            "unpacked from a 4-bit file, so its weights differ a little from the hub's"
            if known.member.endswith(".gguf")
            else ""
        )
        return Base(source, known.hub_id, known.license, None, note)
    folder = Path(source).expanduser()
    for alias in ALIASES:
        if folder.resolve() == (cache_folder() / "models" / alias).resolve():
            return base_model(alias)
    data = front_matter(folder / CARD) if folder.is_dir() else {}
    hub_id = None if folder.is_dir() or source.count("/") != 1 or source.startswith((".", "/", "~")) else source
    return Base(hub_id or folder.name, hub_id, data.get("license"), data.get("language"))


def front_matter(path: Path) -> dict[str, Any]:
    """Of a model card; nothing where there is none that can be read."""
    if not path.is_file():
        return {}
    import yaml
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
        return {key: data.get(key) for key in ("license", "language")}
    except (OSError, ValueError, yaml.YAMLError):  # somebody else's file, which only tells of a licence
        return {}


def facts(contents: Contents, method: str | None = None) -> Facts:
    """Terms with what is known of them. method: of the policy; the run's own by default."""
    summary, config = contents.summary, settings_of(contents)
    method = method or str(summary.get("align", {}).get("method") or config.get("method", ""))
    measured = summary if summary.get("align", {}).get("method") == method else {}
    source = str(config.get("model", {}).get("source") or summary.get("model", ""))
    found: Facts = []
    if source:
        base = base_model(source)
        licence = f"licence {base.license}" if base.license else "its licence is not known here: look it up before you publish"
        found.append(
            (
                "Base model",
                [
                    _joined(base.name, f"({base.hub_id})" if base.hub_id not in (None, base.name) else "") + f"; {licence}",
                    *([base.note] if base.note else []),
                ],
            )
        )
    if method:
        found.append(("Method", _method(contents, method, config)))
    if method in METHODS and (reward := _reward(measured, config)):
        found.append(("Reward", reward))
    if data := _data(contents, measured, config):
        found.append(("Data", data))
    labelled = _labelled(contents, measured, config)
    if labelled:
        found.append(("Labelled by", labelled))
    prompts = summary.get("counts", {}).get("heldout")
    measured_on = f"It was measured on {plural(prompts, 'held-out prompt')} and on nothing else." if prompts else ""
    use = (
        "Study, and further work on prompts like those it learned from. Not for decisions about people, nor without reading "
        "its answers first."
    )
    found.append(("Intended use", [_joined(use, measured_on)]))
    found.append(("Limits", findings.limits(measured)))
    return found


def settings_of(contents: Contents) -> dict[str, Any]:
    """heedful.toml of the run directory."""
    path = contents.run / "heedful.toml"
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as TOML ({error}); put back what heedful wrote") from None


def _method(contents: Contents, method: str, config: Mapping[str, Any]) -> list[str]:
    section = config.get(method, {})
    result = contents.run / method / "result.json"
    done = read_json(result) if result.exists() else {}
    steps = f"{plural(done['steps'], 'step')}, ended at the {done['stopped']}" if "stopped" in done else ""
    settings = [f"{name} {section[name]}" for name in KEY_SETTINGS if name in section]
    lora = section.get("lora", {})
    if lora:
        settings.append(
            "LoRA " + ", ".join(f"{name} {lora[name]}" for name in ("rank", "alpha", "layers") if lora.get(name) is not None)
        )
    if "seed" in config:
        settings.append(f"seed {config['seed']}")
    return [_joined(method.upper() + (":" if steps else ""), steps), *([", ".join(settings)] if settings else [])]


def _reward(summary: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    terms = config.get("reward", {}).get("terms") or []
    said = [f"{term.get('weight', 1)} x {_name(term.get('source', ''))}" for term in terms]
    model = summary.get("reward_model") or {}
    if "accuracy" in model:
        texts = "num_texts" in model
        of = f"{model['num_texts']} held-out texts sorted" if texts else f"{model['num_pairs']} held-out pairs ordered"
        by = "as people did" if texts else "as the labelers did"
        said.append(f"a reward model trained here: {percent(model['accuracy'])} of {of} {by}")
    gold = config.get("monitor", {}).get("gold")
    if gold:
        said.append(f"held against a second reward that it did not learn from: {_name(gold)}")
    return said


def _data(contents: Contents, summary: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    run, said = contents.run, []
    counts = summary.get("counts", {})
    if counts:
        files = [_name(file) for file in config.get("prompts", {}).get("files", ())]
        where = listing(files) if files else "heedful's bundled prompts"
        said.append(
            f"{plural(counts.get('train', 0), 'prompt')} to learn from, {counts.get('heldout', 0)} held out, from {where}"
        )
    numbers = [
        plural(count, noun)
        for noun, file in (
            ("completion", "sample/completions.jsonl"),
            ("judgement", "label/judgements.jsonl"),
            ("pair", "consensus/preferences.jsonl"),
        )
        if (count := len(read_rows(run / file)))
    ]
    if numbers:
        said.append(listing(numbers))
    ready = [_name(file) for file in config.get("reward", {}).get("preferences", ())]
    if ready:
        said.append(f"pairs that came ready-made: {listing(ready)}")
    return said


def _labelled(contents: Contents, summary: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    rows = read_rows(contents.run / "label" / "judgements.jsonl")
    by: dict[str, Counter[str]] = {}
    for row in rows:
        by.setdefault(str(row.get("source")), Counter())[str(row.get("labeler"))] += 1
    said = [
        f"{WORDS.get(source, source)}: {plural(len(names), 'labeler')}, {plural(sum(names.values()), 'judgement')}"
        for source, names in by.items()
    ]
    if not rows and config.get("reward", {}).get("preferences"):
        said.append("whoever made the ready-made pairs; the files do not say more")
    alpha = findings.alpha_of(dict(summary))
    if finite(alpha["estimate"]):
        said.append(f"agreement, Krippendorff's alpha: {number(alpha['estimate'])}{bounds(alpha)}")
    suspects = [row["labeler"] for row in summary.get("labelers", []) if row.get("suspect")]
    if suspects:
        said.append(f"labelers who stand out as careless: {listing(suspects)}")
    return said


def _name(source: Any) -> str:
    """Of a file or folder its name alone: where it lies is nobody's business."""
    text = str(source)
    return Path(text).name if Path(text).is_absolute() else text


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)
