"""The worker processes of this machine: started, watched, killed and replaced. asyncio, no torch.

Each worker evaluates one candidate at a time, since OFA's networks hold shared mutable state (ruling 5). A worker that
dies, hangs or outgrows its memory is replaced and its candidate tried once more; then it is reported as failed. An
exception in the evaluation is the candidate's own: reported at once, the worker lives on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from riwoa.errors import OracleError, RiwoaError
from riwoa.ipc.child import child_environment, error_from_json
from riwoa.ipc.frames import encode_frame
from riwoa.ipc.process import AnswerLimits, ChildProcess, ProcessLostError
from riwoa.oracle.protocol import (
    MAX_FRAME_BYTES,
    OWN_ERROR,
    BackendStats,
    EvaluationResult,
    Metrics,
    OracleInfo,
    OracleSpec,
    WorkerState,
)

LogLine = Callable[[int, str], None]  # slot, one bounded line of a worker's standard error

_ATTEMPTS = 2
_LAST_WORDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Limits of the pool."""

    workers: int = 1
    queue_size: int = 64
    evaluation_timeout_s: float = 120.0
    start_timeout_s: float = 120.0
    memory_limit_bytes: int | None = None  # resident set of one worker
    start_attempts: int = 3  # consecutive, of one worker
    backoff_s: float = 0.5  # before the second attempt; doubles
    poll_s: float = 0.2  # how often memory is looked at
    stopped_s: float = 10.0  # how long a signal may stop a worker before it is replaced, while it starts, too


