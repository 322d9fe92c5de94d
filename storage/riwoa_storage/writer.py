"""The journal's single writer.

One task owns the one connection. Callers hand it whole transactions, never statements, through a bounded queue: two
tasks that share an aiosqlite connection would share a transaction, and a cancelled ``await commit()`` raises although
the row was committed.

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
writer goes on; a lock is waited out first. Any other failure (an I/O error, after which
nobody knows what is durable, or a damaged file) stops the writer: it raises here and in every later call; open it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import aiosqlite

from riwoa_storage.connect import BUSY_TIMEOUT_S, WRITER_PRAGMAS, translate
from riwoa_storage.digest import canonical_json, generation_digest, run_digest, state_sha256
from riwoa_storage.errors import (
    JournalClosedError,
    JournalFullError,
    JournalLockedError,
    JournalRefusedError,
    JournalUnwritableError,
    RowDamagedError,
    StorageError,
)
from riwoa_storage.failpoint import failpoint
from riwoa_storage.migrate import migrate
from riwoa_storage.records import (
    AdapterRecord,
    BufferEntryRecord,
    ConfigRevisionRecord,
    EvaluationRecord,
    EventRecord,
    GenerationRecord,
    Json,
    ReplyRecord,
    RequestRecord,
    RunVerification,
)
from riwoa_storage.rows import (
    adapter_row,
    buffer_row,
    config_revision_row,
    evaluation_row,
    event_row,
    generation_row,
    individual_row,
    reply_row,
    request_row,
)
from riwoa_storage.seal import COLUMNS, Row, checksum, damage, insertion, is_intact, sealed, selection
from riwoa_storage.shared import Shared, next_id, split_leader

T = TypeVar("T")
P = ParamSpec("P")
Work = Callable[[sqlite3.Connection], T]  # the statements between BEGIN and COMMIT, run on the connection's thread

LOCK_PATIENCE_S = 60.0  # how long another process's lock is waited out before a caller hears of it
_LOCK_AGAIN_S = 0.2
_ROLLED_BACK = (JournalFullError, JournalLockedError, JournalRefusedError, RowDamagedError)  # the writer goes on
QUEUE_LENGTH = 64  # whole transactions; a caller waits when the disk is that far behind


class _Job(Generic[T]):
    """A transaction and the future of its outcome, settled by the owner task alone."""

    def __init__(self, work: Work[T]) -> None:
        self.work = work
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # marks it as seen: a cancelled caller may not look


class _Connection(aiosqlite.Connection):
    """Runs a whole function on the connection's thread.

    A transaction that is one function cannot be cut in two by a cancellation. And awaiting each statement costs two
    thread switches apiece, which tell where the oracle keeps all cores busy: twenty commits of an evaluation and one
    of a generation took 245 ms that way and 140 ms this way, at a load of 8 on two cores.
    """

    async def run(self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kw: P.kwargs) -> T:
        result: T = await self._execute(function, self._conn, *args, **kw)  # type: ignore[no-untyped-call]
        return result


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    """Have a SQLite error say what it means, on the thread that met it: the disk may be asked for that."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, name) from error


def _connect(name: str) -> sqlite3.Connection:
    with _translated(name):
        return sqlite3.connect(name, timeout=BUSY_TIMEOUT_S, isolation_level=None)


