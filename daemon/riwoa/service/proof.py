"""Proof that the journal is whole: the digest chain of its committed generations, recomputed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from riwoa.patience import patiently
from riwoa_storage.replay import verify
from riwoa_storage.writer import JournalWriter

EVERY_S = 120.0
_PART = 500  # generations proved before that is remembered


class JournalProof:
    """Verifies what was committed since the last time, and remembers in the journal how far the chain holds.

    Args:
        journal: the writer, for the marks.
        path: of the same journal, for reading.
    """

    def __init__(self, journal: JournalWriter, path: Path) -> None:
        self._journal = journal
        self._path = path

    async def prove(
        self, progress: Callable[[int, int], None] = lambda done, total: None, *, structure: bool = False
    ) -> None:
        """Verify the journal in parts, each remembered, so that a kill on the way costs one part.

        A journal that was just migrated is verified from its beginning. A damaged adapter is left to whoever loads it:
        learning falls back to the last good one.

        Args:
            progress: told how many generations of how many are verified, from a thread.
            structure: check the file's structure, too.

        Raises:
            JournalCorruptError: the chain does not hold.
        """
        given_up, complete = False, False

        def told(done: int, total: int) -> None:
            if given_up:
                raise asyncio.CancelledError  # ends the thread, for whom a daemon that stops would have to wait
            progress(done, total)

        part = partial(verify, self._path, adapters=False, since_last=True, most=_PART, progress=told)
        try:
            while not complete:
                found = await patiently(partial(part, structure=structure))
                await self._journal.mark_verified(found.runs)
                complete, structure = found.complete, False
        except asyncio.CancelledError:
            given_up = True
            raise

    async def keep_proving(self) -> None:
        """Prove every two minutes, until cancelled, so that no start finds a long history unverified."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.prove()
