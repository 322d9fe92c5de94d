"""The semantic slots of a generation: requests out, replies in, placebos beside them.

A request offers choices; the model's grammar, the reader of its reply and the placebo all hold to the same offer
(rulings 15 and 20). Everything that a request says follows from committed generations and the configuration in force,
so a resumed run asks the same (``riwoa.run.outbox``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from riwoa.cognition.parse import PatchError
from riwoa.config.schema import Config
from riwoa.log import get_logger
from riwoa.patience import patiently
from riwoa.run.candidate import Candidate, candidate, parent_genotype
from riwoa.run.history import Identity, genotype_of
from riwoa.run.journal import RunJournal
from riwoa.run.offers import Known, Offered, SingleChanges, placebo_patch, single_changes
from riwoa.run.outbox import Outbox
from riwoa.run.proposals import Asking
from riwoa.run.replies import Answer, JoinedReplies, read_reply
from riwoa.run.requests import RequestComposer
from riwoa.run.style import most_genes
from riwoa.search.base import Proposal
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray
from riwoa.search.rng import generator
from riwoa_storage.digest import relative_request_id
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import RequestRecord

_log = get_logger("semantics")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under way."""

    request: RequestRecord
    parent: Identity
    genotype: FloatArray  # the parent's
    proposal: Proposal | None  # whose slot waits for the reply; None where the slot fell back and the reply joins


