"""A BERT of a few words with random weights and a real tokenizer of its own, in Hugging Face's layout."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "kind", "rude", "word", "question", "number", *"0123456789.?"]


def make(folder: Path, *, labels: tuple[str, ...] | None = None, seed: int = 0) -> Path:
    """An encoder; with labels, a sequence classifier of them (one label: a single logit)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    more = {} if labels is None else {"num_labels": len(labels), "id2label": dict(enumerate(labels))}
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=40, initializer_range=0.02 if labels is None else 0.5, **more,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config) if labels is None else BertForSequenceClassification(config)
        model.save_pretrained(folder)
    return folder
