"""An update, top to bottom: what people said since, a new version learned from it, its evaluation, and its promotion or not.

RUN/versions/N: a run directory of the version: feedback/ (what is new), the method's stage with policy/, evaluate/ and
result.json. The same command goes on where it stopped, as long as nothing new was said meanwhile.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from heedful.config import Config, RewardTermSection, load, says, to_toml
from heedful.data.formats import read_preferences
from heedful.engine.sampling import tokens_of
from heedful.errors import ConfigError, DataError, StoreError
from heedful.evaluation.promotion import objections
from heedful.models.policy import LanguageModel
from heedful.models.reward import answer_of
from heedful.models.sources import local_file
from heedful.opinions import FOLDER as FEEDBACK
from heedful.opinions import (
    Opinions,
    merged,
    named_in,
    paired,
    preferences_of,
    read_opinions,
    require_whole,
    tally,
    without,
    write_opinions,
)
from heedful.pipeline import Pipeline
from heedful.progress import Progress
from heedful.records import Preference, Prompt, by_id
from heedful.rewards.source import TRAINED
from heedful.rounds import Round, rounds_in
from heedful.run_layout import Layout
from heedful.stages.evaluate import evaluate_versions
from heedful.stages.offline import marked_pairs, marked_votes
from heedful.store import Run, read_json, write_json, write_jsonl
from heedful.training import kto
from heedful.training.adapter import save_policy
from heedful.version_log import Version, Versions
from heedful.versions import FOLDER as VERSIONS

PAIRS = "pairs.jsonl"


class Update(NamedTuple):
    """What an update is made of. base: the run directory that the versions go on from; parent: the version in use.

    said: all that counts, what earlier versions learned from included; new: what is learned from now.
    pairs: of method ppo, all that `said` makes.
    """

    config: Config
    run: Path
    base: Path
    folder: Path
    parent: Version
    said: Opinions
    new: Opinions
    pairs: list[Preference]
    seed: int


def update(
    run: Path,
    progress: Progress,
    *,
    feedback: Sequence[Path] = (),
    chats: Mapping[str, Opinions] | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the result: version, promoted, why_not, what was learned from, and the comparison with the version before.

    feedback: folders beside RUN/feedback. chats: what was read elsewhere, by the words that say where. overrides: of the run's
    settings. Raises DataError where nothing new was said.
    """
    base = (rounds_in(run) or [run])[-1]
    if not (base / "heedful.toml").is_file():
        raise StoreError(f"{run}: no run directory; name one that 'heedful run' wrote")
    config = load(base / "heedful.toml", tuple(overrides))
    if config.environment.kind != "prompts":
        raise ConfigError(
            f"{base}: environment.kind = {config.environment.kind!r}; an update learns from answers to prompts and measures "
            "those, not episodes"
        )
    versions = Versions(run)
    parent = versions.in_use
    _require_reward(config, base)
    given = {str(place): read_opinions(place) for place in feedback}
    if (run / FEEDBACK).is_dir():
        given[str(run / FEEDBACK)] = read_opinions(run / FEEDBACK)
    given |= chats or {}
    require_whole(merged(given.values()), ", ".join(given))
    learned = reversed(versions.ancestry(parent)[:-1])  # of two opinions of one second the later version's counts
    old = merged(read_opinions(run / VERSIONS / str(one.version) / FEEDBACK) for one in learned)
    said = merged([old, *given.values()])
    new = without(said, old)
    num_new = len(new.votes) + len(new.judgements)
    if not num_new:
        counts = ", ".join(f"{where} ({len(one.votes) + len(one.judgements)})" for where, one in given.items())
        heard = counts or f"{run / FEEDBACK}, which is not there"
        raise DataError(
            f"{run}: nothing was said that version {parent.version} has not learned from; looked for thumbs and corrections in "
            f"{heard}. 'heedful chat {run}' adds to them; --home LABELS, the folder of 'heedful serve', hears the web's chat "
            "as well; what was said there before the run was moved comes by 'heedful label export-chat --run NAME --output "
            "chat' and --feedback chat"
        )
    method, pairs = config.update.method, []
    if method == "ppo":
        pairs = preferences_of(said)
        new = paired(new, _fresh(pairs, old))
        num_new = len(new.votes) + len(new.judgements)
    folder = run / VERSIONS / str(versions.next)
    with Run(folder) as own, Run(base) as of:
        own.keep_config(to_toml(config), lambda path: says(path, config))
        write_opinions(folder / FEEDBACK, new)
        # The reward, the prompts and the model are those of the run; only the version is new.
        pipeline = Pipeline(config, of, progress)
        made = Update(config, run, base, folder, parent, said, new, pairs, config.seed + versions.next)
        policy = _learn_kto(made, own, pipeline, progress) if method == "kto" else _learn_ppo(made, own, pipeline, progress)
        result = _evaluated(made, own, pipeline, policy, progress)
    why_not = list(result["why_not"])
    learned_by: dict[str, Any] = {"method": method, "num_new": num_new}
    added = versions.add(policy, parent=parent, promoted=not why_not, why_not=why_not, **learned_by)
    result |= {"version": added.version, "parent": parent.version, "promoted": added.promoted, "method": method}
    result |= {"num_votes": len(new.votes), "num_corrections": len(new.judgements)}
    write_json(folder / "result.json", result)
    return result


