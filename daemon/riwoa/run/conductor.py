"""The generational loop: ask, propose, evaluate, tell, commit. Everything durable happens in the commit.

A generation is a function of the committed state, the configuration revision and the replies that join it. Killed
anywhere, the daemon restores the last committed state, asks the same candidates again and finds in the journal what had
already been evaluated or answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.config.reload import Reloader
from riwoa.config.schema import Config, as_json
from riwoa.errors import OracleError
from riwoa.log import get_logger
from riwoa.patience import patiently
from riwoa.run import resume
from riwoa.run.candidate import Candidate, candidate
from riwoa.run.credit import Child, Tally, tallied, tallies_to_json
from riwoa.run.deadline import Deadline, deadline_of
from riwoa.run.evaluations import NO_RACE, EvaluationOutcome, EvaluationRequest, EvaluationRound, Evaluations
from riwoa.run.existing import Existing
from riwoa.run.history import Best, History, Identity, Progress, genotype_of, pack_state, unpack_state
from riwoa.run.lora_schedule import Learning
from riwoa.run.proposals import JoinedReplies, LatencyOf, LayerMs, Semantics, Style, style_of
from riwoa.run.racing import Race, Racing
from riwoa.run.strategy import configured_strategy, screens, search_parameters
from riwoa.search.bandit import semantic_share
from riwoa.search.base import Outcome, PopulationStrategy, Proposal, Strategy
from riwoa.search.catalogue import Catalogue
from riwoa.search.codec import Codec
from riwoa.search.fitness import Objective
from riwoa.search.polish import BATCH as POLISH_BATCH
from riwoa.search.polish import Polish
from riwoa.search.race import EliminationThreshold
from riwoa.search.space import IntArray, Space
from riwoa.surrogate.gaussian_process import Examples
from riwoa.surrogate.screening import Prediction, Screening
from riwoa_storage.failpoint import failpoint
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ConfigRevisionRecord, EventRecord, GenerationRecord, IndividualRecord
from riwoa_storage.writer import JournalWriter

_log = get_logger("conductor")
_SLICE_S = 5.0  # of a pause
BARREN_GENERATIONS = 10  # in a row without one success: the oracle is broken
KEPT_LATENCIES = 50_000


class Conductor:
    """Runs one run to its end.

    Args:
        journal: the writer.
        journal_path: for the reader.
        run_id: the run, begun.
        space: its space.
        latency_of: latency of an architecture, free to ask.
        target_ms: the latency target that "auto" stands for on this device; None where there are no latencies.
        evaluations: where accuracies come from.
        proposal_queue: where semantic requests go, or None.
        style: how the model writes; what suits no model in particular if not given.
        layer_ms: latency of an architecture's layers, for prompts.
        reloader: the configuration in force.
        prior: what the screening predictor knows beforehand.
        catalogue: the architectures that exist, where they can be counted; of this conductor alone.
        on_commit: called after each commit.
        on_config: called with each configuration that comes into force.
        now_unix_s: the wall clock, for the deadline alone.
    """

    def __init__(
        self,
        *,
        journal: JournalWriter,
        journal_path: Path,
        run_id: int,
        space: Space,
        latency_of: LatencyOf,
        target_ms: float | None,
        evaluations: Evaluations,
        proposal_queue: ProposalQueue | None,
        reloader: Reloader,
        style: Style | None = None,
        layer_ms: LayerMs = lambda _: {},
        prior: Examples | None = None,
        catalogue: Catalogue | None = None,
        on_commit: Callable[[], None] = lambda: None,
        on_config: Callable[[Config], None] = lambda _: None,
        now_unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._path = journal_path
        self.run_id = run_id
        self.space = space
        self._latency_of = latency_of
        self._auto_target_ms = target_ms
        self._evaluations = evaluations
        self._reloader = reloader
        self._on_commit = on_commit
        self._on_config = on_config
        self._now_unix_s = now_unix_s
        config = reloader.config
        self.codec = Codec(space, config.run.seed)
        self.objective = self._make_objective(config)
        self._latencies: dict[bytes, float] = {}
        self._row = np.min_scalar_type(-int(space.cardinalities.max()))  # of indices, -1 among them, in few bytes
        self.existing = Existing(catalogue, self.codec, evaluations)
        self.exhausted = False  # nothing is left to find
        self.phase = "search"
        self.history = History(self.objective)
        self.semantics: Semantics | None = None
        self.learning: Learning | None = None
        if proposal_queue is not None:
            self._take_on(proposal_queue, style or style_of(config.cognition), layer_ms)
        self.strategy: Strategy | Polish = self._make_strategy()
        self.racing = Racing(
            [str(rung) for rung in config.oracle.rungs], config.oracle.rung_confidence, config.run.seed
        )
        self.screening = Screening(space, prior) if screens(config) else None
        self.revision = 0
        self.resumed_from: int | None = None
        self.running = asyncio.Event()
        self.running.set()  # cleared by a pause
        self._deadline: Deadline | None = None
        self._late = False  # the deadline has ended the search; to be journaled with the polish's first generation
        self.generation_s: list[float] = []  # recent durations, for the time left
        self._barren = 0
        self._restored = False
        self._search_evaluations = 0  # spent when the polish began

    def _take_on(self, proposal_queue: ProposalQueue, style: Style, layer_ms: LayerMs) -> None:
        """Propose with a language model, and let it learn."""
        semantics = self.semantics = Semantics(
            journal=self._journal,
            proposal_queue=proposal_queue,
            codec=self.codec,
            run_id=self.run_id,
            history=self.history,
            known=self._evaluations.known,
            latency_of=self._latency_of,
            layer_ms=layer_ms,
            style=style,
            config=self.config,
        )
        probes = self.config.cognition.probes
        self.learning = Learning(
            journal=self._journal,
            journal_path=self._path,
            proposal_queue=proposal_queue,
            run_id=self.run_id,
            config=self.config,
            style=style,
            probes=lambda: semantics.probes(probes, self._first_target_ms()),
        )

    def _first_target_ms(self) -> float | None:
        """The target that the run was begun with: probes stay the same whatever is configured since."""
        with JournalReader(self._path) as reader:
            return self._target_ms(reader.config_revisions(self.run_id)[0].config["objective"]["latency_ms"])

    def _target_ms(self, wanted: float | str) -> float | None:
        """The target that a configured value stands for; without latencies none has a meaning."""
        return self._auto_target_ms if wanted == "auto" or self._auto_target_ms is None else float(wanted)

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
        """To the end of search and polish, from the pace of recent generations.

        None while it is unknown: before the first generation, and where the work goes on beyond its estimate.
        """
        if not self.generation_s:
            return None
        left_s = self._deadline_in_s()
        if self.phase == "search":
            rounds = max(0, self.config.run.generations - self.generation)
            work_s = rounds * self._pace_s() + self._polish_s()
        else:
            left = self.config.run.polish_evaluations - self.polish_spent
            work_s = self._pace_s() / POLISH_BATCH * max(0, left)
        if left_s is not None:
            work_s = min(work_s, left_s - self.config.run.deadline_margin_s)
        return work_s if work_s > 0.0 else None

    def _pace_s(self) -> float:
        """Of recent generations; their median, for one may have lasted through a pause."""
        return statistics.median(self.generation_s) if self.generation_s else 0.0

    def _polish_s(self) -> float:
        """What the polish will take, at the search's pace: it evaluates in full what the search may give up."""
        counters = self.history.counters
        in_full = counters["evaluations"] / max(1, counters["evaluations"] + counters["dropped"]) or 1.0
        return self.config.run.polish_evaluations * self._pace_s() / (self.config.search.population * in_full)

    @property
    def p_semantic(self) -> float:
        """Share of attacks that are semantic: none without a model; what pays, if the configuration says so."""
        if self.semantics is None:
            return 0.0
        if not self.config.search.adapt_semantic:
            return self.config.search.p_semantic
        semantic, spiral = (self.history.tallies.get(name, Tally()) for name in ("semantic", "spiral"))
        return semantic_share(semantic.recent, spiral.recent)

    @property
    def polish_spent(self) -> int:
        """Evaluations of the polish so far."""
        return self.history.counters["evaluations"] - self._search_evaluations if self.phase == "polish" else 0

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Resume where the journal ends, search, polish; a deadline, or a space that holds no more, may end it before.

        Raises:
            OracleError: a whole generation failed; nothing of it is committed.
        """
        await self.restore()
        while True:
            await self._let_run()
            if await self._used_up():
                return
            if self.phase == "search" and self._search_over():
                self._begin_polish()
            if self.phase == "polish" and self.strategy.finished and not self._late:
                return
            if self.phase == "polish" and (self.strategy.finished or self.cut_in_s() == 0.0):
                break
            started = time.monotonic()
            try:
                async with asyncio.timeout(self.cut_in_s()) as cut:
                    await self._one_generation(started, cut)
            except TimeoutError:
                if not cut.expired():
                    raise
                break  # dropped as by a kill: the generation under way is not committed
            self.generation_s = [*self.generation_s[-9:], time.monotonic() - started]
            self._on_commit()
        await self._journal_deadline()

    async def _used_up(self) -> bool:
        """Whether nothing is left to find; then that is journaled."""
        members = await self.existing.used_up(self.objective, self.history.counters)
        if members is None:
            return False
        self.exhausted = True
        event = EventRecord(
            kind="space_exhausted",
            payload={"architectures": members, "phase": self.phase},
            run_id=self.run_id,
            generation=self.generation,
            created_unix_s=time.time(),
        )
        await self._journal.put_event(event)
        _log.info("space_exhausted", architectures=members, phase=self.phase, generation=self.generation)
        return True

    async def _let_run(self) -> None:
        """At a boundary: take what was edited, and wait while paused, but not beyond the deadline.

        In slices, for a pause may be long: the deadline may be edited meanwhile, or the machine sleep.
        """
        while True:
            await self._apply_reload()
            if self.running.is_set() or self.cut_in_s() == 0.0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.running.wait(), min(_SLICE_S, self.cut_in_s() or _SLICE_S))

    def _search_over(self) -> bool:
        limit = self.config.run.evaluations
        spent = self.history.counters["evaluations"]
        if self.strategy.finished or (limit is not None and spent >= limit):
            return True
        cut_s = self.cut_in_s()
        self._late = cut_s is not None and cut_s <= self._pace_s() + self._polish_s()
        return self._late

    # -- the deadline ------------------------------------------------------------------------------------------------

    @property
    def deadline_unix_s(self) -> float | None:
        """When the answer must be there, None if nobody asked."""
        return None if self._deadline is None else self._deadline.due_unix_s

    def _deadline_in_s(self) -> float | None:
        due_unix_s = self.deadline_unix_s
        return None if due_unix_s is None else due_unix_s - self._now_unix_s()

    def cut_in_s(self) -> float | None:
        """Seconds until nothing more may be asked, not below 0; None without a deadline.

        A run that has no answer at all yet is not cut: its first generation is the answer, late as it may be.
        """
        left_s = self._deadline_in_s()
        if left_s is None or self.leader is None:
            return None
        return max(0.0, left_s - self.config.run.deadline_margin_s)

    def _revisions(self) -> list[ConfigRevisionRecord]:
        with JournalReader(self._path) as reader:
            return reader.config_revisions(self.run_id)

    def _learn_deadline(self, revisions: Sequence[ConfigRevisionRecord]) -> None:
        self._deadline = deadline_of(self.config.run.deadline, revisions, self._now_unix_s())

    async def _journal_deadline(self) -> None:
        payload = {"deadline": self.config.run.deadline, "phase": self.phase}
        event = EventRecord(kind="deadline", payload=payload, run_id=self.run_id, generation=self.generation)
        await self._journal.put_event(replace(event, created_unix_s=time.time()))
        _log.info("deadline_reached", phase=self.phase, generation=self.generation)

    def _begin_polish(self) -> None:
        assert self.leader is not None, "a generation in which every evaluation failed is never committed"
        self.strategy = self._make_polish(self.leader, self.generation)
        self.phase = "polish"
        self._search_evaluations = self.history.counters["evaluations"]
        self.generation_s = []
        if self.semantics is not None:
            self.semantics.drop()
        _log.info("polish_begins", leader=self.leader.fitness, deadline=self._late)

    async def _one_generation(self, started: float, cut: asyncio.Timeout) -> None:
        """``cut``: may end it until its evaluations are there; what follows is the matter of a moment."""
        generation = self.generation
        inputs = await self._swap(generation)
        proposals = await asyncio.to_thread(self._ask)  # may draw and screen many children
        await self._recall(p.parent for p in proposals)
        race = self._race()
        async with self._evaluations.round(race) as work:
            candidates, joined = await self._candidates(generation, proposals, work, race)
        cut.reschedule(None)
        if self._late:
            inputs["deadline"], self._late = "search", False
        failpoint("conductor.evaluated")
        evaluated = work.outcomes([c.key for c in candidates])
        self._require_life(generation, candidates, evaluated)
        predictions = self._predictions(candidates)
        individuals = [self._individual(*row) for row in zip(candidates, evaluated, predictions, strict=True)]
        self.strategy.tell([self._outcome(c, i) for c, i in zip(candidates, individuals, strict=True)])
        self.history.absorb(generation, individuals)
        await self._commit(generation, individuals, joined, inputs, started)
        self.existing.committed(individuals)
        for individual in individuals:
            self._know(individual)

    async def _recall(self, parents: Iterable[Identity | None]) -> None:
        """Have the metrics of a generation's parents at hand."""
        unheld = self.history.unheld(parents)

        def look() -> None:
            with JournalReader(self._path) as reader:
                self.history.recall(reader, self.run_id, unheld)

        if unheld:
            await patiently(look)

    def _ask(self) -> list[Proposal]:
        if self.screening is not None and isinstance(self.strategy, PopulationStrategy):
            self.screening.guide(self.strategy)
        proposals = self.strategy.ask()
        if self.phase != "search":
            return proposals  # the polish remembers by what it asked
        return self.existing.moved(proposals, self.objective, leaderless=self.leader is None)

    def _race(self) -> Race:
        """Who may be given up in this generation; nobody in the polish, which asks little and compares closely."""
        if not self.racing.rungs or not isinstance(self.strategy, PopulationStrategy):
            return NO_RACE
        return self.racing.race(EliminationThreshold(self.objective, self.strategy.cut, self.history.archive.front()))

    def _wanted(self, race: Race, candidates: Iterable[Candidate]) -> list[EvaluationRequest]:
        """What to evaluate, and what each must reach: its parent counts too, its operator is judged by it."""
        if race.threshold is None:
            return [EvaluationRequest(c.key, c.architecture) for c in candidates]
        return [
            EvaluationRequest(
                c.key, c.architecture, race.needed(self._latency_of(c.architecture), self.history.fitness(c.parent))
            )
            for c in candidates
        ]

    def _predictions(self, candidates: Sequence[Candidate]) -> Sequence[Prediction | None]:
        """What the screening predictor says of each, to be journaled beside what came of it."""
        found = None
        if self.screening is not None and self.phase == "search":
            found = self.screening.predict(self.codec.decode(np.stack([c.genotype for c in candidates])))
        return found or [None] * len(candidates)

    def _know(self, individual: IndividualRecord) -> None:
        """A committed individual, for the generations to come."""
        metrics = individual.metrics
        if individual.cache_hit or individual.status != "ok":
            return
        self.racing.learn(metrics)
        if self.screening is not None:
            predicted = (metrics["predicted"], metrics["predicted_sd"]) if "predicted" in metrics else None
            indices = self.codec.decode(genotype_of(individual)[None, :])[0]
            self.screening.tell(indices, metrics["accuracy"], predicted)

    async def _swap(self, generation: int) -> dict[str, Any]:
        """What the boundary brings: an adapter that is due, or why there is none; the share of semantic slots."""
        if self.learning is None or self.semantics is None or self.phase != "search":
            return {}
        if self.config.search.adapt_semantic:
            self.strategy.set_parameters(search_parameters(self.config, self.p_semantic))
        failed = await self.learning.boundary(generation)
        return {} if failed is None else {"training_failed": failed}

    async def _candidates(
        self, generation: int, proposals: Sequence[Proposal], work: EvaluationRound, race: Race
    ) -> tuple[list[Candidate], JoinedReplies]:
        """All candidates of a generation; each is being evaluated as soon as it is known, while the model writes."""
        if self.semantics is None or self.learning is None or self.phase != "search":
            asked = [candidate(self.codec, p) for p in proposals]
            await work.add(self._wanted(race, asked))
            return asked, JoinedReplies()
        # What would join beyond the search is not asked for.
        joins = generation + self.config.cognition.lag < self.config.run.generations
        writes = joins and self.learning.writes(generation)
        begin = partial(self.semantics.begin, generation, proposals, writes=writes)
        slots = await patiently(begin)
        await work.add(self._wanted(race, slots.values()))
        if writes:
            adapter, target_ms = self.learning.in_force(generation), self.objective.latency_target_ms
            sha256 = adapter.sha256 if adapter is not None else None
            mute = await self.semantics.ask(generation, proposals, slots, target_ms=target_ms, adapter_sha256=sha256)
            await work.add(self._wanted(race, mute.values()))
            slots |= mute
        joined = await self.semantics.join(generation, len(proposals))
        await self._recall(c.parent for c in joined.candidates)
        await work.add(self._wanted(race, joined.candidates))
        slots |= {c.slot: c for c in joined.candidates}
        return [slots[slot] for slot in sorted(slots)], joined

    def _require_life(
        self, generation: int, candidates: Sequence[Candidate], evaluated: Sequence[EvaluationOutcome]
    ) -> None:
        """Stop, committing nothing, when it is the oracle that fails and not the candidates.

        A candidate may fail for ever, and a polish often asks one at a time, so a barren generation is journaled like
        any other; but not the first, and not one after the other.
        """
        failed = [(c.architecture, e.error) for c, e in zip(candidates, evaluated, strict=True)]
        self._barren = self._barren + 1 if self.existing.barren(failed) else 0
        if self._barren and (self.leader is None or self._barren >= BARREN_GENERATIONS):
            raise OracleError(
                f"every evaluation of generation {generation} failed, first: {evaluated[0].error}; mend it and start "
                "again, nothing is lost"
            )

    async def _commit(
        self,
        generation: int,
        individuals: Sequence[IndividualRecord],
        joined: JoinedReplies,
        inputs: Mapping[str, Any],
        started: float,
    ) -> None:
        rejected, entries = {}, []
        if self.semantics is not None:
            await self.semantics.withdraw_left()
            rejected = self.semantics.rejections(individuals, joined, self._won)
            entries = self.semantics.entries(generation, individuals, joined, self._won)
        failed = {str(i.slot): i.error for i in individuals if i.status == "failed"}
        children = [self._child(i) for i in individuals if i.parent is not None]
        tallies = tallied(self.history.tallies, children, {"semantic": len(joined.rejected)})
        record = GenerationRecord(
            run_id=self.run_id,
            generation=generation,
            phase=self.phase,
            config_revision=self.revision,
            state=pack_state(self.strategy.snapshot()),
            counters={**self._counters(individuals, joined), "operators": tallies_to_json(tallies)},
            leader=self.leader.to_json() if self.leader is not None else None,
            inputs={"failed": failed, "rejected": rejected, **inputs},
            individuals=tuple(individuals),
            joined_requests=joined.request_ids,
            duration_s=time.monotonic() - started,
        )
        digest = await self._journal.commit_generation(record, buffer=entries, events=self._events(record))
        self.history.committed(generation, record.counters, digest)
        self._tell(record, digest)
        if self.semantics is not None and self.learning is not None and self.phase == "search":
            self.semantics.committed(individuals, joined, entries, rejected)
            await self.learning.committed(generation, successes=bool(entries), generations=self.config.run.generations)

    def _events(self, g: GenerationRecord) -> list[EventRecord]:
        if "training_failed" not in g.inputs:
            return []
        assert self.learning is not None
        payload = {"reason": g.inputs["training_failed"], "duration_s": self.learning.failed_s}
        event = EventRecord(kind="training_failed", payload=payload, run_id=g.run_id, generation=g.generation)
        return [replace(event, created_unix_s=time.time())]

    def _tell(self, record: GenerationRecord, digest: str) -> None:
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

    # -- records -----------------------------------------------------------------------------------------------------

    def _individual(self, c: Candidate, e: EvaluationOutcome, predicted: Prediction | None) -> IndividualRecord:
        metrics = {**e.metrics, "latency_ms": self._latency_of(c.architecture)} if e.error is None else {}
        if metrics and predicted is not None and not e.hit:
            metrics |= {"predicted": predicted[0], "predicted_sd": predicted[1]}
        fitness = float(self.objective.fitness(metrics["accuracy"], metrics["latency_ms"])) if e.ok else None
        return IndividualRecord(
            slot=c.slot,
            operator=c.operator,
            parent=c.parent,
            genotype=c.genotype.astype("<f8").tobytes(),
            architecture=c.architecture,
            architecture_key=c.key,
            status=e.status,
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

    def _counters(self, individuals: Sequence[IndividualRecord], joined: JoinedReplies) -> dict[str, int]:
        """Totals of the run including this generation."""
        semantic = [i for i in individuals if i.operator == "semantic"]
        fresh = [i for i in individuals if not i.cache_hit]
        audited = [i.metrics for i in fresh if "audited" in i.metrics]
        raced = {
            "dropped": sum(i.status == "dropped" for i in fresh),
            "audited": len(audited),
            "missed": sum(m["accuracy"] > m["audited"] for m in audited),
        }
        added = {
            "evaluations": sum(i.status != "dropped" for i in fresh),
            "cache_hits": sum(i.cache_hit for i in individuals),
            "failures": sum(i.status == "failed" for i in fresh),
            "replies": len(joined.request_ids),
            "semantic": len(semantic),
            "fallbacks": len(joined.request_ids) - len(semantic),
            "successes": sum(map(self._won, semantic)),
            **(raced if self.racing.rungs else {}),
        }
        return {name: self.history.counters[name] + value for name, value in added.items()}

    def _gain(self, i: IndividualRecord) -> float | None:
        """Fitness beyond the parent's on the same images; None where either could not be evaluated."""
        parent = self.history.fitness(i.parent)
        return i.fitness - parent if i.fitness is not None and parent is not None else None

    def _won(self, i: IndividualRecord) -> bool:
        """Ruling 2: fitter than its parent by more than the margin."""
        gain = self._gain(i)
        return gain is not None and gain > self.config.cognition.success_margin

    def _child(self, i: IndividualRecord) -> Child:
        return Child(i.operator, self._gain(i), self._won(i), i.cache_hit)

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
        await self._configure(config)
        event = EventRecord(kind="config_applied", payload=changed, run_id=self.run_id, generation=self.generation)
        await self._journal.put_event(replace(event, created_unix_s=time.time()))
        self._learn_deadline(await patiently(self._revisions))
        _log.info("config_applied", revision=self.revision, keys=sorted(changed))

    async def _configure(self, config: Config) -> None:
        objective = self._make_objective(config)

        def judge() -> None:
            with JournalReader(self._path) as reader:
                self.history.judge_by(objective, reader, self.run_id)

        if objective != self.objective:
            await patiently(judge)
        self.objective = objective
        self.strategy.set_objective(self.objective)
        self.strategy.set_parameters(search_parameters(config, self.p_semantic))
        if isinstance(self.strategy, Polish):
            self.strategy.set_budget(config.run.polish_evaluations)
        self._on_config(config)

    def _make_objective(self, config: Config) -> Objective:
        return Objective(self._target_ms(config.objective.latency_ms), config.objective.exponent)

    def _make_strategy(self) -> Strategy:
        return configured_strategy(self.config, self.space, self.objective, self.p_semantic, self._latency_of_indices)

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
        key = indices.astype(self._row).tobytes()
        if key not in self._latencies:
            if len(self._latencies) >= KEPT_LATENCIES:
                self._latencies.clear()
            self._latencies[key] = self._latency_of(self.space.architecture(indices))
        return self._latencies[key]

    # -- resuming ----------------------------------------------------------------------------------------------------

    async def restore(self, progress: Progress = lambda done, total: None) -> None:
        """Stand where the last commit stood, once; what takes time is done in a thread, which tells its progress."""
        if self._restored:
            return
        given_up = False

        def told(done: int, total: int) -> None:
            if given_up:
                raise asyncio.CancelledError  # ends the thread, for whom a daemon that stops would have to wait
            progress(done, total)

        try:
            await asyncio.to_thread(self._restore, told)
        except asyncio.CancelledError:
            given_up = True
            raise
        if self.semantics is not None and self.learning is not None:
            revisions = await patiently(self._revisions)
            await self.semantics.resend()  # before a training that was triggered after them
            await self.learning.resume(self.generation, revisions, searching=self.phase == "search")
        self._restored = True

    def _restore(self, progress: Progress) -> None:
        with JournalReader(self._path) as reader:
            revisions = reader.config_revisions(self.run_id)
            self.revision = len(revisions) - 1
            self._learn_deadline(revisions)
            self.history.digest = reader.digest_head(self.run_id)
            last = reader.last_generation(self.run_id)
            if last is not None:
                self.history.restore(reader, last, self._looker(last.generation + 1, progress))
                if self.racing.rungs or self.screening is not None:
                    for individual in resume.newest(reader, self.run_id, self.racing):
                        self._know(individual)
                self._stand_at(reader, last)
            if self.semantics is not None and self.learning is not None:
                self.semantics.restore(reader, self.generation, joins=self.phase == "search")
                self.learning.restore(reader, self.generation)

    def _looker(self, total: int, progress: Progress) -> Callable[[int, str], None]:
        """Takes note of each evaluated individual of the past, and tells how far it is."""
        told = 0

        def look(generation: int, key: str) -> None:
            nonlocal told
            self.existing.evaluated(key)
            if generation > told:
                told = generation
                progress(generation, total)

        return look

    def _stand_at(self, reader: JournalReader, last: GenerationRecord) -> None:
        self.resumed_from = last.generation
        self._barren = self._barren_until(reader, last)
        self.existing.committed(last.individuals)
        self.generation_s = resume.recent_s(reader, self.run_id, last.generation, last.phase)
        if last.phase == "polish":
            self._search_evaluations = resume.searched(reader, self.run_id, last.generation)
            assert self.leader is not None
            self.strategy = self._make_polish(self.leader, last.generation + 1)  # the snapshot holds its own start
            self.phase = "polish"
        self.strategy.restore(unpack_state(last.state))
        # The objective may have changed after this state was committed and before the kill.
        self.strategy.set_objective(self.objective)
        _log.info("resumed", generation=last.generation + 1, phase=self.phase, digest=self.history.digest[:12])

    def _barren_until(self, reader: JournalReader, last: GenerationRecord) -> int:
        """Generations in a row, up to the last, in which everything failed."""
        barren, generation = 0, last
        while self.existing.barren(
            (i.architecture, i.error if i.status == "failed" else None) for i in generation.individuals
        ):
            barren += 1
            if generation.generation == 0:
                break
            generation = reader.generation(self.run_id, generation.generation - 1)
        return barren
