"""Whole transactions on one connection, one after the other; what they guarantee, ``writer.py`` says.

One task owns the one connection. Callers hand it whole transactions, never statements, through a bounded queue: two
tasks that share an aiosqlite connection would share a transaction, and a cancelled ``await commit()`` raises although
the row was committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import aiosqlite

from riwoa_storage.connect import BUSY_TIMEOUT_S, WRITER_PRAGMAS, translate
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

T = TypeVar("T")
P = ParamSpec("P")
Work = Callable[[sqlite3.Connection], T]  # the statements between BEGIN and COMMIT, run on the connection's thread

QUEUE_LENGTH = 64  # whole transactions; a caller waits when the disk is that far behind
_LOCK_AGAIN_S = 0.2
_ROLLED_BACK = (JournalFullError, JournalLockedError, JournalRefusedError, RowDamagedError)  # the owner goes on


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


class Transactions:
    """The owner of the one connection that writes. Open with ``await Transactions.open(path, patience_s)``."""

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
    async def open(cls, path: Path, lock_patience_s: float) -> Transactions:
        """Connect to a journal of this version.

        Raises:
            JournalUnwritableError, JournalLockedError: it cannot be written, or not now.
        """
        name = os.path.abspath(path)  # noqa: ASYNC240 computes; touches no file
        connection = _Connection(partial(_connect, name), iter_chunk_size=1)
        await connection
        try:
            await connection.run(_set_pragmas, name)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, name, lock_patience_s)

    async def run(self, work: Work[T]) -> T:
        """Run a transaction; on return it is durable. Its error rolls it back; some end the owner (``writer.py``)."""
        self._raise_if_stopped()
        job = _Job(work)
        await _finish_first(self._hand_in(job))
        return job.done.result()

    async def close(self) -> None:
        """Finish what was handed in before, fold the log into the file unless a reader holds it, close; idempotent."""
        if not self._closing:
            self._closing = True
            await _finish_first(self._enqueue(None))
        await _finish_first(self._owner)

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
                    await self._connection.run(single_row, "PRAGMA wal_checkpoint(TRUNCATE)")
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
                await through_locks(
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


async def through_locks(
    step: Callable[[], Awaitable[T]], patience_s: float, *, gives_up: Callable[[], bool] = lambda: False
) -> T:
    """Take a step, again and again while another process holds the lock."""
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
            (actual,) = single_row(db, f"PRAGMA {pragma}")
        if actual != expected:
            raise JournalUnwritableError(
                f"{name}: the file system refuses {pragma} = {value} (it is {actual}): put the state on a local disk"
            )


def single_row(db: sqlite3.Connection, sql: str, parameters: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    """The row of a query that gives exactly one."""
    return tuple(db.execute(sql, parameters).fetchone())
