"""What the methods that learn from files share: the adapter with its optimiser, the run through the one loop, saving."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import save_file
from torch import Tensor

from heedful.config import FromFilesSection, LoraSection
from heedful.engine.generation import Decoding
from heedful.engine.lanes import lanes_for
from heedful.engine.responses import answer_batches
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.reward import Answer
from heedful.models.trunk.packed import shared_tokens
from heedful.store import new_folder
from heedful.training.loop import Method, Outcome, Progress, Sample, Stop, run, silent
from heedful.training.metrics import Metrics
from heedful.training.optimiser import Optimiser, warmup_and_decay
from heedful.training.rollout import HELDOUT_SEED, Question, answers_to

Found = TypeVar("Found")

SPOKEN = Decoding(0.7, 1.0, 64)  # how the completions are drawn that methods without rollouts keep in samples.jsonl


def add_policy(model: LanguageModel, lora: LoraSection, seed: int) -> None:
    """Gives the model a fresh adapter "policy" unless it has one."""
    if POLICY not in model.adapters:
        model.add_adapter(POLICY, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, layers=lora.layers, seed=seed)


class AdapterTraining:
    """The adapter "policy", its optimiser and its schedule. A method holds one and accumulates gradients into it."""

    def __init__(self, model: LanguageModel, *, learning_rate: float, max_grad_norm: float, num_steps: int) -> None:
        self.model = model
        tensors = model.adapter_parameters(POLICY)
        self.optimiser = Optimiser({"policy": (tensors, learning_rate)}, max_grad_norm=max_grad_norm)
        self.num_steps = num_steps

    def each_part(
        self, answers: Sequence[Answer], work: Callable[[list[int]], tuple[Tensor, Found]], *, learn: bool
    ) -> list[Found]:
        """The answers in parts that fit into memory. work: of the answers with these numbers the loss, and what is returned of
        them (another process may have computed it); learn: the gradients of the losses are added up.
        """
        lanes = lanes_for(self.model, POLICY)
        whole = shared_tokens([(answer.prompt_ids, answer.response_ids) for answer in answers])
        parts = answer_batches(answers, lanes.room(whole))
        costs = [shared_tokens([(answers[i].prompt_ids, answers[i].response_ids) for i in part]) for part in parts]
        return lanes.each(parts, work, costs=costs, learning=self.optimiser.tensors if learn else ())

    def update(self, step: int) -> dict[str, float]:
        """One optimiser step from the accumulated gradients."""
        self.optimiser.set_rate(warmup_and_decay(step, self.num_steps))
        rate = float(self.optimiser.adamw.param_groups[0]["lr"])
        return {"grad_norm": self.optimiser.update(), "learning_rate": rate}

    def samples(self, heldout: Sequence[Answer], count: int) -> list[Sample]:
        """What the policy says to the first `count` prompts among those of `heldout` that leave room for an answer."""
        room = self.model.max_tokens - SPOKEN.max_new_tokens
        asked = {tuple(answer.prompt_ids): answer for answer in heldout if len(answer.prompt_ids) <= room}
        questions = [Question("", answer.messages, answer.prompt_ids) for answer in list(asked.values())[:count]]
        if not questions:
            return []
        said, _ = answers_to(self.model, questions, SPOKEN, adapter=POLICY, samples_per_prompt=1, seed=HELDOUT_SEED)
        return [Sample(answer.messages[-1].content, answer.text) for answer in said]

    def state_dict(self) -> dict[str, Any]:
        return self.optimiser.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state)


def run_from_files(
    method: Method, name: str, folder: Path, *, settings: FromFilesSection, num_steps: int, progress: Progress = silent
) -> Outcome:
    """Trains with checkpoints in `folder` and metrics beside it."""
    return run(
        method,
        folder / "checkpoint.pt",
        lambda first: Metrics(folder.parent, name, first),
        max_steps=num_steps,
        checkpoint_every=settings.checkpoint_every,
        eval_every=settings.eval_every,
        stop=Stop("heldout_loss", lower=True, patience=settings.patience),
        progress=progress,
    )


def save_policy(
    model: LanguageModel,
    folder: Path,
    *,
    policy_version: str,
    temperature: float = 1.0,
    heads: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """The policy in PEFT's format, and which version of which base it is. heads: further tensors, by file name."""
    with new_folder(folder) as temporary:
        model.save_adapter(POLICY, temporary)
        for name, tensors in (heads or {}).items():
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(plain, temporary / f"{name}.safetensors")
        about = {"base": model.source, "policy_version": policy_version, "temperature": temperature}
        (temporary / "heedful.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
