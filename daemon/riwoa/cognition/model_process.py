"""The language model's process: started when it is needed, killed when it is useless or when an operation is cancelled.

It holds no policy: who tries again, and when the process is left alone, is the provider's (``engine.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riwoa.cognition.memory import says_out_of_memory
from riwoa.cognition.protocol import ModelSpec, OnTrainingStep, WriterSpec
from riwoa.errors import CognitionError
from riwoa.ipc.child import child_environment, error_from_json
from riwoa.ipc.frames import encode_frame
from riwoa.ipc.process import AnswerLimits, ChildProcess, ProcessLostError

_MAX_FRAME_BYTES = 2**24  # the replies to hundreds of requests, reasoning included
_STRANGE = "worker died: it answered something else"
# Only what is on the disk: a model is pulled beforehand, by a person.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Limits of the process and of the breaker."""

    start_timeout_s: float = 300.0  # to load the model, or an adapter
    operation_timeout_s: float = 7200.0  # of a batch or a training; the proposal queue's patience usually ends sooner
    memory_limit_bytes: int | None = None  # resident set of the process
    breaker_failures: int = 3  # failed batches in a row that open the breaker
    breaker_rest: int = 10  # batches that are then turned away, before one trial
    poll_s: float = 0.2  # how often memory is looked at


class ModelProcess:
    """At most one process at a time, for one operation at a time.

    Args:
        spec: the model.
        limits: read anew before each operation.
        on_log: gets each line that the process writes to its standard error, bounded.
    """

    def __init__(
        self, spec: ModelSpec | WriterSpec, limits: Callable[[], EngineLimits], on_log: Callable[[str], None]
    ) -> None:
        self._spec = spec
        self._limits = limits
        self._on_log = on_log
        self._child: ChildProcess | None = None
        self._killed: ChildProcess | None = None  # not yet reaped
        self.adapter_sha256: str | None = None  # that the running process has
        self.last_words = ""  # the last line that it wrote
        self.closed = False
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Process id of the process that is alive; None where there is none."""
        return self._child.pid if self._child is not None and self._child.alive else None

    def resident_bytes(self) -> int | None:
        """Memory of the process that is alive; None where there is none."""
        return self._child.resident_bytes() if self._child is not None and self._child.alive else None

    async def start(self) -> None:
        """Start the process in the place of one that died.

        Raises:
            CognitionError: the model cannot be loaded, or the provider is closed.
            ProcessLostError: the process died, or took too long.
        """
        if self.closed:
            raise CognitionError("the language model's provider is closed")
        self.drop()
        await self._reap()
        self.adapter_sha256 = None
        self.last_words = ""
        child = self._child = await ChildProcess.spawn(
            "riwoa.cognition.worker",
            child_environment(self._spec.threads, _ENVIRONMENT),
            self.log,
            name="cognition",
            max_frame_bytes=_MAX_FRAME_BYTES,
        )
        if self.closed:  # meanwhile
            self.drop()
            raise ProcessLostError("closed")
        answer = await self._ask(child, {"spec": self._spec.to_json()}, self._limits().start_timeout_s)
        if isinstance(answer.get("fatal"), dict):
            self.drop()
            raise _failure(answer["fatal"])
        if "ready" not in answer:
            raise self._strange()
        self.starts += 1

    async def give_adapter(self, sha256: str | None, path: Path | None) -> None:
        """Have the process use an adapter, or none.

        Raises:
            AdapterError: it is refused.
            ProcessLostError, CognitionError: as ``call``.
        """
        frame = {"op": "adapter", "path": None if path is None else str(path)}
        await self.call(frame, timeout_s=self._limits().start_timeout_s)
        self.adapter_sha256 = sha256

    async def call(
        self, frame: Mapping[str, Any], on_progress: OnTrainingStep = lambda _: None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Run one operation and return its answer.

        Raises:
            ProcessLostError: the process is useless; it is killed.
            CognitionError: the operation failed; the process lives, unless it has no memory left.
        """
        child = self._child
        if child is None:
            raise ProcessLostError("closed")
        answer = await self._ask(child, frame, timeout_s or self._limits().operation_timeout_s, on_progress)
        if child.exceeds_memory(self._limits().memory_limit_bytes):
            self.log(f"replaced: {child.resident_bytes()} bytes resident after an operation")
            self.drop()
        if isinstance(answer.get("error"), dict):
            if says_out_of_memory(str(answer["error"].get("class")), str(answer["error"].get("message"))):
                self.drop()  # it had no room for the least that it tries: what it holds is in the way
            raise _failure(answer["error"])
        if not isinstance(answer.get("ok"), dict):
            raise self._strange()
        return dict(answer["ok"])

    async def _ask(
        self,
        child: ChildProcess,
        frame: Mapping[str, Any],
        timeout_s: float,
        on_progress: OnTrainingStep = lambda _: None,
    ) -> dict[str, Any]:
        limits = self._limits()
        wanted = AnswerLimits(timeout_s, limits.memory_limit_bytes, limits.poll_s)
        late = f"no answer within {timeout_s:g} s"
        try:
            return await child.ask(encode_frame(frame), wanted, late=late, on_progress=on_progress)
        except BaseException:  # cancelled or lost: it may be anywhere in its computation
            self.drop()
            raise

    async def close(self) -> None:
        """Kill the process and start no other."""
        self.closed = True
        self.drop()
        await self._reap()

    def drop(self) -> None:
        """Kill the process, if there is one; the next start waits for its end."""
        if self._child is not None:
            self._child.kill()
            self._killed, self._child = self._child, None

    async def _reap(self) -> None:
        if self._killed is not None:
            await self._killed.stop()
            self._killed = None

    def _strange(self) -> ProcessLostError:
        self.drop()
        return ProcessLostError(_STRANGE)

    @contextlib.contextmanager
    def understood(self) -> Iterator[None]:
        """Kill the process where its answer is not the one that was asked for."""
        pid = self.pid
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.log(f"strange answer of process {pid}: {type(error).__name__}: {error}")
            raise self._strange() from None

    def log(self, line: str) -> None:
        """Pass a line on, and keep it as the last words."""
        self.last_words = line
        self._on_log(line)


def _failure(error: Mapping[str, Any]) -> CognitionError:
    """The error that the process reported of an operation."""
    known = error_from_json(error)
    return (
        known if isinstance(known, CognitionError) else CognitionError(f"{error.get('class')}: {error.get('message')}")
    )
