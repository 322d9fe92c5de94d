"""The journal's tables: their columns, a record's row, and a row's record.

A record's fields are its table's columns, in the same order; only what is stored otherwise is said here. Reading,
writing, migrating and checksums all go by ``COLUMNS``, so a field that is added to a record needs a migration.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from riwoa_storage.digest import canonical_fitness, canonical_json
from riwoa_storage.records import (
    AdapterRecord,
    BufferEntryRecord,
    ConfigRevisionRecord,
    EvaluationRecord,
    GenerationRecord,
    GenerationSummary,
    IndividualRecord,
    Json,
    ReplyRecord,
    RequestRecord,
    RunRecord,
    RunVerification,
)

Row = tuple[object, ...]
Values = Mapping[str, Any]  # of a row, by column

TABLES: Mapping[type, str] = {
    RunRecord: "runs",
    RunVerification: "verified",
    ConfigRevisionRecord: "config_revisions",
    GenerationRecord: "generations",
    GenerationSummary: "generations",
    IndividualRecord: "individuals",
    EvaluationRecord: "evaluations",
    RequestRecord: "requests",
    ReplyRecord: "replies",
    BufferEntryRecord: "buffer_entries",
    AdapterRecord: "adapters",
}


def _columns(record: type, **otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Columns of a record's fields; ``otherwise`` names the columns of those that are not stored under their name."""
    return tuple(column for f in fields(record) for column in otherwise.get(f.name, (f.name,)))


_OF_ARCHITECTURE: Mapping[str, tuple[str, ...]] = {"architecture": ("architecture_id",), "architecture_key": ()}

# Covered by a row's checksum. Not covered are bytes that a column beside them proves (an adapter's weights by
# ``sha256``, a state by ``state_sha256``), and numbers of rows that no record shows and nothing refers to.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "texts": ("text_id", "text"),
    "architectures": ("architecture_id", "key_hash", "architecture_key", "genes_id", "choices"),
    "runs": _columns(RunRecord),
    "verified": _columns(RunVerification, status=()),
    "config_revisions": _columns(ConfigRevisionRecord),
    "generations": _columns(GenerationRecord, state=(), individuals=(), leader=("leader", "leader_architecture_id")),
    "individuals": (
        *("run_id", "generation"),
        *_columns(
            IndividualRecord,
            parent=("parent_generation", "parent_slot"),
            fitness_version=("fitness_version_id",),
            **_OF_ARCHITECTURE,
        ),
    ),
    "evaluations": _columns(EvaluationRecord, oracle_version=("oracle_id",), **_OF_ARCHITECTURE),
    "requests": _columns(RequestRecord),
    "replies": _columns(ReplyRecord),
    "buffer_entries": _columns(BufferEntryRecord),
    "adapters": _columns(AdapterRecord, weights=()),
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


# -- from records to rows ----------------------------------------------------------------------------------------------


def row_of(record: Any, **stored: object) -> Row:
    """The covered columns of a record, as SQLite gives them back.

    ``stored`` are the columns that no field holds as it is, and those that the journal fills in.
    """
    row = []
    for column, encode in _ENCODERS[type(record)]:
        if column in stored:
            row.append(stored[column])
        else:
            value = getattr(record, column)
            row.append(value if encode is None else encode(value))
    return tuple(row)


def when(unix_s: float) -> float:
    """A wall time as stored; now where none is given."""
    return _real(unix_s or time.time())


def _real(number: float) -> float:
    return float(number) + 0.0  # SQLite keeps no negative zero, and an int in a REAL column becomes a float


def _encoder(name: str, kind: Any) -> Callable[[Any], object] | None:
    """The function from a field's value to a column's; None where they are the same."""
    if name.endswith("_unix_s"):
        return when
    encoders: list[tuple[Any, Callable[[Any], object]]] = [
        *((Json, canonical_json), (tuple[str, ...], canonical_json), (int, int), (bool, int)),
        *((float, _real), (float | None, canonical_fitness)),
    ]
    return next((encode for of, encode in encoders if of == kind), None)


# -- from rows to records ----------------------------------------------------------------------------------------------


def _decoder(kind: Any) -> Callable[[Any], object] | None:
    """The function from a column's value to a field's, which raises ValueError; None where they are the same."""
    if get_origin(kind) is Literal:
        words = frozenset(get_args(kind))

        def known(value: object) -> object:
            if value not in words:
                raise ValueError(f"{value!a} is none of {', '.join(map(repr, sorted(words)))}")
            return value

        return known
    decoders: list[tuple[Any, Callable[[Any], object]]] = [
        *((Json, json.loads), (bool, bool), (tuple[str, ...], lambda text: tuple(json.loads(text)))),
    ]
    return next((decode for of, decode in decoders if of == kind), None)


_HINTS = {record: get_type_hints(record) for record in TABLES}
_ENCODERS = {
    record: [(column, _encoder(column, _HINTS[record].get(column))) for column in COLUMNS[table]]
    for record, table in TABLES.items()
}
# By field, of those that a column of the same name holds.
DECODERS: Mapping[type, Mapping[str, Callable[[Any], object] | None]] = {
    record: {name: _decoder(kind) for name, kind in _HINTS[record].items() if name in COLUMNS[table]}
    for record, table in TABLES.items()
}
