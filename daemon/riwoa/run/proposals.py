"""Who proposes beside the strategy: a language model that learns, or nobody.

``Proposals`` is the one face of the model's side, its prompts, replies, successes and adapters, whatever its role
(``pool_proposals``, ``slot_proposals``); ``NoProposals`` stands for a run without a model, and for the polish, where no
reply joins.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from riwoa.run.candidate import Candidate, candidate
from riwoa.run.credit import Tally
from riwoa.run.lora_schedule import LoraSchedule
from riwoa.run.replies import JoinedReplies, Verdicts, Won
from riwoa.search.base import Elite, Proposal, Suggestion
from riwoa.search.codec import Codec
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ConfigRevisionRecord, IndividualRecord

Begin = Callable[[Iterable[Candidate]], Awaitable[None]]  # begins the evaluation of candidates; does not wait for it


@dataclass(frozen=True, slots=True)
class TrainingFailure:
    """Why the training that was due in a generation came to no adapter, and how long it took."""

    reason: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Asking:
    """A generation that has asked its candidates, and may ask a language model for more.

    Attributes:
        generation: its number.
        proposals: what the strategy asks.
        target_ms: the latency target in force, where latencies are known beforehand.
        left: evaluations beyond these proposals, for replies that join later; None for any number.
        elites: whom to make children of that could be chosen in a generation, best first.
    """

    generation: int
    proposals: Sequence[Proposal]
    target_ms: float | None
    left: int | None
    elites: Callable[[int], Sequence[Elite]] = lambda joining: ()


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

    async def suggestions(self, generation: int) -> Sequence[Suggestion]:
        """Children for the strategy to choose from, before a generation asks; waits for the replies that hold them."""
        ...

    async def candidates(self, asking: Asking, begin: Begin) -> tuple[list[Candidate], JoinedReplies]:
        """All candidates of a generation, by slot; each is begun as soon as it is known, while the model writes."""
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

    async def suggestions(self, generation: int) -> Sequence[Suggestion]:
        """Nobody suggests anything."""
        return ()

    async def candidates(self, asking: Asking, begin: Begin) -> tuple[list[Candidate], JoinedReplies]:
        """The strategy's proposals as they are."""
        found = [candidate(self._codec, p) for p in asking.proposals]
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
