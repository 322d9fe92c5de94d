"""What an evaluation backend is, and what it says of itself. No torch, no asyncio machinery.

The conductor knows only ``EvaluationBackend``. The worker pool of this machine is one; a cluster can be another.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

from riwoa.errors import RiwoaError

MAX_FRAME_BYTES = 2**20

OWN_ERROR = "error: "  # a reason begins with it where the oracle itself said no, and lives on

Metrics = Mapping[str, float]


class OracleSpec(Protocol):
    """What a worker process is given: everything that decides an accuracy."""

    @property
    def threads(self) -> int:
        """Threads of the worker."""

    def to_json(self) -> dict[str, Any]:
        """The first frame that a worker gets; "kind" says who builds it. A part of the run's digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSpec:
    """An oracle made by a named function, ``package.module:function``; for tests alone (RIWOA_TEST_ORACLES=1)."""

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """The first frame that a worker gets."""
        return {"kind": "module", "factory": self.factory, "arguments": dict(self.arguments), "threads": self.threads}


@dataclass(frozen=True, slots=True)
class SettingsSpec:
    """A specification that is the settings of a kind of oracle as they are."""

    kind: str
    settings: Mapping[str, Any]
    threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """The first frame that a worker gets; a part of a run's digest."""
        return {"kind": self.kind, "settings": dict(self.settings), "threads": self.threads}


@dataclass(frozen=True, slots=True)
class GivenSpec:
    """A specification by its JSON form, as a node of a cluster is given it."""

    frame: Mapping[str, Any]

    @property
    def threads(self) -> int:
        """Threads of the worker."""
        return int(self.frame["threads"])

    def to_json(self) -> dict[str, Any]:
        """The first frame that a worker gets."""
        return dict(self.frame)


class CandidateError(RiwoaError):
    """An oracle has no metrics for this architecture, and nothing is broken: the candidate fails, with the message."""


def accuracy_error(metrics: Mapping[str, Any], spec: Mapping[str, Any]) -> float | None:
    """The standard error of an accuracy as a draw of images; None where no images were judged.

    Args:
        metrics: of an evaluation.
        spec: its oracle's JSON form, or configuration. Views of one digit count as one image: they agree, and taking
            them for independent would make the error too small.
    """
    accuracy, images = metrics.get("accuracy"), metrics.get("images")
    if accuracy is None or not images:
        return None
    return math.sqrt(accuracy * (1 - accuracy) * views_of(spec) / images)


def views_of(spec: Mapping[str, Any]) -> int:
    """How often each picture is shown, by an oracle's JSON form or configuration."""
    return int(spec.get("validation_views", 1)) if spec.get("data") == "digits" else 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """Metrics of an architecture, and which of the pictures it read right (``riwoa.oracle.answers``)."""

    metrics: Metrics
    correct: str


class Oracle(Protocol):
    """What a worker process holds: a deterministic function from architectures to metrics."""

    @property
    def version(self) -> str:
        """Changes whenever any metric of any architecture might (ruling 4)."""

    def evaluate(self, architecture: Mapping[str, Any]) -> Metrics:
        """Finite numbers; an "accuracy" among them is a fraction. An exception means that this candidate fails."""

    def evaluate_at(self, rung: str, architecture: Mapping[str, Any]) -> Metrics:
        """The same, cheaper and less exact, on a lower rung that the specification names."""


@runtime_checkable
class JudgingOracle(Protocol):
    """An oracle that tells its pictures apart: those of two networks can then be compared one by one."""

    def judge(self, architecture: Mapping[str, Any]) -> Judgement:
        """As ``Oracle.evaluate``, with the answer to every picture."""


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
    correct: str = ""  # of a judgement: which pictures were read right (``riwoa.oracle.answers``)
    worker: str = "pool"  # who evaluated: a cluster names its node


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
    node: str | None = None  # of a cluster
    says: str | None = None  # why it cannot work, where it cannot


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node of a cluster, and what of it works for this run."""

    name: str
    address: str
    cpus: float
    gpus: float
    workers: int
    busy: int
    refused: str | None = None  # why nothing is asked of it


@dataclass(frozen=True, slots=True)
class ClusterState:
    """A cluster as its driver last saw it."""

    address: str
    nodes: tuple[NodeState, ...]
    asked_twice: int
    drivers: int  # connections made since the start: 1 where none was lost
    lost: str | None = None  # why there is no connection now


@dataclass(frozen=True, slots=True)
class BackendStats:
    """A snapshot for the status."""

    workers: tuple[WorkerState, ...]
    queued: int
    completed: int
    failed: int
    retried: int
    cluster: ClusterState | None = None


class EvaluationBackend(Protocol):
    """Evaluates candidates somewhere. All methods belong to one event loop."""

    async def start(self) -> OracleInfo:
        """Make the oracle ready.

        Raises:
            RiwoaError: the oracle cannot be made (InputError for a bad checkpoint), or nothing starts (OracleError).
        """

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None
    ) -> asyncio.Future[EvaluationResult]:
        """Queue a candidate, waiting while the queue is full; ``await`` the future for its result.

        ``rung``: a lower one of the oracle's; None for a full evaluation.

        The future raises a RiwoaError only when the backend itself has failed; cancelling it cancels the job.
        """

    def cancel(self, job_id: str) -> bool:
        """Give a job up, even while it runs: its future ends as "cancelled". False when it is not pending."""

    def stats(self) -> BackendStats:
        """What is going on."""

    async def close(self) -> None:
        """Stop everything; what is pending ends as "cancelled". Idempotent."""


class Pool(EvaluationBackend, Protocol):
    """A backend of workers that a daemon holds, limits and closes: of this machine, or of a cluster."""

    async def __aenter__(self) -> Self:
        """Started."""

    async def __aexit__(self, *_: object) -> None:
        """Closed."""

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None, *, judging: bool = False
    ) -> asyncio.Future[EvaluationResult]:
        """See ``EvaluationBackend.submit``; ``judging``: of a ``JudgingOracle``, with the answer to every picture."""

    def set_limits(self, evaluation_timeout_s: float, memory_limit_bytes: int | None) -> None:
        """Other limits, for the evaluations that begin from now on."""

    def hold(self, held: bool) -> None:
        """Begin nothing while held; what is under way ends."""
