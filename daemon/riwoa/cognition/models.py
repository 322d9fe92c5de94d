"""Which language model writes, where its files lie, and which settings suit it. No torch, no transformers.

A model is a directory as transformers saves it: ``config.json``, safetensors, a tokenizer and a chat template. It is
checked before any process is started for it, so that what is wrong is said in one line. The name under which a run
journals it carries a fingerprint of these files: a run is continued with the same model or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from riwoa.cognition.protocol import ModelSpec
from riwoa.errors import ModelError, UsageError
from riwoa.files.model_store import SUPERNETS, models_home
from riwoa.hardware.accelerator import Accelerator, probe_accelerator
from riwoa.hardware.probe import fastest_dtype
from riwoa.parsing import parse_json
from riwoa.paths import expanded, xdg

EMBEDDED = "smollm2"
EMBEDDED_DIRECTORY = "smollm2-135m-instruct"
PREFERRED = "Nanbeige/Nanbeige4-3B-Thinking-2511"
_PULL_EMBEDDED = "run `riwoactl model pull smollm2`"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LARGE_PARAMETERS = 1_000_000_000  # from here on 4-bit is worth it, and a model can be trusted with a long prompt
_PREFERRED_VRAM_BYTES = 4 * 2**30
_MOST_HEADER_BYTES = 100 * 2**20  # safetensors' own limit
_SAMPLES, _SAMPLE_BYTES = 64, 4096
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
# What saving again with another version changes although the model is the same.
_NOT_IDENTITY = {"transformers_version", "_name_or_path"}
_BYTES = {"float32": 4, "bfloat16": 2}

Probe = Callable[[], Accelerator | None]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model that can be loaded, and why it is this one."""

    spec: ModelSpec
    reason: str


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A checked model directory."""

    directory: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]  # generation_config.json, empty where there is none
    template: str  # the chat template; empty for a base model
    parameters: int
    weights_bytes: int
    fingerprint: str  # first 8 hex digits of a SHA-256

    @property
    def name(self) -> str:
        """As journaled: the directory's name (a snapshot's: its repository's) and the fingerprint."""
        parts = self.directory.parts
        cached = len(parts) > 2 and parts[-2] == "snapshots"
        base = parts[-3].removeprefix("models--") if cached else self.directory.name
        return f"{base.rpartition('--')[2].lower()}@{self.fingerprint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """Settings that suit a model; what "auto" means. ``thinking_tokens`` is the budget of the reasoning."""

    temperature: float
    top_p: float
    thinking_tokens: int
    template: Literal["compact", "full"]
    learning_rate: float


# -- where ---------------------------------------------------------------------------------------------------------


def hub_directory(home: Path, repository: str) -> Path:
    """Where a model pulled from the Hugging Face hub lies: ``org--name``."""
    return home / repository.replace("/", "--")


def is_hub_id(setting: str) -> bool:
    """Whether a setting has the form ``org/name``."""
    return _HUB_ID.fullmatch(setting) is not None


def gguf_directory(home: Path, file: Path) -> Path:
    """Where the conversion of a GGUF file lies, named by its SHA-256. Reads the whole file.

    Raises:
        ModelError: it cannot be read, or is no GGUF file.
    """
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelError(f"{file}: is no GGUF file")
            stream.seek(0)
            while chunk := stream.read(2**20):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from None
    return home / f"{file.stem.lower()}-{digest.hexdigest()[:16]}"


# -- which ---------------------------------------------------------------------------------------------------------


def choose(
    setting: str = "auto",
    *,
    threads: int = 1,
    lora_dropout: float = 0.0,
    memory_bytes: int | None = None,
    home: Path | None = None,
    accelerator: Probe = probe_accelerator,
) -> Resolved:
    """The model that ``cognition.model`` stands for on this machine, checked, where it will run, and why it is this.

    ``setting`` is "auto" (the preferred 3B model where a CUDA GPU and its files are, else the embedded one), "smollm2",
    a hub id, the name of a directory in ``models_home()``, a directory, or a GGUF file. Nothing is downloaded here.

    Raises:
        ModelError: there is no such model here, its files are damaged, or it needs more than ``memory_bytes``; the
            message says what to do.
    """
    device = accelerator()
    try:
        home = models_home() if home is None else home
        files, reason = _auto(home, device) if setting == "auto" else _named(setting, home)
    except UsageError as error:  # no home directory: a search goes on without a model
        raise ModelError(str(error)) from None
    spec = _placed(files, device, threads, lora_dropout)
    _require_memory(spec, files, memory_bytes)
    return Resolved(spec, reason)


def _auto(home: Path, device: Accelerator | None) -> tuple[ModelFiles, str]:
    preferred = _preferred(home, device)
    if isinstance(preferred, ModelFiles):
        return preferred, f"{PREFERRED}: its files and a CUDA GPU are here"
    why_not = preferred
    embedded = home / EMBEDDED_DIRECTORY
    if not embedded.is_dir():
        raise ModelError(f"no language model in {home} ({why_not}); {_PULL_EMBEDDED}")
    return check_directory(embedded), f"the embedded model: {why_not}"


def why_not_preferred(device: Accelerator | None) -> str | None:
    """Why this machine cannot run the preferred model; None where it can."""
    if device is None:
        return f"no CUDA GPU for {PREFERRED}"
    if device.memory_bytes < _PREFERRED_VRAM_BYTES:
        return f"{device.name} has too little memory for {PREFERRED}"
    if device.four_bit_error is not None:
        return f"no 4-bit on {device.name}: {device.four_bit_error}"
    return None


def _preferred(home: Path, device: Accelerator | None) -> ModelFiles | str:
    """The preferred model's files, or why it cannot be used."""
    why_not = why_not_preferred(device)
    if device is None or why_not is not None:
        return str(why_not)
    try:
        directory = _hub_files(home, PREFERRED)
    except ModelError:
        return f"{PREFERRED} is not here; `riwoactl model pull {PREFERRED}` brings it for {device.name}"
    try:
        return check_directory(directory)
    except ModelError as error:
        return f"{PREFERRED} is not whole: {error}; `riwoactl model pull {PREFERRED}` mends it"


