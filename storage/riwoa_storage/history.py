"""What people ask of a journal: runs, individuals and their ancestors, replies and events; each as frozen records.

Plain queries, none of which reads all of a run into memory. What is shown one by one is checked; what is chosen among
very many is not, and says so, as in ``places``: a checksum takes five times as long as the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from riwoa_storage.checked import CheckedTables
from riwoa_storage.digest import relative_request_id
from riwoa_storage.events import Event, FinalistsTimed, NetworkJudged, kind_of, payload_of
from riwoa_storage.records import (
    GenerationSummary,
    IndividualRecord,
    IndividualStatus,
    Json,
    ReplyRecord,
    RequestRecord,
    RunRecord,
)
from riwoa_storage.shared import key_hash
from riwoa_storage.tables import Values

Place = tuple[int, int]  # (generation, slot)
Limit = tuple[str, float, bool]  # metric, what it must not exceed, and whether it is rather what it must reach
Verdict = Literal["waiting", "late", "rejected", "won"]

ALL_BITS = (1 << 64) - 1
_PAGE_ROWS = 1024  # read per statement where a table is streamed
_WRITTEN = "semantic"  # the operator of what a language model wrote
_ANCESTRY = """
WITH RECURSIVE ancestry (depth, at_generation, at_slot) AS (
  SELECT 0, ?2, ?3
  UNION ALL
  SELECT depth + 1, parent_generation, parent_slot FROM ancestry
    CROSS JOIN individuals ON run_id = ?1 AND generation = at_generation AND slot = at_slot
    WHERE parent_generation IS NOT NULL AND depth < ?4
)
SELECT at_generation, at_slot FROM ancestry ORDER BY depth"""


def architecture_name(architecture_key: str) -> str:
    """The 16 hexadecimal digits that an architecture goes by; any unambiguous prefix finds it."""
    return f"{key_hash(architecture_key) & ALL_BITS:016x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run, and how far it came.

    Attributes:
        record: of the run.
        last: its last committed generation; None before the first.
        leader: the best: as the last generation has it, or the network that took its place when the end was timed.
        test: what pictures that chose nothing said of the leader; None where nobody asked them.
        committing_s: wall seconds of all its generations.
    """

    record: RunRecord
    last: GenerationSummary | None
    leader: Json | None
    test: NetworkJudged | None
    committing_s: float

    @property
    def evaluations(self) -> int:
        """How many architectures it evaluated in full."""
        return int(self.last.counters.get("evaluations", 0)) if self.last is not None else 0

    @property
    def ended_unix_s(self) -> float:
        """When it committed last; when it began, if it never did."""
        return self.last.committed_unix_s if self.last is not None else self.record.created_unix_s


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedIndividual:
    """A committed individual, where it stands and when that was committed."""

    run_id: int
    generation: int
    committed_unix_s: float
    config_revision: int
    record: IndividualRecord

    @property
    def place(self) -> Place:
        """Its generation and slot."""
        return self.generation, self.record.slot

    @property
    def name(self) -> str:
        """The 16 hexadecimal digits of its architecture."""
        return architecture_name(self.record.architecture_key)


@dataclass(frozen=True, slots=True)
class Point:
    """What a picture or a list needs of an individual; read without checksums."""

    generation: int
    slot: int
    operator: str
    status: IndividualStatus
    accuracy: float | None
    latency_ms: float | None
    fitness: float | None
    cache_hit: bool
    architecture_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedReply:
    """A request to the language model, its reply, and what the search made of it.

    Attributes:
        request: as it was sent.
        reply: None while the model writes.
        verdict: "won" (fitter than its parent), "rejected" (with a reason), "waiting" (the generation that it joins is
            not committed), or "late" (it came to nothing, and no reason is on record).
        reason: why it was rejected.
        gain: the child's fitness less its parent's; None where no child was evaluated, or they were judged differently.
        child: what came of it; of several the best.
        picked: candidates that the search chose as they were written, of a pool's patches.
        led_to: candidates that descend from its patches by the search's own steps.
    """

    request: RequestRecord
    reply: ReplyRecord | None
    verdict: Verdict
    reason: str | None
    gain: float | None
    child: Place | None
    picked: int = 0
    led_to: int = 0


@dataclass(frozen=True, slots=True)
class _Child:
    """What came of a request."""

    place: Place
    operator: str
    gain: float | None

    @property
    def rank(self) -> tuple[bool, float, bool]:
        return self.gain is not None, self.gain or 0.0, self.operator == _WRITTEN


