"""Across prompts: scores of items and one reliability a labeler from comparisons with ties, after Bradley and Terry.

For labeler l and the difference d = s_a - s_b of two items' scores

    P(a better) = sigmoid(alpha_l d - kappa_l),   P(b better) = sigmoid(-alpha_l d - kappa_l),   P(level) = the rest.

With alpha_l = 1 this is Rao and Kupper, "Ties in paired-comparison experiments", JASA 62 (1967), theta = exp(kappa), and with
kappa_l = 0 too Bradley and Terry, Biometrika 39 (1952). alpha_l is the labeler's discrimination, from which reliability
follows: 1 for a typical labeler, whose logits are the unit of scores, near 0 for one who clicks at random or inverts the scale.
kappa_l, typically tau, is the habit of calling things level, which is no fault. Priors: s_i ~ N(0, sd_s^2), so that items
without a comparison and items that always win have finite scores, log alpha_l ~ N(0, sd_a^2), log kappa_l ~ N(log tau, sd_k^2);
weakly, log sd_s ~ N(0, 1), log sd_a and log sd_k ~ N(log 0.5, 0.5^2).

Scores are integrated over, not set to their best values: to scores chosen to suit the three votes on an item, everyone who cast
them looks reliable. The posterior is taken as independent normals of each s_i, log alpha_l and log kappa_l; their means and
variances, tau and the three sds maximise the evidence lower bound (Jordan et al., "An introduction to variational methods for
graphical models", 1999): the expected log-likelihood less the divergence from the prior, plus the log priors of the sds.

Why this reliability: on a fifth of UKPConvArg1's 58,843 votes, forecast from the rest, the log loss is 0.826 nats a vote. It is
0.845 when kappa_l is alpha_l tau, 0.854 when all share one kappa, 0.861 when all share alpha too, and 0.852 when a labeler's
votes are typical ones mixed with chance (as in Crowd-BT, Chen et al., WSDM 2013).
"""

# I items, L labelers, C comparisons, P pairs of items, T logistic terms; D, K, N nodes: of a difference, of the rest, of both

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import optimize, special
from threadpoolctl import threadpool_limits

from heedful.errors import DataError
from heedful.feedback.consensus import latest
from heedful.records import Judgement

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

LOG_SD_PRIORS = ((0.0, 1.0), (np.log(0.5), 0.5), (np.log(0.5), 0.5))  # mean and deviation of log sd_s, sd_a and sd_k
THRESHOLD_BOUNDS, LOG_SD_BOUNDS = (1e-6, 20.0), (-5.0, 5.0)  # those of tau are reached without ties and with nothing else
MEAN_BOUNDS, LOG_VARIANCE_BOUNDS = (-100.0, 100.0), (-80.0, 10.0)  # of the logs, and of all; beyond them a search overflows
# Expectations are sums over N nodes: five of the difference by Gauss and Hermite, and for each five of (alpha, kappa), right
# for polynomials of the third degree. With 63 nodes scores of UKPConvArg1 move by a hundredth of their errors.
_X_D, _W_D = np.polynomial.hermite_e.hermegauss(5)
DISCRIMINATION_K, THRESHOLD_K = np.sqrt(3) * np.array([[0, 1, -1, 0, 0], [0, 0, 0, 1, -1]])
WEIGHT_K = np.array([2, 1, 1, 1, 1]) / 6
DIFFERENCE_N, WEIGHT_N = np.repeat(_X_D, 5), np.outer(_W_D / _W_D.sum(), WEIGHT_K).ravel()
# (2K, N): weighted sums over the nodes of the difference, of what stands there and of its product with the node.
SUMS_N = np.concatenate([np.tile(np.eye(5), 5) * weight_N for weight_N in (WEIGHT_N, WEIGHT_N * DIFFERENCE_N)])
BLOCK = 1_024  # terms at a time: they stay in the cache, and products of matrices on one core
MAX_STEPS = 5_000
# Largest slope left, in units of the bound for a step as long as a standard error: what counts as settled, and what is sought.
SETTLED, SOUGHT = 1e-2, 1e-4