def _named(setting: str, home: Path) -> tuple[ModelFiles, str]:
    path = Path(expanded(setting))
    if setting == EMBEDDED:
        if not (home / EMBEDDED_DIRECTORY).is_dir():
            raise ModelError(f"the embedded model is not in {home}; {_PULL_EMBEDDED}")
        return check_directory(home / EMBEDDED_DIRECTORY), "the embedded model, as configured"
    if path.suffix.lower() == ".gguf":
        converted = gguf_directory(home, path)
        if not converted.is_dir():
            raise ModelError(f"{path} is not converted yet; run `riwoactl model pull {path}`")
        return check_directory(converted), f"converted from {path}, as configured"
    if path.is_dir():
        return check_directory(path.absolute()), "a directory, as configured"
    if (home / setting).is_dir():
        return check_directory(home / setting), f"in {home}, as configured"
    if is_hub_id(setting):
        return check_directory(_hub_files(home, setting)), "a hub id, as configured; its files are here"
    raise ModelError(
        f"cognition.model = {setting!r} is no directory, GGUF file, hub id (org/name) or model in {home}; "
        "`riwoactl model list` shows what is here"
    )


def _hub_files(home: Path, repository: str) -> Path:
    """The files of a hub id: pulled here, else in the Hugging Face cache.

    Raises:
        ModelError: in neither.
    """
    pulled = hub_directory(home, repository)
    if pulled.is_dir():
        return pulled
    cached = _hub_cache() / f"models--{repository.replace('/', '--')}"
    try:
        snapshot = cached / "snapshots" / (cached / "refs" / "main").read_text().strip()
    except OSError:
        snapshot = cached / "absent"
    if snapshot.is_dir():
        return snapshot
    raise ModelError(f"{repository} is neither in {home} nor in {_hub_cache()}; run `riwoactl model pull {repository}`")


def present(home: Path | None = None) -> list[ModelFiles | ModelError]:
    """Every model in ``models_home()``, or what is wrong with it."""
    home = models_home() if home is None else home
    found: list[ModelFiles | ModelError] = []
    for directory in sorted(home.iterdir()) if home.is_dir() else ():
        unfinished = directory.name.startswith(".") or directory.suffix in (".tmp", ".partial", ".download")
        apart = directory.name == SUPERNETS or unfinished
        if directory.is_dir() and not apart:
            try:
                found.append(check_directory(directory))
            except ModelError as error:
                found.append(error)
    return found


