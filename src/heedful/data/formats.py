"""Public data formats into records and back: HH transcripts, TRL columns, DialogSum, XSTest, RealToxicityPrompts, attacks."""

from __future__ import annotations

import contextlib
import difflib
import gzip
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from heedful.data.attacks import from_advbench, from_garak, from_harmbench, garak_rows
from heedful.data.rows import Row, Skip, as_object, prompt_id, prompt_of, rows, text_in
from heedful.errors import DataError, RecordError, StoreError
from heedful.records import Completion, Message, Preference, Prompt, parse_fields, read_jsonl, to_line

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass
class ConversionReport:
    """How many rows were read, written, and passed over for which reason."""

    read: int = 0
    written: int = 0
    skipped: dict[str, int] | None = None

    def skip(self, reason: str) -> None:
        self.skipped = {**(self.skipped or {}), reason: (self.skipped or {}).get(reason, 0) + 1}


# Transcripts


def turns(transcript: str, where: str) -> list[Message]:
    """Messages of "\\n\\nHuman: ...\\n\\nAssistant: ...". Surrounding white space of a turn is not part of it."""
    parts = _TURN.split(transcript)
    if parts[0].strip() or len(parts) < 3:
        raise RecordError(where, "expected a transcript that begins with 'Human:'; mend or drop the line")
    return [
        Message.model_validate({"role": _ROLES[name], "content": text.strip()})
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _preference(messages: Sequence[Message], chosen: str, rejected: str, where: str, **more: Any) -> Preference:
    if chosen == rejected:
        raise Skip("both answers are the same")
    if not messages or messages[-1].role == "assistant":
        raise Skip("no shared prompt before the answers")
    fields = {"prompt_id": prompt_id(messages), "prompt": [m.model_dump() for m in messages]}
    return parse_fields(fields | {"chosen": chosen, "rejected": rejected} | more, Preference, where)


def from_hh(row: Row, where: str) -> Preference:
    """Anthropic hh-rlhf: two whole transcripts, or a prompt and two answers.

    The prompt is what both transcripts share in whole turns. Where they part before their last turns (a few do), the answers
    are the first ones that differ; what was said after them is left out, for it answers different prompts.
    """
    chosen, rejected = text_in(row, "chosen", where), text_in(row, "rejected", where)
    if "prompt" in row:
        shared = turns(text_in(row, "prompt", where), where)
        return _preference(shared, chosen.strip(), rejected.strip(), where)
    first, second = turns(chosen, where), turns(rejected, where)
    same = 0
    while same < min(len(first), len(second)) and first[same] == second[same]:
        same += 1
    if same == len(first) == len(second):
        raise Skip("both answers are the same")
    if same == min(len(first), len(second)) or first[same].role != "assistant" or second[same].role != "assistant":
        raise Skip("the transcripts do not part at an answer")
    return _preference(first[:same], first[same].content, second[same].content, where)


def from_trl(row: Row, where: str) -> Preference:
    """TRL's columns prompt, chosen, rejected, as text or as lists of messages; without a prompt it is what both share.

    Answers may be whole conversations that begin with the prompt.
    """
    sides = {}
    for field in ("chosen", "rejected"):
        value = row.get(field)
        if isinstance(value, str):
            sides[field] = [Message(role="assistant", content=value)]
        elif isinstance(value, list):
            sides[field] = [parse_fields(as_object(item, where), Message, where) for item in value]
        else:
            raise RecordError(where, f"field '{field}': expected text or a list of messages")
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        shared = [Message(role="user", content=prompt)]
    elif isinstance(prompt, list):
        shared = [parse_fields(as_object(item, where), Message, where) for item in prompt]
    elif prompt is None and isinstance(row["chosen"], list):
        same = 0
        while same < min(map(len, sides.values())) and sides["chosen"][same] == sides["rejected"][same]:
            same += 1
        shared = sides["chosen"][:same]
        sides = {field: messages[same:] for field, messages in sides.items()}
    else:
        raise RecordError(where, "field 'prompt': expected text or a list of messages")
    # UltraFeedback repeats the prompt at the head of each answer.
    sides = {field: found[len(shared) :] if found[: len(shared)] == shared else found for field, found in sides.items()}
    if any(len(messages) != 1 or messages[0].role != "assistant" for messages in sides.values()):
        raise Skip("an answer is not one assistant message")
    return _preference(shared, sides["chosen"][0].content, sides["rejected"][0].content, where)


def from_dialogsum(row: Row, where: str) -> Prompt:
    """A dialogue to summarise; the human summary stays as `reference`."""
    content = f"Summarize the following conversation.\n\n{text_in(row, 'dialogue', where)}\n\nSummary:"
    reference = text_in(row, "summary", where)
    return prompt_of(content, where, tags=["summarise"], reference=reference, id=row.get("fname"))


def from_xstest(row: Row, where: str) -> Prompt:
    """Safe prompts that look unsafe (tag "safe") and their unsafe contrasts (tag "red-team")."""
    tag = {"safe": "safe", "unsafe": "red-team"}.get(text_in(row, "label", where))
    if tag is None:
        raise RecordError(where, f"field 'label': expected 'safe' or 'unsafe', found {row['label']!r}")
    return prompt_of(
        text_in(row, "prompt", where), where, tags=["harmless", tag], id=f"xstest-{row['id']}" if "id" in row else None
    )


def from_rtp(row: Row, where: str) -> Prompt:
    """The beginning of a sentence from the web; its Perspective toxicity stays as `toxicity`."""
    prompt = row.get("prompt")
    if not isinstance(prompt, dict):
        raise RecordError(where, "field 'prompt': expected an object with 'text'")
    return prompt_of(text_in(prompt, "text", where), where, tags=["harmless"], toxicity=prompt.get("toxicity"))


def from_heedful(row: Row, where: str) -> BaseModel:
    """Our own prompts and preferences, checked."""
    return parse_fields(row, Preference if "chosen" in row else Prompt, where)


READERS: dict[str, Callable[[Row, str], BaseModel]] = {
    "hh": from_hh,
    "trl": from_trl,
    "dialogsum": from_dialogsum,
    "xstest": from_xstest,
    "rtp": from_rtp,
    "harmbench": from_harmbench,
    "advbench": from_advbench,
    "garak": from_garak,
    "heedful": from_heedful,
}
# How a file is cut into rows, where it is neither JSON of objects nor CSV.
ROWS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {"garak": garak_rows}


# Writers


def to_trl(preference: Preference) -> Row:
    """Conversational columns. They cannot carry ids, probability, margin, judges and source."""
    answer = {name: [{"role": "assistant", "content": getattr(preference, name)}] for name in ("chosen", "rejected")}
    return {"prompt": [message.model_dump() for message in preference.prompt], **answer}


def to_hh(preference: Preference) -> Row:
    """Two transcripts. They cannot carry a system message, ids, probability, and white space around a turn."""
    names = {role: name for name, role in _ROLES.items()}
    for text in (*(message.content for message in preference.prompt), preference.chosen, preference.rejected):
        if re.search(r"\n\n(?:Human|Assistant):", text):
            raise DataError(
                f"prompt {preference.prompt_id!r} holds 'Human:' or 'Assistant:' after a blank line inside a turn, which HH "
                "transcripts would read as a new turn; use --to trl"
            )
    if preference.prompt[-1].role == "assistant" or preference.chosen.strip() == preference.rejected.strip():
        raise DataError(
            f"prompt {preference.prompt_id!r}: HH transcripts cannot hold a prompt that ends with the assistant, nor "
            "answers that differ in white space only; use --to trl"
        )
    if any(message.role not in names for message in preference.prompt):
        raise DataError(f"prompt {preference.prompt_id!r} has a system message, which HH transcripts cannot hold; use --to trl")
    shared = "".join(f"\n\n{names[message.role]}: {message.content}" for message in preference.prompt)
    return {side: f"{shared}\n\nAssistant: {getattr(preference, side)}" for side in ("chosen", "rejected")}


def to_heedful(record: BaseModel) -> Row:
    return dict(json.loads(to_line(record)))


WRITERS: dict[str, Callable[[Any], Row]] = {"heedful": to_heedful, "trl": to_trl, "hh": to_hh}


def convert(form: str, source: Path, target: Path, *, to: str = "heedful", heldout_share: float = 0.0) -> ConversionReport:
    """Reads `source` in one format and writes `target` in another, a row at a time; the target appears when it is whole.

    heldout_share: this share of prompts, chosen by a hash of their text, gets split "heldout" and the rest "train".
    """
    read, write = _known(form, READERS, "format"), _known(to, WRITERS, "target format")
    if heldout_share and to != "heedful":
        raise DataError(f"{to!r} has no place for a split; leave out --heldout-share, or use --to heedful")
    opener: Any = gzip.open if target.name.endswith(".gz") else open
    report = ConversionReport()
    seen: dict[str, str] = {}
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with opener(temporary, "wt", encoding="utf-8") as file:
            for where, row in ROWS.get(form, rows)(source):
                report.read += 1
                try:
                    record = read(row, where)
                except Skip as reason:
                    report.skip(str(reason))
                    continue
                if isinstance(record, Prompt):
                    content = prompt_id(record.messages)
                    if seen.get(record.id) == content:
                        report.skip("the prompt occurred before")
                        continue
                    if record.id in seen:
                        raise RecordError(where, f"id {record.id!r} was already used by another prompt; ids must be unique")
                    seen[record.id] = content
                if to != "heedful" and not isinstance(record, Preference):
                    raise DataError(f"{source}: holds prompts, which {to!r} has no place for; use --to heedful")
                if heldout_share and isinstance(record, Preference):
                    raise DataError(
                        f"{source}: holds pairs, whose split is made by prompt in training (reward.heldout_share); leave out "
                        "--heldout-share"
                    )
                if heldout_share and isinstance(record, Prompt):
                    digest = hashlib.sha256(prompt_id(record.messages).encode()).digest()
                    side = "heldout" if int.from_bytes(digest[:8], "big") < heldout_share * 2**64 else "train"
                    record = record.model_copy(update={"split": side})
                file.write(json.dumps(write(record), ensure_ascii=False) + "\n")
                report.written += 1
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except OSError as error:
        why = error.strerror or str(error)
        raise StoreError(f"{target}: cannot be written ({why}); free space or choose another path") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return report


def _known(name: str, table: dict[str, Callable[..., Any]], what: str) -> Callable[..., Any]:
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1, cutoff=0.0)[0]
        raise DataError(f"unknown {what} {name!r}; the nearest known one is {near!r}, all are {', '.join(table)}")
    return table[name]


