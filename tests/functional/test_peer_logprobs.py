"""Log-probs and entropy, values and gradients, against the lines of TRL's PPOTrainer, frozen.

TRL 1.12.0, the last with PPO (torch 2.13.0, float64). Lines 822, 823, 855 and 856 of trl/experimental/ppo/ppo_trainer.py were
executed with a leaf for the logits. An identity for a head makes hidden states logits.
"""

from __future__ import annotations

import pytest
import torch

from heedful.functional.logprobs import compare, token_scores

# token_scores and compare work in float32, on logits below 6; TRL adds 1e-7 to the temperature.
FLOAT32 = 2e-6

Rows = list[list[float]]

LOGITS = [[0.3, -0.2, 1.1, 0.0, -1.5], [2.0, 0.5, -0.5, 0.2, 0.1], [-1.0, 4.0, 0.7, 0.6, -0.3]]
# temperature, log-probs of tokens 2, 4 and 1, entropies, and gradients of the sums with weights 1, -1/2 and 2.
SCORED = [
    pytest.param(
        1.0,
        [-0.755654991, -2.382477056, -0.086694055],
        [1.353598025, 1.174803727, 0.386739265],
        [
            [-0.211051097, -0.128008967, 0.530297084, -0.156350503, -0.034886518],
            [0.308626174, 0.068863818, 0.025333585, 0.051015573, -0.45383915],
            [-0.012356828, 0.1660848, -0.067640616, -0.061203761, -0.024883595],
        ],
        [
            [0.042644327, 0.089869571, -0.280855527, 0.078496842, 0.069844787],
            [0.213670073, -0.055619472, -0.045794845, -0.05650859, -0.055747166],
            [0.058076528, -0.550257411, 0.202918768, 0.189728872, 0.099533243],
        ],
        id="temperature 1",
    ),
    pytest.param(
        0.7,
        [-0.534822846, -2.967464053, -0.019487095],
        [1.162412713, 0.818473447, 0.116447594],
        [
            [-0.266866959, -0.130642508, 0.591752696, -0.173847571, -0.020395658],
            [0.55452072, 0.065055928, 0.015590724, 0.042379975, -0.677547348],
            [-0.002214959, 0.055138418, -0.025123537, -0.021779039, -0.006020883],
        ],
        [
            [0.137507768, 0.160631851, -0.525178829, 0.164084027, 0.062955183],
            [0.313467636, -0.102629768, -0.046867795, -0.085019887, -0.078950186],
            [0.015606372, -0.271683708, 0.116003523, 0.103672183, 0.03640163],
        ],
        id="temperature 0.7",
    ),
]


@pytest.mark.parametrize(("temperature", "logprobs", "entropies", "by_logprob", "by_entropy"), SCORED)
def test_log_probs_and_entropy_equal_trl(
    temperature: float, logprobs: list[float], entropies: list[float], by_logprob: Rows, by_entropy: Rows
) -> None:
    """TRL takes the entropy without a gradient; its lines ran with one here. Gradients are by logits before the temperature."""
    hidden_ND = torch.tensor(LOGITS, requires_grad=True)
    weights_N, head_VD, targets_N = torch.tensor([1.0, -0.5, 2.0]), torch.eye(5), torch.tensor([2, 4, 1])
    for learn_entropy in (False, True):  # the gradient of the log-probs is found in another way each time
        found = token_scores(hidden_ND, head_VD, targets_N, temperature=temperature, learn_entropy=learn_entropy)
        assert found.logprobs_N.tolist() == pytest.approx(logprobs, abs=FLOAT32)
        assert found.entropy_N.tolist() == pytest.approx(entropies, abs=FLOAT32)
        assert found.entropy_N.requires_grad == learn_entropy
        parts = [(found.logprobs_N, by_logprob), (found.entropy_N, by_entropy)]
        for part, frozen in parts if learn_entropy else parts[:1]:
            (gradient,) = torch.autograd.grad((weights_N * part).sum(), hidden_ND, retain_graph=True)
            torch.testing.assert_close(gradient, torch.tensor(frozen), atol=FLOAT32, rtol=0)
    seen = compare(hidden_ND, hidden_ND, head_VD, targets_N, temperature=temperature)
    assert seen.logprobs_N.tolist() == pytest.approx(logprobs, abs=FLOAT32)
    assert seen.entropy_N.tolist() == pytest.approx(entropies, abs=FLOAT32)
