"""heedful sample, chat, export: using a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heedful.cli.flow import JSON
from heedful.cli.reward import LABEL
from heedful.errors import ConfigError

if TYPE_CHECKING:
    from heedful.engine.conversation import Choose
    from heedful.environments.conversation import ToolConversation

MODEL = Annotated[str, typer.Option("--model", help="A folder, a hub id, or the alias smollm2-135m.")]


def register(app: typer.Typer) -> None:
    for command in (sample, chat, export):
        app.command()(command)


def policy_of(model: str) -> str:
    """A run directory stands for the policy that is in use in it: the newest, or the version that was promoted last."""
    from heedful.versions import policy_in_use

    return str(policy_in_use(Path(model)) or model)


def sample(
    prompts: Annotated[Path, typer.Option("--prompts", help="A file of prompts.")],
    output: Annotated[Path, typer.Option("--output", help="Where the completions go.")],
    model: MODEL = "smollm2-135m",
    num_completions: Annotated[int, typer.Option(min=1, help="Completions a prompt.")] = 4,
    temperature: Annotated[float, typer.Option(min=0, help="Divides the logits; 0 takes the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Nucleus that is kept.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest completion.")] = 64,
    batch_rows: Annotated[int, typer.Option(min=1, help="Completions decoded side by side.")] = 32,
    beta: Annotated[float | None, typer.Option(min=0, help="Of ILQL heads: weight of their advantages.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: JSON = False,
) -> None:
    """Sample several completions of each prompt; an interrupted job goes on where it stopped.

    Example: `heedful sample --model smollm2-135m --prompts prompts.jsonl --num-completions 4 --output completions.jsonl`
    """
    from heedful.cli.terminal import Bars, emit
    from heedful.data.formats import read_prompts
    from heedful.engine.device import choose_device, choose_dtype
    from heedful.engine.generation import Decoding
    from heedful.engine.sampling import sample_completions
    from heedful.models.ilql import load_policy
    from heedful.models.policy import POLICY

    records = read_prompts(prompts)
    device = choose_device()
    loaded, reweight = load_policy(policy_of(model), dtype=choose_dtype("auto", device), device=device, beta=beta)
    with Bars() as bars:
        completions = sample_completions(
            loaded,
            records,
            output,
            Decoding(temperature, top_p, max_new_tokens),
            adapter=POLICY if POLICY in loaded.adapters else None,
            name=model,
            policy_version=model if beta is None else f"{model} beta={beta}",
            num_completions=num_completions,
            batch_rows=batch_rows,
            max_prompt_tokens=loaded.max_tokens,
            seed=seed,
            progress=bars.for_stage("sample"),
            reweight=reweight,
        )
    left_out = len(records) - len({completion.prompt_id for completion in completions})
    if left_out:
        print(f"{left_out} prompts do not fit into the model's context and were left out", file=sys.stderr)
    counts = {"completions": len(completions), "prompts": len(records) - left_out, "left_out": left_out, "output": str(output)}
    emit(counts, as_json, f"{len(completions)} completions in {output}")


def chat(
    model: Annotated[str, typer.Argument(help="A run directory, a folder, a hub id, or an alias.")],
    compare: Annotated[str | None, typer.Option(help="Answer with this model as well, side by side.")] = None,
    once: Annotated[str | None, typer.Option(help="Answer this message and leave.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 80,
    tools: Annotated[bool, typer.Option("--tools", help="It may call a calculator, and a search in --documents.")] = False,
    documents: Annotated[
        list[Path] | None, typer.Option("--documents", help="With --tools: text, markdown or JSONL to search. Repeatable.")
    ] = None,
    best_of: Annotated[int, typer.Option("--best-of", min=1, help="Answers drawn, of which the best is given.")] = 1,
    reward: Annotated[
        str | None, typer.Option("--reward-model", help="With --best-of: what is best. Any reward, FOLDER#PERSON among them.")
    ] = None,
    label: LABEL = "",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: JSON = False,
) -> None:
    """Talk to a model; `--compare` shows base and aligned side by side. An empty line or Ctrl-D leaves, /new starts anew.

    With --best-of it draws several answers and gives the one that a reward likes best, a person's for instance.

    Of a run with rounds or versions it says which one answers. Of a run directory, /up and /down give the last answer a thumb,
    and `/fix TEXT` says what it should have been. They are kept in RUN/feedback, from which `heedful update RUN` learns. With
    --tools they are refused.

    Example: `heedful chat heedful-demo --compare smollm2-135m --once "Knock, knock."`
    """
    from rich.columns import Columns
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    from heedful.cli.terminal import emit, printable
    from heedful.engine.conversation import Conversation
    from heedful.version_log import standing_of

    if (best_of > 1) != (reward is not None) or (reward is not None and (tools or documents)):
        raise ConfigError("--best-of N, 2 or more, and --reward-model SOURCE go together, without --tools")
    if label and reward is None:
        raise ConfigError(f"--label {label} is of a classifier that is the --reward-model; name that too, or leave --label out")
    talk = Conversation(
        policy_of(model),
        compare,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed,
        best_of=best_of,
        choose=_chooser(reward, label) if reward else None,
    )
    if standing := standing_of(Path(policy_of(model))):
        print(printable(f"{model}: {standing}"), file=sys.stderr)
    if tools or documents:
        from heedful.environments.worlds import with_tools

        _chat_with_tools(with_tools(talk, documents or (), seed=seed, asked=tools), once, as_json)
        return
    heard = None
    if (Path(model) / "heedful.toml").is_file() or policy_of(model) != model:
        from heedful.hearing import Hearing

        heard = Hearing(Path(model), talk, seed=seed)
    if as_json:
        if once is not None:
            emit({"message": once, "answers": talk.answer(once)}, True)
            return
        turns, conversation = [], 1
        for said in _said(as_json):
            if said == NEW:
                talk.reset()
                conversation += 1
            elif heard is not None and heard.is_opinion(said):
                print(heard.take(said), file=sys.stderr)
            else:
                turns.append({"conversation": conversation, "message": said, "answers": talk.answer(said)})
        emit({"turns": turns}, True)
        return
    console = Console()
    for said in _said(as_json) if once is None else [once]:
        if said == NEW:
            talk.reset()
            continue
        if heard is not None and heard.is_opinion(said):
            console.print(Text(heard.take(said)))
            continue
        answers = talk.answer(said)
        panels = [
            Panel(Text(text or "(nothing)"), title=Text(name), width=(console.width - 1) // len(answers))
            for name, text in answers.items()
        ]
        console.print(Columns(panels, padding=(0, 0), expand=False))


def _chooser(reward: str, label: str) -> Choose:
    from heedful.config import parse, with_reward
    from heedful.rewards.asking import Judge

    return Judge(with_reward(parse({}, "--reward-model"), reward, label, "auto")).best


def _chat_with_tools(talk: ToolConversation, once: str | None, as_json: bool) -> None:
    from heedful.cli.terminal import emit, printable
    from heedful.hearing import Hearing

    turns, conversation = [], 1
    for said in _said(as_json) if once is None else [once]:
        if said == NEW:
            talk.reset()
            conversation += 1
            continue
        if once is None and Hearing.is_opinion(said):
            print("Nothing was kept: thumbs and corrections are for answers without tools; leave out --tools.", file=sys.stderr)
            continue
        answers = talk.answer(said)
        if as_json:
            shown = {
                name: {"text": told.text, "calls": [call._asdict() for call in told.calls]} for name, told in answers.items()
            }
            turns.append({"conversation": conversation, "message": said, "answers": shown})
            continue
        for name, told in answers.items():
            for call, observation in told.calls:
                print(printable(f"  {call}\n  -> {observation}"))
            print(printable(f"{name}: {told.text}"))
    if as_json:
        emit({"message": once, "answers": turns[0]["answers"]} if once is not None else {"turns": turns}, True)


NEW = "/new"


def _said(as_json: bool) -> Iterator[str]:
    """What the user says, line by line, up to an empty line, the end of input or Ctrl-C."""
    while True:
        try:
            if as_json:
                # typer's own prompt writes its last character to stdout, which belongs to the JSON.
                print("you: ", end="", file=sys.stderr, flush=True)
                said = input()
            else:
                said = typer.prompt("you", default="", show_default=False)
        except (typer.Abort, EOFError, KeyboardInterrupt):
            return
        if not said.strip():
            return
        yield NEW if said.strip() == NEW else said


def export(
    run: Annotated[str, typer.Argument(help="A run directory or an adapter folder.", metavar="RUN")],
    output: Annotated[Path, typer.Argument(help="The folder to write.", metavar="OUT")],
) -> None:
    """Merge the aligned policy into a plain Hugging Face folder. It replaces an earlier export, never other files.

    Example: `heedful export heedful-demo aligned-model`
    """
    from heedful.engine.device import choose_device
    from heedful.models.policy import export_merged
    from heedful.report.card import export_card
    from heedful.store import CARD, named_folder

    policy = policy_of(run)
    with named_folder(output) as folder:
        export_merged(policy, folder, choose_device())
        (folder / CARD).write_text(export_card(Path(policy)), encoding="utf-8")
    print(f"wrote {output}; load it with transformers.{_loader(output)}.from_pretrained({str(output)!r})")


def _loader(folder: Path) -> str:
    import json

    encodes = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("is_encoder_decoder", False)
    return "AutoModelForSeq2SeqLM" if encodes else "AutoModelForCausalLM"