class WorkerPool:
    """An ``EvaluationBackend`` of subprocesses on this machine: ``async with WorkerPool(...)``, or start and close."""

    def __init__(self, spec: OracleSpec, settings: PoolSettings | None = None, on_log: LogLine | None = None) -> None:
        self._spec = spec
        self._settings = settings or PoolSettings()
        self._on_log = on_log
        self._slots = [_Slot(i) for i in range(self._settings.workers)]
        self._tasks: list[asyncio.Task[None]] = []
        self._jobs: dict[str, _Job] = {}
        self._queue: deque[_Job] = deque()
        self._changed = asyncio.Condition()
        self._info: OracleInfo | None = None
        self._error: RiwoaError | None = None
        self._closed = False
        self._held = False
        self._waker: asyncio.Task[None] | None = None  # kept, or it might be collected before it ran
        self._started_s = time.monotonic()
        self._completed = self._failed = self._retried = 0

    async def __aenter__(self) -> WorkerPool:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> OracleInfo:
        """Start every worker; returns when the first is ready, the others join as they come.

        Raises:
            RiwoaError: what the worker could not start for, of the class and with the message it had there;
                OracleError when workers keep dying at start.
        """
        self._started_s = time.monotonic()
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._serve(s), name=f"oracle-worker-{s.index}") for s in self._slots]
        async with self._changed:
            await self._changed.wait_for(lambda: self._info is not None or self._error is not None)
        if self._error is not None:
            raise self._error
        assert self._info is not None
        return self._info

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None, *, judging: bool = False
    ) -> asyncio.Future[EvaluationResult]:
        """Queue a candidate, waiting while the queue is full; ``await`` the future for its result.

        ``judging``: of a ``JudgingOracle``, with the answer to every picture.

        Raises:
            RiwoaError: the pool has failed, or is closed.
            ValueError: a job of this id is pending, or the architecture has no JSON form.
        """
        how = {"judging": True} if judging else {} if rung is None else {"rung": rung}
        frame = encode_frame({"id": job_id, "architecture": architecture, **how})
        async with self._changed:
            await self._changed.wait_for(lambda: self._unusable() or len(self._queue) < self._settings.queue_size)
            if unusable := self._unusable():
                raise unusable
            if job_id in self._jobs:
                raise ValueError(f"job {job_id!r} is already pending")
            job = _Job(job_id, frame, asyncio.get_running_loop().create_future())
            # Whoever awaits the future may itself be cancelled: the job then has no reader and gives its worker back.
            job.future.add_done_callback(lambda future: self.cancel(job_id) if future.cancelled() else None)
            self._jobs[job_id] = job
            self._queue.append(job)
            self._changed.notify_all()
            return job.future

    def cancel(self, job_id: str) -> bool:
        """Give a job up; a worker that is busy with it is killed and replaced. False when it is not pending."""
        job = self._jobs.get(job_id)
        if job is None or job.cancelled:
            return False
        job.cancelled = True
        if job in self._queue:
            self._queue.remove(job)
            self._finish(job, "cancelled", reason="cancelled")
            return True
        for slot in self._slots:
            if slot.busy_with(job) and slot.worker is not None:
                slot.worker.kill()
        return True

    def set_limits(self, evaluation_timeout_s: float, memory_limit_bytes: int | None) -> None:
        """Other limits, for the evaluations that begin from now on."""
        self._settings = replace(
            self._settings, evaluation_timeout_s=evaluation_timeout_s, memory_limit_bytes=memory_limit_bytes
        )

    def hold(self, held: bool) -> None:
        """Begin nothing while held; what is under way ends."""
        self._held = held
        self._waker = asyncio.create_task(self._notify(), name="oracle-hold")

    def stats(self) -> BackendStats:
        """A snapshot."""
        now_s = time.monotonic()
        workers = tuple(slot.snapshot(now_s, now_s - self._started_s) for slot in self._slots)
        return BackendStats(workers, len(self._queue), self._completed, self._failed, self._retried)

    async def close(self) -> None:
        """Kill the workers; pending jobs end as "cancelled". Idempotent."""
        if not self._closed and self._error is None:
            for task in self._tasks:
                task.cancel()  # once: a second time would interrupt the stopping itself
        self._closed = True
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._queue.clear()
        for job in list(self._jobs.values()):
            self._finish(job, "cancelled", reason="the pool was closed")
        await self._notify()

    # --- one worker's life -------------------------------------------------------------------------------------------

    async def _serve(self, slot: _Slot) -> None:
        try:
            if slot.index > 0:
                # The first worker has every core for its imports: what a kill costs is the wait for one evaluation.
                await self._first_ready()
            while True:
                worker = await self._ready(slot)
                job = await self._next_job(worker)
                if job is not None:
                    await self._run(slot, job)
        except RiwoaError as error:
            await self._fail(error)
        except Exception as error:  # a bug here must not leave the conductor waiting for ever
            await self._fail(OracleError(f"the worker pool failed: {type(error).__name__}: {error}; please report it"))
        finally:
            await slot.stop()

    async def _first_ready(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._info is not None or self._error is not None)

    async def _ready(self, slot: _Slot) -> ChildProcess:
        """The slot's worker, started if there is none or it died."""
        failures = 0
        while slot.worker is None or not slot.worker.alive:
            await slot.stop()
            slot.enter("starting")
            try:
                await self._start_worker(slot)
            except ProcessLostError as lost:
                await slot.stop()  # it may live and be ready only after we have given up on it
                failures += 1
                if failures >= self._settings.start_attempts:
                    words = slot.last_words()
                    raise OracleError(
                        f"oracle worker {slot.index} did not start in {failures} attempts ({lost}){words}; "
                        "see the daemon's log for its output"
                    ) from None
                await asyncio.sleep(self._settings.backoff_s * 2 ** (failures - 1))
        return slot.worker

    async def _start_worker(self, slot: _Slot) -> None:
        worker = slot.worker = await ChildProcess.spawn(
            "riwoa.oracle.worker",
            child_environment(self._spec.threads),
            lambda line: slot.log(line, self._on_log),
            name=f"oracle-{slot.index}",
            max_frame_bytes=MAX_FRAME_BYTES,
        )
        slot.enter("starting")
        spec = encode_frame({"spec": self._spec.to_json()})
        reply = await worker.ask(spec, self._limits(self._settings.start_timeout_s), late="start timeout")
        if "fatal" in reply:
            raise error_from_json(reply["fatal"])
        ready = reply.get("ready")
        if not isinstance(ready, dict):
            raise ProcessLostError("broken frame at start")
        info = OracleInfo(str(ready["oracle_version"]), int(ready["threads"]), float(ready["load_s"]))
        if self._info is not None and self._info.version != info.version:
            raise OracleError(
                f"worker {slot.index} has oracle version {info.version[:12]}, the first had {self._info.version[:12]}: "
                "the checkpoint or a library changed while the daemon ran; restart it"
            )
        self._info = self._info or info
        slot.starts += 1
        slot.enter("idle")
        worker.when_gone(self._notify)
        await self._notify()

    def _limits(self, timeout_s: float) -> AnswerLimits:
        s = self._settings
        return AnswerLimits(timeout_s, s.memory_limit_bytes, s.poll_s, s.stopped_s)

    async def _next_job(self, worker: ChildProcess) -> _Job | None:
        """The next job, or None when the idle worker died."""
        async with self._changed:
            await self._changed.wait_for(lambda: (self._queue and not self._held) or not worker.alive)
            if not worker.alive:
                return None
            job = self._queue.popleft()
            self._changed.notify_all()
            return job

    async def _run(self, slot: _Slot, job: _Job) -> None:
        reason, start_s = "", time.monotonic()
        for attempt in range(1, _ATTEMPTS + 1):
            job.attempts = attempt
            slot.job = job
            worker = await self._ready(slot)
            if job.cancelled:
                break
            start_s = time.monotonic()
            slot.enter("busy", job)
            try:
                reply = await worker.ask(job.frame, self._limits(self._settings.evaluation_timeout_s), late="timeout")
                slot.evaluations += 1
                self._deliver(job, reply, time.monotonic() - start_s)
                await self._recycle_if_fat(slot, worker)
                return
            except ProcessLostError as lost:
                reason = str(lost)
                await worker.stop()
                if job.cancelled:
                    break
                self._retried += attempt < _ATTEMPTS
            finally:
                slot.enter("idle")
        status: Literal["cancelled", "failed"] = "cancelled" if job.cancelled else "failed"
        self._finish(
            job, status, reason="cancelled" if job.cancelled else reason, duration_s=time.monotonic() - start_s
        )

    def _deliver(self, job: _Job, reply: Mapping[str, Any], duration_s: float) -> None:
        if reply.get("id") != job.id or ("metrics" in reply) == ("error" in reply):
            raise ProcessLostError("worker died: it answered something else")
        if "error" in reply:
            self._finish(job, "failed", reason=f"{OWN_ERROR}{reply['error']}", duration_s=duration_s)
        else:
            correct = str(reply.get("correct", ""))
            self._finish(job, "ok", metrics=reply["metrics"], correct=correct, duration_s=duration_s)

    async def _recycle_if_fat(self, slot: _Slot, worker: ChildProcess) -> None:
        """A worker that kept too much between evaluations costs nobody a result: it is replaced while idle."""
        if worker.exceeds_memory(self._settings.memory_limit_bytes):
            slot.log(f"replaced: {worker.resident_bytes()} bytes resident after an evaluation", self._on_log)
            await worker.stop()

    def _finish(
        self,
        job: _Job,
        status: Literal["ok", "failed", "cancelled"],
        *,
        metrics: Metrics | None = None,
        correct: str = "",
        reason: str | None = None,
        duration_s: float = 0.0,
    ) -> None:
        self._jobs.pop(job.id, None)
        self._completed += status == "ok"
        self._failed += status == "failed"
        if not job.future.done():
            result = EvaluationResult(job.id, status, metrics or {}, reason, job.attempts, duration_s, correct)
            job.future.set_result(result)

    async def _fail(self, error: RiwoaError) -> None:
        """The oracle itself is unusable: everybody who waits is told, and nothing starts any more."""
        if self._error is None:
            self._error = error
        self._queue.clear()
        for job in list(self._jobs.values()):
            del self._jobs[job.id]
            if not job.future.done():
                job.future.set_exception(self._error)
                job.future.exception()  # marks it as seen: the conductor may be waiting for another one
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _unusable(self) -> RiwoaError | None:
        if self._error is not None:
            return self._error
        return OracleError("the worker pool is closed") if self._closed else None


