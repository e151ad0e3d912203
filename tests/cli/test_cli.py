"""The command line as a user meets it: every command has help with an example, errors are one paragraph, --json is JSON."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import small_run
import typer
from command import HEEDFUL, assert_one_paragraph, heedful
from pages import documented

from heedful.cli.app import app
from heedful.data.bundled import load_bundled
from heedful.engine.conversation import Conversation
from heedful.store import write_jsonl


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            found += commands(command, (*path, name))
        else:
            found.append(((*path, name), command))
    return found


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_each_command_shows_an_example(path: tuple[str, ...], command: Any) -> None:
    assert "Example: `heedful " + " ".join(path) in command.help
    undescribed = [parameter.name for parameter in command.params if parameter.name != "help" and not parameter.help]
    assert set(undescribed) <= {"seed", "max_new_tokens"}, undescribed


def test_no_arguments_show_help_and_wrong_usage_exits_2() -> None:
    assert heedful("--help").returncode == 0
    wrong = heedful("run")
    assert wrong.returncode == 2
    assert "Missing argument" in wrong.stderr
    assert heedful("no-such-command").returncode == 2


def test_import_and_help_are_quick() -> None:
    """The aims are 0.3 s and 0.5 s; the medians of three are compared, for machines are noisy."""

    def median(command: list[str]) -> float:
        times = []
        for _ in range(3):
            clock = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            times.append(time.perf_counter() - clock)
        return statistics.median(times)

    bare = median([sys.executable, "-c", "pass"])
    seconds = {"import": median([sys.executable, "-c", "import heedful"]), "help": median([*HEEDFUL, "--help"])}
    print(f"python {bare:.2f} s, import heedful {seconds['import']:.2f} s, heedful --help {seconds['help']:.2f} s")
    assert seconds["import"] < 0.3 + bare
    assert seconds["help"] < 0.5 + bare
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, heedful.cli.app; print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert loaded.stdout.strip() == "False", "showing help must not load torch"


def test_resume_begins_nothing(tmp_path: Path) -> None:
    (tmp_path / "heedful.toml").write_text("")
    failed = heedful("run", tmp_path / "heedful.toml", "--dir", tmp_path / "run", "--resume")
    assert_one_paragraph(failed, f"{tmp_path / 'run'}: no run was begun there that could go on", "leave out --resume")
    assert not (tmp_path / "run").exists()


def test_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "heedful.toml").write_text("[ppo]\nlerning_rate = 0.1\n")
    failed = heedful("run", tmp_path / "heedful.toml", "--dir", tmp_path / "run")
    assert failed.returncode == 1
    assert failed.stderr.strip().endswith("unknown key 'ppo.lerning_rate'; the nearest known key is 'ppo.learning_rate'")
    assert "Traceback" not in failed.stderr
    assert failed.stdout == ""


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    failed = heedful("--debug", "run", tmp_path / "absent.toml")
    assert "Traceback" in failed.stderr
    assert failed.returncode == 1


def test_model_that_cannot_be_had_is_one_paragraph(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "prompts.jsonl", load_bundled()[:2])
    failed = heedful(
        "sample", "--model", "./absent", "--prompts", tmp_path / "prompts.jsonl", "--output", tmp_path / "out.jsonl"
    )
    assert failed.returncode == 1
    assert "./absent: no such folder, and not a hub id (owner/name) either" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1


def test_init_writes_a_config_of_defaults_and_a_first_run_that_ends(tmp_path: Path) -> None:
    assert heedful("init", tmp_path / "project").returncode == 0
    text = (tmp_path / "project/heedful.toml").read_text()
    assert "# Peak rate of the adapter." in text
    again = heedful("init", tmp_path / "project")
    assert again.returncode == 1
    assert "exists already" in again.stderr
    from heedful.config import Config, PromptsSection, load

    own = PromptsSection(files=(str(tmp_path / "project/prompts.jsonl"),))
    few = {"max_steps": 20}
    expected = Config.model_validate({"prompts": own, "ppo": few, "rloo": few, "grpo": few})
    assert load(tmp_path / "project/heedful.toml") == expected


SHORT = (
    *("--set", "sample.max_new_tokens=8", "--set", "sample.num_completions=3", "--set", "ppo.max_steps=1"),
    *("--set", "ppo.episodes=4", "--set", "ppo.max_new_tokens=8", "--set", "evaluate.max_new_tokens=8"),
    *("--set", "evaluate.num_resamples=100", "--set", "reward.heldout_share=0.4"),
)


def test_what_init_writes_runs_as_its_message_says_and_resumes_from_elsewhere(tiny: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = heedful("init", "project", cwd=tmp_path).stdout.strip()
    command = said.rpartition("then: heedful ")[2].split()
    assert command == ["run", "project/heedful.toml"]
    done = heedful(*command, "--set", f"model.source={os.path.relpath(tiny, tmp_path)}", *SHORT, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"train": 24, "heldout": 12}, "the prompts of the file, not the bundled ones"
    run = tmp_path / "runs/project"
    again = heedful("run", "../runs/project/heedful.toml", "--dir", "../runs/project", "--resume", cwd=elsewhere)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("already done") == 7, again.stderr
    (tmp_path / "project/prompts.jsonl").unlink()
    failed = heedful("run", run / "heedful.toml", "--dir", run, cwd=elsewhere)
    assert_one_paragraph(failed, f"{tmp_path / 'project/prompts.jsonl'}: cannot be read", "check the path")
    assert "--from" not in failed.stderr, "no stage writes the user's own file"


def test_each_step_alone(run: Path, tiny: Path, tmp_path: Path) -> None:
    """The commands that stand for single arrows, one after the other on each other's files."""
    prompts = tmp_path / "prompts.jsonl"
    write_jsonl(prompts, load_bundled()[:30])
    completions, judgements = tmp_path / "completions.jsonl", tmp_path / "judgements.jsonl"
    done = heedful(
        *("sample", "--model", tiny, "--prompts", prompts, "--num-completions", "3", "--max-new-tokens", "10"),
        *("--output", completions, "--json"),
    )
    assert json.loads(done.stdout)["completions"] == 90, done.stderr
    assert "tokens/s" in done.stderr
    done = heedful(
        "label", "simulate", "--prompts", prompts, "--completions", completions, "--output", judgements, "--noise", "0.02"
    )
    assert "120 simulated judgements" in done.stdout, done.stderr
    files = ("--prompts", prompts, "--completions", completions)
    done = heedful("consensus", "--judgements", judgements, *files, "--output", tmp_path / "consensus")
    assert "simulated-4" in done.stdout, done.stderr
    assert max(map(len, done.stdout.splitlines()[:6])) <= 80
    pairs = tmp_path / "consensus" / "preferences.jsonl"
    done = heedful("reward", "train", "--model", tiny, "--preferences", pairs, "--output", tmp_path / "rm", "--json")
    assert done.returncode == 0, done.stderr
    trained = json.loads(done.stdout)
    assert 0 <= trained["accuracy"]["estimate"] <= 1
    assert (trained["accuracy"]["low"] is None) == (trained["num_prompts"] == 1), "one prompt tells nothing of the next"
    model = tmp_path / "rm" / "reward" / "model"
    mine = tmp_path / "notes" / "reward" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    refused = heedful("reward", "train", "--model", tiny, "--preferences", pairs, "--output", tmp_path / "notes")
    assert refused.returncode == 1
    assert "reward: holds what heedful did not write (mine.txt)" in refused.stderr
    assert mine.read_text() == "mine"
    done = heedful("reward", "evaluate", model, "--preferences", pairs, "--json")
    assert 0 <= json.loads(done.stdout)["longest_answer"] <= 1, done.stderr
    done = heedful("reward", "score", model, *files, "--json")
    assert len(json.loads(done.stdout)) == 90, done.stderr
    done = heedful("evaluate", "toxicity", "--completions", completions, "--json")
    assert 0 <= json.loads(done.stdout)["toxicity"]["before"]["estimate"] <= 1, done.stderr
    done = heedful("evaluate", "refusal", *files, "--json")
    assert set(json.loads(done.stdout)) == {"harmful", "safe", "untold"}, done.stderr
    config = run.parent / "small.toml"
    for method in ("ppo", "rloo", "grpo"):
        done = heedful(
            *("align", method, "--config", config, "--reward-model", model, "--output", tmp_path / "aligned"),
            *("--set", f"{method}.max_steps=2", "--set", f"{method}.episodes=8", "--set", f"{method}.samples_per_prompt=2"),
            *("--set", f"{method}.max_new_tokens=12", "--json"),
        )
        found = json.loads(done.stdout)
        hacking = found["hacking"]
        assert found == {
            "method": method,
            "steps": 2,
            "stopped": "step limit",
            "policy_step": 2,
            "hacking": hacking,
        }, done.stderr
        assert set(found) == documented("ppo.md"), "the pages of RLOO and GRPO lead there"


