"""The parent's end of a child process that answers frames: started, asked, watched and killed. asyncio, no torch.

The oracle's workers and the language model are such children. A frame is one line of JSON either way; a child's
standard error is its log. Whatever goes wrong with the process is one error, whose message is the reason that gets
journaled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riwoa.ipc.child import child_command
from riwoa.ipc.frames import decode_frame
from riwoa.text import printable
from riwoa_storage.failpoint import failpoint

_DRAINED_BYTES = 2**16
_MAX_LOG_CHARACTERS = 500
_EXIT_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """The limits of time and memory for one answer."""

    timeout_s: float
    memory_bytes: int | None = None  # resident set; None: any
    poll_s: float = 0.2  # how often memory is looked at, and whether a signal has stopped it
    stopped_s: float = 10.0  # how long a signal may stop it before it is given up: by itself it never goes on


class ProcessLostError(Exception):
    """The process is gone or useless; the message is the reason that gets journaled."""


class ProcessLateError(ProcessLostError):
    """The answer took too long."""


class ProcessStoppedError(ProcessLostError):
    """A signal has stopped the process, and nobody lets it go on."""


class ProcessMemoryError(ProcessLostError):
    """The process took more memory than it may."""


class ProcessKilledError(ProcessLostError):
    """SIGKILL ended the process, as the kernel does when the machine's memory runs out."""


