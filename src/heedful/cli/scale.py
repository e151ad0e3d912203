"""heedful scale simulate, sizes: what more workers, and larger models, would cost."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.flow import JSON

app = typer.Typer()


@app.command()
def simulate(
    costs: Annotated[
        Path | None, typer.Option("--costs", help="Measured by benchmarks/scale.py; by default those of the 135M model.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Most workers; 1, 2, 4, ... up to this are shown.")] = 1024,
    network: Annotated[str, typer.Option("--network", help="loopback, 1gbit, 10gbit, 100gbit or nvlink.")] = "10gbit",
    episodes: Annotated[int, typer.Option(min=2, help="Rollouts a step; with --grows those of each worker.")] = 32,
    grows: Annotated[bool, typer.Option("--grows", help="The batch grows with the workers.")] = False,
    mean_response: Annotated[
        float, typer.Option(min=0, help="Tokens of answers that end by themselves; 0: all as long as they may be.")
    ] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 40,
    speed: Annotated[float, typer.Option(min=1, help="Workers compute so many times as fast as measured, as GPUs do.")] = 1.0,
    as_json: JSON = False,
) -> None:
    """Show where a step of PPO spends its time with 1 to 1,024 workers, and from how many on the controller is the limit.

    Example: `heedful scale simulate --grows --speed 300 --network 100gbit`
    """
    from heedful.cli.terminal import emit, table
    from heedful.scale.simulation import PHASES, Job, controller_limit, faster, network_named, read_costs, sweep

    measured = faster(read_costs(costs)[0], speed)
    job = Job(episodes=episodes, mean_response=mean_response, max_new_tokens=max_new_tokens)
    steps = sweep(measured, job, network_named(network), workers, grows=grows)
    limit = controller_limit(steps)
    if as_json:
        shown = [step.as_dict() for step in steps]
        emit({"costs": measured.model, "network": network, "controller_limit": limit, "steps": shown}, True)
        return
    rows = [
        (
            f"{step.workers}",
            f"{step.total:.3g}",
            f"{steps[0].total * (step.workers if grows else 1) / step.total:.1f}",
            *(f"{step.seconds[name] / step.total:.0%}" for name in PHASES),
        )
        for step in steps
    ]
    short = {"gradient": "grad.", "all-reduce": "reduce", "exchange": "exch.", "controller": "contr."}
    head = ("workers", "step s", "gain", *(short.get(name, name) for name in PHASES))
    times = "" if speed == 1 else f" computed {speed:g} times as fast"
    table(f"A step of PPO with {measured.model}{times}, {network}", head, rows)
    print()
    if not grows:
        best = min(steps, key=lambda step: step.total)
        print(textwrap.fill(f"More than {best.workers} workers make a step no shorter: its longest answer takes as long.", 80))
    if limit is None:
        said = "The controller is not the limit at any of these."
    else:
        said = f"From {limit} workers on the larger half of a step is what each does for all: the controller is the limit."
    print(textwrap.fill(said, 80))


@app.command()
def sizes(
    model: Annotated[
        list[str] | None, typer.Option("--model", help="1B, 8B, 70B, an alias, a folder or a hub id. Repeatable.")
    ] = None,
    gpus: Annotated[list[int] | None, typer.Option("--gpus", min=1, help="How many; repeatable. By default 1, 8, 64.")] = None,
    device: Annotated[str, typer.Option("--device", help="h100, h200, a100 or l4.")] = "h100",
    episodes: Annotated[int, typer.Option(min=1, help="Rollouts a step, over all GPUs.")] = 512,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Of each prompt.")] = 256,
    response_tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 256,
    as_json: JSON = False,
) -> None:
    """Show memory and time of a PPO step of large models on GPUs, from counted bytes and operations; only config.json is read.

    Example: `heedful scale sizes --model 8B --gpus 8 --device h100`
    """
    from heedful.cli.terminal import emit, table
    from heedful.scale.sizes import StepSize, device_named, estimate, shape_named

    size, on = StepSize(episodes=episodes, prompt_tokens=prompt_tokens, response_tokens=response_tokens), device_named(device)
    shapes = {name: shape_named(name) for name in model or ("1B", "8B", "70B")}
    found = [estimate(name, shape, size, number, on) for name, shape in shapes.items() for number in gpus or (1, 8, 64)]
    if as_json:
        emit({"device": on.name, "rows": found}, True)
        return
    rows = []
    for row in found:
        shards = row["shards"]
        took = [f"{row['seconds'][name]:.1f}" for name in ("rollout", "measure", "gradient")] if row["seconds"] else ["-"] * 3
        rows.append(
            (
                str(row["model"]),
                str(row["devices"]),
                f"{row['whole_bytes'] / 1e9:.1f}",
                "yes" if shards == 1 else f"in {shards}: {row['shard_bytes'] / 1e9:.0f}" if shards else "no",
                *took,
                f"{row['step_s']:.1f}" if row["step_s"] else "-",
            )
        )
    head = ("model", "GPUs", "GB each", "fits", "rollout s", "measure s", "gradient s", "step s")
    table(f"A step of PPO on {on.name}", head, rows)
    said = (
        "GB each: with the whole base on each GPU. 'in 4: 63' needs the base in shards of at least 4 GPUs (scale.fsdp = true, "
        "over all workers), 63 GB a GPU; that was never run on GPUs, and its seconds are a lower bound. Assumed: 40% of the "
        "device's operations and 60% of its bandwidth are reached."
    )
    print()
    print(textwrap.fill(said, 80))
