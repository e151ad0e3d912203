"""The whole flow, top to bottom: sample, label, consensus, reward, ppo, evaluate, report.

Each stage reads files of the run directory and writes its own folder there, so each can be looked at, replaced, or run again
alone. An interrupted run goes on in the stage, and inside long stages at the batch or checkpoint, where it stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from heedful import __version__
from heedful.align_stage import Gold, new_method, rubric_gold, settings_of, train_watched
from heedful.config import RUBRIC, Config, MonitorSection, RewardTermSection, says, to_toml
from heedful.data.bundled import choose, split
from heedful.data.formats import read_preferences
from heedful.engine.device import choose_device, choose_dtype, compile_where_told, peak_memory
from heedful.engine.episodes import World
from heedful.engine.generation import Decoding
from heedful.engine.sampling import prompt_room, sample_completions, tokenise, tokens_of
from heedful.environments.reward import Earned
from heedful.environments.worlds import require_rewards_of_episodes, world_of
from heedful.errors import DataError, ModelError
from heedful.evaluate_stage import evaluate, phrases_of
from heedful.feedback.settlement import settle_into
from heedful.feedback.simulated import simulate
from heedful.fit import run_peak
from heedful.models.policy import POLICY, LanguageModel, load_base
from heedful.models.sources import local_file
from heedful.progress import Progress, telling
from heedful.prompt_files import files_in, gathered
from heedful.records import Completion, Judgement, Prompt, read_jsonl
from heedful.report.build import build
from heedful.report.card import write_cards
from heedful.reward_stage import read_run_pairs, train_reward
from heedful.rewards.mixture import Measuring, Reward
from heedful.rewards.source import TRAINED, Sources, local_inputs
from heedful.stages import all_stages, stages_of
from heedful.store import Run, read_json, write_json, write_jsonl
from heedful.team import team
from heedful.training import policy_gradient
from heedful.training.reward import is_heldout
from heedful.training.rollout import Question


class Pipeline:
    """A run of one configuration in one directory."""

    def __init__(
        self,
        config: Config,
        run: Run,
        progress: Progress,
        command: str = "heedful run",
        reward_folder: Path | str | None = None,
    ) -> None:
        """reward_folder: any source of rewards, in place of those that the configuration names."""
        self.config = config
        self.run = run
        self.path = run.path
        self.command = command
        self.settings = settings_of(config)  # of the method that optimises the policy
        self.progress = telling(run.path, progress)
        given = (RewardTermSection(source=str(reward_folder)),) if reward_folder is not None else config.reward.terms
        self.acts = config.environment.kind != "prompts"  # in an environment, which pays by itself
        self.terms = given or (() if self.acts else (RewardTermSection(),))
        self.trains_reward = any(term.source == TRAINED for term in self.terms)
        require_rewards_of_episodes(config, self.trains_reward)
        self.freshly_trained: Reward | None = None
        self.longest_prompt = 0  # in tokens, of those that the method was given in this process
        self.device = choose_device()
        self.dtype = choose_dtype(config.model.dtype, self.device)
        # Pairs or labels that people made elsewhere take the place of the first three stages.
        self.ready_made = bool(config.reward.preferences or config.reward.labelled.files)

    def __call__(self, from_stage: str | None = None, until: str | None = None) -> dict[str, Any]:
        """Runs what is not finished yet; from_stage: this one and all after it anew; until: none after this one.

        Returns the summary, or nothing when the report was not reached.
        """
        config = self.config
        stages = stages_of(config, from_stage, until)
        self.run.check(stages, self.named)
        if from_stage is not None:
            self.run.forget_from(from_stage, all_stages(config), self.named)
        self.keep_config()

        def stage(name: str, work: Callable[[], None], settings: dict[str, Any], *inputs: Path) -> None:
            if name in stages:
                self.stage(name, work, settings, *inputs)

        if self.trains_reward and not self.ready_made:
            stage("sample", self.sample, config.sample.model_dump())
            judged = [Path(config.label.judgements)] if config.label.judgements else []
            stage("label", self.label, config.label.model_dump(exclude={"by"}), self.completions, *judged)
            kept: dict[str, Any] = {"include_ties": True} if config.reward.ties != "drop" else {}
            kept |= {"by": config.label.by} if config.label.by != "votes" else {}
            stage("consensus", self.consensus, kept, self.completions, self.judgements)
        if self.trains_reward:
            labels = [local_file(name) for name in (*config.reward.preferences, *config.reward.labelled.files)]
            pairs = labels or [self.preferences]
            stage("reward", self.reward, config.reward.model_dump(exclude={"terms"}), *pairs)
        stage(
            config.method,
            self.align,
            self.settings.model_dump() | self.reward_settings | self.watch_settings | self.world_settings,
            *self.align_inputs,
        )
        # The draws depend on which prompts share a batch.
        asked = config.evaluate.model_dump() | self.reward_settings | {"batch_rows": config.sample.batch_rows}
        asked |= self.world_settings
        stage("evaluate", self.evaluate, asked, *self.reward_inputs, self.policy_folder)
        stage("report", self.report, {}, self.path / "evaluate" / "compare.json", self.path / "metrics.jsonl")
        return dict(read_json(self.path / "summary.json")) if "report" in stages and team().rank == 0 else {}

    def keep_config(self) -> None:
        self.run.keep_config(to_toml(self.config), lambda path: says(path, self.config))

    def align_alone(self) -> dict[str, Any]:
        """The method alone, against a reward that exists. Returns the number of steps and why it stopped."""
        name = self.config.method
        self.run.check([name], self.named)
        self.keep_config()
        self.stage(
            name,
            self.align,
            self.settings.model_dump() | self.reward_settings | self.watch_settings | self.world_settings,
            *self.align_inputs,
        )
        write_cards(self.path)
        return dict(read_json(self.path / name / "result.json"))

    def stage(self, name: str, work: Callable[[], None], settings: dict[str, Any], *inputs: Path) -> None:
        """One stage, unless it is done already with these settings and inputs."""
        config = self.config
        shared = {"model": config.model.for_results(), "prompts": config.prompts.model_dump(), "seed": config.seed}
        prompts = files_in(config.prompts.files)
        self.progress(name, 0, 0, "")
        ran = self.run.stage(name, work, settings=json.loads(json.dumps(shared | settings)), inputs=[*prompts, *inputs])
        self.progress(name, 1, 1, "" if ran else "already done")

    # Where things are

    completions = property(lambda self: self.path / "sample" / "completions.jsonl")
    judgements = property(lambda self: self.path / "label" / "judgements.jsonl")
    preferences = property(lambda self: self.path / "consensus" / "preferences.jsonl")
    policy_folder = property(lambda self: self.path / self.config.method / "policy")
    trained_folder = property(lambda self: self.path / "reward" / "model")

    @property
    def named(self) -> list[Path]:
        """Files and folders that the configuration names; no stage may clear them away."""
        config = self.config
        files = (
            *config.prompts.files,
            *config.environment.documents,
            *config.reward.preferences,
            *config.reward.labelled.files,
            config.label.judgements,
        )
        named = [Path(name).expanduser() for name in (*files, config.model.source, config.reward.model) if name]
        return named + [path for term in (*self.terms, *self.gold_terms) for path in local_inputs(term)]

    @property
    def gold_terms(self) -> tuple[RewardTermSection, ...]:
        """The reward that the policy does not learn from, where it is a source."""
        source = self.config.monitor.gold
        return (RewardTermSection(source=source),) if source not in ("", RUBRIC) else ()

    @property
    def reward_settings(self) -> dict[str, Any]:
        """What of the settings makes the reward, other than the trained model's."""
        if self.terms == (RewardTermSection(),):
            return {}
        section = self.config.reward
        shared = {"aggregate": section.aggregate, "disagreement_coef": section.disagreement_coef}
        return {"reward": shared | {"terms": [term.model_dump() for term in self.terms]}}

    @property
    def watch_settings(self) -> dict[str, Any]:
        """What of the monitor's settings can change the policy; none of the defaults does."""
        section = self.config.monitor
        return {} if section == MonitorSection() else {"monitor": section.model_dump()}

    @property
    def world_settings(self) -> dict[str, Any]:
        """What of the settings makes the environment, where it is more than a prompt set."""
        return {"environment": self.config.environment.model_dump()} if self.acts else {}

    @property
    def reward_inputs(self) -> list[Path]:
        """Files and folders that the reward is made of; the documents that an environment reads among them."""
        trained = [self.trained_folder] if self.trains_reward else []
        trained += [Path(name) for name in self.config.environment.documents] if self.acts else []
        return trained + [path for term in self.terms for path in local_inputs(term)]

    @property
    def align_inputs(self) -> list[Path]:
        return self.reward_inputs + [path for term in self.gold_terms for path in local_inputs(term)]

    @cached_property
    def model(self) -> LanguageModel:
        wanted = self.config.model
        model = load_base(wanted.source, dtype=self.dtype, device=self.device, recompute=wanted.recompute)
        return compile_where_told(model, wanted.compile)

    @cached_property
    def prompts(self) -> dict[str, list[Prompt]]:
        """Prompts by split, chosen from the files or from the bundled ones."""
        settings = self.config.prompts
        available = gathered(settings.files or ("bundled:prompts",))
        if not any(prompt.split for prompt in available):
            available = [p.model_copy(update={"split": self._side(i, p)}) for i, p in enumerate(available)]
        numbers = {"train": settings.num_train, "heldout": settings.num_heldout}
        found = {name: choose(split(available, name), number, self.config.seed) for name, number in numbers.items()}
        for name, prompts in found.items():
            if not prompts:
                raise DataError(f"there is no prompt with split {name!r}; mark some so in prompts.files")
        return found

    def _side(self, place: int, prompt: Prompt) -> str:
        """Of a prompt without a split. What the reward model learned from can not be held out here."""
        if self.ready_made:
            held_out = is_heldout(prompt.id, self.config.reward.heldout_share, self.config.seed)
        else:
            held_out = place % 3 == 2
        return "heldout" if held_out else "train"

    def questions(self, name: str) -> list[Question]:
        """Prompts of a split as the policy reads them; those that do not fit are left out."""
        world = self.world
        room = prompt_room(
            self.model,
            max_prompt_tokens=self.config.prompts.max_prompt_tokens,
            max_new_tokens=self.settings.max_new_tokens,
            observed_tokens=world.observed_tokens if world else 0,
        )
        asked = world.opened(self.prompts[name]) if world else self.prompts[name]
        tokens, too_long = tokenise(self.model, asked, max_tokens=room)
        if too_long:
            print(f"{len(too_long)} {name} prompts are longer than {room} tokens and were left out", file=sys.stderr)
        self.longest_prompt = max([self.longest_prompt, *map(len, tokens.values())])
        return [Question(p.id, p.messages, tokens[p.id]) for p in asked if p.id in tokens]

    @cached_property
    def world(self) -> World | None:
        """What the policy acts in; none where it merely answers prompts."""
        return world_of(self.config.environment, [prompt for some in self.prompts.values() for prompt in some])

    def bar(self, stage: str) -> Callable[[int, int, str], None]:
        return lambda done, total, note: self.progress(stage, done, total, note)

    # The stages

    def sample(self) -> None:
        settings = self.config.sample
        write_jsonl(self.path / "sample" / "prompts.jsonl", self.prompts["train"])
        sample_completions(
            self.model,
            self.prompts["train"],
            self.completions,
            Decoding(settings.temperature, settings.top_p, settings.max_new_tokens),
            adapter=None,
            name=self.config.model.source,
            policy_version="base",
            num_completions=settings.num_completions,
            batch_rows=settings.batch_rows,
            max_prompt_tokens=self.config.prompts.max_prompt_tokens,
            seed=self.config.seed,
            progress=self.bar("sample"),
        )

    def label(self) -> None:
        settings = self.config.label
        if settings.judgements:
            judgements = read_jsonl(Path(settings.judgements), Judgement, unique="id")
        else:
            judgements = simulate(
                self.prompts["train"],
                read_jsonl(self.completions, Completion, unique="id"),
                num_labelers=settings.num_labelers,
                num_careless=settings.num_careless,
                noise=settings.noise,
                criterion=settings.criterion,
                seed=self.config.seed,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        write_jsonl(self.judgements, judgements)

    def consensus(self) -> None:
        completions = read_jsonl(self.completions, Completion, unique="id")
        judgements = read_jsonl(self.judgements, Judgement, unique="id")
        kept = self.config.reward.ties != "drop"
        settle_into(
            self.path / "consensus", self.prompts["train"], completions, judgements, include_ties=kept, by=self.config.label.by
        )

    def reward(self) -> None:
        settings = self.config.reward
        if self.ready_made:
            pairs = [pair for file in settings.preferences for pair in read_preferences(local_file(file))]
            written: dict[tuple[str, str], list[int]] = {}
        else:
            completions = read_jsonl(self.completions, Completion)
            pairs = read_run_pairs(self.preferences, completions)
            written = {(c.prompt_id, c.text): tokens_of(self.model, c) for c in completions}
        self.freshly_trained, result = train_reward(
            self.model,
            settings,
            self.path / "reward",
            pairs=pairs,
            written=written,
            seed=self.config.seed,
            device=self.device,
            num_resamples=self.config.evaluate.num_resamples,
            progress=self.bar("reward"),
        )
        write_json(self.path / "reward" / "result.json", result)

    @cached_property
    def sources(self) -> Sources:
        section = self.config.reward
        trained = RewardTermSection(source=str(self.trained_folder))
        return Sources(
            self.model,
            dtype=self.dtype,
            device=self.device,
            trained=lambda: self.freshly_trained or self.sources.reward(trained),
            aggregate=section.aggregate,
            coef=section.disagreement_coef,
            compiling=self.config.model.compile,
        )

    @cached_property
    def reward_function(self) -> Reward:
        """The weighted sum of what the configuration names; the trained reward model alone where it names nothing. In an
        environment what was earned there, and the sum of what the configuration names on top of it.
        """
        if self.acts:
            return Earned(self.sources.mixture(self.terms) if self.terms else None)
        return self.sources.mixture(self.terms)

    def score(self, answers: Any) -> list[float]:
        return self.reward_function(answers)

    def align(self) -> None:
        name = self.config.method
        reward = Measuring(self.score, self.reward_function)
        method = new_method(self.config, self.model, reward, self.questions("train"), self.questions("heldout"))
        method.world = self.world
        found = train_watched(method, self.path / name, self.config, self.prompts["heldout"], self.gold, self.bar(name))
        version = f"{name}-{self.config.seed}-{found['policy_step']}"
        policy_gradient.save(method, self.policy_folder, policy_version=version)
        write_json(self.path / name / "result.json", found)

    @property
    def gold(self) -> Gold | None:
        """The reward that the policy does not learn from."""
        if self.config.monitor.gold == RUBRIC:
            return rubric_gold(self.prompts["heldout"])
        return next((self.sources.reward(term) for term in self.gold_terms), None)

    def evaluate(self) -> None:
        _ = self.reward_function
        if POLICY not in self.model.adapters:
            self.model.load_adapter(POLICY, self.policy_folder)
        evaluate(
            self.model,
            self.prompts["heldout"],
            self.path / "evaluate",
            score=self.score,
            settings=self.config.evaluate,
            batch_rows=self.config.sample.batch_rows,
            max_prompt_tokens=self.config.prompts.max_prompt_tokens,
            seed=self.config.seed,
            progress=self.bar("evaluate"),
            world=self.world,
        )

    def report(self) -> None:
        write_json(self.path / "summary.json", self.summary())
        build(self.path)

    def summary(self) -> dict[str, Any]:
        """What came out, in one object."""
        path = self.path
        judged = self.trains_reward and not self.ready_made
        labelled = read_json(path / "consensus" / "agreement.json") if judged else {}
        labelers = read_json(path / "consensus" / "labelers.json") if judged else []
        trained = {"reward_model": read_json(path / "reward" / "result.json")} if self.trains_reward else {}
        done = self.run.manifest["stages"]
        return {
            "model": self.config.model.source,
            "seed": self.config.seed,
            "heedful_version": __version__,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.command,
            **read_json(path / "evaluate" / "compare.json"),
            "phrases": phrases_of(path / "evaluate"),
            "kl_target": self.settings.kl_target,
            **trained,
            "align": read_json(path / self.config.method / "result.json"),
            "labelers": labelers,
            "agreement": labelled,
            "simulated_labelers": judged and not self.config.label.judgements,
            "counts": {name: len(prompts) for name, prompts in self.prompts.items()},
            "seconds": {name: done[name]["seconds"] for name in all_stages(self.config) if "seconds" in done.get(name, {})},
            # Of this process: a run that was resumed has had others.
            "peak_memory_mb": round(peak_memory() / 2**20, 1),
            "predicted_memory_mb": self.predicted_memory_mb(),
        }

    def predicted_memory_mb(self) -> float | None:
        """What the peak should have been. None where the method did not run in this process, and where no prediction is made:
        on a GPU, for rewards that are no adapter on the base, and for models of other families.
        """
        if not self.longest_prompt or self.device.type != "cpu" or self.config.reward.model or not self.trains_reward:
            return None
        try:
            return round(run_peak(self.config, longest_prompt=self.longest_prompt) / 2**20, 1)
        except ModelError:
            return None
