"""Where work for the language model waits (ruling 9): batches of requests and trainings, done one at a time, in order.

With a trainer, trainings wait in a line of their own, and text is written meanwhile; what is written does not depend on
that, since each piece of work names its adapter.

A batch is journaled before it is sent and its replies before they are used, so a resumed run reads the same texts. What
the clock decides here, a timeout or a provider's failure, becomes a reply too, with its status and reason: a journaled
input like any other. A training's outcome goes to ``on_trained``, which journals it, before anybody may use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from riwoa.cognition.adapters import AdapterFiles
from riwoa.cognition.protocol import Trained, TrainingJob
from riwoa.cognition.provider import DeliveringProvider, ProposalProvider, ProviderStats
from riwoa.errors import AdapterError
from riwoa.log import get_logger
from riwoa_storage.events import Event
from riwoa_storage.failpoint import failpoint
from riwoa_storage.records import ReplyRecord, ReplyStatus, RequestRecord
from riwoa_storage.writer import JournalWriter

_log = get_logger("cognition")
_MAX_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """How a training or a trial ended: its record with the adapter's bytes (safetensors), or the reason for none."""

    trained: Trained | None
    weights: bytes | None
    reason: str | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class ProposalQueueStats:
    """A snapshot for the status."""

    waiting: int  # batches in the queue
    trainings_waiting: int
    busy_share: float  # of the time since the proposal queue opened
    answered: int  # replies, failed ones included
    failed: int
    trainings: int  # that ended, failed ones included
    is_training: bool
    provider: ProviderStats


@dataclass(frozen=True, slots=True)
class _Training:
    generation: int
    job: TrainingJob
    adapter_sha256: str | None


_Work = tuple[RequestRecord, ...] | _Training


