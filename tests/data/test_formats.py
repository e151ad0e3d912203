"""Public formats into records and back: real files in full, round trips, and each bad row by name."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.data import formats
from heedful.data.formats import ConversionReport, convert, detect, read_preferences, read_prompts, to_hh, turns
from heedful.data.rows import Skip, rows
from heedful.errors import DataError, HeedfulError, RecordError, StoreError
from heedful.records import Message, Preference, Prompt, read_jsonl

# ---- real data


def raw(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_all_harmless_pairs_convert(shared_data: Path, tmp_path: Path) -> None:
    source, target = shared_data / "hh/harmless.jsonl.gz", tmp_path / "out.jsonl"
    assert convert("hh", source, target) == ConversionReport(read=1506, written=1506, skipped=None)
    pairs = read_jsonl(target, Preference)
    assert pairs == read_preferences(source) == read_preferences(target)
    # By another way: what stands before the last "Assistant:" is the prompt, but for the four pairs that part before.
    early = 0
    for pair, row in zip(pairs, raw(source), strict=True):
        assert pair.prompt[0].role == pair.prompt[-1].role == "user"
        (before, _, chosen), (other, _, rejected) = (row[side].rpartition("\n\nAssistant:") for side in ("chosen", "rejected"))
        early += before != other
        if before == other:
            assert (pair.chosen, pair.rejected) == (chosen.strip(), rejected.strip())
            # A turn is trimmed, so that the texts are compared without their white space.
            names = {"user": "Human:", "assistant": "Assistant:"}
            again = "".join(names[message.role] + message.content for message in pair.prompt)
            assert "".join(again.split()) == "".join(before.split())
        else:
            assert pair.chosen in row["chosen"]
            assert pair.chosen not in row["rejected"]
            assert pair.rejected in row["rejected"]
    assert early == 4


def test_all_helpful_pairs_convert_but_for_two_equal_ones(shared_data: Path, tmp_path: Path) -> None:
    source, target = shared_data / "hh/helpful.jsonl.gz", tmp_path / "out.jsonl"
    assert convert("hh", source, target) == ConversionReport(1310, 1308, {"both answers are the same": 2})
    different = [row for row in raw(source) if row["chosen"] != row["rejected"]]
    assert len(different) == 1308
    for pair, row in zip(read_preferences(target), different, strict=True):
        assert (pair.chosen, pair.rejected) == (row["chosen"].strip(), row["rejected"].strip())
        assert pair.prompt[-1].role == "user"
        assert row["prompt"].endswith(pair.prompt[-1].content)


@pytest.mark.parametrize("name", ["harmless", "helpful"])
@pytest.mark.parametrize("to", ["hh", "trl"])
def test_real_pairs_survive_other_formats(shared_data: Path, tmp_path: Path, name: str, to: str) -> None:
    source = shared_data / f"hh/{name}.jsonl.gz"
    convert("hh", source, tmp_path / "there.jsonl", to=to)
    assert read_preferences(tmp_path / "there.jsonl") == read_preferences(source)


def test_prompts_of_a_real_preference_file(shared_data: Path) -> None:
    found = read_prompts(shared_data / "hh/harmless.jsonl.gz")
    assert len(found) == len({p.id for p in found}) == len({p.messages for p in found}) == 1505  # two pairs share one prompt


def test_dialogsum(shared_data: Path, tmp_path: Path) -> None:
    source, target = shared_data / "dialogsum/dev.jsonl.gz", tmp_path / "out.jsonl"
    assert convert("dialogsum", source, target) == ConversionReport(500, 500, None)
    for prompt, row in zip(read_prompts(target), raw(source), strict=True):
        assert prompt.id == row["fname"]
        assert prompt.messages[0].content == f"Summarize the following conversation.\n\n{row['dialogue']}\n\nSummary:"
        assert prompt.model_extra == {"reference": row["summary"]}
        assert prompt.tags == ("summarise",)


def test_xstest(shared_data: Path, tmp_path: Path) -> None:
    source, target = shared_data / "xstest/prompts.jsonl.gz", tmp_path / "out.jsonl"
    assert convert("xstest", source, target) == ConversionReport(236, 236, None)
    found = read_prompts(target)
    assert [p.messages[0].content for p in found] == [row["prompt"] for row in raw(source)]
    labels = Counter(row["label"] for row in raw(source))
    assert Counter(p.tags for p in found) == {
        ("harmless", "safe"): labels["safe"],
        ("harmless", "red-team"): labels["unsafe"],
    }


def test_rtp_leaves_out_the_prompts_that_occur_again(shared_data: Path, tmp_path: Path) -> None:
    source, target = shared_data / "rtp/prompts.jsonl.gz", tmp_path / "out.jsonl"
    texts = [row["prompt"]["text"] for row in raw(source)]
    assert convert("rtp", source, target) == ConversionReport(2535, 2528, {"the prompt occurred before": 7})
    found = read_prompts(target)  # which insists on unique ids
    assert [p.messages[0].content for p in found] == list(dict.fromkeys(texts))
    toxic = {row["prompt"]["text"]: row["prompt"]["toxicity"] for row in reversed(raw(source))}
    assert all((p.model_extra or {}).get("toxicity") == toxic[p.messages[0].content] for p in found)


def test_a_share_is_held_out_by_text(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "rtp/prompts.jsonl.gz"
    held = []
    for share in (0.1, 0.2):
        convert("rtp", source, tmp_path / "out.jsonl", heldout_share=share)
        found = read_prompts(tmp_path / "out.jsonl")
        assert {p.split for p in found} == {"train", "heldout"}
        held.append({p.id for p in found if p.split == "heldout"})
        assert len(held[-1]) == pytest.approx(share * len(found), abs=4 * (share * len(found)) ** 0.5)
    assert held[0] < held[1]


# ---- transcripts


def said(*texts: str) -> list[Message]:
    return [Message(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(texts)]


def test_turns_by_hand() -> None:
    assert turns("\n\nHuman: Hi\n\nAssistant: Hello!\n\nBye.\n\nHuman: What?", "w") == said("Hi", "Hello!\n\nBye.", "What?")
    assert turns("Human: Hi\n\nAssistant:", "w") == said("Hi", "")
    assert turns("\n\nHuman:Hi \n\nAssistant:\tHo", "w") == said("Hi", "Ho")


@pytest.mark.parametrize(
    "text",
    ["Try this. Human: hello", "Line\nHuman: hello", "Human: hello", "A Human:\nB", "\n\nhuman: hello", "\n\n Assistant: x"],
)
def test_a_name_inside_a_turn_is_text(text: str) -> None:
    assert turns(f"\n\nHuman: Hi\n\nAssistant: {text}", "w") == said("Hi", text.strip())


@pytest.mark.parametrize("text", ["", "Hi", "Hi\n\nHuman: Ho", "Person: Hi"])
def test_no_transcript(text: str) -> None:
    with pytest.raises(RecordError) as caught:
        turns(text, "f:3")
    assert str(caught.value) == "f:3: expected a transcript that begins with 'Human:'; mend or drop the line"


def hh(chosen: str, rejected: str, **more: str) -> Preference:
    return formats.from_hh({"chosen": chosen, "rejected": rejected} | more, "f:1")


def test_transcripts_that_part_early_are_cut_at_the_first_difference() -> None:
    found = hh(
        "\n\nHuman: Hi\n\nAssistant: Good\n\nHuman: Thanks\n\nAssistant: Bye", "\n\nHuman: Hi\n\nAssistant: Bad\n\nHuman: What?"
    )
    assert (list(found.prompt), found.chosen, found.rejected) == (said("Hi"), "Good", "Bad")


@pytest.mark.parametrize(
    ("chosen", "rejected", "why"),
    [
        ("\n\nHuman: Hi\n\nAssistant: A", "\n\nHuman: Hi\n\nAssistant: A", "both answers are the same"),
        ("\n\nHuman: Hi\n\nAssistant: A", "\n\nHuman: Hi\n\nAssistant: A ", "both answers are the same"),
        ("\n\nHuman: Hi\n\nAssistant: A", "\n\nHuman: Ho\n\nAssistant: B", "the transcripts do not part at an answer"),
        ("\n\nHuman: Hi\n\nAssistant: A", "\n\nHuman: Hi", "the transcripts do not part at an answer"),
        ("\n\nHuman: Hi\n\nAssistant: A", "\n\nHuman: Hi\n\nHuman: B", "the transcripts do not part at an answer"),
        ("\n\nAssistant: A\n\nHuman: Hi", "\n\nAssistant: B\n\nHuman: Hi", "no shared prompt before the answers"),
    ],
)
def test_transcripts_with_nothing_to_learn(chosen: str, rejected: str, why: str) -> None:
    with pytest.raises(Skip, match=f"^{why}$"):
        hh(chosen, rejected)


def test_a_prompt_that_ends_with_an_answer_is_none() -> None:
    with pytest.raises(Skip, match=r"^no shared prompt before the answers$"):
        hh("A", "B", prompt="Human: Hi\n\nAssistant: Ho")


# ---- round trips

# No white space around a turn (HH cannot carry it); a lone "Human:" may stand anywhere in it.
WORDS = st.lists(st.sampled_from(["one", "two", "Human:", "Assistant: x", "\n", "\n\n", "ü", "\u2028", ".", '"']), max_size=6)
CONTENT = WORDS.map(lambda words: " ".join(words).strip())
ROLES = st.sampled_from(["user", "assistant"])


@st.composite
def preferences(draw: st.DrawFn, content: st.SearchStrategy[str] = CONTENT) -> Preference:
    turns_ = draw(st.lists(st.builds(Message, role=ROLES, content=content), max_size=4))
    prompt = (*turns_, Message(role="user", content=draw(content)))
    chosen, rejected = draw(st.lists(content, min_size=2, max_size=2, unique=True))
    return Preference(prompt_id=formats.prompt_id(prompt), prompt=prompt, chosen=chosen, rejected=rejected)


@given(preferences(st.text(max_size=12)))
def test_trl_round_trip(pair: Preference) -> None:
    row = json.loads(json.dumps(formats.to_trl(pair)))
    assert formats.from_trl(row, "w") == pair
    implicit = {side: row["prompt"] + row[side] for side in ("chosen", "rejected")}  # TRL's shape without a prompt
    assert formats.from_trl(implicit, "w") == pair


@given(preferences())
def test_hh_round_trip(pair: Preference) -> None:
    # A transcript without its first human turn is none, and an answer that both open with belongs to the prompt.
    pair = pair.model_copy(update={"prompt": (Message(role="user", content="Hi"), *pair.prompt)})
    pair = pair.model_copy(update={"prompt_id": formats.prompt_id(pair.prompt)})
    assert formats.from_hh(formats.to_hh(pair), "w") == pair


def pair_of(*texts: str, chosen: str = "yes", rejected: str = "no", role: Any = None) -> Preference:
    prompt = said(*texts)
    if role:
        prompt.insert(0, Message(role=role, content="Be kind."))
    return Preference(prompt_id="p1", prompt=tuple(prompt), chosen=chosen, rejected=rejected)


def test_what_a_transcript_cannot_hold_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        formats.to_hh(pair_of("Hi", role="system"))
    assert str(caught.value) == "prompt 'p1' has a system message, which HH transcripts cannot hold; use --to trl"
    for pair in (pair_of("a\n\nHuman: b"), pair_of("Hi", chosen="x\n\nAssistant: y"), pair_of("Hi", rejected="\n\nHuman:")):
        with pytest.raises(DataError) as caught:
            formats.to_hh(pair)
        assert str(caught.value) == (
            "prompt 'p1' holds 'Human:' or 'Assistant:' after a blank line inside a turn, which HH transcripts would read as "
            "a new turn; use --to trl"
        )


def test_to_hh_by_hand() -> None:
    assert formats.to_hh(pair_of("Hi", "Ho", "What?")) == {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: What?\n\nAssistant: yes",
        "rejected": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: What?\n\nAssistant: no",
    }


def test_trl_shapes() -> None:
    expected = ("Hi", "yes", "no")
    user, yes, no = ({"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "yes"), ("assistant", "no")))
    for row in (
        {"prompt": "Hi", "chosen": "yes", "rejected": "no"},
        {"prompt": [user], "chosen": [yes], "rejected": [no]},
        {"prompt": "Hi", "chosen": [yes], "rejected": [no]},
        {"chosen": [user, yes], "rejected": [user, no]},
        {"prompt": None, "chosen": [user, yes], "rejected": [user, no]},
        {"prompt": "Hi", "chosen": [user, yes], "rejected": [user, no]},
        {"prompt": [user], "chosen": [user, yes], "rejected": [user, no]},
    ):
        found = formats.from_trl(row, "w")
        assert (found.prompt[0].content, found.chosen, found.rejected) == expected
    with pytest.raises(Skip, match="an answer is not one assistant message"):
        formats.from_trl({"prompt": [user], "chosen": [yes, user, yes], "rejected": [no]}, "w")


def test_xstest_without_ids() -> None:
    found = [formats.from_xstest({"prompt": text, "label": "safe"}, "w") for text in ("One?", "Two?")]
    assert [prompt.id for prompt in found] == [formats.prompt_id(prompt.messages) for prompt in found]


def test_prompt_id_depends_on_the_conversation_alone() -> None:
    ids = [formats.prompt_id(said(*texts)) for texts in (["Hi"], ["Ho"], ["Hi", "Ho"], ["HiHo"], [""])]
    assert len(set(ids)) == 5
    assert formats.prompt_id(said("Hi")) == ids[0] == "p-d7760b4ba3077c46"  # splits and ids in users' files rest on it
    assert formats.prompt_id([Message(role="system", content="Hi")]) != ids[0]


# ---- files


def write(path: Path, *values: object) -> Path:
    text = "".join((value if isinstance(value, str) else json.dumps(value)) + "\n" for value in values)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


TRL = {"prompt": "Hi", "chosen": "yes", "rejected": "no"}
HH = {"chosen": "\n\nHuman: Hi\n\nAssistant: yes", "rejected": "\n\nHuman: Hi\n\nAssistant: no"}
HH_PROMPT = {"prompt": "\n\nHuman: Hi", "chosen": "yes", "rejected": "no"}
OWN = {"prompt_id": "p1", "prompt": [{"role": "user", "content": "Hi"}], "chosen": "yes", "rejected": "no", "probability": 0.75}


@pytest.mark.parametrize(
    ("row", "form"),
    [(TRL, "trl"), (HH, "hh"), (HH_PROMPT, "hh"), (HH_PROMPT | {"prompt": "Human: Hi"}, "hh"), (OWN, "heedful")],
)
@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.gz", "f.JSONL"])
def test_read_preferences_tells_the_shapes_apart(tmp_path: Path, row: dict[str, Any], form: str, name: str) -> None:
    assert detect(row) == form
    (found,) = read_preferences(write(tmp_path / name, "", row))
    assert (found.prompt[0].content, found.chosen, found.rejected) == ("Hi", "yes", "no")
    assert found.probability == row.get("probability", 1.0)
    (prompt,) = read_prompts(tmp_path / name)
    assert (prompt.id, list(prompt.messages)) == (found.prompt_id, said("Hi"))


def test_csv_and_json_packed_or_not(tmp_path: Path) -> None:
    csv_text = 'prompt,chosen,rejected\n"Hi,\nyou","ye""s",no\nHo,a,b'
    expected = [("Hi,\nyou", 'ye"s', "no"), ("Ho", "a", "b")]
    array = json.dumps([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in expected], indent=1)
    for name, text in (("f.csv", csv_text), ("f.csv.gz", csv_text), ("f.json", array), ("f.json.gz", array)):
        found = read_preferences(write(tmp_path / name, text))
        assert [(p.prompt[0].content, p.chosen, p.rejected) for p in found] == expected
    assert [where.rpartition(":")[2] for where, _ in rows(tmp_path / "f.csv")] == ["2", "4"]
    assert [where.rpartition(":")[2] for where, _ in rows(tmp_path / "f.json")] == [" row 1", " row 2"]


def test_read_prompts_of_prompts(tmp_path: Path) -> None:
    prompts = [{"id": id_, "messages": [{"role": "user", "content": "Hi"}]} for id_ in "ab"]
    assert [p.id for p in read_prompts(write(tmp_path / "p.jsonl", *prompts))] == ["a", "b"]
    write(tmp_path / "p.jsonl", "", *prompts, prompts[0])
    with pytest.raises(RecordError) as caught:
        read_prompts(tmp_path / "p.jsonl")
    assert str(caught.value) == f"{tmp_path}/p.jsonl:4: id 'a' was already used; ids must be unique"


def fails(action: Callable[[], object], message: str, kind: type[HeedfulError] = RecordError) -> None:
    with pytest.raises(HeedfulError) as caught:
        action()
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_files_with_nothing_in_them(tmp_path: Path) -> None:
    path = write(tmp_path / "f.jsonl", "")
    fails(lambda: read_preferences(path), f"{path}: holds no pair to learn from", DataError)
    fails(lambda: read_prompts(path), f"{path}: holds no prompt", DataError)
    write(path, TRL | {"rejected": "yes"})
    fails(lambda: read_preferences(path), f"{path}: holds no pair to learn from", DataError)
    write(path, OWN, {"id": "a", "messages": OWN["prompt"]})
    fails(lambda: read_preferences(path), f"{path}:2: expected a preference with chosen and rejected, found a prompt")


@pytest.mark.parametrize(
    ("form", "row", "problem"),
    [
        ("hh", {"chosen": "\n\nHuman: Hi\n\nAssistant: A"}, "field 'rejected': expected text, no such field"),
        ("hh", {"chosen": 3, "rejected": "x"}, "field 'chosen': expected text, found int"),
        ("hh", {"chosen": "Hi", "rejected": "Ho"}, "expected a transcript that begins with 'Human:'; mend or drop the line"),
        ("hh", HH_PROMPT | {"prompt": None}, "field 'prompt': expected text, found NoneType"),
        ("trl", {"prompt": "Hi", "chosen": "A"}, "field 'rejected': expected text or a list of messages"),
        ("trl", {"chosen": "A", "rejected": "B"}, "field 'prompt': expected text or a list of messages"),
        ("trl", TRL | {"prompt": 3}, "field 'prompt': expected text or a list of messages"),
        ("trl", TRL | {"chosen": ["A"]}, "expected a JSON object, found str; mend or drop the line"),
        (
            "trl",
            TRL | {"chosen": [{"role": "bot", "content": "A"}]},
            "Message field 'role': Input should be 'system', 'user' or 'assistant', found 'bot'",
        ),
        ("dialogsum", {"dialogue": "x"}, "field 'summary': expected text, no such field"),
        ("xstest", {"label": "odd", "prompt": "x"}, "field 'label': expected 'safe' or 'unsafe', found 'odd'"),
        ("rtp", {"prompt": "x"}, "field 'prompt': expected an object with 'text'"),
        ("rtp", {"prompt": {"toxicity": 0.1}}, "field 'text': expected text, no such field"),
        ("heedful", {"id": "a"}, "Prompt field 'messages': Field required"),
        (
            "heedful",
            OWN | {"probability": 0.3},
            "Preference field 'probability': Input should be greater than or equal to 0.5, found 0.3",
        ),
        ("trl", "[1]", "expected a JSON object, found list; mend or drop the line"),
        ("trl", "{", "not a JSON object (Expecting property name enclosed in double quotes, column 2); mend or drop the line"),
        ("trl", '{"prompt": NaN}', "not a JSON object (NaN is no JSON number); mend or drop the line"),
    ],
)
def test_a_bad_row_is_named_and_leaves_no_target(tmp_path: Path, form: str, row: object, problem: str) -> None:
    good = {"hh": HH, "trl": TRL, "heedful": OWN}.get(form)
    source = write(tmp_path / "in.jsonl", *([good] if good else []), "", row)
    number = 3 if good else 2
    fails(lambda: convert(form, source, tmp_path / "new" / "out.jsonl"), f"{source}:{number}: {problem}")
    assert list((tmp_path / "new").iterdir()) == []  # neither the target nor a temporary file


def test_files_that_are_broken(tmp_path: Path) -> None:
    def reading(name: str, data: bytes) -> Callable[[], object]:
        (tmp_path / name).write_bytes(data)
        return lambda: list(rows(tmp_path / name))

    fails(
        lambda: list(rows(tmp_path / "n.jsonl")),
        f"{tmp_path}/n.jsonl: cannot be read (No such file or directory); check the path",
    )
    bad = reading("u.jsonl", b'{"a": 1}\n\n{"a": "\xff"}')
    fails(bad, f"{tmp_path}/u.jsonl:3: is not UTF-8 (invalid start byte); save the file as UTF-8")
    fails(reading("u.csv", b"a,b\n\xff,1"), f"{tmp_path}/u.csv: is not UTF-8 (invalid start byte); save the file as UTF-8")
    fails(reading("x.gz", b"plain"), f"{tmp_path}/x.gz: cannot be read (Not a gzipped file (b'pl')); check the path")
    chance = random.Random(0)
    packed = gzip.compress(json.dumps({"a": [chance.random() for _ in range(500)]}).encode())
    with pytest.raises(RecordError, match=r"cut\.jsonl\.gz: cannot be read \(Compressed file ended"):
        reading("cut.jsonl.gz", packed[:60])()
    spoilt = packed[:300] + bytes(byte ^ 255 for byte in packed[300:320]) + packed[320:]
    with pytest.raises(RecordError, match=r"bad\.jsonl\.gz: cannot be read \("):
        reading("bad.jsonl.gz", spoilt)()
    fails(
        reading("a.json", b'[{"a": 1},\n{"b"]'),
        f"{tmp_path}/a.json:2: not JSON (Expecting ':' delimiter, column 5); mend the file",
    )
    fails(reading("b.json", b'{"a": 1}'), f"{tmp_path}/b.json: expected a JSON array of rows, found dict; save it as one")
    fails(reading("c.json", b"[3]"), f"{tmp_path}/c.json: row 1: expected a JSON object, found int; mend or drop the line")
    long = b'a,b\nx,1\n"' + b"y" * 140_000 + b'",2'
    fails(
        reading("l.csv", long),
        f"{tmp_path}/l.csv:3: not a CSV row (field larger than field limit (131072)); mend or drop the row",
    )


def test_csv_rows_of_the_wrong_length_are_named(tmp_path: Path) -> None:
    source = write(tmp_path / "f.csv", 'prompt,chosen,rejected\n"a\nb",c,d\nx,y')
    fails(lambda: read_preferences(source), f"{source}:4: field 'rejected': expected text or a list of messages")


def test_a_failure_leaves_the_old_target_as_it_was(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", HH, "{"), write(tmp_path / "out.jsonl", "old")
    with pytest.raises(RecordError):
        convert("hh", source, target)
    assert target.read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    write(source, HH)
    assert convert("hh", source, source) == ConversionReport(1, 1, None)  # in place
    assert read_jsonl(source, Preference)[0].chosen == "yes"


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", HH)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"folder: cannot be written \(Is a directory\); free space or choose another path"):
        convert("hh", source, tmp_path / "folder")
    with pytest.raises(StoreError, match=r"in\.jsonl/out: cannot be written"):
        convert("hh", source, source / "out")


def test_unknown_formats_name_the_nearest(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", HH), tmp_path / "out"
    fails(
        lambda: convert("xtest", source, target),
        "unknown format 'xtest'; the nearest known one is 'xstest', all are hh, trl, dialogsum, xstest, rtp, harmbench, "
        "advbench, garak, heedful",
        DataError,
    )
    fails(
        lambda: convert("hh", source, target, to="tlr"),
        "unknown target format 'tlr'; the nearest known one is 'trl', all are heedful, trl, hh",
        DataError,
    )
    with pytest.raises(DataError, match="unknown format 'парам'; the nearest known one is "):
        convert("парам", source, target)
    assert not target.exists()


def test_prompts_have_no_place_among_preferences(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "messages": OWN["prompt"]})
    fails(
        lambda: convert("heedful", source, tmp_path / "out", to="trl"),
        f"{source}: holds prompts, which 'trl' has no place for; use --to heedful",
        DataError,
    )
    assert not (tmp_path / "out").exists()


def test_repeated_prompts_are_left_out_and_repeated_ids_refused(tmp_path: Path) -> None:
    one, two = ({"id": "a", "messages": [{"role": "user", "content": text}]} for text in ("Hi", "Ho"))
    source = write(tmp_path / "in.jsonl", one, one)
    assert convert("heedful", source, tmp_path / "out") == ConversionReport(2, 1, {"the prompt occurred before": 1})
    write(source, one, two)
    fails(
        lambda: convert("heedful", source, tmp_path / "out2"),
        f"{source}:2: id 'a' was already used by another prompt; ids must be unique",
    )
    assert not (tmp_path / "out2").exists()


def test_unknown_fields_pass_through(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "messages": OWN["prompt"], "rubric": {"mentions": ["x"]}, "n": None})
    convert("heedful", source, tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["rubric"] == {"mentions": ["x"]}
    assert read_jsonl(tmp_path / "out.jsonl", Prompt) == read_jsonl(source, Prompt)


def test_converted_file_may_be_packed(tmp_path: Path) -> None:
    source, target = tmp_path / "hh.jsonl", tmp_path / "out.jsonl.gz"
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
    source.write_text(json.dumps(row) + "\n")
    convert("hh", source, target)
    assert [pair.chosen for pair in read_preferences(target)] == ["Hello."]


def test_heldout_share_is_refused_where_it_would_do_nothing(tmp_path: Path) -> None:
    source = tmp_path / "hh.jsonl"
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."}
    source.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="holds pairs, whose split is made by prompt"):
        convert("hh", source, tmp_path / "out.jsonl", heldout_share=0.5)
    with pytest.raises(DataError, match="has no place for a split"):
        convert("hh", source, tmp_path / "out.jsonl", to="trl", heldout_share=0.5)


def test_pair_that_a_transcript_cannot_give_back_is_refused() -> None:
    user, assistant = Message(role="user", content="Hi"), Message(role="assistant", content="Yes?")
    for prompt, rejected in (((user, assistant), "b"), ((user,), "a ")):
        with pytest.raises(DataError, match="use --to trl"):
            to_hh(Preference(prompt_id="p", prompt=prompt, chosen="a", rejected=rejected))
