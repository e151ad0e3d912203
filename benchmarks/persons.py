"""What personal rewards are worth and what they cost: DICES raters, opposed wishes on HH pairs, questions, a thousand persons.

    python benchmarks/persons.py dices --data FOLDER --features F
    python benchmarks/persons.py hh --data FOLDER --features F
    python benchmarks/persons.py ask
    python benchmarks/persons.py speed

FOLDER holds dices/ratings.jsonl.gz and hh/*.jsonl.gz. F is where features of the encoder (minilm-22m) are kept: computed by the
first run, read by the next. Prints the tables of docs/methods/personalisation.md in Markdown. The tests of the same figures
share tests/support/dices.py and tests/support/simulated_persons.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import dices
from opposed_wishes import ACCURACY_ON, GROUPS, measure
from opposed_wishes import texts as hh_texts
from simulated_persons import questioned, world

from heedful.persons.features import Text, read_features, surface, write_features
from heedful.persons.fitting import Settings
from heedful.persons.labels import Array, Label, Labels, gather
from heedful.persons.measures import compare, hide
from heedful.persons.model import fit_persons, know_persons
from heedful.persons.safety import no_safety
from heedful.persons.selection import choose

ENCODER = "minilm-22m"
NUM_SEEDS = 5
NUM_DEV = 30  # raters on whom settings are chosen; the others are reported
SPLIT_SEED = 123
HIDDEN = 0.8
WAYS = ("information", "variance", "random")


def heading(title: str, *columns: str) -> None:
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def interval(found: Mapping[str, float], *, sign: bool = False) -> str:
    form = "+.4f" if sign else ".4f"
    return f"{found['estimate']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def silent(*_: Any) -> None:
    """A progress that nobody watches."""


def encoded(path: Path, texts: Sequence[Text], reads: Any, max_tokens: int) -> Array:
    """Features of the encoder, from the file where they are there."""
    if path.exists():
        return read_features(str(path), texts, reads=reads, scratch=path.parent, progress=silent)
    began = time.perf_counter()
    scratch = path.with_suffix(".reading")
    found = read_features(ENCODER, texts, reads=reads, scratch=scratch, progress=silent, max_tokens=max_tokens)
    write_features(path, texts, found)
    print(f"{len(texts)} texts read in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return found


# DICES


def chosen_settings(labels: Labels, features_TD: Array, dev: Array, reported: Array) -> Settings:
    """Settings that foretell best the hidden labels of every second development rater.

    All that any draw hides of the reported raters is taken out before: only what they show in every draw may help to choose.
    """
    never_N = np.logical_or.reduce([hide(labels, HIDDEN, seed, among=reported) for seed in range(NUM_SEEDS)])
    known = labels.take(~never_N)
    tried = product((1, 2, 4, 8), (4.0, 16.0, 64.0), (0.25, 0.5, 1.0))
    candidates = [Settings(num_heads=k, ridge_heads=ridge, text_scale=scale) for k, ridge, scale in tried]
    hidden_N = hide(known, HIDDEN, 0, among=dev[::2])
    settings, rows = choose(known, features_TD, no_safety(features_TD.shape[1]), candidates, hidden_N=hidden_N)
    losses = sorted(entry["log_loss"] for entry in rows)
    print(f"\nchosen on {len(dev)} development raters: {settings}")
    print(f"log-loss of the {len(losses)} candidates there: {losses[0]:.4f} to {losses[-1]:.4f}", flush=True)
    return settings


def show_dices(title: str, found: Sequence[dices.Measured]) -> None:
    columns = ("model", "log-loss", "AUC within a rater", "AUC pooled", "log-loss difference", "AUC difference")
    heading(f"{title}; differences are personal less this model, intervals over raters:", *columns)
    means = {name: dices.mean_over_draws([one.by_person[name] for one in found]) for name in found[0].by_person}
    for name, own in means.items():
        told = compare(own, means[dices.PERSONAL])
        cells = [f"{told[m]['before']['estimate']:.4f}" for m in ("log_loss", "auc")]
        cells.append(f"{np.mean([one.pooled_auc[name] for one in found]):.4f}")
        apart = [interval(told[m]["difference"], sign=True) for m in ("log_loss", "auc")]
        row(name, *cells, *(("", "") if name == dices.PERSONAL else apart))


def run_dices(data: Path, features: Path) -> None:
    labels, texts = dices.read(data)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels.persons))
    dev, reported = order[:NUM_DEV], order[NUM_DEV:]
    kinds = {
        "MiniLM": encoded(features / "dices.npz", texts, "prompt+answer", 256),
        "surface": np.stack([surface(text.text) for text in texts]),
    }
    for kind, features_TD in kinds.items():
        settings = chosen_settings(labels, features_TD, dev, reported)
        draws = [dices.measure(labels, features_TD, settings, reported, seed, HIDDEN) for seed in range(NUM_SEEDS)]
        show_dices(f"{kind}, 80% of labels hidden, {len(reported)} raters, {NUM_SEEDS} draws", draws)
        if kind != "MiniLM":
            continue
        none = dices.measure(labels, features_TD, settings, reported, 0, 1.0)
        show_dices("MiniLM, none of the raters' labels known", [none])
        equal = none.by_person[dices.PERSONAL] == none.by_person[dices.GLOBAL]
        print(f"\nwith no label every figure of every rater is that of the global model: {equal}")
        heading("Log-loss, personal less global, by how much is hidden, 2 draws:", "hidden", "labels a rater", "difference")
        for share in (0.99, 0.95, 0.9, 0.8, 0.5):
            some = [dices.measure(labels, features_TD, settings, reported, seed, share) for seed in range(2)]
            sides = [dices.mean_over_draws([one.by_person[name] for one in some]) for name in (dices.GLOBAL, dices.PERSONAL)]
            shown = (1 - share) * len(labels) / len(labels.persons)
            row(f"{share:.0%}", f"{shown:.0f}", interval(compare(*sides)["log_loss"]["difference"], sign=True))


# HH


def run_hh(data: Path, features: Path) -> None:
    sides = {side: hh_texts(data, side) for side in ("helpful", "harmless")}
    counts = np.stack([surface(text.text) for texts in sides.values() for text in texts])
    rows = np.concatenate([encoded(features / f"{side}.npz", texts, "answer", 128) for side, texts in sides.items()])
    names = [text.id for texts in sides.values() for text in texts]
    together = np.concatenate([standard(rows), standard(counts)], axis=1)
    candidates = [Settings(num_heads=2, ridge_global=r, ridge_heads=r, text_scale=0.0) for r in (10.0, 30.0, 100.0)]
    for kind, features_TD in {"MiniLM and surface": together, "surface": standard(counts)}.items():
        for title, groups in GROUPS.items():
            told = f"{title}; {kind}; accuracy on {ACCURACY_ON} unseen pairs a file, {NUM_SEEDS} draws:"
            heading(told, "group", "global", "personal", "personal less global", "the group alone, told apart")
            found = [measure(groups, names, features_TD, candidates, seed) for seed in range(NUM_SEEDS)]
            for group in groups:
                means = [dices.mean_over_draws([one[group][judge] for one in found]) for judge in ("global", "personal")]
                alone = np.mean([value for one in found for value in one[group]["group"]["accuracy"].values()])
                both = compare(*means)["accuracy"]
                cells = [f"{both['before']['estimate']:.4f}", interval(both["after"]), interval(both["difference"], sign=True)]
                row(group, *cells, f"{alone:.4f}")


def standard(features_TD: Array) -> Array:
    """Each feature with mean 0 and sd 1, over the root of their number."""
    sd_D = features_TD.std(axis=0)
    found = (features_TD - features_TD.mean(axis=0)) / np.where(sd_D > 0, sd_D, 1)
    return np.asarray(found / np.sqrt(features_TD.shape[1]))


# Questions and speed


def run_ask() -> None:
    """New persons asked pair by pair: how like the learned reward is to the true one."""
    found = world(90, 80, seed=3)
    labels = found.labels(30, pairs=True, seed=1)
    settings = Settings(num_heads=2, ridge_heads=1.0, text_scale=0.0)
    model = fit_persons(labels.take(labels.person_N < 60), found.features_TD, no_safety(12), settings)
    pairs = list(combinations(range(80), 2))
    heading("Correlation of learned and true reward, 30 new persons, 3 draws:", "questions", *WAYS)
    for count in (1, 2, 3, 5, 8, 12, 20):
        runs = {by: [questioned(found, model, pairs, by, range(60, 90), seed, count) for seed in range(3)] for by in WAYS}
        row(str(count), *(f"{np.mean(values):.3f}" for values in runs.values()))


def run_speed() -> None:
    columns = ("labels a person", "kind", "heads and persons, s", "persons alone, s", "one new person, ms")
    heading("A thousand persons, 2,000 texts of 384 features, 4 heads, processor seconds of one thread:", *columns)
    for per_person, pairs in ((20, False), (50, False), (50, True)):
        found = world(1000, 2000, num_features=384)
        labels = found.labels(per_person, pairs=pairs, seed=0)
        began = time.process_time()
        model = fit_persons(labels, found.features_TD, no_safety(384), Settings())
        whole = time.process_time() - began
        began = time.process_time()
        know_persons(model.heads, labels, found.features_TD)
        alone = time.process_time() - began
        new, rows = one_person(labels, found.features_TD)
        began = time.process_time()
        for _ in range(10):
            know_persons(model.heads, new, rows)
        each = (time.process_time() - began) / 10
        row(str(per_person), "pairs" if pairs else "votes", f"{whole:.1f}", f"{alone:.2f}", f"{1000 * each:.1f}")


def one_person(labels: Labels, features_TD: Array) -> tuple[Labels, Array]:
    """The first person's labels under another name, and the features of the texts in them."""
    mine = labels.take(labels.person_N == 0)
    columns = zip(mine.first_N, mine.second_N, mine.value_N, strict=True)
    own = gather(Label("new", labels.texts[a], None if b < 0 else labels.texts[b], v) for a, b, v in columns)
    return own, features_TD[[labels.texts.index(text) for text in own.texts]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("dices", "hh", "ask", "speed"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--features", type=Path, default=Path("persons-features"))
    given = parser.parse_args()
    if given.what in ("dices", "hh") and given.data is None:
        parser.error(f"{given.what} needs --data")
    if given.what == "ask":
        run_ask()
    elif given.what == "speed":
        run_speed()
    else:
        {"dices": run_dices, "hh": run_hh}[given.what](given.data, given.features)


if __name__ == "__main__":
    main()
