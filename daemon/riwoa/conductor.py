"""The generational loop: ask, propose, evaluate, tell, commit. Everything durable happens in the commit.

A generation is a function of the committed state, the configuration revision and the replies that join it. Killed
anywhere, the daemon restores the last committed state, asks the same candidates again and finds in the journal what had
already been evaluated or answered.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from riwoa.cognition.desk import ProposalDesk
from riwoa.cognition.parse import PatchError, parse_patch
from riwoa.cognition.provider import request_prompt, single_change
from riwoa.config import Config, as_json
from riwoa.errors import OracleError
from riwoa.evaluations import Evaluated, Evaluations
from riwoa.history import Best, History, Identity, genotype_of, pack_state, unpack_state
from riwoa.log import get_logger
from riwoa.reload import Reloader
from riwoa.search.base import Outcome, Proposal, SearchParameters, Strategy
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.polish import BATCH as POLISH_BATCH
from riwoa.search.polish import Polish
from riwoa.search.space import IntArray, Space
from riwoa.search.strategies import make_strategy
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import (
    BufferEntryRecord,
    ConfigRevisionRecord,
    EventRecord,
    GenerationRecord,
    IndividualRecord,
    RequestRecord,
)
from riwoa_storage.writer import JournalWriter

_log = get_logger("conductor")
BARREN_GENERATIONS = 10  # in a row without one success: the oracle is broken
KEPT_LATENCIES = 100_000
LatencyOf = Callable[[Mapping[str, Any]], float]  # architecture -> milliseconds


@dataclass(frozen=True, slots=True)
class Candidate:
    """A genotype on its way to an outcome, with where it came from."""

    slot: int
    operator: str
    genotype: FloatArray
    parent: Identity | None
    key: str
    architecture: Mapping[str, Any]
    request_id: str | None = None
    error: str | None = None  # why a semantic slot fell back to the spiral


@dataclass(frozen=True, slots=True)
class Late:
    """A request under way whose reply joins a later generation."""

    request: RequestRecord
    parent: Identity
    parent_genotype: FloatArray


def search_parameters(config: Config, *, semantic: bool) -> SearchParameters:
    """The optimiser's settings; without a provider no slot is semantic."""
    settings = config.search.model_dump(exclude={"strategy", "adapt_semantic"})
    settings["p_semantic"] = config.search.p_semantic if semantic else 0.0
    return SearchParameters(generations=config.run.generations, **settings)


