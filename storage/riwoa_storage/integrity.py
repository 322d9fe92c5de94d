"""Checks of a whole journal: SQLite's structure, each row's checksum, and one committed state to look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from riwoa_storage.checked import CheckedTables
from riwoa_storage.errors import JournalCorruptError, RowDamagedError
from riwoa_storage.records import RunVerification


class Integrity:
    """What ``replay.verify`` asks of a journal besides its records."""

    def __init__(self, tables: CheckedTables) -> None:
        self._tables = tables

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See one committed state throughout; the writer's log cannot be folded meanwhile, so keep it short."""
        self._tables.rows("BEGIN")
        try:
            yield
        finally:
            self._tables.rows("ROLLBACK")

    def check_structure(self) -> str:
        """Run SQLite's own integrity and foreign-key checks; returns "ok".

        Raises:
            JournalCorruptError: with the first complaint.
        """
        name, rows = self._tables.name, self._tables.rows
        (complaint, *_) = (row[0] for row in rows("PRAGMA integrity_check(1)"))
        if complaint == "ok" and (dangling := rows("PRAGMA foreign_key_check")):
            complaint = f"row {dangling[0][1]} of {dangling[0][0]} refers to a {dangling[0][2]} row that is not there"
        if complaint != "ok":
            summary = " ".join(str(complaint).split())
            raise JournalCorruptError(f"{name} is damaged ({summary}): keep a copy, then restore a backup")
        return "ok"

    def check_rows(self) -> None:
        """Check every row of every table by its checksum.

        Raises:
            RowDamagedError: the first that does not match.
        """
        self._tables.check_all()

    def generation_rows(self, run_id: int) -> int:
        """How many generation rows the run has, whatever the run itself says."""
        return int(self._tables.rows("SELECT count(*) FROM generations WHERE run_id = ?", run_id)[0][0])

    def verified(self, run_id: int) -> RunVerification | None:
        """How far the run's chain was proved before; None where that is not known, or its own row is damaged."""
        try:
            return next(iter(self._tables.records(RunVerification, "WHERE run_id = ?", run_id)), None)
        except RowDamagedError:
            return None

    def adapter_weights(self) -> Iterator[tuple[int, str, bytes | None]]:
        """(adapter_id, sha256, weights) of every run's adapters; one in memory at a time."""
        for (adapter_id,) in self._tables.rows("SELECT adapter_id FROM adapters ORDER BY adapter_id"):
            sql = "SELECT adapter_id, sha256, weights FROM adapters WHERE adapter_id = ?"
            yield from self._tables.rows(sql, adapter_id)
