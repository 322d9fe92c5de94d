"""Reading the journal: synchronous, read-only, while the writer lives, after its SIGKILL, and after its clean stop.

Each method is one or more short statements, never a read transaction held across a ``yield``: that would keep the
writer from folding its log. Committed generations never change, so nothing is torn by it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from riwoa_storage.connect import connect_reader, translate
from riwoa_storage.errors import JournalCorruptError, JournalMissingError
from riwoa_storage.records import (
    AdapterRecord,
    BufferEntryRecord,
    ConfigRevisionRecord,
    EvaluationRecord,
    EventRecord,
    GenerationRecord,
    GenerationSummary,
    IndividualRecord,
    ReplyRecord,
    RequestRecord,
    RunRecord,
)

PAGE_ROWS = 256  # rows read per statement where a table is streamed

Row = sqlite3.Row


class JournalReader:
    """A read-only view of the journal at ``path``.

    Raises:
        JournalMissingError: there is no journal.
        JournalUnreadableError: this user cannot read it.
        JournalVersionError: written by another version.
        JournalCorruptError: not a journal, or damaged; any method may find that out.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.path.abspath(path)
        self._connection = connect_reader(path)
        self._connection.row_factory = sqlite3.Row

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    # -- runs ------------------------------------------------------------------------------------------------------

    def runs(self) -> list[RunRecord]:
        """Every run, oldest first."""
        return [self._run(row) for row in self._rows("SELECT * FROM runs ORDER BY run_id")]

    def latest_run(self) -> RunRecord | None:
        """The run begun last."""
        rows = self._rows("SELECT * FROM runs ORDER BY run_id DESC LIMIT 1")
        return self._run(rows[0]) if rows else None

    def run(self, run_id: int) -> RunRecord:
        """One run.

        Raises:
            JournalMissingError: there is no such run.
        """
        rows = self._rows("SELECT * FROM runs WHERE run_id = ?", run_id)
        if not rows:
            raise JournalMissingError(f"{self.name} has no run {run_id}: list them with riwoactl verify")
        return self._run(rows[0])

    def generation_count(self, run_id: int) -> int:
        """How many generations of the run are committed."""
        return self.run(run_id).generations

    def digest_head(self, run_id: int) -> str:
        """The digest of the run's last committed generation; of its provenance before the first."""
        return self.run(run_id).digest

    def config_revisions(self, run_id: int) -> list[ConfigRevisionRecord]:
        """Configurations of the run, as applied."""
        rows = self._rows("SELECT * FROM config_revisions WHERE run_id = ? ORDER BY revision", run_id)
        return [
            ConfigRevisionRecord(
                **_without(row, "config", "changed"),
                config=self._json(row, "config"),
                changed=self._json(row, "changed"),
            )
            for row in rows
        ]

    # -- generations -----------------------------------------------------------------------------------------------

    def generation(self, run_id: int, generation: int) -> GenerationRecord:
        """One committed generation with its individuals.

        Raises:
            JournalMissingError: it is not committed.
        """
        rows = self._rows("SELECT * FROM generations WHERE run_id = ? AND generation = ?", run_id, generation)
        if not rows:
            raise JournalMissingError(f"{self.name}: generation {generation} of run {run_id} is not there")
        individuals = self._rows(
            "SELECT * FROM individuals WHERE run_id = ? AND generation = ? ORDER BY slot", run_id, generation
        )
        summary = _fields(self._summary(rows[0]))
        return GenerationRecord(
            **summary,
            state=rows[0]["state"],
            joined_requests=tuple(self._json(rows[0], "joined_requests")),
            individuals=tuple(self._individual(row) for row in individuals),
        )

    def last_generation(self, run_id: int) -> GenerationRecord | None:
        """The last committed generation with its individuals: where a killed run resumes from."""
        count = self.generation_count(run_id)
        return self.generation(run_id, count - 1) if count else None

    def generations(self, run_id: int, start: int = 0) -> Iterator[GenerationRecord]:
        """Committed generations from ``start`` on, ascending, with their individuals; one in memory at a time."""
        for generation in range(start, self.generation_count(run_id)):
            yield self.generation(run_id, generation)

    def generation_summaries(self, run_id: int, start: int = 0) -> Iterator[GenerationSummary]:
        """Committed generations without states and individuals, ascending."""
        sql = (
            "SELECT run_id, generation, phase, config_revision, counters, leader, inputs, duration_s, digest, "
            "committed_unix_s FROM generations WHERE run_id = ? AND generation >= ? ORDER BY generation LIMIT ?"
        )
        while rows := self._rows(sql, run_id, start, PAGE_ROWS):
            for row in rows:
                yield self._summary(row)
            start = int(rows[-1]["generation"]) + 1

    def individuals(self, run_id: int) -> Iterator[tuple[int, IndividualRecord]]:
        """(generation, individual) of the committed generations, ascending."""
        for generation in range(self.generation_count(run_id)):
            sql = "SELECT * FROM individuals WHERE run_id = ? AND generation = ? ORDER BY slot"
            for row in self._rows(sql, run_id, generation):
                yield generation, self._individual(row)

    def individual(self, run_id: int, generation: int, slot: int) -> IndividualRecord | None:
        """One committed individual."""
        rows = self._rows(
            "SELECT * FROM individuals WHERE run_id = ? AND generation = ? AND slot = ?", run_id, generation, slot
        )
        return self._individual(rows[0]) if rows else None

    def individual_of(self, request_id: str) -> IndividualRecord | None:
        """The committed individual that a request came to."""
        request = self.request(request_id)
        if request is None:
            return None
        rows = self._rows(  # by its run and the generation it joined: those are indexed
            "SELECT * FROM individuals WHERE run_id = ? AND generation = ? AND request_id = ?",
            request.run_id,
            request.join_generation,
            request_id,
        )
        return self._individual(rows[0]) if rows else None

    def operator_seconds(self, run_id: int, oracle_version: str, start: int, end: int) -> dict[str, float]:
        """Wall seconds of evaluation by operator, in generations ``start`` to ``end`` (excluded)."""
        sql = (
            "SELECT operator, sum(duration_s) AS spent_s FROM individuals JOIN evaluations "
            "ON oracle_version = ? AND evaluations.architecture_key = individuals.architecture_key "
            "WHERE run_id = ? AND generation >= ? AND generation < ? AND cache_hit = 0 GROUP BY operator"
        )
        rows = self._rows(sql, oracle_version, run_id, start, end)
        return {row["operator"]: float(row["spent_s"]) for row in rows}

    # -- what a search asks of its past: by index, not by reading it all ---------------------------------------------

    def committed_outcomes(self, run_id: int, keys: Iterable[str]) -> dict[str, list[IndividualRecord]]:
        """Committed individuals of the run by architecture key, oldest first; keys without any are left out."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, list[IndividualRecord]] = {}
        for at in range(0, len(wanted), PAGE_ROWS):
            part = wanted[at : at + PAGE_ROWS]
            marks = ",".join("?" * len(part))
            where = f"run_id = ? AND architecture_key IN ({marks})"
            for row in self._rows(f"SELECT * FROM individuals WHERE {where} ORDER BY individual_id", run_id, *part):
                found.setdefault(row["architecture_key"], []).append(self._individual(row))
        return found

    def metrics_of(self, run_id: int, generation: int, slot: int) -> tuple[float, float] | None:
        """(accuracy, latency_ms) of a committed individual; None where it was not evaluated in full."""
        individual = self.individual(run_id, generation, slot)
        if individual is None or individual.status != "ok":
            return None
        return float(individual.metrics["accuracy"]), float(individual.metrics["latency_ms"])

    def front_points(self, run_id: int) -> Iterator[tuple[str, float, float, int, int]]:
        """(architecture_key, accuracy, latency_ms, generation, slot) of all that were evaluated in full, ascending."""
        sql = (
            "SELECT architecture_key, json_extract(metrics, '$.accuracy'), json_extract(metrics, '$.latency_ms'), "
            "generation, slot FROM individuals WHERE run_id = ? AND generation = ? AND status = 'ok' ORDER BY slot"
        )
        for generation in range(self.generation_count(run_id)):
            yield from map(tuple, self._rows(sql, run_id, generation))  # type: ignore[misc]

    def newest_fresh(self, run_id: int, limit: int) -> list[IndividualRecord]:
        """The last ``limit`` individuals of the run that were evaluated in full, and no hits, oldest first."""
        sql = (
            "SELECT * FROM individuals WHERE run_id = ? AND status = 'ok' AND cache_hit = 0 "
            "ORDER BY generation DESC, slot DESC LIMIT ?"
        )
        return [self._individual(row) for row in reversed(self._rows(sql, run_id, limit))]

    # -- evaluations -----------------------------------------------------------------------------------------------

    def evaluation(self, oracle_version: str, key: str) -> EvaluationRecord | None:
        """The stored evaluation of an architecture."""
        rows = self._rows(
            "SELECT * FROM evaluations WHERE oracle_version = ? AND architecture_key = ?", oracle_version, key
        )
        return self._evaluation(rows[0]) if rows else None

    def evaluations(self, oracle_version: str) -> Iterator[EvaluationRecord]:
        """Stored evaluations of an oracle, by key."""
        sql = (
            "SELECT * FROM evaluations WHERE oracle_version = ? AND architecture_key > ? "
            "ORDER BY architecture_key LIMIT ?"
        )
        after = ""
        while rows := self._rows(sql, oracle_version, after, PAGE_ROWS):
            yield from map(self._evaluation, rows)
            after = rows[-1]["architecture_key"]

    # -- cognition -------------------------------------------------------------------------------------------------

    def requests(self, run_id: int, *, unanswered: bool | None = None) -> list[RequestRecord]:
        """Requests of the run by generation and slot; only those with (False) or without (True) a reply if said."""
        condition = {
            None: "",
            True: "AND request_id NOT IN (SELECT request_id FROM replies)",
            False: "AND request_id IN (SELECT request_id FROM replies)",
        }[unanswered]
        rows = self._rows(f"SELECT * FROM requests WHERE run_id = ? {condition} ORDER BY generation, slot", run_id)
        return [self._request(row) for row in rows]

    def request(self, request_id: str) -> RequestRecord | None:
        """One request."""
        rows = self._rows("SELECT * FROM requests WHERE request_id = ?", request_id)
        return self._request(rows[0]) if rows else None

    def requests_joining(self, run_id: int, start: int) -> list[RequestRecord]:
        """Requests whose replies join generation ``start`` or later, by generation and slot."""
        sql = "SELECT * FROM requests WHERE run_id = ? AND join_generation >= ? ORDER BY generation, slot"
        return [self._request(row) for row in self._rows(sql, run_id, start)]

    def writing_seconds(self, run_id: int, start: int, end: int) -> float:
        """Wall seconds that batches of requests took which joined generations ``start`` to ``end`` (excluded).

        The requests of a generation are one batch, and each of its replies carries the time of the whole.
        """
        sql = (
            "SELECT max(duration_s) AS spent_s FROM replies JOIN requests USING (request_id) "
            "WHERE run_id = ? AND join_generation >= ? AND join_generation < ? GROUP BY generation"
        )
        return sum(float(row["spent_s"]) for row in self._rows(sql, run_id, start, end))

    def training_seconds(self, run_id: int, start: int, end: int) -> float:
        """Wall seconds of trainings, failed ones too, that were due in generations ``start`` to ``end`` (excluded)."""
        sql = (
            "SELECT total(json_extract(training, '$.duration_s')) FROM adapters "
            "WHERE run_id = ?1 AND generation >= ?2 AND generation < ?3 UNION ALL "
            "SELECT total(json_extract(payload, '$.duration_s')) FROM events "
            "WHERE run_id = ?1 AND generation >= ?2 AND generation < ?3 AND kind = 'training_failed'"
        )
        return sum(float(row[0]) for row in self._rows(sql, run_id, start, end))

    def replies(self, run_id: int) -> dict[str, ReplyRecord]:
        """request_id -> reply."""
        sql = (
            "SELECT replies.* FROM replies JOIN requests USING (request_id) WHERE run_id = ? ORDER BY generation, slot"
        )
        return {row["request_id"]: ReplyRecord(**_without(row)) for row in self._rows(sql, run_id)}

    def reply(self, request_id: str) -> ReplyRecord | None:
        """The stored reply to one request."""
        rows = self._rows("SELECT * FROM replies WHERE request_id = ?", request_id)
        return ReplyRecord(**_without(rows[0])) if rows else None

    def buffer(self, run_id: int, *, after: int = 0) -> list[BufferEntryRecord]:
        """Successes of the run with ids above ``after``, oldest first, consumed ones included."""
        sql = "SELECT * FROM buffer_entries WHERE run_id = ? AND entry_id > ? ORDER BY entry_id"
        rows = self._rows(sql, run_id, after)
        return [BufferEntryRecord(**_without(row, "trace"), trace=self._json(row, "trace")) for row in rows]

    def adapters(self, run_id: int, *, weights: bool = True) -> list[AdapterRecord]:
        """Checkpoints of the run, oldest first; without their weights (None) if said."""
        column = "weights" if weights else "NULL AS weights"
        sql = (
            f"SELECT adapter_id, run_id, generation, parent_id, sha256, {column}, status, training, created_unix_s "
            "FROM adapters WHERE run_id = ? ORDER BY adapter_id"
        )
        return [
            AdapterRecord(**_without(row, "training"), training=self._json(row, "training"))
            for row in self._rows(sql, run_id)
        ]

    def weights(self, adapter_id: int) -> bytes | None:
        """The bytes of one checkpoint; None where retention dropped them."""
        rows = self._rows("SELECT weights FROM adapters WHERE adapter_id = ?", adapter_id)
        return rows[0]["weights"] if rows else None

    def events(self, run_id: int | None = None, *, limit: int = 100) -> list[EventRecord]:
        """The last ``limit`` events, of one run or of all, oldest of them first."""
        where, parameters = ("", ()) if run_id is None else ("WHERE run_id = ?", (run_id,))
        rows = self._rows(f"SELECT * FROM events {where} ORDER BY event_id DESC LIMIT ?", *parameters, limit)
        return [
            EventRecord(**_without(row, "event_id", "payload"), payload=self._json(row, "payload"))
            for row in reversed(rows)
        ]

    # -- integrity -------------------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See one committed state throughout; the writer's log cannot be folded meanwhile, so keep it short."""
        self._rows("BEGIN")
        try:
            yield
        finally:
            self._rows("ROLLBACK")

    def check_integrity(self) -> str:
        """Run SQLite's own integrity and foreign-key checks; returns "ok".

        Raises:
            JournalCorruptError: with the first complaint.
        """
        (complaint, *_) = (row[0] for row in self._rows("PRAGMA integrity_check(1)"))
        if complaint == "ok" and (dangling := self._rows("PRAGMA foreign_key_check")):
            complaint = f"row {dangling[0][1]} of {dangling[0][0]} refers to a {dangling[0][2]} row that is not there"
        if complaint != "ok":
            summary = " ".join(str(complaint).split())
            raise JournalCorruptError(f"{self.name} is damaged ({summary}): keep a copy, then restore a backup")
        return "ok"

    def generation_rows(self, run_id: int) -> int:
        """How many generation rows the run has, whatever the run itself says."""
        return int(self._rows("SELECT count(*) FROM generations WHERE run_id = ?", run_id)[0][0])

    def adapter_weights(self) -> Iterator[tuple[int, str, bytes | None]]:
        """(adapter_id, sha256, weights) of every run's adapters; one in memory at a time."""
        for (adapter_id,) in self._rows("SELECT adapter_id FROM adapters ORDER BY adapter_id"):
            (row,) = self._rows("SELECT adapter_id, sha256, weights FROM adapters WHERE adapter_id = ?", adapter_id)
            yield row["adapter_id"], row["sha256"], row["weights"]

    # -- rows to records -----------------------------------------------------------------------------------------------

    def _rows(self, sql: str, *parameters: object) -> list[Row]:
        try:
            with closing(self._connection.execute(sql, parameters)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise translate(error, self.name, reading=True) from error

    def _json(self, row: Row, column: str) -> Any:
        try:
            return json.loads(row[column])
        except ValueError as error:
            named = ", ".join(f"{key} {row[key]}" for key in row.keys() if key in _NAMING)  # a Row iterates its values
            raise JournalCorruptError(
                f"{self.name}: {column} of {named} is damaged ({error}): keep a copy, then restore a backup"
            ) from None

    def _run(self, row: Row) -> RunRecord:
        return RunRecord(**_without(row, "provenance"), provenance=self._json(row, "provenance"))

    def _summary(self, row: Row) -> GenerationSummary:
        return GenerationSummary(
            **_without(row, "generation_id", "state", "counters", "leader", "inputs", "joined_requests"),
            counters=self._json(row, "counters"),
            leader=None if row["leader"] is None else self._json(row, "leader"),
            inputs=self._json(row, "inputs"),
        )

    def _individual(self, row: Row) -> IndividualRecord:
        parent = None if row["parent_slot"] is None else (row["parent_generation"], row["parent_slot"])
        plain = _without(
            row, "individual_id", "run_id", "generation", "parent_generation", "parent_slot", "architecture", "metrics",
            "cache_hit",
        )  # fmt: skip
        return IndividualRecord(
            **plain,
            parent=parent,
            architecture=self._json(row, "architecture"),
            metrics=self._json(row, "metrics"),
            cache_hit=bool(row["cache_hit"]),
        )

    def _request(self, row: Row) -> RequestRecord:
        return RequestRecord(**_without(row, "parameters"), parameters=self._json(row, "parameters"))

    def _evaluation(self, row: Row) -> EvaluationRecord:
        return EvaluationRecord(
            **_without(row, "architecture", "metrics"),
            architecture=self._json(row, "architecture"),
            metrics=self._json(row, "metrics"),
        )


_NAMING = ("run_id", "generation", "slot", "revision", "architecture_key", "entry_id", "adapter_id", "event_id")


def _without(row: Row, *columns: str) -> dict[str, Any]:
    """Columns that go into a record as they are: they have its fields' names."""
    return {key: row[key] for key in row.keys() if key not in columns}  # a Row iterates its values


def _fields(summary: GenerationSummary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in summary.__slots__}
