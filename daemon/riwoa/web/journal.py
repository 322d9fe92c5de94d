"""What the page shows of a journal: lists by plain queries, a page at a time; single things with their checksums.

Lists look at no checksum: they are for a person's eyes, and nothing is built on them. Each call opens the journal for
itself and is done in milliseconds, so the writer can always fold its log.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from riwoa.errors import UsageError
from riwoa.run.limits import journaled_objective
from riwoa.search.fitness import Objective
from riwoa.search.space import gene_changes
from riwoa.web.cursor import Cursor
from riwoa.web.views import (
    AdapterView,
    Ancestor,
    Candidate,
    CandidateDetail,
    ConfigView,
    EventView,
    Filters,
    GenerationView,
    Page,
    ReplyView,
    RunView,
    Step,
    Words,
)
from riwoa_storage.connect import connect_reader, translate
from riwoa_storage.errors import JournalMissingError
from riwoa_storage.history import JudgedReply, PlacedIndividual, RunSummary, architecture_name
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord

T = TypeVar("T")

_MOST_ANCESTORS = 200
_MOST_STEPS = 2_000
_CANDIDATE = (
    "generation, slot, operator, status, {value}, json_extract(metrics, '$.latency_ms'), fitness, "
    "cache_hit, parent_generation, parent_slot, request_id, architecture_key"
)
_FROM = "FROM individuals JOIN architectures USING (architecture_id)"
# What a page is sorted by, what breaks ties, and whether the largest comes first. The first two are an index's.
_ORDERS = {
    "newest": ("generation", "slot", True),
    "oldest": ("generation", "slot", False),
    "best": ("coalesce(fitness, -1e300)", "individual_id", True),
    "fastest": ("coalesce(json_extract(metrics, '$.latency_ms'), 1e300)", "individual_id", False),
}
ORDERS = tuple(_ORDERS)


class Journal:
    """Queries over the journal at a path, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._path

    @property
    def exists(self) -> bool:
        """Whether anything was journaled here yet."""
        return self._path.exists()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection.

        Raises:
            StorageError: the journal cannot be read.
        """
        with closing(connect_reader(self._path)) as connection:
            try:
                yield connection
            except sqlite3.Error as error:
                raise translate(error, str(self._path), reading=True) from error

    # -- runs --------------------------------------------------------------------------------------------------------

    def runs(self) -> tuple[RunView, ...]:
        """Every run, newest first; none where there is no journal yet."""
        if not self.exists:
            return ()
        with JournalReader(self._path) as reader:
            return tuple(map(_run_view, reversed(reader.history.runs())))

    def run(self, name: str) -> RunView:
        """One run by its number, or the ``latest``.

        Raises:
            JournalMissingError: there is no such run.
            UsageError: it is no number.
        """
        with JournalReader(self._path) as reader:
            return _run_view(_chosen(reader, name))

    def configs(self, run_id: int) -> tuple[ConfigView, ...]:
        """The run's configurations, oldest first."""
        with JournalReader(self._path) as reader:
            return tuple(
                ConfigView(r.revision, r.generation, r.created_unix_s, r.changed, r.config)
                for r in reader.config_revisions(run_id)
            )

    # -- progress ----------------------------------------------------------------------------------------------------

    def generations(self, run_id: int, limit: int, cursor: Cursor | None) -> Page[GenerationView]:
        """Committed generations, newest first."""
        before = math.inf if cursor is None else cursor.number
        sql = (
            "SELECT generation, phase, config_revision, counters, leader, duration_s, digest, committed_unix_s "
            "FROM generations WHERE run_id = ? AND generation < ? ORDER BY generation DESC LIMIT ?"
        )
        with self._connected() as db:
            rows = db.execute(sql, (run_id, min(before, 2**62), limit + 1)).fetchall()
        found = [
            GenerationView(number, phase, revision, json.loads(counters), json.loads(leader or "null"), *rest)
            for number, phase, revision, counters, leader, *rest in rows
        ]
        return _page(found, limit, lambda last: Cursor("generations", 0.0, last.generation))

    def steps(self, run: RunView) -> tuple[Step, ...]:
        """How the leader rose: the generations in which another one came, and the last."""
        sql = (
            "SELECT generation, json_extract(counters, '$.evaluations'), committed_unix_s, "
            "json_extract(leader, '$.fitness'), json_extract(leader, ?), "
            "json_extract(leader, '$.metrics.latency_ms'), json_extract(leader, '$.feasible'), "
            "json_extract(leader, '$.generation') || '/' || json_extract(leader, '$.slot') "
            "FROM generations WHERE run_id = ? ORDER BY generation"
        )
        found: list[Step] = []
        origin = None
        step = None
        with self._connected() as db:
            for row in db.execute(sql, (_metric_path(run.metric, "$.metrics"), run.run_id)):
                generation, evaluations, at_unix_s, fitness, value, latency_ms, feasible, at = row
                step = Step(generation, evaluations, at_unix_s, fitness, value, latency_ms, bool(feasible))
                if at is not None and at != origin:
                    found.append(step)
                    origin = at
        if step is not None and origin is not None and step is not found[-1]:
            found.append(step)
        return tuple(found[-_MOST_STEPS:])

    # -- candidates --------------------------------------------------------------------------------------------------

    def candidates(
        self, run: RunView, filters: Filters, order: str, limit: int, cursor: Cursor | None
    ) -> Page[Candidate]:
        """Candidates that pass the filters, a page of them."""
        key, tie, descending = _ORDERS[order]
        where, parameters = _conditions(run, filters)
        if cursor is not None:
            where.append(f"({key}, {tie}) {'<' if descending else '>'} (?, ?)")
            parameters += [cursor.value, cursor.number]
        direction = "DESC" if descending else "ASC"
        sql = (
            f"SELECT {key}, {tie}, {_columns(run)} {_FROM} WHERE {' AND '.join(where)} "
            f"ORDER BY {key} {direction}, {tie} {direction} LIMIT ?"
        )
        with self._connected() as db:
            rows = db.execute(sql, (*parameters, limit + 1)).fetchall()
        page = _page(rows, limit, lambda last: Cursor(order, float(last[0]), int(last[1])))
        return Page(tuple(_candidate(row[2:]) for row in page.items), page.next_cursor)

    def operators(self, run_id: int) -> tuple[str, ...]:
        """The operators that the run's candidates came from."""
        with self._connected() as db:
            rows = db.execute("SELECT DISTINCT operator FROM individuals WHERE run_id = ? ORDER BY 1", (run_id,))
            return tuple(name for (name,) in rows)

    def candidates_at(self, run: RunView, places: Sequence[tuple[int, int]]) -> tuple[Candidate, ...]:
        """The candidates at (generation, slot) each, in this order; those that are not there are left out."""
        sql = f"SELECT {_columns(run)} {_FROM} WHERE run_id = ? AND generation = ? AND slot = ?"
        with self._connected() as db:
            rows = [db.execute(sql, (run.run_id, *place)).fetchone() for place in places]
        return tuple(_candidate(row) for row in rows if row is not None)

    def outcomes(self, run: RunView, after: int) -> Iterator[tuple[int, int, float, float, tuple[int, int]]]:
        """(number, architecture's number, value, latency, place) of evaluated candidates numbered above ``after``."""
        sql = (  # +run_id: by the number alone, in whose order the rows lie; an index of the run would have them sorted
            f"SELECT individual_id, architecture_id, {_value(run)}, json_extract(metrics, '$.latency_ms'), generation, "
            "slot FROM individuals WHERE +run_id = ? AND individual_id > ? AND status = 'ok' ORDER BY individual_id"
        )
        with self._connected() as db:
            for number, architecture, found, latency_ms, generation, slot in db.execute(sql, (run.run_id, after)):
                if found is not None and latency_ms is not None:
                    yield number, architecture, found, latency_ms, (generation, slot)

    def candidate(self, run: RunView, generation: int, slot: int) -> CandidateDetail:
        """One candidate with its ancestors and the model's words, checked.

        Raises:
            JournalMissingError: nothing was committed there.
        """
        with JournalReader(self._path) as reader:
            line = reader.history.lineage(run.run_id, (generation, slot), _MOST_ANCESTORS)
            if not line:
                raise JournalMissingError(f"run {run.run_id} has no candidate {generation}/{slot}")
            individual = line[0].record
            reply = None if individual.request_id is None else reader.history.reply(individual.request_id)
            ancestors = tuple(_ancestor(run, parent, child.record) for child, parent in pairwise(line))
        (row,) = self.candidates_at(run, [(generation, slot)])
        return CandidateDetail(
            row, individual.metrics, individual.architecture, individual.error, ancestors, _words(reply)
        )

    # -- cognition and events ----------------------------------------------------------------------------------------

    def replies(self, run_id: int, limit: int, cursor: Cursor | None) -> Page[ReplyView]:
        """What the language model answered, newest first, with what came of it."""
        before = 2**62 if cursor is None else cursor.number
        sql = (
            "SELECT q.rowid, q.request_id, q.generation, q.slot, q.join_generation, q.model, q.adapter_sha256, "
            "q.prompt, a.status, a.text, a.reason, a.tokens, a.duration_s, a.created_unix_s, i.generation, i.slot, "
            "max(i.fitness) FROM requests AS q JOIN replies AS a USING (request_id) LEFT JOIN individuals AS i "
            "ON i.run_id = q.run_id AND i.generation = q.join_generation AND i.request_id = q.request_id "
            # Of several that came of a reply the best: SQLite takes the columns beside a max from its row.
            "WHERE q.run_id = ? AND q.rowid < ? GROUP BY q.rowid ORDER BY q.rowid DESC LIMIT ?"
        )
        with self._connected() as db:
            rows = db.execute(sql, (run_id, before, limit + 1)).fetchall()
        page = _page(rows, limit, lambda last: Cursor("replies", 0.0, int(last[0])))
        return Page(tuple(ReplyView(*row[1:]) for row in page.items), page.next_cursor)

    def adapters(self, run_id: int) -> tuple[AdapterView, ...]:
        """The adapters that were trained, newest first."""
        with JournalReader(self._path) as reader:
            return tuple(
                AdapterView(a.adapter_id, a.generation, a.parent_id, a.sha256, a.status, a.training, a.created_unix_s)
                for a in reversed(reader.adapters(run_id, weights=False))
            )

    def events(self, run_id: int | None, limit: int, cursor: Cursor | None = None) -> Page[EventView]:
        """What happened, newest first."""
        before = 2**62 if cursor is None else cursor.number
        sql = (
            "SELECT event_id, run_id, generation, kind, payload, created_unix_s FROM events "
            "WHERE event_id < ?1 AND (?2 IS NULL OR run_id = ?2) AND kind <> 'choice_timed' "  # numbers, and many
            "ORDER BY event_id DESC LIMIT ?3"
        )
        with self._connected() as db:
            rows = db.execute(sql, (before, run_id, limit + 1)).fetchall()
        found = [EventView(n, run, g, kind, _told(json.loads(payload)), at) for n, run, g, kind, payload, at in rows]
        return _page(found, limit, lambda last: Cursor("events", 0.0, last.event_id))

    def last_commit(self) -> tuple[float, float] | None:
        """When the generation committed last was, and how long it took in seconds; None before the first."""
        sql = "SELECT committed_unix_s, duration_s FROM generations ORDER BY generation_id DESC LIMIT 1"
        with self._connected() as db:
            row: tuple[float, float] | None = db.execute(sql).fetchone()
        return row


