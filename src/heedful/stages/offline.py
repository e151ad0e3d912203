"""Alignment from files: what `heedful align sft`, `dpo` and `kto` do between the command line and the training loop.

Each reads its records, keeps some prompts for measuring, trains the adapter and leaves in OUTPUT: the configuration, metrics,
`<method>/policy` in PEFT's format and `<method>/result.json`. The same command goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from heedful.config import Config, FromFilesSection, says, to_toml
from heedful.data.formats import read_preferences, read_prompts
from heedful.engine.device import choose_device, choose_dtype, compile_where_told
from heedful.engine.responses import num_tokens
from heedful.engine.sampling import recorded_answer
from heedful.errors import ConfigError, DataError, RecordError
from heedful.evaluation.compare import accuracy
from heedful.models.policy import LanguageModel, load_base
from heedful.models.reward import Answer, answer_of
from heedful.progress import Progress, telling
from heedful.records import Completion, Message, Preference, Prompt, Vote, by_id, iter_lines, parse_line
from heedful.report.card import write_cards
from heedful.store import Run, read_json, write_json
from heedful.training import dpo, kto, sft
from heedful.training.adapter import save_policy
from heedful.training.loop import Outcome
from heedful.training.reference import reference_logprobs
from heedful.training.reward import beats, group_pairs, split_by_prompt

# stage, done, total, note
Result = dict[str, Any]

REFERENCE_FILE = "reference.jsonl"  # beside the stage's folder, which is emptied when settings change


def align_dpo(
    config: Config, output: Path, progress: Progress, *, preferences: Sequence[Path], completions: Sequence[Path] = ()
) -> Result:
    """`heedful align dpo`. completions: the answers' tokens, and which the limit cut off; all others are read as ended."""
    settings = config.dpo
    progress = telling(output, progress)

    def work() -> Result:
        pairs = [pair for file in preferences for pair in read_preferences(file)]
        model, written = _base(config), _written(completions)
        groups = group_pairs(_telling(pairs), lambda id_, messages, text: _answer(model, written, id_, messages, text))
        limit = _limit(model, settings)
        fitting = [group for group in groups if all(num_tokens(answer) <= limit for answer in group.answers)]
        left_out = _tell_left_out(len(groups) - len(fitting), "prompts", limit)
        train, heldout = split_by_prompt(
            fitting, settings.heldout_share, config.seed, what="groups of pairs", setting="dpo.heldout_share"
        )
        references: dpo.References = {}
        if settings.loss not in dpo.REFERENCE_FREE:
            references = dpo.read_references(model, fitting, output / REFERENCE_FILE, partial(progress, "reference"))
        method, outcome = dpo.train(
            *(model, train, heldout, references, output / "dpo"),
            settings=settings,
            seed=config.seed,
            progress=partial(progress, "dpo"),
        )
        _save(model, output, "dpo", config.seed, outcome)
        measured = method.measure(heldout)
        decided = [verdict for verdict in measured.verdicts if verdict.probability > 0.5]
        verdicts = [(beats(verdict.margin, 0.0), verdict.longest) for verdict in decided]
        chances = {"num_resamples": config.evaluate.num_resamples, "seed": config.seed}
        judged = accuracy(verdicts, [verdict.prompt_id for verdict in decided], **chances) if decided else {}
        about = {"loss": measured.loss, "margin": measured.margin}
        return judged | about | {**outcome.as_dict(), "num_training_prompts": len(train), "left_out": left_out}

    return _stage(config, "dpo", settings, output, [*preferences, *completions], work, progress)


def align_sft(
    config: Config,
    output: Path,
    progress: Progress,
    *,
    completions: Sequence[Path] = (),
    prompts: Sequence[Path] = (),
    preferences: Sequence[Path] = (),
) -> Result:
    """`heedful align sft`: on completions with their prompts, or on the chosen side of pairs; completions as in `align_dpo`."""
    settings = config.sft
    progress = telling(output, progress)
    if not preferences and not (completions and prompts):
        raise ConfigError("give --completions with --prompts, or --preferences, whose chosen answers are imitated")

    def work() -> Result:
        model = _base(config)
        if preferences:
            written = _written(completions)
            pairs = [pair for file in preferences for pair in read_preferences(file)]
            texts = dict.fromkeys((pair.prompt_id, pair.prompt, pair.chosen) for pair in pairs)  # each once, in order
            records = [Imitated(id_, _answer(model, written, id_, messages, text)) for id_, messages, text in texts]
        else:
            records = [Imitated(id_, answer) for _, id_, answer in _answered(model, completions, prompts)]
        fitting, left_out = _fitting(records, model, settings)
        train, heldout = split_by_prompt(
            fitting, settings.heldout_share, config.seed, what="completions", setting="sft.heldout_share"
        )
        answers, heldout_answers = ([example.answer for example in part] for part in (train, heldout))
        before = reference_logprobs(model, heldout_answers, output / REFERENCE_FILE, partial(progress, "reference"))
        method, outcome = sft.train(
            *(model, answers, heldout_answers, output / "sft"),
            settings=settings,
            seed=config.seed,
            progress=partial(progress, "sft"),
        )
        _save(model, output, "sft", config.seed, outcome)
        return {
            "loss": method.evaluate(outcome.step)["heldout_loss"],
            "loss_before": -sum(before) / max(1, sum(len(answer.response_ids) for answer in heldout_answers)),
            **outcome.as_dict(),
            "num_training_completions": len(train),
            "num_heldout_completions": len(heldout),
            "left_out": left_out,
        }

    return _stage(config, "sft", settings, output, [*completions, *prompts, *preferences], work, progress)


