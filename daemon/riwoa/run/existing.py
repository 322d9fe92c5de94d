"""What a space really holds, where that can be counted: a run goes on among what exists, and ends when nothing is left.

Where nobody can count what is within a target, a search that avoids repeats tells: it has converged when it proposes
nothing new any more. Everything follows from committed individuals, so a resumed run decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from riwoa.patience import patiently
from riwoa.run.evaluations import Evaluations
from riwoa.run.scan import Scanned
from riwoa.search.base import LatencyOf
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
        load_of: what an architecture's load is known to be at least, before it is evaluated.

    Attributes:
        idle: candidates of the last generations in a row that brought nothing new within the target.
    """

    def __init__(self, catalogue: Catalogue | None, codec: Codec, evaluations: Evaluations, load_of: LatencyOf) -> None:
        self.idle = 0
        self._catalogue = catalogue
        self._codec = codec
        self._evaluations = evaluations
        self._load_of = load_of

    def committed(self, individuals: Sequence[IndividualRecord], objective: Objective) -> None:
        """Take note of the last committed generation."""
        self.idle = self.idle + len(individuals) if self.is_idle(individuals, objective) else 0
        if self._catalogue is not None:
            for i in individuals:
                if i.status == "ok":
                    self._catalogue.evaluated(i.architecture_key)

    def restore(self, reader: JournalReader, scanned: Scanned, idle: int) -> None:
        """Stand where the last generation was committed, after so many idle candidates.

        The architectures that were evaluated are read only where they are counted.
        """
        if self._catalogue is not None:
            for key in reader.by_place.architecture_keys(scanned.architecture_ids):
                self._catalogue.evaluated(key)
        self.idle = idle

    def is_idle(self, individuals: Iterable[IndividualRecord], objective: Objective) -> bool:
        """Whether all of a generation was known before, or known to be beyond the target."""
        return all(i.cache_hit or self._is_beyond(i, objective) for i in individuals)

    def _is_beyond(self, i: IndividualRecord, objective: Objective) -> bool:
        load = self._load_of(self._codec.space.indices(i.architecture))
        return load is not None and not bool(objective.feasible(load))

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
        """How many architectures exist within the target, if all of them are in committed generations; else None."""
        catalogue = self._catalogue
        if catalogue is None:
            size = self._codec.space.size
            return size if counters["evaluations"] >= size else None
        members, left = int(catalogue.members(objective).sum()), catalogue.left(objective)
        if members == 0:  # nothing is within: what comes nearest is still to be found
            return None
        if len(left) > counters["dropped"] + counters["failures"]:
            return None
        keys = [catalogue.key(int(row)) for row in left]  # given up early, or failed
        known = await patiently(lambda: self._evaluations.known(keys)) if keys else keys
        return members if len(known) == len(keys) else None
