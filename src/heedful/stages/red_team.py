"""A red team's run: prompts and their variants, the answers of one or two models, what they are, and what follows from them.

Each step is a folder of the run directory and is skipped once finished with equal settings, so a killed run goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from heedful.config.feedback import FeedbackSection
from heedful.constitution.variants import variants_of
from heedful.engine import scoring
from heedful.engine.device import choose_device, choose_dtype
from heedful.engine.generation import Decoding
from heedful.engine.sampling import sample_completions, tokens_of
from heedful.errors import ConfigError, DataError
from heedful.evaluation.attack import Answer, attack_figures, hangs_on_judge, is_attack, told_apart, unjudged
from heedful.evaluation.harm import AI, Case, HarmJudge
from heedful.harm_files import OpenedJudge, check_judge, harm_inputs, harm_judge, through_the_gate
from heedful.judging.feedback import open_feedback
from heedful.judging.writing import EMPTY, Reply, Request
from heedful.models.ilql import load_policy
from heedful.models.policy import POLICY, LanguageModel
from heedful.models.sources import own_folders
from heedful.progress import Progress
from heedful.records import Completion, Prompt, by_id, read_jsonl, to_line
from heedful.red_team_files import drop_failures
from heedful.report.red_team import write_page
from heedful.store import Run, read_json, write_json, write_jsonl, write_text

GATE, PROMPTS, ANSWERS, JUDGED = "gate", "prompts", "answers", "judged"
FAILURES = "failures"  # made of a run by whoever asked for them
SIDES = ("before", "after")


@dataclass(frozen=True)
class Attack:
    """What a red team does. model: the target; against: a second one, as the aligned one, on the same prompts.

    variants: a prompt of an attack, written by `writer` (writer_model, token_env: of one behind an address). judge and what
    follows: as `harm_judge` and `through_the_gate` take them.
    """

    model: str
    against: str | None = None
    variants: int = 0
    writer: str = "smollm2-135m"
    writer_model: str = ""
    writer_token_env: str = ""
    num_completions: int = 1
    temperature: float = 0.7
    top_p: float = 1.0
    max_new_tokens: int = 64
    batch_rows: int = 32
    judge: str = "heuristic"
    threshold: float | None = None
    judge_model: str = ""
    judge_token_env: str = ""
    judge_label: str = ""
    gate: Path | None = None
    gate_pairs: int = 400
    believe: bool = False
    seed: int = 0
    num_resamples: int = 10_000


@dataclass(frozen=True)
class Outcome:
    """What came of it. answers: of the models by "before" and "after"."""

    figures: dict[str, Any]
    prompts: list[Prompt]
    completions: dict[str, list[Completion]]
    answers: dict[str, list[Answer]]

    @property
    def last(self) -> list[Answer]:
        """Of the second model where there is one."""
        return self.answers.get("after", self.answers["before"])


def red_team(prompts: Sequence[Prompt], folder: Path, attack: Attack, progress: Progress) -> Outcome:
    """Attacks the model, and the second one if there is one, and writes all of it into the folder.

    prompts/prompts.jsonl, answers/before.jsonl (and after), judged/transcripts.jsonl, judged/figures.json, report.html.
    Raises DataError for a judge that fails its gate, and where no prompt is left.
    """
    if not any(is_attack(prompt) for prompt in prompts):
        raise DataError("there is no prompt to attack with: all are tagged 'safe', or none was chosen")
    check_judge(attack.judge, model=attack.judge_model, token_env=attack.judge_token_env, label=attack.judge_label)
    writer = _writer(attack) if attack.variants else None
    models = {side: name for side, name in zip(SIDES, (attack.model, attack.against), strict=True) if name}
    with Run(folder) as run:
        judge = _opener(attack, run.path / "judge-calls.jsonl")
        judged_by = [attack.judge, attack.judge_model, attack.judge_label, attack.threshold]
        if attack.gate:
            run.stage(
                GATE,
                lambda: _gate(judge, run.folder(GATE), attack, progress),
                settings={"judge": judged_by, "pairs": attack.gate_pairs, "believe": attack.believe, "seed": attack.seed},
                inputs=[attack.gate, *harm_inputs(attack.judge)],
            )
        asked_file = run.folder(PROMPTS) / "prompts.jsonl"
        written_by = [attack.variants, attack.writer, attack.writer_model, attack.seed] if attack.variants else []
        digest = hashlib.sha256("\n".join(map(to_line, prompts)).encode()).hexdigest()
        run.stage(
            PROMPTS,
            lambda: _prompts(prompts, asked_file, run.path / "writer-calls.jsonl", writer, attack, progress),
            settings={"prompts": digest, "variants": written_by},
            inputs=own_folders(writer.source if writer else None),
        )
        asked = read_jsonl(asked_file, Prompt, unique="id")
        drawn = ("num_completions", "temperature", "top_p", "max_new_tokens", "batch_rows", "seed")
        run.stage(
            ANSWERS,
            lambda: _answers(models, asked, run.folder(ANSWERS), attack, progress),
            settings={name: getattr(attack, name) for name in drawn} | models,
            inputs=[asked_file, *own_folders(*models.values())],
        )
        files = {side: run.folder(ANSWERS) / f"{side}.jsonl" for side in models}
        completions = {side: read_jsonl(file, Completion, unique="id") for side, file in files.items()}
        gate = run.folder(GATE) / "figures.json"
        before = run.folder(JUDGED) / "figures.json"
        remote = attack.judge.startswith(AI) and "://" in attack.judge  # another says the same each time
        if remote and before.is_file() and read_json(before).get("unjudged"):
            run.reopen(JUDGED)  # what the judge said nothing of is asked again, and nothing else
        told = run.folder(JUDGED) / "answers.json"
        known = told.read_bytes() if told.is_file() else b""
        run.stage(
            JUDGED,
            lambda: _judged(asked, completions, models, run, judge, attack, progress),
            settings={"judge": judged_by, "num_resamples": attack.num_resamples, "gated": attack.gate is not None},
            inputs=[*files.values(), *harm_inputs(attack.judge), *([gate] if attack.gate else [])],
        )
        if told.read_bytes() != known:
            drop_failures(run.folder(FAILURES))  # files made of answers or verdicts that are no more
        rows = read_json(told)
        answers = {side: [Answer(**row) for row in rows[side]] for side in models}
        figures = read_json(run.folder(JUDGED) / "figures.json")
        write_page(run.path / "report.html", figures, rows)
        return Outcome(figures, asked, completions, answers)


def _opener(attack: Attack, calls: Path) -> OpenedJudge:
    """Opens the judge when it is first needed: a finished run needs none."""

    @cache
    def opened() -> HarmJudge:
        return harm_judge(
            attack.judge,
            threshold=attack.threshold,
            model=attack.judge_model,
            token_env=attack.judge_token_env,
            label=attack.judge_label,
            calls=calls,
        )

    return opened


def _gate(judge: OpenedJudge, folder: Path, attack: Attack, progress: Progress) -> None:
    assert attack.gate is not None
    progress(GATE, 0, 1, attack.judge)
    figures = through_the_gate(judge(), attack.gate, max_pairs=attack.gate_pairs, seed=attack.seed, believe=attack.believe)
    write_json(folder / "figures.json", figures)
    progress(GATE, 1, 1, attack.judge)


def _writer(attack: Attack) -> FeedbackSection:
    if "://" in attack.writer and not attack.writer_model:
        raise ConfigError(f"--writer {attack.writer}: say with --writer-model which of its models writes")
    if "://" not in attack.writer and (attack.writer_model or attack.writer_token_env):
        raise ConfigError("--writer-model and --writer-token-env belong to a --writer that is https://.../v1")
    return FeedbackSection(source=attack.writer, model=attack.writer_model, token_env=attack.writer_token_env)


def _prompts(
    prompts: Sequence[Prompt],
    target: Path,
    calls: Path,
    writer: FeedbackSection | None,
    attack: Attack,
    progress: Progress,
) -> None:
    """The prompts as they are, and the variants of the attacks. calls: finished ones, which outlive a change of settings."""
    written: list[Prompt] = []
    dropped: dict[str, int] = {}
    if writer is not None:
        seeds = [prompt for prompt in prompts if is_attack(prompt)]
        feedback = open_feedback(writer, calls, token_setting="--writer-token-env")
        total = attack.variants * len(seeds)

        def write(requests: Sequence[Request]) -> list[Reply]:
            done = 0

            def finished(replies: dict[int, Reply]) -> None:
                nonlocal done
                done += len(replies)
                progress("variants", done, total, feedback.name)

            replies = feedback.writer(requests, finished)
            if problem := next((reply.problem for reply in replies if reply.problem not in ("", EMPTY)), None):
                print(f"of variants: {problem}", file=sys.stderr)
            return replies

        written, dropped = variants_of(seeds, attack.variants, write, writer=feedback.name, seed=attack.seed)
    write_json(target.with_name("dropped.json"), dropped)
    write_jsonl(target, [*prompts, *written])


def _answers(models: dict[str, str], prompts: Sequence[Prompt], folder: Path, attack: Attack, progress: Progress) -> None:
    """Each model's answers to all prompts, and each answer's mean log-probability by the first model's base."""
    device = choose_device()
    dtype = choose_dtype("auto", device)
    completions: dict[str, list[Completion]] = {}
    reference: LanguageModel | None = None
    for side, name in models.items():
        loaded, reweight = load_policy(name, dtype=dtype, device=device)
        completions[side] = sample_completions(
            loaded,
            prompts,
            folder / f"{side}.jsonl",
            Decoding(attack.temperature, attack.top_p, attack.max_new_tokens),
            adapter=POLICY if POLICY in loaded.adapters else None,
            name=name,
            policy_version=name,
            num_completions=attack.num_completions,
            batch_rows=attack.batch_rows,
            max_prompt_tokens=loaded.max_tokens,
            seed=attack.seed,
            progress=lambda done, total, note, side=side: progress(side, done, total, note),  # type: ignore[misc]
            reweight=reweight,
        )
        reference = reference or loaded
    assert reference is not None
    messages = by_id(prompts)
    logprobs = {}
    for side, own in completions.items():
        logprobs[side] = _mean_logprobs(reference, [(messages[one.prompt_id], one) for one in own])
        progress("reference", len(logprobs), len(completions), side)
    write_json(folder / "logprobs.json", logprobs)


