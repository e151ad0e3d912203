"""The penalty's own advantage: without it the policy gradient would miss the gradient of the state's KL."""

from __future__ import annotations

import torch

from heedful.functional.advantages import kl_advantages

EXACT = 1e-12  # float64, a handful of sums


def test_policy_gradient_with_it_is_the_gradient_of_the_whole_kl() -> None:
    """Over all tokens of a small vocabulary: sum p(a) grad log p(a) A(a) = -coef grad KL(p || q)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    ref = torch.log_softmax(torch.randn(6, generator=generator, dtype=torch.float64), -1)
    logprobs = torch.log_softmax(logits, -1)
    kl = (logprobs.exp() * (logprobs - ref)).sum()
    (wanted,) = torch.autograd.grad(kl, logits, retain_graph=True)
    mask = torch.ones(6, 1, dtype=torch.bool)
    advantages = kl_advantages(logprobs.detach()[:, None], ref[:, None], kl.detach().expand(6)[:, None], mask, kl_coef=0.3)[
        :, 0
    ]
    (found,) = torch.autograd.grad((logprobs.exp().detach() * logprobs * advantages).sum(), logits)
    torch.testing.assert_close(found, -0.3 * wanted, atol=EXACT, rtol=0)
    assert abs(float((logprobs.exp().detach() * advantages).sum())) < EXACT, "an advantage has mean 0 over the tokens"


def test_masked_places_and_k1_get_nothing() -> None:
    logprobs, ref = torch.tensor([[-1.0, float("inf")]]), torch.tensor([[-3.0, 0.0]])
    mask = torch.tensor([[True, False]])
    by_hand = kl_advantages(logprobs, ref, torch.tensor([[0.5, 0.0]]), mask, kl_coef=2.0)
    assert by_hand.tolist() == [[-3.0, 0.0]]  # -2 * ((-1 + 3) - 0.5)
    assert kl_advantages(logprobs, ref, logprobs - ref, mask, kl_coef=2.0)[0, 0] == 0
