"""Copies a journal into PostgreSQL, for a team's dashboards; the journal stays the truth. Needs psycopg.

How far it came is what lies there: a batch of generations with their individuals is one transaction, so a mirror that
is killed goes on where it was, and what it writes twice is the same (at least once). Several state directories may
share a database: a run goes by a key, which names it wherever its journal is read.

A journal that was restored from a backup may have gone another way since: where the digests differ, the run is copied
anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from riwoa.errors import UsageError
from riwoa.paths import shipped
from riwoa.service.following import run_key
from riwoa.service.sinks import SinkError
from riwoa.text import printable
from riwoa_storage.history import JudgedReply, PlacedIndividual, RunSummary
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationSummary

VERSION = 1  # of the tables
_BATCH = 50  # generations a transaction
_BATCH_ROWS = 1_000  # individuals read at a time
_PENDING = 200  # of the newest requests, whose verdicts may have changed
_CONNECT_S = 10
_LOCK = 0x7269776F61  # "riwoa": nobody else makes the tables meanwhile
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*(?=@)|(?<=password=)\S+", re.IGNORECASE)


def opener(journal: Path, url: str) -> Callable[[], Mirror]:
    """What opens a mirror of a journal.

    Raises:
        UsageError: psycopg is not installed, or the address is none of PostgreSQL's.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise UsageError(f"{_without_password(url)!r} is no address of PostgreSQL: postgresql://USER@HOST/DATABASE")
    if find_spec("psycopg") is None:
        raise UsageError("psycopg is not installed; install it with: pip install 'riwoa[postgresql]'")
    return lambda: Mirror(journal, url)


