"""Rows that were checked, and the records made of them. What ``JournalReader`` asks for, this reads."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from riwoa_storage.connect import connect_reader, translate
from riwoa_storage.errors import JournalCorruptError, RowDamagedError
from riwoa_storage.events import Event, event_of
from riwoa_storage.records import EvaluationRecord, GenerationRecord, GenerationSummary, IndividualRecord
from riwoa_storage.seal import damage, is_intact, selection
from riwoa_storage.shared import joined
from riwoa_storage.tables import COLUMNS, DECODERS, NAMING, TABLES, Row, Values

_MOST_TEXTS = 4096  # kept as read; a space's architectures have few sets of active genes
_LARGEST = 2**63 - 1  # integer of SQLite

_NAMING = tuple(dict.fromkeys(column for columns in NAMING.values() for column in columns))

R = TypeVar("R")


class CheckedTables:
    """A read-only connection that gives rows out only if their checksums hold.

    Raises:
        JournalMissingError, JournalUnreadableError, JournalVersionError, JournalCorruptError: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.path.abspath(path)
        self._connection = connect_reader(path)
        # A damaged byte need not be UTF-8; the checksum tells, and says which row it is.
        self._connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        self._texts: dict[int, str] = {}
        self._names: dict[int, list[str]] = {}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows as they are, unchecked; a number that SQLite cannot hold is like the largest that it can.

        Raises:
            StorageError: the journal cannot be read, or is damaged.
        """
        bounded = [max(-_LARGEST, min(p, _LARGEST)) if isinstance(p, int) else p for p in parameters]
        try:
            with closing(self._connection.execute(sql, bounded)) as cursor:
                return cursor.fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise translate(error, self.name, reading=True) from error

    def select(self, table: str, rest: str, *parameters: object) -> list[Values]:
        """Covered columns of rows of one table, checked; ``rest`` follows the FROM.

        Raises:
            RowDamagedError: the first row whose checksum does not match.
        """
        found = self.rows(f"SELECT {selection(table)} FROM {table} {rest}", *parameters)
        return [self._checked(table, row) for row in found]

    def with_architectures(self, table: str, rest: str, *parameters: object) -> list[Values]:
        """Rows of a table that refers to architectures, with the architectures' columns; all checked, as ``select``."""
        sql = (
            f"SELECT {selection(table)}, {selection('architectures')} FROM {table} "
            f"LEFT JOIN architectures USING (architecture_id) {rest}"
        )
        return [self._checked_pair(table, row) for row in self.rows(sql, *parameters)]

    def of_architectures(self, table: str, hashes: Sequence[int], rest: str, *parameters: object) -> list[Values]:
        """Rows of a table whose architectures' keys have these hashes, with their architectures, checked.

        ``rest`` may compare the table's columns with what it looks up of ``architectures.architecture_id``.
        """
        # CROSS: from the architectures to their rows, each by an index, whatever SQLite believes.
        sql = (
            f"SELECT {selection(table)}, {selection('architectures')} FROM architectures "
            f"CROSS JOIN {table} ON {table}.architecture_id = architectures.architecture_id "
            f"WHERE architectures.key_hash IN ({','.join(map(str, hashes))}) AND {rest}"
        )
        return [self._checked_pair(table, row) for row in self.rows(sql, *parameters)]

    def individuals_at(self, run_id: int, places: Sequence[tuple[int, int]], *, named: bool = False) -> list[Values]:
        """Individuals at (generation, slot) each, checked; ``named``: with their architectures', checked too."""
        wanted = ",".join("(?,?)" for _ in places)
        columns = f"{selection('individuals')}, {selection('architectures')}" if named else selection("individuals")
        sql = (
            f"WITH wanted (at_generation, at_slot) AS (VALUES {wanted}) SELECT {columns} FROM wanted "
            "CROSS JOIN individuals ON run_id = ? AND generation = at_generation AND slot = at_slot "
            f"{'LEFT JOIN architectures USING (architecture_id)' if named else ''}"
        )
        found = self.rows(sql, *(number for place in places for number in place), run_id)
        return [self._checked_pair("individuals", r) if named else self._checked("individuals", r) for r in found]

    def _check(self, table: str, row: Row) -> None:
        if not is_intact(table, row):
            raise RowDamagedError(f"{self.name}: {damage(table, row)}")

    def _checked(self, table: str, row: Row) -> Values:
        self._check(table, row)
        return dict(zip(COLUMNS[table], row, strict=False))

    def _checked_pair(self, table: str, row: Row) -> Values:
        """Check a row of a table and of the architecture behind it; returns the columns of both."""
        width = len(COLUMNS[table]) + 1
        return {**self._checked("architectures", row[width:]), **self._checked(table, row[:width])}

    def check_all(self) -> None:
        """Check every row of every table.

        Raises:
            RowDamagedError: the first whose checksum does not match.
        """
        for table in COLUMNS:
            try:
                with closing(self._connection.execute(f"SELECT {selection(table)} FROM {table}")) as cursor:
                    for row in cursor:
                        self._check(table, row)
            except (sqlite3.Error, UnicodeError) as error:
                raise translate(error, self.name, reading=True) from error

    # -- what rows share ---------------------------------------------------------------------------------------------

    def text(self, text_id: int) -> str:
        """A shared text.

        Raises:
            RowDamagedError, JournalCorruptError: it is damaged, or not there.
        """
        if text_id not in self._texts:
            rows = self.select("texts", "WHERE text_id = ?", text_id)
            if not rows:
                raise JournalCorruptError(f"{self.name}: text {text_id} is not there: keep a copy, restore a backup")
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
                self._names.clear()
            self._texts[text_id] = rows[0]["text"]
        return self._texts[text_id]

    def architecture(self, row: Values) -> dict[str, Any]:
        """The architecture of a row of ``architectures``, or of one joined with it."""
        names_id = row["genes_id"]
        text = self.text(names_id)
        try:
            if names_id not in self._names:
                self._names[names_id] = json.loads(text)
            return joined(self._names[names_id], row["choices"])
        except (ValueError, TypeError, RecursionError) as error:
            raise self._unreadable(row, "choices", error) from None

    def _json(self, row: Values, column: str) -> Any:
        try:
            return json.loads(row[column])
        except (ValueError, RecursionError) as error:
            raise self._unreadable(row, column, error) from None

    def _unreadable(self, row: Values, column: str, error: Exception) -> JournalCorruptError:
        """The error of content that never was what it should be, or was damaged before there were checksums."""
        which = ", ".join(f"{key} {row[key]!a}" for key in _NAMING if key in row)
        return JournalCorruptError(
            f"{self.name}: {column} of {which} cannot be read ({error}): keep a copy, then restore a backup"
        )

    # -- rows to records -----------------------------------------------------------------------------------------------

    def record(self, of: type[R], row: Values, **others: object) -> R:
        """The record of a checked row; ``others`` are the fields that no column holds as they are.

        Raises:
            JournalCorruptError: a column holds what a record of this kind cannot.
        """
        for name, decode in DECODERS[of].items():
            if name not in others:
                try:
                    others[name] = row[name] if decode is None else decode(row[name])
                except (ValueError, RecursionError) as error:
                    raise self._unreadable(row, name, error) from None
        return of(**others)

    def records(self, of: type[R], rest: str, *parameters: object) -> list[R]:
        """Records of a table whose columns are a record's fields, checked; ``rest`` follows the FROM."""
        return [self.record(of, row) for row in self.select(TABLES[of], rest, *parameters)]

    def summary(self, row: Values) -> GenerationSummary:
        """A generation of a row of ``generations`` alone."""
        return self.record(GenerationSummary, row, leader=self._leader(row))

    def _leader(self, row: Values) -> dict[str, Any] | None:
        if row["leader"] is None:
            return None
        leader: dict[str, Any] = self._json(row, "leader")
        if row["leader_architecture_id"] is not None:
            (found,) = self.select("architectures", "WHERE architecture_id = ?", row["leader_architecture_id"])
            leader["architecture"] = self.architecture(found)
        return leader

    def generation(self, row: Values, individuals: Sequence[Values]) -> GenerationRecord:
        """A generation of its row, its individuals' rows and, if it is the last of its run, its state.

        Raises:
            JournalCorruptError: the state is not the one that was committed.
        """
        return self.record(
            GenerationRecord,
            row,
            leader=self._leader(row),
            state=self._state(row),
            individuals=tuple(map(self.individual, individuals)),
        )

    def _state(self, row: Values) -> bytes | None:
        place = (row["run_id"], row["generation"])
        sql = "SELECT state FROM states WHERE run_id = ? AND generation = ?"
        for (state,) in self.rows(sql, *place):
            if sha256(state).hexdigest() != row["state_sha256"]:
                raise JournalCorruptError(
                    f"{self.name}: the search state of run {place[0]} after generation {place[1]} is damaged: keep a "
                    "copy, then restore a backup or start afresh with another --state"
                )
            return bytes(state)
        return None

    def individual(self, row: Values) -> IndividualRecord:
        """An individual of its row and its architecture's columns."""
        return self.record(
            IndividualRecord,
            row,
            parent=None if row["parent_slot"] is None else (row["parent_generation"], row["parent_slot"]),
            architecture=self.architecture(row),
            architecture_key=row["architecture_key"],
            fitness_version=self.text(row["fitness_version_id"]),
        )

    def evaluation(self, row: Values) -> EvaluationRecord:
        """An evaluation of its row and its architecture's columns."""
        return self.record(
            EvaluationRecord,
            row,
            oracle_version=self.text(row["oracle_id"]),
            architecture=self.architecture(row),
            architecture_key=row["architecture_key"],
        )

    def event(self, row: Values) -> Event:
        """An event of its row, of the class of its kind.

        Raises:
            JournalCorruptError: the payload is not what an event of this kind holds.
        """
        common = {name: row[name] for name in ("run_id", "generation", "created_unix_s")}
        try:
            return event_of(row["kind"], self._json(row, "payload"), **common)
        except TypeError as error:
            raise self._unreadable(row, "payload", error) from None
