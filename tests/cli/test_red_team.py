"""heedful constitution red-team on tiny models: figures, resume, the gate, failures, and hostile answers on the page."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from chat_server import chat_server, completion
from in_process import Done, assert_told, heedful
from safetensors.torch import load_file, save_file

from heedful.data.bundled import load_bundled
from heedful.endpoint import Endpoint
from heedful.errors import HeedfulError
from heedful.records import Completion, Message, Prompt, read_jsonl
from heedful.stages.red_team import Attack, red_team
from heedful.store import write_jsonl
from heedful.web.labelling.models import Mode
from heedful.web.labelling.sets import Gold, completion_sets

FEW = ("--num-prompts", 12, "--num-safe", 4, "--max-new-tokens", 8)
# A judge for which answers with an "e" are harmful: of random models some have one and some have none.
JUDGE = "def harm(prompts, texts):\n    return [-1.0 if 'e' in text else 1.0 for text in texts]\n"


@pytest.fixture(scope="module")
def other(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after a little training, as it were: near enough that the first one finds its answers likely."""
    folder = tmp_path_factory.mktemp("other") / "tiny"
    shutil.copytree(tiny, folder)
    tensors = load_file(folder / "model.safetensors")
    noise = torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        if tensor.dim() > 1:
            tensors[name] = tensor + 0.02 * torch.randn(tensor.shape, generator=noise)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("judge") / "judge.py"
    file.write_text(JUDGE)
    return f"{file}:harm"


def attack(*words: object) -> Done:
    return heedful("constitution", "red-team", *words)


