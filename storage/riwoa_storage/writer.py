"""The journal's single writer.

Each method is one transaction (``transactions.py``: one task owns the one connection).

What every durable method here guarantees
    Once it has returned, what it wrote survives the death of this process (SIGKILL included), a crash of the operating
    system and a power cut, as far as the disk honours fsync: WAL with ``synchronous=FULL`` syncs the log at each
    COMMIT. Until then the transaction is there whole or not at all.
    If the caller is cancelled, the transaction is finished first, then CancelledError is raised: cancelling neither
    loses nor splits it.
    Transactions become durable in the order in which they were handed in.

Limits: a disk that lies about fsync, and a file system without locks (NFS), void the first promise.

What raises: JournalRefusedError (a rule is broken), RowDamagedError (it would build on a damaged row), ValueError and
TypeError (a value is no finite JSON), JournalFullError and JournalLockedError roll back that transaction only, and the
writer goes on; a lock is waited out first. Any other failure (an I/O error, after which nobody knows what is durable,
or a damaged file) stops the writer: it raises here and in every later call; open it anew.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from riwoa_storage.digest import canonical_json, generation_digest, run_digest, state_sha256
from riwoa_storage.errors import JournalRefusedError, RowDamagedError
from riwoa_storage.events import Event, kind_of, payload_of
from riwoa_storage.migrate import migrate
from riwoa_storage.records import (
    AdapterRecord,
    BufferEntryRecord,
    ConfigRevisionRecord,
    EvaluationRecord,
    GenerationRecord,
    IndividualRecord,
    Json,
    ReplyRecord,
    RequestRecord,
    RunRecord,
    RunStatus,
    RunVerification,
)
from riwoa_storage.seal import checksum, damage, insertion, is_intact, sealed, selection
from riwoa_storage.shared import Shared, leader_rest, next_id, split_leader
from riwoa_storage.tables import COLUMNS, Row, row_of, when
from riwoa_storage.transactions import Transactions, single_row, through_locks

LOCK_PATIENCE_S = 60.0  # how long another process's lock is waited out before a caller hears of it


class JournalWriter:
    """Writes the journal; see the module for what survives what. Open with ``await JournalWriter.open(path)``."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    @classmethod
    async def open(cls, path: Path, *, lock_patience_s: float | None = None) -> JournalWriter:
        """Create or migrate the journal and become its writer.

        ``lock_patience_s``: ``LOCK_PATIENCE_S`` if not given; here and in every transaction.

        The caller holds the state directory's lock: this class does not keep a second daemon out, SQLite merely keeps
        two from corrupting the file.

        Raises:
            JournalVersionError, JournalCorruptError: not ours to write; the file is left untouched.
            JournalUnwritableError, JournalLockedError: cannot be written, or not now.
        """
        patience_s = LOCK_PATIENCE_S if lock_patience_s is None else lock_patience_s
        await through_locks(lambda: asyncio.to_thread(migrate, path), patience_s)
        return cls(await Transactions.open(path, patience_s))

    async def __aenter__(self) -> JournalWriter:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish what was handed in before, fold the log into the file (unless a reader holds it), close.

        Idempotent. Nothing depends on it for durability: a journal that was never closed loses nothing.
        """
        await self._transactions.close()

    # -- runs and their configuration ------------------------------------------------------------------------------

    async def begin_run(self, provenance: Json, config: Json) -> int:
        """Start a run with configuration revision 0; a run that was still running becomes "abandoned".

        Durable on return, in one transaction: there is never a moment without a run or with two running ones.
        """
        now, digest = time.time(), run_digest(provenance)

        def work(db: sqlite3.Connection) -> int:
            _change(db, "runs", "status = 'running'", (), status="abandoned")
            run_id = next_id(db, "runs", "run_id")
            run = RunRecord(run_id=run_id, status="running", provenance=provenance, digest=digest, created_unix_s=now)
            first = ConfigRevisionRecord(
                run_id=run_id, revision=0, generation=0, config=config, changed={}, created_unix_s=now
            )
            _insert(db, "runs", [row_of(run)])
            _insert(db, "config_revisions", [row_of(first)])
            return run_id

        return await self._transactions.run(work)

    async def finish_run(self, run_id: int, status: RunStatus = "finished") -> None:
        """Give the run its last status; durable on return. Doing it twice changes nothing.

        Raises:
            JournalRefusedError: there is no such run, or no such status.
        """

        def work(db: sqlite3.Connection) -> None:
            changed = _change(db, "runs", "run_id = ?", (run_id,), status=status)
            _require(changed == 1, f"there is no run {run_id} to finish")

        await self._transactions.run(work)

    async def put_config_revision(self, r: ConfigRevisionRecord) -> None:
        """Store a configuration before the first generation that uses it; durable on return.

        Raises:
            JournalRefusedError: the revision is not the run's last plus one.
        """
        row = row_of(r)

        def work(db: sqlite3.Connection) -> None:
            (count,) = single_row(db, "SELECT count(*) FROM config_revisions WHERE run_id = ?", (r.run_id,))
            _require(r.revision == count, f"config revision {r.revision} of run {r.run_id} does not follow {count - 1}")
            _insert(db, "config_revisions", [row])

        await self._transactions.run(work)

    # -- evaluations -----------------------------------------------------------------------------------------------

    async def put_evaluation(self, e: EvaluationRecord) -> None:
        """Store a finished evaluation; durable on return, before and independent of its generation's commit.

        Idempotent on (oracle_version, architecture_key): the first one stays, unless it was damaged since.
        """
        await self.put_evaluations((e,))

    async def put_evaluations(self, es: Sequence[EvaluationRecord]) -> None:
        """Store finished evaluations in one transaction: all durable on return, or none; the first of a key stays."""
        if es:
            await self._transactions.run(lambda db: _put_evaluations(db, es))

    # -- language-model requests and replies -------------------------------------------------------------------------

    async def put_requests(self, rs: Sequence[RequestRecord]) -> None:
        """Store a generation's batch of requests, whole, before any of them is sent; durable on return.

        Idempotent on the request's id, so that a batch may be re-issued after a kill.
        """
        await self._insert_new("requests", [row_of(r) for r in rs])

    async def withdraw_requests(self, run_id: int, generation: int, *, events: Sequence[Event] = ()) -> None:
        """Take back the requests of a generation that was never committed, with their replies; durable on return.

        For a generation that is asked again under another configuration: nothing has used them, and nothing may.

        Raises:
            JournalRefusedError: there is no such run, or the generation is committed.
        """
        which = (run_id, generation)

        def work(db: sqlite3.Connection) -> None:
            (count,) = single_row(db, "SELECT max(generations) FROM runs WHERE run_id = ?", (run_id,))
            _require(count is not None, f"there is no run {run_id}")
            _require(generation >= count, f"generation {generation} of run {run_id} is committed: its requests stay")
            of = "SELECT request_id FROM requests WHERE run_id = ? AND generation = ?"
            db.execute(f"DELETE FROM replies WHERE request_id IN ({of})", which)
            db.execute("DELETE FROM requests WHERE run_id = ? AND generation = ?", which)
            _insert_events(db, events)

        await self._transactions.run(work)

    async def put_replies(self, rs: Sequence[ReplyRecord], *, events: Sequence[Event] = ()) -> None:
        """Store replies and events in one transaction: all durable on return, or none. The first reply stays.

        Whoever re-issues a batch must therefore use what the journal holds, not what came back the second time.
        """
        await self._insert_new("replies", [row_of(r) for r in rs], events)

    # -- generations -------------------------------------------------------------------------------------------------

    async def commit_generation(
        self,
        g: GenerationRecord,
        *,
        events: Sequence[Event] = (),
        buffer: Sequence[BufferEntryRecord] = (),
    ) -> str:
        """Commit a generation with its individuals, events and buffer entries; returns its digest.

        One transaction: on return all of it is durable, before that none of it is there. This is the point that a
        killed daemon resumes from.

        Raises:
            JournalRefusedError: the generation is not the run's last plus one, the run is not running, a joined
                request has no reply, or a parent does not exist.
            ValueError, TypeError: a metric is not finite or no JSON.
        """

        def work(db: sqlite3.Connection) -> str:
            previous = _head(db, g)
            digest = generation_digest(previous, g, _reply_texts(db, g.joined_requests))
            _insert_generation(db, replace(g, digest=digest, state_sha256=state_sha256(g)))
            for b in buffer:
                _insert_buffer_entry(db, b)
            _insert_events(db, events)
            _change(db, "runs", "run_id = ?", (g.run_id,), generations=g.generation + 1, digest=digest)
            return digest

        return await self._transactions.run(work)

    # -- cognition and events ----------------------------------------------------------------------------------------

    async def put_buffer_entry(self, b: BufferEntryRecord) -> int:
        """Store a success; returns its id; durable on return."""
        return await self._transactions.run(lambda db: _insert_buffer_entry(db, b))

    async def put_adapter(self, a: AdapterRecord, *, consumed: Sequence[int] = (), events: Sequence[Event] = ()) -> int:
        """Store a checkpoint with the training it came from; returns its id.

        One transaction, durable on return: the weights, the buffer entries marked as consumed by it, and, when it is
        "current", the run's former current one marked as "superseded".

        Raises:
            JournalRefusedError: the weights do not match ``sha256``, or an entry is unknown or already consumed.
        """
        _require(
            a.weights is None or sha256(a.weights).hexdigest() == a.sha256,
            "an adapter's weights do not match its sha256",
        )

        def work(db: sqlite3.Connection) -> int:
            if a.status == "current":
                _change(db, "adapters", "run_id = ? AND status = 'current'", (a.run_id,), status="superseded")
            adapter_id = next_id(db, "adapters", "adapter_id")
            row = sealed("adapters", row_of(a, adapter_id=adapter_id))
            db.execute(insertion("adapters", "weights"), (*row, a.weights))
            for entry_id in consumed:
                which = "entry_id = ? AND run_id = ? AND consumed_by IS NULL"
                changed = _change(db, "buffer_entries", which, (entry_id, a.run_id), consumed_by=adapter_id)
                _require(changed == 1, "a buffer entry is unknown or was consumed before")
            _insert_events(db, events)
            return adapter_id

        return await self._transactions.run(work)

    async def retire_adapters(self, run_id: int, kept: Sequence[int]) -> int:
        """Drop the weights of all adapters of a run but the ``kept`` ones; hash and training record stay.

        Returns:
            How many had weights before. No digest changes: adapters' weights are in none.
        """
        marks = ",".join("?" * len(kept))
        others = f"run_id = ? AND weights IS NOT NULL AND adapter_id NOT IN ({marks})"

        def work(db: sqlite3.Connection) -> int:
            return db.execute(f"UPDATE adapters SET weights = NULL WHERE {others}", (run_id, *kept)).rowcount

        return await self._transactions.run(work)

    async def put_event(self, e: Event) -> None:
        """Store an event; durable on return."""
        await self._transactions.run(lambda db: _insert_events(db, (e,)))

    async def mark_verified(self, runs: Sequence[RunVerification]) -> None:
        """Remember how far the chains of these runs were proved, so that the next start goes on from there.

        Durable on return. A mark says nothing of what is damaged later: that, each row's checksum tells.
        """
        rows = [row_of(r) for r in runs]

        def work(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM verified WHERE run_id = ?", [row[:1] for row in rows])
            _insert(db, "verified", rows)

        await self._transactions.run(work)

    async def _insert_new(self, table: str, rows: Sequence[Row], events: Sequence[Event] = ()) -> None:
        """Rows of requests or replies, and events; where a row of a request's is there, that stays."""

        def work(db: sqlite3.Connection) -> None:
            _insert(db, table, rows, "ON CONFLICT (request_id) DO NOTHING")
            _insert_events(db, events)

        if rows or events:
            await self._transactions.run(work)


