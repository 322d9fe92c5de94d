"""Which runtime will run the network, and what of it decides how long that takes. No torch, no onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riwoa.hardware.probe import library_versions

if TYPE_CHECKING:
    from riwoa.config.schema import Latency

ONNXRUNTIME, TORCH, COMMAND = "onnxruntime", "torch", "command"
RUNTIMES = (ONNXRUNTIME, TORCH, COMMAND)
FLOAT32, INT8 = "float32", "int8"
PRECISIONS = (FLOAT32, INT8)
GRAPH_LEVELS = ("all", "extended", "basic", "disabled")
CPU_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime and its settings.

    Attributes:
        name: one of RUNTIMES.
        threads: that the network runs with.
        graph_level: how far onnxruntime rewrites the graph.
        networks: whole networks that a table is calibrated on.
        command: the program that times an ONNX file, where the runtime is one.
        timeout_s: longest call of it.
        retries: further calls after one that failed.
        precision: of weights and activations, one of PRECISIONS.
    """

    name: str = TORCH
    threads: int = 1
    graph_level: str = "all"
    networks: int = 24
    command: str = ""
    timeout_s: float = 120.0
    retries: int = 2
    precision: str = FLOAT32

    @property
    def version(self) -> str:
        """Of the library; a program's is its own affair."""
        return library_versions((self.name,)).get(self.name, "") if self.name != COMMAND else ""

    @property
    def providers(self) -> str:
        """Onnxruntime's execution providers, in order; "" in another runtime."""
        return CPU_PROVIDER if self.name == ONNXRUNTIME else ""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the repeats were taken: evaluation mode, every operator once a round.

    ``regime`` "eager": torch launches every kernel by itself, as ``module(x)`` does; "graph": a captured CUDA graph is
    replayed, which launches all of them at once; "session": an ONNX file is loaded and run, and a repeat is the median
    of such a session's runs. Operators and whole networks are measured in the same one; where the runtime is a program
    ("command"), it judges the networks, and the operators are those of onnxruntime here.
    """

    compute: str  # "cpu" or "cuda"
    threads: int
    repeats: int
    dtype: str = FLOAT32  # of weights and activations
    memory_format: str = "contiguous"
    batch_size: int = 1
    regime: str = "eager"
    accelerator: str = ""  # the card's name as torch reports it, "" for the processor
    runtime: str = TORCH
    runtime_version: str = ""
    providers: str = ""  # onnxruntime's, in order
    graph_level: str = ""  # onnxruntime's
    command: str = ""  # the program that times ONNX files


def configured_runtime(latency: Latency) -> Runtime:
    """What ``[latency]`` asks for; "auto" is onnxruntime."""
    return Runtime(
        ONNXRUNTIME if latency.runtime == "auto" else latency.runtime,
        latency.threads,
        latency.graph_level,
        latency.networks,
        latency.command or "",
        latency.command_timeout_s,
        latency.command_retries,
        latency.precision,
    )


def runtime_of(settings: Settings) -> Runtime:
    """The runtime that a table was measured in."""
    level = settings.graph_level or "all"
    return Runtime(settings.runtime, settings.threads, level, command=settings.command, precision=settings.dtype)


def runtime_mismatches(settings: Settings, latency: Latency) -> list[str]:
    """Why a table of these settings is not of the configured runtime; empty where it is.

    With "auto" a table that lies there decides: those of before there was a choice are torch's.
    """
    wanted = configured_runtime(latency)
    if latency.runtime == "auto" and settings.runtime == TORCH and wanted.precision == FLOAT32:
        return []
    pairs = {"runtime": (settings.runtime, wanted.name), "precision": (settings.dtype, wanted.precision)}
    if settings.runtime == wanted.name == ONNXRUNTIME:
        pairs["graph_level"] = settings.graph_level, wanted.graph_level
    if settings.runtime == wanted.name == COMMAND:
        pairs["command"] = settings.command, wanted.command
    return [f"latency.{name}: {there!r} is not {here!r}" for name, (there, here) in pairs.items() if there != here]


def spoken(settings: Settings) -> str:
    """The runtime of a table in words, such as "onnxruntime 1.23, 1 thread"."""
    threads = f"{settings.threads} thread{'s' if settings.threads > 1 else ''}"
    if settings.runtime == COMMAND:
        return f"the program {settings.command}"
    level = "" if settings.graph_level in ("", "all") else f", graph level {settings.graph_level}"
    how = {"eager": "eager ", "graph": "CUDA graphs of "}.get(settings.regime, "") if settings.runtime == TORCH else ""
    precision = "" if settings.dtype == FLOAT32 else f", {settings.dtype}"
    return f"{how}{settings.runtime} {settings.runtime_version}".rstrip() + f", {threads}{level}{precision}"
