"""What a space really holds, where that can be counted: a run goes on among what exists, and ends when nothing is left.

Everything follows from committed individuals, so a resumed run decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from riwoa.patience import patiently
from riwoa.run.evaluations import Evaluations
from riwoa.search.base import Proposal
from riwoa.search.catalogue import Catalogue
from riwoa.search.codec import Codec
from riwoa.search.fitness import Objective
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

    def evaluated(self, key: str) -> None:
        """Take note of an architecture that was evaluated in full, and committed."""
        if self._catalogue is not None:
            self._catalogue.evaluated(key)

    def committed(self, individuals: Sequence[IndividualRecord]) -> None:
        """Take note of the last committed generation."""
        self._stale = all(i.cache_hit for i in individuals)
        for i in individuals:
            if i.status == "ok":
                self.evaluated(i.architecture_key)

    def moved(self, proposals: list[Proposal], objective: Objective, *, leaderless: bool) -> list[Proposal]:
        """Proposals, moved to what exists where else (nearly) all of them would fail.

        That is, in a sparse table; and before there is any answer, where not one of them exists.
        """
        catalogue = self._catalogue
        if catalogue is None:
            return proposals
        indices = self._codec.decode(np.stack([p.genotype for p in proposals]))
        if not catalogue.sparse and not (leaderless and not any(map(catalogue.holds, indices))):
            return proposals
        moved = catalogue.moved(indices, objective)
        changed, genotypes = (moved != indices).any(axis=1), self._codec.encode(moved)
        return [replace(p, genotype=genotypes[n]) if changed[n] else p for n, p in enumerate(proposals)]

    def barren(self, outcomes: Iterable[tuple[Mapping[str, Any], str | None]]) -> bool:
        """Whether all of a generation failed, by architectures and errors, and something should not have: it exists."""
        rows = list(outcomes)
        if any(error is None for _, error in rows):
            return False
        space, catalogue = self._codec.space, self._catalogue
        return catalogue is None or any(catalogue.holds(space.indices(architecture)) for architecture, _ in rows)

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
