"""What many rows share is stored once: texts, and architectures as their gene names and their choices apart.

An architecture of 46 genes takes a kilobyte as JSON and 70 bytes as choices; its gene names are those of every other
with the same depths.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from riwoa_storage.digest import canonical_json
from riwoa_storage.records import Json
from riwoa_storage.seal import insertion, is_intact, sealed, selection


def key_hash(key: str) -> int:
    """What an architecture's key is looked up by."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)


def genes(architecture: Json) -> str:
    """The names, as stored."""
    return canonical_json(sorted(architecture))


def choices(architecture: Json) -> str:
    """The values in the order of their names, as stored."""
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
    """A leader as stored: without the architecture, where that is stored by itself."""
    return leader if split_leader(leader) is None else {k: v for k, v in leader.items() if k != "architecture"}


def text_id(db: sqlite3.Connection, text: str) -> int:
    """Number of a text, stored now if it was not; within the caller's transaction."""
    known = db.execute("SELECT text_id FROM texts WHERE text = ?", (text,)).fetchone()
    if known is not None:
        return int(known[0])
    number = next_id(db, "texts", "text_id")
    db.execute(insertion("texts"), sealed("texts", (number, text)))
    return number


def architectures_of(db: sqlite3.Connection, key: str) -> list[tuple[Any, ...]]:
    """Rows of the architectures of a key; a damaged row of its hash may be one of them and is left out."""
    sql = f"SELECT {selection('architectures')} FROM architectures WHERE key_hash = ?"
    rows = db.execute(sql, (key_hash(key),)).fetchall()
    return [row for row in rows if is_intact("architectures", row) and row[2] == key]


def architecture_id(db: sqlite3.Connection, key: str, architecture: Json) -> int:
    """Number of an architecture, stored now if it was not; within the caller's transaction."""
    content = (text_id(db, genes(architecture)), choices(architecture))
    for number, _, _, *known, _ in architectures_of(db, key):
        if tuple(known) == content:
            return int(number)
    number = next_id(db, "architectures", "architecture_id")
    db.execute(insertion("architectures"), sealed("architectures", (number, key_hash(key), key, *content)))
    return number


def next_id(db: sqlite3.Connection, table: str, column: str) -> int:
    """The number that the next row of a table gets: its checksum covers it, so it is known beforehand."""
    (highest,) = db.execute(f"SELECT max({column}) FROM {table}").fetchone()
    return (highest or 0) + 1
