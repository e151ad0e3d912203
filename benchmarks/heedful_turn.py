"""One turn of heedful's side. Argument: the job file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from turn import Clock, even_share, marked_rows, read_job
from works import BATCH, BETA, EPISODES, GRPO_SAMPLES, PPO_EPOCHS, PPO_MINIBATCHES, RANK

from heedful.config import DPOSection, GRPOSection, KTOSection, LoraSection, PPOSection, RewardSection, SFTSection
from heedful.engine import scoring
from heedful.engine.device import choose_device, choose_dtype, compile_where_told
from heedful.engine.generation import Decoding, sample
from heedful.engine.responses import sum_logprobs
from heedful.models.policy import POLICY, REWARD, LanguageModel, load_language_model
from heedful.models.reward import AdapterReward, Answer, RewardHead
from heedful.training.dpo import DPO, read_references
from heedful.training.grpo import grpo
from heedful.training.kto import KTO, Marked, Weights, with_references
from heedful.training.loop import batch_of_step
from heedful.training.policy_gradient import PolicyGradient
from heedful.training.ppo import ppo
from heedful.training.reward import Group, Pair, PairwiseTraining
from heedful.training.rollout import Question
from heedful.training.sft import SFT

Job = dict[str, Any]
LORA = LoraSection(layers=0, rank=RANK)


def load(job: Job, *adapters: str) -> LanguageModel:
    """The base as heedful computes with it, and the adapters that both sides begin with."""
    device = choose_device()
    model = load_language_model(job["inputs"]["folders"]["bfloat16"], dtype=choose_dtype("auto", device), device=device)
    compile_where_told(model, "auto")
    for name in adapters:
        model.load_adapter(name, Path(job["inputs"]["folders"][name]))
    return model


def without_end(model: LanguageModel) -> LanguageModel:
    """No token ends an answer any more, so that each has exactly as many as the job says."""
    model.chat.eos_ids = ()
    return model


def answer(prompt_ids: list[int], response_ids: list[int]) -> Answer:
    return Answer((), "", prompt_ids, response_ids)


def rows_of(job: Job) -> list[dict[str, Any]]:
    """The pairs as the job lists them; `order` says in which order they are read."""
    return [job["inputs"]["pairs"][i] for i in job["examples"]]


def groups_of(job: Job) -> list[Group]:
    """The job's pairs, one a group."""
    return [
        Group(
            row["prompt_id"],
            [answer(row["prompt_ids"], row["chosen_ids"]), answer(row["prompt_ids"], row["rejected_ids"])],
            [Pair(0, 1, 1.0)],
        )
        for row in rows_of(job)
    ]


def whole(answers: Sequence[Answer]) -> list[list[int]]:
    """All tokens of each answer, its prompt's first."""
    return [a.prompt_ids + a.response_ids for a in answers]


def fixed_answers(job: Job) -> list[Answer]:
    return [answer(row["prompt_ids"], row["chosen_ids"]) for row in job["inputs"]["pairs"][:BATCH]]


def fixed_logprobs(job: Job, model: LanguageModel, adapter: str | None = POLICY) -> list[float]:
    """Of the first chosen answers under the policy as it begins, in nats."""
    return sum_logprobs(model, fixed_answers(job), adapter=adapter)


def reward_of(job: Job, model: LanguageModel) -> AdapterReward:
    """The reward model that both sides begin with, reading the last token."""
    reward = AdapterReward(model, RewardHead(model.hidden_size, "last"))
    with torch.no_grad():
        reward.head.linear.weight.copy_(torch.tensor([job["inputs"]["score_head"]]))
    return reward


