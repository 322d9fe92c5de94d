"""Lines of the log: what libraries say by Python's own logging is one of ours."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from riwoa.log import configure


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure("info", "json", stream)
    yield stream
    structlog.reset_defaults()


def test_what_a_library_says_is_a_line_without_a_traceback(said: io.StringIO) -> None:
    try:
        raise OSError(24, "Too many open files")
    except OSError:
        logging.getLogger("asyncio").exception("socket.accept() out of\nsystem \x1b[31mresource")
    (line,) = said.getvalue().splitlines()
    found = json.loads(line)
    assert (found["room"], found["event"], found["level"]) == ("asyncio", "library_said", "error")
    assert found["line"] == r"socket.accept() out of system \x1b[31mresource"
    assert found["error"] == "OSError: [Errno 24] Too many open files"


def test_configured_again_each_line_is_said_once(said: io.StringIO) -> None:
    configure("info", "json", said)
    logging.getLogger("riwoa_storage.durable").warning("once")
    assert len(said.getvalue().splitlines()) == 1