def align_kto(
    config: Config,
    output: Path,
    progress: Progress,
    *,
    votes: Sequence[Path] = (),
    completions: Sequence[Path] = (),
    prompts: Sequence[Path] = (),
    preferences: Sequence[Path] = (),
) -> Result:
    """`heedful align kto`: on votes for completions, or on pairs, chosen as good and rejected as bad."""
    settings = config.kto
    progress = telling(output, progress)
    if bool(votes) == bool(preferences) or (votes and not (completions and prompts)):
        raise ConfigError("give --votes with --prompts and --completions, or --preferences, whose chosen answers count as good")

    def work() -> Result:
        model = _base(config)
        marked = _voted(model, votes, completions, prompts) if votes else marked_pairs(model, preferences, completions)
        fitting, left_out = _fitting(marked, model, settings)
        completed = kto.with_mismatches(fitting, max_tokens=_limit(model, settings), seed=config.seed)
        train, heldout = split_by_prompt(
            completed, settings.heldout_share, config.seed, what="completions", setting="kto.heldout_share"
        )
        weights = kto.class_weights(train, settings=settings)
        known = kto.with_references(model, [*train, *heldout], output / REFERENCE_FILE, partial(progress, "reference"))
        method, outcome = kto.train(
            *(model, known[: len(train)], known[len(train) :], output / "kto"),
            settings=settings,
            weights=weights,
            seed=config.seed,
            progress=partial(progress, "kto"),
        )
        _save(model, output, "kto", config.seed, outcome)
        measured = {name.removeprefix("heldout_"): value for name, value in method.evaluate(outcome.step).items()}
        return measured | {
            "desirable_weight": weights.desirable,
            "undesirable_weight": weights.undesirable,
            "num_desirable": sum(example.desirable for example in train),
            "num_undesirable": sum(not example.desirable for example in train),
            "num_heldout_completions": len(heldout),
            **outcome.as_dict(),
            "left_out": left_out,
        }

    return _stage(config, "kto", settings, output, [*votes, *completions, *prompts, *preferences], work, progress)


def _telling(pairs: Sequence[Preference]) -> list[Preference]:
    """Pairs of two different answers. Raises DataError when none of them says which is the better one."""
    found = [pair for pair in pairs if pair.chosen != pair.rejected]
    if len(found) < len(pairs):
        print(f"{len(pairs) - len(found)} pairs of two equal answers were left out", file=sys.stderr)
    if all(pair.probability == 0.5 for pair in found):
        raise DataError(
            f"all {len(found)} pairs are ties (probability 0.5), and no pair says which answer is the better one; label more "
            "prompts, or give pairs with a probability above 0.5"
        )
    return found


# What the three share


@dataclass(frozen=True)
class Imitated:
    """A completion to learn from."""

    prompt_id: str
    answer: Answer


E = TypeVar("E", Imitated, kto.Marked)


def _stage(
    config: Config,
    name: str,
    settings: FromFilesSection,
    output: Path,
    inputs: Sequence[Path],
    work: Callable[[], Result],
    progress: Progress,
) -> Result:
    """Runs `work` as a stage of the run directory, unless it is done with these settings and inputs; returns its result."""
    with Run(output) as run:
        run.keep_config(to_toml(config), lambda path: says(path, config))
        shared = {"model": config.model.for_results(), "seed": config.seed, "num_resamples": config.evaluate.num_resamples}
        ran = run.stage(
            name,
            lambda: write_json(output / name / "result.json", work()),
            settings=settings.model_dump(mode="json") | shared,
            inputs=inputs,
        )
        if not ran:
            progress(name, 1, 1, "already done")
        write_cards(output)
        return dict(read_json(output / name / "result.json"))


def _base(config: Config) -> LanguageModel:
    device, wanted = choose_device(), config.model
    model = load_base(wanted.source, dtype=choose_dtype(wanted.dtype, device), device=device, recompute=wanted.recompute)
    return compile_where_told(model, wanted.compile)