class ChildProcess:
    """One child process and its pipes.

    After an ``ask`` that was cancelled or raised, the process is of no more use: whoever asked stops it.
    """

    def __init__(self, process: asyncio.subprocess.Process, on_line: Callable[[str], None], name: str) -> None:
        self._process = process
        self._name = name
        self._log_task = asyncio.create_task(self._read_log(on_line), name=f"{name}-log")
        self._gone_task: asyncio.Task[None] | None = None

    @classmethod
    async def spawn(
        cls,
        module: str,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        *,
        name: str,
        max_frame_bytes: int,
    ) -> ChildProcess:
        """Start ``python -m module``.

        Args:
            module: what runs in the child.
            environment: of the child (``riwoa.ipc.child.child_environment``).
            on_line: gets each line of its standard error, cut to a bounded length.
            name: of the tasks.
            max_frame_bytes: an answer longer than this is a broken frame.

        Raises:
            ProcessLostError: there can be no process.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *child_command(module),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal is for the daemon, which then stops its workers in order
                limit=max_frame_bytes,
            )
        except OSError as error:
            raise ProcessLostError(f"no process: {error.strerror}") from error
        return cls(process, on_line, name)

    @property
    def pid(self) -> int:
        """The process id, which is also that of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not been seen to end."""
        return self._process.returncode is None

    async def ask(
        self,
        frame: bytes,
        limits: AnswerLimits,
        *,
        late: str,
        on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Send a frame and wait for the answer, looking at clock and memory.

        Args:
            frame: one line.
            limits: of the whole answer, progress included.
            late: the reason when time runs out.
            on_progress: gets what "progress" frames hold; None: such a frame is an answer like any other.

        Raises:
            ProcessLostError: there is no answer; the process may still live.
        """
        assert self._process.stdin is not None
        end_s = time.monotonic() + limits.timeout_s
        with contextlib.suppress(ConnectionError):  # a dead process shows as the end of its output
            self._process.stdin.write(frame)
        failpoint("child.asked")
        while True:
            answer = await self._answer(end_s, limits, late)
            if on_progress is None or "progress" not in answer:
                return answer
            on_progress(answer["progress"])

    def send(self, frame: bytes) -> None:
        """Send a frame to a process that answers when it likes (``receive``)."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):  # a dead process shows as the end of its output
            self._process.stdin.write(frame)

    async def receive(self, timeout_s: float) -> dict[str, Any]:
        """The next frame of a process that sends when it likes.

        Raises:
            ProcessLostError: there is none in time; the process may still live.
        """
        assert self._process.stdout is not None
        line = asyncio.ensure_future(self._process.stdout.readline())
        try:
            if not (await asyncio.wait({line}, timeout=timeout_s))[0]:
                raise ProcessLateError(f"said nothing for {timeout_s:g} s")
            return await self._parse(line)
        finally:
            line.cancel()

    async def _answer(self, end_s: float, limits: AnswerLimits, late: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = asyncio.ensure_future(self._process.stdout.readline())
        ran_s = time.monotonic()  # when it was last seen not to be stopped
        try:
            while not line.done():
                now_s = time.monotonic()
                left_s, ran_s = end_s - now_s, ran_s if self.stopped() else now_s
                if left_s <= 0:
                    raise ProcessLateError(late)
                if now_s - ran_s > limits.stopped_s:
                    raise ProcessStoppedError(f"worker stopped by a signal for {limits.stopped_s:g} s")
                if self.exceeds_memory(limits.memory_bytes):
                    raise ProcessMemoryError("memory")
                await asyncio.wait({line}, timeout=min(left_s, limits.poll_s))
            return await self._parse(line)
        finally:
            line.cancel()

    async def _parse(self, line: asyncio.Future[bytes]) -> dict[str, Any]:
        try:
            if not line.result().endswith(b"\n"):
                raise await self._death()
            return decode_frame(line.result())
        except (ValueError, RecursionError):  # not JSON, or longer or deeper than any frame
            raise ProcessLostError("worker died: broken frame") from None

    async def _death(self) -> ProcessLostError:
        """Why the process died: its output has ended, so it should be gone at once."""
        try:
            async with asyncio.timeout(_EXIT_GRACE_S):
                code = await self._process.wait()
        except TimeoutError:
            return ProcessLostError("worker died: it closed its output")
        cause = f"signal {-code}" if code < 0 else f"exit status {code}"
        return (ProcessKilledError if code == -signal.SIGKILL else ProcessLostError)(f"worker died: {cause}")

    def resident_bytes(self) -> int | None:
        """Resident memory of the process and of what it started; None where the kernel does not tell.

        Without pages of mapped files: weights are read through a mapping, and what is only cached is no leak.
        """
        own = _resident_bytes(self.pid)
        return None if own is None else own + sum(_resident_bytes(pid) or 0 for pid in _descendants(self.pid))

    def stopped(self) -> bool:
        """Whether a signal (SIGSTOP) keeps it from running; False where the kernel does not tell."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return False
        return state == "T"

    def exceeds_memory(self, limit_bytes: int | None) -> bool:
        """Whether the process's resident memory exceeds a limit; None is no limit."""
        return limit_bytes is not None and (self.resident_bytes() or 0) > limit_bytes

    def when_gone(self, call: Callable[[], Any]) -> None:
        """Await ``call()`` once the process has ended."""

        async def watch() -> None:
            await self._process.wait()
            await call()

        self._gone_task = asyncio.create_task(watch(), name=f"{self._name}-exit")

    def kill(self) -> None:
        """Send SIGKILL to the process and whatever it started."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Kill the process, reap it, read its log to the end, and close the pipes."""
        self.kill()
        # asyncio's wait() also waits for the pipes' ends, and never sees that of a pipe which a flood has paused.
        await asyncio.gather(self._process.wait(), self._drain())
        _, pending = await asyncio.wait({self._log_task}, timeout=_EXIT_GRACE_S)
        for task in (*pending, *filter(None, [self._gone_task])):
            task.cancel()
        assert self._process.stdin is not None
        self._process.stdin.close()  # the event loop may end before it notices by itself that nobody reads
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.wait_closed()

    async def _drain(self) -> None:
        """Read standard output to its end and throw it away."""
        assert self._process.stdout is not None
        with contextlib.suppress(RuntimeError):  # somebody else is reading, so nothing is paused
            while await self._process.stdout.read(_DRAINED_BYTES):
                pass

    async def _read_log(self, on_line: Callable[[str], None]) -> None:
        """Hand on the lines of standard error, each cut to a bounded length."""
        assert self._process.stderr is not None
        rest = b""
        while chunk := await self._process.stderr.read(4096):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                on_line(_shown(line))
            rest = rest[: 4 * _MAX_LOG_CHARACTERS]
        if rest:
            on_line(_shown(rest))


def _resident_bytes(pid: int) -> int | None:
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except (OSError, ValueError):
        return None
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _descendants(pid: int) -> Iterator[int]:
    """Children of a process, their children, and so on; nobody where the kernel does not tell."""
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split()):
                yield child
                yield from _descendants(child)


def _shown(line: bytes) -> str:
    """A line of a child's as it is journaled, logged and shown: bounded and printable."""
    return printable(line[: 4 * _MAX_LOG_CHARACTERS].decode(errors="replace"), _MAX_LOG_CHARACTERS)
