"""The adapters of a run: which is in force, which cannot be used, and which the journal keeps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from riwoa.log import get_logger
from riwoa.run.inheritance import is_trial
from riwoa.run.journal import RunJournal
from riwoa_storage.events import AdapterUnusable
from riwoa_storage.reader import JournalReader

_log = get_logger("learning")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A journaled adapter without its weights."""

    adapter_id: int
    generation: int  # from which on it is in force
    sha256: str
    accepted: bool
    trial: bool = False  # of what was inherited, which taught nothing


class Adapters:
    """Every adapter that a run has journaled.

    Args:
        journal: of the run.

    Attributes:
        all: oldest first.
        unusable: hashes of those whose bytes are gone or damaged, or that the model refused.
    """

    def __init__(self, journal: RunJournal) -> None:
        self.all: list[Adapter] = []
        self.unusable: list[str] = []
        self._journal = journal
        self._damaged: list[tuple[Adapter, str]] = []  # found at this start

    @property
    def trained(self) -> list[Adapter]:
        """Those of the run's own trainings, oldest first."""
        return [a for a in self.all if not a.trial]

    @property
    def usable(self) -> list[Adapter]:
        """Those that the gate let through and that can be used, oldest first."""
        return [a for a in self.all if a.accepted and a.sha256 not in self.unusable]

    def in_force(self, generation: int) -> Adapter | None:
        """The newest usable one of a generation or before; None for the bare model."""
        return max((a for a in self.usable if a.generation <= generation), key=lambda a: a.adapter_id, default=None)

    def add(self, adapter: Adapter) -> None:
        """Take in one that was journaled."""
        self.all.append(adapter)

    async def retire(self, keep: int) -> None:
        """Drop the weights of all but the newest ``keep``, and the newest that a search may fall back on."""
        newest = slice(-keep, None)
        kept = {a.adapter_id for a in (*self.all[newest], *self.usable[newest])}
        await self._journal.writer.retire_adapters(self._journal.run_id, sorted(kept))

    async def refuse(self, generation: int, sha256: str, reason: str) -> None:
        """Later requests use the newest good adapter before; the event keeps a restart from trying this one again."""
        if sha256 not in self.unusable:
            self.unusable.append(sha256)
            await self._leave_out(sha256, generation, reason, refused=True)

    async def report_damaged(self, generation: int) -> None:
        """Journal which adapters ``restore`` found damaged."""
        for adapter, found in self._damaged:
            reason = f"its weights in the journal are {found}"
            await self._leave_out(adapter.sha256, generation, reason, refused=False)

    async def _leave_out(self, sha256: str, generation: int, reason: str, *, refused: bool) -> None:
        event = AdapterUnusable(
            run_id=self._journal.run_id, generation=generation, sha256=sha256, reason=reason, refused=refused
        )
        await self._journal.writer.put_event(event)
        _log.warning("adapter_unusable", adapter=sha256[:12], reason=reason)

    def restore(self, reader: JournalReader, generation: int) -> None:
        """Read what the journal holds. For a thread."""
        rows = reader.adapters(self._journal.run_id, weights=False)
        self.all = [Adapter(r.adapter_id, r.generation, r.sha256, r.status != "rejected", is_trial(r)) for r in rows]
        told = reader.events(self._journal.run_id, AdapterUnusable)
        self.unusable = [event.sha256 for event in told if event.refused]
        self._damaged = self._find_damaged(reader, generation)
        self.unusable += [adapter.sha256 for adapter, _ in self._damaged]

    def _find_damaged(self, reader: JournalReader, generation: int) -> list[tuple[Adapter, str]]:
        """The newest adapters as long as their bytes are not what their hashes say: gone, or damaged."""
        found = []
        for adapter in reversed(self.usable):
            weights = reader.weights(adapter.adapter_id)
            if weights is not None and hashlib.sha256(weights).hexdigest() == adapter.sha256:
                if adapter.generation <= generation:
                    break
                continue
            found.append((adapter, "gone" if weights is None else "damaged"))
        return found