class SemanticSlots:
    """Asks for patches and reads what comes back.

    Args:
        journal: of the run.
        outbox: where requests go.
        composer: writes the requests.
        codec: of the run's space and seed.
        known: which architectures were evaluated in committed generations; reads the journal, so only threads ask.
        config: the run's.
    """

    def __init__(
        self,
        journal: RunJournal,
        outbox: Outbox,
        composer: RequestComposer,
        codec: Codec,
        known: Known,
        config: Config,
    ) -> None:
        self._journal = journal
        self.outbox = outbox
        self._composer = composer
        self._codec = codec
        self._known = known
        self._seed = config.run.seed
        self._lag = config.cognition.lag
        self._most_genes = most_genes(config.cognition)
        self._due: dict[int, list[Asked]] = {}  # by the generation that they join

    def reserved(self, generation: int) -> int:
        """Evaluations that the requests under way will take: their replies', and one of each generation before these.

        Reserved in each generation, so that a budget of evaluations is kept to whatever is written.
        """
        return sum(map(len, self._due.values())) + max(self._due, default=generation) - generation

    # -- asking ------------------------------------------------------------------------------------------------------

    def begin(self, generation: int, proposals: Sequence[Proposal], *, writes: bool) -> dict[int, Candidate]:
        """The candidates of a generation's slots that wait for no reply; ``writes``: whether the others will ask.

        For a thread: what placebos may choose is looked up in the journal, in one query. Changes nothing here.
        """
        semantic = [p for p in proposals if p.operator == "semantic"]
        slots = {p.slot: candidate(self._codec, p) for p in proposals if p.operator not in ("semantic", "placebo")}
        if self._lag > 0 or not writes:
            slots |= {p.slot: self._fallback(p) for p in semantic}
        placebos = [p for p in proposals if p.operator == "placebo"]
        changes = {p.slot: single_changes(self._codec, parent_genotype(p)) for p in placebos}
        taken = {c.key for c in slots.values()} | self._known_of(changes.values())
        for p in placebos:
            slots[p.slot] = self._placebo(generation, p, changes[p.slot].offered(taken))
            taken.add(slots[p.slot].key)
        return slots

    def _known_of(self, changes: Iterable[SingleChanges]) -> set[str]:
        """Keys among these changes' that committed generations have evaluated; one query for all."""
        keys = [key for each in changes for key in each.keys]
        return set(self._known(keys)) if keys else set()

    async def ask(
        self,
        asking: Asking,
        begun: Mapping[int, Candidate],
        *,
        adapter_sha256: str | None,
    ) -> dict[int, Candidate]:
        """Send the requests of a generation, while what has begun is evaluated; the slots that found nothing to ask.

        Args:
            asking: a generation that has asked.
            begun: what ``begin`` returned: nothing of it is offered again.
            adapter_sha256: the adapter in force.
        """
        generation = asking.generation
        taken = {c.key for c in begun.values()}
        semantic = [p for p in asking.proposals if p.operator == "semantic"]
        model = self.outbox.model

        def composed() -> list[RequestRecord | None]:
            changes = {p.slot: single_changes(self._codec, parent_genotype(p)) for p in semantic}
            known = taken | self._known_of(changes.values())
            told: dict[str, Any] = {
                "target_ms": asking.target_ms,
                "model": model,
                "adapter_sha256": adapter_sha256,
            }
            return [self._composer.request(generation, p, changes[p.slot].offered(known), **told) for p in semantic]

        # A prompt takes some 10 ms, most of it to ask the latency table about each change; a thread keeps none waiting.
        requests = await patiently(composed)
        settled = await self.outbox.settle([r for r in requests if r is not None])
        by_slot = {p.slot: p for p in semantic}
        batch = [self._asked_for(by_slot[r.slot], r) for r in settled]
        if batch:
            self._due.setdefault(generation + self._lag, []).extend(batch)
            await self.outbox.submit([asked.request for asked in batch])
        mute = [p for p, request in zip(semantic, requests, strict=True) if request is None]
        return {p.slot: self._fallback(p) for p in mute if p.slot not in begun}

    def _fallback(self, p: Proposal, **changes: Any) -> Candidate:
        return candidate(self._codec, p, operator=p.fallback, **changes)

    def _asked_for(self, p: Proposal, request: RequestRecord) -> Asked:
        assert p.parent is not None
        return Asked(request, p.parent, parent_genotype(p), p if self._lag == 0 else None)

    def _placebo(self, generation: int, p: Proposal, offered: Offered) -> Candidate:
        """Ruling 20: a uniform draw from the patches that a request would have been offered."""
        rng = generator(self._seed, generation, "placebo", p.slot)
        try:
            patch = placebo_patch(offered, self._most_genes, rng)
        except PatchError as error:
            return self._fallback(p, error=str(error))
        return candidate(self._codec, p, genotype=self._codec.patch(parent_genotype(p), patch))

    # -- reading -----------------------------------------------------------------------------------------------------

    async def join(self, generation: int, first_slot: int) -> JoinedReplies:
        """Wait for the replies that are due (ruling 9) and read them: in their own slots, or as extra candidates."""
        due = self._due.pop(generation, [])
        if not due:
            return JoinedReplies()
        replies = await self.outbox.collect(asked.request.request_id for asked in due)
        candidates: list[Candidate] = []
        answers: dict[str, Answer] = {}
        rejected: dict[str, str] = {}
        free = iter(range(first_slot, first_slot + len(due)))
        for asked, reply in zip(due, replies, strict=True):
            try:
                answers[reply.request_id] = answer = read_reply(self._codec.space, asked.request, reply)
            except PatchError as error:
                rejected[relative_request_id(reply.request_id)] = str(error)
                _log.info("reply_unusable", request=reply.request_id, reason=str(error))
                if asked.proposal is not None:
                    candidates.append(self._fallback(asked.proposal, request_id=reply.request_id, error=str(error)))
                continue
            slot = next(free) if asked.proposal is None else asked.proposal.slot
            proposal = Proposal(slot, "semantic", asked.genotype, asked.parent, asked.genotype)
            genotype = self._codec.patch(asked.genotype, answer.patch)
            candidates.append(candidate(self._codec, proposal, genotype=genotype, request_id=reply.request_id))
        ids = tuple(asked.request.request_id for asked in due)
        parents = {
            relative_request_id(asked.request.request_id): asked.request.parameters["parent"]
            for asked, reply in zip(due, replies, strict=True)
            if reply.status == "ok"
        }
        return JoinedReplies(tuple(candidates), ids, answers, rejected, parents)

    # -- resume ------------------------------------------------------------------------------------------------------

    def restore(self, reader: JournalReader, generation: int, *, joins: bool) -> None:
        """Stand before ``generation``: stored replies, and requests that have yet to join. For a thread.

        ``joins``: false in the polish, where no reply joins any more.
        """
        for request in self.outbox.restore(reader, generation, joins=joins):
            self._due.setdefault(request.join_generation, []).append(self._asked_before(reader, request))

    def _asked_before(self, reader: JournalReader, request: RequestRecord) -> Asked:
        identity = self._parent_of(reader, request)
        parent = reader.individual(self._journal.run_id, *identity)
        assert parent is not None
        return Asked(request, identity, genotype_of(parent), None)

    def _parent_of(self, reader: JournalReader, request: RequestRecord) -> Identity:
        if "parent_at" in request.parameters:
            generation, slot = request.parameters["parent_at"]
            return generation, slot
        fallback = reader.individual(self._journal.run_id, request.generation, request.slot)
        assert fallback is not None
        assert fallback.parent is not None
        return fallback.parent

    def drop(self) -> None:
        """Forget the requests under way: beyond the search there is nothing to join."""
        self._due.clear()
