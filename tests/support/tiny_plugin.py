"""A package of somebody else's: an oracle, a strategy and a provider of proposals, each as small as can be."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from riwoa.cognition.protocol import Progress, Trained, TrainingJob
from riwoa.cognition.provider import ProviderStats
from riwoa.config.fields import KindSettings, Section
from riwoa.config.schema import Cognition, Config
from riwoa.errors import CognitionError
from riwoa.hardware.process import ProgressCallback
from riwoa.oracle.kind import OracleKind, Problem
from riwoa.oracle.protocol import CandidateError, Metrics, Oracle
from riwoa.search.base import Members, PopulationStrategy, Proposal, SearchParameters
from riwoa.search.rng import generator
from riwoa.search.space import Gene, Space
from riwoa_storage.records import ReplyRecord, RequestRecord

SPACE = Space("switches", tuple(Gene(f"switch{i}", (0, 1, 2), "nominal") for i in range(6)))


class SwitchSettings(KindSettings):
    """``[oracle.switches]``."""

    wanted: int = Field(2, ge=0, le=2, description="the choice that each switch should have")


class SwitchOracle:
    """The share of switches that are as wanted."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted

    @property
    def version(self) -> str:
        """Changes with what is wanted."""
        return hashlib.sha256(f"switches {self._wanted}".encode()).hexdigest()

    def evaluate(self, architecture: Mapping[str, Any]) -> Metrics:
        """The accuracy alone."""
        return {"accuracy": sum(choice == self._wanted for choice in architecture.values()) / len(SPACE)}

    def evaluate_at(self, rung: str, architecture: Mapping[str, Any]) -> Metrics:
        """There are no rungs."""
        raise CandidateError(f"no rung {rung}")


class Switches(OracleKind):
    """A kind of oracle without files, latencies and networks."""

    name = "switches"
    settings = SwitchSettings

    async def problem(self, config: Config, latency_table: Path, progress: ProgressCallback | None = None) -> Problem:
        """The switches."""
        return Problem(space=SPACE, spec=self.spec(config.oracle))

    def build(self, spec: Mapping[str, Any]) -> Oracle:
        """In the worker."""
        return SwitchOracle(spec["settings"]["wanted"])


@dataclass(frozen=True, slots=True)
class FlipParameters(SearchParameters):
    """``[search.flip]``."""

    flips: int = field(default=1, metadata={"description": "genes that change at once"})


class Flip(PopulationStrategy):
    """Changes a few genes of the leader."""

    name = "flip"
    parameters = FlipParameters
    params: FlipParameters

    def _propose(self) -> list[Proposal]:
        draws = generator(self.seed, self.generation, "flip")
        drawn = draws.random((self.params.population, self.codec.dimension))
        if not len(self._best):
            return [Proposal(slot, "init", genotype, None) for slot, genotype in enumerate(drawn)]
        proposals = []
        for slot in range(self.params.population):
            child = self._best.genotype[0].copy()
            for gene in draws.choice(len(self.space), self.params.flips, replace=False):
                self.codec.set_choice(child, int(gene), int(draws.integers(3)))
            parent = (int(self._best.origin[0, 0]), int(self._best.origin[0, 1]))
            operator = "mutate" if slot else "semantic"
            proposals.append(Proposal(slot, operator, child, parent, None if slot else self._best.genotype[0].copy()))
        return proposals

    def _absorb(self, children: Members, late: Members) -> None:
        self.population = children.take(np.arange(len(children)))


class ScribeSettings(Section):
    """``[cognition.scribe]``."""

    favourite: int = Field(2, description="the choice that is always proposed")


class Scribe:
    """Proposes the first change on offer that is a favourite."""

    model = "scribe:1"
    settings = ScribeSettings

    def __init__(self, cognition: Cognition) -> None:
        self._favourite: int = cognition.scribe.favourite  # type: ignore[attr-defined]

    async def start(self) -> None:
        """Nothing to wait for."""

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """One gene each."""
        return [self._reply(request) for request in batch]

    def _reply(self, request: RequestRecord) -> ReplyRecord:
        offered = [(gene, c) for gene, choices in request.parameters["choices"].items() for c in choices]
        gene, choice = next(((g, c) for g, c in offered if c == self._favourite), offered[0])
        return ReplyRecord(
            request_id=request.request_id,
            status="ok",
            text=json.dumps({gene: choice}),
            reason=None,
            tokens=1,
            duration_s=0.0,
            created_unix_s=time.time(),
        )

    async def use_adapter(self, sha256: str | None, path: Path | None) -> None:
        """There are none."""

    async def train(self, job: TrainingJob, on_progress: Progress) -> Trained:
        """It does not learn."""
        raise CognitionError("a scribe does not learn")

    async def close(self) -> None:
        """Nothing is held."""

    def stats(self) -> ProviderStats:
        """Always ready."""
        return ProviderStats(state="ready")