def _insert(db: sqlite3.Connection, table: str, rows: Iterable[Row], otherwise: str = "") -> None:
    db.executemany(f"{insertion(table)} {otherwise}", [sealed(table, row) for row in rows])


def _change(db: sqlite3.Connection, table: str, where: str, parameters: Row, **values: object) -> int:
    """Update columns of rows and their checksums; returns how many rows there were.

    Raises:
        RowDamagedError: a row is damaged: a new checksum would hide it.
    """
    rows = db.execute(f"SELECT {selection(table)}, rowid FROM {table} WHERE {where}", parameters).fetchall()
    for *row, rowid in rows:
        if not is_intact(table, tuple(row)):
            raise RowDamagedError(damage(table, row))
        changed = {**dict(zip(COLUMNS[table], row, strict=False)), **values}
        columns = {**values, "checksum": checksum(table, tuple(changed.values()))}
        places = ", ".join(f"{column} = ?" for column in columns)
        db.execute(f"UPDATE {table} SET {places} WHERE rowid = ?", (*columns.values(), rowid))
    return len(rows)


def _put_evaluations(db: sqlite3.Connection, es: Sequence[EvaluationRecord]) -> None:
    shared = Shared(db)
    sql = f"SELECT {selection('evaluations')} FROM evaluations WHERE oracle_id = ? AND architecture_id = ?"
    for e in es:
        number, oracle_id = shared.architecture(e.architecture_key, e.architecture), shared.text(e.oracle_version)
        known = [row for n in shared.architectures(e.architecture_key) for row in db.execute(sql, (oracle_id, n))]
        if not any(is_intact("evaluations", row) for row in known):
            for row in known:  # damaged
                db.execute("DELETE FROM evaluations WHERE oracle_id = ? AND architecture_id = ?", row[:2])
            _insert(db, "evaluations", [row_of(e, oracle_id=oracle_id, architecture_id=number)])


