"""From several labelers' rankings of a prompt's completions to one: exact weighted Kemeny with ties, flags by majority."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from heedful.errors import DataError
from heedful.records import Completion, Judgement, Prompt

MAX_ITEMS = 9  # the search visits 3^n subsets: 20,000 for nine items


@dataclass(frozen=True)
class Support:
    """Weight of the judgements that put a over b, b over a, and both level."""

    over: float = 0.0
    under: float = 0.0
    tie: float = 0.0


@dataclass(frozen=True)
class Consensus:
    """ranks: of the completions that were not flagged, 1 best, equal = tie.

    cost: weighted disagreement (0 same order, 0.5 tie against order, 1 opposite) summed over judgements and pairs.
    margin: how much more the next best weak order would cost; 0 means that another one is as good. None for one item.
    support: for each pair of ids in sorted order.
    """

    prompt_id: str
    ranks: dict[str, int]
    flagged: tuple[str, ...]
    num_judges: int
    cost: float
    margin: float | None
    support: dict[tuple[str, str], Support]


def latest(judgements: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    """Judgements by prompt; of a labeler's several on one prompt the last one made counts. Independent of their order."""
    chosen: dict[tuple[str, str], Judgement] = {}
    for judgement in judgements:
        key = (judgement.prompt_id, judgement.labeler)
        other = chosen.get(key)
        if other is None or (judgement.created_at, judgement.id) > (other.created_at, other.id):
            chosen[key] = judgement
    found: dict[str, list[Judgement]] = defaultdict(list)
    for key in sorted(chosen):
        found[key[0]].append(chosen[key])
    return dict(found)


def check(prompts: Sequence[Prompt], completions: Sequence[Completion], judgements: Iterable[Judgement]) -> None:
    """Raises DataError when a judgement names a prompt or a completion that does not exist."""
    owners = {completion.id: completion.prompt_id for completion in completions}
    known = {prompt.id for prompt in prompts}
    for judgement in judgements:
        if judgement.prompt_id not in known:
            raise DataError(f"judgement {judgement.id!r} names prompt {judgement.prompt_id!r}, which is not among the prompts")
        for id_ in (*judgement.ranks, *judgement.flagged):
            if owners.get(id_) != judgement.prompt_id:
                raise DataError(
                    f"judgement {judgement.id!r} names completion {id_!r}, which is not a completion of prompt "
                    f"{judgement.prompt_id!r}; run 'heedful sample' again or drop the judgement"
                )


def consensus(judgements: Iterable[Judgement], weights: Mapping[str, float] | None = None) -> list[Consensus]:
    """One settled ranking a prompt, sorted by prompt id. weights: by labeler, 1 for those not named."""
    return [settle(prompt_id, found, weights or {}) for prompt_id, found in sorted(latest(judgements).items())]


def settle(prompt_id: str, judgements: Sequence[Judgement], weights: Mapping[str, float]) -> Consensus:
    """The consensus of one prompt's judgements, one a labeler."""
    weight = {judgement.id: weights.get(judgement.labeler, 1.0) for judgement in judgements}
    items = sorted({id_ for judgement in judgements for id_ in (*judgement.ranks, *judgement.flagged)})
    flagged = []
    for item in items:
        against = sum(weight[j.id] for j in judgements if item in j.flagged)
        total = sum(weight[j.id] for j in judgements if item in j.flagged or item in j.ranks)
        if against > total / 2:
            flagged.append(item)
    kept = [item for item in items if item not in flagged]
    if len(kept) > MAX_ITEMS:
        raise DataError(f"prompt {prompt_id!r} has {len(kept)} ranked completions; consensus is exact for up to {MAX_ITEMS}")
    support = {(a, b): _support(a, b, judgements, weight) for a, b in combinations(kept, 2)}
    ranks, cost, margin = kemeny(kept, support)
    return Consensus(prompt_id, ranks, tuple(flagged), len(judgements), cost, margin, support)


def _support(a: str, b: str, judgements: Sequence[Judgement], weight: Mapping[str, float]) -> Support:
    sums = {-1: 0.0, 0: 0.0, 1: 0.0}
    for judgement in judgements:
        if a in judgement.ranks and b in judgement.ranks:
            first, second = judgement.ranks[a], judgement.ranks[b]
            sums[(first > second) - (first < second)] += weight[judgement.id]
    return Support(over=sums[-1], under=sums[1], tie=sums[0])


def kemeny(items: Sequence[str], support: Mapping[tuple[str, str], Support]) -> tuple[dict[str, int], float, float | None]:
    """The weak order of least cost, its cost, and how much more the runner-up costs. Exact.

    Dynamic programming over subsets: the best arrangement of a subset is a first bucket of level items and the best
    arrangement of the rest. Among equals the order with fewer ranks wins, so that an undecided pair is a tie; then the one
    that puts the smaller id first. support holds pairs (a, b) with a before b in `items`.
    """
    n = len(items)
    before = [[0.0] * n for _ in range(n)]
    level = [[0.0] * n for _ in range(n)]
    for (i, a), (j, b) in combinations(list(enumerate(items)), 2):
        pair = support[a, b]
        before[i][j] = pair.under + 0.5 * pair.tie
        before[j][i] = pair.over + 0.5 * pair.tie
        level[i][j] = level[j][i] = 0.5 * (pair.over + pair.under)
    # For each subset the two best (cost, ranks used, buckets) arrangements, best first.
    best: list[list[tuple[float, int, tuple[int, ...]]]] = [[] for _ in range(1 << n)]
    best[0] = [(0.0, 0, ())]
    members = [[i for i in range(n) if subset >> i & 1] for subset in range(1 << n)]
    for subset in range(1, 1 << n):
        options = []
        bucket = subset
        while bucket:
            rest = subset ^ bucket
            cost = sum(level[i][j] for i, j in combinations(members[bucket], 2))
            cost += sum(before[i][j] for i in members[bucket] for j in members[rest])
            options += [(round(cost + c, 9), ranks + 1, (bucket, *order)) for c, ranks, order in best[rest]]
            bucket = (bucket - 1) & subset
        options.sort(key=lambda option: (option[0], option[1], [_reversed_bits(b, n) for b in option[2]]))
        best[subset] = options[:2]
    cost, _, buckets = best[-1][0]
    ranks = {items[i]: rank for rank, bucket in enumerate(buckets, start=1) for i in members[bucket]}
    margin = best[-1][1][0] - cost if len(best[-1]) > 1 else None
    return ranks, cost, margin


def _reversed_bits(bucket: int, n: int) -> int:
    """Smaller for buckets that hold earlier items."""
    return -sum(1 << (n - 1 - i) for i in range(n) if bucket >> i & 1)
