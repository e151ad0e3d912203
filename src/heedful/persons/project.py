"""What `heedful persons` does with files: fit, learn, score, best, ask, evaluate, export, delete."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from heedful.errors import DataError
from heedful.ownership import refuse_strangers
from heedful.persons.asking import By, ask
from heedful.persons.choosing import best
from heedful.persons.features import Reads, Text, read_features
from heedful.persons.fitting import Settings
from heedful.persons.folder import Kept, LabelRecord, TextRecord, load, save, with_model
from heedful.persons.labels import Array
from heedful.persons.measures import by_person, compare, hide
from heedful.persons.model import PersonalReward, fit_persons, know_persons, narrow
from heedful.persons.reading import Files, Said, digest, read_said, read_texts
from heedful.persons.safety import fit_safety, together
from heedful.persons.selection import choose, grid

Progress = Callable[[str, int, int, str], None]
Result = dict[str, Any]


def fit_files(
    files: Files,
    output: Path,
    settings: Settings,
    progress: Progress,
    *,
    source: str,
    reads: Reads = "prompt+answer",
    safety_files: Sequence[Files] = (),
    safety_least: float = 0.0,
    choosing: bool = False,
    seed: int = 0,
) -> Result:
    """Heads and persons from files of records. choosing: the settings are those that foretell held-back labels best."""
    refuse_strangers(output, "choose another folder, or move them away")
    said, team = read_said(files), [read_said(own) for own in safety_files]
    everything = Said()
    for part in (said, *team):
        for text in part.texts.values():
            everything.add(text, str(output))
    features = _read(source, list(everything.texts.values()), reads, output, progress)
    heads = [fit_safety(_name(own), *narrow(part.labels, features)) for own, part in zip(safety_files, team, strict=True)]
    labels, features_TD = narrow(said.labels, features)
    safety = together(heads, features_TD.shape[1])
    tried: list[Result] = []
    if choosing:
        settings, tried = choose(labels, features_TD, safety, grid(settings), seed=seed, progress=_one(progress, "choosing"))
    model = fit_persons(labels, features_TD, safety, settings, _one(progress, "heads"))
    records = [LabelRecord(**label._asdict(), in_heads=True) for label in said.labels]
    texts = [TextRecord(id=id_, prompt_id=said.texts[id_].prompt_id, digest=digest(said.texts[id_])) for id_ in labels.texts]
    save(output, Kept(model, source, reads, safety_least, tuple(records), tuple(texts), features_TD))
    _forget_scratch(output)
    told = {"output": str(output)} | _told(model, len(labels), len(texts))
    return told | ({"tried": tried} if tried else {})


def learn_files(folder: Path, files: Files, progress: Progress, *, source: str = "") -> Result:
    """New labels of new or known persons, at once: the heads stay as they are, and only these persons' weights change."""
    kept, said = load(folder), read_said(files)
    features = kept.features() | _features_of(kept, list(said.texts.values()), source, folder, progress)
    records = {(r.person, r.first, r.second): r for r in kept.labels}
    for label in said.labels:
        before = records.get((label.person, label.first, label.second))
        # The heads know of this person either way, and who deletes the person must be told so.
        known = before is not None and before.in_heads
        records[label.person, label.first, label.second] = LabelRecord(**label._asdict(), in_heads=known)
    texts = {text.id: text for text in kept.texts}
    for id_, text in said.texts.items():
        texts[id_] = TextRecord(id=id_, prompt_id=text.prompt_id, digest=digest(text))
    labels, features_TD = narrow([record.label() for record in records.values()], features)
    model = know_persons(kept.model.heads, labels, features_TD)
    save(folder, with_model(kept, model, list(records.values()), [texts[id_] for id_ in labels.texts], features_TD))
    _forget_scratch(folder)
    return {"output": str(folder), "learned": len(said.labels)} | _told(model, len(labels), len(labels.texts))


