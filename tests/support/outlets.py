"""Where output may go that is not taken: closed, full, broken, never read, a terminal that goes away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

OUTLETS = ("closed", "full", "broken", "blocked", "gone")


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it said on the stream that was left in order."""

    code: int
    said: str


@contextmanager
def _outlet(kind: str) -> Iterator[tuple[int, Callable[[], None]]]:
    """A descriptor to write to, and what happens to it once the program has started."""
    if kind == "full":
        reading, writing = -1, os.open("/dev/full", os.O_WRONLY)
    elif kind == "gone":
        reading, writing = pty.openpty()
    else:
        reading, writing = os.pipe()
    taken = reading
    if kind == "blocked":  # not a byte more fits in
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
    if kind == "broken":
        os.close(reading)
        taken = -1

    def take_away() -> None:
        nonlocal taken
        if kind == "gone":
            os.close(reading)
            taken = -1

    try:
        yield writing, take_away
    finally:
        os.close(writing)
        if taken >= 0:
            os.close(taken)


def run_into(
    kind: str,
    streams: Sequence[int],
    command: Sequence[str],
    environment: Mapping[str, str],
    place: Path,
    *,
    started: Callable[[], bool] = lambda: True,
    timeout_s: float = 120.0,
) -> Ended:
    """Run a command whose ``streams`` (1, 2) go to such an outlet; a terminal goes away once it has ``started``."""
    with ExitStack() as stack:
        outlet, take_away = stack.enter_context(_outlet(kind))
        said = stack.enter_context((place / "said").open("w+b"))

        def arrange() -> None:
            if kind == "gone":
                os.setsid()
                fcntl.ioctl(outlet, termios.TIOCSCTTY, 0)  # it leads the terminal's session: SIGHUP is for it
            for number in (1, 2):
                os.dup2(outlet if number in streams else said.fileno(), number)
            if kind == "closed":
                for number in streams:
                    os.close(number)

        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, preexec_fn=arrange, pass_fds=(outlet, said.fileno())
        )
        try:
            end_s = time.monotonic() + timeout_s
            while process.poll() is None and not started() and time.monotonic() < end_s:
                time.sleep(0.02)
            take_away()
            code = process.wait(timeout=timeout_s)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        return Ended(code, said.read().decode())
