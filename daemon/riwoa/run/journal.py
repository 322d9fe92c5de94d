"""The journal of one run: where the rooms of a run write it, and read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ConfigRevisionRecord
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