def score_files(
    folder: Path, person: str, prompts: Sequence[Path], completions: Sequence[Path], progress: Progress, *, source: str = ""
) -> Result:
    """Reward, its sd, and the probability of a 1, for each completion. A person without labels gets the global model's."""
    kept, texts, features_TD = _opened(folder, prompts, completions, source, progress)
    ids = [text.id for text in texts]
    mean_T, sd_T = kept.model.rewards(person, features_TD, ids)
    scores_TS = kept.model.heads.safety.scores(features_TD)
    rows = [
        {"id": id_, "reward": float(mean), "sd": float(sd)}
        | ({"safety": dict(zip(kept.model.heads.safety.names, map(float, scores), strict=True))} if len(scores) else {})
        for id_, mean, sd, scores in zip(ids, mean_T, sd_T, scores_TS, strict=True)
    ]
    return {"person": person, "num_labels": kept.model.num_labels(person), "completions": rows}


def best_files(
    folder: Path,
    person: str,
    prompts: Sequence[Path],
    completions: Sequence[Path],
    progress: Progress,
    *,
    caution: float = 0.0,
    source: str = "",
) -> Result:
    """The best completion of each prompt for a person."""
    kept, texts, features_TD = _opened(folder, prompts, completions, source, progress)
    choices = [
        best(
            kept.model,
            person,
            prompt_id,
            [texts[place].id for place in places],
            features_TD[places],
            caution=caution,
            safety_least=kept.safety_least,
        )
        for prompt_id, places in _by_prompt(texts).items()
    ]
    words = {text.id: text.text for text in texts}
    rows = [choice.as_dict() | {"text": words[choice.completion_id]} for choice in choices]
    return {"person": person, "num_labels": kept.model.num_labels(person), "choices": rows}


def ask_files(
    folder: Path,
    person: str,
    prompts: Sequence[Path],
    completions: Sequence[Path],
    progress: Progress,
    *,
    count: int = 1,
    by: By = "information",
    source: str = "",
) -> Result:
    """Pairs to put before a person, the most telling first; none that the person has compared already."""
    kept, texts, features_TD = _opened(folder, prompts, completions, source, progress)
    known = {frozenset((r.first, r.second)) for r in kept.labels if r.person == person}
    ids = [text.id for text in texts]
    pairs = [
        (a, b)
        for places in _by_prompt(texts).values()
        for a, b in combinations(places, 2)
        if frozenset((ids[a], ids[b])) not in known and texts[a].text != texts[b].text
    ]
    if not pairs:
        raise DataError(
            f"there is no pair left to ask {person!r}: give completions, two of a prompt at least, that are not compared yet"
        )
    found = ask(kept.model, person, pairs, ids, features_TD, count=count, by=by)
    prompt_of = {text.id: text.prompt_id for text in texts}
    rows = [{"prompt_id": prompt_of[question.first]} | question.as_dict() for question in found]
    return {"person": person, "num_labels": kept.model.num_labels(person), "questions": rows}


def evaluate_folder(
    folder: Path, progress: Progress, *, share: float, num_seeds: int, settings: Settings | None = None
) -> Result:
    """The personal model beside the global one on labels that are hidden from both: heads and persons are fitted on the others.

    A person's value is the mean over the seeds, which draw what is hidden.
    """
    kept = load(folder)
    labels, features_TD = narrow([record.label() for record in kept.labels], kept.features())
    sides: list[dict[str, dict[str, list[float]]]] = [defaultdict(lambda: defaultdict(list)) for _ in range(2)]
    for seed in range(num_seeds):
        hidden_N = hide(labels, share, seed)
        seen, unseen = labels.take(~hidden_N), labels.take(hidden_N)
        model = fit_persons(seen, features_TD, kept.model.heads.safety, settings or kept.model.heads.settings)
        nobody = replace(model, persons=(), counts_P=np.zeros(0, dtype=np.int64))
        for side, judge in zip(sides, (nobody, model), strict=True):
            for measure, values in by_person(unseen, judge.predict(unseen, features_TD)).items():
                for name, value in values.items():
                    side[measure][name].append(value)
        progress("evaluate", seed + 1, num_seeds, "")
    means = [{m: {name: float(np.mean(v)) for name, v in found.items()} for m, found in side.items()} for side in sides]
    return {"hidden_share": share, "num_seeds": num_seeds, "num_labels": len(labels)} | compare(*means)


