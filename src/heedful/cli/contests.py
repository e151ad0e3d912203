"""heedful evaluate winrate and summaries: whose answers are preferred, by a reward, an AI judge or people."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heedful.cli.evaluate import CLASSIFIER, COMPLETIONS, NEGATIVE, cell, of_the_classifier, one_prompt
from heedful.cli.flow import JSON, OVERRIDES

if TYPE_CHECKING:
    from heedful.evaluation.winrate import Duel
    from heedful.records import Completion, Prompt


def register(app: typer.Typer) -> None:
    for command in (winrate, summaries):
        app.command()(command)


REWARD = Annotated[str | None, typer.Option("--reward", help="A reward that judges: the larger one wins.")]
JUDGE = Annotated[
    str | None,
    typer.Option("--judge", help="A model that judges: a folder, a hub id, an alias, or https://.../v1 with --judge-model."),
]
JUDGE_MODEL = Annotated[str, typer.Option("--judge-model", help="Of a --judge behind an address: the model's name there.")]
TOKEN_ENV = Annotated[
    str, typer.Option("--token-env", help="Of a --judge behind an address: environment variable that holds its token.")
]
GATE = Annotated[
    Path | None, typer.Option("--gate", help="Pairs that people have judged, on which a --judge is measured first.")
]
GATE_PAIRS = Annotated[int, typer.Option("--gate-pairs", min=0, help="At most this many of them, drawn at random; 0: all.")]
CRITERION = Annotated[str, typer.Option("--criterion", help="Of a --judge: completes 'which of the two answers is more ...?'")]


def winrate(
    completions: COMPLETIONS,
    against: Annotated[Path, typer.Option("--against", help="The completions whose wins are counted.")],
    prompts: Annotated[Path | None, typer.Option("--prompts", help="What they answer, for a reward or judge to read.")] = None,
    reward: REWARD = None,
    judge: JUDGE = None,
    gate: GATE = None,
    judgements: Annotated[
        Path | None, typer.Option(help="In place of a reward: what people said in an A-or-B project.")
    ] = None,
    judge_model: JUDGE_MODEL = "",
    token_env: TOKEN_ENV = "",
    criterion: CRITERION = "",
    gate_pairs: GATE_PAIRS = 400,
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """How often the second model's answer wins: raw, and as if both were equally long.

    Example: `heedful evaluate winrate --prompts prompts.jsonl --completions base.jsonl --against aligned.jsonl --reward rm`
    """
    from heedful.cli.terminal import emit
    from heedful.data.formats import read_completions, read_prompts
    from heedful.errors import ConfigError
    from heedful.evaluation.winrate import by_people, paired, win_rate
    from heedful.records import Judgement, read_jsonl

    if sum(map(bool, (reward, judge, judgements))) != 1:
        raise ConfigError(
            "say who judges: --reward SOURCE, --judge MODEL with --gate PREFERENCES, or --judgements FILE by people"
        )
    if bool(prompts) == bool(judgements):
        raise ConfigError(
            "a reward or a judge reads --prompts with the answers; people have judged without, so leave one of the two out"
        )
    contest = _Contest(reward, judge, judge_model, token_env, gate, gate_pairs, criterion, overrides)
    first, second = read_completions(completions), read_completions(against)
    if judgements:
        duels = by_people(paired(first, second), read_jsonl(judgements, Judgement, unique="id"))
    elif prompts:
        (duels,) = contest.duels(read_prompts(prompts), {"first": first, "second": second}).values()
    empty = {name: sum(not one.text.strip() for one in side) for name, side in (("first", first), ("second", second))}
    found = win_rate(duels) | {"empty": empty} | contest.judged
    emit(found, as_json, _of_wins(found))
    if not as_json:
        one_prompt(found["num_prompts"])


class _Contest:
    """Who judges, as the options say. judged: {"judge": its figures} of an AI judge once it has passed its gate."""

    def __init__(
        self,
        reward: str | None,
        judge: str | None,
        model: str,
        token_env: str,
        gate: Path | None,
        gate_pairs: int,
        criterion: str,
        overrides: list[str] | None,
    ) -> None:
        from heedful.errors import ConfigError

        if judge and gate is None:
            raise ConfigError(
                "--judge needs --gate PREFERENCES, pairs that people have judged: many models name a place (A or B) and not an "
                "answer. The judge's accuracy there stands beside the win rate, and one that may be a coin is refused"
            )
        if not judge and (gate or model or token_env or criterion):
            raise ConfigError("--gate, --judge-model, --token-env and --criterion belong to --judge MODEL")
        self.reward, self.judge, self.model, self.token_env = reward, judge, model, token_env
        self.gate, self.gate_pairs, self.criterion, self.overrides = gate, gate_pairs, criterion, overrides
        self.judged: dict[str, Any] = {}

    def duels(self, prompts: Sequence[Prompt], sides: Mapping[str, Sequence[Completion]]) -> dict[tuple[str, str], list[Duel]]:
        from heedful.cli.talk import policy_of
        from heedful.config import parse, with_reward
        from heedful.evaluate_files import ai_judge, duels_by_judge, duels_by_reward

        if self.judge and self.gate:
            source = self.judge if "://" in self.judge else policy_of(self.judge)
            given: dict[str, Any] = {"model": self.model, "token_env": self.token_env, "criterion": self.criterion}
            judge, figures = ai_judge(source, self.gate, max_pairs=self.gate_pairs, **given)
            self.judged = {"judge": figures}
            return duels_by_judge(judge, prompts, sides)
        config = with_reward(parse({}, "--set", tuple(self.overrides or ())), self.reward, "", "auto")
        return duels_by_reward(config, prompts, sides)


LEAST_DECIDED = 6  # pairs: of fewer, even all won, a sign test does not tell a coin


def _of_wins(found: dict[str, Any]) -> str:
    from heedful.evaluation.gate import told
    from heedful.report.numbers import percent

    controlled = found["length_controlled"]
    equal = percent(controlled) if controlled else "cannot be told"
    lines = [
        f"The second one wins {percent(found['win_rate'])}: {found['wins']} wins, {found['ties']} ties, {found['losses']} "
        f"losses on {found['num_prompts']} prompts (sign test p = {found['p']:.3f}).",
        f"As if equally long: {equal}; its answers are {abs(found['words']):.1f} words "
        f"{'longer' if found['words'] > 0 else 'shorter'}.",
    ]
    decided, needed = found["wins"] + found["losses"], found["pairs_needed"]
    if needed is not None and found["p"] >= 0.05 and decided < max(needed, LEAST_DECIDED):
        needed = max(needed, LEAST_DECIDED)
        lines.append(f"It takes about {needed:,} decided pairs to tell such a rate from a coin's; there are {decided}.")
    for name, count in found["empty"].items():
        if count:
            lines.append(f"{count} of the {name} one's answers {'is' if count == 1 else 'are'} empty.")
    if "judge" in found:
        lines.append(told(found["judge"]))
    return "\n".join(textwrap.fill(line, 80) for line in lines)


def summaries(
    completions: Annotated[
        list[str], typer.Option("--completions", metavar="NAME=FILE", help="A side; the first is the base.")
    ],
    prompts: Annotated[Path, typer.Option("--prompts", help="Prompts with a human summary in their field 'reference'.")],
    reward: REWARD = None,
    judge: JUDGE = None,
    gate: GATE = None,
    judge_model: JUDGE_MODEL = "",
    token_env: TOKEN_ENV = "",
    criterion: CRITERION = "",
    gate_pairs: GATE_PAIRS = 400,
    classifier: CLASSIFIER = "profanity",
    negative_label: NEGATIVE = "",
    overrides: OVERRIDES = None,
    as_json: JSON = False,
) -> None:
    """ROUGE and toxicity of summaries, and with a reward or a judge the win rates among them and the human ones.

    Example: `heedful evaluate summaries --prompts dialogsum.jsonl --completions base=b.jsonl --completions aligned=a.jsonl`
    """
    from heedful.cli.terminal import emit, table
    from heedful.data.formats import read_completions, read_prompts
    from heedful.errors import ConfigError
    from heedful.evaluate_files import toxicity_classifier
    from heedful.evaluation.gate import told
    from heedful.evaluation.summaries import REFERENCE, as_completions, references_of, rouge_of
    from heedful.evaluation.toxicity import toxicity_of
    from heedful.evaluation.winrate import tournament

    if reward and judge:
        raise ConfigError("say who judges: --reward SOURCE, or --judge MODEL with --gate PREFERENCES")
    contest = _Contest(reward, judge, judge_model, token_env, gate, gate_pairs, criterion, overrides)
    known = read_prompts(prompts)
    references = references_of(known)
    sides = {name: read_completions(file) for name, file in _named(completions).items()}
    judged = toxicity_classifier(classifier, negative_label)
    found: dict[str, Any] = {"rouge": rouge_of(references, sides)}
    base, *others = sides
    found["toxicity"] = {base: toxicity_of(sides[base], classifier=judged.classify)}
    found["toxicity"] |= {name: toxicity_of(sides[base], sides[name], classifier=judged.classify) for name in others}
    found |= {"classifier": judged.name, "negative_label": judged.label, "classifier_accuracy": judged.accuracy}
    if reward or judge:
        # Of what has a human summary and was answered: prompts that were too long for a model are in no file of completions.
        answered = {completion.prompt_id for completion in sides[base]}
        everyone: dict[str, list[Completion]] = {
            name: [completion for completion in own if completion.prompt_id in references] for name, own in sides.items()
        }
        everyone[REFERENCE] = as_completions({id_: text for id_, text in references.items() if id_ in answered})
        found["win_rates"] = tournament(contest.duels(known, everyone))
        found |= contest.judged
    if as_json:
        emit(found, True)
        return
    rows = [
        (name, *(cell(own[kind]["mean"], 1, 100) for kind in own), cell(_last(found["toxicity"][name]["toxicity"]), 4))
        for name, own in found["rouge"].items()
    ]
    table("Summaries", ("", "ROUGE-1", "ROUGE-2", "ROUGE-L", "toxicity"), rows)
    print(textwrap.fill(of_the_classifier(judged.accuracy), 80))
    one_prompt(found["toxicity"][base]["num_prompts"])
    for row in found.get("win_rates", ()):
        print(f"{row['second']} against {row['first']}: {cell(row['win_rate'], 1, 100)}%, p {row['p_holm']:.3f}")
    if "judge" in found:
        print(textwrap.fill(told(found["judge"]), 80))


def _last(row: dict[str, Any]) -> dict[str, Any]:
    """Of one model, or of the second of two."""
    return dict(row.get("after", row["before"]))


def _named(given: list[str]) -> dict[str, Path]:
    from heedful.errors import ConfigError
    from heedful.evaluation.summaries import REFERENCE

    found: dict[str, Path] = {}
    for one in given:
        name, equals, file = one.partition("=")
        if not (equals and name and file) or name in found or name == REFERENCE:
            raise ConfigError(f"--completions {one}: expected NAME=FILE, each name once and none of them 'reference'")
        found[name] = Path(file)
    return found