def detect(row: Row) -> str:
    """The format of preferences, from one row."""
    if "prompt_id" in row:
        return "heedful"
    if isinstance(row.get("chosen"), str):
        prompt = row.get("prompt", row["chosen"])
        if isinstance(prompt, str) and _TURN.match(prompt):
            return "hh"
    return "trl"


def read_preferences(path: Path) -> list[Preference]:
    """Preferences in any of our three shapes, told apart by the first row. Rows with nothing to learn from are left out."""
    found: list[Preference] = []
    form = ""
    for where, row in rows(path):
        form = form or detect(row)
        try:
            record = READERS[form](row, where)
        except Skip:
            continue
        if not isinstance(record, Preference):
            raise RecordError(where, "expected a preference with chosen and rejected, found a prompt")
        found.append(record)
    if not found:
        raise DataError(f"{path}: holds no pair to learn from")
    return found


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts from a file of prompts, or those of a preference file, each once. Ids must be unique."""
    found: dict[str, Prompt] = {}
    form = ""
    for where, row in rows(path):
        form = form or ("heedful" if "messages" in row else detect(row))
        try:
            record = READERS[form](row, where)
        except Skip:
            continue
        if isinstance(record, Preference):
            found.setdefault(record.prompt_id, Prompt(id=record.prompt_id, messages=record.prompt))
        elif isinstance(record, Prompt):
            if record.id in found:
                raise RecordError(where, f"id {record.id!r} was already used; ids must be unique")
            found[record.id] = record
    if not found:
        raise DataError(f"{path}: holds no prompt")
    return list(found.values())


def read_completions(path: Path) -> list[Completion]:
    """Completions from a file that holds at least one. Ids must be unique."""
    found = read_jsonl(path, Completion, unique="id")
    if not found:
        raise DataError(f"{path}: holds no completion; 'heedful sample' writes some")
    return found
