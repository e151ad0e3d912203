"""What the peers' turns share: the base with its adapter, a reward model, numbers of the fixed answers, an ear for steps."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from turn import Clock
from works import BATCH

PAD = 0  # not the end of text, which would be cut off as padding


class Score(nn.Module):
    """heedful's reward head as the `score` of TRL's model: a linear map of the hidden state divided by its spread."""

    def __init__(self, head: list[float]) -> None:
        super().__init__()
        self.linear = nn.Linear(len(head), 1, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([head]))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return self.linear(nn.functional.layer_norm(hidden.float(), hidden.shape[-1:]))  # type: ignore[no-any-return]


def load_tokenizer(folder: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token_id = PAD
    return tokenizer


def load_policy(folder: str, adapter: str, *, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Any:
    """A causal model with the adapter in it, which is to be trained."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
    return with_adapter(model, adapter)


def load_reward(
    folder: str,
    adapter: str,
    *,
    dtype: torch.dtype = torch.float32,
    head: list[float] | None = None,
    attention: str = "sdpa",
) -> Any:
    """A reward model with the adapter in it, which is to be trained like the head.

    head: weights to begin with, of the hidden state divided by its spread as in heedful; without them a plain head of zeros.
    """
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype, attn_implementation=attention)
    if head is None:
        nn.init.zeros_(model.score.weight)
    else:
        model.score = Score(head)
    model.config.pad_token_id = PAD
    model = with_adapter(model, adapter)
    for parameter in model.base_model.model.score.parameters():
        parameter.requires_grad_(True)
    return model


def with_adapter(model: Any, folder: str) -> Any:
    config = PeftConfig.from_pretrained(folder)
    config.task_type = None  # the plain wrapper, which suits both kinds of model
    return PeftModel.from_pretrained(model, folder, is_trainable=True, config=config)


def autocast(job: dict[str, Any]) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if job["settings"]["autocast"] else contextlib.nullcontext()


def fixed_rows(job: dict[str, Any]) -> list[tuple[torch.Tensor, int]]:
    """Prompt and chosen answer of the first pairs, one row each, and the prompt's length."""
    rows = job["inputs"]["pairs"][:BATCH]
    return [(torch.tensor([row["prompt_ids"] + row["chosen_ids"]]), len(row["prompt_ids"])) for row in rows]


def fixed_logprobs(job: dict[str, Any], model: Any) -> list[float]:
    """Of the first chosen answers under the policy as it begins, in nats, one at a time."""
    found = []
    for ids, first in fixed_rows(job):
        with torch.no_grad(), autocast(job):
            logits = model(ids).logits[0, first - 1 : -1].float()
        found.append(float(logits.log_softmax(-1).gather(1, ids[0, first:, None]).sum()))
    return found


def fixed_rewards(job: dict[str, Any], model: Any) -> list[float]:
    """Of the first chosen answers under the reward model as it begins."""
    with torch.no_grad(), autocast(job):
        return [float(model(ids).logits[0, 0]) for ids, _ in fixed_rows(job)]


class NoEnd(TrainerCallback):  # type: ignore[misc]
    """No token ends a completion; the trainer sets the tokenizer's end of text just before training begins."""

    def on_train_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
        model.generation_config.eos_token_id = None


class Watch(TrainerCallback):  # type: ignore[misc]
    """Ends the clock's step with each optimiser step, and keeps the first loss."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.end()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.clock.facts.setdefault("loss", float(logs["loss"]))


def whole_value_model(folder: str, hidden_size: int) -> Any:
    """A value model of which all weights are trained, TRL's own way; its head begins at zero."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, attn_implementation="sdpa")
    model.score = Score([0.0] * hidden_size)
    return model
