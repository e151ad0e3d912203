"""Asking a reward of any kind: about files, as `heedful reward score` and `evaluate` do, and which answer is the best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heedful.config import Config
from heedful.data.formats import read_completions, read_preferences, read_prompts
from heedful.data.labelled import read_labelled, two_classes
from heedful.engine.conversation import Reply
from heedful.engine.device import choose_device, choose_dtype
from heedful.errors import DataError
from heedful.evaluation.classification import classification
from heedful.evaluation.compare import accuracy
from heedful.models.reward import Answer, answer_of
from heedful.records import Message, by_id
from heedful.rewards.mixture import Reward
from heedful.rewards.source import Sources
from heedful.training.reward import Group, group_pairs, verdicts
from heedful.training.rollout import require_finite_rewards


class Judge:
    """The reward that a configuration's terms name, and what makes answers of texts for it."""

    def __init__(self, config: Config) -> None:
        device = choose_device()
        section = config.reward
        self.sources = Sources(
            None,
            dtype=choose_dtype(config.model.dtype, device),
            device=device,
            aggregate=section.aggregate,
            coef=section.disagreement_coef,
            compiling=config.model.compile,
        )
        self.reward = self.sources.mixture(section.terms)

    def answer(self, messages: tuple[Message, ...], text: str, *, finished: bool) -> Answer:
        """The text as an Answer; only a reward model on a language model's base needs its tokens."""
        base = self.sources.base
        if base is None:
            return Answer(messages, text, [], [], finished)
        if not messages:
            return Answer((), text, [], base.chat.response_ids(text, finished=finished), finished)
        return answer_of(base, messages, text, finished=finished)

    def best(self, history: Sequence[Message], replies: Sequence[Reply]) -> int:
        """The place of the reply with the greatest reward: what a conversation chooses by."""
        answers = [self.answer(tuple(history), reply.text, finished=reply.finished) for reply in replies]
        rewards = self.reward(answers)
        require_finite_rewards(rewards, answers)
        return rewards.index(max(rewards))


def score_completions(config: Config, prompts: Path, completions: Path) -> dict[str, float]:
    """The reward of each completion by id."""
    known = by_id(read_prompts(prompts))
    records = read_completions(completions)
    for record in records:
        if record.prompt_id not in known:
            raise DataError(f"completion {record.id!r} answers prompt {record.prompt_id!r}, which is not in {prompts}")
    judge = Judge(config)
    answers = [
        judge.answer(known[record.prompt_id].messages, record.text, finished=record.finish == "stop") for record in records
    ]
    rewards = judge.reward(answers)
    require_finite_rewards(rewards, answers)
    return dict(zip((record.id for record in records), rewards, strict=True))


def evaluate_on_pairs(config: Config, files: Sequence[Path]) -> dict[str, Any]:
    """Accuracy on pairs."""
    pairs = [pair for file in files for pair in read_preferences(file)]
    if all(pair.probability <= 0.5 for pair in pairs):  # a tie has no right answer
        raise DataError(f"{', '.join(map(str, files))}: all pairs are ties, which say nothing about a model's accuracy")
    judge = Judge(config)
    groups = group_pairs(pairs, lambda _, messages, text: judge.answer(messages, text, finished=True))
    return measure_on_pairs(judge.reward, groups, config.evaluate.num_resamples, config.seed)


def evaluate_on_labelled(config: Config, files: Sequence[Path]) -> dict[str, Any]:
    """Accuracy, F1 and AUC on labelled texts; a reward above 0 calls a text wanted."""
    section = config.reward.labelled
    fields = {"text_field": section.text_field, "label_field": section.label_field, "prompt_field": section.prompt_field}
    examples = [example for file in files for example in read_labelled(file, **fields)]
    two_classes(examples, section.wanted)
    judge = Judge(config)
    answers = []
    for one in examples:
        messages = (Message(role="user", content=one.prompt),) if section.prompt_field else ()
        answers.append(judge.answer(messages, one.text, finished=True))
    rewards = judge.reward(answers)
    require_finite_rewards(rewards, answers)
    wanted = [example.label == section.wanted for example in examples]
    resamples = min(1000, config.evaluate.num_resamples)
    return classification(rewards, wanted, threshold=0.0, num_resamples=resamples, seed=config.seed)


def measure_on_pairs(reward: Reward, groups: Sequence[Group], num_resamples: int, seed: int) -> dict[str, Any]:
    """Accuracy on decided pairs beside the longest-answer baseline."""
    answers = [answer for group in groups for answer in group.answers]
    rewards = reward(answers)
    require_finite_rewards(rewards, answers)
    owners = [group.prompt_id for group in groups for pair in group.pairs if pair.decided]
    return accuracy(verdicts(groups, rewards), owners, num_resamples=num_resamples, seed=seed)
