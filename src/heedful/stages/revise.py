"""What `heedful constitution revise` does: chains of critique and revision, and fine-tuning on what is worth learning from.

It leaves in OUTPUT: `calls.jsonl` (finished calls, so that nothing is asked twice), `revise/chains.jsonl` (every text),
`revise/prompts.jsonl` and `revise/completions.jsonl` (what is learned), `revise/result.json` (counts), and what `heedful align
sft` leaves. The same command goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from heedful.config import Config, says, to_toml
from heedful.constitution.chains import CHAIN_REASONS, KEPT, REASONS
from heedful.constitution.learning import Examples, counts_of, given_answers, kept_revisions, num_helpful, own_answers
from heedful.constitution.principles import Constitution, load
from heedful.constitution.revision import Given, Reviser
from heedful.data.bundled import choose, gather
from heedful.data.formats import read_completions
from heedful.engine.device import choose_device, choose_dtype
from heedful.errors import ConfigError, DataError
from heedful.judging.calls import Calls
from heedful.judging.contrastive import Contrast, Contrastive
from heedful.judging.feedback import Feedback, local_feedback, open_feedback
from heedful.judging.local import adapter_of
from heedful.judging.scored import JournaledScore, Score, Texts
from heedful.models.policy import LanguageModel, load_language_model
from heedful.models.sources import own_folders, resolve
from heedful.progress import Progress, telling
from heedful.prompt_files import files_in, gathered
from heedful.records import Completion, Prompt, by_id
from heedful.rewards.asking import Judge
from heedful.rewards.source import local_inputs
from heedful.stages.offline import align_sft
from heedful.store import Run, file_hash, read_json, write_json, write_jsonl
from heedful.training.rollout import require_finite_rewards

STAGE = "revise"
CHAINS, PROMPTS, COMPLETIONS, RESULT = "chains.jsonl", "prompts.jsonl", "completions.jsonl", "result.json"
CALLS = "calls.jsonl"  # beside the stage's folder, which is emptied when settings change
RED_TEAM = ("bundled:red-team",)
TO_BE_REFUSED = "red-team"  # a tag of bundled prompts
Result = dict[str, Any]


def revise(
    config: Config,
    output: Path,
    progress: Progress,
    *,
    prompts: Sequence[str] = (),
    completions: Sequence[Path] = (),
    tune: bool = True,
) -> Result:
    """prompts: files or bundled:NAME in place of prompts.files. completions: answers to them that are not asked for again.

    Run again, it asks once more for texts that a server did not write.

    tune: fine-tune on what was kept. Returns what the pages list. Raises DataError where nothing was kept to learn from.
    """
    progress = telling(output, progress)
    work = _Work(config, output, tuple(prompts) or config.prompts.files or RED_TEAM, completions, progress)
    with Run(output) as run:
        run.keep_config(to_toml(config), lambda path: says(path, config))
        if _unanswered(config, output / STAGE / RESULT):
            run.reopen(STAGE)  # what the server did not answer is asked for again, and nothing else
        if not run.stage(STAGE, work, settings=work.settings, inputs=work.inputs):
            progress(STAGE, 1, 1, "already done")
        found: Result = read_json(output / STAGE / RESULT)
    if not tune:
        return found
    if not found["num_kept"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found["chains"].items() if count)
        raise DataError(
            f"no revision of {found['num_prompts']} was kept ({reasons}), so there is nothing to fine-tune on; read "
            f"{output / STAGE / CHAINS}, then loosen a rule of [revise], draw more revisions, or let a larger model write"
        )
    files = {"completions": [output / STAGE / COMPLETIONS], "prompts": [output / STAGE / PROMPTS]}
    return found | {"sft": align_sft(config, output, progress, **files)}


def _unanswered(config: Config, result: Path) -> bool:
    """Whether a finished stage lacks texts that another try may bring: a local model fails the same way each time."""
    section = config.revise.feedback
    return section is not None and section.remote and result.is_file() and read_json(result).get("num_unanswered", 0) > 0


def told(found: Result) -> list[str]:
    """The verdicts that chains or revisions have, in the order of the rules."""
    counts = (found["chains"], found["revisions"])
    return [reason for reason in (KEPT, *CHAIN_REASONS, *REASONS[-1:]) if any(count.get(reason) for count in counts)]


@dataclass(frozen=True)
class _Work:
    """The stage's work, and what decides its results."""

    config: Config
    output: Path
    sources: tuple[str, ...]
    completions: Sequence[Path]
    progress: Progress

    @property
    def constitution(self) -> Constitution:
        return load(self.config.revise.constitution)

    @property
    def settings(self) -> dict[str, Any]:
        config, section = self.config, self.config.revise
        shared = {"seed": config.seed, "model": config.model.for_results(), "prompts": self.sources}
        shared |= {"max_prompts": config.prompts.num_train, "constitution": self.constitution.model_dump(mode="json")}
        if section.scorer == "reward":
            shared["reward"] = config.reward.model_dump(mode="json", include={"terms", "aggregate", "disagreement_coef"})
        return section.model_dump(mode="json", exclude={"constitution"}) | shared

    @property
    def inputs(self) -> list[Path]:
        section = self.config.revise
        files = [*files_in(self.sources), *self.completions, *files_in(section.helpful_prompts)]
        files += map(Path, section.helpful_completions)
        files += own_folders(self.config.model.source, section.feedback.source if section.feedback else None)
        if section.scorer == "reward":
            files += [path for term in self.config.reward.terms for path in local_inputs(term)]
        return files

    def __call__(self) -> None:
        config, section, folder = self.config, self.config.revise, self.output / STAGE
        prompts = _to_train(gathered(self.sources), config)
        given = _given(self.completions, prompts)
        writer = _open(config, self.output / CALLS)
        reviser = Reviser(
            self.constitution,
            writer.writer,
            name=writer.name,
            settings=section,
            seed=config.seed,
            score=_scorer(
                config, self.constitution, self.output / CALLS, lambda done, total: self.progress("score", done, total, "")
            ),
            progress=partial(self.progress, STAGE),
        )
        chains = reviser(prompts, given, lambda stand: write_jsonl(folder / CHAINS, stand))
        write_jsonl(folder / CHAINS, chains)
        kept = kept_revisions(chains, section)
        wanted = num_helpful(len(kept.completions), section.helpful_share)
        helpful = self._helpful(writer, wanted)
        write_jsonl(folder / PROMPTS, gather((("the red team", kept.prompts), ("revise.helpful_prompts", helpful.prompts))))
        write_jsonl(folder / COMPLETIONS, [*kept.completions, *helpful.completions])
        told = {"num_helpful_wanted": wanted, "num_helpful": len(helpful.completions), "helpful_left_out": helpful.counts}
        if len(helpful.completions) < wanted:
            print(f"{len(helpful.completions)} helpful answers were found where {wanted} were wanted", file=sys.stderr)
        write_json(folder / RESULT, counts_of(chains) | told | {"usage": writer.usage.as_dict()})

    def _helpful(self, writer: Feedback, count: int) -> Examples:
        """Helpful answers to prompts that are not those of the red team."""
        config, section = self.config, self.config.revise
        if not count:
            return Examples([], [], {})
        available = gathered(section.helpful_prompts or ("bundled:prompts",))
        found = [prompt for prompt in available if prompt.split != "heldout"]
        if not section.helpful_prompts:
            found = [prompt for prompt in found if TO_BE_REFUSED not in prompt.tags]
        if section.helpful_completions:
            records = [record for file in section.helpful_completions for record in read_completions(Path(file))]
            heldout = {prompt.id for prompt in available if prompt.split == "heldout"}
            return given_answers(found, [one for one in records if one.prompt_id not in heldout], count, seed=config.seed)
        return own_answers(
            found,
            writer.writer,
            count,
            name=writer.name,
            settings=section,
            seed=config.seed,
            progress=partial(self.progress, "helpful"),
        )


