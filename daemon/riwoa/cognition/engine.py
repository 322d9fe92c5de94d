"""The language model as a provider: one process, started when needed, killed when useless, left alone when broken.

Cancelling an operation kills the process, since nothing else stops a computation; the next operation starts another,
which gets the adapter in use before anything else. A batch whose process dies is tried once more. After repeated
failures the circuit breaker opens: it is counted in batches, so that no clock decides what is asked of the model. The
process goes with it, and the trial gets a fresh one: a GPU's error outlives the batch that met it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from riwoa.cognition.memory import says_out_of_memory
from riwoa.cognition.prompt import generation_request_of
from riwoa.cognition.protocol import (
    GeneratedText,
    GenerationSettings,
    ModelSpec,
    Progress,
    Trained,
    TrainingJob,
    WriterSpec,
)
from riwoa.cognition.provider import ProviderState, ProviderStats
from riwoa.errors import AdapterError, CognitionError
from riwoa.ipc.child import child_environment, error_from_json
from riwoa.ipc.frames import encode_frame
from riwoa.ipc.process import (
    AnswerLimits,
    ChildProcess,
    ProcessKilledError,
    ProcessLateError,
    ProcessLostError,
    ProcessMemoryError,
)
from riwoa_storage.records import ReplyRecord, RequestRecord

_ATTEMPTS = 2
# Examples in one backward pass and whether activations are computed again, from fast to small. The process divides its
# own steps when an allocation fails; these are for when the kernel or the memory limit ended it instead.
_FRUGALITY = ((8, False), (2, False), (1, True))
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


class Breaker:
    """Open after repeated failures, for a number of batches; then one trial decides."""

    def __init__(self) -> None:
        self.left = 0  # batches to turn away
        self.reason: str | None = None  # the last failure, until something succeeds
        self._failures = 0

    def failed(self, reason: str, limits: EngineLimits) -> None:
        """A batch failed; also a trial, which opens it again at once."""
        self.reason = reason
        self._failures += 1
        if self._failures >= limits.breaker_failures:
            self.left = limits.breaker_rest

    def succeeded(self) -> None:
        """A batch was answered."""
        self.reason = None
        self._failures = 0

    def refusal(self) -> CognitionError:
        """What a batch is told that comes while it is open."""
        return CognitionError(f"circuit breaker open ({self.left} batches left) after: {self.reason}")


class LanguageModelProvider:
    """A ``ProposalProvider`` that holds the language model's process.

    Args:
        spec: the model.
        limits: read anew before each operation.
        on_log: gets each line that the process writes to its standard error, bounded.
    """

    def __init__(
        self,
        spec: ModelSpec | WriterSpec,
        *,
        limits: Callable[[], EngineLimits] = EngineLimits,
        on_log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.model = spec.name
        self._spec = spec
        self._limits = limits
        self._on_log = on_log
        self._one_at_a_time = asyncio.Lock()
        self._breaker = Breaker()
        self._child: ChildProcess | None = None
        self._killed: ChildProcess | None = None  # not yet reaped
        self._wanted: tuple[str | None, Path | None] = (None, None)  # the adapter in use: sha256 and file
        self._taken: tuple[str | None, Path | None] = (None, None)  # the last one that a process accepted
        self._given: str | None = None  # the adapter that the running process has
        self._most: int | None = None  # requests at once, after memory ran out
        self._frugality = 0  # of trainings, likewise
        self._doing: ProviderState | None = None
        self._words: deque[str] = deque(maxlen=1)
        self._closed = False
        self._starts = 0
        self._tokens = 0
        self._writing_s = 0.0

    # -- ProposalProvider --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See ``ProposalProvider.start``; while the breaker is open, nothing is started."""
        async with self._one_at_a_time:
            if not self._breaker.left:
                with self._counted():
                    await self._running()

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """See ``ProposalProvider.generate``."""
        async with self._one_at_a_time:
            if self._breaker.left:
                self._breaker.left -= 1
                raise self._breaker.refusal()
            with self._counted():
                replies = await self._answered(batch)
            self._breaker.succeeded()
            return replies

    async def use_adapter(self, sha256: str | None, path: Path | None) -> None:
        """See ``ProposalProvider.use_adapter``; while the breaker is open, the weights wait for the trial."""
        async with self._one_at_a_time:
            self._wanted = (sha256, path)
            if not self._breaker.left:
                with self._counted():
                    await self._ready()

    async def train(self, job: TrainingJob, on_progress: Progress) -> Trained:
        """See ``ProposalProvider.train``. A failure is told and leaves the breaker alone.

        Only one of memory is tried again, while there is a more frugal way.
        """
        async with self._one_at_a_time:
            if self._breaker.left:
                raise self._breaker.refusal()
            with self._told():
                while True:
                    try:
                        return await self._trained(job, on_progress)
                    except (ProcessMemoryError, ProcessKilledError) as lost:
                        if self._closed or self._frugality + 1 == len(_FRUGALITY):
                            raise
                        self._frugality += 1
                        piece, _ = _FRUGALITY[self._frugality]
                        self._log(f"training again, {piece} examples at once: the process was lost ({lost})")

    async def close(self) -> None:
        """See ``ProposalProvider.close``."""
        self._closed = True
        self._drop()
        await self._reap()

    def stats(self) -> ProviderStats:
        """See ``ProposalProvider.stats``."""
        alive = self._child is not None and self._child.alive
        return ProviderStats(
            state=self._state_now(alive),
            reason=self._breaker.reason,
            breaker_left=self._breaker.left,
            adapter_sha256=self._wanted[0],
            tokens=self._tokens,
            tokens_per_s=self._tokens / self._writing_s if self._writing_s > 0 else None,
            restarts=max(0, self._starts - 1),
            pid=self._child.pid if self._child is not None and alive else None,
            resident_bytes=self._child.resident_bytes() if self._child is not None and alive else None,
        )

    def _state_now(self, alive: bool) -> ProviderState:
        if self._closed:
            return "stopped"
        if self._doing is not None:
            return self._doing
        if self._breaker.left:
            return "breaker open"
        if alive:
            return "ready"
        return "unavailable" if self._breaker.reason is not None else "stopped"

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _answered(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """The replies; from a second process when the first died, with half the requests at once if of memory."""
        settings = GenerationSettings(**batch[0].parameters["settings"])
        for attempt in range(1, _ATTEMPTS + 1):
            most = min(settings.batch, self._most or settings.batch, len(batch))
            try:
                return await self._write(batch, replace(settings, batch=most))
            except ProcessLateError:
                raise
            except ProcessLostError as lost:
                # One SIGKILL is anybody's; two in a row are the kernel's, for memory, if there was anything to halve.
                twice = isinstance(lost, ProcessKilledError) and attempt == _ATTEMPTS and most > 1
                if isinstance(lost, ProcessMemoryError) or twice:
                    self._most = max(1, most // 2)
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("an attempt returns or raises")

    async def _write(self, batch: Sequence[RequestRecord], settings: GenerationSettings) -> list[ReplyRecord]:
        child = await self._ready()
        frame = {
            "op": "generate",
            "requests": [generation_request_of(r).to_json() for r in batch],
            "settings": settings.to_json(),
        }
        started = time.monotonic()
        with self._state("generating"):
            answer = await self._call(child, frame)
        duration_s = time.monotonic() - started
        with self._understood(child):
            written = [GeneratedText(**w) for w in answer["replies"]]
            if [w.id for w in written] != [r.request_id for r in batch]:
                raise ValueError("not the replies to these requests")
            replies = [_reply(w, duration_s) for w in written]
            if answer["batch"] < settings.batch:
                self._most = int(answer["batch"])
        self._tokens += sum(r.tokens for r in replies)
        self._writing_s += duration_s
        return replies

    async def _trained(self, job: TrainingJob, on_progress: Progress) -> Trained:
        child = await self._ready()
        piece, checkpointing = _FRUGALITY[self._frugality]
        frugal = replace(job, piece=min(job.piece, piece), checkpointing=job.checkpointing or checkpointing)
        with self._state("training"):
            answer = await self._call(child, {"op": "train", "job": frugal.to_json()}, on_progress)
        with self._understood(child):
            return Trained.from_json(answer["trained"])

    # -- the process -------------------------------------------------------------------------------------------------

    async def _ready(self) -> ChildProcess:
        """The process, with the adapter in use.

        Raises:
            AdapterError: it is refused, whenever it was chosen; the one before is in use again.
        """
        child = await self._running()
        sha256, path = self._wanted
        if self._given != sha256:
            with self._state("starting"):
                frame = {"op": "adapter", "path": None if path is None else str(path)}
                try:
                    await self._call(child, frame, timeout_s=self._limits().start_timeout_s)
                except AdapterError:
                    if self._taken[0] == sha256:
                        self._taken = (None, None)
                    self._wanted = self._taken
                    raise
            self._given = sha256
        self._taken = self._wanted
        return child

    async def _running(self) -> ChildProcess:
        """The process, started if there is none or it died."""
        if self._closed:
            raise CognitionError("the language model's provider is closed")
        if self._child is not None and self._child.alive:
            return self._child
        self._drop()
        await self._reap()
        with self._state("starting"):
            return await self._start()

    async def _start(self) -> ChildProcess:
        self._given = None
        self._words.clear()
        child = self._child = await ChildProcess.spawn(
            "riwoa.cognition.worker",
            child_environment(self._spec.threads, _ENVIRONMENT),
            self._log,
            name="cognition",
            max_frame_bytes=_MAX_FRAME_BYTES,
        )
        if self._closed:  # meanwhile
            self._drop()
            raise ProcessLostError("closed")
        answer = await self._ask(child, {"spec": self._spec.to_json()}, self._limits().start_timeout_s)
        if isinstance(answer.get("fatal"), dict):
            self._drop()
            raise _failure(answer["fatal"])
        if "ready" not in answer:
            raise self._strange()
        self._starts += 1
        return child

    async def _call(
        self,
        child: ChildProcess,
        frame: Mapping[str, Any],
        on_progress: Progress = lambda _: None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """What an operation gave.

        Raises:
            ProcessLostError: the process is useless; it is killed.
            CognitionError: the operation failed; the process lives, unless it has no memory left.
        """
        answer = await self._ask(child, frame, timeout_s or self._limits().operation_timeout_s, on_progress)
        if child.exceeds_memory(self._limits().memory_limit_bytes):
            self._log(f"replaced: {child.resident_bytes()} bytes resident after an operation")
            self._drop()
        if isinstance(answer.get("error"), dict):
            if says_out_of_memory(str(answer["error"].get("class")), str(answer["error"].get("message"))):
                self._drop()  # it had no room for the least that it tries: what it holds is in the way
            raise _failure(answer["error"])
        if not isinstance(answer.get("ok"), dict):
            raise self._strange()
        return dict(answer["ok"])

    async def _ask(
        self, child: ChildProcess, frame: Mapping[str, Any], timeout_s: float, on_progress: Progress = lambda _: None
    ) -> dict[str, Any]:
        limits = self._limits()
        wanted = AnswerLimits(timeout_s, limits.memory_limit_bytes, limits.poll_s)
        late = f"no answer within {timeout_s:g} s"
        try:
            return await child.ask(encode_frame(frame), wanted, late=late, on_progress=on_progress)
        except BaseException:  # cancelled or lost: it may be anywhere in its computation
            self._drop()
            raise

    def _drop(self) -> None:
        """Kill the process; ``_reap`` waits for its end."""
        if self._child is not None:
            self._child.kill()
            self._killed, self._child = self._child, None

    async def _reap(self) -> None:
        if self._killed is not None:
            await self._killed.stop()
            self._killed = None

    def _strange(self) -> ProcessLostError:
        self._drop()
        return ProcessLostError(_STRANGE)

    @contextlib.contextmanager
    def _understood(self, child: ChildProcess) -> Iterator[None]:
        """What is not the answer that was asked for loses the process its trust."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._log(f"strange answer of process {child.pid}: {type(error).__name__}: {error}")
            raise self._strange() from None

    # -- failures ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Failures of the model count towards the breaker; a refused adapter is not the model's failure."""
        try:
            with self._told():
                yield
        except AdapterError:
            raise
        except (CognitionError, asyncio.CancelledError) as error:
            self._breaker.failed(str(error) or "no answer in time", self._limits())
            if self._breaker.left:
                self._drop()
            raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """A lost process as the caller's error, with the last line it wrote."""
        try:
            yield
        except ProcessLostError as lost:
            words = f": {self._words[-1][:200]}" if self._words else ""
            if isinstance(lost, ProcessMemoryError):
                limit_bytes = self._limits().memory_limit_bytes or 0
                words = (
                    f": it grew beyond cognition.memory_bytes ({limit_bytes / 2**30:.1f} GiB); raise it or choose a "
                    "smaller cognition.model"
                )
            raise CognitionError(f"the language model's process was lost ({lost}){words}") from None

    @contextlib.contextmanager
    def _state(self, state: ProviderState) -> Iterator[None]:
        self._doing = state
        try:
            yield
        finally:
            self._doing = None

    def _log(self, line: str) -> None:
        self._words.append(line)
        self._on_log(line)


def _failure(error: Mapping[str, Any]) -> CognitionError:
    """The error that the process reported of an operation."""
    known = error_from_json(error)
    return (
        known if isinstance(known, CognitionError) else CognitionError(f"{error.get('class')}: {error.get('message')}")
    )


def _reply(w: GeneratedText, duration_s: float) -> ReplyRecord:
    return ReplyRecord(
        request_id=w.id,
        status="ok",
        text=w.text.encode(errors="replace").decode(),  # half a surrogate pair has no place in a database
        reason=None,
        tokens=int(w.tokens),
        duration_s=duration_s,
        created_unix_s=time.time(),
    )
