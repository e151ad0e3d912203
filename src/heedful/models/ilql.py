"""What implicit Q-learning adds to a frozen language model: a value, and an advantage for each token of the vocabulary.

A full Q head would hold hidden size times vocabulary weights, more than the small model itself. Here the advantage is of low
rank over the rows of the unembedding, which already say what each token means: A(s, a) = z(s) . (P^T e_a).
"""

# N states, D hidden size, V vocabulary, R rank

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from heedful.errors import SourceError
from heedful.functional.losses.ilql import advantage_weighted
from heedful.models.policy import LanguageModel, load_language_model

HEADS = "heads.safetensors"
# Hidden states (N, D) and logits (N, V) of the next token -> logits (N, V) to draw it from.
Reweight = Callable[[Tensor, Tensor], Tensor]


class QHead(nn.Module):
    """Q(s, a) = b(s) + z(s) . (P^T e_a); zero to begin with, because b and z are."""

    def __init__(self, hidden_size: int, rank: int, width: int, embedding_scale: float) -> None:
        super().__init__()
        self.body = nn.Linear(hidden_size, width)
        self.out = nn.Linear(width, 1 + rank)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        # Keys of about unit length in each direction, whatever the scale of the unembedding.
        self.projection_DR = nn.Parameter(torch.randn(hidden_size, rank) / (math.sqrt(hidden_size) * embedding_scale))

    def forward(self, hidden_ND: Tensor) -> tuple[Tensor, Tensor]:
        """b (N,) and z (N, R), float32."""
        out = self.out(F.gelu(self.body(hidden_ND)))
        return out[:, 0], out[:, 1:]

    def keys(self, embedding_VD: Tensor) -> Tensor:
        """P^T e_a of the given rows, (V, R), float32; computed in the type of the embedding."""
        return (embedding_VD @ self.projection_DR.to(embedding_VD.dtype)).float()

    def of(self, hidden_ND: Tensor, embedding_ND: Tensor) -> Tensor:
        """Q (N,) of one action a state, given as its row of the unembedding."""
        base_N, z_NR = self(hidden_ND)
        return base_N + (z_NR * self.keys(embedding_ND)).sum(1)  # type: ignore[no-any-return]


class ILQLHeads(nn.Module):
    """Q, its slowly following copy, and V, each on the hidden state brought to mean 0 and deviation 1."""

    def __init__(self, embedding_VD: Tensor, *, rank: int, width: int, seed: int) -> None:
        super().__init__()
        self.rank, self.width = rank, width
        # Not a parameter and not saved: it belongs to the frozen model.
        self.embedding_VD = embedding_VD.detach()
        hidden_size = embedding_VD.shape[1]
        scale = float(self.embedding_VD[:4096].float().square().mean().sqrt())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.q = QHead(hidden_size, rank, width, scale)
            last = nn.Linear(width, 1)
            self.value = nn.Sequential(nn.Linear(hidden_size, width), nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.target = QHead(hidden_size, rank, width, scale)
        self.target.load_state_dict(self.q.state_dict())
        self.target.requires_grad_(False)
        self.to(embedding_VD.device)

    def normal(self, hidden_ND: Tensor) -> Tensor:
        """The hidden states as the heads read them, float32."""
        return F.layer_norm(hidden_ND.float(), hidden_ND.shape[-1:])

    def values(self, hidden_ND: Tensor) -> Tensor:
        """V (N,), float32."""
        return self.value(self.normal(hidden_ND)).squeeze(-1)  # type: ignore[no-any-return]

    def q_of(self, hidden_ND: Tensor, actions_N: Tensor) -> Tensor:
        """Q (N,) of one action in each state, float32."""
        return self.q.of(self.normal(hidden_ND), self.embedding_VD[actions_N])

    @torch.no_grad()
    def target_q_of(self, hidden_ND: Tensor, actions_N: Tensor) -> Tensor:
        """The same by the slow copy, without gradient."""
        return self.target.of(self.normal(hidden_ND), self.embedding_VD[actions_N])

    @torch.no_grad()
    def reweight(self, *, beta: float, top_k: int) -> Reweight:
        """Advantage-weighted decoding, to be handed to `engine.generation.sample`. Uses the slow copy of Q."""
        keys_VR = self.target.keys(self.embedding_VD)

        def weigh(hidden_ND: Tensor, logits_NV: Tensor) -> Tensor:
            base_N, z_NR = self.target(self.normal(hidden_ND))
            q_NV = base_N[:, None] + z_NR @ keys_VR.T
            return advantage_weighted(logits_NV, q_NV, self.values(hidden_ND), beta=beta, top_k=top_k)

        return weigh

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """heads.safetensors, and what they are heads of."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / HEADS)
        text = json.dumps(about | {"kind": "ilql", "rank": self.rank, "width": self.width}, indent=2)
        (folder / "heedful.json").write_text(text + "\n", encoding="utf-8")


def load_policy(
    source: str, *, dtype: torch.dtype, device: torch.device, beta: float | None = None
) -> tuple[LanguageModel, Reweight | None]:
    """The model that a source names, and how its logits are re-weighted when the source is a folder of ILQL heads.

    beta: in the place of the folder's own; for another source it is refused.
    """
    folder = Path(source)
    if not (folder / HEADS).exists():
        if beta is not None:
            raise SourceError(f"{source}: holds no {HEADS}, so there is nothing that beta could weigh; leave --beta out")
        return load_language_model(source, dtype=dtype, device=device), None
    try:
        about = json.loads((folder / "heedful.json").read_text(encoding="utf-8"))
        model = load_language_model(about["base"], dtype=dtype, device=device)
        heads = ILQLHeads(model.head_VD, rank=about["rank"], width=about["width"], seed=0)
        heads.load_state_dict(load_file(folder / HEADS))
        weight = about["beta"] if beta is None else beta
        return model, heads.reweight(beta=weight, top_k=about["top_k"])
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        raise SourceError(f"{source}: these ILQL heads cannot be used ({error}); train them again") from None
