"""The language model in its role of a pool: its patches join what the search chooses from, and nothing is added.

One request a generation asks for many patches of one parent; at generation + lag they stand beside the children of
every other operator, and the acquisition picks. A reply is an input like any other: journaled before it joins, and part
of the digest of the generation that it joins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from riwoa.cognition.parse import PatchError
from riwoa.config.reload import Reloader
from riwoa.log import get_logger
from riwoa.patience import patiently
from riwoa.run.candidate import Candidate, candidate
from riwoa.run.credit import Tally
from riwoa.run.history import History, Identity, genotype_of
from riwoa.run.journal import RunJournal
from riwoa.run.lora_schedule import LoraSchedule
from riwoa.run.outbox import Outbox
from riwoa.run.parents import ParentChoice
from riwoa.run.pool_requests import PoolComposer, read_patches
from riwoa.run.prompt_choice import chosen_prompt
from riwoa.run.proposals import Asking, Begin, TrainingFailure
from riwoa.run.replies import NOT_BETTER, NOT_EVALUATED, Answer, JoinedReplies, Verdicts, Won, success
from riwoa.run.strategy import scheduled_generations
from riwoa.search.base import Elite, Proposal, Suggestion
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray
from riwoa_storage.digest import relative_request_id
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import BufferEntryRecord, ConfigRevisionRecord, IndividualRecord, RequestRecord

_log = get_logger("semantics")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request under way."""

    request: RequestRecord
    parent: Identity
    genotype: FloatArray  # the parent's


@dataclass(frozen=True, slots=True)
class _Read:
    """What the replies that joined came to."""

    joined: JoinedReplies = field(default_factory=lambda: JoinedReplies(patches=0))
    answers: Mapping[str, Answer] = field(default_factory=dict)  # by architecture key
    unusable: Mapping[str, str] = field(default_factory=dict)  # request id -> reason


