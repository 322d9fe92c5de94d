"""The semantic half of a generation: requests out, replies in, placebos beside them.

A request offers choices; the model's grammar, the reader of its reply and the placebo all hold to the same offer
(rulings 15 and 20). Everything that a request says follows from committed generations and the configuration in force,
so a resumed run asks the same. Where the configuration was changed between a kill and the resume, the generation that
was under way is asked for anew: what the journal holds of it is taken back, for an uninterrupted run that changed its
configuration there would never have asked it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from riwoa.cognition.models import Recommended
from riwoa.cognition.parse import PatchError, parse_patch, split_thinking
from riwoa.cognition.prompt import Situation, Template, compose, load_template, parameters_of
from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.cognition.protocol import Choice, GenerationRequest, GenerationSettings
from riwoa.config.schema import Cognition, Config
from riwoa.log import get_logger
from riwoa.patience import patiently
from riwoa.run.candidate import Candidate, candidate, parent_genotype
from riwoa.run.history import History, Identity, genotype_of
from riwoa.run.prompt_history import PromptHistory, in_order
from riwoa.search.base import Proposal
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray
from riwoa.search.rng import generator
from riwoa_storage.digest import canonical_json, relative_request_id
from riwoa_storage.events import RequestsWithdrawn
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import BufferEntryRecord, IndividualRecord, ReplyRecord, RequestRecord
from riwoa_storage.writer import JournalWriter

_log = get_logger("semantics")
NOT_BETTER = "not better than its parent"  # worse, or a tie
_PROBES_DRAWN = 8
TOKENS_A_GENE = 48  # more than a gene and its choice take: a patch is never cut short
NOT_EVALUATED = "could not be evaluated"
# What "auto" means where no model is asked: the scripted provider heeds none of it.
_UNMODELLED = Recommended(temperature=0.7, top_p=0.95, thinking_tokens=48, template="compact", learning_rate=1e-3)
Offered = dict[str, tuple[Choice, ...]]
Known = Callable[[Sequence[str]], Collection[str]]  # those of some architecture keys that are not to be asked again
LatencyOf = Callable[[Mapping[str, Any]], float]  # architecture -> milliseconds
LayerMs = Callable[[Mapping[str, Any]], Mapping[str, float]]  # architecture -> layer -> milliseconds


@dataclass(frozen=True, slots=True)
class Style:
    """How the model writes and learns: the configuration with every "auto" resolved."""

    settings: GenerationSettings
    template: Template
    learning_rate: float


def style_of(cognition: Cognition, recommended: Recommended = _UNMODELLED) -> Style:
    """The style of a configuration for a model with these recommendations (``cognition.models.recommended``)."""

    def resolved(value: Any, auto: Any) -> Any:
        return auto if value == "auto" else value

    thinking_tokens = resolved(cognition.thinking_tokens, recommended.thinking_tokens)
    least = min(GenerationSettings().least_thinking_tokens, thinking_tokens)
    settings = GenerationSettings(
        grammar=cognition.grammar,
        thinking_tokens=thinking_tokens,
        least_thinking_tokens=least,
        patch_tokens=max(GenerationSettings().patch_tokens, TOKENS_A_GENE * cognition.patch_genes),
        temperature=resolved(cognition.temperature, recommended.temperature),
        top_p=resolved(cognition.top_p, recommended.top_p),
    )
    template = load_template(resolved(cognition.template, recommended.template))
    return Style(settings, template, resolved(cognition.learning_rate, recommended.learning_rate))


def offered_choices(codec: Codec, genotype: FloatArray, known: Known) -> Offered:
    """What may change in one parent, shape (D,): each active gene's other choices, each giving something new.

    A choice is left out where the parent with this single change is ``known`` (novelty rejection); if that leaves
    nothing, every other choice is offered; {} where the space leaves nothing to change at all.
    """
    parent = codec.space.architecture(codec.decode(genotype[None, :])[0])
    changes = [
        (gene.name, choice)
        for gene in codec.space.genes
        if gene.name in parent
        for choice in gene.choices
        if choice != parent[gene.name]
    ]
    if not changes:
        return {}
    children = codec.decode(np.stack([codec.patch(genotype, {gene: choice}) for gene, choice in changes]))
    keys = [codec.space.key(row) for row in children]
    old = known(keys)
    new = [change for change, key in zip(changes, keys, strict=True) if key not in old]
    offered: dict[str, list[Choice]] = {}
    for gene, choice in new or changes:
        offered.setdefault(gene, []).append(choice)
    return {gene: tuple(choices) for gene, choices in offered.items()}


def placebo_patch(offered: Offered, most_genes: int, rng: np.random.Generator) -> dict[str, Choice]:
    """Ruling 20: size uniform in 1..``most_genes``, genes uniform without replacement, choices uniform.

    Raises:
        PatchError: nothing is on offer.
    """
    if not offered:
        raise PatchError("nothing in this architecture can change")
    size = int(rng.integers(1, min(most_genes, len(offered)) + 1))
    genes = [list(offered)[i] for i in rng.choice(len(offered), size, replace=False)]
    return {gene: offered[gene][int(rng.integers(len(offered[gene])))] for gene in genes}


def seed_of(seed: int, generation: int, slot: int, purpose: str) -> int:
    """A 48-bit seed for whoever is outside numpy, keyed as every draw is (ruling 13)."""
    text = f"{seed}/{generation}/{slot}/{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under way."""

    request: RequestRecord
    parent: Identity
    genotype: FloatArray  # the parent's
    proposal: Proposal | None  # whose slot waits for the reply; None where the slot spiralled and the reply joins


