"""Frozen features of a text: from an encoder, from a language model's trunk, from plain counts, or from the user's own file.

| source | what it reads |
|---|---|
| `surface` | counts of the answer: words, sentences, questions and the like; no model |
| a file `.npz` | arrays `ids` (completion ids) and `features` (a row each), computed elsewhere |
| an encoder: alias, folder, hub id | mean of its last hidden states over prompt and answer, layer-normalised |
| a language model | its hidden states, last token and mean of the last 40, layer-normalised; no adapter |
"""

# T texts, D features

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from heedful.errors import DataError
from heedful.persons.labels import Array
from heedful.records import Message

if TYPE_CHECKING:
    from heedful.models.policy import LanguageModel
    from heedful.models.reward import Answer
    from heedful.training.reward_head import FeatureModel

SURFACE = "surface"
Reads = Literal["prompt+answer", "answer"]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Text:
    """What is judged: an answer under its id, to a conversation. finished: it ended by itself."""

    id: str
    prompt_id: str
    messages: tuple[Message, ...]
    text: str
    finished: bool = True


def is_file(source: str) -> bool:
    return source.endswith(".npz")


def read_features(
    source: str, texts: Sequence[Text], *, reads: Reads, scratch: Path, progress: Progress, max_tokens: int = 0
) -> Array:
    """Features (T, D), float32, in the order of the texts.

    scratch: folder where what a model has read is kept meanwhile, so that an interrupted reading goes on. max_tokens: of an
    encoder, reads no more than this; 0 for what it can. Raises DataError, ModelError, SourceError.
    """
    if source == SURFACE:
        return np.stack([surface(text.text) for text in texts])
    if is_file(source):
        return _from_file(Path(source), texts)
    return _from_model(source, texts, reads, scratch, progress, max_tokens)


def surface(text: str) -> Array:
    """Ten counts of a text, each on a scale of its own kind; log(1 + count), or a share of the words."""
    words = re.findall(r"\w+(?:['’]\w+)?", text.lower())
    num_words = max(1, len(words))
    counts = [len(words), len(re.findall(r"[.!?]+", text)), text.count("?"), text.count("!"), len(re.findall(r"\n\s*\S", text))]
    shares = [
        sum(word in ("i", "i'm", "i’m", "my", "me") for word in words),
        sum(word in ("you", "your", "you're", "you’re") for word in words),
        sum(word in ("not", "no", "never", "can't", "can’t", "don't", "don’t", "sorry") for word in words),
        sum(word.isdigit() for word in words),
    ]
    mean_letters = sum(map(len, words)) / num_words / 5
    return np.array([*np.log1p(counts), *(share / num_words for share in shares), mean_letters], dtype=np.float32)


def _from_file(path: Path, texts: Sequence[Text]) -> Array:
    try:
        with np.load(path, allow_pickle=False) as found:
            ids, features = [str(id_) for id_ in found["ids"]], np.asarray(found["features"], dtype=np.float32)
    except KeyError as error:
        raise DataError(f"{path}: holds no array {error.args[0].split()[0]}; it needs 'ids' and 'features'") from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read as NumPy's .npz of numbers and texts ({error}); write it with numpy.savez"
        ) from None
    if features.ndim != 2 or len(features) != len(ids) or not np.isfinite(features).all():
        raise DataError(
            f"{path}: expected 'features' as finite numbers, a row for each of the {len(ids)} ids, found shape {features.shape}"
        )
    place = {id_: number for number, id_ in enumerate(ids)}
    for text in texts:
        if text.id not in place:
            raise DataError(
                f"{path}: holds no features of completion {text.id!r}; add them ('heedful persons features' writes such a file)"
            )
    return features[[place[text.id] for text in texts]]


def write_features(path: Path, texts: Sequence[Text], features_TD: Array) -> None:
    """Writes a file that `read_features` reads."""
    import io

    from heedful.store import write_bytes

    buffer = io.BytesIO()
    np.savez(buffer, ids=np.array([text.id for text in texts]), features=features_TD.astype(np.float32))
    write_bytes(path, buffer.getvalue())


def open_reader(source: str, reads: Reads, *, base: LanguageModel | None = None) -> Callable[[Sequence[Text]], Array]:
    """What reads the features of texts that nobody has seen yet, (T, D) float32, again and again; a model is loaded once.

    base: a language model that is loaded already, read without adapter where it is the source. Raises DataError for a file
    of features, ModelError, SourceError.
    """
    if source == SURFACE:
        return lambda texts: np.stack([surface(text.text) for text in texts])
    if is_file(source):
        raise DataError(
            f"{source}: holds features of known texts, and an answer that is yet to be written has none; fit the persons with "
            "--features surface, an encoder or a language model"
        )
    from heedful.training.reward_head import features_of

    model, answer = _reading(source, reads, 0, base)
    return lambda texts: np.asarray(features_of(model, [answer(text) for text in texts]).numpy())


def _from_model(source: str, texts: Sequence[Text], reads: Reads, scratch: Path, progress: Progress, max_tokens: int) -> Array:
    from heedful.training.reward_head import read_features as read

    model, answer = _reading(source, reads, max_tokens, None)
    return np.asarray(read(model, [answer(text) for text in texts], scratch, progress)[0].numpy())


def _reading(
    source: str, reads: Reads, max_tokens: int, base: LanguageModel | None
) -> tuple[FeatureModel, Callable[[Text], Answer]]:
    """A frozen model, and what makes a text into what it reads."""
    from heedful.engine.device import choose_device, choose_dtype
    from heedful.models.head import RewardHead
    from heedful.models.policy import load_language_model
    from heedful.models.reward import AdapterReward, Answer, answer_of, load_encoder_reward
    from heedful.models.sources import is_encoder, same_source

    device = choose_device()
    if is_encoder(source):
        encoder = load_encoder_reward(source, "mean", device, reads=reads, frozen=True)
        encoder.max_tokens = min(encoder.max_tokens, max_tokens or encoder.max_tokens)
        return encoder, lambda text: Answer(text.messages, text.text, [], [], text.finished)
    if base is None or not same_source(base.source, source):
        base = load_language_model(source, dtype=choose_dtype("auto", device), device=device)
    read = base
    model = AdapterReward(read, RewardHead(read.hidden_size, "last+mean"), None, reads)
    return model, lambda text: answer_of(read, text.messages, text.text, finished=text.finished)