def _to_train(prompts: Sequence[Prompt], config: Config) -> list[Prompt]:
    """Prompts that may be trained on, at most prompts.num_train, drawn so that tags keep their shares."""
    found = [prompt for prompt in prompts if prompt.split != "heldout"]
    if not found:
        raise DataError(f"all {len(prompts)} prompts are held out, and none may be trained on; mark some 'train'")
    return choose(found, config.prompts.num_train, config.seed)


def _given(files: Sequence[Path], prompts: Sequence[Prompt]) -> dict[str, Given]:
    """The first completion of each prompt."""
    records: dict[str, Completion] = {}
    for file in files:
        for record in read_completions(file):
            records.setdefault(record.prompt_id, record)
    known = by_id(prompts)
    if files and not set(records) & set(known):
        raise DataError(f"{', '.join(map(str, files))}: no completion answers one of the {len(known)} prompts; check --prompts")
    return {id_: Given(one.text, one.finish, one.model) for id_, one in records.items() if id_ in known}


def _open(config: Config, calls: Path) -> Feedback:
    """Who writes: [revise.feedback], or else the model of [model] with the adapter that its folder brings."""
    if config.revise.feedback is not None:
        return open_feedback(config.revise.feedback, calls)
    model = _model(config)
    return local_feedback(model, adapter_of(model), name=config.model.source, identity=_identity(config), calls=Calls(calls))