@dataclass(frozen=True, slots=True)
class JournaledEvent:
    """An event with its number, which grows with time."""

    event_id: int
    event: Event

    @property
    def kind(self) -> str:
        """The name under which it is stored."""
        return kind_of(self.event)

    @property
    def payload(self) -> Json:
        """What is stored of it."""
        return payload_of(self.event)


class History:
    """Answers about what was committed; ``JournalReader.history``."""

    def __init__(self, tables: CheckedTables) -> None:
        self._tables = tables

    # -- runs ------------------------------------------------------------------------------------------------------

    def runs(self) -> list[RunSummary]:
        """Every run, oldest first."""
        return [self._summary(run) for run in self._tables.records(RunRecord, "ORDER BY run_id")]

    def run(self, run_id: int) -> RunSummary | None:
        """One run; None where there is none of that number."""
        found = self._tables.records(RunRecord, "WHERE run_id = ?", run_id)
        return self._summary(found[0]) if found else None

    def latest_run(self) -> RunSummary | None:
        """The run begun last."""
        found = self._tables.records(RunRecord, "ORDER BY run_id DESC LIMIT 1")
        return self._summary(found[0]) if found else None

    def _summary(self, run: RunRecord) -> RunSummary:
        rows = self._tables.select(
            "generations", "WHERE run_id = ? AND generation = ?", run.run_id, run.generations - 1
        )
        last = self._tables.summary(rows[0]) if rows else None
        leader = last.leader if last is not None else None
        for timed in self._of_kind(run.run_id, "finalists_timed"):
            if isinstance(timed, FinalistsTimed) and timed.error is None and timed.leader is not None:
                leader = timed.leader
        key = leader.get("architecture_key") if leader is not None else None
        tests = [e for e in self._of_kind(run.run_id, "network_judged") if isinstance(e, NetworkJudged)]
        (spent,) = self._tables.rows("SELECT total(duration_s) FROM generations WHERE run_id = ?", run.run_id)
        return RunSummary(
            record=run,
            last=last,
            leader=leader,
            test=next((e for e in reversed(tests) if e.architecture_key == key), None),
            committing_s=float(spent[0]),
        )

    def _of_kind(self, run_id: int, kind: str) -> list[Event]:
        rest = "WHERE run_id = ? AND kind = ? ORDER BY event_id"
        return [self._tables.event(row) for row in self._tables.select("events", rest, run_id, kind)]

    def generations(self, run_id: int, start: int = 0, limit: int = -1) -> Iterator[GenerationSummary]:
        """Committed generations of a run from ``start`` on, ascending."""
        rest = "WHERE run_id = ? AND generation >= ? ORDER BY generation LIMIT ?"
        left = limit
        while left and (
            rows := self._tables.select("generations", rest, run_id, start, _PAGE_ROWS if left < 0 else left)
        ):
            yield from map(self._tables.summary, rows)
            start = int(rows[-1]["generation"]) + 1
            left = left if left < 0 else left - len(rows)

    # -- individuals -----------------------------------------------------------------------------------------------

    def individual(self, run_id: int, place: Place) -> PlacedIndividual | None:
        """One committed individual."""
        return next(iter(self.individuals_at(run_id, [place])), None)

    def individuals_at(self, run_id: int, places: Sequence[Place]) -> list[PlacedIndividual]:
        """Individuals at these places, in their order; those that are not there are left out."""
        found: dict[Place, PlacedIndividual] = {}
        for at in range(0, len(places), _PAGE_ROWS // 4):
            page = places[at : at + _PAGE_ROWS // 4]
            for individual in self._placed(run_id, self._tables.individuals_at(run_id, page, named=True)):
                found[individual.place] = individual
        return [found[place] for place in places if place in found]

    def _placed(self, run_id: int, rows: Sequence[Values]) -> list[PlacedIndividual]:
        numbers = ",".join(str(number) for number in {int(row["generation"]) for row in rows})
        sql = (
            "SELECT generation, committed_unix_s, config_revision FROM generations "
            f"WHERE run_id = ? AND generation IN ({numbers})"
        )
        when = {generation: (at, revision) for generation, at, revision in self._tables.rows(sql, run_id)}
        return [
            PlacedIndividual(
                run_id=run_id,
                generation=row["generation"],
                committed_unix_s=when[row["generation"]][0],
                config_revision=when[row["generation"]][1],
                record=self._tables.individual(row),
            )
            for row in rows
        ]

    def individuals(
        self, run_id: int, *, after: Place = (-1, 0), limit: int = 100, status: str | None = None
    ) -> list[PlacedIndividual]:
        """The next individuals after a place, ascending; only those of a status if it is named."""
        rest = (
            "WHERE run_id = ? AND (generation, slot) > (?, ?) AND (? IS NULL OR individuals.status = ?) "
            "ORDER BY generation, slot LIMIT ?"
        )
        rows = self._tables.with_architectures("individuals", rest, run_id, *after, status, status, limit)
        return self._placed(run_id, rows)

    def points(self, run_id: int, *, start: int = 0) -> Iterator[Point]:
        """What a picture needs of all individuals of generations from ``start`` on, ascending; NOT checked."""
        sql = (
            "SELECT generation, slot, operator, status, json_extract(metrics, '$.accuracy'), "
            "json_extract(metrics, '$.latency_ms'), fitness, cache_hit, architecture_id FROM individuals "
            "WHERE run_id = ? AND (generation, slot) > (?, ?) ORDER BY generation, slot LIMIT ?"
        )
        after = (start - 1, 1 << 62)
        while rows := self._tables.rows(sql, run_id, *after, _PAGE_ROWS * 16):
            for generation, slot, operator, status, accuracy, latency_ms, fitness, hit, number in rows:
                yield Point(generation, slot, operator, status, accuracy, latency_ms, fitness, bool(hit), number)
            after = rows[-1][:2]

    def lineage(self, run_id: int, place: Place, most: int = 10_000) -> list[PlacedIndividual]:
        """An individual and its ancestors, itself first, its first ancestor last."""
        found = self._tables.rows(_ANCESTRY, run_id, *place, most)
        return self.individuals_at(run_id, [(generation, slot) for generation, slot in found])

    def children_by_generation(self, run_id: int, *, before: int) -> list[tuple[int, int]]:
        """How many individuals with a parent were evaluated in each generation before one: (generation, count)."""
        rows = self._tables.rows(
            "SELECT generation, count(*) FROM individuals WHERE run_id = ? AND generation < ? AND status = 'ok' "
            "AND parent_generation IS NOT NULL GROUP BY generation ORDER BY generation",
            run_id,
            before,
        )
        return [(int(generation), int(count)) for generation, count in rows]

    def children(self, run_id: int, place: Place) -> list[Place]:
        """Where the individuals stand whose parent this is, ascending; NOT checked."""
        sql = (
            "SELECT generation, slot FROM individuals WHERE run_id = ? AND generation >= ? "
            "AND parent_generation = ? AND parent_slot = ? ORDER BY generation, slot"
        )
        return [(generation, slot) for generation, slot in self._tables.rows(sql, run_id, place[0], *place)]

    def leaders(self, run_id: int, start: int, end: int) -> dict[tuple[str, bool], int]:
        """How often a new leader came in generations ``start`` to ``end`` (excluded); NOT checked.

        By the operator that made it and whether it came of a language model's request.
        """
        sql = (
            "SELECT i.operator, i.request_id IS NOT NULL, count(*) FROM generations AS g JOIN individuals AS i "
            "ON i.run_id = g.run_id AND i.generation = g.generation AND i.slot = json_extract(g.leader, '$.slot') "
            "WHERE g.run_id = ? AND g.generation >= ? AND g.generation < ? "
            "AND json_extract(g.leader, '$.generation') = g.generation GROUP BY 1, 2"
        )
        rows = self._tables.rows(sql, run_id, start, end)
        return {(operator, bool(of_request)): count for operator, of_request, count in rows}

    def rank(self, run_id: int, individual: IndividualRecord, limits: Sequence[Limit]) -> tuple[int, int]:
        """Its rank by fitness among a run's architectures within all limits, and how many those are; NOT checked.

        Only what was judged under the same objective is counted.
        """
        within = "".join(f" AND json_extract(metrics, ?) {'>=' if least else '<='} ?" for _, _, least in limits)
        bounds = [value for name, bound, _ in limits for value in (f'$."{name}"', bound)]
        sql = (
            "SELECT count(DISTINCT CASE WHEN fitness > ? THEN architecture_id END), count(DISTINCT architecture_id) "
            "FROM individuals NOT INDEXED WHERE run_id = ? AND status = 'ok' "
            f"AND fitness_version_id = (SELECT text_id FROM texts WHERE text = ?){within}"
        )
        given = (individual.fitness, run_id, individual.fitness_version, *bounds)
        ((fitter, within_limits),) = self._tables.rows(sql, *given)
        return int(fitter) + 1, int(within_limits)

    # -- the language model ----------------------------------------------------------------------------------------

    def replies(self, run_id: int, *, newest: int | None = None) -> list[JudgedReply]:
        """Requests of a run with what came of them, oldest first; only the newest if so many are wanted."""
        rest = "WHERE run_id = ? ORDER BY generation DESC, slot DESC LIMIT ?"
        requests = self._tables.records(RequestRecord, rest, run_id, -1 if newest is None else newest)
        return self._judged(run_id, requests[::-1])

    def reply(self, request_id: str) -> JudgedReply | None:
        """One request with what came of it."""
        requests = self._tables.records(RequestRecord, "WHERE request_id = ?", request_id)
        return self._judged(requests[0].run_id, requests)[0] if requests else None

    def _judged(self, run_id: int, requests: Sequence[RequestRecord]) -> list[JudgedReply]:
        if not requests:
            return []
        first, last = requests[0].generation, requests[-1].generation
        rest = "JOIN requests USING (request_id) WHERE run_id = ? AND generation BETWEEN ? AND ?"
        found = self._tables.records(ReplyRecord, rest, run_id, first, last)
        replies = {reply.request_id: reply for reply in found}
        rejected = self._rejected(run_id, min(r.join_generation for r in requests))
        children = self._children_of_requests(run_id, first)
        return [self._verdict(request, replies.get(request.request_id), rejected, children) for request in requests]

    def _rejected(self, run_id: int, start: int) -> dict[int, Json]:
        """What the search rejected, by generation committed: "generation/slot" of the request -> reason."""
        of_run = "FROM generations WHERE run_id = ? AND generation >= ?"
        rows = self._tables.rows(f"SELECT generation, json_extract(inputs, '$.rejected') {of_run}", run_id, start)
        return {number: json.loads(text or "{}") for number, text in rows}

    def _children_of_requests(self, run_id: int, start: int) -> dict[str, list[_Child]]:
        """The individuals of requests."""
        sql = (
            "SELECT i.request_id, i.generation, i.slot, i.operator, "
            "CASE WHEN i.fitness_version_id = p.fitness_version_id THEN i.fitness - p.fitness END "
            "FROM individuals AS i LEFT JOIN individuals AS p ON p.run_id = i.run_id "
            "AND p.generation = i.parent_generation AND p.slot = i.parent_slot "
            "WHERE i.run_id = ? AND i.generation >= ? AND i.request_id IS NOT NULL"
        )
        found: dict[str, list[_Child]] = {}
        for request_id, generation, slot, operator, gain in self._tables.rows(sql, run_id, start):
            found.setdefault(request_id, []).append(_Child((generation, slot), operator, gain))
        return found

    @staticmethod
    def _verdict(
        request: RequestRecord,
        reply: ReplyRecord | None,
        rejected: dict[int, Json],
        children: dict[str, list[_Child]],
    ) -> JudgedReply:
        theirs = children.get(request.request_id, [])
        best = max(theirs, key=lambda c: c.rank, default=None)
        pooled = "samples" in request.parameters
        picked = sum(c.operator == _WRITTEN for c in theirs)
        reason = rejected.get(request.join_generation, {}).get(relative_request_id(request.request_id))
        verdict: Verdict
        if request.join_generation not in rejected:
            verdict = "waiting"
        elif reason is not None:
            verdict = "rejected"
        else:
            verdict = "won" if best is not None else "late"
        return JudgedReply(
            request=request,
            reply=reply,
            verdict=verdict,
            reason=reason,
            gain=None if best is None else best.gain,
            child=None if best is None else best.place,
            picked=picked if pooled else 0,
            led_to=len(theirs) - picked if pooled else 0,
        )

    # -- events ----------------------------------------------------------------------------------------------------

    def events(
        self,
        *,
        run_id: int | None = None,
        kinds: Sequence[str] = (),
        without: Sequence[str] = (),
        since_unix_s: float = 0.0,
        after: int = 0,
        newest: int | None = None,
    ) -> list[JournaledEvent]:
        """Events, oldest first: of a run, of kinds or without some, since a time, after one's number; the newest."""
        wanted = " OR ".join("kind = ?" for _ in kinds) or "1"
        unwanted = "".join(" AND kind != ?" for _ in without)
        rest = (
            f"WHERE event_id > ? AND created_unix_s >= ? AND (? IS NULL OR run_id = ?) AND ({wanted})"
            f"{unwanted} ORDER BY event_id DESC LIMIT ?"
        )
        given = (after, since_unix_s, run_id, run_id, *kinds, *without, -1 if newest is None else newest)
        rows = self._tables.select("events", rest, *given)
        return [JournaledEvent(row["event_id"], self._tables.event(row)) for row in reversed(rows)]
