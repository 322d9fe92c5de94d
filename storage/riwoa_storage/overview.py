"""What ``riwoactl status`` shows of a journal, without the cost of importing the records (dataclasses)."""

from __future__ import annotations

import json
import sqlite3

from riwoa_storage.connect import connect_reader, translate

TYPE_CHECKING = False  # recognised by mypy; spares the import of typing
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from typing import Any

_OF_RUN = ("run_id", "status", "generations", "digest", "created_unix_s", "provenance")
_OF_GENERATION = ("phase", "config_revision", "counters", "leader", "inputs", "duration_s", "committed_unix_s")
_LATEST = (
    f"SELECT {', '.join(f'runs.{name}' for name in _OF_RUN)}, {', '.join(_OF_GENERATION)} FROM runs "
    "LEFT JOIN generations AS g ON g.run_id = runs.run_id AND g.generation = runs.generations - 1 "
    "ORDER BY runs.run_id DESC LIMIT 1"
)
_FOUND = "SELECT leader, committed_unix_s FROM generations WHERE run_id = ? AND generation = ?"
_OPERATOR = "SELECT operator FROM individuals WHERE run_id = ? AND generation = ? AND slot = ?"
_EVENTS = "SELECT payload FROM events WHERE run_id = ? AND kind = ? ORDER BY event_id DESC"


def overview(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The latest run and its last committed generation as one JSON object; None when no run was begun.

    Keys: run_id, status, generations, digest, created_unix_s, objective (of its provenance), and of the last
    generation (null before the first): phase, config_revision, counters, leader (without its architecture), inputs,
    duration_s, committed_unix_s. And test: what ``NetworkJudged`` says of the leader, null where there is none; timed:
    what ``FinalistsTimed`` says. A network that took the leader's place is the leader. And improvement: how the
    search's own leader was found, as ``leader_found`` has it.
    No checksum is looked at: this is for a person's eyes, and nothing is built on it.

    Raises:
        JournalMissingError, JournalUnreadableError, JournalVersionError, JournalCorruptError: it cannot be read.
    """
    from riwoa_storage.errors import JournalCorruptError

    connection = connect_reader(path)
    try:
        row = connection.execute(_LATEST).fetchone()
        if row is None:
            return None
        seen = dict(zip((*_OF_RUN, *_OF_GENERATION), row, strict=True))
        seen["objective"] = _objective(seen.pop("provenance"))
        for column in ("counters", "leader", "inputs"):
            seen[column] = None if seen[column] is None else json.loads(seen[column])
        timed = _newest_first(connection, seen["run_id"], "finalists_timed")
        seen["improvement"] = _leader_found(connection, seen["run_id"], seen["leader"])
        seen["timed"] = next((event for event in timed if event.get("error") is None), None)
        seen["leader"] = (seen["timed"] or {}).get("leader") or seen["leader"]
        judged = _newest_first(connection, seen["run_id"], "network_judged")
        key = (seen["leader"] or {}).get("architecture_key")
        seen["test"] = next((event for event in judged if event.get("architecture_key") == key), None)
        return seen
    except sqlite3.Error as error:
        raise translate(error, str(path), reading=True) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise JournalCorruptError(f"{path} is damaged ({error}): run riwoactl verify, then restore a backup") from None
    finally:
        connection.close()


def leader_found(path: str | os.PathLike[str], run_id: int, leader: dict[str, Any]) -> dict[str, Any] | None:
    """How a leader was found: generation, found_unix_s, operator, the leader, and former, the one before it or null.

    None where its generation is not committed yet.

    Args:
        path: of the journal.
        run_id: its run.
        leader: its "generation" and "slot".

    Raises:
        JournalMissingError, JournalUnreadableError, JournalVersionError, JournalCorruptError: it cannot be read.
    """
    connection = connect_reader(path)
    try:
        return _leader_found(connection, run_id, leader)
    except sqlite3.Error as error:
        raise translate(error, str(path), reading=True) from error
    finally:
        connection.close()


def _leader_found(connection: sqlite3.Connection, run_id: int, leader: dict[str, Any] | None) -> dict[str, Any] | None:
    if leader is None:
        return None
    generation, slot = leader["generation"], leader["slot"]
    row = connection.execute(_FOUND, (run_id, generation)).fetchone()
    operator = connection.execute(_OPERATOR, (run_id, generation, slot)).fetchone()
    if row is None or operator is None:
        return None
    before = connection.execute(_FOUND, (run_id, generation - 1)).fetchone()
    former = json.loads(before[0]) if before is not None and before[0] is not None else None
    return {
        "generation": generation,
        "found_unix_s": row[1],
        "operator": operator[0],
        "leader": leader,
        "former": former,
    }


def _newest_first(connection: sqlite3.Connection, run_id: int, kind: str) -> Iterator[dict[str, Any]]:
    """Payloads of a run's events of a kind."""
    return (json.loads(payload) for (payload,) in connection.execute(_EVENTS, (run_id, kind)))


def _objective(provenance: str) -> dict[str, Any]:
    """What a run looks for; empty where its provenance is damaged: ``verify`` says so, and no more is hidden."""
    try:
        found = json.loads(provenance)["objective"]
    except (ValueError, TypeError, KeyError):
        return {}
    return found if isinstance(found, dict) else {}
