"""Log-probs, entropy and KL in tiles: against torch.distributions, plain autograd and lists."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional import logprobs as module
from heedful.functional.logprobs import TILE_ROWS, compare, token_scores

# Logits are float32: log-probs of size 10 carry 1e-6, and a sum over a vocabulary of 40 a few times that.
FLOAT32 = 2e-5
# Gradients sum 600 rows of such numbers.
FLOAT32_SUM = 2e-4

# Logits of size 30 are rounded to eight bits, and with them the probabilities: shares of the gradient's norm.
BFLOAT16 = 0.06
ROW_COUNTS = [0, 1, 63, 64, 65, 300]


def problem(rows: int, seed: int = 0, width: int = 8, vocabulary: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden_ND, ref_ND = (torch.randn(rows, width, generator=generator) for _ in range(2))
    head_VD = torch.randn(vocabulary, width, generator=generator)
    return hidden_ND, ref_ND, head_VD, torch.randint(0, vocabulary, (rows,), generator=generator)


def slow_scores(
    hidden: list[list[float]], head: list[list[float]], targets: list[int], temperature: float
) -> list[list[float]]:
    """(log-prob, entropy) of each row, with lists and math in float64."""
    found = []
    for row, target in zip(hidden, targets, strict=True):
        logits = [math.fsum(h * w for h, w in zip(row, weights, strict=True)) / temperature for weights in head]
        largest = max(logits)
        total = largest + math.log(math.fsum(math.exp(x - largest) for x in logits))
        entropy = -math.fsum(math.exp(x - total) * (x - total) for x in logits)
        found.append([logits[target] - total, entropy])
    return found


def slow_kl(policy: list[float], reference: list[float]) -> float:
    """Sum of p (log p - log q) over one row of log-probs, in float64."""
    return math.fsum(math.exp(p) * (p - q) for p, q in zip(policy, reference, strict=True))


def test_token_scores_by_hand() -> None:
    # The head makes logits 0 and log 3: probabilities 1/4 and 3/4; entropy (log 4) / 4 + 3/4 log(4/3) = 0.562335.
    # At temperature 1/2 the logits are 0 and log 9: probabilities 1/10 and 9/10; entropy 0.325083.
    hidden_ND, head_VD = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [math.log(3)]])
    found = token_scores(hidden_ND, head_VD, torch.tensor([0, 1]))
    assert found.logprobs_N.tolist() == pytest.approx([math.log(0.25), math.log(0.75)], abs=1e-6)
    assert found.entropy_N.tolist() == pytest.approx([0.562335, 0.562335], abs=1e-6)
    cold = token_scores(hidden_ND, head_VD, torch.tensor([0, 1]), temperature=0.5)
    assert cold.logprobs_N.tolist() == pytest.approx([math.log(0.1), math.log(0.9)], abs=1e-6)
    assert cold.entropy_N.tolist() == pytest.approx([0.325083, 0.325083], abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_token_scores_equal_a_loop_over_lists(temperature: float) -> None:
    hidden_ND, _, head_VD, targets_N = problem(7)
    found = token_scores(hidden_ND, head_VD, targets_N, temperature=temperature)
    slow = slow_scores(hidden_ND.tolist(), head_VD.tolist(), targets_N.tolist(), temperature)
    assert found.logprobs_N.tolist() == pytest.approx([row[0] for row in slow], abs=FLOAT32)
    assert found.entropy_N.tolist() == pytest.approx([row[1] for row in slow], abs=FLOAT32)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows", ROW_COUNTS)
def test_log_probs_alone_have_the_gradient_of_plain_autograd(rows: int, temperature: float) -> None:
    """The head stands still and the entropy does not learn, as in training: slopes are kept and nothing is computed again."""
    hidden_ND, _, head_VD, targets_N = problem(rows, seed=4)
    weight_N = torch.randn(rows, generator=torch.Generator().manual_seed(9))
    leaf, plain = hidden_ND.clone().requires_grad_(), hidden_ND.double().requires_grad_()
    found = token_scores(leaf, head_VD, targets_N, temperature=temperature)
    assert not found.entropy_N.requires_grad
    logprobs_NV = torch.log_softmax(plain @ head_VD.double().T / temperature, dim=-1)
    (weight_N * found.logprobs_N).sum().backward()
    (weight_N * logprobs_NV.gather(-1, targets_N[:, None])[:, 0]).sum().backward()
    assert leaf.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(leaf.grad.double(), plain.grad, atol=FLOAT32_SUM, rtol=1e-5)


@pytest.mark.parametrize("learn_entropy", [False, True])
def test_a_bfloat16_gradient_is_that_of_float32_but_for_rounding(learn_entropy: bool) -> None:
    """A sure token's gradient is the small difference of two large numbers: it is taken before it is rounded."""
    hidden_ND, _, head_VD, _ = problem(300, seed=2, width=32)
    low_ND, low_VD = (4 * hidden_ND).bfloat16(), head_VD.bfloat16()
    targets_N = (low_ND.float() @ low_VD.float().T).argmax(-1)
    gradients = []
    for hidden, head in ((low_ND, low_VD), (low_ND.float(), low_VD.float())):
        leaf = hidden.clone().requires_grad_()
        token_scores(leaf, head, targets_N, learn_entropy=learn_entropy).logprobs_N.sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad.float())
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < BFLOAT16


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows", ROW_COUNTS)
def test_tiles_equal_plain_autograd(rows: int, temperature: float) -> None:
    """Values and gradients by hidden and head, with weights that differ a row so that a row out of place shows."""
    hidden_ND, _, head_VD, targets_N = problem(rows)
    generator = torch.Generator().manual_seed(9)
    weight_2N = torch.randn(2, rows, generator=generator)
    leaves = hidden_ND.clone().requires_grad_(), head_VD.clone().requires_grad_()
    found = token_scores(*leaves, targets_N, temperature=temperature, learn_entropy=True)
    plain = hidden_ND.double().requires_grad_(), head_VD.double().requires_grad_()
    logits_NV = plain[0] @ plain[1].T / temperature
    distribution = torch.distributions.Categorical(logits=logits_NV, validate_args=False)  # its check refuses 0 rows
    expected = distribution.log_prob(targets_N), distribution.entropy()
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == (rows,)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, atol=FLOAT32, rtol=0)
    if rows == 0:
        return
    sum((w * part).sum() for w, part in zip(weight_2N, found, strict=True)).backward()  # type: ignore[union-attr]
    sum((w * part).sum() for w, part in zip(weight_2N, expected, strict=True)).backward()  # type: ignore[union-attr]
    for ours, theirs in zip(leaves, plain, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=FLOAT32_SUM, rtol=1e-5)