def test_run_shows_a_table_of_80_columns(run: Path) -> None:
    done = heedful("run", run.parent / "small.toml", "--dir", run)
    assert done.returncode == 0, done.stderr
    assert "already done" in done.stderr
    assert "Labels came from simulated labelers" in done.stdout
    assert max(map(len, done.stdout.split("\nreport ")[0].splitlines())) <= 80
    shown = heedful("evaluate", "all", run)
    assert "Toxicity" in shown.stdout, shown.stderr


def test_run_stops_after_a_stage_and_says_how_to_go_on(run: Path, tmp_path: Path) -> None:
    command = ("run", run.parent / "small.toml", "--dir", tmp_path / "run", "--until")
    done = heedful(*command, "sample")
    assert done.returncode == 0, done.stderr
    assert f"stopped after sample: {tmp_path / 'run' / 'sample'}" in done.stdout
    assert "go on with the same command without --until; judgements by people: add --set label.judgements=FILE" in done.stdout
    assert json.loads(heedful(*command, "label", "--json").stdout)["stopped_after"] == "label"
    assert not (tmp_path / "run" / "consensus").exists()
    wrong = heedful("run", run.parent / "small.toml", "--dir", tmp_path / "other", "--until", "smaple")
    assert wrong.returncode == 1
    assert "--until smaple: no such stage; the stages are sample, label" in wrong.stderr
    assert not (tmp_path / "other").exists()