def _hub_cache() -> Path:
    """The hub's own cache (``HF_HUB_CACHE``, ``HF_HOME``, ``XDG_CACHE_HOME``), as huggingface_hub places it."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(expanded(chosen))
    if chosen := os.environ.get("HF_HOME"):
        return Path(expanded(chosen), "hub")
    return Path(xdg("XDG_CACHE_HOME", ".cache", "HF_HOME"), "huggingface", "hub")


def _placed(files: ModelFiles, device: Accelerator | None, threads: int, lora_dropout: float) -> ModelSpec:
    four_bit = device is not None and device.four_bit_error is None and files.parameters >= _LARGE_PARAMETERS
    return ModelSpec(
        name=files.name,
        directory=str(files.directory),
        quantization="nf4" if four_bit else "none",
        dtype=fastest_dtype() if device is None else "bfloat16" if device.bfloat16 else "float32",
        device="cpu" if device is None else "cuda",
        threads=threads,
        lora_dropout=lora_dropout,
    )


def _require_memory(spec: ModelSpec, files: ModelFiles, memory_bytes: int | None) -> None:
    needed = files.parameters * _BYTES[spec.dtype]
    if spec.device == "cpu" and memory_bytes is not None and needed > memory_bytes:
        raise ModelError(
            f"{spec.name} takes {needed / 2**30:.1f} GiB for its weights in {spec.dtype}, cognition.memory_bytes "
            f"allows {memory_bytes / 2**30:.1f}; raise it, or choose cognition.model = smollm2"
        )


# -- settings ------------------------------------------------------------------------------------------------------

# What the makers say where no file does: (temperature, top-p).
_MAKERS = {"smollm2": (0.2, 0.9), "nanbeige": (0.6, 0.95)}
_OTHERS = (0.7, 0.95)


def recommended(spec: ModelSpec) -> Recommended:
    """The settings that "auto" stands for: generation_config.json's, else the makers', and what suits the size.

    Raises:
        ModelError: the model's files are gone or damaged.
    """
    files = check_directory(Path(spec.directory))
    makers = next((v for family, v in _MAKERS.items() if files.name.startswith(family)), _OTHERS)
    large = files.parameters >= _LARGE_PARAMETERS
    return Recommended(
        temperature=_number(files.generation.get("temperature"), makers[0]),
        top_p=_number(files.generation.get("top_p"), makers[1]),
        thinking_tokens=1024 if large else 40,
        template="full" if large else "compact",
        learning_rate=2e-4 if large else 5e-4,
    )


def _number(told: object, otherwise: float) -> float:
    """A setting of a file; where nothing was set, transformers writes null."""
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else otherwise


# -- files ---------------------------------------------------------------------------------------------------------


def check_directory(directory: Path) -> ModelFiles:
    """Everything that loading needs is there and whole; costs milliseconds, whatever the model's size.

    Raises:
        ModelError: names the file and what is wrong with it.
    """
    if not directory.is_dir():
        raise ModelError(f"{directory}: no such model directory; `riwoactl model list` shows what is here")
    config = _json_file(directory / "config.json")
    if "model_type" not in config:
        raise ModelError(f"{directory}/config.json names no model_type; it is no transformers model")
    if not any((directory / name).is_file() for name in _TOKENIZERS):
        raise ModelError(f"{directory} has no tokenizer ({', '.join(_TOKENIZERS)}); copy the model's whole directory")
    template = _chat_template(directory)
    weights = _weight_files(directory)
    headers = [_header(file) for file in weights]
    generation = directory / "generation_config.json"
    return ModelFiles(
        directory=directory,
        config=config,
        generation=_json_file(generation) if generation.is_file() else {},
        template=template,
        parameters=sum(_parameters(header) for header in headers),
        weights_bytes=sum(file.stat().st_size for file in weights),
        fingerprint=_fingerprint(directory, config, template, weights),
    )


def _json_file(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes(), _MOST_HEADER_BYTES)
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}; copy the model's whole directory") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise ModelError(f"{path}: is not valid JSON; copy or pull the model again") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds no JSON object; copy or pull the model again")
    return found


def _chat_template(directory: Path) -> str:
    """The template, from any of the three places where transformers keeps it; empty for a base model."""
    plain = directory / "chat_template.jinja"
    if plain.is_file():
        return plain.read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = _json_file(directory / name).get("chat_template") if (directory / name).is_file() else None
        if found:
            return found if isinstance(found, str) else json.dumps(found)
    return ""


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return [directory / "model.safetensors"]
    names = _json_file(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{index}: lists no weights; copy or pull the model again")
    return [directory / name for name in sorted(set(map(str, names.values())))]


def _header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file whose size agrees with it.

    Raises:
        ModelError: missing, truncated or damaged.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size, _MOST_HEADER_BYTES):
                raise ValueError("its header is cut")
            header: dict[str, Any] = parse_json(stream.read(length), _MOST_HEADER_BYTES)
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        if size != 8 + length + max(ends):
            raise ValueError(f"{size} bytes where {8 + length + max(ends)} should be")
    except FileNotFoundError:
        raise ModelError(f"{file.parent} has no {file.name} (weights are read from safetensors only)") from None
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise ModelError(f"{file}: truncated or damaged ({error}); copy or pull the model again") from None
    return header


def _parameters(header: Mapping[str, Any]) -> int:
    total = 0
    for name, tensor in header.items():
        count = 1
        for length in tensor.get("shape", ()) if name != "__metadata__" else (0,):
            count *= int(length)
        total += count
    return total


def _fingerprint(directory: Path, config: Mapping[str, Any], template: str, weights: list[Path]) -> str:
    """Over configuration, tokenizer, template and, of the weights, sizes, headers and evenly spaced samples.

    Enough to tell models and fine-tunings apart; no protection against one who forges files.
    """
    digest = hashlib.sha256()
    kept = {key: value for key, value in config.items() if key not in _NOT_IDENTITY}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    digest.update(template.encode())
    for name in _TOKENIZERS:
        if (directory / name).is_file():
            digest.update((directory / name).read_bytes())
    for file in weights:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(min(size, 2**20)))
            for i in range(_SAMPLES):
                stream.seek(max(0, size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:8]
