"""Completions of a prompt file, written down as they are finished, so that an interrupted job goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from heedful.engine.episodes import Episode, Task, World, parts_of, play, played_of, tasks_of
from heedful.engine.generation import Decoding, sample
from heedful.errors import DataError
from heedful.journal import Journal
from heedful.models.policy import LanguageModel
from heedful.models.reward import Answer, answer_of
from heedful.records import Completion, Message, Prompt, Sampling
from heedful.store import write_jsonl
from heedful.team import shared


def prompt_room(model: LanguageModel, *, max_prompt_tokens: int, max_new_tokens: int, observed_tokens: int = 0) -> int:
    """The tokens that a prompt may have. Raises DataError when an answer of max_new_tokens would fill the whole context.

    observed_tokens: what an environment writes into the answer at most.
    """
    if observed_tokens and max_new_tokens + observed_tokens >= model.max_tokens:
        raise DataError(
            f"an episode may hold max_new_tokens = {max_new_tokens} and {observed_tokens} tokens of observations, which leaves "
            f"no room for a prompt: the context of {model.source} holds {model.max_tokens}; lower max_new_tokens, "
            "environment.max_turns or environment.max_observation_tokens"
        )
    if max_new_tokens >= model.max_tokens:
        raise DataError(
            f"max_new_tokens = {max_new_tokens} leaves no room for a prompt: the context of {model.source} holds "
            f"{model.max_tokens} tokens, prompt and answer together; lower max_new_tokens, or choose a model with a longer "
            "context (model.source)"
        )
    return min(max_prompt_tokens, model.max_tokens - max_new_tokens - observed_tokens)


def tokenise(model: LanguageModel, prompts: Sequence[Prompt], *, max_tokens: int) -> tuple[dict[str, list[int]], list[str]]:
    """Tokens of each prompt that fits into max_tokens, by id, and the ids of those that do not."""
    fitting: dict[str, list[int]] = {}
    too_long: list[str] = []
    for prompt in prompts:
        ids = model.chat.prompt_ids(prompt.messages)
        if len(ids) > max_tokens:
            too_long.append(prompt.id)
        else:
            fitting[prompt.id] = ids
    if not fitting:
        raise DataError(
            f"all {len(prompts)} prompts are longer than {max_tokens} tokens; shorten them, raise prompts.max_prompt_tokens, "
            f"lower max_new_tokens, or choose a model with a longer context (this one holds {model.max_tokens})"
        )
    return fitting, too_long


def tokens_of(model: LanguageModel, record: Completion) -> list[int]:
    """What the model wrote, where this model wrote it: the same text may be cut into other tokens. Else its text's tokens."""
    kept = (record.model_extra or {}).get("token_ids") if record.model == model.source else None
    return list(kept) if kept else model.chat.response_ids(record.text, finished=record.finish == "stop")


def recorded_answer(model: LanguageModel, messages: tuple[Message, ...], record: Completion) -> Answer:
    """The answer that a completion is. Of an episode it is what was read first and who wrote which token, where this model
    played it, or where the record's `parts` say who wrote which text; else all of it is an answer's text.
    """
    extra = record.model_extra or {}
    if "opening" in extra:
        messages = tuple(Message.model_validate(message) for message in extra["opening"])
    answer = answer_of(model, messages, record.text, token_ids=tokens_of(model, record))
    written = extra.get("written")
    if record.model == model.source and isinstance(written, list) and len(written) == len(answer.response_ids):
        return replace(answer, finished=record.finish == "stop", played=played_of(record, written))
    if "parts" in extra:
        return _transcribed(model, messages, record)
    if written is not None:
        raise DataError(
            f"completion {record.id!r} is an episode that {record.model!r} has played, and who wrote which part of it is told "
            f"in tokens that are not those of {model.source!r}; play it anew, or add 'parts'"
        )
    return answer


