"""Child processes: how they start, how they report an error, and why none outlives its parent.

A daemon killed with SIGKILL cleans nothing up. Two independent ropes tie a child to it: the kernel signals the child
when its parent dies (Linux), and the child exits when its standard input, held open by the parent, ends (everywhere).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import riwoa
import riwoa_storage
from riwoa.errors import OracleError, RiwoaError

ORPHANED_EXIT_CODE = 113
_PR_SET_PDEATHSIG = 1
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def child_command(module: str, *arguments: str) -> list[str]:
    """The command ``python -m module``, which imports nothing from the working directory.

    A user's ``random.py`` may lie there.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def thread_variables(threads: int) -> dict[str, str]:
    """What holds the numeric libraries of a process to a number of threads, in its environment."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def child_environment(threads: int, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for ``child_command``: this process's, with numeric libraries held to ``threads`` threads.

    Whatever Python starts below it keeps off the working directory too: relative entries of PYTHONPATH, and empty ones,
    which ``PYTHONPATH=$PYTHONPATH:/somewhere`` makes so easily, mean that directory.
    """
    roots = [str(Path(str(package.__file__)).resolve().parent.parent) for package in (riwoa, riwoa_storage)]
    path = [*roots, *filter(os.path.isabs, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # A test's failpoint is one process's: a child has its own.
    failpoint = {"RIWOA_FAILPOINT": os.environ.get("RIWOA_CHILD_FAILPOINT", "")}
    imports = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}
    return {**os.environ, **thread_variables(threads), **failpoint, **imports, **(extra or {})}


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when the parent dies; where it cannot send one, ``watch_stdin`` must do."""
    if not sys.platform.startswith("linux"):
        return
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    except (OSError, AttributeError):
        return


def watch_stdin(on_line: Callable[[bytes], None] | None = None) -> None:
    """Read standard input in a thread, hand lines on, and end the whole process at its end.

    ``os._exit``, because the main thread may sit in native code for minutes and holds nothing worth flushing.
    """
    stream = os.fdopen(os.dup(0), "rb")

    def read() -> None:
        for line in stream:
            if on_line is not None:
                on_line(line)
        os._exit(ORPHANED_EXIT_CODE)

    threading.Thread(target=read, name="stdin-watch", daemon=True).start()


def take_stdout() -> BinaryIO:
    """Standard output as a stream for frames alone; whatever else is printed goes to standard error from now on."""
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return frames


def error_to_json(error: BaseException) -> dict[str, str]:
    """An error as JSON: the name of its class, and its message."""
    return {"class": type(error).__name__, "message": str(error)}


def error_from_json(data: Mapping[str, Any]) -> RiwoaError:
    """The error that a child reported; an OracleError where the class is none of riwoa's own."""
    name, message = str(data.get("class")), str(data.get("message"))
    for known in _descendants(RiwoaError):
        if known.__name__ == name:
            return known(message)
    return OracleError(f"{name}: {message}")


def _descendants(cls: type[RiwoaError]) -> Iterator[type[RiwoaError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)