# -- rows to views -----------------------------------------------------------------------------------------------------


def _chosen(reader: JournalReader, name: str) -> RunSummary:
    if name != "latest" and not (name.isascii() and name.isdecimal() and len(name) <= 18):
        raise UsageError("a run is a number, or latest")
    run = reader.history.latest_run() if name == "latest" else reader.history.run(int(name))
    if run is None:
        raise JournalMissingError("there is no run yet" if name == "latest" else f"there is no run {name}")
    return run


def _run_view(summary: RunSummary) -> RunView:
    run, leader = summary.record, summary.leader
    objective: Objective = journaled_objective(run.provenance, (leader or {}).get("target_ms"))
    return RunView(
        run_id=run.run_id,
        status=run.status,
        seed=run.provenance.get("seed"),
        strategy=run.provenance.get("strategy"),
        oracle=(run.provenance.get("oracle") or {}).get("kind"),
        generations=run.generations,
        evaluations=summary.evaluations,
        digest=run.digest,
        created_unix_s=run.created_unix_s,
        updated_unix_s=summary.ended_unix_s,
        metric=objective.raised,
        lowered=objective.lowered,
        target_ms=(leader or {}).get("target_ms"),
        limits=tuple(map(str, objective.limits)),
        leader=leader,
    )


def _metric_path(metric: str, root: str = "$") -> str:
    return f'{root}."{metric}"'  # a metric's name holds no quotes: ``riwoa.search.fitness.METRIC_NAME``


