"""Standard streams that cannot end, change or delay the work, whatever happens at their other end.

Whoever started us may have closed a stream, have it on a full disk, stop reading it, or take its terminal away. What
the daemon says, and all progress, is said by a ``LossyWriter``: what cannot be written is lost, and counted. What a
verb of ``riwoactl`` was asked for is its work, so there a ``StrictFile`` says that it could not be written.

``riwoactl status`` imports this, so it imports nothing that is slow to start.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from _thread import RLock, start_new_thread  # threading itself is only imported for whoever speaks

TYPE_CHECKING = False  # recognised by mypy; spares the import of typing
if TYPE_CHECKING:
    import threading
    from types import TracebackType
    from typing import TextIO

    from typing_extensions import Buffer

_MOST_WAITING_BYTES = 2**20  # of text that nobody takes: more would be memory lost to a reader that stopped
_GOODBYE_S = 2.0  # at the end, for a reader that is slow rather than gone
_MOST_AT_ONCE_BYTES = 2**12
_PLAIN = "riwoa-plain"
_LIKENESS = {"·": "-", "±": "+-", "█": "#", "░": ".", "…": "...", "≤": "<=", "→": "->"}


class OutputError(Exception):
    """Standard output cannot be written. It is no ``OSError``, or a verb would take it for trouble with a file."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written ({error.strerror}); the work itself is done")
        self.reader_gone = error.errno == errno.EPIPE


def _likeness(error: UnicodeError) -> tuple[str, int]:
    """An error handler for codecs: replaces what an encoding lacks by plain characters alike, or by its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    shown = [_LIKENESS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking]
    return "".join(shown), error.end


codecs.register_error(_PLAIN, _likeness)


def reopen_closed() -> None:
    """Put /dev/null where descriptor 0, 1 or 2 is closed.

    The next file opened would get that number: the journal, say, into which a library would then print its warnings.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)


def _write_all(descriptor: int, data: Buffer) -> None:
    """Write all of ``data``, also where somebody else made the descriptor non-blocking.

    Raises:
        OSError: it cannot be written.
    """
    left = memoryview(data).cast("B")
    while left:
        try:
            left = left[os.write(descriptor, left[:_MOST_AT_ONCE_BYTES]) :]
        except BlockingIOError:
            import select

            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll(1000)


class LossyWriter(io.TextIOBase):
    """A text stream on a descriptor whose ``write`` neither raises nor waits: a thread writes, the rest is counted."""

    encoding = "utf-8"
    errors = _PLAIN

    def __init__(self, descriptor: int, encoding: str | None = None) -> None:
        self.encoding = encoding or "utf-8"
        self.lost = 0  # pieces, mostly lines, that could not be written
        self._descriptor = descriptor
        self._unfinished = ""
        # One for all, and one that its holder may take again: a finalizer may print in the middle of anything here.
        self._lock = RLock()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0  # with what is being written
        self._changed: threading.Condition | None = None  # made by the first words: a verb in a hurry has none

    def fileno(self) -> int:
        """The descriptor, for child processes and for questions about the terminal."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a terminal is there."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """True: what cannot be written is counted, not refused."""
        return True

    @property
    def behind(self) -> bool:
        """Whether something is still to be written."""
        return self._waiting_bytes > 0

    def write(self, text: str) -> int:
        """Take text; its whole lines are handed to the writing thread at once."""
        with self._lock:
            whole, end, self._unfinished = (self._unfinished + text).rpartition("\n")
            if end:
                self._send(whole + end)
        return len(text)

    def flush(self) -> None:
        """Hand an unfinished line to the writing thread, too; does not wait for it."""
        with self._lock:
            text, self._unfinished = self._unfinished, ""
            if text:
                self._send(text)

    def _send(self, text: str) -> None:
        data = text.encode(self.encoding, self.errors)
        changed = self._changed or self._start()
        if changed is None or self._waiting_bytes + len(data) > _MOST_WAITING_BYTES:
            self.lost += 1
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        changed.notify_all()

    def _start(self) -> threading.Condition | None:
        """Start the writing thread; None where this machine has no thread left, until the next text."""
        import threading

        changed = threading.Condition(self._lock)
        if self._changed is not None:  # a finalizer has printed meanwhile
            return self._changed
        self._changed = changed
        try:
            # Not a Thread, whose start waits for it: a finalizer that prints in it first would wait for our lock.
            start_new_thread(self._write_on, (changed,))
        except RuntimeError:
            self._changed = None
        return self._changed

    def _write_on(self, changed: threading.Condition) -> None:
        while True:
            with changed:
                changed.wait_for(lambda: self._waiting)
                data = self._waiting.pop(0)
            try:
                _write_all(self._descriptor, data)
            except OSError:  # full, broken, gone: the next piece is tried again, for a disk may have room by then
                self.lost += 1
            with changed:
                self._waiting_bytes -= len(data)
                changed.notify_all()

    def drain(self, timeout_s: float) -> None:
        """Wait until everything is written, but no longer than ``timeout_s``."""
        self.flush()
        if self._changed is not None:
            with self._changed:
                self._changed.wait_for(lambda: not self._waiting_bytes, timeout_s)


class StrictFile(io.RawIOBase):
    """A file whose first failure raises ``OutputError``; later writes, such as Python's at exit, do nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._failed = False

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a terminal is there."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Buffer) -> int:
        """Write all of it.

        Raises:
            OutputError: it cannot be.
        """
        if not self._failed:
            try:
                _write_all(self._descriptor, data)
            except OSError as error:
                self._failed = True
                raise OutputError(error) from None
        return memoryview(data).nbytes


class GuardedStreams:
    """A context in which nothing that befalls the standard streams harms the program.

    Args:
        strict: whether standard output is the work itself: a failure to write it then raises ``OutputError``.

    Streams that somebody has put in their place, as a test that captures does, are left alone.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._before: tuple[TextIO, TextIO] = (sys.stdout, sys.stderr)

    def __enter__(self) -> GuardedStreams:
        reopen_closed()
        self._before = (sys.stdout, sys.stderr)
        if _is_real(sys.stdout, 1):
            sys.stdout = _strict(sys.stdout) if self._strict else _lossy(sys.stdout, 1)
        if _is_real(sys.stderr, 2):
            sys.stderr = _lossy(sys.stderr, 2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        said = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, LossyWriter)]
        sys.stdout, sys.stderr = self._before
        for stream in said:
            stream.drain(_GOODBYE_S / len(said))


def _is_real(stream: TextIO | None, descriptor: int) -> bool:
    try:
        return stream is None or stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


def _lossy(stream: TextIO | None, descriptor: int) -> TextIO:
    return LossyWriter(descriptor, stream.encoding if stream is not None else None)  # type: ignore[return-value]


def _strict(stream: TextIO | None) -> TextIO:
    encoding = stream.encoding if stream is not None else "utf-8"
    lines = stream is not None and stream.isatty()
    return io.TextIOWrapper(io.BufferedWriter(StrictFile(1)), encoding, _PLAIN, line_buffering=lines)