class JournalWriter:
    """Writes the journal; see the module for what survives what. Open with ``await JournalWriter.open(path)``."""

    def __init__(self, connection: _Connection, name: str, lock_patience_s: float) -> None:
        self._connection = connection
        self._lock_patience_s = lock_patience_s
        self._name = name
        self._queue: asyncio.Queue[_Job[Any] | None] = asyncio.Queue(maxsize=QUEUE_LENGTH)
        self._door = asyncio.Lock()  # asyncio.Queue alone lets a newcomer overtake one who waits for room
        self._closing = False  # nothing more is handed in
        self._ended = False  # nothing more is taken out
        self._failure: StorageError | None = None  # set once; ends every later call
        self._owner = asyncio.create_task(self._own(), name="journal-writer")

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
        name = os.path.abspath(path)  # noqa: ASYNC240 computes; touches no file
        patience_s = LOCK_PATIENCE_S if lock_patience_s is None else lock_patience_s
        await _through_locks(lambda: asyncio.to_thread(migrate, path), patience_s)
        connection = _Connection(partial(_connect, name), iter_chunk_size=1)
        await connection
        try:
            await connection.run(_set_pragmas, name)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, name, patience_s)

    async def __aenter__(self) -> JournalWriter:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish what was handed in before, fold the log into the file (unless a reader holds it), close.

        Idempotent. Nothing depends on it for durability: a journal that was never closed loses nothing.
        """
        if not self._closing:
            self._closing = True
            await _finish_first(self._enqueue(None))
        await _finish_first(self._owner)

    # -- runs and their configuration ------------------------------------------------------------------------------

    async def begin_run(self, provenance: Json, config: Json) -> int:
        """Start a run with configuration revision 0; a run that was still running becomes "abandoned".

        Durable on return, in one transaction: there is never a moment without a run or with two running ones.
        """
        now = time.time()
        text, digest = canonical_json(provenance), run_digest(provenance)
        first = ConfigRevisionRecord(run_id=0, revision=0, generation=0, config=config, changed={}, created_unix_s=now)
        row = config_revision_row(first)[1:]

        def work(db: sqlite3.Connection) -> int:
            _change(db, "runs", "status = 'running'", (), status="abandoned")
            run_id = next_id(db, "runs", "run_id")
            _insert(db, "runs", [(run_id, "running", text, 0, digest, now)])
            _insert(db, "config_revisions", [(run_id, *row)])
            return run_id

        return await self._submit(work)

    async def finish_run(self, run_id: int, status: str = "finished") -> None:
        """Give the run its last status; durable on return. Doing it twice changes nothing.

        Raises:
            JournalRefusedError: there is no such run, or no such status.
        """

        def work(db: sqlite3.Connection) -> None:
            changed = _change(db, "runs", "run_id = ?", (run_id,), status=status)
            _require(changed == 1, f"there is no run {run_id} to finish")

        await self._submit(work)

    async def put_config_revision(self, r: ConfigRevisionRecord) -> None:
        """Store a configuration before the first generation that uses it; durable on return.

        Raises:
            JournalRefusedError: the revision is not the run's last plus one.
        """
        row = config_revision_row(r)

        def work(db: sqlite3.Connection) -> None:
            (count,) = _one(db, "SELECT count(*) FROM config_revisions WHERE run_id = ?", (r.run_id,))
            _require(r.revision == count, f"config revision {r.revision} of run {r.run_id} does not follow {count - 1}")
            _insert(db, "config_revisions", [row])

        await self._submit(work)

    # -- evaluations -----------------------------------------------------------------------------------------------

    async def put_evaluation(self, e: EvaluationRecord) -> None:
        """Store a finished evaluation; durable on return, before and independent of its generation's commit.

        Idempotent on (oracle_version, architecture_key): the first one stays, unless it was damaged since.
        """
        await self.put_evaluations((e,))

    async def put_evaluations(self, es: Sequence[EvaluationRecord]) -> None:
        """Store finished evaluations in one transaction: all durable on return, or none; the first of a key stays."""
        if es:
            await self._submit(lambda db: _put_evaluations(db, es))

    # -- language-model requests and replies -------------------------------------------------------------------------

    async def put_requests(self, rs: Sequence[RequestRecord]) -> None:
        """Store a generation's batch of requests, whole, before any of them is sent; durable on return.

        Idempotent on the request's id, so that a batch may be re-issued after a kill.
        """
        await self._insert_new("requests", [request_row(r) for r in rs])

    async def withdraw_requests(self, run_id: int, generation: int, *, events: Sequence[EventRecord] = ()) -> None:
        """Take back the requests of a generation that was never committed, with their replies; durable on return.

        For a generation that is asked again under another configuration: nothing has used them, and nothing may.

        Raises:
            JournalRefusedError: there is no such run, or the generation is committed.
        """
        which = (run_id, generation)

        def work(db: sqlite3.Connection) -> None:
            (count,) = _one(db, "SELECT max(generations) FROM runs WHERE run_id = ?", (run_id,))
            _require(count is not None, f"there is no run {run_id}")
            _require(generation >= count, f"generation {generation} of run {run_id} is committed: its requests stay")
            of = "SELECT request_id FROM requests WHERE run_id = ? AND generation = ?"
            db.execute(f"DELETE FROM replies WHERE request_id IN ({of})", which)
            db.execute("DELETE FROM requests WHERE run_id = ? AND generation = ?", which)
            _insert_events(db, events)

        await self._submit(work)

    async def put_reply(self, r: ReplyRecord) -> None:
        """Store a reply before it is used; durable on return. The first reply to a request stays."""
        await self.put_replies((r,))

    async def put_replies(self, rs: Sequence[ReplyRecord]) -> None:
        """Store replies in one transaction: all durable on return, or none. The first reply to a request stays.

        Whoever re-issues a batch must therefore use what the journal holds, not what came back the second time.
        """
        await self._insert_new("replies", [reply_row(r) for r in rs])

    # -- generations -------------------------------------------------------------------------------------------------

    async def commit_generation(
        self,
        g: GenerationRecord,
        *,
        events: Sequence[EventRecord] = (),
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

        return await self._submit(work)

    # -- cognition and events ----------------------------------------------------------------------------------------

    async def put_buffer_entry(self, b: BufferEntryRecord) -> int:
        """Store a success; returns its id; durable on return."""
        return await self._submit(lambda db: _insert_buffer_entry(db, b))

    async def put_adapter(
        self, a: AdapterRecord, *, consumed: Sequence[int] = (), events: Sequence[EventRecord] = ()
    ) -> int:
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
            row = sealed("adapters", adapter_row(a, adapter_id))
            db.execute(insertion("adapters", "weights"), (*row, a.weights))
            for entry_id in consumed:
                which = "entry_id = ? AND run_id = ? AND consumed_by IS NULL"
                changed = _change(db, "buffer_entries", which, (entry_id, a.run_id), consumed_by=adapter_id)
                _require(changed == 1, "a buffer entry is unknown or was consumed before")
            _insert_events(db, events)
            return adapter_id

        return await self._submit(work)

    async def retire_adapters(self, run_id: int, kept: Sequence[int]) -> int:
        """Drop the weights of all adapters of a run but the ``kept`` ones; hash and training record stay.

        Returns:
            How many had weights before. No digest changes: adapters' weights are in none.
        """
        marks = ",".join("?" * len(kept))
        others = f"run_id = ? AND weights IS NOT NULL AND adapter_id NOT IN ({marks})"

        def work(db: sqlite3.Connection) -> int:
            return db.execute(f"UPDATE adapters SET weights = NULL WHERE {others}", (run_id, *kept)).rowcount

        return await self._submit(work)

    async def put_event(self, e: EventRecord) -> None:
        """Store an event; durable on return."""
        await self._submit(lambda db: _insert_events(db, (e,)))

    async def mark_verified(self, runs: Sequence[RunVerification]) -> None:
        """Remember how far the chains of these runs were proved, so that the next start goes on from there.

        Durable on return. A mark says nothing of what is damaged later: that, each row's checksum tells.
        """
        rows = [(r.run_id, r.generations, r.digest) for r in runs]

        def work(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM verified WHERE run_id = ?", [row[:1] for row in rows])
            _insert(db, "verified", rows)

        await self._submit(work)

    # -- the owner task ----------------------------------------------------------------------------------------------

    async def _insert_new(self, table: str, rows: Sequence[Row]) -> None:
        """Rows of requests or replies; where one of a request's is there, that stays."""

        def work(db: sqlite3.Connection) -> None:
            _insert(db, table, rows, "ON CONFLICT (request_id) DO NOTHING")

        if rows:
            await self._submit(work)

    async def _submit(self, work: Work[T]) -> T:
        self._raise_if_stopped()
        job = _Job(work)
        await _finish_first(self._hand_in(job))
        return job.done.result()

    async def _hand_in(self, job: _Job[Any]) -> None:
        await self._enqueue(job)
        if self._ended:  # while we waited for room: nobody will take the job
            job.fail(self._stopped())
        await asyncio.wait((job.done,))

    async def _enqueue(self, job: _Job[Any] | None) -> None:
        async with self._door:
            if not self._ended:
                await self._queue.put(job)

    async def _own(self) -> None:
        try:
            while (job := await self._queue.get()) is not None:
                await self._run(job)
            if self._failure is None:
                with contextlib.suppress(sqlite3.Error):  # a full disk must not make closing fail: the log has it all
                    await self._connection.run(_one, "PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._closing = self._ended = True
            while not self._queue.empty():
                if (job := self._queue.get_nowait()) is not None:
                    job.fail(self._stopped())
            with contextlib.suppress(sqlite3.Error):  # what was committed is durable whether closing works or not
                await self._connection.close()

    async def _run(self, job: _Job[Any]) -> None:
        if self._failure is not None:  # keep answering, so that nobody waits for ever
            job.fail(self._stopped())
            return
        try:
            # Begun again while another process holds the lock, but not by a writer that is to close.
            job.done.set_result(
                await _through_locks(
                    lambda: self._connection.run(_transact, job.work, self._name),
                    self._lock_patience_s,
                    gives_up=lambda: self._closing,
                )
            )
        except (*_ROLLED_BACK, ValueError, TypeError, OverflowError) as error:
            job.fail(error)
        except StorageError as error:
            self._failure = error
            job.fail(error)
        except Exception as error:
            self._failure = StorageError(f"the journal's writer failed on {self._name}: {error!r}; start again")
            self._failure.__cause__ = error
            job.fail(self._failure)
        except BaseException:  # the loop is being torn down; the thread finishes the transaction all the same
            job.fail(JournalClosedError(f"{self._name} was closed within a transaction: open it to see if it is there"))
            raise

    def _raise_if_stopped(self) -> None:
        if self._closing or self._failure is not None:
            raise self._stopped()

    def _stopped(self) -> StorageError:
        if self._failure is not None:
            return type(self._failure)(*self._failure.args)
        return JournalClosedError(f"the writer of {self._name} is closed: open it again before writing")


async def _finish_first(step: Awaitable[T]) -> T:
    """Await a step to its end even when cancelled meanwhile; then raise the cancellation."""
    task = asyncio.ensure_future(step)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))  # unlike awaiting it, does not cancel it
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