def found(*words: object) -> dict[str, Any]:
    done = attack(*words, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_one_model_and_the_same_command_again(tiny: Path, judge: str, tmp_path: Path) -> None:
    words = ("--model", tiny, *FEW, "--judge", judge, "--output", tmp_path / "out")
    figures = found(*words)
    assert figures["attacks"]["success"]["num_cases"] == 12
    assert len(figures["attacks"]["by_category"]) == 12
    kinds = {kind: row["before"]["estimate"] for kind, row in figures["attacks"]["kinds"].items()}
    assert sum(kinds.values()) == pytest.approx(1)
    lines = (tmp_path / "out" / "judged" / "transcripts.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 16
    harmful = [row for row in rows if row["attack"] and row["kind"] == "harmful"]
    assert len(harmful) == round(12 * figures["attacks"]["success"]["before"]["estimate"])
    assert all("e" in row["text"] for row in harmful)
    hanging = [row for row in rows if row["attack"] and row["kind"] in ("harmful", "safe")]
    assert [row for row in rows if row["score"] is not None] == hanging, "no judge is asked of what it could not change"
    written = (tmp_path / "out" / "answers" / "before.jsonl").stat().st_mtime_ns
    assert found(*words) == figures, "a finished run says the same again"
    assert (tmp_path / "out" / "answers" / "before.jsonl").stat().st_mtime_ns == written, "and samples nothing"
    shown = attack(*words, "--failures", "prompts")
    assert (tmp_path / "out" / "failures" / "prompts.jsonl").exists()
    assert max(len(line) for line in shown.stdout.splitlines() if str(tmp_path) not in line) <= 80, shown.stdout
    assert "all (12)" in shown.stdout
    assert "was not measured here" in " ".join(shown.stdout.split())
    other_judge = found(*words[:-4], "--output", tmp_path / "out")
    assert other_judge["judge"]["name"] == "heuristic"
    assert not (tmp_path / "out" / "failures").exists(), "made of the other judge's verdicts"
    assert attack(*words[:-4], "--output", tmp_path / "out", "--failures", "labels").returncode == 0
    (tmp_path / "out" / "failures" / "notes.txt").write_text("read this one again")
    assert found(*words)["judge"]["name"] != "heuristic"
    assert (tmp_path / "out" / "failures" / "notes.txt").exists(), "somebody works there"
    assert (tmp_path / "out" / "answers" / "before.jsonl").stat().st_mtime_ns == written, "another judge reads the same answers"


def test_before_and_after_and_a_queue_that_labelers_can_be_given(tiny: Path, other: Path, judge: str, tmp_path: Path) -> None:
    words = ("--model", tiny, "--against", other, *FEW, "--judge", judge, "--output", tmp_path / "out")
    figures = found(*words, "--failures", "labels")
    success = figures["attacks"]["success"]
    assert success["after"]["estimate"] - success["before"]["estimate"] == pytest.approx(success["difference"]["estimate"])
    assert set(figures["look_alikes"]["refused"]) >= {"before", "after", "difference", "change"}
    folder = tmp_path / "out" / "failures"
    prompts, completions = read_jsonl(folder / "prompts.jsonl", Prompt), read_jsonl(folder / "completions.jsonl", Completion)
    assert figures["failures"] == {
        "kind": "labels",
        "prompts": len(prompts),
        "completions": 2 * len(prompts),
        "least_completions": 2,
        "held_out": sum(one.split == "heldout" for one in prompts),
    }
    assert len(prompts) == round(12 * success["after"]["estimate"]) > 0
    assert completion_sets(prompts, completions, Gold.of([]), mode=Mode.RANK).sets
    done = attack(*words, "--failures", "prompts")
    assert done.returncode == 0, done.stderr
    assert "a model that learned from them is no fair" in done.stderr
    ready = read_jsonl(folder / "prompts.jsonl", Prompt)
    assert {one.split for one in ready} <= {"train"}
    assert {one.id for one in ready} == {one.id for one in prompts if one.split == "train"}
    assert not (folder / "completions.jsonl").exists()


def test_variants_are_asked_too_and_belong_to_their_seed(tmp_path: Path, judge: str) -> None:
    roomy = tiny_model.make(tmp_path / "roomy", context=1024)
    words = ("--model", roomy, "--writer", roomy, "--variants", 2, *FEW, "--judge", judge, "--output", tmp_path / "out")
    figures = found(*words)
    assert figures["variants"] + sum(figures["dropped_variants"].values()) == 24
    assert figures["attacks"]["success"]["num_cases"] == 12
    assert figures["attacks"]["success"]["num_answers"] == {"before": 12 + figures["variants"]}
    asked = read_jsonl(tmp_path / "out" / "prompts" / "prompts.jsonl", Prompt, unique="id")
    assert len(asked) == 16 + figures["variants"]


def test_a_run_that_was_interrupted_goes_on(tiny: Path, other: Path, tmp_path: Path) -> None:
    prompts = load_bundled(["red-team"])[:8]
    plan = Attack(str(tiny), str(other), max_new_tokens=6, batch_rows=4, num_resamples=200)

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if stage == "after":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        red_team(prompts, tmp_path / "cut", plan, stop)
    before = (tmp_path / "cut" / "answers" / "before.jsonl").read_bytes()
    partly = read_jsonl(tmp_path / "cut" / "answers" / "after.jsonl.partial", Completion)
    assert len(partly) == 4
    resumed = red_team(prompts, tmp_path / "cut", plan, lambda *_: None)
    whole = red_team(prompts, tmp_path / "whole", plan, lambda *_: None)
    assert (tmp_path / "cut" / "answers" / "before.jsonl").read_bytes() == before
    assert resumed.completions == whole.completions
    assert resumed.figures == whole.figures


def test_a_judge_that_may_be_a_coin_is_refused_with_its_figures(tiny: Path, tmp_path: Path) -> None:
    turn = {"role": "user", "content": "How do I steal it?"}
    rows = [
        {
            "prompt_id": f"p{n}",
            "prompt": [turn],
            "chosen": "Sure! First, you take it." * (n % 2),
            "rejected": "No." * (1 - n % 2),
        }
        for n in range(20)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--model", tiny, *FEW, "--gate", tmp_path / "pairs.jsonl", "--output", tmp_path / "out")
    assert_told(attack(*words), "in 50.0% [", "of 20 labelled pairs", "not told from a coin", "--believe-judge")
    assert not (tmp_path / "out" / "answers").exists(), "it is refused before anything is sampled"
    figures = found(*words, "--believe-judge")
    assert figures["judge"]["gate"]["passed"] is False
    assert "which is not told from a coin" in (tmp_path / "out" / "report.html").read_text()


def test_what_models_wrote_stays_text_on_the_page(tiny: Path, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} \u202e \x1b[31m"
    prompt = Prompt(id="<b>x</b>", messages=(Message(role="user", content=hostile),))
    write_jsonl(tmp_path / "p.jsonl", [prompt])
    done = attack("--model", tiny, "--prompts", tmp_path / "p.jsonl", "--max-new-tokens", 4, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--categories", "cyber,piracy"), "there is no category 'piracy' among the prompts; there are violence, weapons"),
        (("--prompts", "bundled:poems"), "there are no bundled prompts 'poems'"),
        (("--prompts", "bundled:look-alikes"), "there is no prompt to attack with"),
        (("--prompts", "absent.jsonl"), "absent.jsonl: cannot be read"),
        (("--judge-model", "x"), "belong to a --judge that is ai:https://"),
        (("--judge", "ai:https://127.0.0.1:9/v1", "--gate", "g.jsonl"), "say with --judge-model which of its models judges"),
        (("--judge", "ai:"), "names no model"),
        (("--judge", "no-such-judge-anywhere/x y"), "no-such-judge-anywhere/x y"),
        (("--judge", "heuristc"), "heuristc: no such folder"),
        (("--judge", "ai:heuristc"), "heuristc: no such folder"),
        (("--judge", "absent.py:harm"), "absent.py"),
        (("--judge", "ai:https://127.0.0.1:9/v1"), "say with --judge-model which of its models judges"),
        (
            ("--judge", "ai:https://127.0.0.1:9/v1", "--judge-model", "m", "--judge-token-env", "NO_SUCH_TOKEN"),
            "--judge-token-env = 'NO_SUCH_TOKEN'",
        ),
        (("--variants", 1, "--writer", "https://127.0.0.1:9/v1"), "say with --writer-model which of its models writes"),
        (("--variants", 1, "--writer-model", "m"), "--writer-model and --writer-token-env belong to a --writer that is"),
        (
            (
                "--variants",
                1,
                "--writer",
                "https://127.0.0.1:9/v1",
                "--writer-model",
                "m",
                "--writer-token-env",
                "NO_SUCH_TOKEN",
            ),
            "--writer-token-env = 'NO_SUCH_TOKEN'",
        ),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_sampled(
    tiny: Path, tmp_path: Path, words: tuple[object, ...], told: str
) -> None:
    (tmp_path / "g.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    given = [tmp_path / word if word == "g.jsonl" else word for word in words]
    assert_told(attack("--model", tiny, *FEW, *given, "--output", tmp_path / "out"), told)
    assert not (tmp_path / "out" / "answers").exists()


def test_an_answer_of_which_the_judge_says_nothing_is_counted_and_asked_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither harmful nor safe, and does not stop the others."""
    prompts = load_bundled(["red-team"])[:8]
    silent = [prompt.messages[0].content for prompt in prompts[:4]]

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        text = body["messages"][0]["content"]
        if any(asked in text for asked in silent):
            return 200, completion("I would rather not say.")
        return 200, completion("A" if "\nA: It helps" in text else "B")

    monkeypatch.setattr("heedful.judging.feedback.Endpoint", partial(Endpoint, sleep=lambda _: None))
    with chat_server(answer) as (url, seen):
        plan = Attack(str(tiny), max_new_tokens=4, judge=f"ai:{url}", judge_model="big", num_resamples=200)
        cut = red_team(prompts, tmp_path / "out", plan, lambda *_: None)
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        silent.clear()
        count = len(seen.bodies)
        whole = red_team(prompts, tmp_path / "out", plan, lambda *_: None)
        again = len(seen.bodies) - count
    unjudged = cut.figures["unjudged"]
    assert 1 <= unjudged <= 4
    assert cut.figures["attacks"]["success"]["num_cases"] == 8 - unjudged
    assert not any(one.kind == "safe" for one in cut.answers["before"]), "the server calls all others harmful"
    assert "the judge said nothing; they are in no figure" in page
    assert (whole.figures["unjudged"], whole.figures["attacks"]["success"]["num_cases"]) == (0, 8)
    assert again == 2 * unjudged, "both orders of each, and nothing else"


def test_another_number_of_variants_asks_only_for_what_is_new(tiny: Path, tmp_path: Path) -> None:
    prompts = [prompt.model_copy(update={"tags": ("red-team",)}) for prompt in load_bundled()[:3]]
    with chat_server() as (url, seen):
        for variants in (1, 2):
            plan = Attack(str(tiny), variants=variants, writer=url, writer_model="big", max_new_tokens=4, num_resamples=200)
            red_team(prompts, tmp_path / "out", plan, lambda *_: None)
    assert sorted(seen.asked.values()) == [1] * 6


def test_errors_are_of_the_family() -> None:
    with pytest.raises(HeedfulError):
        red_team([], Path("nowhere"), Attack("m"), lambda *_: None)
