"""Logging of the service: the configured level, and the lines that child processes print."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from typing import Any

from riwoa.config.schema import Config
from riwoa.log import configure, get_logger

_log = get_logger("service")
_MOST_LINES_A_MINUTE = 60


def configure_log(config: Config, *, foreground: bool) -> None:
    """Log as configured; in the foreground the progress view owns the terminal and only trouble gets a line."""
    quiet = foreground and config.log.level == "info"
    configure("warning" if quiet else config.log.level, config.log.format)


def standard_error_file() -> str | None:
    """The file that this process logs to; None where that is none: a terminal, a pipe, the system's journal."""
    try:
        if not stat.S_ISREG(os.fstat(2).st_mode):
            return None
        name = os.readlink("/proc/self/fd/2")
    except OSError:
        return None
    return name if name.isprintable() and os.path.isfile(name) else None


class ChildLog:
    """Logs lines of child processes, at most so many a minute: one that floods must not fill the disk."""

    def __init__(self, most_a_minute: int = _MOST_LINES_A_MINUTE) -> None:
        self._most = most_a_minute
        self._minute = 0
        self._said = self._dropped = 0

    def say(self, write: Callable[..., Any], event: str, **facts: Any) -> None:
        """Write the line, unless too many were written this minute; how many were left out is logged later."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            if self._dropped:
                _log.warning("lines_dropped", count=self._dropped)
            self._minute, self._said, self._dropped = minute, 0, 0
        self._said += 1
        if self._said <= self._most:
            write(event, **facts)
        else:
            self._dropped += 1


_child_log = ChildLog()  # of all child processes together


def log_worker_line(slot: int, line: str) -> None:
    """Log what a worker process printed."""
    _child_log.say(_log.warning, "worker_said", worker=slot, line=line)


def log_model_line(line: str) -> None:
    """Log what the language model's process printed."""
    _child_log.say(_log.info, "model_said", line=line)


def log_export_line(line: str) -> None:
    """Log what the export's process printed."""
    _child_log.say(_log.warning, "export_said", line=line)
