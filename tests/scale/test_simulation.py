"""The simulation of many workers and sizes of large models: added up by hand, and beside what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command import assert_one_paragraph, heedful
from hypothesis import given
from hypothesis import strategies as st

from heedful.errors import ConfigError
from heedful.scale.simulation import NETWORKS, Costs, Job, Network, controller_limit, faster, read_costs, simulate, sweep

FREE = Network(1e30, 0.0)
# A worker that only trains: every other cost is nothing, so that a step can be added up by hand.
TRAINS = Costs("none", 1, 0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 0, 1000)


def test_a_step_of_one_worker_adds_up_by_hand() -> None:
    """Four answers of 10 tokens to two prompts of 20; two passes of one minibatch."""
    costs = Costs("none", 1, 0.5, 0.01, 0.001, 0.002, 0.003, 0.1, 3.0, 7.0, 100.0, 1000, 20.0, 5)
    job = Job(episodes=4, samples_per_prompt=2, epochs=2, num_minibatches=1, prompt_tokens=(20, 20), max_new_tokens=10)
    step = simulate(costs, job, NETWORKS["1gbit"], 1)
    tokens = 2 * 20 + 4 * 10
    assert step.seconds["rollout"] == pytest.approx(10 * 0.5 + 40 * 0.01 + 40 * 0.001)
    assert step.seconds["measure"] == pytest.approx(tokens * (0.002 + 0.003))
    assert step.seconds["gradient"] == pytest.approx(2 * tokens * 0.1)
    assert step.seconds["controller"] == pytest.approx(2 * 3 + 4 * 7 + 20 / 5)
    assert step.seconds["wait"] == step.seconds["all-reduce"] == step.seconds["exchange"] == 0
    assert step.tokens == 40


def test_a_ring_sends_twice_the_numbers_and_each_message_waits() -> None:
    """Eight optimiser steps of four workers: 2 (n - 1) / n of 4,000 bytes, and 2 (n - 1) latencies, each."""
    step = simulate(TRAINS, Job(), Network(1000.0, 0.5), 4)
    assert step.seconds["all-reduce"] == pytest.approx(8 * (2 * 3 / 4 * 4000 / 1000 + 2 * 3 * 0.5))


@given(st.integers(1, 64), st.integers(1, 40), st.integers(0, 5))
def test_work_is_neither_lost_nor_made(workers: int, prompts: int, seed: int) -> None:
    """All workers' seconds of rollouts are those of one; of gradients not less, for a prompt may be read by several."""
    costs = replace(TRAINS, decode_row_s=1.0, prompt_token_s=1.0)
    job = Job(episodes=2 * prompts, mean_response=15.0, seed=seed)
    one, many = (simulate(costs, job, FREE, number) for number in (1, workers))
    assert many.seconds["rollout"] * workers == pytest.approx(one.seconds["rollout"])
    assert many.seconds["gradient"] * workers >= one.seconds["gradient"] * (1 - 1e-9)
    assert many.seconds["wait"] >= 0
    # Nobody can be done before the longest answer is, and no team beats its size.
    assert many.total * workers >= one.total * (1 - 1e-9)


def test_more_workers_than_prompts_only_wait() -> None:
    job = Job(episodes=8, samples_per_prompt=2)
    times = [simulate(replace(TRAINS, train_token_s=0, decode_row_s=1.0), job, FREE, n).total for n in (4, 8, 64)]
    assert times[0] == times[1] == times[2]


def test_the_controller_becomes_the_limit_where_its_share_says() -> None:
    """8 s that are shared beside 1 s that is not: equal at 8 workers, so more than half from 16 on."""
    job = Job(episodes=128, samples_per_prompt=1, epochs=1, num_minibatches=1, prompt_tokens=(1, 1), max_new_tokens=1)
    costs = replace(TRAINS, train_token_s=0.0, decode_row_s=8 / 128, controller_answer_s=1 / 128)
    steps = sweep(costs, job, FREE, 64, grows=False)
    assert [step.workers for step in steps] == [1, 2, 4, 8, 16, 32, 64]
    assert controller_limit(steps) == 16
    assert controller_limit(steps[:3]) is None
    grown = sweep(costs, job, FREE, 64, grows=True)
    assert grown[-1].seconds["rollout"] == pytest.approx(grown[0].seconds["rollout"])
    assert grown[-1].seconds["controller"] == pytest.approx(64 * grown[0].seconds["controller"])


def test_faster_workers_leave_the_controller_as_it_is() -> None:
    costs, _ = read_costs()
    slow, fast = (simulate(one, Job(), FREE, 4).seconds for one in (costs, faster(costs, 100)))
    assert fast["rollout"] == pytest.approx(slow["rollout"] / 100)
    assert fast["gradient"] == pytest.approx(slow["gradient"] / 100)
    assert fast["exchange"] == pytest.approx(slow["exchange"])
    own = costs.optimiser_s * 8
    assert fast["controller"] - own / 100 == pytest.approx(slow["controller"] - own)


def test_measured_costs_give_the_step_that_was_measured() -> None:
    """What comes with heedful: a step of one worker, put together from its costs, beside the clock's."""
    costs, measured = read_costs()
    step = simulate(costs, Job(measured["episodes"], checkpoint_every=10**9), NETWORKS["loopback"], 1)
    clock = measured["seconds"]
    # Decoding was timed apart, and prompts of another draw differ in length by a tenth.
    assert step.seconds["rollout"] == pytest.approx(clock["rollout"], rel=0.25)
    assert step.seconds["gradient"] == pytest.approx(clock["gradient"], rel=0.25)
    assert step.total == pytest.approx(clock["step"], rel=0.25)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"costs": {"model": "m"}}', '{"costs": 3}'])
