"""Runs a user's program for a worker: what it prints is bounded, and nothing that it started outlives its worker.

The program has a process group of its own, and a variable in its environment that nobody else has. When it ends,
whatever is left of the group is killed, and whatever has left the group but not the variable behind. When the worker
ends, however that happens, so it is, too: this is done by a warden, a shell that waits for the end of a pipe which only
the worker holds open.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import riwoa
import riwoa_storage
from riwoa.errors import ConfigError
from riwoa.oracle.protocol import CandidateError
from riwoa.text import printable

_MARK = "RIWOA_EVALUATION"
# Its argument is the mark. What forks while it is looked for is found in the next round.
_WARDEN = """
while read -r group; do last=$group; done
[ "${last:-0}" -gt 1 ] && kill -s KILL -- "-$last"
for round in 1 2 3 4 5; do
  found=$(grep -ls "$1" /proc/[0-9]*/environ)
  [ -n "$found" ] || break
  for file in $found; do pid=${file#/proc/}; kill -s KILL "${pid%/environ}"; done
done
"""
_KEPT_BYTES = 1 << 17  # of the end of each stream
_READ_BYTES = 1 << 16
_LOOK_S = 0.05
_SHOWN = 200


class ProgramRunner:
    """Starts one command line again and again, one at a time.

    Args:
        command: its words; the first is a file.
        directory: the program's working directory.
    """

    def __init__(self, command: Sequence[str], directory: Path) -> None:
        self.command = tuple(command)
        self._directory = directory

    def run(self, given: bytes, told: Mapping[str, str]) -> bytes:
        """The last line that the program prints.

        Args:
            given: its standard input.
            told: variables of its environment, beside those that a shell here would give it.

        Raises:
            CandidateError: it cannot be started, fails, or prints nothing.
        """
        mark = secrets.token_hex(16)
        with tempfile.TemporaryFile() as stdin, _warden(f"{_MARK}={mark}") as tell:
            stdin.write(given)  # a pipe would wait for a program that does not read it
            stdin.seek(0)
            try:
                process = subprocess.Popen(
                    self.command,
                    cwd=self._directory,
                    env={**_environment(), **told, _MARK: mark},
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                raise CandidateError(f"{self.command[0]} cannot be started: {error.strerror}") from None
            tell(process.pid)
            try:
                output, errors = _ends_of(process)
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                tell(0)
        return _answer(process.returncode, output, errors)


@contextlib.contextmanager
def _warden(mark: str) -> Iterator[Callable[[int], None]]:
    """Start a warden, and wait for it in the end.

    What it is told is whose group to kill should this process end, 0 for nobody's; ``mark``: of whom else to kill.
    """
    with subprocess.Popen(
        ["/bin/sh", "-c", _WARDEN, "warden", mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what kills the worker's group must leave it alone
    ) as shell:
        pipe = shell.stdin
        assert pipe is not None

        def tell(group: int) -> None:
            pipe.write(b"%d\n" % group)
            pipe.flush()

        yield tell


def _environment() -> dict[str, str]:
    """The environment that riwoa was started in, but for what it sets for its own children's imports."""
    ours = {str(Path(str(package.__file__)).resolve().parent.parent) for package in (riwoa, riwoa_storage)}
    left_out = ("PYTHONSAFEPATH", "PYTHONPATH", "RIWOA_FAILPOINT", "RIWOA_CHILD_FAILPOINT")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry not in ours]
    return {**kept, "PYTHONPATH": os.pathsep.join(path)} if path else kept


def _ends_of(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """The last bytes of standard output and error, once the process has ended.

    What it leaves running may hold its pipes open, and is not waited for.
    """
    kept = {process.stdout: b"", process.stderr: b""}
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ended = process.poll() is not None  # looked at before reading: what it printed is in the pipe then
            ready = selector.select(0.0 if ended else _LOOK_S)
            for key, _ in ready:
                piece = os.read(key.fd, _READ_BYTES)
                if not piece:
                    selector.unregister(key.fileobj)
                stream = next(s for s in kept if s is key.fileobj)
                kept[stream] = (kept[stream] + piece)[-_KEPT_BYTES:]
            if ended and not ready:
                break
    process.wait()
    output, errors = kept.values()
    for stream in kept:
        assert stream is not None
        stream.close()
    return output, errors


def _answer(code: int, output: bytes, errors: bytes) -> bytes:
    """The last line of a program that went well.

    Raises:
        CandidateError: it did not, or printed nothing.
    """
    said = _last_line(errors) or _last_line(output)
    words = f": {printable(said.decode(errors='replace').strip(), _SHOWN)}" if said else ""
    if code < 0:
        with contextlib.suppress(ValueError):
            raise CandidateError(f"ended by {signal.Signals(-code).name}{words}")
        raise CandidateError(f"ended by signal {-code}{words}")
    if code > 0:
        raise CandidateError(f"exit status {code}{words}")
    line = _last_line(output)
    if not line:
        raise CandidateError(f"it printed nothing on standard output{words}")
    return line


def _last_line(text: bytes) -> bytes:
    """The last line that is not blank."""
    return text.rstrip().rpartition(b"\n")[2]


def executable(program: Sequence[str], directory: Path) -> str:
    """The file that a command line starts.

    Raises:
        ConfigError: there is none, or it cannot be executed.
    """
    name = program[0]
    if name == "python":
        script = next(iter(program[1:]), "-")
        if not script.startswith("-") and not (directory / script).is_file():
            raise ConfigError(f"oracle.command.program: there is no file {directory / script}")
        return sys.executable
    if "/" not in name:
        found = shutil.which(name)
        if found is None:
            raise ConfigError(f"oracle.command.program: there is no program {name!r} on the PATH; write its path")
        return found
    place = directory / name
    if not place.is_file():
        raise ConfigError(f"oracle.command.program: there is no file {place}")
    if not os.access(place, os.X_OK):
        raise ConfigError(
            f"oracle.command.program: {place} is not executable; chmod +x it, or write what runs it (python {name})"
        )
    return str(place)