def test_chat_shows_base_and_aligned_side_by_side(run: Path, tiny: Path) -> None:
    done = heedful("chat", run, "--compare", tiny, "--once", "Knock, knock.", "--max-new-tokens", "8", "--json")
    answers = json.loads(done.stdout)["answers"]
    assert set(answers) == {"base", "aligned"}, done.stderr
    talked = heedful("chat", run, "--max-new-tokens", "5", stdin="Hello.\n/new\nHello.\n\n")
    assert talked.returncode == 0, talked.stderr
    assert talked.stdout.count("aligned") == 2


def test_chat_gives_the_best_of_several_answers(run: Path, tiny: Path, tmp_path: Path) -> None:
    code = "def short(prompts, completions):\n    return [-float(len(text)) for text in completions]\n"
    (tmp_path / "wishes.py").write_text(code)
    asked = ("chat", run, "--once", "Knock, knock.", "--max-new-tokens", "8", "--json")
    drawn = ("--temperature", "1", "--best-of", "6", "--reward-model", tmp_path / "wishes.py:short")
    single, best = (json.loads(heedful(*asked, *more).stdout)["answers"] for more in (("--temperature", "1"), drawn))
    assert len(best["aligned"]) < len(single["aligned"])
    kept: list[list[str]] = []

    def shortest(history: Any, replies: Any) -> int:
        assert history[-1].content == "Hello."
        kept.append([reply.text for reply in replies])
        return min(range(len(replies)), key=lambda place: len(replies[place].text))

    talk = Conversation(str(tiny), temperature=1.0, max_new_tokens=8, best_of=5, choose=shortest)
    answers = talk.answer("Hello.")
    assert len(set(kept[0])) > 1
    assert answers == {str(tiny): min(kept[0], key=len)}
    assert talk.histories[str(tiny)][-1].content == answers[str(tiny)], "the chosen one is what is remembered"
    together = "--best-of N, 2 or more, and --reward-model SOURCE go together"
    assert_one_paragraph(heedful(*asked, "--best-of", "3"), together)
    assert_one_paragraph(heedful(*asked, "--reward-model", tmp_path / "wishes.py:short"), together)
    assert_one_paragraph(heedful(*asked, *drawn[2:]), "the best of 6 answers needs a temperature above 0")


