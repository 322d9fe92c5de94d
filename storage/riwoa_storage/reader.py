"""Reading the journal: synchronous, read-only, while the writer lives, after its SIGKILL, and after its clean stop.

Each method is one or more short statements, never a read transaction held across a ``yield``: that would keep the
writer from folding its log. Committed generations never change, so nothing is torn by it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

from riwoa_storage.checked import CheckedTables
from riwoa_storage.errors import JournalCorruptError, JournalMissingError, RowDamagedError
from riwoa_storage.events import Event
from riwoa_storage.flat import FlatRows
from riwoa_storage.history import History
from riwoa_storage.integrity import Integrity
from riwoa_storage.lookup import KeyLookup
from riwoa_storage.names import NameLookup
from riwoa_storage.places import PlaceLookup
from riwoa_storage.records import (
    AdapterRecord,
    BufferEntryRecord,
    ConfigRevisionRecord,
    EvaluationRecord,
    GenerationRecord,
    GenerationSummary,
    IndividualRecord,
    ReplyRecord,
    RequestRecord,
    RunRecord,
)
from riwoa_storage.spent import SpentSeconds
from riwoa_storage.tables import Values

E = TypeVar("E", bound=Event)

PAGE_ROWS = 256  # rows read per statement where a table is streamed
PAGE_GENERATIONS = 16  # whose individuals are read per statement
_OF_ORACLE = "WHERE oracle_id = (SELECT text_id FROM texts WHERE text = ?) AND architecture_id"
_OF_GENERATION = "WHERE run_id = ? AND generation = ? ORDER BY slot"


class JournalReader:
    """A read-only view of the journal at ``path``.

    ``by_key`` finds what the journal knows of architectures, ``by_place`` what it knows of single individuals,
    ``by_name`` individuals by short names; ``history`` knows what people ask of a run, ``flat`` gives all of it to
    other programs, ``seconds`` adds up how long things took, ``integrity`` checks the whole.

    Raises:
        JournalMissingError: there is no journal.
        JournalUnreadableError: this user cannot read it.
        JournalVersionError: written by another version.
        JournalCorruptError: not a journal, or damaged; any method may find that out.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._tables = CheckedTables(path)
        self.name = self._tables.name
        self.by_key = KeyLookup(self._tables)
        self.by_place = PlaceLookup(self._tables)
        self.history = History(self._tables)
        self.by_name = NameLookup(self._tables, self.history)
        self.flat = FlatRows(self._tables)
        self.seconds = SpentSeconds(self._tables)
        self.integrity = Integrity(self._tables)

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._tables.close()

    # -- runs ------------------------------------------------------------------------------------------------------

    def runs(self) -> list[RunRecord]:
        """Every run, oldest first."""
        return self._tables.records(RunRecord, "ORDER BY run_id")

    def latest_run(self) -> RunRecord | None:
        """The run begun last."""
        return next(iter(self._tables.records(RunRecord, "ORDER BY run_id DESC LIMIT 1")), None)

    def run(self, run_id: int) -> RunRecord:
        """One run.

        Raises:
            JournalMissingError: there is no such run.
        """
        runs = self._tables.records(RunRecord, "WHERE run_id = ?", run_id)
        if not runs:
            raise JournalMissingError(f"{self.name} has no run {run_id}: list them with riwoactl verify")
        return runs[0]

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
        revisions = self._tables.records(ConfigRevisionRecord, "WHERE run_id = ? ORDER BY revision", run_id)
        if not revisions and self._tables.select("runs", "WHERE run_id = ?", run_id):
            raise JournalCorruptError(
                f"{self.name}: run {run_id} has no configuration: keep a copy, then restore a backup"
            )
        return revisions

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

    # -- what a search asks of its past: by index, not by reading it all ---------------------------------------------

    def newest_fresh(self, run_id: int, limit: int, *, in_full: bool = True) -> list[IndividualRecord]:
        """The last ``limit`` individuals of the run that were no hits, oldest first.

        ``in_full``: only those that were evaluated in full, not who failed or was given up.
        """
        found: list[IndividualRecord] = []
        for end in range(self.generation_count(run_id), 0, -PAGE_GENERATIONS):
            rest = "WHERE run_id = ? AND generation >= ? AND generation < ? ORDER BY generation DESC, slot DESC"
            for row in self._individuals(rest, run_id, end - PAGE_GENERATIONS, end):
                # Not by the WHERE: a damaged column would hide its row.
                wanted = not row["cache_hit"] and (row["status"] == "ok" or not in_full)
                if wanted and len(found) < limit:
                    found.append(self._tables.individual(row))
            if len(found) >= limit:
                break
        return found[::-1]

    # -- evaluations -----------------------------------------------------------------------------------------------

    def evaluations(
        self, oracle_version: str, on_damage: Callable[[RowDamagedError], None] | None = None
    ) -> Iterator[EvaluationRecord]:
        """Stored evaluations of an oracle, in the order in which their architectures were first seen.

        With ``on_damage`` those that are damaged are told there and left out: they are but a cache.
        """
        page = f"SELECT architecture_id FROM evaluations {_OF_ORACLE} > ? ORDER BY architecture_id LIMIT ?"
        after = 0
        while numbers := [number for (number,) in self._tables.rows(page, oracle_version, after, PAGE_ROWS)]:
            after = numbers[-1]
            try:
                yield from self._evaluations(oracle_version, numbers[0], after)
            except RowDamagedError:
                if on_damage is None:
                    raise
                yield from self._intact_evaluations(oracle_version, numbers, on_damage)

    def work_by_worker(self, oracle_version: str, since_unix_s: float) -> dict[str, tuple[int, float]]:
        """How many evaluations of an oracle were stored since a time, and their seconds, by who evaluated."""
        rest = "WHERE oracle_id = (SELECT text_id FROM texts WHERE text = ?) AND created_unix_s >= ? GROUP BY worker"
        query = f"SELECT worker, COUNT(*), SUM(duration_s) FROM evaluations {rest}"
        rows = self._tables.rows(query, oracle_version, since_unix_s)
        return {str(worker): (int(count), float(seconds)) for worker, count, seconds in rows}

    def _evaluations(self, oracle_version: str, first: int, last: int) -> list[EvaluationRecord]:
        """Those of architectures in a range of numbers."""
        rest = f"{_OF_ORACLE} BETWEEN ? AND ? ORDER BY architecture_id"
        rows = self._tables.with_architectures("evaluations", rest, oracle_version, first, last)
        return list(map(self._tables.evaluation, rows))

    def _intact_evaluations(
        self, oracle_version: str, numbers: Sequence[int], on_damage: Callable[[RowDamagedError], None]
    ) -> Iterator[EvaluationRecord]:
        for number in numbers:
            try:
                yield from self._evaluations(oracle_version, number, number)
            except RowDamagedError as error:
                on_damage(error)

    # -- cognition -------------------------------------------------------------------------------------------------

    def requests(self, run_id: int, *, unanswered: bool | None = None) -> list[RequestRecord]:
        """Requests of the run by generation and slot; only those with (False) or without (True) a reply if said."""
        condition = {
            None: "",
            True: "AND request_id NOT IN (SELECT request_id FROM replies)",
            False: "AND request_id IN (SELECT request_id FROM replies)",
        }[unanswered]
        rest = f"WHERE run_id = ? {condition} ORDER BY generation, slot"
        return self._tables.records(RequestRecord, rest, run_id)

    def request(self, request_id: str) -> RequestRecord | None:
        """One request."""
        return next(iter(self._tables.records(RequestRecord, "WHERE request_id = ?", request_id)), None)

    def requests_joining(self, run_id: int, start: int) -> list[RequestRecord]:
        """Requests whose replies join generation ``start`` or later, by generation and slot."""
        rest = "WHERE run_id = ? AND join_generation >= ? ORDER BY generation, slot"
        return self._tables.records(RequestRecord, rest, run_id, start)

    def replies(self, run_id: int) -> dict[str, ReplyRecord]:
        """The run's replies by request id."""
        rest = "JOIN requests USING (request_id) WHERE run_id = ? ORDER BY generation, slot"
        return {reply.request_id: reply for reply in self._tables.records(ReplyRecord, rest, run_id)}

    def reply(self, request_id: str) -> ReplyRecord | None:
        """The stored reply to one request."""
        return next(iter(self._tables.records(ReplyRecord, "WHERE request_id = ?", request_id)), None)

    def buffer(self, run_id: int, *, after: int = 0) -> list[BufferEntryRecord]:
        """Successes of the run with ids above ``after``, oldest first, consumed ones included."""
        rest = "WHERE run_id = ? AND entry_id > ? ORDER BY entry_id"
        return self._tables.records(BufferEntryRecord, rest, run_id, after)

    def adapters(self, run_id: int, *, weights: bool = True) -> list[AdapterRecord]:
        """Checkpoints of the run, oldest first; without their weights (None) if said."""
        rows = self._tables.select("adapters", "WHERE run_id = ? ORDER BY adapter_id", run_id)
        return [
            self._tables.record(AdapterRecord, row, weights=self.weights(row["adapter_id"]) if weights else None)
            for row in rows
        ]

    def weights(self, adapter_id: int) -> bytes | None:
        """The bytes of one checkpoint; None where retention dropped them."""
        rows = self._tables.rows("SELECT weights FROM adapters WHERE adapter_id = ?", adapter_id)
        return rows[0][0] if rows else None

    @overload
    def events(self, run_id: int | None = None) -> list[Event]: ...

    @overload
    def events(self, run_id: int | None, kind: type[E]) -> list[E]: ...

    def events(self, run_id: int | None = None, kind: type[Any] = Event) -> list[Any]:
        """Events of a run, or of all runs, oldest first; of one kind if it is named by its class."""
        where, parameters = ("", ()) if run_id is None else ("WHERE run_id = ?", (run_id,))
        rows = self._tables.select("events", f"{where} ORDER BY event_id", *parameters)
        # All are read, whatever their kind: a damaged one would hide its row.
        return [event for event in map(self._tables.event, rows) if isinstance(event, kind)]
