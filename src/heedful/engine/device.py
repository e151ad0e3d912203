"""Which device and number type to compute with."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path

import torch

from heedful.errors import ConfigError
from heedful.models.aliases import cache_folder
from heedful.models.policy import LanguageModel

# Below it a model is done before its layers are compiled, which takes half a minute.
COMPILED_FROM = 50_000_000


def choose_device() -> torch.device:
    """A GPU when there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of the frozen weights. "auto": bfloat16 where the device multiplies in it, else float32."""
    if name != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the processor has bfloat16 dot products; without them bfloat16 is slower than float32."""
    flags = _cpu_flags()
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def machine_memory() -> tuple[int, int]:
    """Bytes of the machine's memory, and how many of them are to be had; within a container those of its limit."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total = available = pages * size
    try:
        found = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        available = int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass  # not Linux: all of it is taken to be available
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        return min(total, limit), min(available, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no group, or "max": no limit
        return total, available


def peak_memory() -> int:
    """Bytes of memory that this process has held at most."""
    try:  # what getrusage says on Linux begins with the peak of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def has_compiler() -> bool:
    """Whether there is a C++ compiler, without which torch.compile makes no code."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)


def choose_compile(name: str, device: torch.device, num_weights: int) -> bool:
    """Whether layers are compiled. "auto": where it pays, which is where the device multiplies in bfloat16.

    In float32 a processor is bound by its matrix products. Raises ConfigError for "on" without a compiler.
    """
    if name == "off":
        return False
    if name == "on":
        if not has_compiler():
            raise ConfigError(
                "model.compile = 'on' needs a C++ compiler, and neither g++ nor clang++ is on the PATH; install one "
                "(apt install g++, or your system's like), name it in the environment variable CXX, or use model.compile = "
                "'auto'"
            )
        return True
    pays = device.type == "cuda" or cpu_has_bfloat16()
    return pays and num_weights >= COMPILED_FROM and has_compiler()


def compile_where_told(model: LanguageModel, name: str) -> LanguageModel:
    """The model, before its first use, with the choice of `choose_compile` made for it.

    Where compiling fails, "on" ends with torch's error, and "auto" goes on with the layers as they are, of which torch warns.
    Compiled code is kept in heedful's cache, so that it is made once; TORCHINDUCTOR_CACHE_DIR says another place.
    """
    if name == "on" and model.encodes:
        raise ConfigError(
            f"model.compile = 'on': {model.source} is an encoder-decoder model, which is read by its own modules and not "
            "compiled; set it to 'auto' or 'off'"
        )
    if model.shards is not None:
        return model  # read by its own modules
    model.compiled = choose_compile(name, model.device, sum(weight.numel() for weight in model.causal.parameters()))
    if model.compiled:
        torch._dynamo.config.suppress_errors = name == "auto"
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        # torch writes its own default into the variable as soon as it is loaded: that is no user's choice.
        if os.environ.get("TORCHINDUCTOR_CACHE_DIR", default_cache_dir()) == default_cache_dir():
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder() / "compiled")
    return model
