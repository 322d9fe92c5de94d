"""What an evaluation backend is, and what it says of itself. No torch, no asyncio machinery.

The conductor knows only ``EvaluationBackend``. The worker pool of this machine is one; a cluster can be another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from riwoa.oracle.geometry import Stem

MAX_FRAME_BYTES = 2**20

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetSpec:
    """An oracle over a supernet checkpoint and images; everything that decides an accuracy is here."""

    checkpoint: str | None = None  # None: the supernet that ships inside the package
    width_mult: float = 0.25
    n_classes: int = 10
    stem: Stem = "imagenet"
    data: str = "digits"  # or the absolute path of other images (riwoa.oracle.tasks)
    resolutions: tuple[int, ...] = (24, 32, 40)  # prepared input sizes; a result depends on its own alone
    split: Literal["validation", "test"] = "validation"  # a search never sees "test"; it judges winners afterwards
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: int | None = None  # None: what fits the processor's cache
    recalibration_images: int = 400
    validation_views: int = 8  # of the digits; the images of a file are shown once
    prefix_cache_bytes: int = 256 * 2**20  # changes the speed of an evaluation, never its result
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"

    def to_json(self) -> dict[str, Any]:
        """The first frame that a worker gets; a part of a run's digest.

        Stem and device go without saying where they are what they were before there was a choice.
        """
        usual = {"stem": "imagenet", "device": "cpu"}
        fields = {name: value for name, value in asdict(self).items() if usual.get(name) != value}
        return {"kind": "supernet", **fields, "resolutions": list(self.resolutions)}

    @classmethod
    def from_json(cls, frame: Mapping[str, Any]) -> SupernetSpec:
        """The specification of ``to_json``; what older ones did not say takes its default."""
        fields = {name: value for name, value in frame.items() if name != "kind"}
        if "resolutions" in fields:
            fields["resolutions"] = tuple(fields["resolutions"])
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSpec:
    """An oracle made by a named function, ``package.module:function``; for tests alone (RIWOA_TEST_ORACLES=1)."""

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """The first frame that a worker gets."""
        return {"kind": "module", "factory": self.factory, "arguments": dict(self.arguments), "threads": self.threads}


OracleSpec = SupernetSpec | ModuleSpec


class Oracle(Protocol):
    """What a worker process holds: a deterministic function from architectures to metrics."""

    @property
    def version(self) -> str:
        """Changes whenever any metric of any architecture might (ruling 4)."""

    def evaluate(self, architecture: Mapping[str, Any]) -> Metrics:
        """Finite numbers, "accuracy" (a fraction) among them. An exception means that this candidate fails."""


@dataclass(frozen=True, slots=True)
class OracleInfo:
    """What a backend says of its oracle once it is ready."""

    version: str
    threads: int
    load_s: float  # from the start of the process to the oracle being ready


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """How an evaluation ended. ``reason`` says why it is not "ok": "timeout", "memory", "worker died: signal 9", ..."""

    job_id: str
    status: Literal["ok", "failed", "cancelled"]
    metrics: Metrics
    reason: str | None
    attempts: int
    duration_s: float  # of the last attempt


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What one worker is doing; times are seconds, ``since_s`` ago it began to."""

    slot: int
    pid: int | None
    state: Literal["starting", "idle", "busy", "stopped"]
    job_id: str | None
    since_s: float
    evaluations: int
    restarts: int
    busy_share: float


@dataclass(frozen=True, slots=True)
class BackendStats:
    """A snapshot for the status."""

    workers: tuple[WorkerState, ...]
    queued: int
    completed: int
    failed: int
    retried: int


class EvaluationBackend(Protocol):
    """Evaluates candidates somewhere. All methods belong to one event loop."""

    async def start(self) -> OracleInfo:
        """Make the oracle ready.

        Raises:
            RiwoaError: the oracle cannot be made (InputError for a bad checkpoint), or nothing starts (OracleError).
        """

    async def submit(self, job_id: str, architecture: Mapping[str, Any]) -> asyncio.Future[EvaluationResult]:
        """Queue a candidate, waiting while the queue is full; ``await`` the future for its result.

        The future raises a RiwoaError only when the backend itself has failed; cancelling it cancels the job.
        """

    def cancel(self, job_id: str) -> bool:
        """Give a job up, even while it runs: its future ends as "cancelled". False when it is not pending."""

    def stats(self) -> BackendStats:
        """What is going on."""

    async def close(self) -> None:
        """Stop everything; what is pending ends as "cancelled". Idempotent."""
