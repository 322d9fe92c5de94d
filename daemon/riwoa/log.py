"""Structured logs: JSON lines for the system's journal, columns for a terminal.

An event is a word in snake_case and its facts.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from riwoa.console.terminal import Terminal
from riwoa.text import printable

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_MOST_CHARACTERS = 4_000


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Set up structlog; ``form`` is "json", "pretty", or "auto" (pretty on a terminal)."""
    stream = stream or sys.stderr
    pretty = form == "pretty" or (form == "auto" and stream.isatty())
    renderers: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    if pretty:
        plain = structlog.dev.plain_traceback
        renderers = [structlog.dev.ConsoleRenderer(colors=Terminal.of(stream).colours, exception_formatter=plain)]
    logging.getLogger().addHandler(_library_handler)  # adds it once, however often it is called
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([_printable] if pretty else []),  # JSON escapes by itself
            _LossReporter(stream),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(stream),  # a line is one write: written whole, or lost whole
        cache_logger_on_first_use=False,  # a reload may change the level
    )


class _LibraryHandler(logging.Handler):
    """Logs in one line what libraries, asyncio above all, say through Python's own logging, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record; its error, if there is one, in a few words."""
        error = record.exc_info[1] if record.exc_info else None
        words = {} if error is None else {"error": printable(f"{type(error).__name__}: {error}")}
        write = get_logger(record.name).error if record.levelno >= logging.ERROR else get_logger(record.name).warning
        write("library_said", line=printable(record.getMessage()), **words)


_library_handler = _LibraryHandler(logging.WARNING)


class _LossReporter:
    """Adds ``lines_lost`` to the first line after a loss: how many the stream could not take since the start."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told = 0

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        lost = getattr(self._stream, "lost", 0)
        if lost > self._told:
            self._told = event["lines_lost"] = lost
        return event


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines name a room. It is lazy: modules make theirs before ``configure`` is called."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(room=name)
    return logger


def _printable(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The event with its texts made safe for a terminal, since they may quote names that anybody chose."""
    return {
        key: printable(value, _MOST_CHARACTERS) if isinstance(value, str) else value for key, value in event.items()
    }