def test_a_file_that_holds_no_costs_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "costs.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"costs\.json: .*benchmarks/scale\.py phases"):
        read_costs(file)
    costs, _ = read_costs()
    file.write_text(json.dumps({"costs": costs.__dict__ | {"decode_row_s": -1}}))
    with pytest.raises(ConfigError, match=r"costs\.decode_row_s"):
        read_costs(file)
    with pytest.raises(ConfigError, match=r"nowhere\.json: cannot be read"):
        read_costs(tmp_path / "nowhere.json")


def test_sizes_are_those_of_the_models_and_shards_add_up() -> None:
    from heedful.scale.sizes import DEVICES, SHAPES, StepSize, estimate, held, seconds

    millions = {name: round(shape.num_weights / 1e6) for name, shape in SHAPES.items()}
    assert millions == {"1B": 1236, "8B": 8030, "70B": 70554}  # as their makers print them
    size, h100 = StepSize(), DEVICES["h100"]
    whole, eighth = (held(SHAPES["70B"], size, 8, shards=n) for n in (1, 8))
    assert whole["base"] == 2 * SHAPES["70B"].num_weights
    kept = 2 * 2 * 128_256 * 8192  # embedding and head, two bytes a number
    assert whole["base"] / 8 + kept * 7 / 8 < eighth["base"] < whole["base"] / 8 + kept * 7 / 8 + 4e9  # two layers on top
    assert {name: whole[name] for name in whole if name != "base"} == {name: eighth[name] for name in eighth if name != "base"}
    rows = {(name, n): estimate(name, shape, size, n, h100) for name, shape in SHAPES.items() for n in (1, 8, 64)}
    assert [rows[name, 8]["shards"] for name in SHAPES] == [1, 1, 4]
    assert rows["70B", 1]["shards"] is None
    assert rows["70B", 1]["step_s"] is None
    # Gradients divide by the GPUs; decoding does not, once each reads the base for few rows.
    one, many = (seconds(SHAPES["8B"], size, n, h100) for n in (1, 64))
    assert one["gradient"] / many["gradient"] == pytest.approx(64)
    assert one["rollout"] / many["rollout"] < 16


def test_operations_are_counted_as_the_benchmarks_count_them() -> None:
    """2 N forward and 2 N + 4 A backward a token, from sums of matrices written out here."""
    from heedful.engine import memory
    from heedful.scale.sizes import StepSize, operations

    shape = memory.Shape(100, 8, 2, 8, 4, 16, True, 4, False, 0)
    size = StepSize(episodes=2, samples_per_prompt=2, prompt_tokens=3, response_tokens=5, epochs=1, rank=1)
    layer = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16
    adapter = 2 * ((8 + 8) + 2 * (8 + 4) + (8 + 8) + 3 * (8 + 16))
    tokens, responses, context = 3 + 2 * 5, 2 * 5, 4
    forward = tokens * (2 * (2 * layer + 4 * 8 * context) + 2 * adapter)
    head = responses * 2 * 100 * 8
    found = operations(shape, size)
    assert found["rollout"] == forward + head
    assert found["measure"] == 2 * forward - tokens * 2 * adapter + 2 * head
    assert found["gradient"] == forward + tokens * (2 * (2 * layer + 8 * 8 * context) + 4 * adapter) + 2 * head


def test_the_model_of_time_and_memory_is_near_what_was_measured() -> None:
    """The 135M model on one core: seconds of each phase from counted operations at the rate of its own products."""
    from heedful.engine import memory
    from heedful.scale.sizes import Device, StepSize, held, seconds

    costs, measured = read_costs()
    shape = memory.Shape(49_152, 576, 30, 576, 192, 1536, True, 2, False, 0)
    width = measured["width"]
    size = StepSize(measured["episodes"], 2, (16 + 96) // 2, 40, epochs=2, rank=16, adapted_layers=10, width=width)
    core = Device("a core", measured["flops_per_s"], measured["bytes_per_s"], 24e9, 1.0, 1.0)
    found, clock = seconds(shape, size, 1, core), measured["seconds"]
    # Shares of the core that were reached; what the tables assume of GPUs, 0.4, lies between.
    assert 0.2 < found["rollout"] / clock["rollout"] < 0.4
    assert 0.25 < found["gradient"] / clock["gradient"] < 0.6
    assert 0.4 < found["measure"] / (clock["measure"] + clock["reward"]) < 0.9
    # Memory: the same roles as the processor's prediction has, without what its allocator and compiler keep.
    work = size.work(1)
    predicted = memory.peak(shape, work, "ppo") - memory.PROCESS - memory.kernels(work)
    roles = held(shape, size, 1)
    assert 0.7 < (sum(roles.values()) - roles["context"]) / predicted < 1.05
    assert costs.learned_numbers == memory.adapter_weights(shape, work) + shape.hidden + 1


def test_the_commands_print_tables_of_80_columns_and_json() -> None:
    shown = heedful("scale", "simulate", "--workers", "64", "--episodes", "256")
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "controller" in shown.stdout
    sizes = heedful("scale", "sizes", "--json")
    assert sizes.returncode == 0, sizes.stderr
    assert [(row["model"], row["devices"]) for row in json.loads(sizes.stdout)["rows"]][:4] == [
        ("1B", 1),
        ("1B", 8),
        ("1B", 64),
        ("8B", 1),
    ]
    assert_one_paragraph(heedful("scale", "simulate", "--network", "pigeons"), "network 'pigeons' is not known", "10gbit")
