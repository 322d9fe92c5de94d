"""How long ONNX files take: in onnxruntime here, or by a program of the user's. The other clocks are in ``bench``.

A *visit* opens a session of its own, runs the file until it is warm, then so often that it fills some milliseconds, and
is the median of these runs: what somebody sees who loads the file and uses it. A visit's session comes to lie where
memory has room, so networks are visited often rather than run long. Without that, with all sessions open at once and
one run a round, networks took three times as long (each found its weights gone from the caches), in another process
others were the slow ones (Spearman 0.95 between two processes, 0.999 with visits), and no table could predict them.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime

from riwoa.errors import TableError
from riwoa.hardware.bench import operator_modules, operator_shapes, subnets
from riwoa.hardware.runtime import CPU_PROVIDER, FLOAT32, INT8, Runtime
from riwoa.ipc.child import thread_variables
from riwoa.supernet.geometry import Backbone, Operator
from riwoa.supernet.onnx_graph import module_graph, subnet_graph
from riwoa.supernet.onnx_int8 import in_int8
from riwoa.supernet.space import OfaConfig
from riwoa.text import printable

_WARM_RUNS = 3
_VISIT_MS = 20.0
_LEAST_RUNS, _MOST_RUNS = 5, 40
_NUMBERS = ("median_ms", "p50_ms", "p50", "ms", "mean_ms")
_QUIET = 3  # onnxruntime's log level: errors

# Graph levels by the name that a configuration has for them.
_LEVELS = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


@dataclass(frozen=True, slots=True)
class OnnxItem:
    """A model and the shape of its one input."""

    model: bytes
    shape: tuple[int, ...]


class _VisitsModel(Protocol):
    def __call__(self, item: OnnxItem) -> float: ...


@dataclass(frozen=True, slots=True)
class OnnxClock:
    """Visits operators in onnxruntime, and networks there too, unless ``network`` tells their milliseconds."""

    runtime: Runtime
    network: _VisitsModel | None = None
    warm_up_s: float = 0.0
    warm_up_rounds: int = 0  # each visit warms up by itself

    def operator_ms(self, item: OnnxItem) -> float:
        """The median run of one visit."""
        return statistics.median(visit_ms(item.model, item.shape, self.runtime))

    def network_ms(self, item: OnnxItem) -> float:
        """The same of a whole network, or what a program says of it."""
        return self.operator_ms(item) if self.network is None else self.network(item)


def open_session(model: bytes | Path, runtime: Runtime) -> onnxruntime.InferenceSession:
    """A session as a user opens one: one model, the CPU, the threads and the graph level of the runtime.

    Raises:
        TableError: onnxruntime cannot load the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = runtime.threads, 1
    options.graph_optimization_level = _LEVELS[runtime.graph_level]
    options.log_severity_level = _QUIET
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=[CPU_PROVIDER])
    except Exception as error:  # onnxruntime's errors share no base class of their own
        name = "the model" if isinstance(model, bytes) else str(model)
        raise TableError(f"onnxruntime cannot load {name} ({printable(str(error))[:200]})") from None


def visit_ms(model: bytes | Path, shape: Sequence[int], runtime: Runtime) -> list[float]:
    """Milliseconds of each run of one visit.

    On one thread in its processor time, as ``bench`` does and for the same reason; else by the wall clock.
    """
    now_ns: Callable[[], int] = time.thread_time_ns if runtime.threads == 1 else time.perf_counter_ns
    session = open_session(model, runtime)
    images = {session.get_inputs()[0].name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}

    def run_ms() -> float:
        start_ns = now_ns()
        session.run(None, images)
        return (now_ns() - start_ns) / 1e6

    once_ms = min(run_ms() for _ in range(_WARM_RUNS))
    return [run_ms() for _ in range(_runs(once_ms))]


def expected_visit_ms(once_ms: float) -> float:
    """About how long a visit runs a file that takes so long, warming up included; its session's opening is not."""
    return (_WARM_RUNS + _runs(once_ms)) * once_ms