def _transcribed(model: LanguageModel, messages: tuple[Message, ...], record: Completion) -> Answer:
    """An episode from its text: `parts`, each an object with `text` and `written`, laid down as they are while it is played."""
    parts = (record.model_extra or {})["parts"]
    well = isinstance(parts, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) and isinstance(part.get("written"), bool) for part in parts
    )
    if not well or "".join(part["text"] for part in parts) != record.text:
        raise DataError(
            f"completion {record.id!r}: 'parts' are objects with 'text' and 'written' (true or false) whose texts in order are "
            "the completion's text; correct them, or leave the field out"
        )
    ids: list[int] = []
    written: list[bool] = []
    for part in parts:
        some = model.chat.observation_ids(part["text"], max_tokens=1 << 30, new_turn=False)
        if not ids and part["written"]:
            some = model.chat.response_ids(part["text"], finished=False)
        ids, written = ids + some, written + [part["written"]] * len(some)
    if record.finish == "stop":
        ids, written = [*ids, model.chat.end_id], [*written, True]
    answer = answer_of(model, messages, record.text, token_ids=ids)
    return replace(answer, finished=record.finish == "stop", played=played_of(record, written))


def play_completions(
    model: LanguageModel,
    world: World,
    prompts: Sequence[Prompt],
    target: Path,
    decoding: Decoding,
    *,
    adapter: str | None,
    name: str,
    policy_version: str,
    num_completions: int,
    batch_rows: int,
    max_prompt_tokens: int,
    seed: int,
    progress: Callable[[int, int, str], None],
) -> list[Completion]:
    """As `sample_completions`, of a policy that acts in an environment: an episode a completion. A record then also holds what
    was read first (opening), which tokens the policy wrote (written) and which text (parts), what it earned and what was
    measured (info).
    """
    room = prompt_room(
        model,
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=decoding.max_new_tokens,
        observed_tokens=world.observed_tokens,
    )
    tokens, _ = tokenise(model, world.opened(prompts), max_tokens=room)
    ids = [prompt.id for prompt in prompts if prompt.id in tokens]
    sampling = Sampling(
        temperature=decoding.temperature, top_p=decoding.top_p, max_new_tokens=decoding.max_new_tokens, seed=seed
    )
    journal = Journal(target.with_name(target.name + ".partial"), Completion)
    asked = {prompt.id: [message.model_dump() for message in prompt.messages] for prompt in prompts}
    digests = {id_: _hash(asked, [id_]) for id_ in ids}

    def ours(record: Completion) -> bool:
        same = (record.model, record.policy_version, record.sampling) == (name, policy_version, sampling)
        return same and digests.get(record.prompt_id) == (record.model_extra or {}).get("batch_hash")

    journal.keep(ours)
    finished = {record.id for record in journal.records}
    size = max(1, batch_rows // num_completions)
    batches = [range(start, min(len(ids), start + size)) for start in range(0, len(ids), size)]
    for number, places in enumerate(batches, start=1):
        names = [f"{ids[place]}/{k}" for place in places for k in range(1, num_completions + 1)]
        if not finished.issuperset(names):
            tasks = tasks_of(ids, samples_per_prompt=num_completions, seed=seed, only=places)

            def some(chosen: list[int], tasks: list[Task] = tasks) -> list[Episode]:
                return play(model, world, [tasks[i] for i in chosen], decoding, adapter=adapter)

            episodes = shared([decoding.max_new_tokens] * len(tasks), some, "episodes")
            records = []
            for id_, task, (answer, _) in zip(names, tasks, episodes, strict=True):
                assert answer.played is not None
                parts = parts_of(model.chat, answer)
                records.append(
                    Completion(
                        id=id_,
                        prompt_id=task.prompt_id,
                        text=answer.text,
                        model=name,
                        policy_version=policy_version,
                        finish="stop" if answer.finished else "length",
                        sampling=sampling,
                        num_tokens=sum(answer.written),
                        token_ids=list(answer.response_ids),
                        batch_hash=digests[task.prompt_id],
                        opening=[message.model_dump() for message in answer.messages],
                        written=answer.written,
                        **({} if parts is None else {"parts": parts}),
                        earned=answer.played.earned,
                        info=answer.played.info,
                    )
                )
            journal.append([record for record in records if record.id not in finished])
        progress(number, len(batches), "")
    place = {id_: i for i, id_ in enumerate(f"{id_}/{k}" for id_ in ids for k in range(1, num_completions + 1))}
    completions = sorted(journal.records, key=lambda record: place[record.id])
    write_jsonl(target, completions)
    journal.path.unlink(missing_ok=True)
    return completions


def sample_completions(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    target: Path,
    decoding: Decoding,
    *,
    adapter: str | None,
    name: str,
    policy_version: str,
    num_completions: int,
    batch_rows: int,
    max_prompt_tokens: int,
    seed: int,
    progress: Callable[[int, int, str], None],
    reweight: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> list[Completion]:
    """`num_completions` answers to each prompt that fits, in the prompts' order, written to `target`.

    Prompts of like length share a batch. Each batch has its own seed, made from its prompts' ids, so the answers do not depend
    on where an earlier run was interrupted; `batch_hash` says which texts were asked under these ids. Raises DataError when no
    prompt fits into the context.
    """
    room = prompt_room(model, max_prompt_tokens=max_prompt_tokens, max_new_tokens=decoding.max_new_tokens)
    tokens, _ = tokenise(model, prompts, max_tokens=room)
    order = sorted(tokens, key=lambda id_: (-len(tokens[id_]), id_))
    size = max(1, batch_rows // num_completions)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    partial = target.with_name(target.name + ".partial")
    samplings = {
        id_: Sampling(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            max_new_tokens=decoding.max_new_tokens,
            seed=_seed(seed, batch),
        )
        for batch in batches
        for id_ in batch
    }
    texts = {prompt.id: [message.model_dump() for message in prompt.messages] for prompt in prompts}
    hashes = {id_: digest for batch in batches for digest in [_hash(texts, batch)] for id_ in batch}
    journal = Journal(partial, Completion)

    def ours(record: Completion) -> bool:
        """Made by this model with these settings from these texts; an earlier job's leftovers are not.

        An answer also depends on the prompts beside it: they draw from the same random numbers.
        """
        same = (record.model, record.policy_version) == (name, policy_version) and record.prompt_id in samplings
        same = same and (record.model_extra or {}).get("batch_hash") == hashes[record.prompt_id]
        return same and record.sampling == samplings[record.prompt_id]

    # A full disk may have cut a batch in two: prompts count as finished with all their completions only.
    counts = Counter(record.prompt_id for record in journal.records if ours(record))
    journal.keep(lambda record: ours(record) and counts[record.prompt_id] == num_completions)
    finished = {record.prompt_id for record in journal.records}
    drawn, clock = 0, time.monotonic()
    for number, batch in enumerate(batches, start=1):
        if not finished.issuperset(batch):
            answers = sample(
                model,
                [tokens[id_] for id_ in batch],
                decoding,
                adapter=adapter,
                samples_per_prompt=num_completions,
                generator=torch.Generator().manual_seed(samplings[batch[0]].seed),
                reweight=reweight,
            )
            records = []
            for id_, responses in zip(batch, answers, strict=True):
                for index, response in enumerate(responses, start=1):
                    drawn += len(response.ids)
                    records.append(
                        Completion(
                            id=f"{id_}/{index}",
                            prompt_id=id_,
                            text=model.chat.text(response.ids),
                            model=name,
                            policy_version=policy_version,
                            finish="stop" if model.chat.finished(response.ids) else "length",
                            sampling=samplings[id_],
                            num_tokens=len(response.ids),
                            token_ids=list(response.ids),
                            batch_hash=hashes[id_],
                        )
                    )
            journal.append([r for r in records if r.prompt_id not in finished])
        progress(number, len(batches), f"{drawn / max(1e-9, time.monotonic() - clock):.0f} tokens/s" if drawn else "")
    place = {prompt.id: i for i, prompt in enumerate(prompts)}
    completions = sorted(journal.records, key=lambda record: place[record.prompt_id])
    write_jsonl(target, completions)
    partial.unlink(missing_ok=True)
    return completions


def _seed(seed: int, batch: Sequence[str]) -> int:
    digest = hashlib.sha256(f"{seed}/{'/'.join(batch)}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def _hash(texts: dict[str, list[dict[str, str]]], batch: Sequence[str]) -> str:
    asked = json.dumps([[id_, texts[id_]] for id_ in batch], ensure_ascii=False)
    return hashlib.sha256(asked.encode()).hexdigest()[:16]
