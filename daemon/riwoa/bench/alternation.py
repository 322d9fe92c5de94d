"""Evaluation and generation seen from between them: how long each is at work, and, on request, never both at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from riwoa.cognition.protocol import OnTrainingStep, Trained, TrainingJob
from riwoa.cognition.provider import ProposalProvider, ProviderStats
from riwoa.oracle.protocol import BackendStats, EvaluationBackend, EvaluationResult, OracleInfo
from riwoa_storage.records import ReplyRecord, RequestRecord

Side = Literal["evaluation", "generation"]


class Alternation:
    """Counts what is under way on each side; where they alternate, a side begins only while the other rests.

    Whoever comes first goes first. A side keeps its turn until everything it has begun is done.
    """

    def __init__(self, *, alternate: bool) -> None:
        self._alternate = alternate
        self._under_way: dict[Side, int] = {"evaluation": 0, "generation": 0}
        self._since_s: dict[Side, float] = {}
        self._busy_s: dict[Side, float] = {"evaluation": 0.0, "generation": 0.0}
        self._both_s = 0.0
        self._ended_s = time.monotonic()
        self._rests = asyncio.Event()

    def busy_s(self, side: Side) -> float:
        """Seconds in which something was under way on this side, up to the last time that nothing was."""
        return self._busy_s[side]

    @property
    def both_s(self) -> float:
        """Seconds in which both sides were at work, likewise."""
        return self._both_s

    @property
    def ended_s(self) -> float:
        """When the last turn of either side ended, by the monotonic clock."""
        return self._ended_s

    async def begin(self, side: Side) -> None:
        """Count one more piece of work; waits for the turn where the sides alternate."""
        while self._alternate and self._under_way[_other(side)]:
            self._rests.clear()
            await self._rests.wait()
        if not self._under_way[side]:
            self._since_s[side] = time.monotonic()
        self._under_way[side] += 1

    def end(self, side: Side) -> None:
        """Count one piece less."""
        self._under_way[side] -= 1
        if self._under_way[side]:
            return
        now_s = self._ended_s = time.monotonic()
        self._busy_s[side] += now_s - self._since_s[side]
        if self._under_way[_other(side)]:  # each stretch of both is counted by the side that ends it
            self._both_s += now_s - max(self._since_s.values())
        self._rests.set()

    @asynccontextmanager
    async def turn(self, side: Side) -> AsyncIterator[None]:
        """One piece of work."""
        await self.begin(side)
        try:
            yield
        finally:
            self.end(side)


def _other(side: Side) -> Side:
    return "generation" if side == "evaluation" else "evaluation"


class AlternatingBackend:
    """An ``EvaluationBackend`` whose evaluations are counted as one side's work."""

    def __init__(self, backend: EvaluationBackend, alternation: Alternation) -> None:
        self._backend = backend
        self._alternation = alternation

    async def start(self) -> OracleInfo:
        """See ``EvaluationBackend.start``."""
        return await self._backend.start()

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None
    ) -> asyncio.Future[EvaluationResult]:
        """See ``EvaluationBackend.submit``."""
        await self._alternation.begin("evaluation")
        try:
            future = await self._backend.submit(job_id, architecture, rung)
        except BaseException:
            self._alternation.end("evaluation")
            raise
        future.add_done_callback(lambda _: self._alternation.end("evaluation"))
        return future

    def cancel(self, job_id: str) -> bool:
        """See ``EvaluationBackend.cancel``."""
        return self._backend.cancel(job_id)

    def stats(self) -> BackendStats:
        """See ``EvaluationBackend.stats``."""
        return self._backend.stats()

    async def close(self) -> None:
        """See ``EvaluationBackend.close``."""
        await self._backend.close()


class AlternatingProvider:
    """A ``ProposalProvider`` whose batches and trainings are counted as one side's work."""

    def __init__(self, provider: ProposalProvider, alternation: Alternation) -> None:
        self.model = provider.model
        self._provider = provider
        self._alternation = alternation

    async def start(self) -> None:
        """See ``ProposalProvider.start``."""
        await self._provider.start()

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """See ``ProposalProvider.generate``."""
        async with self._alternation.turn("generation"):
            return await self._provider.generate(batch)

    async def use_adapter(self, sha256: str | None, path: Path | None) -> None:
        """See ``ProposalProvider.use_adapter``."""
        await self._provider.use_adapter(sha256, path)

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        """See ``ProposalProvider.train``."""
        async with self._alternation.turn("generation"):
            return await self._provider.train(job, on_progress)

    async def close(self) -> None:
        """See ``ProposalProvider.close``."""
        await self._provider.close()

    def stats(self) -> ProviderStats:
        """See ``ProposalProvider.stats``."""
        return self._provider.stats()
