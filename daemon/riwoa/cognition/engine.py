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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from riwoa.cognition.breaker import Breaker
from riwoa.cognition.model_process import EngineLimits, ModelProcess
from riwoa.cognition.prompt import generation_request_of
from riwoa.cognition.protocol import (
    GeneratedText,
    GenerationSettings,
    ModelSpec,
    OnTrainingStep,
    Trained,
    TrainingJob,
    WriterSpec,
)
from riwoa.cognition.provider import ProviderState, ProviderStats
from riwoa.cognition.samples import packed, samples_wanted
from riwoa.errors import AdapterError, CognitionError
from riwoa.ipc.process import (
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
        self._limits = limits
        self._process = ModelProcess(spec, limits, on_log)
        self._one_at_a_time = asyncio.Lock()
        self._breaker = Breaker()
        self._wanted: tuple[str | None, Path | None] = (None, None)  # the adapter in use: sha256 and file
        self._taken: tuple[str | None, Path | None] = (None, None)  # the last one that a process accepted
        self._most: int | None = None  # requests at once, after memory ran out
        self._frugality = 0  # of trainings, likewise
        self._doing: ProviderState | None = None
        self._tokens = 0
        self._writing_s = 0.0

    # -- ProposalProvider --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See ``ProposalProvider.start``; while the breaker is open, nothing is started."""
        async with self._one_at_a_time:
            if not self._breaker.left:
                with self._counted():
                    await self._start()

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """See ``ProposalProvider.generate``."""
        async with self._one_at_a_time:
            self._breaker.turn_away()
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

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
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
                        if self._process.closed or self._frugality + 1 == len(_FRUGALITY):
                            raise
                        self._frugality += 1
                        piece, _ = _FRUGALITY[self._frugality]
                        self._process.log(f"training again, {piece} examples at once: the process was lost ({lost})")

    async def close(self) -> None:
        """See ``ProposalProvider.close``."""
        await self._process.close()

    def stats(self) -> ProviderStats:
        """See ``ProposalProvider.stats``."""
        process = self._process
        return ProviderStats(
            state=self._state_now(),
            reason=self._breaker.reason,
            breaker_left=self._breaker.left,
            adapter_sha256=self._wanted[0],
            tokens=self._tokens,
            tokens_per_s=self._tokens / self._writing_s if self._writing_s > 0 else None,
            restarts=max(0, process.starts - 1),
            pid=process.pid,
            resident_bytes=process.resident_bytes(),
        )

    def _state_now(self) -> ProviderState:
        if self._process.closed:
            return "stopped"
        if self._doing is not None:
            return self._doing
        if self._breaker.left:
            return "breaker open"
        if self._process.pid is not None:
            return "ready"
        return "unavailable" if self._breaker.reason is not None else "stopped"

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _answered(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """Replies to a batch; where the process dies, from a second one, with half at once if memory ran out."""
        settings = GenerationSettings(**batch[0].parameters["settings"])
        texts = sum(samples_wanted(request) or 1 for request in batch)
        for attempt in range(1, _ATTEMPTS + 1):
            most = min(settings.batch, self._most or settings.batch, texts)
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
        await self._ready()
        frame = {
            "op": "generate",
            "requests": [generation_request_of(r).to_json() for r in batch],
            "settings": settings.to_json(),
        }
        started = time.monotonic()
        with self._state("generating"):
            answer = await self._process.call(frame)
        duration_s = time.monotonic() - started
        with self._process.understood():
            written = [GeneratedText.from_json(w) for w in answer["replies"]]
            if [w.id for w in written] != [r.request_id for r in batch]:
                raise ValueError("not the replies to these requests")
            replies = [_reply(w, duration_s) for w in written]
            if answer["batch"] < settings.batch:
                self._most = int(answer["batch"])
        self._tokens += sum(r.tokens for r in replies)
        self._writing_s += duration_s
        return replies

    async def _trained(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        await self._ready()
        piece, checkpointing = _FRUGALITY[self._frugality]
        frugal = replace(job, piece=min(job.piece, piece), checkpointing=job.checkpointing or checkpointing)
        with self._state("training"):
            answer = await self._process.call({"op": "train", "job": frugal.to_json()}, on_progress)
        with self._process.understood():
            return Trained.from_json(answer["trained"])

    # -- the process, ready --------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Start the process if there is none or it died."""
        if not self._process.closed and self._process.pid is not None:
            return
        with self._state("starting"):
            await self._process.start()

    async def _ready(self) -> None:
        """Have a process that has the adapter in use.

        Raises:
            AdapterError: it is refused, whenever it was chosen; the one before is in use again.
        """
        await self._start()
        sha256, path = self._wanted
        if self._process.adapter_sha256 != sha256:
            with self._state("starting"):
                try:
                    await self._process.give_adapter(sha256, path)
                except AdapterError:
                    if self._taken[0] == sha256:
                        self._taken = (None, None)
                    self._wanted = self._taken
                    raise
        self._taken = self._wanted

    # -- failures ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Count failures of the model towards the breaker; a refused adapter is none."""
        try:
            with self._told():
                yield
        except AdapterError:
            raise
        except (CognitionError, asyncio.CancelledError) as error:
            limits = self._limits()
            self._breaker.failed(str(error) or "no answer in time", limits.breaker_failures, limits.breaker_rest)
            if self._breaker.left:
                self._process.drop()
            raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn a lost process into the caller's error, with the last line that the process wrote."""
        try:
            yield
        except ProcessLostError as lost:
            words = f": {self._process.last_words[:200]}" if self._process.last_words else ""
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


def _reply(w: GeneratedText, duration_s: float) -> ReplyRecord:
    return ReplyRecord(
        request_id=w.id,
        status="ok",
        # Half a surrogate pair has no place in a database.
        text=(w.text if w.samples is None else packed(w.samples)).encode(errors="replace").decode(),
        reason=None,
        tokens=int(w.tokens),
        duration_s=duration_s,
        created_unix_s=time.time(),
    )
