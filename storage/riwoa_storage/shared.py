"""What many rows share is stored once: texts, and architectures as their gene names and their choices apart.

An architecture of 46 genes takes a kilobyte as JSON and 70 bytes as choices; its gene names are those of every other
with the same depths.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, cast

from riwoa_storage.digest import canonical_json
from riwoa_storage.records import Json
from riwoa_storage.seal import insertion, is_intact, sealed, selection
from riwoa_storage.tables import COLUMNS, Row


def key_hash(key: str) -> int:
    """The hash that an architecture's key is looked up by."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)


def genes(architecture: Json) -> str:
    """The gene names of an architecture, as stored."""
    return _names_as_json(tuple(sorted(architecture)))


@lru_cache(256)
def _names_as_json(names: tuple[str, ...]) -> str:
    return canonical_json(names)


def choices(architecture: Json) -> str:
    """The choices of an architecture in the order of its gene names, as stored."""
    return canonical_json([architecture[name] for name in sorted(architecture)])


def joined(names: Sequence[str], values: str) -> dict[str, Any]:
    """The architecture of stored names and choices.

    Raises:
        ValueError: they do not belong together.
    """
    return dict(zip(names, json.loads(values), strict=True))


def split_leader(leader: Json | None) -> tuple[str, Json] | None:
    """Key and architecture of a leader that names both; what remains is stored with its generation."""
    if leader is None or not isinstance(leader.get("architecture_key"), str):
        return None
    architecture = leader.get("architecture")
    return (leader["architecture_key"], architecture) if isinstance(architecture, Mapping) else None


def leader_rest(leader: Json) -> Json:
    """The leader as it is stored: without its architecture, where that is stored by itself."""
    return leader if split_leader(leader) is None else {k: v for k, v in leader.items() if k != "architecture"}


class Shared:
    """Numbers of texts and architectures, stored now where they were not; lives within one transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._texts: dict[str, int] = {}
        self._architectures: dict[str, list[Row]] = {}  # intact rows by key

    def text(self, text: str) -> int:
        """The number of a text; it is stored now if it was not."""
        if text not in self._texts:
            known = self._db.execute("SELECT text_id FROM texts WHERE text = ?", (text,)).fetchone()
            self._texts[text] = self._insert("texts", text) if known is None else known[0]
        return self._texts[text]

    def architecture(self, key: str, architecture: Json) -> int:
        """The number of an architecture; it is stored now if it was not."""
        content = (self.text(genes(architecture)), choices(architecture))
        for number, _, _, *known, _ in self._of(key):
            if tuple(known) == content:
                return cast(int, number)
        number = self._insert("architectures", key_hash(key), key, *content)
        del self._architectures[key]
        return number

    def architectures(self, key: str) -> list[int]:
        """Numbers of all architectures of a key: one, but for spaces that share it."""
        return [cast(int, row[0]) for row in self._of(key)]

    def _of(self, key: str) -> list[Row]:
        if key not in self._architectures:
            sql = f"SELECT {selection('architectures')} FROM architectures WHERE key_hash = ?"
            rows = self._db.execute(sql, (key_hash(key),)).fetchall()
            # A damaged one is left out: what would use it is stored anew, and what does use it says so when read.
            self._architectures[key] = [row for row in rows if is_intact("architectures", row) and row[2] == key]
        return self._architectures[key]

    def _insert(self, table: str, *values: object) -> int:
        number = next_id(self._db, table, COLUMNS[table][0])
        self._db.execute(insertion(table), sealed(table, (number, *values)))
        return number


def next_id(db: sqlite3.Connection, table: str, column: str) -> int:
    """The number that the next row of a table gets: its checksum covers it, so it is known beforehand."""
    (highest,) = db.execute(f"SELECT max({column}) FROM {table}").fetchone()
    return (highest or 0) + 1