def _value(run: RunView) -> str:
    return f"json_extract(metrics, '{_metric_path(run.metric)}')"


def _columns(run: RunView) -> str:
    return _CANDIDATE.format(value=_value(run))


def _conditions(run: RunView, filters: Filters) -> tuple[list[str], list[Any]]:
    """Conditions of a candidate's row, and their parameters."""
    given: list[tuple[str, Any]] = [
        ("run_id = ?", run.run_id),
        ("operator = ?", filters.operator),
        ("status = ?", filters.status),
        ("json_extract(metrics, '$.latency_ms') <= ?", filters.most_ms),
        (f"{_value(run)} >= ?", filters.least),
        (f"{_value(run)} <= ?", filters.most),
        ("generation >= ?", filters.since_generation),
        ("printf('%016x', key_hash) GLOB ? || '*'", filters.name),
    ]
    kept = [(condition, value) for condition, value in given if value is not None]
    where, parameters = [condition for condition, _ in kept], [value for _, value in kept]
    if not filters.repeats:
        where.append("NOT cache_hit")
    return where, parameters


def _candidate(row: Sequence[Any]) -> Candidate:
    generation, slot, operator, status, value, latency_ms, fitness, hit, *parent, request_id, key = row
    place = None if parent[0] is None else f"{parent[0]}/{parent[1]}"
    return Candidate(
        generation=generation,
        slot=slot,
        operator=operator,
        status=status,
        value=value,
        latency_ms=latency_ms,
        fitness=fitness,
        repeat=bool(hit),
        parent=place,
        request_id=request_id,
        name=architecture_name(key),
        architecture_key=key,
    )


