"""The journal of one run: where the rooms of a run write it, and read it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ConfigRevisionRecord, EventRecord
from riwoa_storage.writer import JournalWriter


@dataclass(frozen=True, slots=True)
class RunJournal:
    """A journal and the run in it that is under way.

    Attributes:
        writer: the only one.
        path: for readers; a reader blocks, so only threads read.
        run_id: the run, begun.
    """

    writer: JournalWriter
    path: Path
    run_id: int

    def reader(self) -> JournalReader:
        """A connection that reads; to be closed."""
        return JournalReader(self.path)

    def config_revisions(self) -> list[ConfigRevisionRecord]:
        """The run's configurations, as applied. For a thread."""
        with self.reader() as reader:
            return reader.config_revisions(self.run_id)

    def event(self, kind: str, payload: Mapping[str, Any], generation: int) -> EventRecord:
        """An event of the run that happens now."""
        return EventRecord(
            kind=kind, payload=payload, run_id=self.run_id, generation=generation, created_unix_s=time.time()
        )

    async def put_event(self, kind: str, payload: Mapping[str, Any], generation: int) -> None:
        """Store an event of the run."""
        await self.writer.put_event(self.event(kind, payload, generation))