def _insert_generation(db: sqlite3.Connection, g: GenerationRecord) -> None:
    """A generation with its individuals, and its state in the place of the one before."""
    shared, leader = Shared(db), split_leader(g.leader)
    leader_row = {
        "leader": None if g.leader is None else canonical_json(leader_rest(g.leader)),
        "leader_architecture_id": None if leader is None else shared.architecture(*leader),
    }
    _insert(db, "generations", [row_of(g, **leader_row)])
    _insert(db, "individuals", [_individual_row(g, i, shared) for i in g.individuals])
    state = (g.run_id, g.generation, g.state)
    db.execute(
        "INSERT INTO states VALUES (?,?,?) ON CONFLICT (run_id) DO UPDATE SET generation = ?2, state = ?3", state
    )


def _individual_row(g: GenerationRecord, i: IndividualRecord, shared: Shared) -> Row:
    parent_generation, parent_slot = i.parent or (None, None)
    return row_of(
        i,
        run_id=g.run_id,
        generation=g.generation,
        parent_generation=parent_generation,
        parent_slot=parent_slot,
        architecture_id=shared.architecture(i.architecture_key, i.architecture),
        fitness_version_id=shared.text(i.fitness_version),
    )


def _insert_buffer_entry(db: sqlite3.Connection, b: BufferEntryRecord) -> int:
    entry_id = next_id(db, "buffer_entries", "entry_id")
    _insert(db, "buffer_entries", [row_of(b, entry_id=entry_id, consumed_by=None)])
    return entry_id


