"""Weights from a file of any kind: safetensors, or what torch saves, alone or with what a trainer keeps beside them.

The kind follows from the content, not from the name. Nothing but tensors, numbers, texts and their containers is ever
unpickled, so no code in a file is run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from riwoa.errors import InputError
from riwoa.files.content import ZIP, beginning, opened_regular
from riwoa.text import printable

# Where trainers put the weights, the first of them that is there: OFA's own, and others'.
_NESTED = ("state_dict", "state_dict_ema", "model")
_PARALLEL = "module."  # what torch's DataParallel puts before every name
_PICKLE = b"\x80"  # how torch saved before 1.6
_TORCH_SUFFIXES = (".pth", ".pt", ".tar", ".bin")
_MOST_HEADER_BYTES = 100 * 2**20  # of safetensors, as its library has it
_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name.

    Raises:
        InputError: missing, damaged, or not a checkpoint.
    """
    if not os.path.isfile(path):
        raise InputError(
            f"checkpoint {path} does not exist; correct its path in the configuration, "
            "or train one with 'riwoactl supernet train digits'"
        )
    content = _read_safetensors(path) if is_safetensors(path) else _read_pickled(path)
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise InputError(f"checkpoint {path} holds no state_dict of tensors; save network.state_dict() in it")
    parallel = all(str(name).startswith(_PARALLEL) for name in content)
    return {str(name).removeprefix(_PARALLEL if parallel else ""): tensor for name, tensor in content.items()}


def is_safetensors(path: Path) -> bool:
    """Whether the file is of that format: by its content, an empty one by its name."""
    start = beginning(path)
    if not start:
        return path.suffix.lower() == ".safetensors"
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _MOST_HEADER_BYTES


def unpickled(file: IO[bytes]) -> Any:
    """What torch saved in a file, as far as it is tensors, numbers (numpy's too), texts, and containers of them.

    Raises:
        Exception: whatever torch's reader met; ``why_not_unpickled`` says it in a line.
    """
    with torch.serialization.safe_globals(_numpy_scalars()):
        return torch.load(file, map_location="cpu", weights_only=True)


def why_not_unpickled(error: Exception) -> str:
    """What was wrong with a file, in one line that gives none of torch's advice to trust it."""
    if refused := _REFUSED_GLOBAL.search(str(error)):
        return f"it holds {printable(refused[1], 80)}, and nothing but tensors, numbers and texts is loaded"
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0], 120)


def safetensors_bytes(weights: dict[str, Tensor], notes: Mapping[str, str]) -> bytes:
    """A safetensors file, the same bytes each time: the library writes its notes in an order that chance decides."""
    from safetensors.torch import save

    content = save(weights, dict(notes))
    length = int.from_bytes(content[:8], "little")
    told = json.loads(content[8 : 8 + length])
    told["__metadata__"] = dict(sorted(told.get("__metadata__", {}).items()))
    header = json.dumps(told, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _numpy_scalars() -> list[Any]:
    """What a pickled numpy number is made of, such as a best accuracy; numpy 1 and 2 name it differently."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")]
    return [*((scalar, name) for name in names), np.dtype, *dtypes]


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(_damaged(path, str(error))) from error


def _read_pickled(path: Path) -> Any:
    if not beginning(path).startswith((ZIP, _PICKLE)):
        if path.suffix.lower() not in (*_TORCH_SUFFIXES, ".safetensors"):
            raise InputError(f"checkpoint {path} is neither safetensors nor what torch saves; save it as one of them")
        raise InputError(_damaged(path, "its beginning is no checkpoint's"))
    try:
        with opened_regular(path) as stream:  # of a path torch itself would look at the name
            return unpickled(stream)
    except Exception as error:  # a damaged pickle can raise anything: this is the boundary to a foreign file
        reason = why_not_unpickled(error)
        if _REFUSED_GLOBAL.search(str(error)):
            raise InputError(f"checkpoint {path}: {reason}; save network.state_dict() alone") from None
        raise InputError(_damaged(path, reason)) from error


def _damaged(path: Path, reason: str) -> str:
    return f"checkpoint {path} cannot be read, it may be truncated ({printable(reason, 120)}); fetch or train it again"
