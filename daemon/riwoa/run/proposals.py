"""Who fills the slots of a generation beside the strategy: a language model that learns, or nobody.

``ModelProposals`` is the one face of the model's side, its prompts, replies, successes and adapters; ``NoProposals``
stands for a run without a model, and for the polish, where no reply joins.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.config.reload import Reloader
from riwoa.patience import patiently
from riwoa.run.candidate import Candidate, candidate
from riwoa.run.credit import Tally
from riwoa.run.history import History
from riwoa.run.journal import RunJournal
from riwoa.run.lora_schedule import LoraSchedule
from riwoa.run.offers import Known
from riwoa.run.prompt_history import in_order
from riwoa.run.replies import JoinedReplies, Verdicts, Won, rejections, success
from riwoa.run.requests import RequestComposer
from riwoa.run.semantic_slots import SemanticSlots
from riwoa.run.strategy import candidates_are_joint
from riwoa.run.style import Style, style_of
from riwoa.run.successes import Successes
from riwoa.run.task import SearchTask
from riwoa.search.bandit import semantic_share
from riwoa.search.base import GEOMETRIC, Proposal
from riwoa.search.codec import Codec
from riwoa_storage.digest import relative_request_id
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import BufferEntryRecord, ConfigRevisionRecord, IndividualRecord

Begin = Callable[[Iterable[Candidate]], Awaitable[None]]  # begins the evaluation of candidates; does not wait for it


@dataclass(frozen=True, slots=True)
class TrainingFailure:
    """Why the training that was due in a generation came to no adapter, and how long it took."""

    reason: str
    duration_s: float


class Proposals(Protocol):
    """What a conductor asks of the language model's side."""

    @property
    def learning(self) -> LoraSchedule | None:
        """The trainings; None where nobody learns."""
        ...

    def share(self, tallies: Mapping[str, Tally]) -> float:
        """Share of attacks that are semantic, in [0, 1], by what the operators have brought."""
        ...

    async def boundary(self, generation: int) -> TrainingFailure | None:
        """Before a generation asks: wait for the adapter that is due; why there is none, if its training failed."""
        ...

    def reserved(self, generation: int) -> int:
        """Evaluations of a budget that belong to replies under way, before a generation asks."""
        ...

    async def candidates(
        self, generation: int, proposals: Sequence[Proposal], begin: Begin, target_ms: float | None, left: int | None
    ) -> tuple[list[Candidate], JoinedReplies]:
        """All candidates of a generation, by slot; each is begun as soon as it is known, while the model writes.

        ``left``: evaluations for replies to what is asked now that may join later; None for any number.
        """
        ...

    async def judge(
        self, generation: int, individuals: Sequence[IndividualRecord], joined: JoinedReplies, won: Won
    ) -> Verdicts:
        """What the joined replies came to, before the commit of their generation."""
        ...

    async def committed(
        self, generation: int, individuals: Sequence[IndividualRecord], joined: JoinedReplies, verdicts: Verdicts
    ) -> None:
        """Learn from a committed generation."""
        ...

    async def stop(self) -> None:
        """Forget the requests under way: the search is over, nothing joins any more."""
        ...

    def restore(self, reader: JournalReader, generation: int, *, searching: bool) -> None:
        """Stand before ``generation``, by the journal. For a thread; ``resume`` follows."""
        ...

    async def resume(self, generation: int, revisions: Sequence[ConfigRevisionRecord], *, searching: bool) -> None:
        """Send again what a killed daemon had under way."""
        ...


