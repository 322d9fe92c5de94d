"""What machine is this? A fingerprint that survives reboots and updates, and differs where latencies do. No torch."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from riwoa.limits import usable_cores

# Instruction sets that the kernels of torch are chosen by; the other flags change with kernel and firmware updates.
_RELEVANT_FLAGS = frozenset(
    "sse4_2 avx avx2 fma f16c avx512f avx512bw avx512vl avx512_vnni avx512_bf16 avx512_fp16 avx_vnni amx_tile amx_bf16 "
    "amx_int8 asimd asimddp asimdhp fphp sve sve2 bf16 i8mm svebf16 svei8mm".split()
)
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86-64 twice, then arm64
_CPU_FIELDS = (
    "model name", "vendor_id", "cpu family", "model", "stepping", "cache size",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Hardware",
)  # fmt: skip
_CARD_FIELDS = (
    "name", "driver_version", "pstate", "clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu", "power.draw",
    "compute_mode", "persistence_mode",
)  # fmt: skip
_CARD_TIMEOUT_S = 5.0
_TEXT_FIELDS = ("architecture", "board", "cpu")
_NUMBER_FIELDS = ("cores", "max_frequency_khz", "memory_gib")
_LIBRARIES = ("torch", "ofa", "numpy")


@dataclass(frozen=True, slots=True)
class Device:
    """The identity of a machine as far as latency goes. ``notes`` are recorded beside it and never compared."""

    architecture: str  # x86_64, aarch64, ...
    board: str  # device-tree model (Jetson, Raspberry Pi), "" elsewhere
    cpu: str
    cores: int
    max_frequency_khz: int  # 0 where the kernel does not say, as in most virtual machines
    flags: tuple[str, ...]
    memory_gib: int  # rounded up to a power of two: firmware and kernel reserve varying amounts
    gpus: tuple[str, ...]

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """JSON object; ``from_json`` reads it back."""
        return {**asdict(self), "flags": list(self.flags), "gpus": list(self.gpus)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Device:
        """A device from its JSON object.

        Raises:
            ValueError: a field is missing, unknown or of the wrong type.
        """
        kinds = {
            "architecture": str,
            "board": str,
            "cpu": str,
            "cores": int,
            "max_frequency_khz": int,
            "memory_gib": int,
        }
        lists = ("flags", "gpus")
        if not isinstance(data, Mapping) or set(data) != {*kinds, *lists}:
            raise ValueError(f"a device needs exactly the fields {sorted({*kinds, *lists})}")
        for name, kind in kinds.items():
            if not isinstance(data[name], kind) or isinstance(data[name], bool):
                raise ValueError(f"device field {name!r} must be of type {kind.__name__}")
        for name in lists:
            if not isinstance(data[name], list) or not all(isinstance(v, str) for v in data[name]):
                raise ValueError(f"device field {name!r} must be a list of strings")
        return Device(**{**data, "flags": tuple(data["flags"]), "gpus": tuple(data["gpus"])})

    def differences(self, other: Device) -> list[str]:
        """What differs, as ``field: mine is not theirs``; empty for the same device."""
        mine, theirs = self.to_json(), other.to_json()
        return [
            f"{name}: {_short(mine[name])} is not {_short(theirs[name])}" for name in mine if mine[name] != theirs[name]
        ]


def probe(root: Path = Path("/")) -> Device:
    """The machine this process runs on; ``root`` is where ``proc`` and ``sys`` are found."""
    cpuinfo = _read(root / "proc/cpuinfo")
    return Device(
        architecture=platform.machine(),
        board=_read(root / "proc/device-tree/model").strip("\0\n "),
        cpu=_cpu(cpuinfo),
        cores=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or os.cpu_count() or 1,
        max_frequency_khz=_integer(_read(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")),
        flags=_flags(cpuinfo),
        memory_gib=_memory_gib(_read(root / "proc/meminfo")),
        gpus=_gpus(root / "proc/driver/nvidia/gpus"),
    )


def fastest_dtype() -> Literal["float32", "bfloat16"]:
    """bfloat16 where the processor multiplies it in hardware; elsewhere it is emulated and slower."""
    return "bfloat16" if _BFLOAT16_FLAGS.intersection(probe().flags) else "float32"


def notes(root: Path = Path("/")) -> dict[str, Any]:
    """What may change between two runs on one device and is worth knowing when latencies differ."""
    governor = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "usable_cores": usable_cores(root),
        "governor": governor or None,
        "load_average": load,
        "kernel": platform.release(),
    }


def sensors(root: Path = Path("/"), card: str | None = None) -> dict[str, Any]:
    """Clocks and temperatures now; nothing for what the machine does not show, as most virtual ones.

    Args:
        root: where ``proc`` and ``sys`` are found.
        card: an NVIDIA card's index or uuid to ask ``nvidia-smi`` about; None for the processor alone.
    """
    frequency = _integer(_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"))
    said = re.search(r"^cpu MHz\s*:\s*([\d.]+)", _read(root / "proc/cpuinfo"), re.MULTILINE)
    mhz = frequency / 1000 if frequency else float(said.group(1)) if said else None
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    degrees = [_integer(_read(zone)) / 1000 for zone in zones]
    found = {"cpu_mhz": mhz, "cpu_celsius": max(degrees, default=0.0) or None, "gpu": _card(card) if card else None}
    return {name: value for name, value in found.items() if value is not None}


def _card(card: str) -> dict[str, str] | None:
    """What ``nvidia-smi`` says of a card; None where there is no such command (a Jetson), or it does not answer."""
    command = ["nvidia-smi", "-i", card, f"--query-gpu={','.join(_CARD_FIELDS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CARD_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")] if done.stdout else []
    return dict(zip(_CARD_FIELDS, values, strict=True)) if len(values) == len(_CARD_FIELDS) else None


@functools.cache
def library_versions(names: tuple[str, ...] = _LIBRARIES) -> dict[str, str]:
    """Versions of python and of those libraries that are installed, from package metadata: nothing is imported."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu(cpuinfo: str) -> str:
    """The identifying lines of the first of each kind of core (a big.LITTLE chip has two), in order."""
    cores = []
    for paragraph in cpuinfo.strip().split("\n\n"):
        fields = dict(re.findall(r"^([^:\n]+?)\s*:\s*(.*)$", paragraph, re.MULTILINE))
        text = ", ".join(f"{name} {fields[name].strip()}" for name in _CPU_FIELDS if fields.get(name, "").strip())
        if text and text not in cores:
            cores.append(text)
    return "; ".join(cores) or platform.processor() or "unknown"


def _flags(cpuinfo: str) -> tuple[str, ...]:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return tuple(sorted(_RELEVANT_FLAGS & set(match.group(1).split()))) if match else ()


def _memory_gib(meminfo: str) -> int:
    match = re.search(r"^MemTotal:\s*(\d+) kB", meminfo, re.MULTILINE)
    gib = int(match.group(1)) / 2**20 if match else 0
    return 1 << max(0, int(gib - 1e-9).bit_length()) if gib else 0


def _gpus(folder: Path) -> tuple[str, ...]:
    """Names of NVIDIA cards as the kernel driver reports them, without CUDA."""
    try:
        files = sorted(folder.glob("*/information"))
    except OSError:
        return ()
    found = (re.search(r"^Model:\s*(.*)$", _read(f), re.MULTILINE) for f in files)
    return tuple(m.group(1).strip() for m in found if m)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _integer(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