@dataclass(frozen=True)
class Comparisons:
    """Votes on pairs: labeler_C compared item_a_C with item_b_C; outcome_C is 1 for a better, 0 for level, -1 for b better.

    Items are numbered from 0 to num_items - 1, labelers likewise; some may be without a comparison. Raises DataError for no
    comparison at all, for what is not a whole number (NaN among it) or out of range, and for an item compared with itself.
    """

    item_a_C: Ints
    item_b_C: Ints
    labeler_C: Ints
    outcome_C: Ints
    num_items: int
    num_labelers: int

    def __post_init__(self) -> None:
        item, labeler = (0, self.num_items - 1), (0, self.num_labelers - 1)
        ranges = {"item_a_C": item, "item_b_C": item, "labeler_C": labeler, "outcome_C": (-1, 1)}
        for name, (low, high) in ranges.items():
            object.__setattr__(self, name, _whole(name, getattr(self, name), low, high))
        sizes = [len(getattr(self, name)) for name in ranges]
        if len(set(sizes)) > 1:
            raise DataError(f"comparisons need arrays of equal length, found {sizes}")
        if not len(self.item_a_C):
            raise DataError("there is no comparison to fit; label prompts with two completions or more")
        if len(same := np.flatnonzero(self.item_a_C == self.item_b_C)):
            raise DataError(f"comparison {same[0]} is of item {self.item_a_C[same[0]]} with itself; drop it")

    @property
    def pairs(self) -> tuple[Ints, Ints, Ints, Ints]:
        """(low_P, high_P, pair_C, outcome_C): the pairs compared, the smaller number first, and each comparison seen so."""
        low_C, high_C = np.minimum(self.item_a_C, self.item_b_C), np.maximum(self.item_a_C, self.item_b_C)
        key_P, pair_C = np.unique(low_C * self.num_items + high_C, return_inverse=True)
        swapped_C = np.where(self.item_a_C < self.item_b_C, self.outcome_C, -self.outcome_C)
        return key_P // self.num_items, key_P % self.num_items, pair_C, swapped_C


def _whole(name: str, values: Any, low: int, high: int) -> Ints:
    found = np.asarray(values)
    if found.ndim != 1:
        raise DataError(f"{name} should be a one-dimensional array, found shape {found.shape}")
    if len(found) and not (found.dtype.kind in "iuf" and np.all(found == np.floor(found))):
        raise DataError(f"{name} should hold whole numbers, found {found.dtype} with a fraction, NaN or text; mend the input")
    if len(bad := np.flatnonzero((found < low) | (found > high))):
        raise DataError(f"{name}[{bad[0]}] is {found[bad[0]]}; it should lie between {low} and {high}")
    return found.astype(np.int64)


def compare(judgements: Iterable[Judgement]) -> tuple[Comparisons, list[tuple[str, str]], list[str]]:
    """Comparisons of judgements, with (prompt id, completion id) of each item and the name of each labeler, both sorted.

    Every pair of completions that a judgement ranks is one comparison, level where the ranks are equal; what it flags is in
    none. Of a labeler's several judgements of a prompt the last counts. Raises DataError when no pair comes out.
    """
    found = [judgement for rows in latest(judgements).values() for judgement in rows]
    items = sorted({(judgement.prompt_id, id_) for judgement in found for id_ in judgement.ranks})
    labelers = sorted({judgement.labeler for judgement in found})
    item_of, labeler_of = ({key: number for number, key in enumerate(keys)} for keys in (items, labelers))
    rows = [
        (item_of[j.prompt_id, a], item_of[j.prompt_id, b], labeler_of[j.labeler], int(np.sign(j.ranks[b] - j.ranks[a])))
        for j in found
        for a, b in combinations(sorted(j.ranks), 2)
    ]
    a_C, b_C, labeler_C, outcome_C = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return Comparisons(a_C, b_C, labeler_C, outcome_C, len(items), len(labelers)), items, labelers


def vote_probabilities(difference: Floats, discrimination: Floats | float, threshold: Floats | float) -> Floats:
    """P(a better), P(level), P(b better) along a new last axis, for score differences in logits; see the head of the file."""
    better = special.expit(discrimination * difference - threshold)
    worse = special.expit(-discrimination * difference - threshold)
    return np.stack([better, 1 - better - worse, worse], axis=-1)


