"""Individuals of a run by the names of their architectures, or by the beginnings of those."""

from __future__ import annotations

from riwoa_storage.checked import CheckedTables
from riwoa_storage.history import History, Place, PlacedIndividual
from riwoa_storage.shared import key_hash

_HEX_DIGITS = 16  # of a key's hash


class NameLookup:
    """The first individual of each architecture that a name, or a key, may mean."""

    def __init__(self, tables: CheckedTables, history: History) -> None:
        self._tables = tables
        self._history = history

    def named(self, run_id: int, prefix: str, limit: int = 9) -> list[PlacedIndividual]:
        """The first individual of each architecture whose name begins so, by name, in lower-case hexadecimal."""
        low, high = (_signed(prefix.ljust(_HEX_DIGITS, filling)) for filling in "0f")
        return self._first_of(run_id, "key_hash BETWEEN ? AND ?", (low, high), limit)

    def keyed(self, run_id: int, prefix: str, limit: int = 9) -> list[PlacedIndividual]:
        """The first individual of each architecture whose key begins so, by name; an exact one comes alone."""
        exact = self._first_of(run_id, "key_hash = ? AND architecture_key = ?", (key_hash(prefix), prefix), 1)
        return exact or self._first_of(run_id, "instr(architecture_key, ?) = 1", (prefix,), limit)

    def nearest_named(self, run_id: int, prefix: str) -> PlacedIndividual | None:
        """The individual whose architecture's name shares most of its beginning with this; None in an empty run."""
        for length in range(len(prefix), 0, -1):
            if found := self.named(run_id, prefix[:length], 1):
                return found[0]
        return next(iter(self._history.individuals(run_id, limit=1)), None)

    def _first_of(
        self, run_id: int, condition: str, parameters: tuple[object, ...], limit: int
    ) -> list[PlacedIndividual]:
        # The run's own, by index: another run, or an evaluation alone, may know the architecture too.
        first = (
            "(SELECT generation || '/' || slot FROM individuals WHERE run_id = ? AND "
            "architecture_id = architectures.architecture_id ORDER BY status != 'ok', individual_id LIMIT 1)"
        )
        sql = (
            f"SELECT place FROM (SELECT {first} AS place FROM architectures WHERE {condition} ORDER BY key_hash) "
            "WHERE place IS NOT NULL LIMIT ?"
        )
        rows = self._tables.rows(sql, run_id, *parameters, limit)
        return self._history.individuals_at(run_id, [_place(text) for (text,) in rows])


def _signed(digits: str) -> int:
    number = int(digits, 16)
    return number - (1 << 64) if number >> 63 else number


def _place(text: str) -> Place:
    generation, slot = map(int, text.split("/"))
    return generation, slot
