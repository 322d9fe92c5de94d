"""Is there a GPU that torch can use, and does 4-bit work on it? Asked in a child process, for the daemon has no torch.

``python -m riwoa.hardware.accelerator`` prints one JSON object.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from riwoa.ipc.child import child_command, child_environment, die_with_parent
from riwoa.parsing import parse_json

# Where a driver shows itself: a card, WSL, a Jetson. Without any of them no child is started.
_DRIVERS = ("/proc/driver/nvidia", "/dev/nvidia0", "/dev/dxg", "/dev/nvhost-gpu")
_PATIENCE_S = 120.0
NO_GPU = (
    "4-bit NF4 needs a CUDA GPU; on a CPU it is slower than float32 and trains with zero gradients once it has written"
)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A CUDA device as torch sees it. ``four_bit_error``: why bitsandbytes cannot quantise there, None where it can."""

    name: str
    memory_bytes: int
    bfloat16: bool
    four_bit_error: str | None


@functools.cache
def probe_accelerator() -> Accelerator | None:
    """The CUDA device that a model would run on, or None. Seconds where there is a driver, nothing elsewhere."""
    if not any(Path(place).exists() for place in _DRIVERS) and shutil.which("nvidia-smi") is None:
        return None
    command = child_command("riwoa.hardware.accelerator")
    try:
        answer = subprocess.run(command, env=child_environment(1), capture_output=True, timeout=_PATIENCE_S, check=True)
        found = parse_json(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # a driver that torch cannot use is as good as none
    return Accelerator(**found) if found is not None else None


def _look() -> Accelerator | None:
    """What torch says of the CUDA device; None where it finds none."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return Accelerator(
        properties.name, int(properties.total_memory), torch.cuda.is_bf16_supported(), _four_bit_error(torch)
    )


def _four_bit_error(torch: Any) -> str | None:
    """Quantise a small layer and use it: the one proof that this build of bitsandbytes fits this driver."""
    try:
        from bitsandbytes.nn.modules import Linear4bit

        make: Any = Linear4bit
        layer = make(64, 64, quant_type="nf4", compute_dtype=torch.bfloat16).cuda()
        written = layer(torch.ones(1, 64, device="cuda", dtype=torch.bfloat16))
        return None if bool(torch.isfinite(written).all()) else "bitsandbytes computes no finite numbers here"
    except Exception as error:  # a missing library, a wrong driver, too little memory: all mean no
        return f"bitsandbytes: {type(error).__name__}: {error}"[:300]


def main() -> int:
    """Print the accelerator as JSON, or null."""
    die_with_parent()
    found = _look()
    print(json.dumps(None if found is None else asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
