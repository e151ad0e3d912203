"""The benchmarks' pure parts: medians, ratios, the check for the same work, table, gate, operations. Nothing is timed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"heedful_bench_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


compare, flops, turn = load("compare"), load("flops"), load("turn")


def side(rate: float, memory: float = 1.0, **facts: Any) -> dict[str, Any]:
    same = {"num_tokens": [100], "token_digest": ["aa"], "loss": 0.7, "logprobs": [-60.0, -170.0]}
    return {"rate": rate, "peak_memory_gb": memory, **same, **facts}


def test_median_and_range() -> None:
    assert compare.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert compare.spread([4.0, 1.0])["median"] == 2.5


def test_a_ratio_is_taken_within_a_pair_of_turns() -> None:
    # The machine was three times slower in the second pair: the ratio of medians would be 2.5 / 1.25.
    ours, theirs = [side(6.0), side(2.0), side(2.5)], [side(2.0), side(0.5), side(1.25)]
    assert compare.ratios(ours, theirs) == [3.0, 4.0, 2.0]
    found = compare.summarise(ours, theirs, "pairs/s")
    assert found["ratio"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert found["heedful"]["rate"]["median"] == 2.5


def test_an_unpaired_turn_is_no_ratio() -> None:
    with pytest.raises(ValueError):
        compare.ratios([side(1.0), side(2.0)], [side(1.0)])


def test_memory_ratio() -> None:
    found = compare.summarise([side(1.0, 2.0)], [side(1.0, 8.0)], "pairs/s")
    assert found["memory_ratio"]["median"] == 0.25


def test_a_side_with_fewer_steps_did_other_work() -> None:
    short = side(1.0, num_tokens=[100], token_digest=["aa"])
    (told,) = compare.same_work("DPO", side(1.0, num_tokens=[100, 90], token_digest=["aa", "bb"]), short)
    assert "2 steps" in told
    assert "of 1" in told


def test_same_work_is_silent() -> None:
    assert compare.same_work("DPO", side(1.0), side(2.0, loss=0.705, logprobs=[-60.5, -172.0])) == []


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({"num_tokens": [101]}, ["100", "101"]),
        ({"token_digest": ["bb"]}, ["aa", "bb"]),
        ({"loss": 0.75}, ["0.7000", "0.7500", "loss at step 0"]),
        ({"loss": None}, ["only one side"]),
        ({"logprobs": [-60.0, -175.0]}, ["-170.0000", "-175.0000", "number 1"]),
        ({"logprobs": [-60.0]}, ["2 numbers", "1"]),
        ({"new_tokens": [5]}, ["5"]),
        ({"loss": float("nan")}, ["nan"]),
    ],
)
def test_other_work_is_told_with_both_numbers(theirs: dict[str, Any], told: list[str]) -> None:
    problems = compare.same_work("DPO", side(1.0), side(1.0, **theirs))
    assert len(problems) == 1
    for part in ["DPO", *told]:
        assert part in problems[0]


def figures(title: str = "DPO", **keys: float) -> dict[str, Any]:
    return {"title": title, "unit": "pairs/s"} | {name: {"median": value} for name, value in keys.items()}


def test_the_gate_names_what_fell() -> None:
    before = {"dpo": figures(ratio=8.0, share=0.5), "sft": figures("SFT", ratio=5.0)}
    now = {"dpo": figures(ratio=6.0, share=0.45), "sft": figures("SFT", ratio=5.5)}
    (told,) = compare.slower(now, before, 0.15)
    assert told == "DPO: 6 times the peer's throughput, 25% less than the 8 of results.json"


def test_the_gate_passes_over_what_it_cannot_compare() -> None:
    assert compare.slower({"dpo": figures(ratio=1.0)}, {}) == []
    assert compare.slower({"dpo": figures(share=0.1)}, {"dpo": figures(ratio=8.0)}) == []
    assert compare.slower({"dpo": figures(ratio=6.9)}, {"dpo": figures(ratio=8.0)}, 0.15) == []


def test_the_table_fits_80_columns() -> None:
    turns = ([side(12345.0, 3.0)], [side(1234.5, 9.0)])
    wide = compare.summarise(*turns, "completions/s") | {"title": "generation, 128 rows", "share": compare.spread([0.512])}
    alone = compare.summarise([side(2.0)], [], "pairs/s") | {"title": "forward and backward"}
    shown = compare.table({"a": wide, "b": alone})
    assert max(map(len, shown.splitlines())) <= 80
    assert "10.0 [10.0,10.0]" in shown
    assert "51%" in shown
    assert "0.33" in shown


SHAPE = flops.Shape(layers=1, hidden=2, attention=2, keys=1, inner=3, vocabulary=5, rank=0)


def test_forward_operations_by_hand() -> None:
    # q 2x2, k 2x1, v 2x1, o 2x2, gate and up 2x3, down 3x2: 30 entries.
    assert SHAPE.weights == 30
    # A prompt of 2 and answers of 1 and 2 tokens: 5 tokens, attending to 1 + 2, 3, 3 + 4.
    shared = [(2, [1, 2])]
    assert flops.attended(shared) == 13
    assert flops.forward(SHAPE, shared, adapter=True, head=True) == 2 * 30 * 5 + 4 * 2 * 13 + 2 * 10 * 3


def test_training_is_forward_and_twice_the_attention_and_the_gradient_of_inputs() -> None:
    shared = [(2, [1, 2])]
    once = flops.forward(SHAPE, shared, adapter=True, head=True)
    assert flops.training(SHAPE, shared, head=True) == once + 2 * 30 * 5 + 8 * 2 * 13 + 2 * 10 * 3


def test_a_shared_prompt_is_counted_once() -> None:
    together = flops.needed("dpo", SHAPE, [(100, [10, 10])])
    apart = flops.needed("dpo", SHAPE, [(100, [10]), (100, [10])])
    assert together < apart


def test_adapters_cost_two_forward_and_four_backward() -> None:
    with_rank = flops.Shape(**{**SHAPE.__dict__, "rank": 2})
    assert with_rank.adapter == 2 * (4 + 3 + 3 + 4 + 5 + 5 + 5)
    gap = flops.training(with_rank, [(2, [1])], head=True) - flops.training(SHAPE, [(2, [1])], head=True)
    assert gap == 6 * with_rank.adapter * 3


def test_kto_reads_the_mismatched_completions_behind_the_same_prompts() -> None:
    plain = flops.needed("kto", SHAPE, [(4, [2])])
    lent = flops.needed("kto", SHAPE, [(4, [2])], other=[(4, [3])])
    twice = 2 * (2 * 30 * 3 + 4 * 2 * (4 * 3 + 6) + 2 * 10 * 3)
    assert lent - plain == twice


def test_a_digest_knows_tokens_and_not_their_order_in_the_batch() -> None:
    assert turn.digest([[1, 2], [3]]) == turn.digest([[3], [1, 2]])
    assert turn.digest([[1, 2], [3]]) != turn.digest([[1], [2, 3]])


def test_mismatched_completions_come_from_the_same_batch() -> None:
    pairs = [{"prompt_ids": [i], "chosen_ids": [10 + i], "rejected_ids": [20 + i]} for i in range(4)]
    job = {"inputs": {"pairs": pairs}, "examples": [0, 1, 2, 3], "order": [2, 0, 3, 1], "batch": 2}
    rows = turn.marked_rows(job)
    assert [row["completion_ids"] for row in rows] == [[12], [10], [23], [21]]
    assert [row["KL_completion_ids"] for row in rows] == [[10], [12], [21], [23]]
    assert [row["label"] for row in rows] == [True, True, False, False]