def run_steps(
    job: Job,
    clock: Clock,
    step: Callable[[int], dict[str, float]],
    reads: Callable[[int], list[list[int]]],
    before: Callable[[list[int]], None] | None = None,
) -> None:
    """Warm-up and timed steps. before: work that is due once for the steps it is given; that of the timed ones counts."""
    warmup, steps = job["warmup"], job["warmup"] + job["steps"]
    clock.begin()
    for number in range(steps):
        if before and number in (0, warmup):
            clock.begin()
            before(list(range(number, warmup if number < warmup else steps)))
            seconds = clock.lap()
            clock.extra_s += seconds if number >= warmup else 0.0
        clock.read(reads(number))
        measured = step(number)
        if number == 0 and "loss" in measured:
            clock.facts["loss"] = measured["loss"]
        if "length" in measured:
            clock.facts.setdefault("new_tokens", []).append(round(measured["length"] * EPISODES))
        clock.end()
    clock.write(units_per_step=job["units"])


def batch_at(job: Job, step: int) -> list[int]:
    return batch_of_step(step, len(job["examples"]), job["batch"], 0)


def dpo(job: Job, clock: Clock) -> None:
    """The reference's log-probs of the timed pairs are read once, and that time counts: with one epoch it is paid once."""
    model, groups = load(job, POLICY), groups_of(job)
    clock.facts["logprobs"] = fixed_logprobs(job, model)
    references: dict[str, Any] = {}
    settings = DPOSection(lora=LORA, batch_prompts=job["batch"], beta=BETA)
    training = DPO(model, groups, [], references, settings=settings, num_steps=len(job["order"]), seed=0)

    def reads(step: int) -> list[list[int]]:
        return [row for i in batch_at(job, step) for row in whole(groups[i].answers)]

    with tempfile.TemporaryDirectory() as folder:

        def refer(steps: list[int]) -> None:
            listed = [groups[i] for step in steps for i in batch_at(job, step)]
            references.update(read_references(model, listed, Path(folder) / f"{steps[0]}.jsonl"))

        if job["work"] == "train":  # forward and backward alone, so all references before the clock
            refer(list(range(job["warmup"] + job["steps"])))
            run_steps(job, clock, training.step, reads)
        else:
            run_steps(job, clock, training.step, reads, refer)


def linear(job: Job, clock: Clock) -> None:
    """The work of DPO on more and more pairs a step; `sizes` gets seconds and tokens of each."""
    model, groups = load(job, POLICY), groups_of(job)
    clock.facts["sizes"] = []
    first = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, size in enumerate([job["sizes"][0], *job["sizes"]]):
            some = groups[first : first + size]
            first += size
            clock.begin()
            references = read_references(model, some, Path(folder) / f"{number}.jsonl")
            settings = DPOSection(lora=LORA, batch_prompts=size, beta=BETA)
            DPO(model, some, [], references, settings=settings, num_steps=1, seed=0).step(0)
            clock.read([row for group in some for row in whole(group.answers)])
            num_tokens = sum(map(len, clock.rows[-1]))
            clock.end()
            if number >= job["warmup"]:
                clock.facts["sizes"].append({"pairs": size, "num_tokens": num_tokens, "seconds": clock.seconds[-1]})
    clock.write(units_per_step=sum(job["sizes"]) / len(job["sizes"]))


def reward(job: Job, clock: Clock) -> None:
    model, groups = load(job, REWARD), groups_of(job)
    judge = reward_of(job, model)
    clock.facts["rewards"] = scoring.rewards(judge, fixed_answers(job))
    settings = RewardSection(lora=LORA, batch_prompts=job["batch"], pooling="last", center_weight=0.0)
    training = PairwiseTraining(judge, groups, [], settings=settings, num_steps=len(job["order"]), seed=0)
    run_steps(job, clock, training.step, lambda step: [row for i in batch_at(job, step) for row in whole(groups[i].answers)])


def sft(job: Job, clock: Clock) -> None:
    model = load(job, POLICY)
    clock.facts["logprobs"] = fixed_logprobs(job, model)
    answers = [answer(row["prompt_ids"], row["chosen_ids"]) for row in rows_of(job)]
    settings = SFTSection(lora=LORA, batch_completions=job["batch"])
    training = SFT(model, answers, [], settings=settings, num_steps=len(job["order"]), seed=0)
    run_steps(job, clock, training.step, lambda step: whole([answers[i] for i in batch_at(job, step)]))


