"""What the journal knows of single individuals, by their places: read page by page, never all of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from riwoa_storage.checked import CheckedTables
from riwoa_storage.errors import JournalCorruptError

PAGE_ROWS = 256  # read per statement


class PlaceLookup:
    """Committed individuals at (generation, slot)."""

    def __init__(self, tables: CheckedTables) -> None:
        self._tables = tables

    def metrics_of(
        self, run_id: int, places: Iterable[tuple[int, int]]
    ) -> dict[tuple[int, int], dict[str, Any] | None]:
        """Metrics of committed individuals at (generation, slot); None where not evaluated in full.

        Raises:
            JournalCorruptError: one of them is not there, although it was committed.
        """
        found: dict[tuple[int, int], dict[str, Any] | None] = {}
        for page in _pages(places):
            for row in self._tables.individuals_at(run_id, page):
                place = (row["generation"], row["slot"])
                found[place] = json.loads(row["metrics"]) if row["status"] == "ok" else None
            if missing := [place for place in page if place not in found]:
                raise self._not_there(run_id, *missing[0])
        return found

    def points_at(self, run_id: int, places: Iterable[tuple[int, int]]) -> list[tuple[str, dict[str, Any], int, int]]:
        """(architecture_key, metrics, generation, slot) of individuals evaluated in full, ascending.

        Raises:
            JournalCorruptError: one of these (generation, slot) is not there, or was not evaluated in full.
        """
        found = []
        for page in _pages(places):
            rows = {(r["generation"], r["slot"]): r for r in self._tables.individuals_at(run_id, page, named=True)}
            for place in page:
                if place not in rows or rows[place]["status"] != "ok":
                    raise self._not_there(run_id, *place)
                found.append((rows[place]["architecture_key"], json.loads(rows[place]["metrics"]), *place))
        return sorted(found, key=lambda point: point[2:])

    def scan(self, run_id: int, start: int, end: int) -> list[tuple[int, str, int, int]]:
        """(architecture_id, metrics as JSON, generation, slot) of what was evaluated in full, ascending; NOT checked.

        In generations ``start`` to ``end`` (excluded). A checksum takes five times as long as the rest, so this is for
        choosing a few individuals among very many: what is used of those is read again by ``points_at``.
        """
        sql = (
            "SELECT architecture_id, metrics, generation, slot FROM individuals "
            "WHERE run_id = ? AND generation >= ? AND generation < ? AND status = 'ok' ORDER BY generation, slot"
        )
        return self._tables.rows(sql, run_id, start, end)

    def architecture_keys(self, architecture_ids: Iterable[int]) -> Iterator[str]:
        """Keys of architectures by the numbers that ``scan`` gives."""
        wanted = sorted(architecture_ids)
        for at in range(0, len(wanted), PAGE_ROWS):
            numbers = ",".join(map(str, wanted[at : at + PAGE_ROWS]))
            for row in self._tables.select("architectures", f"WHERE architecture_id IN ({numbers})"):
                yield row["architecture_key"]

    def _not_there(self, run_id: int, generation: int, slot: int) -> JournalCorruptError:
        return JournalCorruptError(
            f"{self._tables.name}: individual {slot} of generation {generation} of run {run_id} is not there: "
            "keep a copy, then restore a backup"
        )


def _pages(places: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Distinct places, ``PAGE_ROWS`` at a time."""
    wanted = list(dict.fromkeys(places))
    for at in range(0, len(wanted), PAGE_ROWS):
        yield wanted[at : at + PAGE_ROWS]
