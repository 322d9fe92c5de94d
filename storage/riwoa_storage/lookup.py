"""What the journal knows of architectures, by their keys and by index: never by reading all of a run."""

from __future__ import annotations

from collections.abc import Iterable

from riwoa_storage.checked import CheckedTables
from riwoa_storage.errors import RowDamagedError
from riwoa_storage.records import EvaluationRecord, IndividualRecord
from riwoa_storage.shared import key_hash

_PAGE_KEYS = 256  # looked up per statement
_LAST = 2**63 - 1  # no row of SQLite comes after


class KeyLookup:
    """Stored evaluations and committed individuals of architecture keys."""

    def __init__(self, tables: CheckedTables) -> None:
        self._tables = tables

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
        for (number,) in self._tables.rows(
            f"SELECT architecture_id FROM evaluations {rest}", oracle_version, key_hash(key)
        ):
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
        for at in range(0, len(wanted), _PAGE_KEYS):
            hashes = [key_hash(key) for key in wanted[at : at + _PAGE_KEYS]]
            for row in self._tables.of_architectures("evaluations", hashes, rest, oracle_version):
                found.setdefault(row["architecture_key"], self._tables.evaluation(row))
        return {key: found[key] for key in wanted if key in found}

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
        for at in range(0, len(wanted), _PAGE_KEYS):
            hashes = [key_hash(key) for key in wanted[at : at + _PAGE_KEYS]]
            rows = self._tables.of_architectures("individuals", hashes, rest, run_id, otherwise)
            for row in sorted(rows, key=lambda row: (row["generation"], row["slot"])):  # SQL would walk the whole run
                found.setdefault(row["architecture_key"], []).append(self._tables.individual(row))
        return {key: found[key] for key in wanted if key in found}
