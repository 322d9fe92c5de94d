"""Waiting for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    """Wait for something to come true.

    Raises:
        AssertionError: it did not.
    """
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {within_s:g} s: {what}"
        time.sleep(0.5)