@dataclass(frozen=True)
class BradleyTerry:
    """A fit. scores_I: posterior means in logits, variances_I their variances.

    discriminations_L, thresholds_L: posterior medians of alpha, kappa. threshold: tau. sds: sd_s, sd_a and sd_k of the priors.
    """

    scores_I: Floats
    variances_I: Floats
    discriminations_L: Floats
    thresholds_L: Floats
    threshold: float
    sds: tuple[float, float, float]

    def difference(self, a: Any, b: Any) -> tuple[Floats, Floats]:
        """Posterior mean and standard deviation of s_a - s_b, for arrays of different items: the gap and how sure it is."""
        return self.scores_I[a] - self.scores_I[b], np.sqrt(self.variances_I[a] + self.variances_I[b])

    def probability(self, a: Any, b: Any) -> Floats:
        """P(s_a > s_b) for arrays of different items: Phi(mean / standard deviation). That of a Preference, if >= 0.5."""
        mean, sd = self.difference(a, b)
        return np.asarray(special.ndtr(mean / sd), dtype=np.float64)

    def forecast(self, a: Any, b: Any) -> Floats:
        """P(a better), P(level), P(b better), (..., 3), of the vote of one more typical labeler."""
        mean, sd = self.difference(a, b)
        votes_N3 = vote_probabilities(mean[..., None] + sd[..., None] * DIFFERENCE_N, 1.0, self.threshold)
        return np.asarray(np.einsum("...nz,n->...z", votes_N3, WEIGHT_N), dtype=np.float64)

    @property
    def reliability_L(self) -> Floats:
        """Expected Kendall's tau-a, 0 to 1, of a labeler's votes with the true order of two random items; 0 is chance.

        The mean of P(right) - P(wrong) with threshold tau over |d| for d ~ N(0, 2 sd_s^2), at 200 of its quantiles.
        """
        difference = np.sqrt(2) * self.sds[0] * special.ndtri((np.arange(200) + 0.5) / 400 + 0.5)
        votes = vote_probabilities(difference, self.discriminations_L[:, None], self.threshold)
        return np.asarray((votes[..., 0] - votes[..., 2]).mean(axis=-1), dtype=np.float64)


