"""The successes of a run as its trainings see them: what was learned from, what judges, what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from riwoa.cognition.protocol import Example, one_of_each
from riwoa.run.lessons import Material, Taken
from riwoa_storage.digest import relative_request_id
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import BufferEntryRecord, IndividualRecord

MOST_HELD_OUT = 32  # that judge an adapter, the last ones


@dataclass(slots=True)
class Success:
    """A buffer entry; what is held out is never learned from."""

    entry_id: int
    generation: int
    held_out: bool
    consumed: bool


class Successes:
    """The buffer entries of a run, oldest first, without their texts; implements ``Lessons``.

    Args:
        run_id: the run.
        held_out_share: of them that judge adapters.
    """

    each = "successes"
    after = 16

    def __init__(self, run_id: int, held_out_share: float) -> None:
        self._run_id = run_id
        self._every = round(1 / held_out_share) if held_out_share > 0 else 0
        self._entries: list[Success] = []

    @property
    def unconsumed(self) -> int:
        """See ``Lessons``."""
        return len(self._unconsumed())

    def committed(self, generation: int, individuals: Sequence[IndividualRecord], reader: JournalReader) -> None:
        """See ``Lessons``."""
        if any(i.request_id is not None for i in individuals):
            self._take_in(reader)

    def restore(self, reader: JournalReader, generation: int, consumed: int | None) -> None:
        """See ``Lessons``; the journal itself says what was consumed."""
        self._take_in(reader)

    def enough_since(self, count: int) -> int | None:
        """See ``Lessons``."""
        unconsumed = self._unconsumed()
        return unconsumed[count - 1].generation if len(unconsumed) >= count else None

    def take(self, generation: int, most: int) -> Taken:
        """See ``Lessons``: the oldest, judged by the newest that are held out."""
        taken = [s.entry_id for s in self._unconsumed() if s.generation <= generation][:most]
        judging = [s.entry_id for s in self._entries if s.held_out and s.generation <= generation]
        return Taken(generation, tuple(taken), tuple(judging[-MOST_HELD_OUT:]))

    def material(self, reader: JournalReader, taken: Taken) -> Material:
        """See ``Lessons``."""
        oldest = min((*taken.entries, *taken.held_out), default=1)
        entries = {e.entry_id: e for e in reader.buffer(self._run_id, after=oldest - 1)}
        never = {s.entry_id for s in self._entries if s.held_out}
        return Material(
            examples=one_of_each(_example(entries[i]) for i in taken.entries if i not in never),
            held_out=tuple(_example(entries[i]) for i in taken.held_out),
        )

    @property
    def trial_since(self) -> int | None:
        """See ``Lessons``: half of what starts a training."""
        return self.enough_since(self.after // 2)

    def trial_material(self, reader: JournalReader, taken: Taken) -> Material:
        """See ``Lessons``: all of them."""
        found = self.material(reader, taken)
        return Material(held_out=found.held_out + found.examples)

    def consume(self, taken: Taken) -> None:
        """See ``Lessons``."""
        for s in self._entries:
            s.consumed = s.consumed or s.entry_id in taken.entries

    def _unconsumed(self) -> list[Success]:
        return [s for s in self._entries if not s.consumed]

    def _take_in(self, reader: JournalReader) -> None:
        """Take in what the journal holds beyond."""
        last, every = self._entries[-1].entry_id if self._entries else 0, self._every
        for entry in reader.buffer(self._run_id, after=last):
            held_out = every > 0 and len(self._entries) % every == every - 1
            self._entries.append(Success(entry.entry_id, entry.generation, held_out, entry.consumed_by is not None))


def _example(entry: BufferEntryRecord) -> Example:
    return Example(
        id=relative_request_id(entry.request_id),
        system=entry.trace["system"],
        prompt=entry.trace["prompt"],
        text=entry.trace["text"],
        lead=entry.trace.get("lead", ""),
    )