def _ancestor(run: RunView, parent: PlacedIndividual, child: IndividualRecord) -> Ancestor:
    """A parent, with what its child changed and gained."""
    record = parent.record
    return Ancestor(
        generation=parent.generation,
        slot=record.slot,
        name=parent.name,
        operator=record.operator,
        value=record.metrics.get(run.metric),
        latency_ms=record.metrics.get("latency_ms"),
        fitness=record.fitness,
        changed=gene_changes(record.architecture, child.architecture),
        gain=None if child.fitness is None or record.fitness is None else child.fitness - record.fitness,
    )


def _words(judged: JudgedReply | None) -> Words | None:
    """What the model was asked and said; None for a candidate that it did not write."""
    if judged is None:
        return None
    request, reply = judged.request, judged.reply
    return Words(
        model=request.model,
        adapter_sha256=request.adapter_sha256,
        prompt=request.prompt,
        verdict=judged.verdict,
        status=None if reply is None else reply.status,
        text=None if reply is None else reply.text,
        reason=judged.reason or (None if reply is None else reply.reason),
        tokens=None if reply is None else reply.tokens,
        duration_s=None if reply is None else reply.duration_s,
    )


def _told(payload: Any) -> Any:
    """An event's payload without what only programs read: answers of thousands of pictures, what a run inherited."""
    if not isinstance(payload, dict):
        return payload
    return {name: value for name, value in payload.items() if name not in ("correct", "content")}


def _page(found: Sequence[T], limit: int, cursor_of: Any) -> Page[T]:
    """The first ``limit`` of what was found, and the cursor of the next page where one more was."""
    items = tuple(found[:limit])
    return Page(items, str(cursor_of(items[-1])) if len(found) > limit else None)