class ProposalQueue:
    """Takes batches and trainings, hands them one at a time to the provider, keeps what comes back until it is used.

    Args:
        provider: who answers.
        journal: where requests and replies are stored.
        lag: generations a reply may take; bounds the work that waits.
        timeout_s: patience for one batch, read anew for each; the provider's start is not counted.
        train_timeout_s: patience for one training, likewise.
        adapters: the files of the adapters that requests name; without it every one of them is refused.
        trainer: called before each training: who trains while the provider writes, closed afterwards; None while there
            is no room for another, and the provider trains between two batches. Without it trainings wait among them.
        progress: called at each sign of life (the watchdog's evidence).

    ``on_trained(generation, outcome)`` is awaited when a training has ended, before ``collect_training`` returns it;
    ``on_refused(generation, sha256, reason)`` when the adapter that a batch or a training of a generation names cannot
    be used, before its replies or its outcome can be collected.
    """

    def __init__(
        self,
        provider: ProposalProvider,
        journal: JournalWriter,
        *,
        lag: int,
        timeout_s: Callable[[], float],
        train_timeout_s: Callable[[], float] = lambda: 1800.0,
        adapters: AdapterFiles | None = None,
        trainer: Callable[[], ProposalProvider | None] | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.provider = provider
        if isinstance(provider, DeliveringProvider):
            provider.deliver = self.deliver
        self.adapters = adapters
        self.on_trained: Callable[[int, TrainingOutcome], Awaitable[None]] | None = None
        self.on_refused: Callable[[int, str, str], Awaitable[None]] | None = None
        self._journal = journal
        self._timeout_s = timeout_s
        self._train_timeout_s = train_timeout_s
        self._progress = progress
        # A training beside the batches under way.
        self._queue: asyncio.Queue[_Work] = asyncio.Queue(maxsize=lag + 2)
        self._trainer = trainer
        self._own_line: asyncio.Queue[_Training] = asyncio.Queue()
        self._provider_free = asyncio.Lock()
        self._is_training = False
        self._replies: dict[str, asyncio.Future[ReplyRecord]] = {}
        self._outcomes: dict[int, asyncio.Future[TrainingOutcome]] = {}
        self._waiting = self._trainings_waiting = 0
        self._answered = self._failed = self._trainings = 0
        self._opened_s = time.monotonic()
        self._busy_s = 0.0
        self._busy_since_s: float | None = None

    @property
    def waiting(self) -> int:
        """Batches in the queue."""
        return self._waiting

    def stats(self) -> ProposalQueueStats:
        """A snapshot."""
        now_s = time.monotonic()
        busy_s = self._busy_s + (now_s - self._busy_since_s if self._busy_since_s is not None else 0.0)
        return ProposalQueueStats(
            waiting=self._waiting,
            trainings_waiting=self._trainings_waiting,
            busy_share=min(1.0, busy_s / max(1e-9, now_s - self._opened_s)),
            answered=self._answered,
            failed=self._failed,
            trainings=self._trainings,
            is_training=self._is_training,
            provider=self.provider.stats(),
        )

    # -- those who ask -----------------------------------------------------------------------------------------------

    def recover(self, replies: Mapping[str, ReplyRecord]) -> None:
        """Replies that the journal holds already; their requests will not be sent again."""
        for request_id, reply in replies.items():
            self._future(request_id).set_result(reply)

    async def submit(self, batch: Sequence[RequestRecord]) -> None:
        """Journal a batch and queue it, whole, unless every reply is there; waits while the queue is full.

        All requests of a batch name one adapter.
        """
        if all(self._future(r.request_id).done() for r in batch):
            return
        await self._journal.put_requests(batch)
        await self._queue.put(tuple(batch))
        self._waiting += 1

    async def collect(self, request_ids: Iterable[str]) -> list[ReplyRecord]:
        """The replies to these requests, in order; waits for those that are missing and then forgets them."""
        ids = list(request_ids)
        replies = [await asyncio.shield(self._future(i)) for i in ids]
        for i in ids:
            del self._replies[i]
        return replies

    async def submit_training(self, generation: int, job: TrainingJob, *, adapter_sha256: str | None) -> None:
        """Queue the training that ``generation`` triggered, of a copy of this adapter (None: a fresh one).

        ``job.weights_path`` is ``adapters.new()``. Waits while the queue is full.
        """
        self._outcome(generation)
        line = self._queue if self._trainer is None else self._own_line
        await line.put(_Training(generation, job, adapter_sha256))
        self._trainings_waiting += 1

    async def collect_training(self, generation: int) -> TrainingOutcome:
        """The outcome of the training that ``generation`` triggered; waits for it and then forgets it.

        Raises:
            KeyError: none was submitted.
        """
        outcome = await asyncio.shield(self._outcomes[generation])
        del self._outcomes[generation]
        return outcome

    # -- who does the work -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do what is queued until cancelled."""
        self._opened_s = time.monotonic()
        if self._trainer is None:
            await self._work()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work(), name="proposals-work")
            group.create_task(self._train_beside(self._trainer), name="proposals-trainings")

    async def _work(self) -> None:
        while True:
            work = await self._queue.get()
            async with self._provider_free:
                self._busy_since_s = time.monotonic()
                try:
                    await (self._train(work, self.provider) if isinstance(work, _Training) else self._serve(work))
                finally:
                    self._busy_s += time.monotonic() - self._busy_since_s
                    self._busy_since_s = None
            self._progress()

    async def _train_beside(self, trainer: Callable[[], ProposalProvider | None]) -> None:
        while True:
            work = await self._own_line.get()
            own = trainer()
            if own is None:
                async with self._provider_free:
                    await self._train(work, self.provider)
            else:
                try:
                    await self._train(work, own)
                finally:  # what it holds is wanted between trainings
                    await own.close()
            self._progress()

    async def deliver(self, reply: ReplyRecord, events: Sequence[Event] = ()) -> None:
        """Journal a reply, and what happened with it, before the others of its batch have come."""
        try:
            await self._journal.put_replies([reply], events=events)
        finally:  # patience may end meanwhile: the transaction is finished all the same, and what it holds counts
            self._settle(reply)
        self._progress()

    async def _serve(self, batch: Sequence[RequestRecord]) -> None:
        self._waiting -= 1
        # A batch re-issued after a kill may hold answered requests: what is journaled first stays (ruling 12).
        open_ = [r for r in batch if not self._future(r.request_id).done()]
        replies = await self._answer(open_) if open_ else []
        fresh = [r for r in replies if not self._future(r.request_id).done()]  # others were delivered
        await self._journal.put_replies(fresh)
        for reply in fresh:
            self._settle(reply)

    def _settle(self, reply: ReplyRecord) -> None:
        self._future(reply.request_id).set_result(reply)
        self._answered += 1
        self._failed += reply.status != "ok"

    async def _answer(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        started = time.monotonic()
        patience_s = self._timeout_s()
        status: ReplyStatus
        try:
            async with self._with_adapter(self.provider, batch[0].generation, batch[0].adapter_sha256):
                async with asyncio.timeout(patience_s):
                    return await self.provider.generate(batch)
        except TimeoutError:
            status, reason = "timeout", f"no answer within {patience_s:g} s"
        except Exception as error:  # a provider may fail in any way; the search goes on geometrically
            status, reason = "failed", _reason(error)
        _log.warning("proposals_failed", status=status, reason=reason, requests=len(batch))
        now, spent = time.time(), time.monotonic() - started
        return [
            ReplyRecord(
                request_id=r.request_id,
                status=status,
                text="",
                reason=reason,
                tokens=0,
                duration_s=spent,
                created_unix_s=now,
            )
            for r in batch
        ]

    async def _train(self, work: _Training, provider: ProposalProvider) -> None:
        self._trainings_waiting -= 1
        self._is_training = True
        try:
            outcome = await self._trained(work, provider)
        finally:
            self._is_training = False
        self._trainings += 1
        if self.on_trained is not None:
            await self.on_trained(work.generation, outcome)
        self._outcome(work.generation).set_result(outcome)

    async def _trained(self, work: _Training, provider: ProposalProvider) -> TrainingOutcome:
        started = time.monotonic()
        patience_s = self._train_timeout_s()
        try:
            async with self._with_adapter(provider, work.generation, work.adapter_sha256):
                async with asyncio.timeout(patience_s):
                    trained = await provider.train(work.job, lambda _: self._progress())
            if self.adapters is None:
                raise AdapterError("there is no place for the weights")
            if work.job.trial:  # of the adapter as it is
                assert work.adapter_sha256 is not None
                trained = replace(trained, sha256=work.adapter_sha256)
                weights = await self.adapters.content(work.adapter_sha256)
            else:
                weights = await self.adapters.take(Path(work.job.weights_path), trained.sha256)
            return TrainingOutcome(trained, weights, None, time.monotonic() - started)
        except TimeoutError:
            reason = f"no end of the training within {patience_s:g} s"
        except Exception as error:  # as above
            reason = _reason(error)
        _log.warning("training_failed", generation=work.generation, reason=reason)
        return TrainingOutcome(None, None, reason, time.monotonic() - started)

    @contextlib.asynccontextmanager
    async def _with_adapter(
        self, provider: ProposalProvider, generation: int, adapter_sha256: str | None
    ) -> AsyncIterator[None]:
        """Prepared for this work; a refusal of its adapter, which may also show later, is told."""
        try:
            await self._prepare(provider, adapter_sha256)
            yield
        except AdapterError as error:
            if adapter_sha256 is not None and self.on_refused is not None:
                await self.on_refused(generation, adapter_sha256, str(error)[:_MAX_REASON_CHARACTERS])
            raise

    async def _prepare(self, provider: ProposalProvider, adapter_sha256: str | None) -> None:
        """Have a provider started, with this adapter in use."""
        await provider.start()
        self._progress()
        path = None
        if adapter_sha256 is not None:
            if self.adapters is None:
                raise AdapterError(f"adapter {adapter_sha256[:12]} is nowhere to be had")
            path = await self.adapters.file(adapter_sha256)
        await provider.use_adapter(adapter_sha256, path)
        failpoint("proposals.adapter_in_use")

    def _future(self, request_id: str) -> asyncio.Future[ReplyRecord]:
        if request_id not in self._replies:
            self._replies[request_id] = asyncio.get_running_loop().create_future()
        return self._replies[request_id]

    def _outcome(self, generation: int) -> asyncio.Future[TrainingOutcome]:
        if generation not in self._outcomes:
            self._outcomes[generation] = asyncio.get_running_loop().create_future()
        return self._outcomes[generation]


def _reason(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"[:_MAX_REASON_CHARACTERS]
    return text.encode(errors="replace").decode()  # a path may hold half a surrogate pair, a database may not