def _save(model: LanguageModel, output: Path, name: str, seed: int, outcome: Outcome) -> None:
    save_policy(model, output / name / "policy", policy_version=f"{name}-{seed}-{outcome.step}")


def _limit(model: LanguageModel, settings: FromFilesSection) -> int:
    return min(settings.max_tokens, model.max_tokens)


def _tell_left_out(count: int, what: str, limit: int) -> int:
    if count:
        print(f"{count} {what} with answers beyond {limit} tokens or without any were left out", file=sys.stderr)
    return count


def _fitting(examples: Sequence[E], model: LanguageModel, settings: FromFilesSection) -> tuple[list[E], int]:
    """Examples that have text to learn from and fit, and how many do not."""
    limit = _limit(model, settings)
    kept = [example for example in examples if example.answer.text.strip() and num_tokens(example.answer) <= limit]
    return kept, _tell_left_out(len(examples) - len(kept), "completions", limit)


Written = dict[tuple[str, str], Completion]


def _written(completions: Sequence[Path]) -> Written:
    """Completions by prompt id and text. They know which tokens were written, and which answers the limit cut off: an end of
    text behind those would be a lie to learn.
    """
    records = (record for file in completions for _, record in _lines(file, Completion))
    return {(record.prompt_id, record.text): record for record in records}


def _answer(model: LanguageModel, written: Written, id_: str, messages: tuple[Message, ...], text: str) -> Answer:
    record = written.get((id_, text))
    return recorded_answer(model, messages, record) if record else answer_of(model, messages, text)


def _lines(file: Path, kind: type[Any]) -> Iterator[tuple[str, Any]]:
    for where, line in iter_lines(file):
        yield where, parse_line(line, kind, where)


def _answered(model: LanguageModel, completions: Sequence[Path], prompts: Sequence[Path]) -> Iterator[tuple[str, str, Answer]]:
    """(completion id, prompt id, answer) of each completion."""
    known: dict[str, Prompt] = {}
    for file in prompts:
        known |= by_id(read_prompts(file))
    for file in completions:
        for where, record in _lines(file, Completion):
            if record.prompt_id not in known:
                names = ", ".join(map(str, prompts))
                raise RecordError(where, f"prompt_id {record.prompt_id!r} is not in {names}; add the prompt or drop the line")
            messages = known[record.prompt_id].messages
            yield record.id, record.prompt_id, recorded_answer(model, messages, record)


def _voted(
    model: LanguageModel, votes: Sequence[Path], completions: Sequence[Path], prompts: Sequence[Path]
) -> list[kto.Marked]:
    """Completions with the mark that most of their votes give; those with as many thumbs up as down are left out."""
    answers = {id_: (prompt_id, answer) for id_, prompt_id, answer in _answered(model, completions, prompts)}
    tally: dict[str, int] = {}
    for file in votes:
        for where, vote in _lines(file, Vote):
            if vote.completion_id not in answers:
                names = ", ".join(map(str, completions))
                raise RecordError(where, f"completion_id {vote.completion_id!r} is not in {names}; add it or drop the line")
            tally[vote.completion_id] = tally.get(vote.completion_id, 0) + (1 if vote.value else -1)
    if not tally:
        raise DataError(f"{', '.join(map(str, votes))}: holds no vote")
    return marked_votes(answers, tally)


def marked_votes(answers: Mapping[str, tuple[str, Answer]], tally: Mapping[str, int]) -> list[kto.Marked]:
    """answers: prompt id and answer, by completion id. tally: thumbs up less thumbs down; where they are level, no mark."""
    undecided = sum(count == 0 for count in tally.values())
    if undecided:
        print(f"{undecided} completions with as many thumbs up as down were left out", file=sys.stderr)
    return [kto.Marked(*answers[id_], count > 0) for id_, count in tally.items() if count]


def marked_pairs(model: LanguageModel, preferences: Sequence[Path], completions: Sequence[Path]) -> list[kto.Marked]:
    """Chosen answers as good, rejected ones as bad; one that wins as often as it loses has no mark. Ties are no pairs."""
    written = _written(completions)
    tally: dict[tuple[str, tuple[Message, ...], str], int] = {}
    for pair in (pair for file in preferences for pair in read_preferences(file) if pair.probability > 0.5):
        for text, sign in ((pair.chosen, 1), (pair.rejected, -1)):
            key = (pair.prompt_id, pair.prompt, text)
            tally[key] = tally.get(key, 0) + sign
    return [
        kto.Marked(id_, _answer(model, written, id_, messages, text), count > 0)
        for (id_, messages, text), count in tally.items()
        if count
    ]