class _Bound:
    """The negative evidence lower bound and its gradient at [mean, log variance of s, log alpha, log kappa/tau; tau; log sds].

    P(level) = sigmoid(kappa - alpha d) sigmoid(kappa + alpha d) (1 - exp(-2 kappa)), so a level vote has two logistic terms and
    a decided one a single term, each the log of sigmoid(side alpha d + edge kappa). Comparisons are sorted with the smaller
    item first, so that no sum depends on the order or direction of the input.
    """

    def __init__(self, votes: Comparisons) -> None:
        low_P, high_P, pair_C, outcome_C = votes.pairs
        rows, count_C = np.unique(np.stack([pair_C, votes.labeler_C, outcome_C], axis=1), axis=0, return_counts=True)
        level_C = rows[:, 2] == 0
        rows_T = np.concatenate([rows, rows[level_C]])
        self.num_items, self.num_labelers = votes.num_items, votes.num_labelers
        self.a_T, self.b_T, self.labeler_T = low_P[rows_T[:, 0]], high_P[rows_T[:, 0]], rows_T[:, 1]
        self.count_T = np.concatenate([count_C, count_C[level_C]]).astype(np.float64)
        self.edge_T = np.where(rows_T[:, 2] == 0, 1.0, -1.0)
        self.side_T = np.concatenate([np.where(level_C, 1.0, rows[:, 2]), np.full(level_C.sum(), -1.0)])
        self.num_level_L = np.bincount(rows[level_C, 1], weights=count_C[level_C], minlength=votes.num_labelers)

    def _terms(self, block: slice, gap_T: Floats, sd_T: Floats, alpha_KL: Floats, kappa_KL: Floats) -> Floats:
        """(7, T): expectations of a term and its slopes by gap, log alpha, log kappa, variance, deviations of the two logs."""
        gap_T, sd_T, labeler_T = gap_T[block], sd_T[block], self.labeler_T[block]
        alpha_KT, edge_KT = alpha_KL[:, labeler_T], kappa_KL[:, labeler_T] * self.edge_T[block]
        # the nodes need no side, as they lie evenly about 0
        logit_NT = ((gap_T + sd_T * _X_D[:, None])[:, None] * alpha_KT + edge_KT).reshape(len(WEIGHT_N), -1)
        small_NT = np.exp(-np.abs(logit_NT))
        term_NT = np.minimum(logit_NT, 0) - np.log(1 + small_NT)
        sums_T = SUMS_N @ (np.where(logit_NT > 0, small_NT, 1) / (1 + small_NT))
        slope_KT, tilt_KT = sums_T[: len(WEIGHT_K)], sums_T[len(WEIGHT_K) :]
        by_gap_KT, by_sd_KT, by_kappa_KT = slope_KT * alpha_KT, tilt_KT * alpha_KT, slope_KT * edge_KT
        by_alpha_KT = gap_T * by_gap_KT + sd_T * by_sd_KT
        sums = (x_KT.sum(axis=0) for x_KT in (by_gap_KT, by_alpha_KT, by_kappa_KT))
        by_variance_T = by_sd_KT.sum(axis=0) / (2 * sd_T)
        return np.stack([WEIGHT_N @ term_NT, *sums, by_variance_T, DISCRIMINATION_K @ by_alpha_KT, THRESHOLD_K @ by_kappa_KT])

    def __call__(self, x: Floats) -> tuple[float, Floats]:
        n, m = self.num_items, self.num_labelers
        *halves, (tau, *log_sds) = np.split(x, np.cumsum([n, n, m, m, m, m]))
        (mean_I, mean_L, level_L), (v_I, v_L, w_L) = halves[::2], map(np.exp, halves[1::2])
        alpha_KL = np.exp(mean_L + np.sqrt(v_L) * DISCRIMINATION_K[:, None])
        kappa_KL = tau * np.exp(level_L + np.sqrt(w_L) * THRESHOLD_K[:, None])
        gap_T = self.side_T * (mean_I[self.a_T] - mean_I[self.b_T])
        sd_T = np.sqrt(v_I[self.a_T] + v_I[self.b_T])
        blocks = [self._terms(slice(k, k + BLOCK), gap_T, sd_T, alpha_KL, kappa_KL) for k in range(0, len(gap_T), BLOCK)]
        value_T, by_gap_T, by_alpha_T, by_kappa_T, by_sd_T, by_v_T, by_w_T = np.concatenate(blocks, axis=1) * self.count_T
        count_KL = self.num_level_L * WEIGHT_K[:, None]
        value = value_T.sum() + (count_KL * np.log(-np.expm1(-2 * kappa_KL))).sum()
        back_KL = count_KL * 2 * kappa_KL * np.exp(-2 * kappa_KL) / -np.expm1(-2 * kappa_KL)

        def each_L(by_T: Floats) -> Floats:
            return np.bincount(self.labeler_T, by_T, m).astype(np.float64)

        by_kappa_L = each_L(by_kappa_T) + back_KL.sum(axis=0)
        slopes = [
            np.bincount(self.a_T, self.side_T * by_gap_T, n) - np.bincount(self.b_T, self.side_T * by_gap_T, n),
            v_I * (np.bincount(self.a_T, by_sd_T, n) + np.bincount(self.b_T, by_sd_T, n)),
            each_L(by_alpha_T),
            np.sqrt(v_L) / 2 * each_L(by_v_T),
            by_kappa_L,
            np.sqrt(w_L) / 2 * (each_L(by_w_T) + THRESHOLD_K @ back_KL),
            [by_kappa_L.sum() / tau],
        ]
        normals = zip((mean_I, mean_L, level_L), (v_I, v_L, w_L), log_sds, LOG_SD_PRIORS, strict=True)
        for k, (mean, v, log_sd, (center, deviation)) in enumerate(normals):
            precision = np.exp(-2 * log_sd)
            spread = (mean**2 + v) * precision
            value -= 0.5 * (spread - 1 - np.log(v) + 2 * log_sd).sum() + 0.5 * ((log_sd - center) / deviation) ** 2
            slopes[2 * k] -= mean * precision
            slopes[2 * k + 1] -= 0.5 * (v * precision - 1)
            slopes.append([spread.sum() - len(mean) - (log_sd - center) / deviation**2])
        return -float(value), -np.concatenate(slopes)