class Mirror:
    """A connection and how far each run was copied; a context that closes it. Every method raises ``SinkError``.

    Args:
        journal: of the state directory; opened for each look, for it may be compacted or restored in between.
        url: of a database whose user may make the schema ``riwoa``, or finds it made.

    Attributes:
        told: generations copied since it was opened.
    """

    is_over = False  # another run may begin

    def __init__(self, journal: Path, url: str) -> None:
        self._journal = journal
        self._place = _without_password(url)
        self.told = 0
        self._next: dict[str, int] = {}  # by run: the first generation that is not there
        self._settled: dict[str, bool] = {}  # by run: whether its replies and its end are there
        with self._talking():
            import psycopg

            self._connection = psycopg.connect(url, connect_timeout=_CONNECT_S, application_name="riwoa")
        with self._talking():
            self._make_tables()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def look(self) -> bool:
        """Copy what is new; False, for another run may begin.

        Raises:
            SinkError: the database does not take it; the next look goes on.
            StorageError: the journal cannot be read.
        """
        with JournalReader(self._journal) as reader, self._talking():
            runs = reader.history.runs()
            if not runs:
                return False
            journal = run_key(runs[0].record)
            for run in runs:
                self._copy(reader, journal, run_key(run.record), run)
            self._copy_events(reader, journal)
        return False

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """The boundary to the server."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            raise SinkError(f"{self._place}: {printable(_without_password(reason))}") from None

    def _make_tables(self) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            there = cursor.execute("SELECT to_regclass('riwoa.mirror') IS NOT NULL").fetchone()
            if there == (False,):
                cursor.execute(shipped("mirror.sql").read_bytes())
                cursor.execute("INSERT INTO riwoa.mirror VALUES (%s)", (VERSION,))
            (version,) = cursor.execute("SELECT max(version) FROM riwoa.mirror").fetchone() or (None,)
        if version != VERSION:
            raise SinkError(
                f"{self._place} holds tables of version {version}, this riwoa writes {VERSION}: "
                "use the riwoa that made them, or drop the schema riwoa and mirror anew"
            )

    # -- a run -----------------------------------------------------------------------------------------------------

    def _copy(self, reader: JournalReader, journal: str, key: str, run: RunSummary) -> None:
        run_id, is_running = run.record.run_id, run.record.status == "running"
        if key not in self._next:
            self._next[key] = self._begun(reader, key, run_id)
        is_new = run.record.generations > self._next[key]
        if not is_new and self._settled.get(key, False) and not is_running:
            return
        self._put("runs", ("run",), [_run(reader, journal, key, run)])
        while batch := list(reader.history.generations(run_id, self._next[key], _BATCH)):
            individuals = _individuals(reader, run_id, batch)
            with self._connection.transaction():
                self._put("generations", ("run", "generation"), [_generation(key, g) for g in batch])
                self._put("individuals", ("run", "generation", "slot"), [_individual(key, i) for i in individuals])
            self._next[key] = batch[-1].generation + 1
            self.told += len(batch)
        newest = _PENDING if key in self._settled else None
        replies = reader.history.replies(run_id, newest=newest)
        self._put("replies", ("run", "request_id"), [_reply(key, reply) for reply in replies])
        self._settled[key] = not is_running

    def _begun(self, reader: JournalReader, key: str, run_id: int) -> int:
        """The first generation that is not there yet; 0 where another history of the run lay there, which goes."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT generation, digest FROM riwoa.generations WHERE run = %s ORDER BY generation DESC LIMIT 1",
                (key,),
            )
            last = cursor.fetchone()
            if last is None:
                return 0
            mine = next(iter(reader.history.generations(run_id, last[0], 1)), None)
            if mine is not None and (mine.generation, mine.digest) == last:
                return int(last[0]) + 1
            cursor.execute("DELETE FROM riwoa.runs WHERE run = %s", (key,))
        return 0

    def _copy_events(self, reader: JournalReader, journal: str) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("SELECT max(event_id) FROM riwoa.events WHERE journal = %s", (journal,))
            (last,) = cursor.fetchone() or (None,)
        rows = [
            {
                "journal": journal,
                "event_id": e.event_id,
                "run_id": e.event.run_id,
                "generation": e.event.generation,
                "kind": e.kind,
                "created_at": e.event.created_unix_s,
                "payload": _json(e.payload),
            }
            for e in reader.history.events(after=last or 0)
        ]
        self._put("events", ("journal", "event_id"), rows)

    def _put(self, table: str, key: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, or write them again; in a transaction, its own if none is open."""
        if not rows:
            return
        names = list(rows[0])
        places = ", ".join("to_timestamp(%s)" if name.endswith("_at") else "%s" for name in names)
        changed = ", ".join(f"{name} = EXCLUDED.{name}" for name in names if name not in key)
        sql = (
            f"INSERT INTO riwoa.{table} ({', '.join(names)}) VALUES ({places}) "
            f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}"
        )
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(sql, [tuple(row.values()) for row in rows])


# -- rows --------------------------------------------------------------------------------------------------------------


def _run(reader: JournalReader, journal: str, key: str, run: RunSummary) -> dict[str, Any]:
    record, test = run.record, run.test
    judged = None if test is None else {"accuracy": test.accuracy, "accuracy_error": test.accuracy_error}
    return {
        "run": key,
        "journal": journal,
        "run_id": record.run_id,
        "status": record.status,
        "created_at": record.created_unix_s,
        "digest": record.digest,
        "config": _json(reader.config_revisions(record.run_id)[0].config),
        "provenance": _json(record.provenance),
        "leader": _json(run.leader),
        "test": _json(judged),
    }


def _individuals(reader: JournalReader, run_id: int, batch: Sequence[GenerationSummary]) -> list[PlacedIndividual]:
    """Of consecutive generations."""
    found: list[PlacedIndividual] = []
    after, last = (batch[0].generation, -1), batch[-1].generation
    while True:
        page = reader.history.individuals(run_id, after=after, limit=_BATCH_ROWS)
        found += [i for i in page if i.generation <= last]
        if not page or page[-1].generation > last:
            return found
        after = page[-1].place


def _generation(key: str, g: GenerationSummary) -> dict[str, Any]:
    return {
        "run": key,
        "generation": g.generation,
        "phase": g.phase,
        "committed_at": g.committed_unix_s,
        "duration_s": g.duration_s,
        "evaluations": g.counters.get("evaluations"),
        "leader": _json(g.leader),
        "counters": _json(g.counters),
        "digest": g.digest,
    }


def _individual(key: str, i: PlacedIndividual) -> dict[str, Any]:
    record = i.record
    parent = record.parent or (None, None)
    return {
        "run": key,
        "generation": i.generation,
        "slot": record.slot,
        "name": i.name,
        "operator": record.operator,
        "parent_generation": parent[0],
        "parent_slot": parent[1],
        "status": record.status,
        "cache_hit": record.cache_hit,
        "fitness": record.fitness,
        "accuracy": record.metrics.get("accuracy"),
        "latency_ms": record.metrics.get("latency_ms"),
        "metrics": _json(record.metrics),
        "architecture": _json(record.architecture),
        "request_id": record.request_id,
        "error": _text(record.error),
    }


def _reply(key: str, judged: JudgedReply) -> dict[str, Any]:
    request, reply = judged.request, judged.reply
    return {
        "run": key,
        "request_id": request.request_id,
        "generation": request.generation,
        "join_generation": request.join_generation,
        "model": _text(request.model),
        "prompt": _text(request.prompt),
        "reply": None if reply is None else _text(reply.text),
        "tokens": None if reply is None else reply.tokens,
        "duration_s": None if reply is None else reply.duration_s,
        "verdict": judged.verdict,
        "reason": _text(judged.reason),
    }


def _json(value: Any) -> str | None:
    """As the server takes it, which knows no NUL in a text."""
    return None if value is None else json.dumps(value).replace("\\u0000", "\\ufffd")


def _text(value: str | None) -> str | None:
    return None if value is None else value.replace("\x00", "\ufffd")


def _without_password(text: str) -> str:
    return _PASSWORD.sub(lambda found: f"{found[1]}:***" if found[1] is not None else "***", text)
