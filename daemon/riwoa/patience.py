"""Tries again what failed for trouble that is gone in a moment, so that it does not end a search.

``fault`` says what an error of the operating system means; of the journal's own errors those pass that somebody else's
lock, a full disk or a lack of file descriptors explains, for whoever searches has the journal open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from riwoa.errors import FullDiskError
from riwoa.log import get_logger
from riwoa_storage.errors import JournalFullError, JournalLockedError, JournalMissingError, JournalUnreadableError
from riwoa_storage.fault import WAIT, fault

_log = get_logger("patience")
_T = TypeVar("_T")
# Missing: whoever searches has it open, so somebody has renamed its directory and may put it back.
_PASSING = (JournalFullError, JournalLockedError, JournalMissingError, JournalUnreadableError, FullDiskError)
_AGAIN_S = 1.0
_MOST_DOUBLINGS = 5  # of a wait after failures
_LONGEST_S = 60.0  # then it is no trifle any more, and the search says so and begins anew from where the journal stands


def is_transient(error: BaseException) -> bool:
    """Whether what an error says may be gone in a moment."""
    return isinstance(error, _PASSING) or (isinstance(error, OSError) and fault(error) == WAIT)


async def patiently(look: Callable[[], _T]) -> _T:
    """The result of ``look()``, called in a thread, and again while it fails for trouble that is gone in a moment.

    Raises:
        Exception: what ``look`` raises, if it does not pass, or does not for a minute.
    """
    began_s, told = time.monotonic(), False
    while True:
        try:
            return await asyncio.to_thread(look)
        except Exception as error:
            if not is_transient(error) or time.monotonic() - began_s > _LONGEST_S:
                raise
            if not told:
                _log.warning("tried_again", reason=_words(error), every_s=_AGAIN_S)
            told = True
        await asyncio.sleep(_AGAIN_S)


class BestEffort:
    """Attempts what a search can do without: a failure is logged, once until it works again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._failing = False

    def attempt(self, step: Callable[[], object]) -> bool:
        """Call ``step``; returns whether it worked."""
        try:
            step()
        except Exception as error:
            if not self._failing:
                _log.warning("convenience_failed", what=self._name, reason=_words(error))
            self._failing = True
            return False
        self._failing = False
        return True


class Backoff:
    """How long to wait after a failure: twice as long after each in a row, as at first after an attempt that lasted."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """Forget the failures so far: an attempt went well."""
        self._failures = 0

    def wait_s(self, lasted_s: float, first_s: float) -> float:
        """Seconds to wait after another failure.

        Args:
            lasted_s: how long the attempt lasted that has failed now.
            first_s: the wait after a first failure.
        """
        self._failures = 0 if lasted_s > first_s * 2**_MOST_DOUBLINGS else self._failures + 1
        return first_s * float(2 ** min(max(0, self._failures - 1), _MOST_DOUBLINGS))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
