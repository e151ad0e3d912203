"""Labelers who click at random: their votes held against what the other labelers' scores forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from heedful.feedback.bradley_terry import (
    DIFFERENCE_N,
    SETTLED,
    WEIGHT_N,
    Comparisons,
    Floats,
    Ints,
    fit,
    vote_probabilities,
)

# C comparisons, L labelers, G grid of discriminations

MIN_VOTES = 30  # with fewer, a clicker and a hasty reader look alike
SUSPECT = 2 / 3  # accusing a reader counts for as much as missing two clickers
NUM_FOLDS = 5
LOG_GRID_G = np.linspace(np.log(0.05), np.log(4), 25)
NUM_ROUNDS = 200  # at most
STILL = 1e-9  # no probability moves by more in a round
FLOOR = 1e-4  # of a vote's probability, so that a single slip cannot speak for a whole labeler


@dataclass(frozen=True)
class Clicker:
    """How one labeler's votes look beside the others' scores. labeler: its number. num_votes: counted here.

    z: agreement in standard deviations from random clicks, of which it has mean 0 and variance 1; far below 0 is no clicker
    but one who turns the scale round. probability: that the labeler clicks at random, given what the whole crowd is like.
    """

    labeler: int
    num_votes: int
    z: float
    probability: float

    @property
    def suspect(self) -> bool:
        """Whether the odds that the labeler clicks at random are better than two to one."""
        return self.probability > SUSPECT


def random_clickers(votes: Comparisons, *, min_votes: int = MIN_VOTES) -> list[Clicker]:
    """All labelers with min_votes or more, by number; `suspect` holds for those who click at random.

    A test of "clicks at random" alone finds those who do not; what it fails to reject may have been a reader with few votes.
    So two explanations compete, as in Efron, "Microarrays, empirical Bayes and the two-groups model", Statistical Science 23
    (2008). A clicker calls pairs level at a rate of its own and tosses a coin otherwise. A reader votes as in bradley_terry.py
    with a discrimination alpha, and log alpha is normal over readers. The share of clickers, the mean and the deviation of
    readers are fitted by EM to the labelers at hand.

    Scores come from others: labelers are dealt into five folds by their number of votes, and a fold is held against a fit to
    the other four. The rate of level is the labeler's own under both explanations, as whether someone likes to call things
    level says little of reading. Numbering labelers anew can deal them out differently and so change figures a little.
    Votes count as independent; the pairs of one ranking are not, and random rankings of n items have a z that is about
    sqrt((2n + 5) / 9) wide, 1.2 for four. Without two labelers there is nothing to hold a vote against, and nobody is listed.
    Raises DataError as `fit` does.
    """
    counts_L = np.bincount(votes.labeler_C, minlength=votes.num_labelers)
    tested = np.flatnonzero(counts_L >= max(min_votes, 1))
    if np.count_nonzero(counts_L) < 2 or not len(tested):
        return []
    mean_C, sd_C, threshold_C = _others(votes, counts_L)
    random_L, reader_LG = _log_likelihoods(votes, mean_C, sd_C, threshold_C)
    probability = _two_groups(random_L[tested], reader_LG[tested])
    expected_C = _forecast(mean_C, sd_C, threshold_C, 1.0)
    lean_C = (expected_C[:, 0] - expected_C[:, 2]) * votes.outcome_C
    total_L = np.bincount(votes.labeler_C, lean_C, votes.num_labelers)
    variance_L = np.bincount(votes.labeler_C, lean_C**2, votes.num_labelers)
    z_L = total_L / np.sqrt(np.where(variance_L > 0, variance_L, 1))
    return [Clicker(int(k), int(counts_L[k]), float(z_L[k]), float(p)) for k, p in zip(tested, probability, strict=True)]


def _others(votes: Comparisons, counts_L: Ints) -> tuple[Floats, Floats, Floats]:
    """For each comparison the mean and deviation of s_a - s_b and the threshold, from labelers of other folds."""
    num_folds = min(NUM_FOLDS, int(np.count_nonzero(counts_L)))
    fold_L = np.empty(votes.num_labelers, dtype=np.int64)
    fold_L[np.argsort(-counts_L, kind="stable")] = np.arange(votes.num_labelers) % num_folds
    mean_C, sd_C, threshold_C = np.empty((3, len(votes.labeler_C)))
    for fold in range(num_folds):
        own_C = fold_L[votes.labeler_C] == fold
        columns = (votes.item_a_C, votes.item_b_C, votes.labeler_C, votes.outcome_C)
        a_C, b_C, labeler_C, outcome_C = (column[~own_C] for column in columns)
        model = fit(Comparisons(a_C, b_C, labeler_C, outcome_C, votes.num_items, votes.num_labelers), sought=SETTLED / 2)
        mean_C[own_C], sd_C[own_C] = model.difference(votes.item_a_C[own_C], votes.item_b_C[own_C])
        threshold_C[own_C] = model.threshold
    return mean_C, sd_C, threshold_C


def _forecast(mean_C: Floats, sd_C: Floats, threshold_C: Floats, discrimination: float) -> Floats:
    """P(a better), P(level), P(b better), (C, 3), of a vote with this discrimination."""
    # one node of the difference at a time, so that memory stays at a few numbers a vote
    nodes, place = np.unique(DIFFERENCE_N, return_inverse=True)
    weights = np.bincount(place, WEIGHT_N)
    shares = [
        w * vote_probabilities(mean_C + sd_C * x, discrimination, threshold_C) for x, w in zip(nodes, weights, strict=True)
    ]
    return np.asarray(sum(shares), dtype=np.float64)


def _log_likelihoods(votes: Comparisons, mean_C: Floats, sd_C: Floats, threshold_C: Floats) -> tuple[Floats, Floats]:
    """(L,) of each labeler's votes as random clicks and (L, G) as those of a reader with each discrimination of the grid.

    A reader's P(level) is multiplied by a factor in odds that brings its mean to about the labeler's own rate.
    """
    labeler_C, level_C, m = votes.labeler_C, votes.outcome_C == 0, votes.num_labelers
    counts_L = np.maximum(np.bincount(labeler_C, minlength=m), 1)
    rate_L = (np.bincount(labeler_C, level_C, m) + 1) / (counts_L + 3)
    random_C = np.where(level_C, rate_L[labeler_C], (1 - rate_L[labeler_C]) / 2)
    reader_LG = np.empty((m, len(LOG_GRID_G)))
    for g, log_alpha in enumerate(LOG_GRID_G):
        shares_C3 = np.maximum(_forecast(mean_C, sd_C, threshold_C, float(np.exp(log_alpha))), FLOOR)
        mean_L = np.clip(np.bincount(labeler_C, shares_C3[:, 1], m) / counts_L, FLOOR, 1 - FLOOR)
        shares_C3[:, 1] *= (rate_L * (1 - mean_L) / ((1 - rate_L) * mean_L))[labeler_C]
        shares_C3 /= shares_C3.sum(axis=1, keepdims=True)
        vote_C = shares_C3[np.arange(len(labeler_C)), 1 - votes.outcome_C]
        reader_LG[:, g] = np.bincount(labeler_C, np.log(np.maximum(vote_C, FLOOR)), m)
    return np.bincount(labeler_C, np.log(random_C), m).astype(np.float64), reader_LG


def _two_groups(random_L: Floats, reader_LG: Floats) -> Floats:
    """P(random clicks) of each labeler, by EM over the share of clickers and the normal of readers' log alpha.

    The priors are worth one labeler, of whom a tenth clicks at random, and two readers with log alpha 0 and deviation 0.5.
    """
    share, mean, variance = 0.1, 0.0, 0.25
    clicker_L = np.zeros(len(random_L))
    for _ in range(NUM_ROUNDS):
        log_weight_G = -((LOG_GRID_G - mean) ** 2) / (2 * variance)
        log_weight_G -= special.logsumexp(log_weight_G)
        log_clicker_L, log_reader_LG = np.log(share) + random_L, np.log(1 - share) + reader_LG + log_weight_G
        log_total_L = np.logaddexp(log_clicker_L, special.logsumexp(log_reader_LG, axis=1))
        before_L, clicker_L = clicker_L, np.exp(log_clicker_L - log_total_L)
        if np.abs(clicker_L - before_L).max() < STILL:
            break
        reader_G = np.exp(log_reader_LG - log_total_L[:, None]).sum(axis=0)
        share = (clicker_L.sum() + 0.1) / (len(clicker_L) + 1)
        mean = reader_G @ LOG_GRID_G / (reader_G.sum() + 2)
        variance = (reader_G @ (LOG_GRID_G - mean) ** 2 + 2 * 0.25) / (reader_G.sum() + 2)
    return np.asarray(clicker_L, dtype=np.float64)
