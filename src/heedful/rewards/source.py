"""From what a user names to a reward: the one place where kinds of rewards are told apart.

| source | kind |
|---|---|
| `trained` | the reward model that this run trains |
| `thumbs` | a person's 0 or 1, asked for while the policy learns |
| a folder of `heedful reward train`, or a run directory | adapter, frozen trunk, encoder, classifier, or an ensemble of them |
| another folder or a hub id | a Hugging Face sequence classifier as it is |
| `FOLDER#PERSON`, `FOLDER#PERSON,PERSON` | the reward of a person or a group, of a folder of `heedful persons fit` |
| `ensemble:SOURCE,SOURCE,...` | an ensemble of models |
| `python:module:function`, `path/file.py:function` | a Python function |
| `http://...`, `https://...` | an endpoint |
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor

from heedful.config import RewardTermSection, ScaleSection
from heedful.endpoint import longest_pauses_s, token_in
from heedful.engine.device import compile_where_told
from heedful.errors import ConfigError, SourceError
from heedful.models.classifier import is_classifier, load_classifier, same_tokens
from heedful.models.policy import LanguageModel
from heedful.models.reward import AdapterReward, Answer, EncoderReward, answer_of, load_reward_model, read_about
from heedful.models.sources import same_source
from heedful.rewards.endpoint import EndpointReward
from heedful.rewards.function import function_place, load_function
from heedful.rewards.mixture import ENSEMBLE, Aggregate, Ensemble, ModelReward, Reward, Scale, Term, WeightedSum
from heedful.rewards.personal import is_of_persons, personal_place, personal_reward

TRAINED, THUMBS = "trained", "thumbs"


class Sources:
    """Turns sources into rewards. base: the policy's model, which adapters share and whose tokens are what is judged.

    trained: makes the reward model of this run; thumbs: asks people. aggregate, coef: of ensembles that a source lists.
    compiling: model.compile, for a base that is loaded here.
    """

    def __init__(
        self,
        base: LanguageModel | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
        trained: Callable[[], Reward] | None = None,
        aggregate: Aggregate = "mean-sd",
        coef: float = 0.5,
        compiling: str = "off",
        thumbs: Callable[[], Reward] | None = None,
    ) -> None:
        self.base = base
        self.thumbs = thumbs
        self.compiling = compiling
        self.dtype = dtype
        self.device = device
        self.trained = trained
        self.aggregate: Aggregate = aggregate
        self.coef = coef

    def mixture(self, terms: Sequence[RewardTermSection]) -> WeightedSum:
        """The weighted sum of all terms."""
        return WeightedSum([Term(name, term.weight, self.reward(term)) for name, term in named(terms).items()])

    def reward(self, term: RewardTermSection) -> Reward:
        """The reward of one term, before its weight. Raises SourceError for what is none."""
        source = term.source
        if source == TRAINED:
            if self.trained is None:
                raise SourceError(f"{source!r}: only a run that trains a reward model has one; name a folder instead")
            return self.trained()
        if source == THUMBS:
            if self.thumbs is None:
                raise SourceError(f"{source!r}: only 'heedful run' and 'heedful align' ask people for thumbs")
            return self.thumbs()
        if is_url(source):
            return EndpointReward(
                source,
                timeout_s=term.timeout_s,
                max_retries=term.max_retries,
                backoff_s=term.backoff_s,
                batch_rows=term.batch_rows,
                token=token_in(term.token_env, "reward.terms.token_env"),
            )
        if place := function_place(source):
            return load_function(source, place)
        if personal_place(source):
            return personal_reward(term, self.base)
        if source.startswith(ENSEMBLE):
            members = [self.reward(term.model_copy(update={"source": member})) for member in members_of(source)]
            return Ensemble(members, aggregate=self.aggregate, coef=self.coef)
        if is_of_persons(source):
            raise SourceError(f"{source}: holds the rewards of persons; name whose, as in '{source}#PERSON'")
        folder = reward_folder(source)
        return self._classifier(term) if folder is None else self._saved(folder, term)

    def _classifier(self, term: RewardTermSection) -> Reward:
        if not is_classifier(term.source):
            raise SourceError(
                f"{term.source}: is no reward. Name a folder that 'heedful reward train' wrote, a sequence classifier in "
                "Hugging Face's layout, FOLDER#PERSON, python:module:function, path/file.py:function, or http(s)://..."
            )
        model = load_classifier(
            term.source,
            label=term.label,
            reads="prompt+answer" if term.reads == "auto" else term.reads,
            dtype=self.dtype,
            device=self.device,
            policy_chat=self.base.chat if self.base is not None else None,
        )
        print(f"{term.source}: the reward is the logit of label {model.label!r}", file=sys.stderr)
        return ModelReward(model)

    def _saved(self, folder: Path, term: RewardTermSection) -> Reward:
        about = read_about(folder)
        if about["kind"] == "ensemble":
            members = [self._saved(folder / Path(name).name, term) for name in about["members"]]
            scales = [Scale(**scale) for scale in about["scales"]]
            return Ensemble(members, aggregate=about["aggregate"], coef=about["disagreement_coef"], scales=scales)
        shared = self.base if self.base is not None and same_source(self.base.source, str(about.get("base"))) else None
        model = load_reward_model(folder, shared, dtype=self.dtype, device=self.device)
        if isinstance(model, AdapterReward | EncoderReward):
            if term.label:
                model.head.want(term.label)
            if term.reads != "auto":
                model.reads = term.reads
        if isinstance(model, AdapterReward) and model.model is not self.base:
            compile_where_told(model.model, self.compiling)
            if self.base is None:
                self.base = model.model
            elif not same_tokens(model.model.chat, self.base.chat):
                return ModelReward(Retokenised(model))
        return ModelReward(model)


class Retokenised:
    """A reward model on another base than the policy's: it reads the same text in its own tokens and its own chat form."""

    def __init__(self, model: AdapterReward) -> None:
        self.model = model

    def _own(self, answer: Answer) -> Answer:
        return answer_of(self.model.model, answer.messages, answer.text, finished=answer.finished)

    def num_tokens(self, answer: Answer) -> int:
        return self.model.num_tokens(self._own(answer))

    def rewards(self, answers: Sequence[Answer]) -> Tensor:
        return self.model.rewards([self._own(answer) for answer in answers])


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def require_patience(terms: Sequence[RewardTermSection], scale: ScaleSection) -> None:
    """Raises ConfigError where the others of a team would take the one who asks an address for lost, while it is down."""
    for term in terms:
        pauses_s = longest_pauses_s(term.max_retries, term.backoff_s)
        if scale.num_workers > 1 and is_url(term.source) and scale.deadline_s <= pauses_s + term.timeout_s:
            raise ConfigError(
                f"reward.terms: {term.source} is tried again for {pauses_s:g} s while it is down, and with scale.deadline_s = "
                f"{scale.deadline_s:g} the other workers would take that for a lost worker; set scale.deadline_s above "
                f"{pauses_s + term.timeout_s:g}, or lower the term's max_retries"
            )


