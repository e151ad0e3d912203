"""What a reward model learns from, pairs or labelled texts, and how one or several are trained on it."""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heedful.config import RewardSection
from heedful.data.labelled import Labelled
from heedful.errors import DataError
from heedful.evaluation.classification import classification
from heedful.models.policy import LanguageModel
from heedful.models.reward import AdapterReward, Answer, EncoderReward, answer_of
from heedful.records import Message, Preference
from heedful.rewards.asking import measure_on_pairs
from heedful.rewards.mixture import Ensemble, ModelReward, Reward, Scale
from heedful.store import new_folder, write_json
from heedful.training import classifier, reward
from heedful.training.reward_head import fit_head

Trainable = AdapterReward | EncoderReward
SCALE_ANSWERS = 512  # enough to know a mean and an sd to a few percent


@dataclass
class PairTask:
    """Learning from pairs."""

    settings: RewardSection
    train: list[reward.Group]
    heldout: list[reward.Group]
    num_resamples: int
    seed: int

    def fit(
        self, model: Trainable, folder: Path, *, seed: int, log: tuple[Path, str], progress: Callable[[int, int, str], None]
    ) -> dict[str, Any]:
        num_ties = sum(pair.tied for group in self.train for pair in group.pairs)
        kept = {} if self.settings.ties == "drop" else {"num_training_ties": num_ties}
        if self.settings.trunk == "frozen":
            return {"steps": fit_head(model, self.train, folder, seed=seed, progress=progress), **kept}
        if self.settings.ties in ("davidson", "rao-kupper") and not num_ties and not self.settings.tie_parameter:
            print("there is no tied pair to learn the tie parameter from; it will only fall", file=sys.stderr)
        method, outcome = reward.train(
            model, self.train, self.heldout, folder, settings=self.settings, seed=seed, log=log, progress=progress
        )
        return {**outcome.as_dict(), **kept, **({"tie_parameter": method.tie_parameter} if method.ties else {})}

    def measure(self, judge: Reward) -> dict[str, Any]:
        return measure_on_pairs(judge, self.heldout, self.num_resamples, self.seed) | {"num_training_prompts": len(self.train)}

    def answers_to_scale_on(self) -> list[Answer]:
        return [answer for group in self.train for answer in group.answers][:SCALE_ANSWERS]


@dataclass
class LabelledTask:
    """Learning from labelled texts."""

    settings: RewardSection
    labels: tuple[str, str]
    train: list[classifier.Example]
    heldout: list[classifier.Example]
    num_resamples: int
    seed: int

    def fit(
        self, model: Trainable, folder: Path, *, seed: int, log: tuple[Path, str], progress: Callable[[int, int, str], None]
    ) -> dict[str, Any]:
        if self.settings.trunk == "frozen":
            return {"steps": classifier.fit_head(model, self.train, folder, seed=seed, progress=progress)}
        chosen: dict[str, Any] = {"settings": self.settings, "seed": seed, "log": log, "progress": progress}
        return classifier.train(model, self.train, self.heldout, folder, **chosen).as_dict()

    def measure(self, judge: Reward) -> dict[str, Any]:
        # The two logits of a head that begins at zero are each other's negative, so 0 is where the labels are as likely.
        wanted = [example.label == 1 for example in self.heldout]
        found = judge([example.answer for example in self.heldout])
        numbers = classification(found, wanted, threshold=0.0, num_resamples=min(1000, self.num_resamples), seed=self.seed)
        return numbers | {"reward_label": self.labels[1], "other_label": self.labels[0], "num_training_texts": len(self.train)}

    def answers_to_scale_on(self) -> list[Answer]:
        return []  # logits of one pair of labels have a zero and a unit in common