def _require_reward(config: Config, base: Path) -> None:
    """Raises ConfigError, before anything is trained, where no reward could tell one version from another, or teach one."""
    layout = Layout(config, base, Round(), config.reward.terms or (RewardTermSection(),))
    if layout.trains_reward and not layout.trained_folder.is_dir():
        raise ConfigError(
            f"{base}: has no reward to measure versions by, for it trained no reward model; name a reward that exists: "
            "--set 'reward.terms=[{source = \"FOLDER\"}]'"
        )
    if config.update.method == "ppo" and config.reward.labelled.files:
        raise ConfigError(
            f"{base}: its reward learned from reward.labelled.files, and what was said makes pairs; a reward model of these "
            "alone would forget the files, so use update.method = 'kto'"
        )


# Learning


def _learn_kto(made: Update, own: Run, pipeline: Pipeline, progress: Progress) -> Path:
    """KTO from the version in use, which is its reference as well, on new marks and a share of old ones."""
    config, folder, settings = made.config, made.folder, made.config.kto
    policy, start = folder / "kto" / "policy", made.run / made.parent.policy
    pool, pairs = folder / "replay.jsonl", _old_pairs(made)
    write_jsonl(pool, pairs)

    def work() -> None:
        model = pipeline.model
        pipeline.hold(start)
        new, old = marks_of(model, made.said, named_in(made.new.votes, made.new.judgements))
        share = config.update.replay
        wanted = round(len(new) * share / (1 - share))
        old += marked_pairs(model, [pool], _completions(made)) if pairs else []
        drawn = random.Random(f"{made.seed}/replay").sample(old, min(wanted, len(old)))
        limit = min(settings.max_tokens, model.max_tokens)
        examples = [one for one in (*new, *drawn) if one.answer.text.strip() and _length(one) <= limit]
        if len(examples) < len(new) + len(drawn):
            print(f"{len(new) + len(drawn) - len(examples)} answers that are empty or too long were left out", file=sys.stderr)
        weights = kto.class_weights(examples, settings=settings)
        examples = kto.with_mismatches(examples, max_tokens=limit, seed=made.seed)
        told = partial(progress, "reference")
        examples = kto.with_references(model, examples, folder / "reference.jsonl", told, adapter="policy")
        pipeline.held = None
        _, outcome = kto.train(
            *(model, examples, [], folder / "kto"),
            settings=settings,
            weights=weights,
            seed=made.seed,
            progress=partial(progress, "kto"),
        )
        save_policy(model, policy, policy_version=f"{folder.name}-kto-{made.seed}-{outcome.step}")
        pipeline.held = policy
        found = {"num_new_marks": len(new), "num_replayed": len(drawn), **outcome.as_dict()}
        write_json(folder / "kto" / "result.json", found)

    told_settings = settings.model_dump(mode="json") | made.config.update.model_dump(exclude={"margin"}) | {"seed": made.seed}
    own.stage("kto", work, settings=told_settings, inputs=[start, folder / FEEDBACK, pool])
    return policy