def members_of(source: str) -> list[str]:
    """The sources that "ensemble:A,B" lists."""
    members = [member.strip() for member in source.removeprefix(ENSEMBLE).split(",") if member.strip()]
    if len(members) < 2:
        raise SourceError(f"{source}: an ensemble has two members at least, as in ensemble:first/model,second/model")
    others = (is_url, function_place, personal_place)
    wrong = [member for member in members if member in (TRAINED, THUMBS) or any(names(member) for names in others)]
    if wrong:
        raise SourceError(f"{source}: {wrong[0]!r} is no model; members are folders or hub ids, other kinds are terms of a sum")
    return members


def reward_folder(source: str) -> Path | None:
    """The folder with reward.json that a source names: itself, or the trained model of a run directory."""
    for folder in (Path(source).expanduser(), Path(source).expanduser() / "reward" / "model"):
        if (folder / "reward.json").is_file():
            return folder
    return None


def local_inputs(term: RewardTermSection) -> list[Path]:
    """Files and folders that a term's reward is made of, so that a stage notices when they change."""
    source = term.source
    if source in (TRAINED, THUMBS) or is_url(source):
        return []
    if place := function_place(source):
        if place.file is None:
            load_function(source, place)
            file = getattr(sys.modules[place.module], "__file__", None)
            return [Path(file)] if file else []
        return [place.file] if place.file.is_file() else []
    if persons := personal_place(source):
        return [persons[0]] if persons[0].is_dir() else []
    if source.startswith(ENSEMBLE):
        return [path for name in members_of(source) for path in local_inputs(term.model_copy(update={"source": name}))]
    folder = reward_folder(source) or Path(source).expanduser()
    return [folder] if folder.is_dir() else []


def named(terms: Sequence[RewardTermSection]) -> dict[str, RewardTermSection]:
    """Terms under their names in the metrics. Raises ConfigError when two have the same."""
    for term in terms:
        if is_url(term.source) and not _host(term.source):
            raise ConfigError(
                f"reward.terms: {term.source!r} is no address; expected one such as http://127.0.0.1:8000/rewards"
            )
    names = [re.sub(r"[^\w-]+", "-", term.name or _short_name(term.source)).strip("-") or "reward" for term in terms]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"reward.terms: two terms are called {twice[0]!r}; give each a name of its own")
    return dict(zip(names, terms, strict=True))


def _host(url: str) -> str:
    """The host of an address; "" where there is none or the address is malformed."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _short_name(source: str) -> str:
    if is_url(source):
        return _host(source)
    if place := function_place(source):
        return place.name
    if source.startswith(ENSEMBLE):
        return "ensemble"
    parts = [part for part in Path(source).parts if part not in ("model", "reward", "/", "..")]
    return parts[-1] if parts else "reward"
