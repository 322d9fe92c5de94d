"""What a space really holds, where that can be counted: a run goes on among what exists, and ends when nothing is left.

Everything follows from committed individuals, so a resumed run decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from riwoa.patience import patiently
from riwoa.run.evaluations import Evaluations
from riwoa.run.scan import Scanned
from riwoa.search.catalogue import Catalogue
from riwoa.search.codec import Codec
from riwoa.search.fitness import Objective
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord


class Existing:
    """A run's account of what exists.

    Args:
        catalogue: of the space; None where it holds every combination of its choices, or nobody can count them.
        codec: of the run.
        evaluations: of the run.
    """

    def __init__(self, catalogue: Catalogue | None, codec: Codec, evaluations: Evaluations) -> None:
        self._catalogue = catalogue
        self._codec = codec
        self._evaluations = evaluations
        self._stale = False  # the last generation brought nothing new

    def committed(self, individuals: Sequence[IndividualRecord]) -> None:
        """Take note of the last committed generation."""
        self._stale = all(i.cache_hit for i in individuals)
        if self._catalogue is not None:
            for i in individuals:
                if i.status == "ok":
                    self._catalogue.evaluated(i.architecture_key)

    def restore(self, reader: JournalReader, scanned: Scanned, last: Sequence[IndividualRecord]) -> None:
        """Stand where the last generation, of these individuals, was committed.

        The architectures that were evaluated are read only where they are counted.
        """
        if self._catalogue is not None:
            for key in reader.by_place.architecture_keys(scanned.architecture_ids):
                self._catalogue.evaluated(key)
        self.committed(last)

    def barren(self, outcomes: Iterable[tuple[Mapping[str, Any], str | None]]) -> bool:
        """Whether all of a generation failed, by architectures and errors, and something should not have: it exists."""
        rows = list(outcomes)
        if any(error is None for _, error in rows):
            return False
        space, catalogue = self._codec.space, self._catalogue
        return catalogue is None or any(catalogue.holds(space.indices(architecture)) for architecture, _ in rows)

    def all_failed(self, individuals: Iterable[IndividualRecord]) -> bool:
        """Whether a committed generation was barren."""
        return self.barren((i.architecture, i.error if i.status == "failed" else None) for i in individuals)

    async def used_up(self, objective: Objective, counters: Mapping[str, int]) -> int | None:
        """How many architectures exist within the target, if all of them are in committed generations; else None.

        Looked into only after a generation that brought nothing new: it costs a search nothing that still finds.
        """
        catalogue = self._catalogue
        if catalogue is None or not self._stale:
            return None
        left = catalogue.left(objective)
        if len(left) > counters["dropped"] + counters["failures"]:
            return None
        keys = [catalogue.key(int(row)) for row in left]  # given up early, or failed
        known = await patiently(lambda: self._evaluations.known(keys)) if keys else keys
        return int(catalogue.members(objective).sum()) if len(known) == len(keys) else None