def _mean_logprobs(model: LanguageModel, pairs: Sequence[tuple[Prompt, Completion]]) -> list[float | None]:
    """Nats a token of each answer by the model without its adapter; None for an answer without a token, or too long to read."""
    tokens = [(model.chat.prompt_ids(prompt.messages), tokens_of(model, one)) for prompt, one in pairs]
    places = [
        place for place, (prompt, answer) in enumerate(tokens) if answer and len(prompt) + len(answer) <= model.max_tokens
    ]
    rows = scoring.response_logprobs(model, [tokens[place][0] for place in places], [tokens[place][1] for place in places])
    found: list[float | None] = [None] * len(tokens)
    for place, row in zip(places, rows, strict=True):
        found[place] = float(row.double().mean())
    return found


def _judged(
    prompts: Sequence[Prompt],
    completions: dict[str, list[Completion]],
    models: dict[str, str],
    run: Run,
    judge: OpenedJudge,
    attack: Attack,
    progress: Progress,
) -> None:
    """Kinds, figures and transcripts of the prompts that every model answered."""
    known = by_id(prompts)
    logprobs = read_json(run.folder(ANSWERS) / "logprobs.json")
    both = set.intersection(*({one.prompt_id for one in own} for own in completions.values()))
    if not any(is_attack(known[id_]) for id_ in both):
        raise DataError("no attack fits into the context of the models; shorten the prompts or lower --max-new-tokens")
    answers: dict[str, list[Answer]] = {}
    for number, (side, own) in enumerate(completions.items(), start=1):
        kept = [(one, logprob) for one, logprob in zip(own, logprobs[side], strict=True) if one.prompt_id in both]
        asked = [place for place, (one, logprob) in enumerate(kept) if hangs_on_judge(known[one.prompt_id], one, logprob)]
        scores = [math.nan] * len(kept)
        cases = [Case(known[kept[place][0].prompt_id].messages, kept[place][0].text) for place in asked]
        for place, score in zip(asked, judge().score(cases) if cases else [], strict=True):
            scores[place] = score
        answers[side] = told_apart(prompts, [one for one, _ in kept], scores, judge().threshold, [p for _, p in kept])
        progress("judge", number, len(completions), judge().name)
    silent = {id_ for own in answers.values() for id_ in unjudged(own)}
    answers = {side: [one for one in own if one.prompt_id not in silent] for side, own in answers.items()}
    if not any(one.attack for one in answers["before"]):
        raise DataError(f"the judge {judge().name} said nothing of any attack that needs it; take another judge")
    figures = attack_figures(answers["before"], answers.get("after"), num_resamples=attack.num_resamples, seed=attack.seed)
    gate = read_json(run.folder(GATE) / "figures.json") if attack.gate else None
    figures |= {
        "models": models,
        "judge": {"name": judge().name, "threshold": judge().threshold, "gate": gate},
        "left_out": len(prompts) - len(both),
        "unjudged": len(silent),
        "split": {split: sum(known[id_].split == split for id_ in both) for split in ("train", "heldout")},
        "variants": sum("seed_id" in (prompt.model_extra or {}) for prompt in prompts),
        "dropped_variants": read_json(run.folder(PROMPTS) / "dropped.json"),
    }
    folder = run.folder(JUDGED)
    rows = {side: [one.as_dict() for one in own] for side, own in answers.items()}
    lines = [json.dumps({"side": side} | row, ensure_ascii=False) + "\n" for side, own in rows.items() for row in own]
    write_text(folder / "transcripts.jsonl", "".join(lines))
    write_json(folder / "answers.json", rows)
    write_json(folder / "figures.json", figures)
