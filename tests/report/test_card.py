"""The model card: the hub can read it, it names no folder of this machine, and it says what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from report_run import labeler, row, summary, write_lines, write_run

from heedful.config import Config, to_toml
from heedful.report.build import build
from heedful.report.card import export_card, write_cards
from heedful.report.contents import gather
from heedful.report.provenance import base_model, facts
from heedful.store import file_hash, write_json


@pytest.fixture
def run(tmp_path: Path) -> Path:
    config = {"model": {"source": "smollm2-135m"}, "seed": 7, "monitor": {"gold": "rubric"}}
    (tmp_path / "heedful.toml").write_text(to_toml(Config.model_validate(config)))
    write_json(tmp_path / "ppo" / "policy" / "adapter_config.json", {"base_model_name_or_path": "smollm2-135m"})
    write_json(tmp_path / "ppo" / "policy" / "heedful.json", {"base": "smollm2-135m"})
    write_json(tmp_path / "ppo" / "result.json", {"method": "ppo", "steps": 2, "stopped": "step limit"})
    stages = {"ppo": {"state": "done", "inputs": {"0 prompts.jsonl": "ab" * 32}}}
    versions = {"python": "3.11.7", "heedful": "0.9.1", "torch": "2.13.0+cpu", "peft": "absent"}
    write_json(tmp_path / "manifest.json", {"stages": stages, "versions": versions, "git_revision": "abc123"})
    judged = [
        {"labeler": name, "source": source} for name, source in (("a", "human"), ("b", "human"), ("m", "ai"), ("a", "human"))
    ]
    write_lines(tmp_path / "label" / "judgements.jsonl", judged)
    write_lines(tmp_path / "sample" / "completions.jsonl", [{"id": str(n)} for n in range(7)])
    return write_run(tmp_path)


def front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_hub_can_read_the_card_beside_the_adapter(run: Path) -> None:
    build(run)
    text = (run / "ppo" / "policy" / "README.md").read_text(encoding="utf-8")
    data = front(text)
    assert data["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data["base_model_relation"] == "adapter"
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == ("apache-2.0", "peft", "text-generation")
    assert {"heedful", "ppo", "lora"} <= set(data["tags"])
    assert "language" not in data
    (model,) = data["model-index"]
    metrics = {metric["name"]: metric["value"] for result in model["results"] for metric in result["metrics"]}
    assert metrics == {row["label"]: row["after"]["estimate"] for row in summary()["compare"].values()}
    card = ModelCard(text)
    assert card.data.eval_results is not None
    assert len(card.data.eval_results) == 4
    for words in (
        "| Reward | 0.123 | 0.988 | +0.864 \\[+0.764, +0.964\\] | improved |",
        "people: 2 labelers, 3 judgements",
        "an AI judge: 1 labeler, 1 judgement",
        "labelers who stand out as careless: simulated-4",
        "Refusals of safe prompts got worse.",
        "licence apache-2.0",
        "24 prompts to learn from, 9 held out, from heedful's bundled prompts",
        "a second reward that it did not learn from: rubric",
        'base = "HuggingFaceTB/SmolLM2-135M-Instruct"',
        "PPO: 2 steps, ended at the step limit",
    ):
        assert words in text, words


def test_a_card_does_not_say_where_things_lie(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.mktemp("secret") / "my-base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\nlanguage: [en, de]\n---\n# A base\n")
    terms = ({"source": f"{base.parent}/judge.py:judge"},)
    config = Config.model_validate({"model": {"source": str(base)}, "reward": {"terms": terms}})
    (run / "heedful.toml").write_text(to_toml(config))
    write_json(run / "summary.json", summary() | {"model": str(base), "command": f"heedful run {base}/x.toml"})
    (card,) = write_cards(run)
    text = card.read_text(encoding="utf-8")
    assert "secret" not in text
    data = front(text)
    assert (data["license"], data["language"]) == ("mit", ["en", "de"])
    assert "base_model" not in data, "the hub does not know it"
    assert "judge.py:judge" in text
    assert "my-base" in text


@pytest.mark.parametrize("card", ["", "---\nlicense: [unclosed\n---\n", "no front matter", "---\n- a\n- list\n---\n"])
def test_a_bases_card_that_cannot_be_read_tells_nothing(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card)
    found = base_model(str(tmp_path))
    assert (found.hub_id, found.license) == (None, None)


def test_what_a_hub_id_stands_for_is_not_guessed() -> None:
    found = base_model("owner/model")
    assert (found.hub_id, found.license) == ("owner/model", None)
    assert base_model("smollm2-135m").note


def test_an_export_is_a_plain_model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = export_card(run / "ppo" / "policy")
    data = front(text)
    assert (data["library_name"], data["base_model_relation"]) == ("transformers", "finetune")
    assert "PeftModel" not in text
    assert "model-index" in data
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_json(elsewhere / "adapter_config.json", {"base_model_name_or_path": "smollm2-135m"})
    alone = export_card(elsewhere)
    assert front(alone)["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "was not at hand" in alone


def test_a_card_is_no_part_of_the_model_that_stages_read(run: Path) -> None:
    """Or writing it after the evaluation would make the evaluation begin again."""
    policy = run / "ppo" / "policy"
    before = file_hash(policy)
    write_cards(run)
    assert file_hash(policy) == before
    (policy / "heedful.json").write_text("{}")
    assert file_hash(policy) != before


def test_figures_of_another_method_are_not_put_on_a_card(run: Path) -> None:
    write_json(run / "dpo" / "policy" / "adapter_config.json", {"base_model_name_or_path": "smollm2-135m"})
    cards = {path.parents[1].name: front(path.read_text()) for path in write_cards(run)}
    assert "model-index" in cards["ppo"]
    assert "model-index" not in cards["dpo"]


def test_the_way_to_run_it_again_is_on_both_pages(run: Path) -> None:
    html, markdown = build(run).read_text(encoding="utf-8"), (run / "report.md").read_text(encoding="utf-8")
    settings = (run / "heedful.toml").read_text().strip()
    for words in (
        "heedful run heedful.toml --dir again\nheedful report again",
        "seed 7, heedful at git revision abc123",
        "pip install heedful==0.9.1 torch==2.13.0\n",
        "ab" * 32,
    ):
        assert words in html
        assert words in markdown
    assert settings in markdown
    assert "heedful run &#39;my config.toml&#39;" in html
    assert "heedful run 'my config.toml'" in markdown


def test_facts_without_judgements_or_settings(tmp_path: Path) -> None:
    write_json(tmp_path / "summary.json", summary() | {"labelers": [labeler("x", suspect=False, verdict="fine")]})
    write_lines(tmp_path / "evaluate" / "after.jsonl", [row("p", 1, 0.0, "a")])
    found = dict(facts(gather(tmp_path)))
    assert re.match(r"tiny; its licence is not known", found["Base model"][0])
    assert "9 held out" in found["Data"][0]
    assert found["Labelled by"] == ["agreement, Krippendorff's alpha: 0.31 [0.22, 0.41]"]