class PoolProposals:
    """A language model whose patches are chosen from, and that learns from those that were chosen and won.

    Args:
        journal: of the run.
        outbox: where requests go.
        composer: writes them.
        learning: trains the model.
        history: what the run has committed.
        reloader: the configuration in force.
        codec: of the run's space and seed.
        parents: chooses of whom to ask.
    """

    def __init__(
        self,
        journal: RunJournal,
        outbox: Outbox,
        composer: PoolComposer,
        learning: LoraSchedule,
        history: History,
        reloader: Reloader,
        codec: Codec,
        parents: ParentChoice,
    ) -> None:
        self.learning = learning
        self._journal = journal
        self._outbox = outbox
        self._composer = composer
        self._history = history
        self._reloader = reloader
        self._codec = codec
        self._parents = parents
        self._due: dict[int, list[_Asked]] = {}  # by the generation that they join
        self._read = _Read()  # what joins the generation under way

    def share(self, tallies: Mapping[str, Tally]) -> float:
        """No attack is semantic: what the model writes stands in the pool."""
        return 0.0

    async def boundary(self, generation: int) -> TrainingFailure | None:
        """See ``Proposals.boundary``."""
        reason = await self.learning.boundary(generation)
        return None if reason is None else TrainingFailure(reason, self.learning.failed_s)

    def reserved(self, generation: int) -> int:
        """Nothing: what joins is chosen instead of something else."""
        return 0

    # -- a generation --------------------------------------------------------------------------------------------------

    async def suggestions(self, generation: int) -> Sequence[Suggestion]:
        """See ``Proposals.suggestions``: the different architectures of the replies that are due (ruling 9)."""
        self._read = _Read()
        due = self._due.pop(generation, [])
        if not due:
            return ()
        replies = await self._outbox.collect(asked.request.request_id for asked in due)
        found: dict[str, Suggestion] = {}
        answers: dict[str, Answer] = {}
        unusable: dict[str, str] = {}
        for asked, reply in zip(due, replies, strict=True):
            try:
                read = read_patches(asked.request, reply)
            except PatchError as error:
                unusable[reply.request_id] = str(error)
                _log.info("reply_unusable", request=reply.request_id, reason=str(error))
                continue
            for answer in read:
                genotype = self._codec.patch(asked.genotype, answer.patch)
                key = self._codec.space.key(self._codec.decode(genotype[None, :])[0])
                answers.setdefault(key, answer)
                found.setdefault(key, Suggestion(genotype, asked.parent))
        joined = JoinedReplies(
            request_ids=tuple(asked.request.request_id for asked in due),
            patches=len(found),
            prompts={asked.request.request_id: str(asked.request.parameters["strategy"]) for asked in due},
        )
        self._read = _Read(joined, answers, unusable)
        return list(found.values())

    async def candidates(self, asking: Asking, begin: Begin) -> tuple[list[Candidate], JoinedReplies]:
        """See ``Proposals.candidates``; what is asked of the model is asked while these are evaluated."""
        found = [self._candidate(p) for p in asking.proposals]
        await begin(found)
        elites = self._whom(asking)
        if elites:
            await self._ask(asking, elites)
        return found, self._read.joined

    def _candidate(self, p: Proposal) -> Candidate:
        found = candidate(self._codec, p)
        answer = self._read.answers.get(found.key) if p.operator == "semantic" else None
        return found if answer is None else replace(found, request_id=answer.request.request_id)

    def _whom(self, asking: Asking) -> Sequence[Elite]:
        """Of whom a reply could be chosen from; nobody where none would join, or the model is being trained."""
        config, lag = self._reloader.config, self._composer.composer.lag
        joining = asking.generation + lag
        # A generation asks as many as this one until then, and one more at least when the reply joins.
        spent = lag > 1 and asking.left is not None and asking.left <= (lag - 1) * len(asking.proposals)
        over = joining >= scheduled_generations(config) or spent or (asking.left is not None and asking.left <= 0)
        return () if over or not self.learning.writes(asking.generation) else asking.elites(joining)

    async def _ask(self, asking: Asking, elites: Sequence[Elite]) -> None:
        adapter = self.learning.in_force(asking.generation)
        parent = self._parents.choose(asking.generation, elites)
        templates, tallies = self._composer.composer.style.templates, self._history.prompts
        template = chosen_prompt(templates, tallies, self._composer.composer.seed, asking.generation)

        def composed() -> RequestRecord | None:
            with self._journal.reader() as reader:
                self._history.recall(reader, self._journal.run_id, self._history.unheld([parent.identity]))
            return self._composer.request(
                asking.generation,
                parent,
                template,
                objective=self._history.objective,
                target_ms=asking.target_ms,
                model=self._outbox.model,
                adapter_sha256=adapter.sha256 if adapter is not None else None,
            )

        request = await patiently(composed)
        if request is None:
            return
        batch = await self._outbox.settle([request])
        due = [_Asked(r, parent.identity, parent.genotype) for r in batch]
        self._due.setdefault(request.join_generation, []).extend(due)
        await self._outbox.submit(batch)

    # -- what came of it -----------------------------------------------------------------------------------------------

    async def judge(
        self, generation: int, individuals: Sequence[IndividualRecord], joined: JoinedReplies, won: Won
    ) -> Verdicts:
        """See ``Proposals.judge``."""
        await self._outbox.withdraw_left()
        chosen: dict[str, list[IndividualRecord]] = {request_id: [] for request_id in joined.request_ids}
        for i in individuals:
            if i.request_id is not None:
                chosen[i.request_id].append(i)
        rejected = {
            relative_request_id(request_id): reason
            for request_id, theirs in chosen.items()
            if (reason := self._rejection(request_id, theirs, won)) is not None
        }
        winners = [max(filter(won, theirs), key=_fitness) for theirs in chosen.values() if any(map(won, theirs))]
        entries = [self._success(generation, i) for i in winners]
        return Verdicts(rejected, [entry for entry in entries if entry is not None])

    def _rejection(self, request_id: str, chosen: Sequence[IndividualRecord], won: Won) -> str | None:
        """Why a reply brought nothing; None where one of its patches won."""
        reason = self._read.unusable.get(request_id)
        if reason is not None:
            return reason
        if not chosen:
            written = sum(a.request.request_id == request_id for a in self._read.answers.values())
            return f"none of its {written} patches was chosen"
        if any(map(won, chosen)):
            return None
        return NOT_EVALUATED if all(i.status == "failed" for i in chosen) else NOT_BETTER

    def _success(self, generation: int, i: IndividualRecord) -> BufferEntryRecord | None:
        parent_fitness = self._history.fitness(i.parent)
        assert parent_fitness is not None
        return success(self._journal.run_id, generation, i, self._read.answers[i.architecture_key], parent_fitness)

    async def committed(
        self, generation: int, individuals: Sequence[IndividualRecord], joined: JoinedReplies, verdicts: Verdicts
    ) -> None:
        """See ``Proposals.committed``."""
        generations = scheduled_generations(self._reloader.config)
        await self.learning.committed(generation, individuals, generations=generations)

    async def stop(self) -> None:
        """See ``Proposals.stop``."""
        self._due.clear()
        await self._outbox.withdraw_left()

    # -- resume --------------------------------------------------------------------------------------------------------

    def restore(self, reader: JournalReader, generation: int, *, searching: bool) -> None:
        """See ``Proposals.restore``."""
        for request in self._outbox.restore(reader, generation, joins=searching):
            place = tuple(request.parameters["parent_at"])
            parent = reader.individual(self._journal.run_id, *place)
            assert parent is not None, "a request's parent is committed"
            asked = _Asked(request, (place[0], place[1]), genotype_of(parent))
            self._due.setdefault(request.join_generation, []).append(asked)
        self.learning.restore(reader, generation)

    async def resume(self, generation: int, revisions: Sequence[ConfigRevisionRecord], *, searching: bool) -> None:
        """See ``Proposals.resume``."""
        await self._outbox.resend()  # before a training that was triggered after them
        await self.learning.resume(generation, revisions, searching=searching)


def _fitness(i: IndividualRecord) -> float:
    assert i.fitness is not None
    return i.fitness