def pair_task(
    pairs: Sequence[Preference],
    model: Trainable,
    *,
    chat_of: LanguageModel,
    settings: RewardSection,
    seed: int,
    written: Mapping[tuple[str, str], Sequence[int]],
    num_resamples: int,
) -> PairTask:
    """Pairs split by prompt, without those that are too long for `model`, and without ties where they are not wanted.

    written: tokens that the model wrote, by (prompt id, text); all other answers are read from their text and end with an
    end-of-text token.
    """
    if settings.max_pairs:
        pairs = random.Random(seed).sample(list(pairs), min(len(pairs), settings.max_pairs))

    def groups(part: Sequence[Preference]) -> list[reward.Group]:
        def encode(id_: str, messages: tuple[Message, ...], text: str) -> Answer:
            return answer_of(chat_of, messages, text, token_ids=written.get((id_, text)))

        kept, too_long = reward.drop_long(reward.group_pairs(part, encode), model, settings.max_tokens)
        if too_long:
            print(f"{too_long} prompts with answers beyond {settings.max_tokens} tokens were left out", file=sys.stderr)
        return kept

    if settings.ties == "drop":
        pairs = [pair for pair in pairs if pair.probability > 0.5 or pair.margin]
    train_pairs, heldout_pairs = reward.split_by_prompt(pairs, settings.heldout_share, seed)
    train, heldout = groups(train_pairs), groups(heldout_pairs)
    if not train or not heldout:
        raise DataError(f"no prompt is left whose answers all fit into reward.max_tokens = {settings.max_tokens}; raise it")
    if not any(pair.decided for group in heldout for pair in group.pairs):
        raise DataError(
            f"all pairs of the {len(heldout)} held-out prompts are ties, on which no accuracy can be measured; label more "
            "prompts or raise reward.heldout_share"
        )
    return PairTask(settings, train, heldout, num_resamples, seed)


def labelled_task(
    examples: Sequence[Labelled],
    labels: tuple[str, str],
    model: Trainable,
    *,
    chat_of: LanguageModel,
    settings: RewardSection,
    seed: int,
    num_resamples: int,
) -> LabelledTask:
    """Labelled texts split by text, without those that are too long for `model`. labels: the other one and the wanted one."""

    def answer(one: Labelled) -> Answer:
        if model.reads == "prompt+answer":
            return answer_of(chat_of, (Message(role="user", content=one.prompt),), one.text, finished=True)
        return Answer((), one.text, [], chat_of.chat.response_ids(one.text, finished=True))

    listed = [classifier.Example(answer(one), labels.index(one.label)) for one in examples]
    kept = [example for example in listed if model.num_tokens(example.answer) <= settings.max_tokens]
    if len(kept) < len(listed):
        print(f"{len(listed) - len(kept)} texts beyond {settings.max_tokens} tokens were left out", file=sys.stderr)
    train, heldout = classifier.split_by_text(kept, settings.heldout_share, seed)
    return LabelledTask(settings, labels, train, heldout, num_resamples, seed)


def train_members(
    task: PairTask | LabelledTask,
    models: Sequence[Trainable],
    folder: Path,
    *,
    seed: int,
    progress: Callable[[int, int, str], None],
) -> tuple[Reward, dict[str, Any]]:
    """Trains one model, or several of an ensemble with a seed each; saves to folder/model; measures on what is held out.

    The first logs as stage "reward", the others as "reward-1" and so on. Members of an ensemble that learned from pairs
    are brought to mean 0 and sd 1 on training answers before they are compared: their rewards have neither zero nor unit.
    """
    run = folder.parent
    if len(models) == 1:
        fitted = task.fit(models[0], folder, seed=seed, log=(run, "reward"), progress=progress)
        with new_folder(folder / "model") as temporary:
            models[0].save(temporary)
        single = ModelReward(models[0])
        return single, task.measure(single) | fitted
    fits, scales = [], []
    answers = task.answers_to_scale_on()
    for number, model in enumerate(models):
        stage = f"reward-{number}" if number else "reward"
        log = (run, stage)
        fits.append(task.fit(model, folder / f"member-{number}", seed=seed + number, log=log, progress=progress))
        rewards = ModelReward(model)(answers) if answers else [0.0]
        scales.append(Scale(statistics.fmean(rewards), statistics.pstdev(rewards) or 1.0))
    settings = task.settings
    rule: dict[str, Any] = {"aggregate": settings.aggregate, "coef": settings.disagreement_coef}
    members = [ModelReward(model) for model in models]
    ensemble = Ensemble(members, scales=scales, **rule)
    with new_folder(folder / "model") as temporary:
        for number, model in enumerate(models):
            (temporary / str(number)).mkdir()
            model.save(temporary / str(number))
        about = {
            "kind": "ensemble",
            "members": [str(number) for number in range(len(models))],
            "scales": [asdict(scale) for scale in scales],
            "aggregate": settings.aggregate,
            "disagreement_coef": settings.disagreement_coef,
        }
        write_json(temporary / "reward.json", about)
    measured = task.measure(ensemble) | fits[0] | {"steps": sum(fit["steps"] for fit in fits)}
    accuracies = [task.measure(member)["accuracy"]["estimate"] for member in members]
    return ensemble, measured | {"members": accuracies, "ensemble_sd": ensemble.measured["ensemble_sd"]}