def _model(config: Config) -> LanguageModel:
    device = choose_device()
    return load_language_model(config.model.source, dtype=choose_dtype(config.model.dtype, device), device=device)


def _identity(config: Config) -> str:
    return f"{config.model.source} {file_hash(resolve(config.model.source))}"


def _scorer(config: Config, constitution: Constitution, calls: Path, told: Callable[[int, int], None]) -> Score | None:
    """What must call a revision better than the answer; its numbers are kept among the calls. Opened when it is first asked."""
    section = config.revise
    if section.scorer == "off":
        return None
    if section.scorer == "reward":
        if not config.reward.terms or any(term.source == "trained" for term in config.reward.terms):
            raise ConfigError(
                "revise.scorer = 'reward': name a reward that exists, by --reward-model or [[reward.terms]], or set "
                "revise.scorer to 'contrastive'"
            )
        terms = [json.dumps(term.identity) for term in config.reward.terms]
        parts = [file_hash(path) for term in config.reward.terms for path in local_inputs(term)]
        return JournaledScore(_Opened(lambda: _reward(config)), " ".join(["reward", *terms, *parts]), Calls(calls), told)
    principles = sorted((one for one in constitution.tagged(section.tags) if one.good), key=lambda one: -one.weight)
    contrasts = [Contrast(one.good, one.bad, one.weight) for one in principles[: section.contrasts or None]]
    identity = f"contrastive {_identity(config)} {config.model.dtype} {contrasts}"
    return JournaledScore(_Opened(lambda: Contrastive(_model(config), contrasts)), identity, Calls(calls), told)


class _Opened:
    """A score that is opened when it is first asked, which a journal may make needless."""

    def __init__(self, opener: Callable[[], Score]) -> None:
        self.opener = opener
        self.score: Score | None = None

    def __call__(self, texts: Texts) -> Sequence[float]:
        if self.score is None:
            self.score = self.opener()
        return self.score(texts)


def _reward(config: Config) -> Score:
    judge = Judge(config)

    def score(texts: Texts) -> list[float]:
        answers = [judge.answer(messages, text, finished=True) for messages, text in texts]
        rewards = judge.reward(answers)
        require_finite_rewards(rewards, answers)
        return rewards

    return score
