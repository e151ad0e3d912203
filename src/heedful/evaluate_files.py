"""What `heedful evaluate` asks of models about files: classifiers of toxicity, HHH items, rewards and judges of two answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from heedful.config import Config, FeedbackSection
from heedful.data.formats import read_preferences
from heedful.data.labelled import read_labelled
from heedful.engine import scoring
from heedful.engine.batching import batches_by_tokens
from heedful.engine.device import choose_device, choose_dtype
from heedful.errors import ConfigError, DataError
from heedful.evaluation import hhh, winrate
from heedful.evaluation.classification import classification
from heedful.evaluation.gate import measured, require_better_than_a_coin
from heedful.evaluation.toxicity import PROFANITY, TOXIC, Classifier, negative_label, profanity
from heedful.judging.feedback import open_feedback
from heedful.judging.judge import CRITERION, Pair
from heedful.judging.judge import Judge as AIJudge
from heedful.models.classifier import ClassifierReward, is_classifier, load_classifier
from heedful.models.policy import POLICY, LanguageModel, load_language_model
from heedful.models.reward import AdapterReward, Answer, EncoderReward, load_reward_model
from heedful.models.sources import same_source
from heedful.records import Completion, Message, Prompt, by_id
from heedful.rewards.asking import Judge
from heedful.rewards.source import reward_folder
from heedful.store import read_json
from heedful.training.classifier import logits_of

NUM_RESAMPLES = 1_000  # of a classifier's own accuracy


@dataclass(frozen=True)
class Judged:
    """A classifier of toxicity. label: the negative one, as it says. accuracy: on held-out texts of its training, if known."""

    name: str
    label: str
    classify: Classifier
    accuracy: dict[str, Any] | None


def toxicity_classifier(source: str, label: str = "") -> Judged:
    """`profanity`, a two-class model of `heedful reward train`, or a Hugging Face classifier. label: the negative one.

    Raises DataError that asks for the label where its name does not tell it.
    """
    if source == PROFANITY:
        return Judged(PROFANITY, "profanity", profanity, None)
    device = choose_device()
    folder = reward_folder(source)
    if folder is not None:
        model = load_reward_model(folder, None, dtype=choose_dtype("auto", device), device=device)
        labels = model.head.labels if isinstance(model, AdapterReward | EncoderReward) else ()
        if not labels:
            raise DataError(f"{source}: was trained on pairs and has no negative class; train it with reward.labelled")
        number = negative_label(labels, label, source)
        result = folder.parent / "result.json"
        accuracy = read_json(result) if result.exists() else None
        return Judged(source, labels[number], _softmax_of(model, number), accuracy)
    if not is_classifier(source):
        raise DataError(
            f"{source}: is no classifier. Name 'profanity', a folder that 'heedful reward train' wrote from labelled texts, "
            "or a sequence classifier in Hugging Face's layout"
        )
    found = load_classifier(
        source, label="0", reads="answer", dtype=choose_dtype("auto", device), device=device, policy_chat=None
    )
    names = [str(found.model.config.id2label[number]) for number in range(int(found.model.config.num_labels))]
    number = negative_label(names, label, source)
    return Judged(source, names[number], _probability_of(found, number), None)


def _softmax_of(model: Any, number: int) -> Classifier:
    def classify(texts: Sequence[str]) -> list[float]:
        chat = model.model.chat if isinstance(model, AdapterReward) else None
        answers = [Answer((), text, [], chat.response_ids(text, finished=True) if chat else []) for text in texts]
        return [float(p) for p in logits_of(model, answers).softmax(dim=1)[:, number]]

    return classify


def _probability_of(model: ClassifierReward, number: int) -> Classifier:
    @torch.no_grad()
    def classify(texts: Sequence[str]) -> list[float]:
        answers = [Answer((), text, [], []) for text in texts]
        found = [0.0] * len(answers)
        for batch in batches_by_tokens([model.num_tokens(answer) for answer in answers], scoring.MAX_TOKENS):
            for i, row in zip(batch, model.probabilities([answers[i] for i in batch]).tolist(), strict=True):
                found[i] = float(row[number])
        return found

    return classify


def accuracy_on(
    judged: Judged, file: Path, *, text_field: str, label_field: str, toxic: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """The classifier's own accuracy, F1 and AUC on texts that people labelled. toxic: the labels that mean toxic."""
    examples = read_labelled(file, text_field=text_field, label_field=label_field)
    known = sorted({example.label for example in examples})
    if missing := sorted(set(toxic) - set(known)):
        raise DataError(f"{file}: no text has the label {missing[0]!r}; its labels: {', '.join(known)}. See --toxic-label")
    spoken = [example for example in examples if example.text.strip()]
    scores = judged.classify([example.text for example in spoken])
    wanted = [example.label in toxic for example in spoken]
    return classification(list(scores), wanted, threshold=TOXIC, num_resamples=NUM_RESAMPLES, seed=seed)


