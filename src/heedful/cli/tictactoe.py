"""heedful tictactoe: ppo, q, play."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from heedful.cli.flow import JSON

app = typer.Typer()

OUTPUT = Annotated[Path, typer.Option("--output", help="Folder for checkpoints, metrics and the agent.")]
SETTINGS = Annotated[list[str] | None, typer.Option("--set", help="Override a setting, as in max_steps=100. Repeatable.")]
SEED = Annotated[int, typer.Option(min=0, help="Every random choice derives from it.")]
PLAY = Annotated[bool, typer.Option("--play", help="Play against the agent afterwards.")]


@app.command()
def ppo(
    output: OUTPUT = Path("tictactoe"), seed: SEED = 0, overrides: SETTINGS = None, play: PLAY = False, as_json: JSON = False
) -> None:
    """Learn by PPO from games against itself, until no line of play loses; goes on from its last checkpoint.

    Example: `heedful tictactoe ppo --output tictactoe --play`
    """
    _train("ppo", output, seed, overrides, play, as_json)


@app.command()
def q(
    output: OUTPUT = Path("tictactoe"), seed: SEED = 0, overrides: SETTINGS = None, play: PLAY = False, as_json: JSON = False
) -> None:
    """Learn by offline Q-learning from games at random, until no line of play loses; goes on from its last checkpoint.

    Example: `heedful tictactoe q --output tictactoe --set expectile=0.9`
    """
    _train("q", output, seed, overrides, play, as_json)


@app.command("play")
def play_command(
    folder: Annotated[Path, typer.Argument(help="An agent, or the output folder of a training.")] = Path("tictactoe"),
    seat: Annotated[Literal["x", "o"] | None, typer.Option(help="Always sit here; else seats change each game.")] = None,
) -> None:
    """Play against an agent: digits 1-9 mark squares; q, Ctrl-D or Ctrl-C leaves.

    Example: `heedful tictactoe play tictactoe --seat x`
    """
    _play(folder, seat)


def _train(method: Any, output: Path, seed: int, overrides: list[str] | None, play: bool, as_json: bool) -> None:
    from heedful.cli.terminal import Bars, curve, emit, table
    from heedful.training.tictactoe.stage import learning_curve, train_agent

    with Bars() as bars:
        result = train_agent(method, output, tuple(overrides or ()), seed, bars.for_stage(method))
    if as_json:
        emit(result | {"agent": str(output / method / "agent")}, True)
        return
    curve("lines of play not lost", learning_curve(output, method, "unbeaten"))
    curve("best moves in all 4,520 positions", learning_curve(output, method, "perfect_moves"))
    against = {"every_line": "every line of play", "perfect": "perfect opponent", "random": "1,000 random games"}
    rows = [
        (f"{text}, as {seat.upper()}", *(str(result[seat][name][ending]) for ending in ("wins", "draws", "losses")))
        for name, text in against.items()
        for seat in ("x", "o")
    ]
    table("How its games end", ("", "won", "drawn", "lost"), rows)
    verdict = "it cannot be beaten" if result["unbeaten"] else "it can still be beaten: give it more --set max_steps=..."
    print(f"\n{result['steps']} steps, {result['seconds']:.0f} s; {verdict}")
    if play:
        _play(output / method / "agent", None)
    else:
        print(f"play against it   heedful tictactoe play {output / method / 'agent'}")


def _play(folder: Path, seat: str | None) -> None:
    from heedful.training.tictactoe.agent import load_agent
    from heedful.training.tictactoe.play import play_many
    from heedful.training.tictactoe.proof import SEATS

    play_many(load_agent(folder).best, input, print, seat=SEATS[seat] if seat else None)