def _learn_ppo(made: Update, own: Run, pipeline: Pipeline, progress: Progress) -> Path:
    """A reward model of all pairs, old and new, in the place of the run's own, and PPO on from the version in use."""
    folder, method = made.folder, made.config.method
    write_jsonl(folder / PAIRS, [*_old_pairs(made), *made.pairs])
    # The prompts themselves, so that the held-out ones are the run's, whatever the pairs say.
    write_jsonl(folder / "prompts.jsonl", [prompt for prompts in pipeline.prompts.values() for prompt in prompts])
    terms = made.config.reward.terms
    if terms and all(term.source != TRAINED for term in terms):
        terms = (*terms, RewardTermSection())  # the new pairs are heard beside what the run's reward asks for
    own_pairs = {"preferences": (str(folder / PAIRS),), "terms": terms}
    reward = made.config.reward.model_copy(update=own_pairs)
    prompts = made.config.prompts.model_copy(update={"files": (str(folder / "prompts.jsonl"),)})
    learned = made.config.model_copy(update={"reward": reward, "prompts": prompts, "rounds": 1, "seed": made.seed})
    start = made.run / made.parent.policy
    ppo = Pipeline(learned, own, progress, round_=Round(start=start))
    ppo.stage("reward", ppo.reward, reward.model_dump(mode="json", exclude={"terms"}), folder / PAIRS)
    ppo.stage(method, ppo.align, ppo.layout.align_settings, *ppo.layout.align_inputs)
    return ppo.layout.policy_folder


def _fresh(pairs: Sequence[Preference], old: Opinions) -> list[Preference]:
    """Pairs that no version has learned from. Raises DataError where there is none."""
    known = {(pair.chosen_id, pair.rejected_id) for pair in preferences_of(old)}
    found = [pair for pair in pairs if (pair.chosen_id, pair.rejected_id) not in known]
    if not found:
        raise DataError(
            "the new votes make no pair: no prompt has an answer with a thumb up and another with a thumb down, and there is "
            "no correction; collect corrections, or use update.method = 'kto'"
        )
    return found


def marks_of(model: LanguageModel, said: Opinions, named: Collection[str]) -> tuple[list[kto.Marked], list[kto.Marked]]:
    """By majority of all that was said: the marks of the named completions, which are learned, and of all others, for replay.

    A completion of which something new was said is in no replay: with a changed mind it would be learned in both directions.
    """
    prompts, tallied = by_id(said.prompts), tally(said)
    answers = {
        one.id: (one.prompt_id, answer_of(model, prompts[one.prompt_id].messages, one.text, token_ids=tokens_of(model, one)))
        for one in said.completions
    }
    new = {id_: count for id_, count in tallied.items() if id_ in named}
    old = {id_: count for id_, count in tallied.items() if id_ not in named}
    return marked_votes(answers, new), marked_votes(answers, old)


def _length(one: kto.Marked) -> int:
    return len(one.answer.prompt_ids) + len(one.answer.response_ids)


def _old_pairs(made: Update) -> list[Preference]:
    """What the run itself learned from; nothing where its reward needed no pairs."""
    named = made.config.reward.preferences
    rounds = rounds_in(made.run) or [made.base]
    files = [local_file(name) for name in named] or [place / "consensus" / "preferences.jsonl" for place in rounds]
    return [pair for file in files if file.is_file() for pair in read_preferences(file)]


def _completions(made: Update) -> list[Path]:
    """Of all rounds: they tell which answers the limit cut off."""
    files = [place / "sample" / "completions.jsonl" for place in rounds_in(made.run) or [made.base]]
    return [file for file in files if file.is_file()]


# Holding the new version against the old one


def _evaluated(made: Update, own: Run, pipeline: Pipeline, policy: Path, progress: Progress) -> dict[str, Any]:
    config, folder, start = made.config, made.folder, made.run / made.parent.policy

    def work() -> None:
        asked: Sequence[Prompt] = pipeline.prompts["heldout"]
        gold = pipeline.gold if pipeline.layout.gold_terms else None
        found = evaluate_versions(
            pipeline.model,
            asked,
            folder / "evaluate",
            sides=(("before", lambda: pipeline.hold(start)), ("after", lambda: pipeline.hold(policy))),
            scores={"reward": pipeline.score} | ({"gold": gold} if gold else {}),
            settings=config.evaluate,
            batch_rows=config.sample.batch_rows,
            max_prompt_tokens=config.prompts.max_prompt_tokens,
            seed=config.seed,
            progress=partial(progress, "evaluate"),
        )
        chances: dict[str, Any] = {"num_resamples": config.evaluate.num_resamples, "seed": config.seed}
        why_not = objections(found.compared, found.scores, found.prompts, margin=config.update.margin, **chances)
        write_json(folder / "evaluate" / "result.json", {"compare": found.compared, "why_not": why_not})

    _ = pipeline.reward_function  # before a policy is held: a reward may be an adapter on the same base
    settings = config.evaluate.model_dump() | {"margin": config.update.margin, "seed": config.seed}
    settings |= pipeline.layout.reward_settings
    own.stage("evaluate", work, settings=settings, inputs=[start, policy, *pipeline.layout.reward_inputs])
    return dict(read_json(folder / "evaluate" / "result.json"))
