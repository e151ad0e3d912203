"""Drawing a token: the distribution it comes from, and the log-prob that is told of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from heedful.engine.generation import BLOCK, Decoding, draw

# float32 log-probs of size 10.
FLOAT32 = 1e-5
NUM_DRAWS = 20_000
# The seed is fixed, so this is no lottery: a right sampler fails one seed in a thousand, and this one is known.
CHI_SQUARE_P = 0.001

LOGITS_V = torch.tensor([2.0, -1.0, 0.5, 0.0, 1.5, -0.5, 1.0, -2.0])


def decoding(temperature: float, top_p: float = 1.0) -> Decoding:
    return Decoding(temperature, top_p, max_new_tokens=1)


def draws(logits_V: Tensor, how: Decoding, seed: int = 0, number: int = NUM_DRAWS) -> tuple[Tensor, Tensor]:
    return draw(logits_V.expand(number, -1), how, torch.rand(number, generator=torch.Generator().manual_seed(seed)))


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(x / temperature) for x in logits]
    return [power / math.fsum(powers) for power in powers]


def nucleus(probabilities: list[float], top_p: float) -> set[int]:
    """The smallest set of tokens that holds top_p of the mass, likeliest first."""
    kept: set[int] = set()
    mass = 0.0
    for token in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
        if mass >= top_p:
            break
        kept.add(token)
        mass += probabilities[token]
    return kept


def test_temperature_zero_takes_the_likeliest() -> None:
    logits_BV = torch.tensor([[0.0, 3.0, 1.0], [5.0, -1.0, 4.0]])
    for uniform in (0.0, 0.3, 0.999):
        token_B, logprob_B = draw(logits_BV, decoding(0), torch.full((2,), uniform))
        assert token_B.tolist() == [1, 0]
        expected = [math.log(softmax([0.0, 3.0, 1.0])[1]), math.log(softmax([5.0, -1.0, 4.0])[0])]
        assert logprob_B.tolist() == pytest.approx(expected, abs=FLOAT32)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_draws_follow_the_softmax(temperature: float) -> None:
    token_B, _ = draws(LOGITS_V, decoding(temperature))
    expected = [NUM_DRAWS * p for p in softmax(LOGITS_V.tolist(), temperature)]
    assert stats.chisquare(token_B.bincount(minlength=8).tolist(), expected).pvalue > CHI_SQUARE_P


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_draws_by_blocks_follow_the_softmax(top_p: float) -> None:
    """A vocabulary of several blocks whose masses differ a thousandfold, and a token that stands alone in its block."""
    generator = torch.Generator().manual_seed(2)
    logits_V = torch.randn(6 * BLOCK, generator=generator) * 2 - 20
    logits_V[: 2 * BLOCK] += 18
    logits_V[5 * BLOCK + 17] = 3.0
    token_B, _ = draws(logits_V, decoding(1.0, top_p))
    probabilities = softmax(logits_V.double().tolist())
    kept = nucleus(probabilities, top_p) if top_p < 1 else set(range(6 * BLOCK))
    mass = math.fsum(probabilities[token] for token in kept)
    common = [token for token in kept if NUM_DRAWS * probabilities[token] / mass >= 5]
    counts = token_B.bincount(minlength=6 * BLOCK)
    observed = [int(counts[token]) for token in common]
    expected = [NUM_DRAWS * probabilities[token] / mass for token in common]
    assert len(common) > 100
    assert set(token_B.tolist()) <= kept
    if len(common) < len(kept):
        observed, expected = [*observed, NUM_DRAWS - sum(observed)], [*expected, NUM_DRAWS - sum(expected)]
    assert stats.chisquare(observed, expected).pvalue > CHI_SQUARE_P


def test_chi_square_tells_the_temperatures_apart() -> None:
    """The test above can fail: draws at 0.7 and at 0.95 are not draws at 1."""
    expected = [NUM_DRAWS * p for p in softmax(LOGITS_V.tolist())]
    for temperature in (0.7, 0.95):
        token_B, _ = draws(LOGITS_V, decoding(temperature))
        assert stats.chisquare(token_B.bincount(minlength=8).tolist(), expected).pvalue < CHI_SQUARE_P


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("top_p", [0.3, 0.5, 0.8, 0.97])
def test_top_p_keeps_exactly_the_smallest_set(top_p: float, temperature: float) -> None:
    probabilities = softmax(LOGITS_V.tolist(), temperature)
    kept = nucleus(probabilities, top_p)
    token_B, _ = draws(LOGITS_V, decoding(temperature, top_p))
    counts = token_B.bincount(minlength=8).tolist()
    assert {token for token, count in enumerate(counts) if count} == kept
    mass = math.fsum(probabilities[token] for token in kept)
    tokens = sorted(kept)
    if len(tokens) > 1:
        expected = [NUM_DRAWS * probabilities[token] / mass for token in tokens]
        assert stats.chisquare([counts[token] for token in tokens], expected).pvalue > CHI_SQUARE_P


def test_top_p_always_keeps_the_likeliest() -> None:
    token_B, _ = draws(LOGITS_V, decoding(1.0, 1e-6), number=500)
    assert set(token_B.tolist()) == {0}


@pytest.mark.parametrize("top_p", [1.0, 0.999])
def test_a_token_without_probability_is_never_drawn(top_p: float) -> None:
    # At the first and the last place, where an inverted cumulative sum errs when it errs; -200 underflows to 0 as well.
    logits_V = torch.tensor([-math.inf, 0.0, -math.inf, 1.0, -200.0, 0.5, -math.inf])
    token_B, logprob_B = draws(logits_V, decoding(1.0, top_p))
    assert set(token_B.tolist()) == {1, 3, 5}
    assert torch.isfinite(logprob_B).all()


@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24, 1.0])
@pytest.mark.parametrize("size", [1001, 4 * BLOCK])  # the second is searched by blocks
def test_the_ends_of_the_uniform_draw_a_token_with_weight(uniform: float, top_p: float, size: int) -> None:
    """torch.rand gives 0 and 1 - 2^-24 once in 16 million draws: too rare to wait for.

    1 stands for a product with the total that rounds up to the total.
    """
    logits_BV = torch.full((1, size), -math.inf)
    logits_BV[0, 1:-1] = torch.linspace(0, -3, size - 2)
    token_B, logprob_B = draw(logits_BV, decoding(1.0, top_p), torch.tensor([uniform]))
    assert 1 <= token_B.item() <= size - 2
    assert torch.isfinite(logprob_B).all()
    if top_p == 1:
        assert token_B.item() == (1 if uniform == 0 else size - 2)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.floats(0.1, 3), st.sampled_from([1.0, 0.9, 0.4]))
def test_the_logprob_is_that_of_the_softmax_at_the_temperature(seed: int, temperature: float, top_p: float) -> None:
    """Before top-p cuts, too: the ratio of PPO divides by it."""
    logits_BV = torch.randn(6, 50, generator=torch.Generator().manual_seed(seed)) * 3
    token_B, logprob_B = draw(
        logits_BV, decoding(temperature, top_p), torch.rand(6, generator=torch.Generator().manual_seed(seed))
    )
    for row, token, logprob in zip(logits_BV.tolist(), token_B.tolist(), logprob_B.tolist(), strict=True):
        assert logprob == pytest.approx(math.log(softmax(row, temperature)[token]), abs=1e-4)


def test_a_seed_repeats_and_rows_are_independent() -> None:
    first, second = draws(LOGITS_V, decoding(1.0), seed=3), draws(LOGITS_V, decoding(1.0), seed=3)
    assert torch.equal(first[0], second[0])
    token_B, _ = draws(LOGITS_V, decoding(1.0), seed=4)
    assert not torch.equal(first[0], token_B)
    # Neighbouring rows share their logits but not their number: pairs follow the product of the softmaxes.
    probabilities = softmax(LOGITS_V.tolist())
    pairs = token_B.view(-1, 2)
    counts = (pairs[:, 0] * 8 + pairs[:, 1]).bincount(minlength=64).tolist()
    expected = [NUM_DRAWS / 2 * p * q for p in probabilities for q in probabilities]
    seldom = [i for i, value in enumerate(expected) if value < 5]  # chi-square wants five in each cell
    common = [i for i in range(64) if i not in seldom]
    observed = [counts[i] for i in common] + [sum(counts[i] for i in seldom)]
    wanted = [expected[i] for i in common] + [math.fsum(expected[i] for i in seldom)]
    assert stats.chisquare(observed, wanted).pvalue > CHI_SQUARE_P