def fit(votes: Comparisons, *, sought: float = SOUGHT) -> BradleyTerry:
    """Scores of the items and discriminations of the labelers; the model and its source are at the head of the file.

    Bounded L-BFGS with the analytic gradient, always from the same start, in steps measured by the standard error that the
    number of votes lets expect, until no slope is above `sought`. Without ties tau goes to its lower bound, with nothing else
    to its upper one. The order of the votes and which of two items is called a change nothing, to the last bit; numbering
    changes no more than rounding. Raises DataError when no optimum is reached.
    """
    n, m = votes.num_items, votes.num_labelers
    votes_I = np.bincount(np.concatenate([votes.item_a_C, votes.item_b_C]), minlength=n)
    votes_L = np.bincount(votes.labeler_C, minlength=m)
    bound = _Bound(votes)
    # A vote is worth about a fifth of a unit of information on s and log alpha, and a level one a whole unit on log kappa.
    error_I, error_L, error_K = 1 / np.sqrt(1 + votes_I / 5), 1 / np.sqrt(4 + votes_L / 5), 1 / np.sqrt(4 + bound.num_level_L)
    errors = 1 / np.sqrt([1 + len(votes.labeler_C) / 5, 1 + 2 * n, 4 + 2 * m, 4 + 2 * m])
    scale = np.concatenate([error_I, np.ones(n), error_L, np.ones(m), error_K, np.ones(m), errors])
    normals = [part for error in (error_I, error_L, error_K) for part in (np.zeros(len(error)), 2 * np.log(error))]
    tau = 0.5 if bound.num_level_L.any() else THRESHOLD_BOUNDS[0]
    start = np.concatenate([*normals, [tau], [center for center, _ in LOG_SD_PRIORS]])
    free = [(-np.inf, np.inf)] * n + [LOG_VARIANCE_BOUNDS] * n + ([MEAN_BOUNDS] * m + [LOG_VARIANCE_BOUNDS] * m) * 2
    low, high = np.array([*free, THRESHOLD_BOUNDS, *[LOG_SD_BOUNDS] * 3]).T / scale

    def scaled(y: Floats) -> tuple[float, Floats]:
        value, slope = bound(y * scale)
        return value, slope * scale

    options = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "maxcor": 20, "ftol": 1e-12, "gtol": sought}
    limits = optimize.Bounds(low, high)
    with threadpool_limits(1, "blas"):  # several cores are slower at such short products, on a busy machine many times
        found = optimize.minimize(scaled, start / scale, jac=True, method="L-BFGS-B", bounds=limits, options=options)
    left = np.abs(np.clip(found.x - found.jac, low, high) - found.x).max()
    if not left < SETTLED:  # a search that stops at the limit of rounding is done, whatever it says
        raise DataError(f"the fit did not settle in {found.nit} steps ({found.message}, slope {left:.3g}); check the votes")
    mean_I, log_v_I, mean_L, _, level_L, _, (tau, *log_sds) = np.split(found.x * scale, np.cumsum([n, n, m, m, m, m]))
    sd_s, sd_a, sd_k = np.exp(log_sds).tolist()
    return BradleyTerry(mean_I, np.exp(log_v_I), np.exp(mean_L), tau * np.exp(level_L), float(tau), (sd_s, sd_a, sd_k))


def settle(model: BradleyTerry, votes: Comparisons, *, prior_votes: float = 0.5) -> tuple[Floats, Ints]:
    """What the votes on each pair come to: shares (P, 3) of a better, level, b better, and outcomes (P,) 1, 0, -1.

    Pairs are those of votes.pairs. A share is of the pair's own votes, weighted by the labelers' reliability, and the scores'
    forecast as prior_votes average votes; with half a vote it decides where votes are even and outvotes nobody. The outcome
    is the greatest share, level where it is not alone. For pairs that several people voted on: the scores alone say what the
    next labeler would choose, this says what these chose. Raises DataError for prior_votes below 0 or not finite.
    """
    if not (np.isfinite(prior_votes) and prior_votes >= 0):
        raise DataError(f"prior_votes is {prior_votes}; it should be a finite number, 0 or more")
    a_P, b_P, pair_C, outcome_C = votes.pairs
    weight_C = model.reliability_L[votes.labeler_C]
    order = np.lexsort((outcome_C, weight_C, pair_C))  # no sum depends on the order of the input
    pair_C, outcome_C, weight_C = pair_C[order], outcome_C[order], weight_C[order]
    counts_P3 = np.stack([np.bincount(pair_C, weight_C * (outcome_C == z), len(a_P)) for z in (1, 0, -1)], axis=1)
    counts_P3 += prior_votes * weight_C.mean() * model.forecast(a_P, b_P)
    shares_P3 = counts_P3 / counts_P3.sum(axis=1, keepdims=True)
    best_P3 = np.isclose(shares_P3, shares_P3.max(axis=1, keepdims=True), rtol=0, atol=1e-12)
    alone_P3 = best_P3 & (best_P3.sum(axis=1, keepdims=True) == 1)
    return shares_P3, alone_P3 @ np.array([1, 0, -1])