async def _through_locks(
    step: Callable[[], Awaitable[T]], patience_s: float, *, gives_up: Callable[[], bool] = lambda: False
) -> T:
    """A step, taken again while another process holds the lock."""
    until_s = time.monotonic() + patience_s
    while True:
        try:
            return await step()
        except JournalLockedError:
            if gives_up() or time.monotonic() >= until_s:
                raise
        await asyncio.sleep(_LOCK_AGAIN_S)  # SQLite does not always wait by itself


def _transact(db: sqlite3.Connection, work: Work[T], name: str) -> T:
    with _translated(name):
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            failpoint("journal.before_commit")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # SQLite rolls back by itself when the disk is full
                db.execute("ROLLBACK")
            raise
    failpoint("journal.after_commit")
    return result


def _set_pragmas(db: sqlite3.Connection, name: str) -> None:
    for pragma, (value, expected) in WRITER_PRAGMAS.items():
        with _translated(name):
            db.execute(f"PRAGMA {pragma} = {value}").fetchall()
            (actual,) = _one(db, f"PRAGMA {pragma}")
        if actual != expected:
            raise JournalUnwritableError(
                f"{name}: the file system refuses {pragma} = {value} (it is {actual}): put the state on a local disk"
            )


def _one(db: sqlite3.Connection, sql: str, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    return tuple(db.execute(sql, parameters).fetchone())


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
            _insert(db, "evaluations", [evaluation_row(e, oracle_id, number)])


def _insert_generation(db: sqlite3.Connection, g: GenerationRecord) -> None:
    """A generation with its individuals, and its state in the place of the one before."""
    shared, leader = Shared(db), split_leader(g.leader)
    _insert(db, "generations", [generation_row(g, None if leader is None else shared.architecture(*leader))])
    rows = []
    for i in g.individuals:
        numbers = shared.architecture(i.architecture_key, i.architecture), shared.text(i.fitness_version)
        rows.append(individual_row(g, i, *numbers))
    _insert(db, "individuals", rows)
    state = (g.run_id, g.generation, g.state)
    db.execute(
        "INSERT INTO states VALUES (?,?,?) ON CONFLICT (run_id) DO UPDATE SET generation = ?2, state = ?3", state
    )


def _insert_buffer_entry(db: sqlite3.Connection, b: BufferEntryRecord) -> int:
    entry_id = next_id(db, "buffer_entries", "entry_id")
    _insert(db, "buffer_entries", [buffer_row(b, entry_id)])
    return entry_id


def _insert_events(db: sqlite3.Connection, events: Sequence[EventRecord]) -> None:
    first = next_id(db, "events", "event_id") if events else 0
    _insert(db, "events", [event_row(e, first + i) for i, e in enumerate(events)])


def _head(db: sqlite3.Connection, g: GenerationRecord) -> str:
    """Digest that ``g`` is chained to."""
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
