"""A made-up latency table and evaluations without torch."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

from riwoa.hardware.lut import LatencyTable, Timing
from riwoa.hardware.probe import probe
from riwoa.hardware.runtime import Settings
from riwoa.oracle.protocol import BackendStats, EvaluationResult, OracleInfo
from riwoa.supernet.geometry import Backbone, all_operators

BACKBONE = Backbone(0.25, 10)
RESOLUTIONS = (24, 32, 40)


def a_table(backbone: Backbone = BACKBONE, resolutions: tuple[int, ...] = RESOLUTIONS) -> LatencyTable:
    entries = {}
    for op in all_operators(resolutions, backbone):
        ms = 0.02 + op.macs / 1e7
        entries[op.key] = Timing(500, ms * 1.1, ms / 10, ms, ms * 1.05, ms * 1.2)
    return LatencyTable(probe(), Settings("cpu", 1, 500), backbone, resolutions, entries)


class FakeBackend:
    """Accuracy by a hash of the architecture, larger networks being better; remembers what it was asked."""

    def __init__(self, *, fail_every: int = 0, cancel_after: int | None = None) -> None:
        self.asked: list[str] = []
        self._fail_every = fail_every
        self._cancel_after = cancel_after

    async def start(self) -> OracleInfo:
        return OracleInfo("fake", 1, 0.0)

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None
    ) -> asyncio.Future[EvaluationResult]:
        self.asked.append(job_id)
        future: asyncio.Future[EvaluationResult] = asyncio.get_running_loop().create_future()
        number = len(self.asked)
        if self._cancel_after is not None and number > self._cancel_after:
            future.set_result(EvaluationResult(job_id, "cancelled", {}, "closed", 1, 0.0))
        elif self._fail_every and number % self._fail_every == 0:
            future.set_result(EvaluationResult(job_id, "failed", {}, "timeout", 2, 0.0))
        else:
            metrics = {"accuracy": accuracy_of(architecture)}
            asyncio.get_running_loop().call_later(0.0001, set_once, future, job_id, metrics)
        return future

    def cancel(self, job_id: str) -> bool:
        return False

    def stats(self) -> BackendStats:
        return BackendStats((), 0, len(self.asked), 0, 0)

    async def close(self) -> None:
        return


def set_once(future: asyncio.Future[EvaluationResult], job_id: str, metrics: Mapping[str, float]) -> None:
    if not future.done():
        future.set_result(EvaluationResult(job_id, "ok", metrics, None, 1, 0.0))


def accuracy_of(architecture: Mapping[str, Any]) -> float:
    size = sum(float(value) for name, value in architecture.items() if name != "resolution")
    noise = int(hashlib.sha256(repr(sorted(architecture.items())).encode()).hexdigest()[:6], 16) / 2**24
    return 0.4 + size / 1000 + float(architecture["resolution"]) / 400 + 0.02 * noise


class FakeOracle:
    """An ``Oracle`` by ``accuracy_of``; some evaluations fail."""

    def __init__(self, version: str, fail_every: int = 0) -> None:
        self.version = version
        self._fail_every = fail_every
        self._asked = 0

    def evaluate(self, architecture: Mapping[str, Any]) -> Mapping[str, float]:
        self._asked += 1
        if self._fail_every and self._asked % self._fail_every == 0:
            raise ValueError("logits that are not finite")
        return {"accuracy": accuracy_of(architecture)}

    def evaluate_at(self, rung: str, architecture: Mapping[str, Any]) -> Mapping[str, float]:
        raise NotImplementedError
