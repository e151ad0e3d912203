"""A T5 of 40,000 weights that was taught here to repeat what it reads, with a tokenizer of whole words, in Hugging Face's
layout.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

WORDS = ["red", "blue", "green", "black", "white", "one", "two", "three", "cat", "dog", "damn", "nice"]


def tokenizer() -> PreTrainedTokenizerFast:
    names = ["<pad>", "</s>", "<unk>", *WORDS, ":", "User", "Assistant", "Summarize", "."]
    found = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=found, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def config(*, tied: bool = True) -> T5Config:
    return T5Config(
        vocab_size=len(tokenizer()),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        feed_forward_proj="relu" if tied else "gated-gelu",
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )


def sentences(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choice(WORDS) for _ in range(chance.randint(1, 2))) for _ in range(count)]


@cache
def _trained(steps: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = T5ForConditionalGeneration(config())
        words = tokenizer()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = 1e-2 * max(0.05, 1 - step / steps)
            read = words(sentences(48, step), padding=True, return_tensors="pt")
            labels = read["input_ids"].masked_fill(read["attention_mask"] == 0, -100)
            loss = model(input_ids=read["input_ids"], attention_mask=read["attention_mask"], labels=labels).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.state_dict()


def make(folder: Path, *, steps: int = 150) -> Path:
    """Writes model and tokenizer; the model repeats one word or two, not always rightly."""
    model = T5ForConditionalGeneration(config())
    model.load_state_dict(_trained(steps))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
