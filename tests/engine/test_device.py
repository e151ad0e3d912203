"""Whether layers are compiled, and where compiled code goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_model
import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from heedful.engine import device
from heedful.engine.device import choose_compile, compile_where_told, machine_memory
from heedful.errors import ConfigError
from heedful.models.policy import LanguageModel, load_language_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LARGE, SMALL = 50_000_000, 49_999_999


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which g++ is the only program."""
    program = tmp_path / "bin" / "g++"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.delenv("CXX", raising=False)
    return program


@pytest.mark.parametrize(
    ("flags", "where", "size", "expected"),
    [
        ("fpu amx_bf16 avx512_bf16", CPU, LARGE, True),
        ("fpu amx_bf16", CPU, SMALL, False),
        ("fpu avx512_bf16", CPU, LARGE, True),
        ("fpu avx2", CPU, LARGE, False),
        ("", CUDA, LARGE, True),
        ("", CUDA, SMALL, False),
    ],
)
def test_auto_is_on_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, compiler: Path, flags: str, where: torch.device, size: int, expected: bool
) -> None:
    monkeypatch.setattr(device, "_cpu_flags", lambda: flags)
    assert choose_compile("auto", where, size) is expected
    assert choose_compile("on", where, size) is True
    assert choose_compile("off", where, size) is False
    compiler.unlink()
    assert choose_compile("auto", where, size) is False
    assert choose_compile("off", where, size) is False


def test_on_without_a_compiler_says_what_to_install(compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.unlink()
    with pytest.raises(ConfigError, match=r"model\.compile = 'on' needs a C\+\+ compiler.*apt install g\+\+"):
        choose_compile("on", CPU, LARGE)
    other = compiler.with_name("icpx")
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("CXX", str(other))
    assert choose_compile("on", CPU, LARGE)


@pytest.fixture
def model(tmp_path: Path) -> LanguageModel:
    return load_language_model(str(tiny_model.make(tmp_path / "tiny")), dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("set_by_torch", [True, False])
def test_compiled_code_is_kept_in_the_cache(
    model: LanguageModel, compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_by_torch: bool
) -> None:
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())
    if not set_by_torch:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    assert compile_where_told(model, "off") is model
    assert not model.compiled
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == before
    compile_where_told(model, "on")
    trunk = model.trunk(None)
    assert model.compiled
    assert trunk is not None
    assert trunk.compiled
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "compiled")


def test_a_place_for_compiled_code_that_is_set_stays(
    model: LanguageModel, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    compile_where_told(model, "on")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"


READ = """
import sys, torch
from heedful.engine import device
from heedful.models.policy import load_language_model
from heedful.models.trunk.packed import pack
device.COMPILED_FROM = 0
device.cpu_has_bfloat16 = lambda: True
cpu = torch.device("cpu")
model = load_language_model(sys.argv[1], dtype=torch.float32, device=cpu)
packed = pack([[5, 6, 7]], [[8, 9]], device=cpu)
compiled = device.compile_where_told(load_language_model(sys.argv[1], dtype=torch.float32, device=cpu), sys.argv[2])
assert compiled.compiled
print(bool(torch.allclose(compiled.read(packed, adapter=None), model.read(packed, adapter=None), atol=1e-5)))
"""


@pytest.mark.parametrize(("name", "ends_well"), [("auto", True), ("on", False)])
def test_a_broken_compiler_is_passed_over_by_auto_and_told_by_on(
    name: str, ends_well: bool, compiler: Path, tmp_path: Path
) -> None:
    """A g++ that makes nothing. In a process of its own, for torch remembers what a compiler could not do."""
    folder = tiny_model.make(tmp_path / "tiny")
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TORCHINDUCTOR_FX_GRAPH_CACHE": "0"}
    found = subprocess.run(
        [sys.executable, "-c", READ, str(folder), name], capture_output=True, text=True, env=environment, check=False
    )
    assert (found.returncode == 0) == ends_well, found.stderr
    if ends_well:
        assert found.stdout.strip() == "True"
    else:
        assert "InductorError" in found.stderr


def test_the_peak_is_this_process_own() -> None:
    """A child of a large process is not large."""
    code = "from heedful.engine.device import peak_memory; held = bytearray({}); print(peak_memory())"
    weight = bytearray(b"1" * 10**9)
    found = [
        int(subprocess.run([sys.executable, "-c", code.format(n)], capture_output=True, check=True).stdout) for n in (0, 1)
    ]
    held = subprocess.run([sys.executable, "-c", code.format("b'1' * 10**8")], capture_output=True, check=True)
    assert len(weight) > max(found)
    assert 0.9e8 < int(held.stdout) - found[0] < 2.5e8


def test_the_machines_memory_is_what_there_is() -> None:
    total, available = machine_memory()
    assert 2**28 < available <= total
