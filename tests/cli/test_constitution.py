"""heedful constitution show and init."""

from __future__ import annotations

import json
from pathlib import Path

from in_process import heedful


def test_the_bundled_constitution_is_shown(tmp_path: Path) -> None:
    done = heedful("constitution", "show")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "no-injury (harmless; weight 2)" in done.stdout
    assert "16 principles, 4 worked examples" in " ".join(done.stdout.split())
    found = json.loads(heedful("constitution", "show", "--json").stdout)
    assert (len(found["principles"]), found["first"]) == (16, "harmless")


def test_a_constitution_is_begun_changed_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    assert heedful("constitution", "init", path).returncode == 0
    assert "1 principle, 1 worked example." in heedful("constitution", "show", path).stdout
    refused = heedful("constitution", "init", path)
    assert refused.returncode == 1
    assert "exists already" in refused.stderr
    text = path.read_text()
    number = text.split("\n").index("weight = 1.0") + 1
    path.write_text(text.replace("weight = 1.0", "weight = -2"))
    failed = heedful("constitution", "show", path)
    assert failed.returncode == 1
    assert f"{path}:{number}: [[principles]] number 1: weight = -2: Input should be greater than 0" in failed.stderr


def test_what_a_terminal_would_obey_is_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    heedful("constitution", "init", path)
    path.write_text(path.read_text().replace('name = "my constitution"', 'name = "a\\u001b[2Jb\\u202ec"'))
    shown = heedful("constitution", "show", path).stdout
    assert shown.startswith("a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c\n")