class Conductor:
    """Runs one run to its end.

    Args:
        journal: the writer.
        journal_path: for the reader.
        run_id: the run, begun.
        space: its space.
        latency_of: latency of an architecture, free to ask.
        target_ms: the latency target that "auto" stands for on this device.
        evaluations: where accuracies come from.
        desk: where semantic requests go, or None.
        reloader: the configuration in force.
        on_commit: called after each commit.
        on_config: called with each configuration that comes into force.
    """

    def __init__(
        self,
        *,
        journal: JournalWriter,
        journal_path: Path,
        run_id: int,
        space: Space,
        latency_of: LatencyOf,
        target_ms: float,
        evaluations: Evaluations,
        desk: ProposalDesk | None,
        reloader: Reloader,
        on_commit: Callable[[], None] = lambda: None,
        on_config: Callable[[Config], None] = lambda _: None,
    ) -> None:
        self._journal = journal
        self._path = journal_path
        self.run_id = run_id
        self.space = space
        self._latency_of = latency_of
        self._auto_target_ms = target_ms
        self._evaluations = evaluations
        self._desk = desk
        self._reloader = reloader
        self._on_commit = on_commit
        self._on_config = on_config
        config = reloader.config
        self.codec = Codec(space, config.run.seed)
        self.objective = self._make_objective(config)
        self._latencies: dict[bytes, float] = {}
        self.strategy: Strategy | Polish = self._make_strategy()
        self.phase = "search"
        self.history = History(self.objective)
        self.revision = 0
        self.resumed_from: int | None = None
        self.running = asyncio.Event()
        self.running.set()  # cleared by pause
        self.generation_s: list[float] = []  # recent durations, for the time left
        self._barren = 0
        self._search_evaluations = 0  # spent when the polish began
        self._late: dict[int, list[Late]] = {}  # by the generation in which they join
        self._unsent: list[list[RequestRecord]] = []  # batches that a killed daemon left without replies

    # -- for those who look on ---------------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._reloader.config

    @property
    def generation(self) -> int:
        """The generation under way."""
        return self.strategy.generation

    @property
    def leader(self) -> Best | None:
        """The best individual so far."""
        return self.history.best

    def time_left_s(self) -> float | None:
        """To the end of search and polish, from the pace of recent generations; None before the first."""
        if not self.generation_s:
            return None
        pace_s = sum(self.generation_s) / len(self.generation_s)
        if self.phase == "search":
            rounds = max(0, self.config.run.generations - self.generation)
            per_evaluation_s = pace_s / self.config.search.population
            return rounds * pace_s + self.config.run.polish_evaluations * per_evaluation_s
        left = self.config.run.polish_evaluations - self.polish_spent
        per_evaluation_s = sum(self.generation_s) / max(1, len(self.generation_s)) / POLISH_BATCH
        return per_evaluation_s * max(0, left)

    @property
    def polish_spent(self) -> int:
        """Evaluations of the polish so far."""
        return self.history.counters["evaluations"] - self._search_evaluations if self.phase == "polish" else 0

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Resume where the journal ends, search, polish.

        Raises:
            OracleError: a whole generation failed; nothing of it is committed.
        """
        self._restore()
        for batch in self._unsent:
            assert self._desk is not None
            await self._desk.submit(batch)
        while True:
            await self.running.wait()
            await self._apply_reload()
            if self.phase == "search" and self._search_over():
                self._begin_polish()
            if self.phase == "polish" and self.strategy.finished:
                return
            started = time.monotonic()
            await self._one_generation(started)
            self.generation_s = [*self.generation_s[-9:], time.monotonic() - started]
            self._on_commit()

    def _search_over(self) -> bool:
        limit = self.config.run.evaluations
        spent = self.history.counters["evaluations"]
        return self.strategy.finished or (limit is not None and spent >= limit)

    def _begin_polish(self) -> None:
        assert self.leader is not None, "a generation in which every evaluation failed is never committed"
        self.strategy = self._make_polish(self.leader, self.generation)
        self.phase = "polish"
        self._search_evaluations = self.history.counters["evaluations"]
        self.generation_s = []
        self._late.clear()  # replies that would join beyond the search have nothing to join
        _log.info("polish_begins", leader=self.leader.fitness)

    async def _one_generation(self, started: float) -> None:
        generation = self.generation
        proposals = self.strategy.ask()
        asked = await self._asked(generation, proposals)
        joined, joined_ids = await self._joiners(generation, len(asked))
        candidates = [*asked, *joined]
        evaluated = await self._evaluations.evaluate([(c.key, c.architecture) for c in candidates])
        self._require_life(generation, evaluated)
        individuals = [self._individual(c, e) for c, e in zip(candidates, evaluated, strict=True)]
        self.strategy.tell([self._outcome(c, i) for c, i in zip(candidates, individuals, strict=True)])
        buffer = self._buffer(generation, individuals)
        record = self._record(generation, individuals, joined_ids, started)
        digest = await self._journal.commit_generation(record, buffer=buffer)
        self._committed(record, evaluated, digest)

    def _require_life(self, generation: int, evaluated: Sequence[Evaluated]) -> None:
        """Stop, committing nothing, when it is the oracle that fails and not the candidates.

        A candidate may fail for ever, and a polish often asks one at a time, so a barren generation is journaled like
        any other; but not the first, and not one after the other.
        """
        self._barren = 0 if any(e.ok for e in evaluated) else self._barren + 1
        if self._barren and (self.leader is None or self._barren >= BARREN_GENERATIONS):
            raise OracleError(
                f"every evaluation of generation {generation} failed, first: {evaluated[0].error}; mend it and start "
                "again, nothing is lost"
            )

    def _committed(self, record: GenerationRecord, evaluated: Sequence[Evaluated], digest: str) -> None:
        for individual, outcome in zip(record.individuals, evaluated, strict=True):
            self._evaluations.commit(individual.architecture_key, outcome)
        self.history.counters = Counter(record.counters)
        self.history.digest = digest
        leader = self.leader
        _log.info(
            "generation_committed",
            generation=record.generation,
            phase=record.phase,
            evaluations=record.counters["evaluations"],
            accuracy=leader.metrics["accuracy"] if leader else None,
            latency_ms=leader.metrics["latency_ms"] if leader else None,
            digest=digest[:12],
        )

    # -- candidates --------------------------------------------------------------------------------------------------

    def _candidate(self, p: Proposal, **changes: Any) -> Candidate:
        genotype = changes.pop("genotype", p.genotype)
        indices: IntArray = self.codec.decode(genotype[None, :])[0]
        return Candidate(
            slot=changes.pop("slot", p.slot),
            operator=changes.pop("operator", p.operator),
            genotype=genotype,
            parent=p.parent,
            key=self.space.key(indices),
            architecture=self.space.architecture(indices),
            **changes,
        )

    async def _asked(self, generation: int, proposals: Sequence[Proposal]) -> list[Candidate]:
        """The asked slots: placebos drawn, semantic ones requested and, in the reference mode, waited for."""
        candidates = {p.slot: self._candidate(p) for p in proposals if p.operator not in ("semantic", "placebo")}
        for p in proposals:
            if p.operator == "placebo":
                candidates[p.slot] = self._placebo(generation, p)
        semantic = [p for p in proposals if p.operator == "semantic"]
        candidates |= await self._semantic(generation, semantic)
        return [candidates[p.slot] for p in proposals]

    def _placebo(self, generation: int, p: Proposal) -> Candidate:
        """Ruling 20: a uniform draw from the patches that a request would have been offered."""
        draw = _seed(self.config.run.seed, generation, p.slot, "placebo")
        try:
            patch = single_change(self.space, self._parent_architecture(p), draw)
        except PatchError as error:
            return self._candidate(p, operator="spiral", error=str(error))
        return self._candidate(p, genotype=self.codec.patch(_parent_genotype(p), patch))

    async def _semantic(self, generation: int, proposals: Sequence[Proposal]) -> dict[int, Candidate]:
        if not proposals:
            return {}
        assert self._desk is not None, "without a provider no slot is semantic"
        lag = self.config.cognition.lag
        batch = [self._request(generation, p, lag) for p in proposals]
        await self._desk.submit(batch)
        if lag > 0:
            for p, request in zip(proposals, batch, strict=True):
                assert p.parent is not None
                late = Late(request, p.parent, _parent_genotype(p))
                self._late.setdefault(generation + lag, []).append(late)
            return {p.slot: self._candidate(p, operator="spiral") for p in proposals}
        replies = await self._desk.collect(r.request_id for r in batch)
        found = {}
        for p, reply in zip(proposals, replies, strict=True):
            try:
                patch = self._read(reply.text, reply.status, reply.reason, self._parent_architecture(p))
            except PatchError as error:
                found[p.slot] = self._candidate(p, operator="spiral", request_id=reply.request_id, error=str(error))
            else:
                genotype = self.codec.patch(_parent_genotype(p), patch)
                found[p.slot] = self._candidate(p, genotype=genotype, request_id=reply.request_id)
        return found

    async def _joiners(self, generation: int, first_slot: int) -> tuple[list[Candidate], tuple[str, ...]]:
        """Replies that join here (ruling 9) as extra candidates, and the ids of all of them."""
        late = self._late.pop(generation, [])
        if not late:
            return [], ()
        assert self._desk is not None
        replies = await self._desk.collect(item.request.request_id for item in late)
        found: list[Candidate] = []
        for item, reply in zip(late, replies, strict=True):
            slot = first_slot + len(found)
            proposal = Proposal(slot, "semantic", item.parent_genotype, item.parent, item.parent_genotype)
            try:
                patch = self._read(reply.text, reply.status, reply.reason, self._parent_architecture(proposal))
            except PatchError as error:
                _log.info("late_reply_unusable", request=reply.request_id, reason=str(error))
                continue
            genotype = self.codec.patch(item.parent_genotype, patch)
            found.append(self._candidate(proposal, genotype=genotype, request_id=reply.request_id))
        return found, tuple(item.request.request_id for item in late)

    def _read(self, text: str, status: str, reason: str | None, parent: Mapping[str, Any]) -> dict[str, Any]:
        if status != "ok":
            raise PatchError(reason or status)
        return parse_patch(text, self.space, parent)

    def _request(self, generation: int, p: Proposal, lag: int) -> RequestRecord:
        assert self._desk is not None
        assert p.parent is not None
        target = self.objective.latency_target_ms
        return RequestRecord(
            request_id=f"{self.run_id}/{generation}/{p.slot}",
            run_id=self.run_id,
            generation=generation,
            slot=p.slot,
            join_generation=generation + lag,
            model=self._desk.provider.model,
            adapter_sha256=None,
            seed=_seed(self.config.run.seed, generation, p.slot, "request"),
            prompt=request_prompt(self.space, self._parent_architecture(p), self.history.metrics(p.parent), target),
            parameters={},
            created_unix_s=time.time(),
        )

    def _parent_architecture(self, p: Proposal) -> dict[str, Any]:
        return self.space.architecture(self.codec.decode(_parent_genotype(p)[None, :])[0])

    # -- records -----------------------------------------------------------------------------------------------------

    def _individual(self, c: Candidate, e: Evaluated) -> IndividualRecord:
        metrics = {**e.metrics, "latency_ms": self._latency_of(c.architecture)} if e.ok else {}
        fitness = float(self.objective.fitness(metrics["accuracy"], metrics["latency_ms"])) if e.ok else None
        return IndividualRecord(
            slot=c.slot,
            operator=c.operator,
            parent=c.parent,
            genotype=c.genotype.astype("<f8").tobytes(),
            architecture=c.architecture,
            architecture_key=c.key,
            status="ok" if e.ok else "failed",
            metrics=metrics,
            fitness=fitness,
            fitness_version=self.objective.version,
            cache_hit=e.hit,
            request_id=c.request_id,
            error=e.error or c.error,
        )

    def _outcome(self, c: Candidate, i: IndividualRecord) -> Outcome:
        accuracy = i.metrics.get("accuracy", float("nan"))
        return Outcome(c.slot, c.operator, c.genotype, accuracy, i.metrics.get("latency_ms", float("nan")), c.parent)

    def _record(
        self, generation: int, individuals: list[IndividualRecord], late_ids: tuple[str, ...], started: float
    ) -> GenerationRecord:
        counters = self._counters(individuals, late_ids)
        self.history.absorb(generation, individuals)
        used = tuple(i.request_id for i in individuals if i.request_id is not None and i.request_id not in late_ids)
        return GenerationRecord(
            run_id=self.run_id,
            generation=generation,
            phase=self.phase,
            config_revision=self.revision,
            state=pack_state(self.strategy.snapshot()),
            counters=counters,
            leader=self.leader.to_json() if self.leader is not None else None,
            inputs={"failed": {str(i.slot): i.error for i in individuals if i.status == "failed"}},
            individuals=tuple(individuals),
            joined_requests=used + late_ids,
            duration_s=time.monotonic() - started,
        )

    def _counters(self, individuals: list[IndividualRecord], late_ids: tuple[str, ...]) -> dict[str, int]:
        """Totals of the run including this generation."""
        semantic = sum(i.operator == "semantic" for i in individuals)
        replies = {i.request_id for i in individuals if i.request_id is not None} | set(late_ids)
        added = {
            "evaluations": sum(not i.cache_hit for i in individuals),
            "cache_hits": sum(i.cache_hit for i in individuals),
            "failures": sum(i.status == "failed" and not i.cache_hit for i in individuals),
            "replies": len(replies),
            "semantic": semantic,
            "fallbacks": len(replies) - semantic,
            "successes": sum(self._succeeded(i) for i in individuals),
        }
        return {name: self.history.counters[name] + value for name, value in added.items()}

    def _succeeded(self, i: IndividualRecord) -> bool:
        """Ruling 2: a semantic child that is fitter than its parent on the same images."""
        parent = self.history.fitness(i.parent)
        return i.operator == "semantic" and i.fitness is not None and parent is not None and i.fitness > parent

    def _buffer(self, generation: int, individuals: Sequence[IndividualRecord]) -> list[BufferEntryRecord]:
        """Successes with their whole trace; the prompt and the text lie in requests and replies under the same id."""
        entries = []
        for i in filter(self._succeeded, individuals):
            parent = self.history.fitness(i.parent)
            assert i.request_id is not None
            assert i.fitness is not None
            assert parent is not None
            entry = BufferEntryRecord(
                entry_id=0,
                run_id=self.run_id,
                request_id=i.request_id,
                generation=generation,
                parent_fitness=parent,
                child_fitness=i.fitness,
                trace={"architecture": i.architecture, "metrics": i.metrics},
                created_unix_s=time.time(),
            )
            entries.append(entry)
        return entries

    # -- configuration -----------------------------------------------------------------------------------------------

    async def _apply_reload(self) -> None:
        taken = self._reloader.take()
        if taken is None:
            return
        config, found = taken
        changed = {key: list(pair) for key, pair in found.live.items()}
        self.revision += 1
        await self._journal.put_config_revision(
            ConfigRevisionRecord(
                run_id=self.run_id,
                revision=self.revision,
                generation=self.generation,
                config=as_json(config),
                changed=changed,
                created_unix_s=time.time(),
            )
        )
        self._configure(config)
        event = EventRecord(kind="config_applied", payload=changed, run_id=self.run_id, generation=self.generation)
        await self._journal.put_event(replace(event, created_unix_s=time.time()))
        _log.info("config_applied", revision=self.revision, keys=sorted(changed))

    def _configure(self, config: Config) -> None:
        objective = self._make_objective(config)
        if objective != self.objective:
            with JournalReader(self._path) as reader:
                self.history.judge_by(objective, reader, self.run_id)
        self.objective = objective
        self.strategy.set_objective(self.objective)
        self.strategy.set_parameters(search_parameters(config, semantic=self._desk is not None))
        if isinstance(self.strategy, Polish):
            self.strategy.set_budget(config.run.polish_evaluations)
        self._on_config(config)

    def _make_objective(self, config: Config) -> Objective:
        wanted = config.objective.latency_ms
        return Objective(self._auto_target_ms if wanted == "auto" else float(wanted), config.objective.exponent)

    def _make_strategy(self) -> Strategy:
        config = self.config
        parameters = search_parameters(config, semantic=self._desk is not None)
        name, seed = config.search.strategy, config.run.seed
        return make_strategy(name, self.space, self.objective, seed, parameters, self._latency_of_indices)

    def _make_polish(self, best: Best, start_generation: int) -> Polish:
        indices = self.codec.decode(genotype_of(best.individual)[None, :])[0]
        return Polish(
            self.space,
            self.objective,
            self.config.run.seed,
            best.as_leader(indices),
            budget=self.config.run.polish_evaluations,
            start_generation=start_generation,
            latency_of=self._latency_of_indices,
        )

    def _latency_of_indices(self, indices: IntArray) -> float:
        """What a search may ask for free, several times a candidate: the last answers are kept."""
        key = indices.tobytes()
        if key not in self._latencies:
            if len(self._latencies) >= KEPT_LATENCIES:
                self._latencies.clear()
            self._latencies[key] = self._latency_of(self.space.architecture(indices))
        return self._latencies[key]

    # -- resuming ----------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Stand where the last commit stood."""
        with JournalReader(self._path) as reader:
            self.revision = len(reader.config_revisions(self.run_id)) - 1
            self.history.digest = reader.digest_head(self.run_id)
            for generation, individual in reader.individuals(self.run_id):
                self.history.absorb(generation, (individual,))
                self._evaluations.commit(individual.architecture_key, _evaluated(individual))
            last = reader.last_generation(self.run_id)
            if last is not None:
                self._stand_at(reader, last)
            if self._desk is not None:
                self._recover_requests(reader)

    def _stand_at(self, reader: JournalReader, last: GenerationRecord) -> None:
        self.resumed_from = last.generation
        self.history.counters = Counter(last.counters)
        if last.phase == "polish":
            *_, searched = (s for s in reader.generation_summaries(self.run_id) if s.phase == "search")
            self._search_evaluations = searched.counters["evaluations"]
            assert self.leader is not None
            self.strategy = self._make_polish(self.leader, last.generation + 1)  # the snapshot holds its own start
            self.phase = "polish"
        self.strategy.restore(unpack_state(last.state))
        # The objective may have changed after this state was committed and before the kill.
        self.strategy.set_objective(self.objective)
        _log.info("resumed", generation=last.generation + 1, phase=self.phase, digest=self.history.digest[:12])

    def _recover_requests(self, reader: JournalReader) -> None:
        """Replies that are stored, and late requests that have yet to join; their batches are sent again, whole."""
        assert self._desk is not None
        answered = reader.replies(self.run_id)
        waiting = [r for r in reader.requests(self.run_id) if r.join_generation >= self.generation]
        self._desk.recover({r.request_id: answered[r.request_id] for r in waiting if r.request_id in answered})
        batches: dict[int, list[RequestRecord]] = {}
        for request in waiting:
            if request.generation < self.generation and self.phase == "search":
                individual = reader.generation(self.run_id, request.generation).individuals[request.slot]
                assert individual.parent is not None
                born, slot = individual.parent
                parent = next(i for i in reader.generation(self.run_id, born).individuals if i.slot == slot)
                late = Late(request, individual.parent, genotype_of(parent))
                self._late.setdefault(request.join_generation, []).append(late)
                batches.setdefault(request.generation, []).append(request)
        self._unsent = [batches[g] for g in sorted(batches)]


def _evaluated(i: IndividualRecord) -> Evaluated:
    """What the evaluation of a committed individual had given."""
    raw = {name: value for name, value in i.metrics.items() if name != "latency_ms"}
    return Evaluated(raw, i.error if i.status == "failed" else None, True)


def _parent_genotype(p: Proposal) -> FloatArray:
    assert p.parent_genotype is not None, f"a {p.operator} proposal names its parent's genotype"
    return p.parent_genotype


def _seed(seed: int, generation: int, slot: int, purpose: str) -> int:
    """A 48-bit seed for whoever is outside numpy, keyed as every draw is (ruling 13)."""
    text = f"{seed}/{generation}/{slot}/{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
