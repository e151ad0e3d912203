"""From consensus to pairs: N ranked completions make N-choose-2, the preferred one first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from heedful.feedback.consensus import Consensus, Support, latest
from heedful.records import Completion, Judgement, Preference, Prompt


def preferences(
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    judgements: Iterable[Judgement],
    settled: Sequence[Consensus],
    *,
    include_ties: bool = False,
) -> list[Preference]:
    """Pairs of unflagged completions, prompt by prompt.

    Level completions make no pair unless include_ties asks for them (probability 0.5, the smaller id first); equal texts never.
    """
    messages = {prompt.id: prompt.messages for prompt in prompts}
    texts = {completion.id: completion.text for completion in completions}
    made = latest(judgements)
    found = []
    for result in settled:
        sources = {judgement.source for judgement in made[result.prompt_id]}
        for a, b in combinations(sorted(result.ranks), 2):
            first, second = result.ranks[a], result.ranks[b]
            if texts[a] == texts[b] or (first == second and not include_ties):
                continue
            chosen, rejected = (a, b) if first <= second else (b, a)
            both = sum(a in judgement.ranks and b in judgement.ranks for judgement in made[result.prompt_id])
            found.append(
                Preference(
                    prompt_id=result.prompt_id,
                    prompt=messages[result.prompt_id],
                    chosen=texts[chosen],
                    rejected=texts[rejected],
                    chosen_id=chosen,
                    rejected_id=rejected,
                    probability=0.5 if first == second else probability(result.support[a, b], chosen == a),
                    margin=float(abs(first - second)),
                    judges=max(1, both),
                    source=sources.pop() if len(sources) == 1 else "mixed",
                )
            )
    return found


def probability(support: Support, chosen_is_first: bool) -> float:
    """(votes for chosen + ties / 2 + 1) / (votes + 2): the share of votes with one more on either side (Laplace).

    Not below 0.5: where the whole ranking overrules a pair's own votes, the pair is worth nothing, not less.
    """
    votes = support.over if chosen_is_first else support.under
    total = support.over + support.under + support.tie
    return max(0.5, (votes + 0.5 * support.tie + 1) / (total + 2))
