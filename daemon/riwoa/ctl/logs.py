"""``riwoactl logs``: what the daemon logged, from the file or the system's journal that has it; else where it went."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, emit
from riwoa.ctl.screen import counted, moment, paragraph, since
from riwoa.errors import InputError, ServiceManagerError
from riwoa.files.lock import holder
from riwoa.parsing import parse_json_object
from riwoa.paths import SYSTEM_STATE, StatePaths, client_state
from riwoa.text import number, printable

_DESCRIPTION = """What the daemon of the state directory logged: the file that its standard error goes to, or the
system's journal where systemd runs it. Where neither has it, that is said, with what keeps it the next time."""
_LAST = 50
_LOOK_EVERY_S = 0.5
_MOST_LINE_CHARACTERS = 4_000
_PATIENCE_S = 30.0
_UNITS = ("riwoa.service", "riwoa-nightly.service")
_KEEP = "keep it the next time with `riwoad ... 2>> riwoa.log`, or run riwoa as a service (`riwoactl help service`)"


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where a daemon's log goes.

    Attributes:
        kind: "file", "journald", "terminal", or "none".
        name: the file, the unit, or the terminal.
    """

    kind: str
    name: str


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the log, or say where it went."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("--last", type=counted, default=_LAST, metavar="N", help=f"how many lines (default: {_LAST})")
    parser.add_argument("--follow", action="store_true", help="wait for more")
    parser.add_argument("--since", metavar="WHEN", type=since, help="of systemd's journal: 30min, 2h, or a date")
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    place = log_place(paths)
    if place.kind == "journald":
        return _show_journald(place, given.last, given.since, follow=given.follow, as_json=options.json)
    if place.kind != "file":
        raise InputError(_where_it_went(place, paths))
    try:
        with open(place.name, "rb") as stream:
            lines = _last_lines(stream, given.last)
            if not given.follow:
                data = {"source": place.kind, "name": place.name, "lines": lines}
                emit(options, data, "\n".join(map(_readable, lines)))
                return 0
            _follow(stream, lines, options)
    except OSError as error:
        raise InputError(f"the log {place.name} cannot be read ({error.strerror}); run as the daemon's user") from None
    return 0


def log_place(paths: StatePaths) -> LogPlace:
    """Where the daemon of a state directory logs, or logged last."""
    pid = holder(paths)
    if pid:
        return _of_process(pid)
    noted = noted_log(paths)
    if noted is not None and os.path.isfile(noted):
        return LogPlace("file", noted)
    if paths.directory == os.path.realpath(SYSTEM_STATE):
        return LogPlace("journald", _UNITS[0])
    return LogPlace("none", "" if noted is None else noted)


def noted_log(paths: StatePaths) -> str | None:
    """The log file that the last daemon noted in its lock file; None where it noted none.

    Raises:
        InputError: this user may not look.
    """
    try:
        with open(paths.name("lock"), encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read(8192).split("\n")
    except PermissionError:
        raise InputError(f"cannot read {paths.directory}: run as the daemon's user or in its group") from None
    except OSError:
        return None
    return next((line[4:] for line in lines if line.startswith("log=/")), None)


def _of_process(pid: int) -> LogPlace:
    """Where the standard error of a running daemon goes."""
    try:
        name = os.readlink(f"/proc/{pid}/fd/2")
        kind = os.stat(f"/proc/{pid}/fd/2").st_mode
    except OSError:  # another user's
        name, kind = f"process {pid}", 0
    if stat.S_ISREG(kind):
        return LogPlace("file", name)
    if unit := _unit_of(pid):
        return LogPlace("journald", unit)
    return LogPlace("terminal" if stat.S_ISCHR(kind) and name != os.devnull else "none", name)


def _unit_of(pid: int) -> str | None:
    """The service of systemd that a process runs in, so that its output is in the system's journal."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
            groups = stream.read()
    except OSError:
        return None
    return next((unit for unit in _UNITS if f"/{unit}" in groups), None)


def _where_it_went(place: LogPlace, paths: StatePaths) -> str:
    if place.kind == "terminal":
        return f"the daemon of {paths.directory} logs to its terminal, {place.name}; {_KEEP}"
    if place.name.startswith("/") and place.name != os.devnull:
        return f"the daemon of {paths.directory} logged to {place.name}, which is gone; {_KEEP}"
    running = f"the daemon of {paths.directory} logs to {place.name}" if place.name else "no daemon runs here now"
    return f"{running}, and no log was kept; {_KEEP}"


# -- a file ------------------------------------------------------------------------------------------------------------


def _last_lines(stream: BinaryIO, most: int) -> list[str]:
    """The last lines of a file, safe to show; only its end is read."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - most * _MOST_LINE_CHARACTERS))
    lines = deque(stream.read(size).splitlines(), most)
    return [_safe(line) for line in lines]


def _safe(line: bytes) -> str:
    return printable(line.decode(errors="replace"), _MOST_LINE_CHARACTERS)


def _readable(line: str) -> str:
    """A line for people: one that is a JSON object as when, how grave, what, and its facts."""
    try:
        facts = parse_json_object(line)
        when = moment(datetime.fromisoformat(facts.pop("timestamp")).timestamp())
        head = f"{when}  {facts.pop('level')}  {facts.pop('room', '')}  {facts.pop('event')}"
    except (ValueError, KeyError, TypeError):  # another program's, or half of one
        return paragraph(line, "  ", "")
    said = ", ".join(f"{name} {_fact(value)}" for name, value in facts.items())
    return paragraph(printable(f"{head}  {said}", _MOST_LINE_CHARACTERS), "  ", "")


def _fact(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _follow(stream: BinaryIO, lines: list[str], options: Options) -> None:
    """Print lines as they are written, a JSON object each where that is wanted."""
    pending = b""
    while True:
        for line in lines:
            print(json.dumps({"line": line}) if options.json else _readable(line))
        sys.stdout.flush()
        *whole, pending = (pending + stream.read()).split(b"\n")
        lines = [_safe(line) for line in whole]
        if not lines:
            time.sleep(_LOOK_EVERY_S)


# -- the system's journal ----------------------------------------------------------------------------------------------


def _show_journald(place: LogPlace, last: int, since_unix_s: float | None, *, follow: bool, as_json: bool) -> int:
    """Become, or ask, journalctl.

    Raises:
        ServiceManagerError: it is missing, or refuses.
    """
    program = shutil.which("journalctl")
    if program is None:
        raise ServiceManagerError("the daemon logs to systemd's journal, and no journalctl is here to read it")
    units = [word for unit in _UNITS for word in ("-u", unit)]  # by day and by night it is the one state
    command = [program, "--no-pager", "-o", "json" if as_json and follow else "cat", "-n", str(last), *units]
    command += [] if since_unix_s is None else ["--since", f"@{since_unix_s:.0f}"]
    if follow:
        sys.stdout.flush()
        os.execv(program, [*command, "-f"])
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceManagerError(f"journalctl failed: {error}") from None
    if done.returncode:
        raise ServiceManagerError(f"journalctl refused: {printable(done.stderr.decode(errors='replace'), 300)}")
    lines = [_safe(line) for line in done.stdout.splitlines()]
    emit(
        Options(json=as_json),
        {"source": "journald", "name": place.name, "lines": lines},
        "\n".join(map(_readable, lines)),
    )
    return 0