def _runs(once_ms: float) -> int:
    """Of a visit, once it is warm."""
    return max(_LEAST_RUNS, min(_MOST_RUNS, round(_VISIT_MS / max(once_ms, 1e-4))))


def operator_items(operators: Sequence[Operator], batch_size: int, precision: str = FLOAT32) -> list[OnnxItem]:
    """Each operator as a graph of its own, weights random."""
    items = []
    for op, module in zip(operators, operator_modules(operators), strict=True):
        shape, out_shape = ((batch_size, *part) for part in operator_shapes(op))
        items.append(_item(module_graph(module, shape, out_shape), shape, precision))
    return items


def network_items(
    configs: Sequence[OfaConfig], backbone: Backbone, batch_size: int, precision: str = FLOAT32
) -> list[OnnxItem]:
    """Extracted subnets as the graphs that are exported, weights random: values do not change how long they take."""
    return [
        _item(graph, (batch_size, 3, config.r, config.r), precision)
        for config, graph in zip(configs, _graphs(configs, backbone, batch_size), strict=True)
    ]


def _item(graph: onnx.ModelProto, shape: tuple[int, ...], precision: str) -> OnnxItem:
    return OnnxItem((in_int8(graph) if precision == INT8 else graph).SerializeToString(), shape)


def _graphs(configs: Sequence[OfaConfig], backbone: Backbone, batch_size: int) -> list[onnx.ModelProto]:
    nets = subnets(configs, backbone)
    return [subnet_graph(net, config.r, batch=batch_size) for config, net in zip(configs, nets, strict=True)]


# -- a program of the user's -----------------------------------------------------------------------------------------


class CommandClock:
    """Asks a program for the milliseconds of an ONNX file: its last line is a number, or JSON with one.

    The program's arguments are the command's, and the path of the file.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._arguments = shlex.split(runtime.command)
        self._timeout_s = runtime.timeout_s
        self._retries = runtime.retries
        # Where finalists are made, it is one thread as in the export; the program has those of the table.
        self._environment = {**os.environ, **thread_variables(runtime.threads)}

    def __call__(self, item: OnnxItem) -> float:
        """Milliseconds of a network, as the program says.

        Raises:
            TableError: as ``file_ms``.
        """
        with tempfile.TemporaryDirectory(prefix="riwoa-timed-") as directory:
            path = Path(directory, "model.onnx")
            path.write_bytes(item.model)
            return self.file_ms(path)

    def file_ms(self, path: Path) -> float:
        """Milliseconds of a file, as the program says.

        Raises:
            TableError: it fails, prints no number, or takes longer than it may, each time it is tried.
        """
        for left in range(self._retries, -1, -1):
            try:
                return self._once(path)
            except TableError:
                if left == 0:
                    raise
        raise AssertionError("retries are never negative")

    def _once(self, path: Path) -> float:
        name = self._arguments[0]
        try:
            process = subprocess.Popen(
                [*self._arguments, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise TableError(f"latency.command: {name} cannot be started ({error.strerror})") from None
        try:
            out, err = process.communicate(timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            raise TableError(
                f"latency.command: {name} took longer than {self._timeout_s:g} s; raise latency.command_timeout_s"
            ) from None
        finally:
            _end(process)
        if process.returncode != 0:
            last = printable(err.strip().rpartition("\n")[2])[:200]
            raise TableError(f"latency.command: {name} ended with {process.returncode} ({last or 'no message'})")
        return _milliseconds(out, name)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill what is left of the program's session, and collect the program."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _milliseconds(out: str, name: str) -> float:
    last = out.strip().rpartition("\n")[2].strip()
    try:
        found: Any = json.loads(last)
        if isinstance(found, dict):
            found = next(found[key] for key in _NUMBERS if key in found)
        milliseconds = float(found)
    except (ValueError, TypeError, StopIteration, RecursionError):
        milliseconds = float("nan")
    if not 0 < milliseconds < float("inf"):
        raise TableError(
            f"latency.command: the last line of {name} is {printable(last)[:60]!r}; it needs to be milliseconds, a "
            f'number or {{"{_NUMBERS[0]}": number}}'
        )
    return milliseconds
