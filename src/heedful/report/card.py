"""README.md of a policy, as the Hugging Face hub reads it: front matter, and what the report says in short."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from heedful.report import findings
from heedful.report.contents import Contents, gather
from heedful.report.markdown import render
from heedful.report.numbers import finite, plural, sound
from heedful.report.provenance import base_model, facts, front_matter, settings_of
from heedful.report.table import compare_table
from heedful.store import CARD, read_json, write_text

Kind = Literal["adapter", "merged"]

METRIC_TYPES = {"reward": "reward", "rubric": "rubric_score", "toxicity": "toxicity"}


def model_card(contents: Contents, method: str, kind: Kind) -> str:
    """README.md of a policy's folder: front matter as the hub reads it, and what the report says in short."""
    from huggingface_hub import EvalResult, ModelCardData

    summary, config = contents.summary, settings_of(contents)
    measured = summary if summary.get("align", {}).get("method") == method else {}
    about = contents.run / method / "policy" / "heedful.json"
    source = str(
        config.get("model", {}).get("source") or summary.get("model") or (read_json(about)["base"] if about.exists() else "")
    )
    base = base_model(source)
    name = f"{base.name.rsplit('/', 1)[-1]}-{method}"
    prompts = summary.get("counts", {}).get("heldout", 0)
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="heedful-held-out",
            dataset_name=plural(row["num_prompts"], "held-out prompt"),
            metric_type=METRIC_TYPES.get(quantity, f"{quantity}_mean"),
            metric_name=row["label"],
            metric_value=row["after"]["estimate"],
        )
        for quantity, row in measured.get("compare", {}).items()
        if finite(row["after"]["estimate"])
    ]
    data = ModelCardData(
        base_model=base.hub_id,
        language=base.language,
        license=base.license,
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["heedful", "rlhf", method, *(["lora"] if kind == "adapter" else [])],
        model_name=name if results else None,
        eval_results=results or None,
    )
    relation = {"base_model_relation": kind if kind == "adapter" else "finetune"} if base.hub_id else {}
    for key, value in relation.items():
        data[key] = value
    body = render(
        "card.md.jinja",
        name=name,
        base=base,
        kind=kind,
        method=method,
        facts=facts(contents, method),
        table=compare_table(measured),
        headline=findings.headline(measured) if measured else "",
        simulated=measured.get("simulated_labelers", False),
        num_prompts=prompts,
        versions=[f"{package} {version}" for package, version in contents.manifest.get("versions", {}).items()],
        loader=_loader(contents.run / method / "policy"),
        base_for_code=base.hub_id or f"path/to/{base.name}",
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def _loader(policy: Path) -> str:
    """The class of transformers that loads the model on which an adapter sits."""
    config = policy / "adapter_config.json"
    encodes = config.is_file() and read_json(config).get("task_type") == "SEQ_2_SEQ_LM"
    return "AutoModelForSeq2SeqLM" if encodes else "AutoModelForCausalLM"


def write_cards(run: Path, contents: Contents | None = None) -> list[Path]:
    """A card into the folder of each policy that the run has made in PEFT's format."""
    contents = contents or gather(run)
    written = []
    for adapter in sorted(run.glob("*/policy/adapter_config.json")):
        card = adapter.with_name(CARD)
        write_text(card, sound(model_card(contents, adapter.parents[1].name, "adapter")))
        written.append(card)
    return written


def export_card(policy: Path) -> str:
    """The card of a merged policy. policy: the folder of its adapter, in the run directory that made it or elsewhere."""
    inside = policy.name == "policy" and (policy.parents[1] / "manifest.json").is_file()
    if inside:
        return sound(model_card(gather(policy.parents[1]), policy.parent.name, "merged"))
    data = front_matter(policy / CARD)
    base = base_model(str(read_json(policy / "adapter_config.json").get("base_model_name_or_path") or ""))
    from huggingface_hub import ModelCardData

    front = ModelCardData(
        base_model=base.hub_id,
        license=data.get("license") or base.license,
        language=data.get("language") or base.language,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["heedful"],
    )
    body = render("merged.md.jinja", base=base, loader=_loader(policy))
    return f"---\n{front.to_yaml()}\n---\n\n{body}"