def features_file(
    source: str, prompts: Sequence[Path], completions: Sequence[Path], output: Path, reads: Reads, progress: Progress
) -> Result:
    """Features of completions, once, for any number of fits."""
    from heedful.persons.features import write_features

    texts = list(read_texts(prompts, completions).values())
    found = _read(source, texts, reads, output, progress)
    features_TD = np.stack([found[text.id] for text in texts])
    write_features(output, texts, features_TD)
    _forget_scratch(output)
    return {"output": str(output), "num_texts": len(texts), "num_features": features_TD.shape[1]}


# What they share


def _one(progress: Progress, stage: str) -> Callable[[int, int, str], None]:
    return lambda done, total, note: progress(stage, done, total, note)


def _scratch(output: Path) -> Path:
    return output.with_name(f".{output.name}.reading")


def _forget_scratch(output: Path) -> None:
    shutil.rmtree(_scratch(output), ignore_errors=True)


def _read(source: str, texts: Sequence[Text], reads: Reads, output: Path, progress: Progress) -> dict[str, Array]:
    """Features by id. What a model reads is kept beside the output until that is written, under a name that tells the texts."""
    import hashlib

    key = hashlib.sha256("\n".join([source, reads, *(f"{text.id} {digest(text)}" for text in texts)]).encode()).hexdigest()[:16]
    found = read_features(source, texts, reads=reads, scratch=_scratch(output) / key, progress=_one(progress, "features"))
    return {text.id: row for text, row in zip(texts, found, strict=True)}


def _features_of(kept: Kept, texts: Sequence[Text], source: str, output: Path, progress: Progress) -> dict[str, Array]:
    """Features by id: those that are kept, where the text is still the same, and the others read anew."""
    known = {text.id: (text.digest, row) for text, row in zip(kept.texts, kept.features_TD, strict=True)}
    changed = [text.id for text in texts if text.id in known and known[text.id][0] != digest(text)]
    if changed:
        raise DataError(f"completion {changed[0]!r} has another text than when persons judged it; give it another id")
    new = [text for text in texts if text.id not in known]
    found = {text.id: known[text.id][1] for text in texts if text.id in known}
    read = _read(source or kept.source, new, kept.reads, output, progress) if new else {}
    wanted = kept.features_TD.shape[1]
    for id_, row in read.items():
        if len(row) != wanted:
            raise DataError(
                f"completion {id_!r} has {len(row)} features and the heads read {wanted}; name the source they were fitted on"
            )
    return found | read


def _opened(
    folder: Path, prompts: Sequence[Path], completions: Sequence[Path], source: str, progress: Progress
) -> tuple[Kept, list[Text], Array]:
    kept = load(folder)
    texts = list(read_texts(prompts, completions).values())
    features = _features_of(kept, texts, source, folder, progress)
    _forget_scratch(folder)
    return kept, texts, np.stack([features[text.id] for text in texts]) if texts else np.zeros((0, kept.features_TD.shape[1]))


def _by_prompt(texts: Sequence[Text]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        found[text.prompt_id].append(place)
    return found


def _name(files: Files) -> str:
    return next(path.name.split(".")[0] for path in (*files.votes, *files.preferences, *files.judgements))


def _told(model: PersonalReward, num_labels: int, num_texts: int) -> Result:
    heads = model.heads
    return {
        "num_persons": len(model.persons),
        "num_labels": num_labels,
        "num_texts": num_texts,
        "settings": asdict(heads.settings),
        "safety_weights": dict(zip(heads.safety.names, map(float, heads.population_S), strict=True)),
    }
