"""Requests on their way to the language model: journaled and sent a batch at a time, found again after a kill.

What a kill left of the generation under way is sent again only if that generation asks the same now; else it is taken
back, for an uninterrupted run would never have asked it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.log import get_logger
from riwoa.run.journal import RunJournal
from riwoa.run.requests import RequestComposer, same_questions
from riwoa_storage.events import RequestsWithdrawn
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ReplyRecord, RequestRecord

_log = get_logger("semantics")


class Outbox:
    """Sends batches of requests and collects their replies.

    Args:
        journal: of the run.
        proposal_queue: where requests go.
        composer: wrote them, and reads journaled ones back.
    """

    def __init__(self, journal: RunJournal, proposal_queue: ProposalQueue, composer: RequestComposer) -> None:
        self._journal = journal
        self._proposal_queue = proposal_queue
        self._composer = composer
        self._unsent: list[list[RequestRecord]] = []  # batches that a killed daemon left without replies
        # Journaled for the generation under way, which a kill kept uncommitted.
        self._left: Sequence[RequestRecord] = ()
        self._left_replies: Mapping[str, ReplyRecord] = {}
        self._recovered: Mapping[str, ReplyRecord] = {}  # to requests that have yet to join

    @property
    def model(self) -> str:
        """Who answers."""
        return self._proposal_queue.provider.model

    async def settle(self, fresh: Sequence[RequestRecord]) -> Sequence[RequestRecord]:
        """The batch to send: what an earlier life journaled for this generation, if that is what is asked now."""
        left, replies = self._left, self._left_replies
        if not left or not same_questions(left, fresh):
            await self.withdraw_left()
            return fresh
        # The adapter of an unanswered batch may have become unusable since; written text is read as it was written.
        if len(replies) < len(left) and left[0].adapter_sha256 != fresh[0].adapter_sha256:
            await self.withdraw_left()
            return fresh
        self._left, self._left_replies = (), {}
        self._proposal_queue.recover(replies)
        return left

    async def submit(self, batch: Sequence[RequestRecord]) -> None:
        """Journal a settled batch and have it answered."""
        await self._proposal_queue.submit(batch)

    async def collect(self, request_ids: Iterable[str]) -> list[ReplyRecord]:
        """The replies to requests, in order; waits for those that are missing."""
        return await self._proposal_queue.collect(request_ids)

    async def withdraw_left(self) -> None:
        """Take back what the journal holds of the generation under way and was not asked again, before its commit."""
        if not self._left:
            return
        generation, count = self._left[0].generation, len(self._left)
        self._left, self._left_replies = (), {}
        event = RequestsWithdrawn(run_id=self._journal.run_id, generation=generation, requests=count)
        await self._journal.writer.withdraw_requests(self._journal.run_id, generation, events=[event])
        _log.info("requests_withdrawn", generation=generation, requests=count)

    # -- resume ------------------------------------------------------------------------------------------------------

    def restore(self, reader: JournalReader, generation: int, *, joins: bool) -> list[RequestRecord]:
        """Stand before ``generation``; the requests that have yet to join, by generation and slot. For a thread.

        ``joins``: false in the polish, where no reply joins any more.
        """
        journaled = [self._composer.as_sent(r) for r in reader.requests_joining(self._journal.run_id, generation)]
        waiting = [r for r in journaled if r.generation < generation] if joins else []
        self._left = [r for r in journaled if r.generation >= generation]
        self._left_replies = _replies(reader, self._left)
        self._recovered = _replies(reader, waiting)
        batches: dict[int, list[RequestRecord]] = {}
        for request in waiting:
            batches.setdefault(request.generation, []).append(request)
        self._unsent = [batches[g] for g in sorted(batches)]
        return waiting

    async def resend(self) -> None:
        """Hand over the stored replies, and send the batches again, whole, that a killed daemon left without."""
        self._proposal_queue.recover(self._recovered)
        self._recovered = {}
        for batch in self._unsent:
            await self._proposal_queue.submit(batch)
        self._unsent = []


def _replies(reader: JournalReader, requests: Sequence[RequestRecord]) -> dict[str, ReplyRecord]:
    return {r.request_id: reply for r in requests if (reply := reader.reply(r.request_id)) is not None}
