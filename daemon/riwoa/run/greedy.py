"""The rule that a model of a pool must beat: the changes on offer that leave least of the limit unused.

While no single change comes within the limit, those that save most. A model that writes what this rule would have
written adds nothing but seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from riwoa.run.task import LoadOf
from riwoa.search.space import Choice, Space
from riwoa_storage.records import RequestRecord

Patch = Mapping[str, Choice]


class GreedyRule:
    """Writes patches of one gene by what they cost.

    Args:
        space: of the architectures.
        load_of: an architecture's load, None where nobody knows.
        limit: that is in force, None where there is none.
    """

    def __init__(self, space: Space, load_of: LoadOf, limit: Callable[[], float | None]) -> None:
        self._space = space
        self._load_of = load_of
        self._limit = limit

    def patches(self, request: RequestRecord, count: int) -> list[Patch]:
        """The best of what a request offers, at most so many; none where there is no limit, or a load is not known."""
        limit, parent = self._limit(), request.parameters["parent"]
        every = [{gene: choice} for gene, offered in request.parameters["choices"].items() for choice in offered]
        loads = [self._load_after(parent, patch) for patch in every]
        if limit is None or None in loads:
            return []
        after = [(load, patch) for load, patch in zip(loads, every, strict=True) if load is not None]
        fits = [row for row in after if row[0] <= limit]
        ranked = sorted(fits, key=lambda row: -row[0]) if fits else sorted(after, key=lambda row: row[0])
        return [patch for _, patch in ranked[:count]]

    def _load_after(self, parent: Mapping[str, Choice], patch: Patch) -> float | None:
        """Of a changed architecture; a block that a change adds counts as the smallest."""
        changed = {**parent, **patch}
        indices = [g.choices.index(changed[g.name]) if g.name in changed else 0 for g in self._space.genes]
        canonical = self._space.canonical(np.array(indices, dtype=np.int64))
        return self._load_of(self._space.architecture(canonical))
