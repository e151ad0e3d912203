"""The inputs of all works, made once as token ids so that both sides read the very same: pairs, prompts, base, adapters.

Real human pairs of hh (harmless and helpful in turn), where the folder with them is given; without it the bundled prompts with
completions cut from the bundled texts. The adapters begin with a small random B instead of zero: a policy that equals its
reference has a DPO loss of log 2 whatever it computes, and such a loss would prove nothing about either side.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from pathlib import Path
from typing import Any

import torch

from heedful.config import LoraSection
from heedful.data.bundled import load_bundled
from heedful.data.formats import read_preferences
from heedful.engine.device import choose_device
from heedful.models.policy import POLICY, REWARD, LanguageModel, load_language_model
from heedful.models.reward import answer_of

BASE = "smollm2-135m"
MAX_TOKENS = 384  # of prompt and completion: nineteen of twenty hh pairs
MAX_PROMPT_TOKENS = 192  # of the prompts that are sampled from
NUM_PAIRS, NUM_PROMPTS = 160, 128
START_SD = 0.02  # of B's entries: moves the log-probs of an answer by some nats, and the loss well away from log 2
MIN_RESPONSE_TOKENS = 4

Row = dict[str, Any]


def human_pairs(model: LanguageModel, data: Path) -> list[Row]:
    """One pair of each prompt, harmless and helpful in turn, drawn by a fixed seed."""
    sides = []
    for name in ("harmless", "helpful"):
        pairs = list({pair.prompt_id: pair for pair in read_preferences(data / "hh" / f"{name}.jsonl.gz")}.values())
        random.Random(0).shuffle(pairs)
        sides.append(pairs)
    found: list[Row] = []
    for pair in itertools.chain.from_iterable(zip(*sides, strict=False)):
        chosen, rejected = (answer_of(model, pair.prompt, text) for text in (pair.chosen, pair.rejected))
        if chosen.response_ids != rejected.response_ids:
            found.append(row_of(pair.prompt_id, chosen.prompt_ids, chosen.response_ids, rejected.response_ids))
    return found


def made_up_pairs(model: LanguageModel) -> list[Row]:
    """Bundled prompts, each with two stretches of the bundled texts as completions, of lengths as in hh."""
    prompts = load_bundled(("prompts", "dialogues"))
    words = " ".join(message.content for prompt in prompts for message in prompt.messages)
    tokens = model.chat.response_ids(words, finished=False)
    chance = random.Random(0)
    found = []
    for number, prompt in enumerate(itertools.islice(itertools.cycle(prompts), 2 * NUM_PAIRS)):
        ends = []
        for _ in range(2):
            length = max(MIN_RESPONSE_TOKENS, min(160, int(chance.lognormvariate(3.6, 0.7))))
            first = chance.randrange(len(tokens) - length)
            ends.append([*tokens[first : first + length], model.chat.end_id])
        found.append(row_of(f"{prompt.id}/{number}", model.chat.prompt_ids(prompt.messages), *ends))
    return found


def row_of(prompt_id: str, prompt_ids: list[int], chosen_ids: list[int], rejected_ids: list[int]) -> Row:
    return {"prompt_id": prompt_id, "prompt_ids": prompt_ids, "chosen_ids": chosen_ids, "rejected_ids": rejected_ids}


def fits(row: Row) -> bool:
    longest = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    return len(row["prompt_ids"]) + longest <= MAX_TOKENS


def add_start(model: LanguageModel, name: str, seed: int, folder: Path) -> None:
    """A LoRA adapter on all layers with a random B, saved in PEFT's format."""
    lora = LoraSection(layers=0)
    model.add_adapter(name, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in model.adapter_parameters(name).items():
            if "lora_B" in key:
                tensor.copy_(START_SD * torch.randn(tensor.shape, generator=generator))
    model.save_adapter(name, folder)


def prepare(work: Path, data: Path | None) -> Path:
    """Writes bases, adapters and inputs.json into the work folder, once; returns where inputs.json lies."""
    path = work / "inputs.json"
    source = "hh" if data is not None and (data / "hh").is_dir() else "bundled"
    made_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    if path.exists():
        kept = json.loads(path.read_text())
        if (kept["source"], kept.get("made_by")) == (source, made_by):
            return path
    work.mkdir(parents=True, exist_ok=True)
    folders = {name: str(work / name) for name in ("float32", "bfloat16", "policy", "reward")}
    for dtype in ("float32", "bfloat16"):
        model = load_language_model(BASE, dtype=getattr(torch, dtype), device=choose_device())
        model.causal.save_pretrained(folders[dtype])
        model.chat.tokenizer.save_pretrained(folders[dtype])
    add_start(model, POLICY, 0, work / "policy")
    add_start(model, REWARD, 1, work / "reward")
    pairs = human_pairs(model, data) if data is not None and source == "hh" else made_up_pairs(model)
    prompts = [row["prompt_ids"] for row in pairs if len(row["prompt_ids"]) <= MAX_PROMPT_TOKENS]
    head = START_SD * torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(2))
    found = {
        "source": source,
        "made_by": made_by,
        "pairs": [row for row in pairs if fits(row)][:NUM_PAIRS],
        "prompts": prompts[:NUM_PROMPTS],
        "folders": folders,
        "score_head": head.tolist(),
        "vocabulary": int(model.head_VD.shape[0]),
    }
    path.write_text(json.dumps(found) + "\n")
    return path