@pytest.mark.parametrize("end", ["\n", ""], ids=["empty line", "end of input"])
def test_chat_as_json_is_one_object_for_all_turns(run: Path, end: str) -> None:
    said = "Hello.\nHow are you?\n/new\nHello.\n"
    done = heedful("chat", run, "--max-new-tokens", "5", "--json", stdin=said + end)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("{")
    turns = json.loads(done.stdout)["turns"]
    assert [(turn["conversation"], turn["message"]) for turn in turns] == [(1, "Hello."), (1, "How are you?"), (2, "Hello.")]
    assert turns[0]["answers"] == turns[2]["answers"], "a new conversation remembers nothing"
    assert done.stderr.count("you: ") == 5


def test_chat_as_json_without_a_word_is_an_object(run: Path) -> None:
    assert json.loads(heedful("chat", run, "--json").stdout) == {"turns": []}


def test_export_and_report(run: Path, tmp_path: Path) -> None:
    done = heedful("export", run, tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert heedful("export", run, tmp_path / "model").returncode == 0, "an export may replace an earlier one"
    thesis = tmp_path / "precious" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("mine")
    refused = heedful("export", run, thesis.parent)
    assert refused.returncode == 1
    assert "precious: holds what heedful did not write (thesis.txt), so it is left as it is; choose another" in refused.stderr
    assert thesis.read_text() == "mine"
    assert heedful("report", run).stdout.strip() == str(run / "report.html")
    assert "no run directory" in heedful("report", tmp_path / "absent").stderr


def test_ctrl_c_ends_a_command_within_seconds_and_says_how_to_go_on(tiny: Path, tmp_path: Path) -> None:
    config = small_run.write_config(tmp_path / "small.toml", tiny)
    process = subprocess.Popen(
        [*HEEDFUL, "run", str(config), "--dir", str(tmp_path / "run"), "--set", "ppo.max_steps=100000"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # A suite that was started in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("ppo"):
            break
    time.sleep(2)
    clock = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - clock < 10
    assert "interrupted; run the same command again to go on where it stopped" in rest
    assert "Traceback" not in rest


def test_convert_prints_what_it_left_out(tmp_path: Path) -> None:
    rows = [
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Same.", "rejected": "\n\nHuman: Hi\n\nAssistant: Same."},
    ]
    (tmp_path / "hh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = heedful("data", "convert", "--from", "hh", tmp_path / "hh.jsonl", tmp_path / "out.jsonl")
    assert "1 of 2 rows" in done.stdout
    assert "left out 1: both answers are the same" in done.stdout
    wrong = heedful("data", "convert", "--from", "hhh", tmp_path / "hh.jsonl", tmp_path / "out.jsonl")
    assert wrong.returncode == 1
    assert "nearest known one is 'hh'" in wrong.stderr


def test_doctor_is_json(tmp_path: Path) -> None:
    facts = json.loads(heedful("doctor", "--json").stdout)
    assert facts["device"] in ("cpu", "cuda")
    assert "smollm2-135m" in facts["models"]
