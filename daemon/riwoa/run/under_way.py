"""What is under way from one generation to the next, where candidates are asked asynchronously.

A generation then is what has arrived since the one before, one candidate mostly: those are asked that there is room
for, the first result is waited for, what has arrived by then is told and committed together. Which those are is all
that the clock decides, and an input of the generation, in the transaction of what it decided. What has not arrived is
part of the committed state: a resumed run asks for the very same, and finds in the journal those that were evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from riwoa.run.candidate import Candidate, candidate
from riwoa.run.evaluations import EvaluationOutcome, EvaluationRound, Evaluations, Tasks
from riwoa.run.history import Identity
from riwoa.search.base import Proposal, Snapshot
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray
from riwoa.search.racing import NO_RACE

ARRIVED = "arrived"  # the input: where each candidate of a generation was asked, by slot
_PREFIX = "under_way."


@dataclass(frozen=True, slots=True)
class Carried:
    """A candidate under way; its slot is that of the generation which asked it."""

    generation: int
    candidate: Candidate

    @property
    def asked(self) -> str:
        """Where it was asked, "generation/slot"."""
        return f"{self.generation}/{self.candidate.slot}"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What a generation is told: candidates, by their slots in it, with their outcomes."""

    candidates: Sequence[Candidate]
    outcomes: Sequence[EvaluationOutcome]
    inputs: Mapping[str, Any]


class UnderWay:
    """Candidates that were asked and have not arrived, oldest first.

    Args:
        codec: of the run.
        evaluations: of the run.
    """

    def __init__(self, codec: Codec, evaluations: Evaluations) -> None:
        self._codec = codec
        self._carried: list[Carried] = []
        self._tasks = Tasks()
        self.work = EvaluationRound(evaluations, self._tasks, NO_RACE)
        self._left: list[Carried] = []  # by a life before this one: their evaluation is yet to begin

    async def __aenter__(self) -> UnderWay:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drop()

    def __len__(self) -> int:
        return len(self._carried)

    @property
    def genotypes(self) -> list[FloatArray]:
        """Of all of them."""
        return [c.candidate.genotype for c in self._carried]

    def take_left(self) -> list[Candidate]:
        """Those that a resumed run has yet to begin again, once."""
        left, self._left = self._left, []
        return [c.candidate for c in left]

    def add(self, generation: int, candidates: Iterable[Candidate]) -> None:
        """Carry candidates that a generation asked, and whose evaluation has begun."""
        self._carried += [Carried(generation, c) for c in candidates]

    async def arrive(self) -> Arrivals:
        """Wait until one has arrived; all that have by then, in the order in which they were asked.

        What the language model wrote is waited for: it is told in the generation that its reply joins.
        """
        written = [c.candidate.key for c in self._carried if c.candidate.request_id is not None]
        keys = await self.work.arrived((c.candidate.key for c in self._carried), written)
        found = [c for c in self._carried if c.candidate.key in keys]
        self._carried = [c for c in self._carried if c.candidate.key not in keys]
        outcomes = self.work.outcomes([c.candidate.key for c in found])
        self.work.let_go(keys)
        candidates = [replace(c.candidate, slot=slot) for slot, c in enumerate(found)]
        return Arrivals(candidates, outcomes, {ARRIVED: [c.asked for c in found]})

    async def drop(self) -> None:
        """Give all of them up: the search ends without them."""
        self._carried, self._left = [], []
        await self._tasks.cancel()

    # -- state ---------------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """As committed with a generation."""
        candidates = [c.candidate for c in self._carried]
        parents = [c.parent or (-1, -1) for c in candidates]
        columns = {
            "asked": np.array([(c.generation, c.candidate.slot) for c in self._carried], dtype=np.int64).reshape(-1, 2),
            "operator": np.array([c.operator for c in candidates], dtype=np.str_),
            "genotype": np.array(self.genotypes, dtype=np.float64).reshape(-1, self._codec.dimension),
            "parent": np.array(parents, dtype=np.int64).reshape(-1, 2),
            "error": np.array([c.error or "" for c in candidates], dtype=np.str_),
        }
        return {_PREFIX + name: column for name, column in columns.items()}

    def restore(self, snapshot: Snapshot) -> None:
        """Stand where a generation was committed; a snapshot of another kind of run holds none."""
        if _PREFIX + "asked" not in snapshot:
            return
        columns = [snapshot[_PREFIX + name].tolist() for name in ("asked", "operator", "parent", "error")]
        genotypes = np.asarray(snapshot[_PREFIX + "genotype"], dtype=np.float64)
        for genotype, asked, operator, parent, error in zip(genotypes, *columns, strict=True):
            identity: Identity | None = (parent[0], parent[1]) if parent[0] >= 0 else None
            proposal = Proposal(asked[1], operator, genotype, identity)
            found = candidate(self._codec, proposal, error=error or None)
            self._carried.append(Carried(asked[0], found))
        self._left = list(self._carried)