class NoProposals:
    """Stands where no language model proposes: every slot is the strategy's own.

    Args:
        codec: of the run.
    """

    learning = None

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def share(self, tallies: Mapping[str, Tally]) -> float:
        """No attack is semantic."""
        return 0.0

    async def boundary(self, generation: int) -> TrainingFailure | None:
        """No adapter is ever due."""
        return None

    def reserved(self, generation: int) -> int:
        """No reply is under way."""
        return 0

    async def candidates(
        self, generation: int, proposals: Sequence[Proposal], begin: Begin, target_ms: float | None, left: int | None
    ) -> tuple[list[Candidate], JoinedReplies]:
        """The strategy's proposals as they are."""
        found = [candidate(self._codec, p) for p in proposals]
        await begin(found)
        return found, JoinedReplies()

    async def judge(
        self, generation: int, individuals: Sequence[IndividualRecord], joined: JoinedReplies, won: Won
    ) -> Verdicts:
        """There are no replies to judge."""
        return Verdicts()

    async def committed(
        self, generation: int, individuals: Sequence[IndividualRecord], joined: JoinedReplies, verdicts: Verdicts
    ) -> None:
        """Nothing is learned."""

    async def stop(self) -> None:
        """Nothing is under way."""

    def restore(self, reader: JournalReader, generation: int, *, searching: bool) -> None:
        """Nothing is held."""

    async def resume(self, generation: int, revisions: Sequence[ConfigRevisionRecord], *, searching: bool) -> None:
        """Nothing was under way."""


class ModelProposals:
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

    async def candidates(
        self, generation: int, proposals: Sequence[Proposal], begin: Begin, target_ms: float | None, left: int | None
    ) -> tuple[list[Candidate], JoinedReplies]:
        """See ``Proposals.candidates``."""
        config, lag = self._reloader.config, self._reloader.config.cognition.lag
        # What would join beyond the search is not asked for: each reply that joins later is an evaluation, and needs a
        # generation, which asks for one more at least.
        extra = sum(p.operator == "semantic" for p in proposals) + lag if lag else 0
        joins = generation + lag < config.run.generations and (left is None or extra <= left)
        writes = joins and self.learning.writes(generation)
        slots = await patiently(partial(self._slots.begin, generation, proposals, writes=writes))
        await begin(slots.values())
        if writes:
            adapter = self.learning.in_force(generation)
            sha256 = adapter.sha256 if adapter is not None else None
            mute = await self._slots.ask(generation, proposals, slots, target_ms=target_ms, adapter_sha256=sha256)
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
        await self._slots.withdraw_left()
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
        generations = self._reloader.config.run.generations
        await self.learning.committed(generation, individuals, generations=generations)

    async def stop(self) -> None:
        """See ``Proposals.stop``."""
        self._slots.drop()
        await self._slots.withdraw_left()

    def restore(self, reader: JournalReader, generation: int, *, searching: bool) -> None:
        """See ``Proposals.restore``."""
        self._composer.history.restore(reader, self._journal.run_id)
        self._slots.restore(reader, generation, joins=searching)
        self.learning.restore(reader, generation)

    async def resume(self, generation: int, revisions: Sequence[ConfigRevisionRecord], *, searching: bool) -> None:
        """See ``Proposals.resume``."""
        await self._slots.resend()  # before a training that was triggered after them
        await self.learning.resume(generation, revisions, searching=searching)


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """The model of a run: where its requests go, and how it writes; the configured style if none is given."""

    proposal_queue: ProposalQueue
    style: Style | None = None


def model_proposals(
    model: LanguageModel,
    journal: RunJournal,
    task: SearchTask,
    codec: Codec,
    *,
    history: History,
    known: Known,
    reloader: Reloader,
) -> ModelProposals:
    """The proposals of a run's model.

    Args:
        model: who writes.
        journal: of the run.
        task: its space and latencies.
        codec: of the space and the run's seed.
        history: what was committed.
        known: which architectures were evaluated in committed generations.
        reloader: the configuration in force.
    """
    config, queue = reloader.config, model.proposal_queue
    style = model.style or style_of(config.cognition)
    composer = RequestComposer(journal.run_id, config, codec, task, style, history)
    slots = SemanticSlots(journal, queue, composer, codec, known, config)

    def first_target_ms() -> float | None:
        """The target that the run was begun with: probes stay the same whatever is configured since."""
        begun_with = task.target_ms(journal.config_revisions()[0].config["objective"]["latency_ms"])
        return task.prompt_target_ms(begun_with)

    learning = LoraSchedule(
        journal,
        queue,
        config,
        style,
        Successes(journal.run_id, config.cognition.held_out_share),
        probes=lambda: composer.probes(config.cognition.probes, first_target_ms()),
    )
    return ModelProposals(journal, slots, composer, learning, history, reloader)
