"""Every function that takes tensors of one shape refuses each of them in another, above all in one that torch would stretch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from heedful.errors import ShapeError
from heedful.functional.advantages import (
    equal_groups,
    gae,
    group_advantages,
    kl_advantages,
    leave_one_out,
    sampled_kl,
    token_rewards,
)
from heedful.functional.logprobs import sequence_logprobs
from heedful.functional.losses.completion import completion_loss
from heedful.functional.losses.ilql import advantage_weighted, cql_loss, expectile_loss, next_values, td_loss
from heedful.functional.losses.kto import kto_loss, mismatched_kl
from heedful.functional.losses.pairwise import centring_loss, pairwise_loss
from heedful.functional.losses.ppo import entropy_bonus, kl_loss, policy_loss, value_loss
from heedful.functional.losses.preference import (
    hinge_loss,
    ipo_loss,
    log_ratio_margin,
    odds_ratio_loss,
    robust_loss,
    sigmoid_loss,
    simpo_loss,
)
from heedful.functional.losses.ties import tie_aware_loss
from heedful.functional.masking import masked_mean, require_same_shape, whiten


class Case(NamedTuple):
    """A function, the names of its tensors that must have one shape, and the rest of what it takes."""

    function: Callable[..., Any]
    names: str
    rest: dict[str, Any]


CASES = [
    Case(masked_mean, "values_BT mask_BT", {}),
    Case(whiten, "values_BT mask_BT", {}),
    Case(token_rewards, "kl_BT response_mask_BT", {"scores_B": torch.zeros(2), "kl_coef": 0.1}),
    Case(gae, "rewards_BT values_BT response_mask_BT", {"gamma": 1.0, "lam": 1.0}),
    Case(kl_advantages, "logprobs_BT ref_logprobs_BT kl_BT response_mask_BT", {"kl_coef": 0.1}),
    Case(sampled_kl, "logprobs_BT ref_logprobs_BT", {"kind": "k1"}),
    Case(leave_one_out, "rewards_B groups_B", {}),
    Case(group_advantages, "rewards_B groups_B", {"scale": True}),
    Case(equal_groups, "rewards_B groups_B", {}),
    Case(sequence_logprobs, "logprobs_BT response_mask_BT", {}),
    Case(completion_loss, "logprobs_BT response_mask_BT", {"num_tokens": 1}),
    Case(next_values, "values_BT response_mask_BT", {}),
    Case(td_loss, "q_BT rewards_BT next_values_BT response_mask_BT", {"gamma": 1.0, "num_tokens": 1}),
    Case(expectile_loss, "values_BT target_q_BT response_mask_BT", {"expectile": 0.5, "num_tokens": 1}),
    Case(cql_loss, "q_logprobs_BT response_mask_BT", {"num_tokens": 1}),
    Case(advantage_weighted, "logits_NA q_NA", {"values_N": torch.zeros(2), "beta": 1.0, "top_k": 0}),
    Case(mismatched_kl, "logprobs_M ref_logprobs_M", {}),
    Case(
        kto_loss,
        "log_ratio_B desirable_mask_B",
        {"kl": torch.zeros(()), "beta": 1.0, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    ),
    Case(pairwise_loss, "chosen_P rejected_P probability_P", {}),
    Case(pairwise_loss, "margin_P", {name: torch.zeros(2) for name in ("chosen_P", "rejected_P", "probability_P")}),
    Case(centring_loss, "chosen_P rejected_P", {}),
    Case(policy_loss, "logprobs_BT old_logprobs_BT advantages_BT response_mask_BT", {"clip": 0.2, "num_tokens": 1}),
    Case(value_loss, "values_BT old_values_BT returns_BT response_mask_BT", {"clip": 0.2, "num_tokens": 1}),
    Case(entropy_bonus, "entropy_BT response_mask_BT", {"num_tokens": 1}),
    Case(kl_loss, "logprobs_BT ref_logprobs_BT response_mask_BT weights_BT", {"num_tokens": 1}),
    Case(log_ratio_margin, "chosen_P rejected_P ref_chosen_P ref_rejected_P", {}),
    Case(sigmoid_loss, "margin_P probability_P", {"beta": 1.0}),
    Case(robust_loss, "margin_P probability_P", {"beta": 1.0, "label_smoothing": 0.1}),
    Case(ipo_loss, "margin_P probability_P", {"beta": 1.0}),
    Case(hinge_loss, "margin_P probability_P", {"beta": 1.0}),
    Case(simpo_loss, "chosen_mean_P rejected_mean_P probability_P", {"beta": 1.0, "gamma": 0.0}),
    Case(odds_ratio_loss, "chosen_mean_P rejected_mean_P probability_P", {}),
    Case(
        tie_aware_loss,
        "chosen_P rejected_P probability_P tied_P",
        {"log_parameter": torch.tensor(0.5), "model": "davidson"},
    ),
    Case(
        tie_aware_loss,
        "margin_P",
        {name: torch.zeros(2) for name in ("chosen_P", "rejected_P", "probability_P")}
        | {"tied_P": torch.zeros(2, dtype=torch.bool), "log_parameter": torch.tensor(0.5), "model": "davidson"},
    ),
]


def of_shape(name: str, shape: tuple[int, ...]) -> Tensor:
    if "mask" in name or name == "tied_P":
        return torch.ones(shape, dtype=torch.bool)
    return torch.zeros(shape, dtype=torch.long if name == "groups_B" else torch.float32)


@pytest.mark.parametrize(
    ("case", "odd"),
    [pytest.param(case, name, id=f"{case.function.__name__}-{name}") for case in CASES for name in case.names.split()],
)
def test_each_tensor_in_a_shape_of_its_own_is_refused(case: Case, odd: str) -> None:
    right, stretchable = ((2, 3), (1, 3)) if odd.endswith(("_BT", "_NA")) else ((2,), (1,))
    tensors = {name: of_shape(name, right) for name in case.names.split()}
    case.function(**tensors, **case.rest)
    tensors[odd] = of_shape(odd, stretchable)
    with pytest.raises(ShapeError) as raised:
        case.function(**tensors, **case.rest)
    assert f"{odd} {stretchable}" in str(raised.value)


def test_the_error_names_all_tensors() -> None:
    with pytest.raises(ShapeError, match=r"^shapes differ: a \(2,\), b \(2, 1\), c \(2,\)$"):
        require_same_shape(a=torch.zeros(2), b=torch.zeros(2, 1), c=torch.zeros(2))