@pytest.mark.parametrize("rows", ROW_COUNTS)
def test_the_tile_size_changes_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TILE_ROWS == 64, "the row counts of this test stand around the edges of a tile"
    hidden_ND, ref_ND, head_VD, targets_N = problem(rows, seed=1)
    tiled = *token_scores(hidden_ND, head_VD, targets_N), *compare(hidden_ND, ref_ND, head_VD, targets_N)
    monkeypatch.setattr(module, "TILE_ROWS", 10_000)
    whole = *token_scores(hidden_ND, head_VD, targets_N), *compare(hidden_ND, ref_ND, head_VD, targets_N)
    for ours, theirs in zip(tiled, whole, strict=True):
        torch.testing.assert_close(ours, theirs, atol=FLOAT32, rtol=0)


def test_gradcheck_of_the_tile_in_the_precision_it_has() -> None:
    """token_scores computes in float32, so the step must be larger than gradcheck's for float64, and the slack too."""
    hidden_ND, _, head_VD, targets_N = problem(3, width=3, vocabulary=5)
    inputs = hidden_ND.double().requires_grad_(), head_VD.double().requires_grad_()

    def scores(hidden_ND: Tensor, head_VD: Tensor) -> tuple[Tensor, ...]:
        return tuple(token_scores(hidden_ND, head_VD, targets_N, learn_entropy=True))

    assert torch.autograd.gradcheck(scores, inputs, eps=1e-2, atol=5e-3, rtol=1e-2, nondet_tol=0.0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.2, 4), st.sampled_from([0.1, 1.0, 20.0]))
