"""Parts computed side by side: the same sums whichever is done first, and nothing left running after a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch._dynamo
import torch._functorch.config
import torch._inductor.config
from small_models import CONFIGS, OTHERS, PROMPTS, RESPONSES, adapted, build
from torch import Tensor
from torch._dynamo.utils import clear_compilation_metrics, counters, get_compilation_metrics

from heedful.engine.lanes import LANE_TOKENS, LONE_TOKENS, MOST_LANES, Lanes, lanes_for
from heedful.models.policy import POLICY, REWARD, LanguageModel
from heedful.models.trunk.packed import pack

TWO = Lanes(2, LANE_TOKENS)


def test_gradients_are_added_in_one_order_whichever_part_is_done_first() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    # 1e8 + 1 - 1e8 is 0 or 1 in float32: the order of the sum shows
    slopes = [1e8, 1.0, -1e8, 3.0, 5e7, -7.0]
    seen: set[str] = set()

    def work(part: int, delays: list[float]) -> tuple[Tensor, int]:
        time.sleep(delays[part])
        seen.add(threading.current_thread().name)
        return (weight * slopes[part]).sum(), part

    sums = []
    for delays in ([0.0] * 6, [0.05, 0, 0.04, 0, 0.03, 0], [0, 0.05, 0, 0.04, 0, 0.03]):
        for lanes in (TWO, Lanes(1, LONE_TOKENS)):
            weight.grad = None
            found = lanes.each(range(6), lambda part: work(part, delays), costs=[5, 9, 7, 1, 8, 2], learning=[weight])  # noqa: B023
            assert found == list(range(6))
            assert weight.grad is not None
            sums.append(weight.grad.clone())
    assert all(torch.equal(total, sums[0]) for total in sums)
    assert {name.split("_")[0] for name in seen} == {"lane", "MainThread"}


def test_each_lane_has_its_share_of_the_cores_and_the_caller_keeps_his() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        found = TWO.each(range(4), lambda _: (torch.zeros(()), (time.sleep(0.05), torch.get_num_threads())[1]), costs=[1] * 4)
        assert found == [2] * 4
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_without_weights_to_learn_there_is_no_gradient() -> None:
    frozen = torch.nn.Parameter(torch.ones(2))
    assert TWO.each([1, 2], lambda _: (frozen.sum(), torch.is_grad_enabled()), costs=[1, 1]) == [False, False]
    assert frozen.grad is None


@pytest.mark.parametrize(
    ("family", "lanes"), [("llama", TWO), ("llama", Lanes(1, LONE_TOKENS)), ("mistral, sliding", Lanes(1, LONE_TOKENS))]
)
def test_a_policy_learns_after_another_adapter_was_read(family: str, lanes: Lanes, tmp_path: Path) -> None:
    """PEFT takes the gradient from all adapters but the one that reads."""
    model = adapted(adapted(build((CONFIGS | OTHERS)[family], tmp_path), targets=("q_proj",)), REWARD, targets=("q_proj",))
    packed = pack(PROMPTS, RESPONSES, device=torch.device("cpu"))
    weights = list(model.adapter_parameters(POLICY).values())
    for _ in range(2):
        with torch.no_grad(), model.using(REWARD):
            model.read(packed, adapter=REWARD)
        for weight in weights:
            weight.grad = None
        lanes.each([0, 1], lambda _: (model.read(packed, adapter=POLICY).sum(), None), costs=[1, 1], learning=weights)
        assert all(weight.grad is not None and float(weight.grad.abs().max()) > 0 for weight in weights)


def test_a_lane_compiles_with_the_callers_settings() -> None:
    settings = {
        "recompile_limit": torch._dynamo.config,
        "suppress_errors": torch._dynamo.config,
        "activation_memory_budget": torch._functorch.config,
        "compile_threads": torch._inductor.config,
    }
    told = {"recompile_limit": 37, "suppress_errors": True, "activation_memory_budget": 0.61, "compile_threads": 1}

    def seen(_: int) -> tuple[Tensor, dict[str, object]]:
        return torch.zeros(()), {name: getattr(config, name) for name, config in settings.items()}

    with ExitStack() as stack:
        for name, config in settings.items():
            stack.enter_context(config.patch({name: told[name]}))  # type: ignore[attr-defined]
        assert TWO.each([1, 2, 3], seen, costs=[1, 1, 1]) == [told] * 3


def test_the_first_part_compiles_for_all_lanes(tmp_path: Path) -> None:
    model = adapted(build(CONFIGS["llama"], tmp_path, compiled=True))
    plain = adapted(build(CONFIGS["llama"], tmp_path / "plain"))
    packed = [pack(PROMPTS[:cut], RESPONSES[:cut], device=torch.device("cpu")) for cut in (4, 2, 3, 4)]
    torch._dynamo.reset()
    counters["stats"].clear()
    clear_compilation_metrics()

    def learned(model: LanguageModel) -> list[Tensor]:
        weights = list(model.adapter_parameters(POLICY).values())
        lanes = replace(TWO, trunk=model.trunk(POLICY) if model.compiled else None)
        costs = [len(part.ids_N) for part in packed]
        lanes.each(packed, lambda part: (model.read(part, adapter=POLICY).square().sum(), None), costs=costs, learning=weights)
        return [weight.grad for weight in weights if weight.grad is not None]

    for found, expected in zip(learned(model), learned(plain), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)
    reasons = [one.recompile_reason or "" for one in get_compilation_metrics()]
    # Where two threads ask at once whether compiled code fits, torch may say no and, asked why, that it does fit.
    unexpected = sum("Unexpected recompilation" in reason for reason in reasons)
    # Two functions, each for the first layer, whose input needs no gradient, and for those above it.
    assert counters["stats"]["unique_graphs"] - unexpected == 4, reasons


def test_a_part_that_fails_ends_the_batch_and_leaves_nothing_running() -> None:
    begun: list[int] = []

    def work(part: int) -> tuple[Tensor, None]:
        begun.append(part)
        time.sleep(0.05)
        if part == 0:
            raise ValueError("part 0")
        return torch.zeros(()), None

    with pytest.raises(ValueError, match="part 0"):
        TWO.each(range(20), work, costs=range(20, 0, -1))
    count = len(begun)
    time.sleep(0.2)
    assert len(begun) == count < 10


def test_ctrl_c_ends_a_batch(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time, torch\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from heedful.engine.lanes import Lanes\n"
        "def work(part):\n"
        "    sys.stdout.write('begun\\n')\n"
        "    sys.stdout.flush()\n"
        "    time.sleep(0.5)\n"
        "    return torch.zeros(()), None\n"
        "Lanes(2, 1).each(range(60), work, costs=[1] * 60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ
    )
    assert process.stdout is not None
    assert "begun" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in error
    assert out.count("begun") < 6


def test_the_models_own_modules_are_one_lane(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(MOST_LANES + 4)
        known = adapted(build(CONFIGS["llama"], tmp_path / "a"))
        other = adapted(build(OTHERS["mistral, sliding"], tmp_path / "b"), targets=("q_proj",))
        assert lanes_for(known, POLICY) == Lanes(MOST_LANES, LANE_TOKENS)
        assert lanes_for(other, POLICY) == Lanes(1, LONE_TOKENS)
    finally:
        torch.set_num_threads(before)
