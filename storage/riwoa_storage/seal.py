"""The checksum of a row: a flipped bit of what a resume uses is found where the row is read, not believed.

It covers the columns that ``tables.COLUMNS`` names, in their order.

Eight bytes tell a damaged row from a whole one; they are no proof against somebody who means to deceive.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from riwoa_storage.tables import COLUMNS, NAMING, Row


def checksum(table: str, values: Sequence[object]) -> int:
    """The checksum of a row's covered columns, as SQLite gives them back: a signed integer of 64 bits."""
    blob, plain = b"", tuple(values)
    if table in _BLOBS:
        at = _BLOBS[table]
        blob, plain = values[at], plain[:at] + plain[at + 1 :]  # type: ignore[assignment]
    # One call for the whole row: a start may read 100,000 of them. ascii() and not repr(), whose escapes depend on the
    # version of Python.
    content = b"%s\0%s\0%s" % (table.encode(), ascii(plain).encode(), blob)
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big", signed=True)


_BLOBS = {"individuals": COLUMNS["individuals"].index("genotype")}  # ascii() would make four characters of a byte


def sealed(table: str, values: Row) -> Row:
    """A row with its checksum behind it."""
    return (*values, checksum(table, values))


def is_intact(table: str, row: Row) -> bool:
    """Whether a row as selected with ``selection`` is what was written."""
    return checksum(table, row[:-1]) == row[-1]


def selection(table: str, alias: str | None = None) -> str:
    """The covered columns and the checksum, as a SELECT lists them."""
    return ", ".join(f"{alias or table}.{column}" for column in (*COLUMNS[table], "checksum"))


def insertion(table: str, *more: str) -> str:
    """The INSERT of a sealed row; ``more`` are columns beyond, whose values follow."""
    columns = (*COLUMNS[table], "checksum", *more)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def damage(table: str, values: Sequence[object]) -> str:
    """The message about a damaged row: which it is, and what to do."""
    row = dict(zip(COLUMNS[table], values, strict=False))
    which = ", ".join(f"{column} {row[column]!a}" for column in NAMING[table])
    return (
        f"the row of {table} with {which} is damaged (its checksum does not match): keep a copy, then restore a backup "
        "or start afresh with another --state"
    )
