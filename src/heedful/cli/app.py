"""The command line. Each group of commands has a file of its own; none holds logic, and none imports torch to show help."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from heedful.cli import consensus, flow, serve, status, talk, update
from heedful.cli.later import add_group
from heedful.errors import HeedfulError

app = typer.Typer(
    name="heedful",
    help="Align an instruct language model with people's values by learning from their feedback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from heedful import __version__

        typer.echo(f"heedful {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Align an instruct language model with people's values by learning from their feedback."""


flow.register(app)
talk.register(app)
serve.register(app)
status.register(app)
update.register(app)
consensus.register(app)
add_group(app, "label", "Judgements: who ranks the completions.")
add_group(app, "reward", "Rewards: train models of them, ask them, measure them.")
add_group(app, "align", "Optimise the policy.")
add_group(app, "evaluate", "Measure models and their completions.", "contests")
add_group(
    app,
    "constitution",
    "Principles by which a model criticises, revises and compares answers.",
    *("red_team", "revise", "prefer", "gate", "both_stages"),
)
add_group(app, "data", "Public data formats.")
add_group(app, "scale", "What more workers and larger models would cost.")
add_group(app, "tictactoe", "The same learning core on a game small enough to check every line of play.")
add_group(app, "environment", "Worlds that answer a policy while it acts: tools, retrieval, a game.")
add_group(app, "persons", "Personal rewards: each person's wishes from few labels.")


INTERRUPTED = 130
# How long a thread asks whether there is work before it sleeps, in rounds: some microseconds, about what lies between two
# operations. Waking costs a decoding step a third of its time; asking for longer takes the core from whoever else works here.
SPIN = "5000"


def main() -> None:
    """Entry point: exit 0 done, 1 failed with one paragraph, 2 wrong usage, 130 interrupted."""
    debug = "--debug" in sys.argv
    # Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
    if not debug:
        _quiet()
    try:
        code = app(standalone_mode=False)
    except HeedfulError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except Exception as error:
        # Wrong usage is the parser's own family: it knows how to show itself and which code to leave with.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code by itself
        print("interrupted; run the same command again to go on where it stopped", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _quiet() -> None:
    """Keeps other libraries' notices off the terminal; what a user must know is said by heedful itself."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    for module in ("transformers", "peft", "torch", "sklearn", "huggingface_hub"):
        warnings.filterwarnings("ignore", module=module)
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