def _insert_events(db: sqlite3.Connection, events: Sequence[Event]) -> None:
    first = next_id(db, "events", "event_id") if events else 0
    _insert(db, "events", [_event_row(e, first + i) for i, e in enumerate(events)])


def _event_row(e: Event, event_id: int) -> Row:
    return (event_id, e.run_id, e.generation, kind_of(e), canonical_json(payload_of(e)), when(e.created_unix_s))


def _head(db: sqlite3.Connection, g: GenerationRecord) -> str:
    """The digest that ``g`` is chained to; refuses a generation that does not follow the last."""
    rows = db.execute("SELECT status, generations, digest FROM runs WHERE run_id = ?", (g.run_id,)).fetchall()
    _require(bool(rows), f"there is no run {g.run_id}")
    status, count, digest = rows[0]
    _require(status == "running", f"run {g.run_id} is {status}: begin a new run")
    _require(g.generation == count, f"generation {g.generation} of run {g.run_id} does not follow {count - 1}")
    return str(digest)


def _reply_texts(db: sqlite3.Connection, request_ids: Iterable[str]) -> list[tuple[str, str, str]]:
    texts = []
    for request_id in request_ids:
        rows = db.execute(f"SELECT {selection('replies')} FROM replies WHERE request_id = ?", (request_id,)).fetchall()
        _require(bool(rows), f"request {request_id} joins a generation, but its reply was not journaled first")
        if not is_intact("replies", rows[0]):
            raise RowDamagedError(damage("replies", rows[0]))
        texts.append((request_id, rows[0][1], rows[0][2]))
    return texts


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise JournalRefusedError(f"journal: {message}; nothing was written")
