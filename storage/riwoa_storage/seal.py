"""The checksum of a row: a flipped bit of what a resume uses is found where the row is read, not believed.

Each table names here the columns that its checksum covers, in their order; reading, writing and migrating all go by
this list. Not covered are bytes that a column beside them proves (an adapter's weights, by ``sha256``), and numbers of
rows that no record shows and nothing refers to.

Eight bytes tell a damaged row from a whole one; they are no proof against somebody who means to deceive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "texts": ("text_id", "text"),
    "architectures": ("architecture_id", "key_hash", "architecture_key", "genes_id", "choices"),
    "runs": ("run_id", "status", "provenance", "generations", "digest", "created_unix_s"),
    "verified": ("run_id", "generations", "digest"),
    "config_revisions": ("run_id", "revision", "generation", "config", "changed", "created_unix_s"),
    "generations": (
        *("run_id", "generation", "phase", "config_revision", "counters", "leader", "leader_architecture_id"),
        *("inputs", "joined_requests", "duration_s", "digest", "committed_unix_s", "state_sha256"),
    ),
    "individuals": (
        *("run_id", "generation", "slot", "operator", "parent_generation", "parent_slot", "genotype"),
        *("architecture_id", "status", "metrics", "fitness", "fitness_version_id", "cache_hit", "request_id", "error"),
    ),
    "evaluations": (
        *("oracle_id", "architecture_id", "status", "metrics", "error", "attempts", "worker", "duration_s"),
        "created_unix_s",
    ),
    "requests": (
        *("request_id", "run_id", "generation", "slot", "join_generation", "model", "adapter_sha256", "seed"),
        *("prompt", "parameters", "created_unix_s"),
    ),
    "replies": ("request_id", "status", "text", "reason", "tokens", "duration_s", "created_unix_s"),
    "buffer_entries": (
        *("entry_id", "run_id", "request_id", "generation", "parent_fitness", "child_fitness", "trace"),
        *("consumed_by", "created_unix_s"),
    ),
    "adapters": (
        *("adapter_id", "run_id", "generation", "parent_id", "sha256", "status", "training", "created_unix_s"),
    ),
    "events": ("event_id", "run_id", "generation", "kind", "payload", "created_unix_s"),
}

# How a row is named to a user.
NAMING: Mapping[str, tuple[str, ...]] = {
    "texts": ("text_id",),
    "architectures": ("architecture_id",),
    "runs": ("run_id",),
    "verified": ("run_id",),
    "config_revisions": ("run_id", "revision"),
    "generations": ("run_id", "generation"),
    "individuals": ("run_id", "generation", "slot"),
    "evaluations": ("oracle_id", "architecture_id"),
    "requests": ("request_id",),
    "replies": ("request_id",),
    "buffer_entries": ("entry_id",),
    "adapters": ("adapter_id",),
    "events": ("event_id",),
}

Row = tuple[object, ...]


def checksum(table: str, values: Sequence[object]) -> int:
    """Of a row's covered columns, as SQLite gives them back; a signed integer of 64 bits."""
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
    """The covered columns and the checksum, for a SELECT."""
    return ", ".join(f"{alias or table}.{column}" for column in (*COLUMNS[table], "checksum"))


def insertion(table: str, *more: str) -> str:
    """The INSERT of a sealed row; ``more`` are columns beyond, whose values follow."""
    columns = (*COLUMNS[table], "checksum", *more)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


def damage(table: str, values: Sequence[object]) -> str:
    """What is said of a damaged row, and what to do."""
    row = dict(zip(COLUMNS[table], values, strict=False))
    which = ", ".join(f"{column} {row[column]!a}" for column in NAMING[table])
    return (
        f"the row of {table} with {which} is damaged (its checksum does not match): keep a copy, then restore a backup "
        "or start afresh with another --state"
    )
