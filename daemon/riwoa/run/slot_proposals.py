"""The language model in the slots of a generation, as the plan has it: a share of the attacks is written by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from riwoa.config.reload import Reloader
from riwoa.patience import patiently
from riwoa.run.candidate import Candidate
from riwoa.run.credit import Tally
from riwoa.run.history import History
from riwoa.run.journal import RunJournal
from riwoa.run.lora_schedule import LoraSchedule
from riwoa.run.prompt_history import in_order
from riwoa.run.proposals import Asking, Begin, TrainingFailure
from riwoa.run.replies import JoinedReplies, Verdicts, Won, rejections, success
from riwoa.run.requests import RequestComposer
from riwoa.run.semantic_slots import SemanticSlots
from riwoa.run.strategy import candidates_are_joint, scheduled_generations
from riwoa.search.bandit import semantic_share
from riwoa.search.base import GEOMETRIC, Suggestion
from riwoa_storage.digest import relative_request_id
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import BufferEntryRecord, ConfigRevisionRecord, IndividualRecord


class SlotProposals:
    """A language model that fills semantic slots, and learns from its successes.

    Args:
        journal: of the run.
        slots: asks the model and reads its replies.
        composer: writes its prompts, and remembers what came of them.
        learning: trains it.
        history: what the run has committed.
        reloader: the configuration in force.
    """

    def __init__(
        self,
        journal: RunJournal,
        slots: SemanticSlots,
        composer: RequestComposer,
        learning: LoraSchedule,
        history: History,
        reloader: Reloader,
    ) -> None:
        self.learning = learning
        self._journal = journal
        self._slots = slots
        self._composer = composer
        self._history = history
        self._reloader = reloader

    def share(self, tallies: Mapping[str, Tally]) -> float:
        """See ``Proposals.share``: as configured, or as much as pays where the configuration leaves it open."""
        search = self._reloader.config.search
        if not search.adapt_semantic:
            return search.p_semantic
        # A slot that asks the model gives up a spiral; where all is chosen jointly, whatever had been chosen.
        rivals = GEOMETRIC if candidates_are_joint(self._reloader.config) else ("spiral",)
        recent = [tallies.get(name, Tally()).recent for name in rivals]
        rivals_recent = (sum(wins for wins, _ in recent), sum(proposals for _, proposals in recent))
        return semantic_share(tallies.get("semantic", Tally()).recent, rivals_recent)

    async def boundary(self, generation: int) -> TrainingFailure | None:
        """See ``Proposals.boundary``."""
        reason = await self.learning.boundary(generation)
        return None if reason is None else TrainingFailure(reason, self.learning.failed_s)

    def reserved(self, generation: int) -> int:
        """See ``Proposals.reserved``."""
        return self._slots.reserved(generation)

    async def suggestions(self, generation: int) -> Sequence[Suggestion]:
        """None: what joins is a candidate of its own."""
        return ()

    async def candidates(self, asking: Asking, begin: Begin) -> tuple[list[Candidate], JoinedReplies]:
        """See ``Proposals.candidates``."""
        generation, proposals, left = asking.generation, asking.proposals, asking.left
        config, lag = self._reloader.config, self._reloader.config.cognition.lag
        # What would join beyond the search is not asked for: each reply that joins later is an evaluation, and needs a
        # generation, which asks for one more at least.
        extra = sum(p.operator == "semantic" for p in proposals) + lag if lag else 0
        joins = generation + lag < scheduled_generations(config) and (left is None or extra <= left)
        writes = joins and self.learning.writes(generation)
        slots = await patiently(partial(self._slots.begin, generation, proposals, writes=writes))
        await begin(slots.values())
        if writes:
            adapter = self.learning.in_force(generation)
            sha256 = adapter.sha256 if adapter is not None else None
            mute = await self._slots.ask(asking, slots, adapter_sha256=sha256)
            await begin(mute.values())
            slots |= mute
        joined = await self._slots.join(generation, len(proposals))
        await begin(joined.candidates)
        slots |= {c.slot: c for c in joined.candidates}
        return [slots[slot] for slot in sorted(slots)], joined

    async def judge(
        self, generation: int, individuals: Sequence[IndividualRecord], joined: JoinedReplies, won: Won
    ) -> Verdicts:
        """See ``Proposals.judge``."""
        await self._slots.outbox.withdraw_left()
        entries = [
            self._success(generation, i, joined) for i in individuals if i.request_id in joined.answers and won(i)
        ]
        return Verdicts(rejections(individuals, joined, won), [entry for entry in entries if entry is not None])

    def _success(self, generation: int, i: IndividualRecord, joined: JoinedReplies) -> BufferEntryRecord | None:
        parent_fitness = self._history.fitness(i.parent)
        assert i.request_id is not None
        assert parent_fitness is not None
        return success(self._journal.run_id, generation, i, joined.answers[i.request_id], parent_fitness)

    async def committed(
        self, generation: int, individuals: Sequence[IndividualRecord], joined: JoinedReplies, verdicts: Verdicts
    ) -> None:
        """See ``Proposals.committed``."""
        told = self._composer.history
        told.succeeded(verdicts.entries)
        of = {relative_request_id(i.request_id): i for i in individuals if i.request_id is not None}
        told.failed(in_order(verdicts.rejected), of, joined.parents)
        generations = scheduled_generations(self._reloader.config)
        await self.learning.committed(generation, individuals, generations=generations)

    async def stop(self) -> None:
        """See ``Proposals.stop``."""
        self._slots.drop()
        await self._slots.outbox.withdraw_left()

    def restore(self, reader: JournalReader, generation: int, *, searching: bool) -> None:
        """See ``Proposals.restore``."""
        self._composer.history.restore(reader, self._journal.run_id)
        self._slots.restore(reader, generation, joins=searching)
        self.learning.restore(reader, generation)

    async def resume(self, generation: int, revisions: Sequence[ConfigRevisionRecord], *, searching: bool) -> None:
        """See ``Proposals.resume``."""
        await self._slots.outbox.resend()  # before a training that was triggered after them
        await self.learning.resume(generation, revisions, searching=searching)
