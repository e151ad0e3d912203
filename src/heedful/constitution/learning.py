"""What is learned from chains: kept revisions, mixed with helpful answers; and what was counted on the way."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from heedful.config import ReviseSection
from heedful.constitution.chains import CHAIN_REASONS, KEPT, REASONS, Chain
from heedful.constitution.rules import Cleaned, Rules
from heedful.errors import DataError
from heedful.judging.writing import EMPTY, Reply, Request, Writer
from heedful.records import Completion, Prompt, Sampling

Progress = Callable[[int, int, str], None]


class Examples(NamedTuple):
    """Prompts and completions to imitate, and how many completions fell out for which reason."""

    prompts: list[Prompt]
    completions: list[Completion]
    counts: dict[str, int]


def kept_revisions(chains: Iterable[Chain], settings: ReviseSection) -> Examples:
    """The kept revisions as answers to their prompts, not to the critique's requests."""
    prompts, completions = [], []
    for chain in chains:
        if chain.verdict != KEPT:
            continue
        (step,) = (step for step in chain.steps if step.verdict == KEPT)
        prompts.append(Prompt(id=chain.prompt_id, messages=chain.messages, tags=chain.tags, split="train"))
        fields = {"kind": "revision", "principle": step.principle} | ({} if chain.gain is None else {"gain": chain.gain})
        text = Cleaned(chain.revision, chain.finish)
        completions.append(_completion(chain.prompt_id, text, step.model, step.seed, settings, fields))
    return Examples(prompts, completions, {})


def num_helpful(num_revisions: int, share: float) -> int:
    """Helpful answers beside so many revisions, so that they are `share` of all."""
    return round(num_revisions * share / (1 - share))


def given_answers(prompts: Sequence[Prompt], completions: Sequence[Completion], count: int, *, seed: int) -> Examples:
    """`count` of somebody's answers, drawn by seed, one a prompt before any has two; fewer where there are fewer."""
    known = {prompt.id: prompt for prompt in prompts}
    for record in completions:
        if record.prompt_id not in known:
            raise DataError(
                f"completion {record.id!r} answers prompt {record.prompt_id!r}, which is not in revise.helpful_prompts"
            )
    shuffled = random.Random(f"{seed}/helpful").sample(list(completions), len(completions))
    seen: Counter[str] = Counter()
    rank = {}
    for record in shuffled:
        rank[record.id] = seen[record.prompt_id]
        seen[record.prompt_id] += 1
    taken = sorted(shuffled, key=lambda record: rank[record.id])[:count]
    used = {record.prompt_id for record in taken}
    marked = [record.model_copy(update={"kind": "helpful"}) for record in taken]
    return Examples([_trained(prompt) for prompt in prompts if prompt.id in used], marked, {})


def own_answers(
    prompts: Sequence[Prompt],
    write: Writer,
    count: int,
    *,
    name: str,
    settings: ReviseSection,
    seed: int,
    progress: Progress = lambda *_: None,
) -> Examples:
    """`count` answers of the writer, one a prompt, in an order drawn by seed; others take the place of those that fall out.

    An answer falls out as a revision does: no reply, empty, cut, short, loops, or longer than the context.
    """
    rules = Rules(settings.cut, settings.min_words, settings.max_repeated, settings.max_similarity, settings.max_copied)
    waiting = random.Random(f"{seed}/helpful").sample(list(prompts), len(prompts))
    counts: Counter[str] = Counter()
    found: dict[str, Completion] = {}
    while waiting and len(found) < count:
        some, waiting = waiting[: count - len(found)], waiting[count - len(found) :]
        requests = [_request(prompt, settings, seed) for prompt in some]
        replies = write(requests)
        for prompt, request, reply in zip(some, requests, replies, strict=True):
            reason, text = _sound(rules, reply)
            if reason:
                counts[reason] += 1
            else:
                found[prompt.id] = _completion(prompt.id, text, name, request.seed, settings, {"kind": "helpful"})
        progress(len(found), count, "helpful answers")
    kept = [prompt for prompt in prompts if prompt.id in found]
    return Examples([_trained(prompt) for prompt in kept], [found[prompt.id] for prompt in kept], dict(counts))


def _request(prompt: Prompt, settings: ReviseSection, seed: int) -> Request:
    digest = hashlib.sha256(f"{seed}/{prompt.id}/helpful".encode()).digest()
    drawn = (settings.max_new_tokens, settings.temperature, settings.top_p)
    return Request(prompt.messages, int.from_bytes(digest[:4], "big") >> 1, *drawn)


def _sound(rules: Rules, reply: Reply) -> tuple[str, Cleaned]:
    """Why a helpful answer falls out, "" when it does not, and its text."""
    if not reply.valid:
        return ("empty" if reply.problem == EMPTY else "no-reply"), Cleaned("", "stop")
    cleaned = rules.clean(reply.text, reply.finish)
    return rules.reason(cleaned, answer="", critique="", requests=()), cleaned


def _trained(prompt: Prompt) -> Prompt:
    return Prompt(id=prompt.id, messages=prompt.messages, tags=prompt.tags, split="train")


def _completion(
    prompt_id: str, cleaned: Cleaned, model: str, seed: int, settings: ReviseSection, fields: Mapping[str, Any]
) -> Completion:
    sampling = Sampling(
        temperature=settings.temperature, top_p=settings.top_p, seed=seed, max_new_tokens=settings.max_new_tokens
    )
    return Completion(
        id=f"{prompt_id}/{fields['kind']}",
        prompt_id=prompt_id,
        text=cleaned.text,
        model=model,
        finish=cleaned.finish,
        sampling=sampling,
        **fields,
    )


def counts_of(chains: Sequence[Chain]) -> dict[str, Any]:
    """Of chains and of their texts, by reason; the pages say what each number counts. Reasons without a case are zeros."""
    steps = [step for chain in chains for step in chain.steps]
    by_role = {role: [step for step in steps if step.role == role] for role in ("answer", "critique", "revision")}
    told = Counter(chain.verdict for chain in chains)
    revisions = Counter(step.verdict for step in by_role["revision"])
    gains = [chain.gain for chain in chains if chain.verdict == KEPT and chain.gain is not None]
    return {
        "num_prompts": len(chains),
        "num_kept": told[KEPT],
        "chains": {reason: told[reason] for reason in (KEPT, *CHAIN_REASONS)},
        "revisions": {reason: revisions[reason] for reason in (KEPT, *REASONS)},
        "num_answers_given": sum(step.given for step in by_role["answer"]),
        "num_critiques": sum(not step.problem for step in by_role["critique"]),
        "num_without_reply": sum(bool(step.problem) and bool(step.request_hash) for step in steps),
        "num_unanswered": sum(step.problem not in ("", EMPTY) and bool(step.request_hash) for step in steps),
        "num_without_room": sum(bool(step.problem) and not step.request_hash and not step.given for step in steps),
        "num_critiques_shortened": sum(step.shortened for step in by_role["revision"]),
        "num_examples_left_out": sum(step.examples_left_out for step in steps),
        "mean_gain": sum(gains) / len(gains) if gains else None,
    }
