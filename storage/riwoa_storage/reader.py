"""Reading the journal: synchronous, read-only, while the writer lives, after its SIGKILL, and after its clean stop.

Each method is one or more short statements, never a read transaction held across a ``yield``: that would keep the
writer from folding its log. Committed generations never change, so nothing is torn by it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from riwoa_storage.checked import CheckedTables, Values
from riwoa_storage.errors import JournalCorruptError, JournalMissingError, RowDamagedError
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
    RunVerification,
)
from riwoa_storage.shared import key_hash

PAGE_ROWS = 256  # rows read per statement where a table is streamed
_LAST = 2**63 - 1  # no row of SQLite comes after
PAGE_GENERATIONS = 16  # whose individuals are read per statement
_OF_GENERATION = "WHERE run_id = ? AND generation = ? ORDER BY slot"


class JournalReader:
    """A read-only view of the journal at ``path``.

    Raises:
        JournalMissingError: there is no journal.
        JournalUnreadableError: this user cannot read it.
        JournalVersionError: written by another version.
        JournalCorruptError: not a journal, or damaged; any method may find that out.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._tables = CheckedTables(path)
        self.name = self._tables.name

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._tables.close()

    # -- runs ------------------------------------------------------------------------------------------------------

    def runs(self) -> list[RunRecord]:
        """Every run, oldest first."""
        return [self._tables.run(row) for row in self._tables.select("runs", "ORDER BY run_id")]

    def latest_run(self) -> RunRecord | None:
        """The run begun last."""
        rows = self._tables.select("runs", "ORDER BY run_id DESC LIMIT 1")
        return self._tables.run(rows[0]) if rows else None

    def run(self, run_id: int) -> RunRecord:
        """One run.

        Raises:
            JournalMissingError: there is no such run.
        """
        rows = self._tables.select("runs", "WHERE run_id = ?", run_id)
        if not rows:
            raise JournalMissingError(f"{self.name} has no run {run_id}: list them with riwoactl verify")
        return self._tables.run(rows[0])

    def generation_count(self, run_id: int) -> int:
        """How many generations of the run are committed."""
        return self.run(run_id).generations

    def digest_head(self, run_id: int) -> str:
        """The digest of the run's last committed generation; of its provenance before the first."""
        return self.run(run_id).digest

    def config_revisions(self, run_id: int) -> list[ConfigRevisionRecord]:
        """Configurations of the run, as applied; a run begins with one.

        Raises:
            JournalCorruptError: that is not there.
        """
        rows = self._tables.select("config_revisions", "WHERE run_id = ? ORDER BY revision", run_id)
        if not rows and self._tables.select("runs", "WHERE run_id = ?", run_id):
            raise JournalCorruptError(
                f"{self.name}: run {run_id} has no configuration: keep a copy, then restore a backup"
            )
        return [self._tables.config_revision(row) for row in rows]

    # -- generations -----------------------------------------------------------------------------------------------

    def generation(self, run_id: int, generation: int) -> GenerationRecord:
        """One committed generation with its individuals.

        Raises:
            JournalMissingError: it is not committed.
        """
        rows = self._tables.select("generations", "WHERE run_id = ? AND generation = ?", run_id, generation)
        if not rows:
            raise JournalMissingError(f"{self.name}: generation {generation} of run {run_id} is not there")
        return self._tables.generation(rows[0], self._individuals(_OF_GENERATION, run_id, generation))

    def _individuals(self, rest: str, *parameters: object) -> list[Values]:
        return self._tables.with_architectures("individuals", rest, *parameters)

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
        rest = "WHERE run_id = ? AND generation >= ? ORDER BY generation LIMIT ?"
        while rows := self._tables.select("generations", rest, run_id, start, PAGE_ROWS):
            for row in rows:
                yield self._tables.summary(row)
            start = int(rows[-1]["generation"]) + 1

    def individuals(self, run_id: int) -> Iterator[tuple[int, IndividualRecord]]:
        """(generation, individual) of the committed generations, ascending."""
        for generation in range(self.generation_count(run_id)):
            for row in self._individuals(_OF_GENERATION, run_id, generation):
                yield generation, self._tables.individual(row)

    def individual(self, run_id: int, generation: int, slot: int) -> IndividualRecord | None:
        """One committed individual."""
        rows = self._individuals("WHERE run_id = ? AND generation = ? AND slot = ?", run_id, generation, slot)
        return self._tables.individual(rows[0]) if rows else None

    def individual_of(self, request_id: str) -> IndividualRecord | None:
        """The committed individual that a request came to."""
        request = self.request(request_id)
        if request is None:
            return None
        rows = self._individuals(  # by its run and the generation it joined: those are indexed
            "WHERE run_id = ? AND generation = ? AND request_id = ?",
            request.run_id,
            request.join_generation,
            request_id,
        )
        return self._tables.individual(rows[0]) if rows else None

    def operator_seconds(self, run_id: int, oracle_version: str, start: int, end: int) -> dict[str, float]:
        """Wall seconds of evaluation by operator, in generations ``start`` to ``end`` (excluded)."""
        sql = (
            "SELECT operator, sum(duration_s) FROM individuals JOIN evaluations USING (architecture_id) "
            "WHERE oracle_id = (SELECT text_id FROM texts WHERE text = ?) "
            "AND run_id = ? AND generation >= ? AND generation < ? AND cache_hit = 0 GROUP BY operator"
        )
        return {name: float(spent_s) for name, spent_s in self._rows(sql, oracle_version, run_id, start, end)}

    # -- what a search asks of its past: by index, not by reading it all ---------------------------------------------

    def committed_outcomes(self, run_id: int, keys: Iterable[str]) -> dict[str, list[IndividualRecord]]:
        """What committed individuals of the run tell of architecture keys, oldest first.

        Up to the first of an architecture that was not dropped, which settles it: what came after were its hits, any
        number of them. Keys without any individual are left out.
        """
        return self._of_keys(run_id, keys, "AND status != 'dropped'", otherwise=_LAST)

    def committed_keys(self, run_id: int, keys: Iterable[str]) -> set[str]:
        """Those of these architecture keys that a committed individual of the run has."""
        return set(self._of_keys(run_id, keys, "", otherwise=0))

    def _of_keys(
        self, run_id: int, keys: Iterable[str], settled: str, *, otherwise: int
    ) -> dict[str, list[IndividualRecord]]:
        """Individuals by key, up to an architecture's first for which ``settled`` holds; else up to ``otherwise``."""
        # A damaged status hides nothing: the row itself is read in either case, and its checksum tells.
        first = (
            "SELECT rowid FROM individuals WHERE run_id = ?1 AND architecture_id = architectures.architecture_id "
            f"{settled} ORDER BY rowid LIMIT 1"
        )
        rest = f"run_id = ?1 AND individuals.rowid <= coalesce(({first}), ?2)"
        wanted = list(dict.fromkeys(keys))
        found: dict[str, list[IndividualRecord]] = {}
        for at in range(0, len(wanted), PAGE_ROWS):
            hashes = [key_hash(key) for key in wanted[at : at + PAGE_ROWS]]
            rows = self._tables.of_architectures("individuals", hashes, rest, run_id, otherwise)
            for row in sorted(rows, key=lambda row: (row["generation"], row["slot"])):  # SQL would walk the whole run
                found.setdefault(row["architecture_key"], []).append(self._tables.individual(row))
        return {key: found[key] for key in wanted if key in found}

    def metrics_of(
        self, run_id: int, places: Iterable[tuple[int, int]]
    ) -> dict[tuple[int, int], tuple[float, float] | None]:
        """(accuracy, latency_ms) of committed individuals at (generation, slot); None where not evaluated in full.

        Raises:
            JournalCorruptError: one of them is not there, although it was committed.
        """
        found: dict[tuple[int, int], tuple[float, float] | None] = {}
        for page in _pages(places):
            for row in self._tables.individuals_at(run_id, page):
                metrics = json.loads(row["metrics"]) if row["status"] == "ok" else None
                place = (row["generation"], row["slot"])
                found[place] = (float(metrics["accuracy"]), float(metrics["latency_ms"])) if metrics else None
            if missing := [place for place in page if place not in found]:
                raise self._not_there(run_id, *missing[0])
        return found

    def _not_there(self, run_id: int, generation: int, slot: int) -> JournalCorruptError:
        return JournalCorruptError(
            f"{self.name}: individual {slot} of generation {generation} of run {run_id} is not there: keep a copy, "
            "then restore a backup"
        )

    def scan(self, run_id: int, start: int, end: int) -> list[tuple[int, str, int, int]]:
        """(architecture_id, metrics as JSON, generation, slot) of what was evaluated in full, ascending; NOT checked.

        In generations ``start`` to ``end`` (excluded). A checksum takes five times as long as the rest, so this is for
        choosing a few individuals among very many: what is used of those is read again by ``points_at``.
        """
        sql = (
            "SELECT architecture_id, metrics, generation, slot FROM individuals "
            "WHERE run_id = ? AND generation >= ? AND generation < ? AND status = 'ok' ORDER BY generation, slot"
        )
        return self._rows(sql, run_id, start, end)

    def points_at(self, run_id: int, places: Iterable[tuple[int, int]]) -> list[tuple[str, float, float, int, int]]:
        """(architecture_key, accuracy, latency_ms, generation, slot) of individuals evaluated in full, ascending.

        Raises:
            JournalCorruptError: one of these (generation, slot) is not there, or was not evaluated in full.
        """
        found = []
        for page in _pages(places):
            rows = {(r["generation"], r["slot"]): r for r in self._tables.individuals_at(run_id, page, named=True)}
            for place in page:
                if place not in rows or rows[place]["status"] != "ok":
                    raise self._not_there(run_id, *place)
                metrics = json.loads(rows[place]["metrics"])
                found.append((rows[place]["architecture_key"], metrics["accuracy"], metrics["latency_ms"], *place))
        return sorted(found, key=lambda point: point[3:])

    def architecture_keys(self, architecture_ids: Iterable[int]) -> Iterator[str]:
        """Keys of architectures by the numbers that ``scan`` gives."""
        wanted = sorted(architecture_ids)
        for at in range(0, len(wanted), PAGE_ROWS):
            numbers = ",".join(map(str, wanted[at : at + PAGE_ROWS]))
            for row in self._tables.select("architectures", f"WHERE architecture_id IN ({numbers})"):
                yield row["architecture_key"]

    def newest_fresh(self, run_id: int, limit: int) -> list[IndividualRecord]:
        """The last ``limit`` individuals of the run that were evaluated in full, and no hits, oldest first."""
        found: list[IndividualRecord] = []
        for end in range(self.generation_count(run_id), 0, -PAGE_GENERATIONS):
            rest = "WHERE run_id = ? AND generation >= ? AND generation < ? ORDER BY generation DESC, slot DESC"
            for row in self._individuals(rest, run_id, end - PAGE_GENERATIONS, end):
                # Not by the WHERE: a damaged column would hide its row.
                if row["status"] == "ok" and not row["cache_hit"] and len(found) < limit:
                    found.append(self._tables.individual(row))
            if len(found) >= limit:
                break
        return found[::-1]

    # -- evaluations -----------------------------------------------------------------------------------------------

    def evaluation(self, oracle_version: str, key: str) -> EvaluationRecord | None:
        """The stored evaluation of an architecture.

        Raises:
            RowDamagedError: it is damaged. Where no generation was committed on it, it is only a cache: evaluate again,
                and storing that replaces it.
        """
        rest = (
            "WHERE oracle_id = (SELECT text_id FROM texts WHERE text = ?) AND architecture_id IN "
            "(SELECT architecture_id FROM architectures WHERE key_hash = ?)"
        )
        damage: RowDamagedError | None = None
        for (number,) in self._rows(f"SELECT architecture_id FROM evaluations {rest}", oracle_version, key_hash(key)):
            try:
                rows = self._tables.with_architectures(
                    "evaluations", f"{rest} AND architecture_id = ?", oracle_version, key_hash(key), number
                )
                found = [self._tables.evaluation(row) for row in rows if row["architecture_key"] == key]
            except RowDamagedError as error:
                damage = error
                continue
            if found:
                return found[0]
        if damage is not None:
            raise damage
        return None

    def evaluations_of(self, oracle_version: str, keys: Iterable[str]) -> dict[str, EvaluationRecord]:
        """Stored evaluations of architecture keys; those without any are left out.

        Raises:
            RowDamagedError: one of them is damaged; ``evaluation`` tells which.
        """
        wanted = list(dict.fromkeys(keys))
        found: dict[str, EvaluationRecord] = {}
        rest = "oracle_id = (SELECT text_id FROM texts WHERE text = ?)"
        for at in range(0, len(wanted), PAGE_ROWS):
            hashes = [key_hash(key) for key in wanted[at : at + PAGE_ROWS]]
            for row in self._tables.of_architectures("evaluations", hashes, rest, oracle_version):
                found.setdefault(row["architecture_key"], self._tables.evaluation(row))
        return {key: found[key] for key in wanted if key in found}

    def evaluations(self, oracle_version: str) -> Iterator[EvaluationRecord]:
        """Stored evaluations of an oracle, in the order in which their architectures were first seen."""
        rest = (
            "WHERE oracle_id = (SELECT text_id FROM texts WHERE text = ?) AND architecture_id > ? "
            "ORDER BY architecture_id LIMIT ?"
        )
        after = 0
        while rows := self._tables.with_architectures("evaluations", rest, oracle_version, after, PAGE_ROWS):
            yield from map(self._tables.evaluation, rows)
            after = rows[-1]["architecture_id"]

    # -- cognition -------------------------------------------------------------------------------------------------

    def requests(self, run_id: int, *, unanswered: bool | None = None) -> list[RequestRecord]:
        """Requests of the run by generation and slot; only those with (False) or without (True) a reply if said."""
        condition = {
            None: "",
            True: "AND request_id NOT IN (SELECT request_id FROM replies)",
            False: "AND request_id IN (SELECT request_id FROM replies)",
        }[unanswered]
        rows = self._tables.select("requests", f"WHERE run_id = ? {condition} ORDER BY generation, slot", run_id)
        return [self._tables.request(row) for row in rows]

    def request(self, request_id: str) -> RequestRecord | None:
        """One request."""
        rows = self._tables.select("requests", "WHERE request_id = ?", request_id)
        return self._tables.request(rows[0]) if rows else None

    def requests_joining(self, run_id: int, start: int) -> list[RequestRecord]:
        """Requests whose replies join generation ``start`` or later, by generation and slot."""
        rest = "WHERE run_id = ? AND join_generation >= ? ORDER BY generation, slot"
        return [self._tables.request(row) for row in self._tables.select("requests", rest, run_id, start)]

    def writing_seconds(self, run_id: int, start: int, end: int) -> float:
        """Wall seconds that batches of requests took which joined generations ``start`` to ``end`` (excluded).

        The requests of a generation are one batch, and each of its replies carries the time of the whole.
        """
        sql = (
            "SELECT max(duration_s) FROM replies JOIN requests USING (request_id) "
            "WHERE run_id = ? AND join_generation >= ? AND join_generation < ? GROUP BY generation"
        )
        return sum(float(row[0]) for row in self._rows(sql, run_id, start, end))

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
        rest = "JOIN requests USING (request_id) WHERE run_id = ? ORDER BY generation, slot"
        return {row["request_id"]: self._tables.reply(row) for row in self._tables.select("replies", rest, run_id)}

    def reply(self, request_id: str) -> ReplyRecord | None:
        """The stored reply to one request."""
        rows = self._tables.select("replies", "WHERE request_id = ?", request_id)
        return self._tables.reply(rows[0]) if rows else None

    def buffer(self, run_id: int, *, after: int = 0) -> list[BufferEntryRecord]:
        """Successes of the run with ids above ``after``, oldest first, consumed ones included."""
        rest = "WHERE run_id = ? AND entry_id > ? ORDER BY entry_id"
        rows = self._tables.select("buffer_entries", rest, run_id, after)
        return [self._tables.buffer_entry(row) for row in rows]

    def adapters(self, run_id: int, *, weights: bool = True) -> list[AdapterRecord]:
        """Checkpoints of the run, oldest first; without their weights (None) if said."""
        rows = self._tables.select("adapters", "WHERE run_id = ? ORDER BY adapter_id", run_id)
        return [self._tables.adapter(row, self.weights(row["adapter_id"]) if weights else None) for row in rows]

    def weights(self, adapter_id: int) -> bytes | None:
        """The bytes of one checkpoint; None where retention dropped them."""
        rows = self._rows("SELECT weights FROM adapters WHERE adapter_id = ?", adapter_id)
        return rows[0][0] if rows else None

    def events(self, run_id: int | None = None, *, limit: int = 100) -> list[EventRecord]:
        """The last ``limit`` events, of one run or of all, oldest of them first."""
        where, parameters = ("", ()) if run_id is None else ("WHERE run_id = ?", (run_id,))
        rows = self._tables.select("events", f"{where} ORDER BY event_id DESC LIMIT ?", *parameters, limit)
        return [self._tables.event(row) for row in reversed(rows)]

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

    def check_rows(self) -> None:
        """Check every row of every table by its checksum.

        Raises:
            RowDamagedError: the first that does not match.
        """
        self._tables.check_all()

    def verified(self, run_id: int) -> RunVerification | None:
        """How far the run's chain was proved before; None where that is not known, or its own row is damaged."""
        try:
            rows = self._tables.select("verified", "WHERE run_id = ?", run_id)
        except RowDamagedError:
            return None
        return RunVerification(**rows[0]) if rows else None

    def adapter_weights(self) -> Iterator[tuple[int, str, bytes | None]]:
        """(adapter_id, sha256, weights) of every run's adapters; one in memory at a time."""
        for (adapter_id,) in self._rows("SELECT adapter_id FROM adapters ORDER BY adapter_id"):
            (row,) = self._rows("SELECT adapter_id, sha256, weights FROM adapters WHERE adapter_id = ?", adapter_id)
            yield row[0], row[1], row[2]

    def _rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._tables.rows(sql, *parameters)


def _pages(places: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Distinct places, ``PAGE_ROWS`` at a time."""
    wanted = list(dict.fromkeys(places))
    for at in range(0, len(wanted), PAGE_ROWS):
        yield wanted[at : at + PAGE_ROWS]