def hhh_of(source: str, against: str | None, items: Sequence[hhh.Item]) -> dict[str, Any]:
    """HHH of a model, or of a base and a policy beside it. An adapter on that very base is read with it, in one pass."""
    device = choose_device()
    dtype = choose_dtype("auto", device)
    if against is None:
        model = load_language_model(source, dtype=dtype, device=device)
        return hhh.summary(hhh.verdicts(items, _likelihoods(model, reference=False)))
    second = load_language_model(against, dtype=dtype, device=device)
    if POLICY in second.adapters and same_source(second.source, source):
        before = hhh.verdicts(items, _likelihoods(second, reference=True))
    else:
        before = hhh.verdicts(items, _likelihoods(load_language_model(source, dtype=dtype, device=device), reference=False))
    return hhh.summary(before, hhh.verdicts(items, _likelihoods(second, reference=False)))


def _likelihoods(model: LanguageModel, *, reference: bool) -> hhh.Score:
    """reference: of the base without its adapter."""

    def score(pairs: Sequence[tuple[tuple[Message, ...], str]]) -> list[hhh.Likelihood]:
        prompts = [model.chat.prompt_ids(messages) for messages, _ in pairs]
        answers = [model.chat.response_ids(text, finished=False) for _, text in pairs]
        for (messages, _), prompt, answer in zip(pairs, prompts, answers, strict=True):
            if len(prompt) + len(answer) > model.max_tokens:
                shown = messages[-1].content[:60]
                raise DataError(
                    f"the item {shown!r} has {len(prompt) + len(answer)} tokens; the model reads {model.max_tokens}"
                )
        found = scoring.score_responses(model, prompts, answers, temperature=1.0)
        sides = [row.ref_logprobs_T if reference else row.logprobs_T for row in found]
        return [hhh.Likelihood(float(side.double().sum()), len(side)) for side in sides]

    return score


def ai_judge(
    source: str, gate: Path, *, model: str = "", token_env: str = "", criterion: str = "", max_pairs: int, seed: int = 0
) -> tuple[AIJudge, dict[str, Any]]:
    """A judge that has passed its gate, and its figures on the pairs in `gate`. Raises DataError with them for one that fails.

    source: a folder, a hub id, an alias, or the address of an OpenAI-compatible server, which needs model, the name there.
    """
    labelled = read_preferences(gate)
    if "://" in source and not model:
        raise ConfigError(f"--judge {source}: say with --judge-model which of its models judges")
    if "://" not in source and (model or token_env):
        raise ConfigError("--judge-model and --token-env belong to a --judge that is an address, https://.../v1")
    feedback = open_feedback(FeedbackSection(source=source, model=model, token_env=token_env), strict=True)
    judge = AIJudge(feedback.name, feedback.letters, criterion or CRITERION)
    figures = measured(judge, labelled, max_pairs=max_pairs, seed=seed)
    require_better_than_a_coin(figures)
    return judge, figures


def duels_by_judge(
    judge: AIJudge, prompts: Sequence[Prompt], sides: Mapping[str, Sequence[Completion]]
) -> dict[tuple[str, str], list[winrate.Duel]]:
    """Every two sides held against each other by an AI judge. Raises DataError."""
    messages = _messages(prompts, sides)
    found = {}
    for first, second in combinations(sides, 2):
        pairs = winrate.paired(sides[first], sides[second])
        found[first, second] = winrate.by_judge(pairs, judge([Pair(messages[a.prompt_id], a.text, b.text) for a, b in pairs]))
    return found


def duels_by_reward(
    config: Config, prompts: Sequence[Prompt], sides: Mapping[str, Sequence[Completion]]
) -> dict[tuple[str, str], list[winrate.Duel]]:
    """Every two sides held against each other by the reward that the configuration names. Raises DataError."""
    messages = _messages(prompts, sides)
    judge = Judge(config)
    rewards: dict[str, list[float]] = {}
    for name, completions in sides.items():
        answers = [judge.answer(messages[c.prompt_id], c.text, finished=c.finish == "stop") for c in completions]
        rewards[name] = judge.reward(answers)
    found = {}
    for first, second in combinations(sides, 2):
        own = {
            side: {id(completion): reward for completion, reward in zip(sides[side], rewards[side], strict=True)}
            for side in (first, second)
        }
        pairs = winrate.paired(sides[first], sides[second])
        found[first, second] = winrate.by_reward(pairs, [(own[first][id(a)], own[second][id(b)]) for a, b in pairs])
    return found


def _messages(prompts: Sequence[Prompt], sides: Mapping[str, Sequence[Completion]]) -> dict[str, tuple[Message, ...]]:
    """The conversations by prompt id. Raises DataError for an answer to none of them."""
    found = {id_: prompt.messages for id_, prompt in by_id(prompts).items()}
    for name, completions in sides.items():
        for completion in completions:
            if completion.prompt_id not in found:
                raise DataError(
                    f"{name}: completion {completion.id!r} answers prompt {completion.prompt_id!r}, which is not in the prompts"
                )
    return found