def kto(job: Job, clock: Clock) -> None:
    """The reference is read once and counted, as in DPO."""
    model = load(job, POLICY)
    clock.facts["logprobs"] = fixed_logprobs(job, model)
    examples: list[Any] = [None] * len(job["examples"])
    for row in marked_rows(job):
        own, lent = (answer(row["prompt_ids"], row[key]) for key in ("completion_ids", "KL_completion_ids"))
        examples[row["example"]] = Marked(str(row["example"]), own, row["label"], lent)
    settings = KTOSection(lora=LORA, batch_completions=job["batch"], beta=BETA)
    training = KTO(model, examples, [], settings=settings, weights=Weights(1.0, 1.0), num_steps=len(job["order"]), seed=0)

    def reads(step: int) -> list[list[int]]:
        some = [examples[i] for i in batch_at(job, step)]
        return whole([example.answer for example in some] + [example.mismatched for example in some])

    with tempfile.TemporaryDirectory() as folder:

        def refer(steps: list[int]) -> None:
            places = [i for step in steps for i in batch_at(job, step)]
            found = with_references(model, [examples[i] for i in places], Path(folder) / f"{steps[0]}.jsonl")
            for place, example in zip(places, found, strict=True):
                examples[place] = replace(example)

        run_steps(job, clock, training.step, reads, refer)


def online(job: Job, clock: Clock) -> None:
    """PPO, or GRPO: every step samples from the same prompts, in another order."""
    is_ppo = job["work"] == "ppo"
    model = without_end(load(job, POLICY, *([REWARD] if is_ppo else [])))
    clock.facts["logprobs"] = fixed_logprobs(job, model)
    prompts = [job["inputs"]["prompts"][i] for i in job["prompts"]]
    questions = [Question(str(number), (), ids) for number, ids in enumerate(prompts)]
    common = {"lora": LORA, "episodes": EPISODES, "max_new_tokens": job["new_tokens"], "temperature": 1.0}
    method: PolicyGradient
    if is_ppo:
        judge = reward_of(job, model)
        clock.facts["rewards"] = scoring.rewards(judge, fixed_answers(job))
        ppo_settings = PPOSection(
            **common,
            samples_per_prompt=1,
            epochs=PPO_EPOCHS,
            num_minibatches=PPO_MINIBATCHES,
            critic_warmup_steps=0,
            target_kl_update=0.0,
            missing_eos_penalty=0.0,
        )
        method = ppo(model, lambda found: scoring.rewards(judge, found), questions, [], settings=ppo_settings, seed=0)
    else:
        settings = GRPOSection(
            **common, samples_per_prompt=GRPO_SAMPLES, num_minibatches=1, target_kl_update=0.0, missing_eos_penalty=0.0
        )
        method = grpo(
            model, lambda found: [even_share(a.response_ids) for a in found], questions, [], settings=settings, seed=0
        )
    run_steps(job, clock, method.step, lambda _: prompts)


def generate(job: Job, clock: Clock) -> None:
    model = without_end(load(job))
    clock.facts["logprobs"] = fixed_logprobs(job, model, None)
    prompts = [job["inputs"]["prompts"][i] for i in job["prompts"]]
    decoding = Decoding(1.0, 1.0, job["new_tokens"])

    def step(number: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(number)
        found = sample(model, prompts, decoding, adapter=None, samples_per_prompt=1, generator=generator)
        clock.facts.setdefault("new_tokens", []).append(sum(len(a.ids) for answers in found for a in answers))
        return {}

    run_steps(job, clock, step, lambda _: prompts)


TURNS: dict[str, Callable[[Job, Clock], None]] = {
    "reward": reward,
    "dpo": dpo,
    "train": dpo,
    "linear": linear,
    "sft": sft,
    "kto": kto,
    "grpo": online,
    "ppo": online,
    "generate-32": generate,
    "generate-128": generate,
}


def main() -> None:
    torch.manual_seed(0)
    job = read_job()
    TURNS[job["work"]](job, Clock(job))


if __name__ == "__main__":
    main()
