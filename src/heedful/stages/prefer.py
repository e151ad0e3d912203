"""Stage 2 of a constitution, `heedful constitution prefer`: answers of the tuned model, judged, as judgements and preferences.

A run directory with `prefer/`: prompts, completions, judgements.jsonl for `heedful consensus`, principles.jsonl (the same by
each principle), preferences.jsonl for `heedful reward train` and `heedful align dpo`, gate.json and result.json. Finished calls
lie in `feedback.jsonl` beside it, so that nothing is asked twice, also where settings change.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from heedful.config import Config, says, to_toml
from heedful.config.feedback import FeedbackSection
from heedful.config.file import BUNDLED
from heedful.config.prefer import SCORERS
from heedful.constitution.candidates import candidates
from heedful.constitution.principles import Constitution, load
from heedful.constitution.verdicts import UNREADABLE, Verdicts, compared, verdicts
from heedful.data.bundled import choose, gather, load_bundled
from heedful.data.formats import read_preferences, read_prompts
from heedful.errors import ConfigError, DataError
from heedful.evaluation import gate
from heedful.judges import Named, local_inputs_of, open_judge, tried
from heedful.judging.contrastive import place_of_instructions
from heedful.judging.feedback import open_feedback
from heedful.judging.local import LocalWriter
from heedful.judging.scored import sharpened
from heedful.judging.writing import Reply
from heedful.models.sources import local_file, own_folders
from heedful.progress import Progress, telling
from heedful.records import Completion, Prompt
from heedful.store import Run, read_json, write_json, write_jsonl

STAGE = "prefer"
CALLS = "feedback.jsonl"
NAMED_BUNDLED = "bundled:"  # in prompts.files

Result = dict[str, Any]


def prefer(config: Config, output: Path, progress: Progress) -> Result:
    """Runs the stage unless it is done with these settings and inputs; returns its result. Raises HeedfulError.

    Run again, it asks a judge behind an address once more of what it could not read.
    """
    settings = config.prefer
    require_gate(config)
    progress = telling(output, progress)
    constitution = load(settings.constitution)
    inputs = [local_file(file) for file in config.prompts.files if not file.startswith(NAMED_BUNDLED)]
    inputs += map(local_file, settings.gate)
    inputs += [Path(name) for name in (settings.constitution, settings.policy) if name != BUNDLED and Path(name).exists()]
    inputs += local_inputs_of(settings.reward) if settings.reward else []
    inputs += own_folders(settings.feedback.source, None if settings.policy else config.model.source)
    result = output / STAGE / "result.json"
    with Run(output) as run:
        run.keep_config(to_toml(config), lambda path: says(path, config))
        if settings.feedback.remote and result.is_file() and UNREADABLE in read_json(result).get("left_out", {}):
            run.reopen(STAGE)  # finished calls lie in the journal
        told = {"prefer": settings.model_dump(mode="json"), "prompts": config.prompts.model_dump(mode="json")}
        ran = run.stage(
            STAGE,
            lambda: _work(config, output, constitution, progress),
            settings=told | {"model": config.model.for_results(), "seed": config.seed},
            inputs=inputs,
        )
        if not ran:
            progress(STAGE, 1, 1, "already done")
        return dict(read_json(result))


def require_gate(config: Config) -> None:
    """Raises ConfigError where no pairs are named to measure the judge on, and it is not forced either."""
    if not config.prefer.gate and not config.prefer.force:
        raise ConfigError(
            "prefer.gate names no pairs that people have judged, so nobody knows whether the judge is better than a coin; "
            "name files of some, or set prefer.force = true, which the result will say"
        )


def _work(config: Config, output: Path, constitution: Constitution, progress: Progress) -> None:
    folder, calls = output / STAGE, output / CALLS
    # The gate first: where nobody may judge, nothing need be written.
    chosen, figures = _gated(config, constitution, calls, progress)
    write_json(folder / "gate.json", figures)
    prompts = _prompts(config)
    completions, dropped, usage = _answers(config, constitution, prompts, calls, progress)
    write_jsonl(folder / "prompts.jsonl", prompts)
    write_jsonl(folder / "completions.jsonl", completions)
    made = _judged(config, chosen, figures, prompts, completions, calls, progress)
    if not made.preferences:
        reasons = (
            ", ".join(f"{count} {reason}" for reason, count in made.left_out.items()) or "no prompt has two different answers"
        )
        raise DataError(
            f"no preference came of {len(prompts)} prompts ({reasons}); sample more answers (prefer.num_sampled, "
            "prefer.num_contrasted) or lower prefer.near_tie"
        )
    write_jsonl(folder / "judgements.jsonl", made.judgements)
    write_jsonl(folder / "principles.jsonl", made.by_principle)
    write_jsonl(folder / "preferences.jsonl", made.preferences)
    write_json(folder / "result.json", _result(figures, made, len(prompts), len(completions), dropped, usage))


def judge_answers(
    config: Config, prompts: Sequence[Prompt], completions: Sequence[Completion], folder: Path, calls: Path, progress: Progress
) -> Verdicts:
    """What the judge of [prefer] says of answers that are there already; what the gate found goes into folder/gate.json.

    calls: a file of finished calls. Raises DataError where the gate refuses every judge and none is forced.
    """
    chosen, figures = _gated(config, load(config.prefer.constitution), calls, progress)
    write_json(folder / "gate.json", figures)
    return _judged(config, chosen, figures, prompts, completions, calls, progress)


def _judged(
    config: Config,
    chosen: Named,
    figures: Result,
    prompts: Sequence[Prompt],
    completions: Sequence[Completion],
    calls: Path,
    progress: Progress,
) -> Verdicts:
    settings = config.prefer
    judge = open_judge(chosen, calls, lambda done, total: progress("judge", done, total, chosen.name))
    slope = figures["slope"] if settings.calibrate and figures["slope"] else 1.0
    opinions = compared(judge, prompts, completions, temper=lambda opinion: sharpened(opinion, slope))
    return verdicts(
        opinions,
        labeler=chosen.name,
        criterion=settings.criterion,
        near_tie=settings.near_tie,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        scorer=chosen.kind,
    )


def _result(
    figures: Result, made: Verdicts, num_prompts: int, num_completions: int, dropped: dict[str, int], usage: dict[str, float]
) -> Result:
    agreed, contrasted = made.agreement
    ps = [pair.probability for pair in made.preferences]
    return {
        "judge": figures["judge"],
        "scorer": figures["scorer"],
        "forced": figures["forced"],
        "why_refused": figures["why_refused"],
        "gate_accuracy": figures["accuracy"],
        "num_prompts": num_prompts,
        "num_completions": num_completions,
        "num_judgements": len(made.judgements),
        "num_preferences": len(made.preferences),
        "mean_probability": sum(ps) / len(ps),
        "left_out": dropped | made.left_out,
        "contrasted": {"agreed": agreed, "pairs": contrasted},
        "usage": usage,
    }


def _gated(config: Config, constitution: Constitution, calls: Path, progress: Progress) -> tuple[Named, Result]:
    """Who judges, and what the gate found of everybody who might. Raises DataError where nobody passes and none is forced."""
    settings = config.prefer
    able = _named(config, constitution)
    if not settings.gate:
        why = "no pairs were given on which to measure it"
        return able[0], _outcome(able[0], [], why)
    labelled = [pair for file in settings.gate for pair in read_preferences(local_file(file))]
    found = tried(
        able,
        labelled,
        calls=calls,
        max_pairs=settings.gate_pairs,
        num_resamples=config.evaluate.num_resamples,
        seed=config.seed,
        told=lambda name, done, total: progress("gate", done, total, name),
    )
    by_name = {one.name: one for one in able}
    best = gate.best_of(found)
    if best is not None:
        return by_name[best], _outcome(by_name[best], found, "")
    refused = " ".join(f"{gate.told(row)} {gate.doubt(row)}." if "accuracy" in row else row["problem"] for row in found)
    readable = [row for row in found if "accuracy" in row]
    if not settings.force or not readable:
        raise DataError(
            f"the gate refuses every judge. {refused} To use one all the same, which the result will say: prefer.force"
        )
    most = max(readable, key=lambda row: row["accuracy"]["estimate"])
    print(f"forced: {most['name']} judges although the gate refuses it", file=sys.stderr)
    chosen = by_name[most["name"]]
    return chosen, _outcome(chosen, found, gate.doubt(most))


def _outcome(chosen: Named, found: list[Result], why: str) -> Result:
    own = next((row for row in found if row["name"] == chosen.name), {})
    return {
        "judge": chosen.name,
        "scorer": chosen.kind,
        "forced": bool(why),
        "why_refused": why,
        "accuracy": own.get("accuracy"),
        "slope": own.get("slope"),
        "judges": found,
    }


def _named(config: Config, constitution: Constitution) -> list[Named]:
    """The judges that the settings allow: one, or with "best" all that are at hand."""
    settings = config.prefer
    source = settings.feedback.source
    wanted = SCORERS if settings.scorer == "best" else (settings.scorer,)
    if settings.scorer == "reward" and not settings.reward:
        raise ConfigError("prefer.scorer = 'reward' needs prefer.reward, the model that 'heedful reward train' wrote")
    contrasts = any(one.good.strip() for one in constitution.tagged(settings.tags))
    at_hand = {"reward": bool(settings.reward), "letters": True, "contrastive": not settings.feedback.remote and contrasts}
    asked: dict[str, Any] = {
        "constitution": constitution,
        "tags": settings.tags,
        "feedback": settings.feedback,
        "number": settings.principles,
        "against": settings.against,
        "seed": config.seed,
    }
    found = []
    for kind in wanted:
        if kind == "letters":
            letters: dict[str, Any] = {
                "reasoning": settings.reasoning,
                "reasoning_tokens": settings.reasoning_tokens,
                "clamp": settings.clamp,
            }
            found.append(Named("letters", source, **asked, **letters))
        elif at_hand[kind] or settings.scorer != "best":
            found.append(Named(kind, settings.reward if kind == "reward" else source, **asked))  # type: ignore[arg-type]
    return found


def _prompts(config: Config) -> list[Prompt]:
    """prompts.num_train prompts of the files, or of the bundled ones; none that is held out."""
    settings = config.prompts

    def inside(name: str) -> list[Prompt]:
        bundled = name.startswith(NAMED_BUNDLED)
        return load_bundled((name.removeprefix(NAMED_BUNDLED),)) if bundled else read_prompts(local_file(name))

    available = gather((file, inside(file)) for file in settings.files or ("bundled:prompts",))
    return choose([prompt for prompt in available if prompt.split != "heldout"], settings.num_train, config.seed)


def _answers(
    config: Config, constitution: Constitution, prompts: list[Prompt], calls: Path, progress: Progress
) -> tuple[list[Completion], dict[str, int], dict[str, float]]:
    settings = config.prefer
    source = settings.policy or config.model.source
    opened = open_feedback(FeedbackSection(source=source, batch_rows=settings.feedback.batch_rows), calls)
    total = len(prompts) * (settings.num_sampled + 2 * settings.num_contrasted)
    done = 0

    def finished(replies: dict[int, Reply]) -> None:
        nonlocal done
        done += len(replies)
        progress("answer", done, total, f"{opened.usage.completion_tokens} tokens")

    written = getattr(opened.writer, "writer", opened.writer)
    completions, dropped = candidates(
        opened.writer,
        prompts,
        constitution,
        name=source,
        num_sampled=settings.num_sampled,
        num_contrasted=settings.num_contrasted,
        tags=settings.tags,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        place=place_of_instructions(written.model.chat) if isinstance(written, LocalWriter) else "system",
        seed=config.seed,
        finished=finished,
    )
    return completions, dropped, opened.usage.as_dict()