@dataclass(eq=False, slots=True)
class _Job:
    id: str
    frame: bytes
    future: asyncio.Future[EvaluationResult]
    attempts: int = 0
    cancelled: bool = False


class _Slot:
    """A place for a worker, with its counters; workers come and go in it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.worker: ChildProcess | None = None
        self.job: _Job | None = None
        self.evaluations = 0
        self.starts = 0
        self._state: Literal["starting", "idle", "busy", "stopped"] = "stopped"
        self._since_s = time.monotonic()
        self._busy_s = 0.0
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)

    def enter(self, state: Literal["starting", "idle", "busy", "stopped"], job: _Job | None = None) -> None:
        now_s = time.monotonic()
        if self._state == "busy":
            self._busy_s += now_s - self._since_s
        self._state, self._since_s = state, now_s
        self.job = job if state != "starting" else self.job

    def busy_with(self, job: _Job) -> bool:
        return self._state == "busy" and self.job is job

    def snapshot(self, now_s: float, pool_s: float) -> WorkerState:
        busy_s = self._busy_s + (now_s - self._since_s if self._state == "busy" else 0.0)
        return WorkerState(
            slot=self.index,
            pid=self.worker.pid if self.worker is not None and self.worker.alive else None,
            state=self._state,
            job_id=self.job.id if self.job is not None else None,
            since_s=now_s - self._since_s,
            evaluations=self.evaluations,
            restarts=max(0, self.starts - 1),
            busy_share=min(1.0, busy_s / pool_s) if pool_s > 0 else 0.0,
        )

    def log(self, line: str, on_log: LogLine | None) -> None:
        self._words.append(line)
        if on_log is not None:
            on_log(self.index, line)

    def last_words(self) -> str:
        """The last line a worker wrote: mostly the exception it died of."""
        return f": {self._words[-1][:200]}" if self._words else ""

    async def stop(self) -> None:
        if self.worker is not None:
            await self.worker.stop()
            self.worker = None
        self.enter("stopped", self.job)
