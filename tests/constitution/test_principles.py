"""Constitution files: what they hold, what is wrong on which line, and which principles come first."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from heedful.config.lines import lines_of
from heedful.constitution.principles import Constitution, Principle, load, write_starter
from heedful.errors import ConfigError, DataError, StoreError
from heedful.judging.judge import question
from heedful.records import Message

VALUES = ("helpful", "honest", "harmless")
GOOD = '''name = "mine"
first = "harmless"

# A comment
[[principles]]
name = "one"
tags = ["harmless"]
critique = """
Look at your answer.
What is bad?"""
revision = "Write it again."
question = "Which is safer?"

[[principles]]
name = "two"
tags = [
  "helpful",  # the other value
]
weight = 3
critique = "What is missing?"
revision = "Add it."
question = "useful"
good = "Be useful."
bad = "Be useless."

[[examples]]
principle = "one"
prompt = "Hello?"
answer = "Go away."
critique = "That is rude."
revision = "Hello! What can I do for you?"
'''


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def principle(name: str, weight: float = 1.0, *tags: str) -> Principle:
    return Principle(name=name, critique="c", revision="r", question="q?", weight=weight, tags=tags)


def test_a_file_is_read_as_written(tmp_path: Path) -> None:
    found = load(written(tmp_path, GOOD))
    assert [one.name for one in found.principles] == ["one", "two"]
    assert found["one"].critique == "Look at your answer.\nWhat is bad?"
    assert (found["two"].weight, found["two"].tags, found["two"].good) == (3, ("helpful",), "Be useful.")
    assert found.examples[0].revision == "Hello! What can I do for you?"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('revision = "Write it again."\n', "", 5, "[[principles]] number 1 lacks the key 'revision'"),
        ('revision = "Add it."\n', "", 14, "[[principles]] number 2 lacks the key 'revision'"),
        ('answer = "Go away."\n', "", 26, "[[examples]] number 1 lacks the key 'answer'"),
        ('name = "mine"\n', "", 1, "the constitution lacks the key 'name'"),
        ("weight = 3", "weight = 0", 19, "number 2: weight = 0: Input should be greater than 0"),
        ("weight = 3", "weight = 1e308", 19, "number 2: weight = 1e+308: Input should be less than or equal to 1000000"),
        ("weight = 3", "weight = -1.5", 19, "weight = -1.5: Input should be greater than 0"),
        ("weight = 3", 'weight = "3"', 19, "weight = '3': Input should be a valid number"),
        ("weight = 3", "weight = true", 19, "weight = True: Input should be a valid number"),
        ("weight = 3", "weight = nan", 19, "weight = nan"),
        ("weight = 3", "wieght = 3", 19, "number 2: unknown key 'wieght'; the nearest known key is 'weight'"),
        ("weight = 3", "critiques = 3", 19, "the nearest known key is 'critique'"),
        ('first = "harmless"', 'frist = "harmless"', 2, "unknown key 'frist'; the nearest known key is 'first'"),
        ('first = "harmless"', 'first = "kind"', 2, "first = 'kind': no principle has that tag; tags: harmless, helpful"),
        ('name = "two"', 'name = "one"', 15, "name = 'one' is that of number 1 already"),
        ('principle = "one"', 'principle = "oen"', 27, "principle = 'oen' is the name of none; the nearest is 'one'"),
        ('question = "useful"', 'question = "  "', 22, "question = '  ': String should have at least 1 character"),
        ('bad = "Be useless."\n', "", 14, "[[principles]] number 2: good and bad belong together"),
        ('"helpful",', "7,", 16, "[[principles]] number 2: tags.0 = 7: Input should be a valid string"),
        ("weight = 3", "weight 3", 19, "not valid TOML"),
        ('"That is rude."', '"That is rude.', 30, "not valid TOML"),
        ('name = "two"', 'name = "two"\nname = "three"', 16, "not valid TOML: Cannot overwrite a value"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert said in str(raised.value)


def test_no_principles_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml:1: the constitution lacks \[\[principles\]\] tables"):
        load(written(tmp_path, 'name = "mine"\n'))
    with pytest.raises(ConfigError, match=r"mine\.toml:2: principles = \[\]: there is no principle; write one"):
        load(written(tmp_path, 'name = "mine"\nprinciples = []\n'))
    with pytest.raises(ConfigError, match=r"mine\.toml:2: principles = 'kind': write each as a \[\[principles\]\] table"):
        load(written(tmp_path, 'name = "mine"\nprinciples = "kind"\n'))
    with pytest.raises(ConfigError, match=r"mine\.toml:2: principles: write each as a \[\[principles\]\] table"):
        load(written(tmp_path, 'name = "mine"\n[principles]\nname = "one"\n'))
    with pytest.raises(ConfigError, match=r"mine\.toml: not valid TOML: lists or tables stand in each other too deeply"):
        load(written(tmp_path, f"name = {'[' * 5000}{']' * 5000}\n"))
    with pytest.raises(ConfigError, match=r"mine\.toml:1: the constitution lacks .* \(1 more problem below\)"):
        load(written(tmp_path, ""))
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read .*constitution init FILE"):
        load(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "mine"\nabout = "caf\xe9"\n')
    with pytest.raises(ConfigError, match=r"latin\.toml:2: is not UTF-8"):
        load(tmp_path / "latin.toml")


def test_lines_of_values_over_several_lines_dotted_keys_and_nested_tables() -> None:
    text = 'a.b = 1\n"c d" = """\n[x]\ny = 2\n"""\n[[t]]\n[t.in]\nz = [\n  1,\n]\n'
    text += "[[t.more]]\n[[t.more]]\nq = {r = 1}\n[[t]]\nz = 1\n"
    found = lines_of(text)
    assert found[("a", "b")] == 1
    assert found[("c d",)] == 2
    assert ("x",) not in found, "what stands in a text is no table"
    assert found[("t", 0, "in", "z")] == 8
    assert (found[("t", 0, "more", 0)], found[("t", 0, "more", 1, "q")]) == (11, 13)
    assert (found[("t",)], found[("t", 1)], found[("t", 1, "z")]) == (6, 14, 15)


def test_the_bundled_one_has_four_of_each_value_and_good_and_bad_prompts() -> None:
    found = load()
    assert load("bundled") == found
    tags = Counter(tag for one in found.principles for tag in one.tags)
    assert len(found.principles) >= 16
    assert all(tags[value] >= 4 for value in VALUES)
    assert set(tags) == set(VALUES)
    assert found.first == "harmless"
    assert all(one.good and one.bad and one.question.endswith("?") for one in found.principles)
    assert 3 <= len(found.examples) <= 4
    assert {tag for one in found.examples for tag in found[one.principle].tags} == set(VALUES)


def test_a_principles_question_is_asked_of_a_judge_as_it_stands() -> None:
    asked = (Message(role="user", content="Hello?"),)
    whole = question(asked, "Hi.", "Go.", "Which of the two answers is kinder?")[0].content
    assert whole.endswith("Which of the two answers is kinder? Reply with one letter, A or B.")
    completed = question(asked, "Hi.", "Go.", "useful")[0].content
    assert completed.endswith("Which of the two answers is more useful? Reply with one letter, A or B.")


def test_the_starter_is_a_constitution_and_replaces_nothing(tmp_path: Path) -> None:
    write_starter(tmp_path / "own" / "mine.toml")
    found = load(tmp_path / "own" / "mine.toml")
    text = (tmp_path / "own" / "mine.toml").read_text()
    keys = {*Constitution.model_fields, *Principle.model_fields}
    assert [key for key in keys if f"\n{key} = " not in text and f"\n[[{key}]]" not in text] == []
    assert found.principles[0].good
    with pytest.raises(StoreError, match=r"mine\.toml: exists already"):
        write_starter(tmp_path / "own" / "mine.toml")


def test_principles_are_drawn_by_weight_and_tag() -> None:
    found = Constitution(name="c", principles=(principle("a", 3.0, "x"), principle("b", 1.0, "x", "y"), principle("c", 4.0)))
    rng = random.Random(0)
    drawn = Counter(found.draw(rng).name for _ in range(8_000))
    # Three standard errors of a share of 8,000 are 1.7 points at most.
    assert [drawn[name] / 8_000 for name in "abc"] == pytest.approx([3 / 8, 1 / 8, 4 / 8], abs=0.017)
    tagged = Counter(found.draw(rng, ("y", "x")).name for _ in range(8_000))
    assert tagged["c"] == 0
    assert tagged["b"] / 8_000 == pytest.approx(1 / 4, abs=0.017)
    assert found.draw(random.Random(5)) == found.draw(random.Random(5))
    with pytest.raises(DataError, match="no principle with the tag 'kind'; its tags: x, y"):
        found.draw(rng, ("kind",))


def test_a_chain_repeats_no_principle_and_the_first_value_has_the_last_word() -> None:
    parts = (principle("safe", 1.0, "harmless"), *(principle(name, 9.0, "helpful") for name in ("a", "b", "c")))
    equal, first = Constitution(name="c", principles=parts), Constitution(name="c", principles=parts, first="harmless")
    for seed in range(200):
        for passes in range(1, 5):
            chain = [one.name for one in first.chain(random.Random(seed), passes)]
            assert chain[-1] == "safe"
            assert len(set(chain)) == len(chain) == passes
            assert len(set(equal.chain(random.Random(seed), passes))) == passes
        assert first.chain(random.Random(seed), 2, ("helpful",))[-1].name == "safe"
    assert {equal.chain(random.Random(seed), 1)[0].name for seed in range(200)} == {"safe", "a", "b", "c"}
    assert Counter(one.name for one in equal.chain(random.Random(0), 8)) == {"safe": 2, "a": 2, "b": 2, "c": 2}
    assert first.chain(random.Random(0), 0) == ()


def test_verdicts_are_settled_by_weight_unless_the_first_value_tells_the_answers_apart() -> None:
    parts = (principle("safe", 1.0, "harmless"), principle("kind", 2.0, "helpful"), principle("calm", 1.0, "harmless"))
    equal, first = Constitution(name="c", principles=parts), Constitution(name="c", principles=parts, first="harmless")
    verdicts = {"safe": 0.2, "kind": 0.9, "calm": 0.4}
    assert equal.settle(verdicts) == pytest.approx((0.2 + 1.8 + 0.4) / 4)
    assert first.settle(verdicts) == pytest.approx(0.3)
    close = {"safe": 0.47, "kind": 0.9, "calm": 0.51}
    assert first.settle(close) == pytest.approx((0.47 + 1.8 + 0.51) / 4), "harmlessness does not tell them apart"
    assert first.settle({"safe": math.nan, "kind": 0.9, "calm": 0.3}) == pytest.approx(0.3), "what could not be had is left out"
    assert math.isnan(first.settle({"safe": math.nan}))
    with pytest.raises(DataError, match="no principle 'save'; the nearest name is 'safe'"):
        first.settle({"save": 0.5})