@dataclass(frozen=True, slots=True)
class Answer:
    """A usable reply: what a success is learned from."""

    request: RequestRecord
    text: str
    patch: Mapping[str, Choice]


@dataclass(frozen=True, slots=True)
class JoinedReplies:
    """What the replies due in a generation came to. ``rejected``: "generation/slot" of the request -> reason."""

    candidates: tuple[Candidate, ...] = ()
    request_ids: tuple[str, ...] = ()  # of every reply that was due, usable or not
    answers: Mapping[str, Answer] = field(default_factory=dict)  # by request id
    rejected: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, Mapping[str, Choice]] = field(default_factory=dict)  # of written replies' requests


class Semantics:
    """Asks for patches and reads what comes back.

    Args:
        journal: the writer.
        proposal_queue: where requests go.
        codec: of the run's space and seed.
        run_id: the run.
        history: metrics of committed individuals.
        known: which architectures were evaluated in committed generations; reads the journal, so only threads ask.
        latency_of: latency of an architecture, free to ask.
        layer_ms: latency of its layers, likewise; {} where only the sum is known.
        style: how the model writes.
        config: the run's.
    """

    def __init__(
        self,
        *,
        journal: JournalWriter,
        proposal_queue: ProposalQueue,
        codec: Codec,
        run_id: int,
        history: History,
        known: Known,
        latency_of: LatencyOf,
        layer_ms: LayerMs,
        style: Style,
        config: Config,
    ) -> None:
        self._journal = journal
        self.proposal_queue = proposal_queue
        self.style = style
        self.history = PromptHistory()
        self._codec = codec
        self._run_id = run_id
        self._seed = config.run.seed
        self._lag = config.cognition.lag
        self._most_genes = config.cognition.patch_genes
        self._history = history
        self._known = known
        self._latency_of = latency_of
        self._layer_ms = layer_ms
        self._due: dict[int, list[Asked]] = {}  # by the generation that they join
        self._unsent: list[list[RequestRecord]] = []  # batches that a killed daemon left without replies
        self._left: list[RequestRecord] = []  # journaled for the generation under way, which a kill kept uncommitted
        self._left_replies: dict[str, ReplyRecord] = {}
        self._recovered: dict[str, ReplyRecord] = {}  # to requests that have yet to join

    # -- asking ------------------------------------------------------------------------------------------------------

    def begin(self, generation: int, proposals: Sequence[Proposal], *, writes: bool) -> dict[int, Candidate]:
        """The candidates of a generation's slots that wait for no reply; ``writes``: whether the others will ask.

        For a thread: what placebos may choose is looked up in the journal. Changes nothing here.
        """
        semantic = [p for p in proposals if p.operator == "semantic"]
        slots = {p.slot: candidate(self._codec, p) for p in proposals if p.operator not in ("semantic", "placebo")}
        if self._lag > 0 or not writes:
            slots |= {p.slot: self._spiral(p) for p in semantic}
        keys = {c.key for c in slots.values()}
        for p in (p for p in proposals if p.operator == "placebo"):
            slots[p.slot] = self._placebo(generation, p, keys)
            keys.add(slots[p.slot].key)
        return slots

    async def ask(
        self,
        generation: int,
        proposals: Sequence[Proposal],
        begun: Mapping[int, Candidate],
        *,
        target_ms: float | None,
        adapter_sha256: str | None,
    ) -> dict[int, Candidate]:
        """Send the requests of a generation, while what has begun is evaluated; the slots that found nothing to ask.

        Args:
            generation: which.
            proposals: all of its slots.
            begun: what ``begin`` returned: nothing of it is offered again.
            target_ms: the latency target in force.
            adapter_sha256: the adapter in force.
        """
        keys = {c.key for c in begun.values()}
        semantic = [p for p in proposals if p.operator == "semantic"]
        # A prompt takes some 10 ms, most of it to ask the latency table about each change; a thread keeps none waiting.
        requests = await patiently(
            lambda: [self._request(generation, p, keys, target_ms, adapter_sha256) for p in semantic]
        )
        settled = await self._settle([r for r in requests if r is not None])
        by_slot = {p.slot: p for p in semantic}
        batch = [self._asked_for(by_slot[r.slot], r) for r in settled]
        if batch:
            self._due.setdefault(generation + self._lag, []).extend(batch)
            await self.proposal_queue.submit([asked.request for asked in batch])
        mute = [p for p, request in zip(semantic, requests, strict=True) if request is None]
        return {p.slot: self._spiral(p) for p in mute if p.slot not in begun}

    async def _settle(self, fresh: Sequence[RequestRecord]) -> Sequence[RequestRecord]:
        """The batch to send: what an earlier life journaled for this generation, if that is what is asked now."""
        left, replies = self._left, self._left_replies
        if not left or not _same_questions(left, fresh):
            await self.withdraw_left()
            return fresh
        # The adapter of an unanswered batch may have become unusable since; written text is read as it was written.
        if len(replies) < len(left) and left[0].adapter_sha256 != fresh[0].adapter_sha256:
            await self.withdraw_left()
            return fresh
        self._left, self._left_replies = [], {}
        self.proposal_queue.recover(replies)
        return left

    async def withdraw_left(self) -> None:
        """Take back what the journal holds of the generation under way and was not asked again, before its commit."""
        if not self._left:
            return
        generation, count = self._left[0].generation, len(self._left)
        self._left, self._left_replies = [], {}
        event = RequestsWithdrawn(run_id=self._run_id, generation=generation, requests=count)
        await self._journal.withdraw_requests(self._run_id, generation, events=[event])
        _log.info("requests_withdrawn", generation=generation, requests=count)

    def _spiral(self, p: Proposal, **changes: Any) -> Candidate:
        return candidate(self._codec, p, operator="spiral", **changes)

    def _asked_for(self, p: Proposal, request: RequestRecord) -> Asked:
        assert p.parent is not None
        return Asked(request, p.parent, parent_genotype(p), p if self._lag == 0 else None)

    def _offered(self, p: Proposal, keys: set[str]) -> Offered:
        return offered_choices(self._codec, parent_genotype(p), lambda asked: keys | set(self._known(asked)))

    def _placebo(self, generation: int, p: Proposal, keys: set[str]) -> Candidate:
        """Ruling 20: a uniform draw from the patches that a request would have been offered."""
        rng = generator(self._seed, generation, "placebo", p.slot)
        try:
            patch = placebo_patch(self._offered(p, keys), self._most_genes, rng)
        except PatchError as error:
            return self._spiral(p, error=str(error))
        return candidate(self._codec, p, genotype=self._codec.patch(parent_genotype(p), patch))

    def _request(
        self, generation: int, p: Proposal, keys: set[str], target_ms: float | None, adapter_sha256: str | None
    ) -> RequestRecord | None:
        """The request of a slot; None where there is nothing to change."""
        offered = self._offered(p, keys)
        if not offered:
            return None
        accuracy, latency_ms = self._history.metrics(p.parent) or (None, None)
        situation = self._situation(parent_genotype(p), accuracy, latency_ms, target_ms, self.history)
        system, prompt = compose(situation, offered, self.style.template)
        return RequestRecord(
            request_id=f"{self._run_id}/{generation}/{p.slot}",
            run_id=self._run_id,
            generation=generation,
            slot=p.slot,
            join_generation=generation + self._lag,
            model=self.proposal_queue.provider.model,
            adapter_sha256=adapter_sha256,
            seed=seed_of(self._seed, generation, p.slot, "request"),
            prompt=prompt,
            parameters=parameters_of(
                system, offered, self._most_genes, situation.parent, self.style.settings, self.style.template.lead
            ),
            created_unix_s=time.time(),
        )

    def _situation(
        self,
        genotype: FloatArray,
        accuracy: float | None,
        latency_ms: float | None,
        target_ms: float | None,
        history: PromptHistory,
    ) -> Situation:
        parent = self._architecture(genotype)

        def after(patch: Mapping[str, Choice]) -> float:
            return self._latency_of(self._architecture(self._codec.patch(genotype, patch)))

        return Situation(
            space=self._codec.space,
            parent=parent,
            accuracy=accuracy,
            latency_ms=self._latency_of(parent) if latency_ms is None else latency_ms,
            target_ms=target_ms,
            layer_ms=self._layer_ms(parent),
            latency_after=after if target_ms is not None else None,  # no target: no latency to speak of
            successes=history.successes,
            rejected=history.rejected,
        )

    def _architecture(self, genotype: FloatArray) -> dict[str, Choice]:
        return self._codec.space.architecture(self._codec.decode(genotype[None, :])[0])

    def probes(self, count: int, target_ms: float | None) -> tuple[GenerationRequest, ...]:
        """The fixed requests that judge adapters: random architectures of the run's seed, without any history.

        Of ``_PROBES_DRAWN`` times as many those closest below the target, where a search's parents are, too.
        """
        drawn = generator(self._seed, 0, "probes").random((_PROBES_DRAWN * count, self._codec.dimension))
        latencies_ms = [self._latency_of(self._architecture(genotype)) for genotype in drawn]
        room_ms = [0.0 if target_ms is None else target_ms - latency_ms for latency_ms in latencies_ms]
        nearest = sorted(range(len(drawn)), key=lambda i: (room_ms[i] < 0, abs(room_ms[i])))[:count]
        return tuple(self._probe(n, drawn[i], target_ms) for n, i in enumerate(nearest))

    def _probe(self, number: int, genotype: FloatArray, target_ms: float | None) -> GenerationRequest:
        offered = offered_choices(self._codec, genotype, lambda _: ())
        system, prompt = compose(
            self._situation(genotype, None, None, target_ms, PromptHistory()), offered, self.style.template
        )
        seed = seed_of(self._seed, 0, number, "probe")
        return GenerationRequest(
            id=f"probe/{number}",
            seed=seed,
            system=system,
            prompt=prompt,
            choices=offered,
            most_genes=self._most_genes,
            lead=self.style.template.lead,
        )

    # -- reading -----------------------------------------------------------------------------------------------------

    async def join(self, generation: int, first_slot: int) -> JoinedReplies:
        """Wait for the replies that are due (ruling 9) and read them: in their own slots, or as extra candidates."""
        due = self._due.pop(generation, [])
        if not due:
            return JoinedReplies()
        replies = await self.proposal_queue.collect(asked.request.request_id for asked in due)
        candidates: list[Candidate] = []
        answers: dict[str, Answer] = {}
        rejected: dict[str, str] = {}
        free = iter(range(first_slot, first_slot + len(due)))
        for asked, reply in zip(due, replies, strict=True):
            try:
                answers[reply.request_id] = answer = self._read(asked.request, reply)
            except PatchError as error:
                rejected[relative_request_id(reply.request_id)] = str(error)
                _log.info("reply_unusable", request=reply.request_id, reason=str(error))
                if asked.proposal is not None:
                    candidates.append(self._spiral(asked.proposal, request_id=reply.request_id, error=str(error)))
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

    def _read(self, request: RequestRecord, reply: ReplyRecord) -> Answer:
        if reply.status != "ok":
            raise PatchError(reply.reason or reply.status)
        p = request.parameters
        patch = parse_patch(
            reply.text, self._codec.space, p["parent"], choices=p["choices"], most_genes=p["most_genes"]
        )
        return Answer(request, reply.text, patch)

    # -- what came of it ---------------------------------------------------------------------------------------------

    def entries(
        self,
        generation: int,
        individuals: Sequence[IndividualRecord],
        joined: JoinedReplies,
        won: Callable[[Any], bool],
    ) -> list[BufferEntryRecord]:
        """Successes with their whole trace, verbatim; a reply without reasoning teaches none."""
        found = []
        for i in individuals:
            answer = joined.answers.get(i.request_id or "")
            if answer is None or not won(i):
                continue
            reasoning, _ = split_thinking(answer.text)
            parent_fitness = self._history.fitness(i.parent)
            assert i.fitness is not None
            assert parent_fitness is not None
            if reasoning:
                trace = _trace(answer, reasoning, i)
                found.append(
                    BufferEntryRecord(
                        entry_id=0,
                        run_id=self._run_id,
                        request_id=answer.request.request_id,
                        generation=generation,
                        parent_fitness=parent_fitness,
                        child_fitness=i.fitness,
                        trace=trace,
                        created_unix_s=time.time(),
                    )
                )
        return found

    def rejections(
        self, individuals: Sequence[IndividualRecord], joined: JoinedReplies, won: Callable[[Any], bool]
    ) -> dict[str, str]:
        """Why each reply that was due is no success, by "generation/slot" of its request; wins are not in it."""
        found = dict(joined.rejected)
        for i in individuals:
            if i.request_id is not None and i.request_id in joined.answers and not won(i):
                found[relative_request_id(i.request_id)] = NOT_EVALUATED if i.status == "failed" else NOT_BETTER
        return found

    def committed(
        self,
        individuals: Sequence[IndividualRecord],
        joined: JoinedReplies,
        entries: Sequence[BufferEntryRecord],
        rejected: Mapping[str, str],
    ) -> None:
        """Remember a committed generation for the prompts of the next ones."""
        self.history.succeeded(entries)
        of = {relative_request_id(i.request_id): i for i in individuals if i.request_id is not None}
        self.history.failed(in_order(rejected), of, joined.parents)

    # -- resume ------------------------------------------------------------------------------------------------------

    def restore(self, reader: JournalReader, generation: int, *, joins: bool) -> None:
        """Stand before ``generation``: stored replies, requests that have yet to join, memories. For a thread.

        ``joins``: false in the polish, where no reply joins any more.
        """
        self.history.restore(reader, self._run_id)
        journaled = [self._in_gene_order(r) for r in reader.requests_joining(self._run_id, generation)]
        waiting = [r for r in journaled if r.generation < generation] if joins else []
        self._left = [r for r in journaled if r.generation >= generation]
        self._left_replies = _replies(reader, self._left)
        self._recovered = _replies(reader, waiting)
        batches: dict[int, list[RequestRecord]] = {}
        for request in waiting:
            self._due.setdefault(request.join_generation, []).append(self._asked_before(reader, request))
            batches.setdefault(request.generation, []).append(request)
        self._unsent = [batches[g] for g in sorted(batches)]

    def _in_gene_order(self, request: RequestRecord) -> RequestRecord:
        """A journaled request as it was sent: JSON gave its genes back by name, and whoever answers may heed order."""
        p, genes = request.parameters, [gene.name for gene in self._codec.space.genes]
        ordered = {key: {gene: p[key][gene] for gene in genes if gene in p[key]} for key in ("choices", "parent")}
        return replace(request, parameters={**p, **ordered})

    def _asked_before(self, reader: JournalReader, request: RequestRecord) -> Asked:
        spiral = reader.individual(self._run_id, request.generation, request.slot)
        assert spiral is not None
        assert spiral.parent is not None
        parent = reader.individual(self._run_id, *spiral.parent)
        assert parent is not None
        return Asked(request, spiral.parent, genotype_of(parent), None)

    async def resend(self) -> None:
        """Hand over the stored replies, and send the batches again, whole, that a killed daemon left without."""
        self.proposal_queue.recover(self._recovered)
        self._recovered = {}
        for batch in self._unsent:
            await self.proposal_queue.submit(batch)
        self._unsent = []

    def drop(self) -> None:
        """Forget the requests under way: beyond the search there is nothing to join."""
        self._due.clear()


def _replies(reader: JournalReader, requests: Sequence[RequestRecord]) -> dict[str, ReplyRecord]:
    return {r.request_id: reply for r in requests if (reply := reader.reply(r.request_id)) is not None}


def _same_questions(before: Sequence[RequestRecord], now: Sequence[RequestRecord]) -> bool:
    """Whether two batches of a generation ask for the same replies; their adapters are left to the caller."""

    def questions(batch: Sequence[RequestRecord]) -> list[str]:
        in_order = sorted(batch, key=lambda r: r.slot)
        return [canonical_json([r.slot, r.join_generation, r.seed, r.prompt, r.parameters]) for r in in_order]

    return questions(before) == questions(now)


def _trace(answer: Answer, reasoning: str, i: IndividualRecord) -> dict[str, Any]:
    return {
        "system": answer.request.parameters["system"],
        "prompt": answer.request.prompt,
        "lead": answer.request.parameters.get("lead", ""),
        "text": answer.text,
        "reasoning": reasoning,
        "patch": dict(answer.patch),
        "architecture": i.architecture,
        "metrics": i.metrics,
        "parent_architecture": answer.request.parameters["parent"],
        "adapter_sha256": answer.request.adapter_sha256,
    }