def test_temperature_divides_the_logits(seed: int, temperature: float, scale: float) -> None:
    hidden_ND, ref_ND, head_VD, targets_N = problem(5, seed)
    head_VD = head_VD * scale
    warm = token_scores(hidden_ND, head_VD, targets_N, temperature=temperature)
    divided = token_scores(hidden_ND.double() / temperature, head_VD.double(), targets_N)
    # Logits reach 20 * 30 / 0.2 = 3,000, where float32 keeps steps of 2e-4.
    for ours, theirs in zip(warm, divided, strict=True):
        torch.testing.assert_close(ours, theirs, atol=3e-3, rtol=1e-5)
    both = compare(hidden_ND, ref_ND, head_VD, targets_N, temperature=temperature)
    assert torch.equal(both.logprobs_N, warm.logprobs_N.detach()), "sampling and training see different temperatures"


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.2, 4), st.sampled_from([1e-3, 1.0, 10.0]))
def test_kl_is_exact_and_not_negative(seed: int, temperature: float, distance: float) -> None:
    hidden_ND, other_ND, head_VD, targets_N = problem(6, seed)
    ref_ND = hidden_ND + distance * other_ND
    found = compare(hidden_ND, ref_ND, head_VD, targets_N, temperature=temperature)
    policy, reference = (
        torch.distributions.Categorical(logits=h.double() @ head_VD.double().T / temperature) for h in (hidden_ND, ref_ND)
    )
    expected = (
        policy.log_prob(targets_N),
        reference.log_prob(targets_N),
        policy.entropy(),
        torch.tensor(
            [slow_kl(*rows) for rows in zip(policy.logits.tolist(), reference.logits.tolist(), strict=True)],
            dtype=torch.float64,
        ),
    )
    for ours, theirs in zip(found, expected, strict=True):
        # Logits reach 10 * 30 / 0.2 = 1,500, where float32 keeps steps of 1e-4.
        torch.testing.assert_close(ours.double(), theirs, atol=1e-3 if distance > 1 or temperature < 1 else FLOAT32, rtol=1e-5)
    assert (found.kl_policy_ref_N >= -FLOAT32).all()
    theirs_N = torch.distributions.kl_divergence(policy, reference)
    kept_N = torch.isfinite(theirs_N)  # it calls a KL infinite where a probability of the reference underflows in float64
    assert kept_N.all() or distance == 10.0
    torch.testing.assert_close(found.kl_policy_ref_N.double()[kept_N], theirs_N[kept_N], atol=1e-3, rtol=1e-5)


def test_kl_points_from_policy_to_reference() -> None:
    # Policy (1/4, 3/4), reference (1/2, 1/2): 1/4 log(1/2) + 3/4 log(3/2) = 0.130812; the other way it is 0.143841.
    head_VD = torch.tensor([[0.0], [math.log(3)]])
    found = compare(torch.tensor([[1.0]]), torch.tensor([[0.0]]), head_VD, torch.tensor([1]))
    assert found.kl_policy_ref_N.item() == pytest.approx(0.130812, abs=1e-6)
    assert found.logprobs_N.item() == pytest.approx(math.log(0.75), abs=1e-6)
    assert found.ref_logprobs_N.item() == pytest.approx(math.log(0.5), abs=1e-6)


def test_kl_of_equal_hidden_states_is_zero() -> None:
    hidden_ND, _, head_VD, targets_N = problem(300)
    found = compare(hidden_ND, hidden_ND.clone(), head_VD, targets_N)
    assert found.kl_policy_ref_N.tolist() == [0.0] * 300
    assert torch.equal(found.logprobs_N, found.ref_logprobs_N)


def test_no_rows_give_no_scores_in_float32() -> None:
    nothing_ND, head_VD = torch.zeros(0, 8).bfloat16(), torch.zeros(40, 8).bfloat16()
    targets_N = torch.zeros(0, dtype=torch.long)
    for part in (*token_scores(nothing_ND, head_VD, targets_N), *compare(nothing_ND, nothing_ND, head_VD, targets_N)):
        assert part.shape == (0,)
        assert part.dtype == torch.float32


def test_comparison_is_detached() -> None:
    hidden_ND, ref_ND, head_VD, targets_N = problem(3)
    found = compare(hidden_ND.requires_grad_(), ref_ND, head_VD.requires_grad_(), targets_N)
    assert not any(part.requires_grad for part in found)


def test_bfloat16_weights_give_float32_scores() -> None:
    hidden_ND, _, head_VD, targets_N = problem(5)
    low_ND, low_VD = hidden_ND.bfloat16(), head_VD.bfloat16()
    found = token_scores(low_ND.requires_grad_(), low_VD, targets_N)
    assert {part.dtype for part in found} == {torch.float32}
    exact = token_scores(low_ND.detach().float(), low_VD.float(), targets_N)
    # The product is rounded to bfloat16 (3 digits) before the softmax: logits of size 8 carry 0.03.
    torch.testing.assert_close(found.logprobs_N, exact.logprobs_N, atol=0.1, rtol=0)


def test_row_counts_that_differ_are_named() -> None:
    hidden_ND, ref_ND, head_VD, targets_N = problem(4)
    with pytest.raises(ShapeError, match="hidden has 4 rows, targets 3"):
        token_scores(hidden_ND, head_VD, targets_N[:3])
    with pytest.raises(ShapeError, match="4, 2, 4"):
        compare(hidden_ND, ref_ND[:2], head_VD, targets_N)
