"""All individuals of a run as flat rows, for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from riwoa_storage.checked import CheckedTables
from riwoa_storage.errors import JournalCorruptError
from riwoa_storage.history import ALL_BITS

COLUMNS = (
    *("run_id", "generation", "slot", "name", "operator", "parent_generation", "parent_slot", "status"),
    *("cache_hit", "fitness", "config_revision", "committed_unix_s", "request_id", "error", "architecture_key"),
)
_PAGE_GENERATIONS = 64  # whose individuals are read per statement


class FlatRows:
    """Individuals of a run, a page at a time; NOT checked, for there may be very many: ``verify`` checks them."""

    def __init__(self, tables: CheckedTables) -> None:
        self._tables = tables

    def rows(self, run_id: int) -> Iterator[tuple[list[Any], dict[str, Any], dict[str, Any]]]:
        """``COLUMNS``, metrics and architecture of each individual, ascending."""
        sql = (
            "SELECT i.generation, i.slot, a.key_hash, i.operator, i.parent_generation, i.parent_slot, i.status, "
            "i.cache_hit, i.fitness, g.config_revision, g.committed_unix_s, i.request_id, i.error, a.architecture_key, "
            "i.metrics, a.genes_id, a.choices FROM individuals AS i JOIN architectures AS a USING (architecture_id) "
            "JOIN generations AS g ON g.run_id = i.run_id AND g.generation = i.generation "
            "WHERE i.run_id = ? AND i.generation BETWEEN ? AND ? ORDER BY i.generation, i.slot"
        )
        for start, end in self._pages(run_id):
            rows = self._tables.rows(sql, run_id, start, end)
            names = {number: json.loads(self._tables.text(number)) for number in {row[-2] for row in rows}}
            try:  # all at once: a call a row would take longer than SQLite does
                metrics, choices = (json.loads(f"[{','.join(row[at] for row in rows)}]") for at in (-3, -1))
                architectures = [
                    dict(zip(names[row[-2]], of, strict=True)) for row, of in zip(rows, choices, strict=True)
                ]
            except (ValueError, TypeError, RecursionError) as error:
                raise JournalCorruptError(
                    f"{self._tables.name}: a candidate of generations {start} to {end} of run {run_id} cannot be read "
                    f"({error}): run riwoactl verify, then restore a backup"
                ) from None
            for row, measured, architecture in zip(rows, metrics, architectures, strict=True):
                generation, slot, hashed, *more = row[:-3]
                yield [run_id, generation, slot, f"{hashed & ALL_BITS:016x}", *more], measured, architecture

    def _pages(self, run_id: int) -> Iterator[tuple[int, int]]:
        """Ranges of generations whose individuals fit into memory, both ends included."""
        sql = "SELECT max(generation) FROM generations WHERE run_id = ?"
        last = self._tables.rows(sql, run_id)[0][0]
        for start in range(0, -1 if last is None else last + 1, _PAGE_GENERATIONS):
            yield start, start + _PAGE_GENERATIONS - 1

    def metric_names(self, run_id: int) -> list[str]:
        """Names of all metrics that an individual of a run has."""
        sql = (
            "SELECT DISTINCT key FROM (SELECT DISTINCT metrics FROM individuals WHERE run_id = ?), json_each(metrics) "
            "ORDER BY key"
        )
        return [name for (name,) in self._tables.rows(sql, run_id)]

    def gene_names(self, run_id: int) -> list[str]:
        """Names of all genes that an individual of a run has."""
        sql = "SELECT DISTINCT genes_id FROM individuals JOIN architectures USING (architecture_id) WHERE run_id = ?"
        names = {name for (number,) in self._tables.rows(sql, run_id) for name in json.loads(self._tables.text(number))}
        return sorted(names)
