"""What a run has committed so far, as the conductor needs it; rebuilt from the journal at every start."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa_storage.errors import JournalCorruptError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, IndividualRecord

Identity = tuple[int, int]


@dataclass
class History:
    """Counters, Pareto archive, and the committed metrics of every individual."""

    generations: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    archive: ParetoArchive = field(default_factory=ParetoArchive)
    metrics: dict[Identity, Mapping[str, Any]] = field(default_factory=dict)
    digest: str = ""

    def absorb(self, generation: int, individuals: tuple[IndividualRecord, ...]) -> None:
        """Take in a committed generation."""
        self.generations = generation + 1
        for i in individuals:
            if i.status != "ok":
                continue
            self.metrics[generation, i.slot] = i.metrics
            point = ParetoPoint(
                i.architecture_key, i.metrics["accuracy"], i.metrics["latency_ms"], (generation, i.slot)
            )
            self.archive.add(point)

    @staticmethod
    def read(reader: JournalReader, run_id: int) -> tuple[History, GenerationRecord | None]:
        """The history of a run and its last generation."""
        history = History(digest=reader.digest_head(run_id))
        last = None
        for last in reader.generations(run_id):
            history.absorb(last.generation, last.individuals)
        if last is not None:
            history.counters.update(last.counters)
        return history, last


def pack_state(snapshot: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """A strategy's snapshot as the bytes of an uncompressed npz: the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{k: snapshot[k] for k in sorted(snapshot)})
    return buffer.getvalue()


def unpack_state(data: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """The snapshot that ``pack_state`` packed.

    Raises:
        JournalCorruptError: the bytes are not such a snapshot.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, KeyError, EOFError) as error:
        raise JournalCorruptError(
            f"the search state in the journal cannot be read ({error}); `riwoactl verify` names the generation"
        ) from error
