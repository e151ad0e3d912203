"""Two groups of simulated persons who want different things of the same kind of answers, by the human labels of hh-rlhf.

"Opposed": one group chooses as the people of HH did, the other the other way round, on pairs of one file. "Of two files": one
group answers pairs of helpful, one of harmless, each as labelled there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from heedful.data.formats import read_preferences
from heedful.persons.features import Text
from heedful.persons.fitting import Settings
from heedful.persons.labels import Array, Label, gather
from heedful.persons.measures import by_person
from heedful.persons.model import fit_persons, know_persons, learn_heads
from heedful.persons.safety import no_safety
from heedful.persons.selection import choose

PAIRS_A_FILE, LEARNED_FROM = 900, 700
HELD_BACK = 200  # of the latter, to choose settings on
ACCURACY_ON = PAIRS_A_FILE - LEARNED_FROM
PERSONS_A_GROUP, PAIRS_A_PERSON = 30, 40
Groups = Mapping[str, tuple[str, float]]  # of each group the file, and the value of "chosen is better"
Measured = dict[str, dict[str, dict[str, float]]]
GROUPS: dict[str, Groups] = {
    "opposed, on helpful": {"as labelled": ("helpful", 1.0), "the other way round": ("helpful", 0.0)},
    "opposed, on harmless": {"as labelled": ("harmless", 1.0), "the other way round": ("harmless", 0.0)},
    "of two files": {"helpful": ("helpful", 1.0), "harmless": ("harmless", 1.0)},
}


def texts(data: Path, side: str) -> list[Text]:
    """Chosen and rejected answers in turn, of PAIRS_A_FILE prompts."""
    pairs = {pair.prompt_id: pair for pair in read_preferences(data / "hh" / f"{side}.jsonl.gz")}
    return [
        Text(f"{side}-{number}-{letter}", f"{side}-{number}", pairs[id_].prompt, text)
        for number, id_ in enumerate(sorted(pairs)[:PAIRS_A_FILE])
        for letter, text in (("c", pairs[id_].chosen), ("r", pairs[id_].rejected))
    ]


def measure(groups: Groups, names: Sequence[str], features_TD: Array, candidates: Sequence[Settings], seed: int) -> Measured:
    """For each group, for each of global, personal, group (told who belongs to it), the measures of its persons.

    Prompts that persons learn from and prompts that they are measured on are different ones, the latter the same for all. Of
    several candidates those settings count that foretell best a part of the prompts to learn from, held back.
    """
    chance = np.random.default_rng(seed)
    order = {side: chance.permutation(PAIRS_A_FILE) for side in sorted({side for side, _ in groups.values()})}
    seen: list[Label] = []
    unseen: list[Label] = []
    for group, (side, value) in groups.items():
        for number in range(PERSONS_A_GROUP):
            person = f"{group} {number:02}"
            for pair in chance.choice(order[side][:LEARNED_FROM], PAIRS_A_PERSON, replace=False):
                seen.append(Label(person, f"{side}-{pair}-c", f"{side}-{pair}-r", value))
            unseen += [Label(person, f"{side}-{pair}-c", f"{side}-{pair}-r", value) for pair in order[side][LEARNED_FROM:]]
    persons = sorted({label.person for label in seen})
    learned, hidden = (gather(part, persons=persons, texts=names) for part in (seen, unseen))
    safety = no_safety(features_TD.shape[1])
    settings = candidates[0]
    if len(candidates) > 1:
        held_back = {f"{side}-{pair}-{letter}" for side in order for pair in order[side][:HELD_BACK] for letter in "cr"}
        hidden_N = np.array([names[first] in held_back for first in learned.first_N])
        settings, _ = choose(learned, features_TD, safety, candidates, hidden_N=hidden_N)
    model = fit_persons(learned, features_TD, safety, settings)
    judges = {"global": replace(model, persons=()), "personal": model}
    judged = {name: by_person(hidden, judge.predict(hidden, features_TD)) for name, judge in judges.items()}
    found: Measured = {}
    for group in groups:
        members = [person for person in persons if person.startswith(group)]
        own = learned.take(np.isin(learned.person_N, [persons.index(person) for person in members]))
        alone = know_persons(learn_heads(own, features_TD, safety, replace(settings, num_heads=0)), own, features_TD)
        sides = judged | {"group": by_person(hidden, alone.predict(hidden, features_TD))}
        found[group] = {  # type: ignore[assignment]
            judge: {name: {p: v for p, v in values.items() if p in members} for name, values in one.items()}
            for judge, one in sides.items()
        }
    return found
