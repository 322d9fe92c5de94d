"""The successes of a run as its trainings see them: what was learned from, what judges, what is left."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from riwoa_storage.reader import JournalReader

MOST_HELD_OUT = 32  # that judge an adapter, the last ones


@dataclass(slots=True)
class Success:
    """A buffer entry; what is held out is never learned from."""

    entry_id: int
    generation: int
    held_out: bool
    consumed: bool


class Successes:
    """The buffer entries of a run, oldest first, without their texts.

    Args:
        held_out_share: of them that judge adapters.
    """

    def __init__(self, held_out_share: float) -> None:
        self._every = round(1 / held_out_share) if held_out_share > 0 else 0
        self._entries: list[Success] = []

    def take_in(self, reader: JournalReader, run_id: int) -> None:
        """Take in what the journal holds beyond."""
        last, every = self._entries[-1].entry_id if self._entries else 0, self._every
        for entry in reader.buffer(run_id, after=last):
            held_out = every > 0 and len(self._entries) % every == every - 1
            self._entries.append(Success(entry.entry_id, entry.generation, held_out, entry.consumed_by is not None))

    def unconsumed(self, generation: int | None = None) -> list[Success]:
        """Those that no training has consumed, oldest first, up to a generation if one is named."""
        return [s for s in self._entries if not s.consumed and (generation is None or s.generation <= generation)]

    @property
    def held_out(self) -> set[int]:
        """Ids of those that are never learned from."""
        return {s.entry_id for s in self._entries if s.held_out}

    def judging(self, generation: int) -> list[Success]:
        """The newest of them up to a generation: they judge the adapter that is trained then."""
        return [s for s in self._entries if s.held_out and s.generation <= generation][-MOST_HELD_OUT:]

    def consume(self, entry_ids: Collection[int]) -> None:
        """An adapter has learned from these."""
        for s in self._entries:
            s.consumed = s.consumed or s.entry_id in entry_ids
