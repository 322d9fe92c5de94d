"""The proposal queue with lag (ruling 9): batches of requests go to the provider while evaluation goes on.

A batch is journaled before it is sent and its replies before they are used, so a resumed run reads the same texts. What
the clock decides here, a timeout or a provider's failure, becomes a reply too, with its status and reason: a journaled
input like any other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from riwoa.cognition.provider import ProposalProvider
from riwoa.log import get_logger
from riwoa_storage.records import ReplyRecord, RequestRecord
from riwoa_storage.writer import JournalWriter

_log = get_logger("cognition")


class ProposalDesk:
    """Takes batches, hands them one at a time to the provider, keeps the replies until they join.

    Args:
        provider: who answers.
        journal: where requests and replies are stored.
        lag: generations a reply may take; bounds the batches that wait.
        timeout_s: patience for one batch, read anew for each.
        progress: called at each reply batch (the watchdog's evidence).
    """

    def __init__(
        self,
        provider: ProposalProvider,
        journal: JournalWriter,
        *,
        lag: int,
        timeout_s: Callable[[], float],
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.provider = provider
        self.busy_s = 0.0
        self.answered = 0
        self._journal = journal
        self._timeout_s = timeout_s
        self._progress = progress
        self._queue: asyncio.Queue[tuple[RequestRecord, ...]] = asyncio.Queue(maxsize=lag + 1)
        self._replies: dict[str, asyncio.Future[ReplyRecord]] = {}

    @property
    def waiting(self) -> int:
        """Batches in the queue."""
        return self._queue.qsize()

    def recover(self, replies: Mapping[str, ReplyRecord]) -> None:
        """Replies that the journal holds already; their requests will not be sent again."""
        for request_id, reply in replies.items():
            self._future(request_id).set_result(reply)

    async def submit(self, batch: Sequence[RequestRecord]) -> None:
        """Journal a batch and queue it, whole, unless every reply is there; waits while the queue is full."""
        if all(self._future(r.request_id).done() for r in batch):
            return
        await self._journal.put_requests(batch)
        await self._queue.put(tuple(batch))

    async def collect(self, request_ids: Iterable[str]) -> list[ReplyRecord]:
        """The replies to these requests, in order; waits for those that are missing and then forgets them."""
        ids = list(request_ids)
        replies = [await asyncio.shield(self._future(i)) for i in ids]
        for i in ids:
            del self._replies[i]
        return replies

    async def run(self) -> None:
        """Answer batches until cancelled."""
        while True:
            batch = await self._queue.get()
            started = time.monotonic()
            replies = await self._answer(batch)
            self.busy_s += time.monotonic() - started
            self.answered += len(replies)
            # A batch re-issued after a kill may hold answered requests: what is journaled first stays (ruling 12).
            fresh = [r for r in replies if not self._future(r.request_id).done()]
            await self._journal.put_replies(fresh)
            for reply in fresh:
                self._future(reply.request_id).set_result(reply)
            self._progress()

    def _future(self, request_id: str) -> asyncio.Future[ReplyRecord]:
        if request_id not in self._replies:
            self._replies[request_id] = asyncio.get_running_loop().create_future()
        return self._replies[request_id]

    async def _answer(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        started = time.monotonic()
        patience_s = self._timeout_s()
        try:
            async with asyncio.timeout(patience_s):
                return await self.provider.generate(batch)
        except TimeoutError:
            status, reason = "timeout", f"no answer within {patience_s:g} s"
        except Exception as error:  # a provider may fail in any way; the search goes on geometrically
            status, reason = "failed", f"{type(error).__name__}: {error}"[:500]
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
