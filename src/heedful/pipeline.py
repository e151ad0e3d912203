"""The whole flow, top to bottom: sample, label, consensus, reward, ppo, evaluate, report.

Each stage reads files of the run directory and writes its own folder there, so each can be looked at, replaced, or run again
alone. An interrupted run goes on in the stage, and inside long stages at the batch or checkpoint, where it stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from heedful.config import RUBRIC, Config, RewardTermSection, says, to_toml
from heedful.data.bundled import choose, split
from heedful.data.formats import read_preferences
from heedful.engine.device import choose_device, choose_dtype, compile_where_told
from heedful.engine.episodes import World
from heedful.engine.generation import Decoding
from heedful.engine.sampling import prompt_room, sample_completions, tokenise, tokens_of
from heedful.environments.reward import Earned
from heedful.environments.worlds import require_rewards_of_episodes, world_of
from heedful.errors import DataError
from heedful.feedback.settlement import settle_into
from heedful.models.policy import POLICY, LanguageModel, load_base
from heedful.models.sources import local_file
from heedful.progress import Progress, telling
from heedful.prompt_files import files_in, gathered
from heedful.records import Completion, Judgement, Prompt, read_jsonl
from heedful.report.build import build
from heedful.report.card import write_cards
from heedful.rewards.mixture import Measuring, Reward
from heedful.rewards.personal import require_known_persons
from heedful.rewards.source import Sources, require_patience
from heedful.rounds import Round
from heedful.run_layout import Layout
from heedful.run_summary import summarise
from heedful.stage_names import all_stages, stages_of
from heedful.stages.align import Gold, new_method, rubric_gold, settings_of, train_watched, vllm_server
from heedful.stages.evaluate import evaluate
from heedful.stages.label import label, require_judges
from heedful.stages.reward import read_run_pairs, train_reward
from heedful.store import Run, read_json, write_json, write_jsonl
from heedful.team import team
from heedful.thumbs import thumbs_reward
from heedful.training import policy_gradient
from heedful.training.reward import is_heldout
from heedful.training.rollout import Question
from heedful.versions import version_of


class Pipeline:
    """A run of one configuration in one directory."""

    def __init__(
        self,
        config: Config,
        run: Run,
        progress: Progress,
        command: str = "heedful run",
        reward_folder: Path | str | None = None,
        round_: Round | None = None,
    ) -> None:
        """reward_folder: any source of rewards, in place of those that the configuration names. round_: of several."""
        self.config = config
        self.round = round_ or Round()
        self.run = run
        self.path = run.path
        self.command = command
        self.settings = settings_of(config)  # of the method that optimises the policy
        self.progress = telling(run.path, progress)
        given = (RewardTermSection(source=str(reward_folder)),) if reward_folder is not None else config.reward.terms
        acts = config.environment.kind != "prompts"  # in an environment, which pays by itself
        self.layout = Layout(config, run.path, self.round, given or (() if acts else (RewardTermSection(),)))
        require_rewards_of_episodes(config, self.layout.trains_reward)
        require_known_persons(self.layout.terms)
        require_patience(self.layout.terms, config.scale)
        self.freshly_trained: Reward | None = None
        self.held: Path | None = None  # whose weights the adapter "policy" has, in this process
        self.longest_prompt = 0  # in tokens, of those that the method was given in this process
        self.device = choose_device()
        self.dtype = choose_dtype(config.model.dtype, self.device)

    def __call__(self, from_stage: str | None = None, until: str | None = None) -> dict[str, Any]:
        """Runs what is not finished yet; from_stage: this one and all after it anew; until: none after this one.

        Returns the summary, or nothing when the report was not reached.
        """
        config, layout = self.config, self.layout
        stages = stages_of(config, from_stage, until)
        self.run.check(stages, layout.named)
        if from_stage is not None:
            self.run.forget_from(from_stage, all_stages(config), layout.named)
        self.keep_config()

        def stage(name: str, work: Callable[[], None], settings: dict[str, Any], *inputs: Path) -> None:
            if name in stages:
                self.stage(name, work, settings, *inputs)

        if layout.trains_reward and not layout.ready_made:
            require_judges(config)
            stage("sample", self.sample, config.sample.model_dump() | layout.sampled_settings, *layout.start)
            judged = [Path(config.label.judgements)] if config.label.judgements else []
            asked_of = config.label.model_dump(exclude={"by"}) | layout.judge_settings
            stage("label", self.label, asked_of, layout.completions, *judged)
            kept: dict[str, Any] = {"include_ties": True} if config.reward.ties != "drop" else {}
            kept |= {"by": config.label.by} if config.label.by != "votes" else {}
            stage("consensus", self.consensus, kept, layout.completions, layout.judgements)
        if layout.trains_reward:
            labels = [local_file(name) for name in (*config.reward.preferences, *config.reward.labelled.files)]
            pairs = labels or [*layout.earlier_preferences, layout.preferences]
            stage("reward", self.reward, config.reward.model_dump(exclude={"terms"}), *pairs)
        stage(config.method, self.align, layout.align_settings, *layout.align_inputs)
        # The draws depend on which prompts share a batch.
        asked = config.evaluate.model_dump() | layout.reward_settings | {"batch_rows": config.sample.batch_rows}
        asked |= layout.world_settings
        stage("evaluate", self.evaluate, asked, *layout.reward_inputs, layout.policy_folder)
        stage("report", self.report, {}, self.path / "evaluate" / "compare.json", self.path / "metrics.jsonl")
        return dict(read_json(self.path / "summary.json")) if "report" in stages and team().rank == 0 else {}

    def keep_config(self) -> None:
        self.run.keep_config(to_toml(self.config), lambda path: says(path, self.config))

    def align_alone(self) -> dict[str, Any]:
        """The method alone, against a reward that exists. Returns the number of steps and why it stopped."""
        name, layout = self.config.method, self.layout
        self.run.check([name], layout.named)
        self.keep_config()
        self.stage(name, self.align, layout.align_settings, *layout.align_inputs)
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

    @property
    def judged_prompts(self) -> list[Prompt]:
        """Training prompts whose completions are judged in this round."""
        return self.round.share(self.prompts["train"], self.config.round.num_prompts)

    def hold(self, folder: Path) -> None:
        """Gives the adapter "policy" the weights that were saved in a folder."""
        if self.held != folder:
            self.model.load_adapter(POLICY, folder)
            self.held = folder

    def _side(self, place: int, prompt: Prompt) -> str:
        """Of a prompt without a split. What the reward model learned from can not be held out here."""
        if self.layout.ready_made:
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
        settings, start = self.config.sample, self.round.start
        write_jsonl(self.path / "sample" / "prompts.jsonl", self.judged_prompts)
        if start:
            self.hold(start)
        sample_completions(
            self.model,
            self.judged_prompts,
            self.layout.completions,
            Decoding(settings.temperature, settings.top_p, settings.max_new_tokens),
            adapter=POLICY if start else None,
            name=self.config.model.source,
            policy_version=version_of(start) if start else "base",
            num_completions=settings.num_completions,
            batch_rows=settings.batch_rows,
            max_prompt_tokens=self.config.prompts.max_prompt_tokens,
            seed=self.round.seed(self.config.seed),
            progress=self.bar("sample"),
        )

    def label(self) -> None:
        label(self.config, self.path, self.round, self.judged_prompts, self.layout.completions, self.progress)

    def consensus(self) -> None:
        completions = read_jsonl(self.layout.completions, Completion, unique="id")
        judgements = read_jsonl(self.layout.judgements, Judgement, unique="id")
        kept = self.config.reward.ties != "drop"
        settle_into(
            self.path / "consensus", self.judged_prompts, completions, judgements, include_ties=kept, by=self.config.label.by
        )

    def reward(self) -> None:
        settings = self.config.reward
        if self.layout.ready_made:
            pairs = [pair for file in settings.preferences for pair in read_preferences(local_file(file))]
            written: dict[tuple[str, str], Sequence[int]] = {}
        else:
            pairs, written = [], {}
            for folder in (*self.round.earlier, self.path):  # all judgements so far
                completions = read_jsonl(folder / "sample" / "completions.jsonl", Completion)
                pairs += read_run_pairs(folder / "consensus" / "preferences.jsonl", completions)
                written |= {(c.prompt_id, c.text): tokens_of(self.model, c) for c in completions}
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
        trained = RewardTermSection(source=str(self.layout.trained_folder))
        return Sources(
            self.model,
            dtype=self.dtype,
            device=self.device,
            trained=lambda: self.freshly_trained or self.sources.reward(trained),
            aggregate=section.aggregate,
            coef=section.disagreement_coef,
            compiling=self.config.model.compile,
            thumbs=lambda: thumbs_reward(
                self.config, self.path, [*self.prompts["train"], *self.prompts["heldout"]], self.progress
            ),
        )

    @cached_property
    def reward_function(self) -> Reward:
        """The weighted sum of what the configuration names; the trained reward model alone where it names nothing. In an
        environment what was earned there, and the sum of what the configuration names on top of it.
        """
        terms = self.layout.terms
        if self.layout.acts:
            return Earned(self.sources.mixture(terms) if terms else None)
        return self.sources.mixture(terms)

    def score(self, answers: Any) -> list[float]:
        return self.reward_function(answers)

    def align(self) -> None:
        name = self.config.method
        reward = Measuring(self.score, self.reward_function)
        own = self.config.model_copy(update={"seed": self.round.seed(self.config.seed)})
        if self.round.start:
            self.hold(self.round.start)
        method = new_method(own, self.model, reward, self.questions("train"), self.questions("heldout"))
        if self.round.start:
            policy_gradient.take_critic(method, self.round.start)
        method.world = self.world
        self.held = None
        if server := vllm_server(self.config, self.path / name / "adapters"):
            method.ask_server(server)
        found = train_watched(method, self.path / name, self.config, self.prompts["heldout"], self.gold, self.bar(name))
        version = f"{name}-{self.config.seed}-{found['policy_step']}"
        version += f"-round{self.round.number}" if self.round.number > 1 else ""
        policy_gradient.save(method, self.layout.policy_folder, policy_version=version)
        self.held = self.layout.policy_folder
        write_json(self.path / name / "result.json", found)

    @property
    def gold(self) -> Gold | None:
        """The reward that the policy does not learn from."""
        if self.config.monitor.gold == RUBRIC:
            return rubric_gold(self.prompts["heldout"])
        return next((self.sources.reward(term) for term in self.layout.gold_terms), None)

    def evaluate(self) -> None:
        _ = self.reward_function
        self.hold(self.layout.policy_folder)
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
        judged = self.layout.trains_reward and not self.layout.ready_made
        counts = {name: len(prompts) for name, prompts in self.prompts.items()}
        found = summarise(
            self.config,
            self.run,
            command=self.command,
            judged=judged,
            trains_reward=self.layout.trains_reward,
            counts=counts,
            longest_prompt=self.longest_prompt if self.device.type == "cpu" else 0,
        )
        write_json(self.path / "summary.json", found)
        build(self.path)
