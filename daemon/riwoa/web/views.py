"""What the page's interface answers, as frozen dataclasses; the OpenAPI document is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list; ``next_cursor`` asks for the next one, and is null at the end."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run: what it looks for, how far it is, and its leader."""

    run_id: int
    status: str  # running, finished or abandoned
    seed: int | None
    strategy: str | None
    oracle: str | None  # who judges
    generations: int
    evaluations: int
    digest: str
    created_unix_s: float
    updated_unix_s: float
    metric: str  # that is optimised
    lowered: bool  # whether that is to be made smaller
    target_ms: float | None
    limits: tuple[str, ...]
    leader: Json | None


@dataclass(frozen=True, slots=True)
class GenerationView:
    """A committed generation."""

    generation: int
    phase: str
    config_revision: int
    counters: Json
    leader: Json | None
    duration_s: float
    digest: str
    committed_unix_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """The leader after a generation."""

    generation: int
    evaluations: int | None
    committed_unix_s: float
    fitness: float | None
    value: float | None
    latency_ms: float | None
    feasible: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An individual; ``repeat`` says that its outcome was known already, ``parent`` is "generation/slot"."""

    generation: int
    slot: int
    operator: str
    status: str  # ok, failed or dropped
    value: float | None  # of the metric that is optimised
    latency_ms: float | None
    fitness: float | None
    repeat: bool
    parent: str | None
    request_id: str | None
    name: str  # of its architecture, as riwoactl show takes it
    architecture_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """A parent, with what its child changed ([old, new] by gene) and the fitness that the child gained."""

    generation: int
    slot: int
    name: str
    operator: str
    value: float | None
    latency_ms: float | None
    fitness: float | None
    changed: Mapping[str, tuple[Any, Any]]
    gain: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the language model was asked and said of a candidate."""

    model: str
    adapter_sha256: str | None
    prompt: str
    verdict: str  # won, rejected, waiting or late
    status: str | None
    text: str | None
    reason: str | None
    tokens: int | None
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class CandidateDetail:
    """A candidate with all that is known of it; its ancestors from its parent to the first."""

    candidate: Candidate
    metrics: Json
    architecture: Json
    error: str | None
    ancestors: tuple[Ancestor, ...]
    words: Words | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which candidates are wanted; None for all."""

    operator: str | None = None
    status: str | None = None
    most_ms: float | None = None
    least: float | None = None
    most: float | None = None
    since_generation: int | None = None
    name: str | None = None  # the beginning of the architecture's
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A network that no other of its run beats in both value and latency."""

    candidate: Candidate
    leader: bool
    test_accuracy: float | None  # on pictures that chose nothing
    test_error: float | None  # standard error of it
    measured_ms: float | None  # in the runtime that will run it


@dataclass(frozen=True, slots=True)
class FrontView:
    """The front of a run, fastest first."""

    points: tuple[FrontPoint, ...]
    evaluated: int  # candidates it was chosen from


@dataclass(frozen=True, slots=True)
class ReplyView:
    """An answer of the language model, and where the candidate stands that came of it."""

    request_id: str
    generation: int
    slot: int
    join_generation: int
    model: str
    adapter_sha256: str | None
    prompt: str
    status: str
    text: str
    reason: str | None
    tokens: int
    duration_s: float
    created_unix_s: float
    candidate_generation: int | None
    candidate_slot: int | None
    fitness: float | None


@dataclass(frozen=True, slots=True)
class AdapterView:
    """An adapter of the language model."""

    adapter_id: int
    generation: int
    parent_id: int | None
    sha256: str
    status: str  # current, superseded or rejected
    training: Json
    created_unix_s: float


@dataclass(frozen=True, slots=True)
class EventView:
    """Something that happened."""

    event_id: int
    run_id: int | None
    generation: int | None
    kind: str
    payload: Any
    created_unix_s: float


@dataclass(frozen=True, slots=True)
class ConfigView:
    """A configuration as it applied from a generation on."""

    revision: int
    generation: int
    created_unix_s: float
    changed: Json
    config: Json


@dataclass(frozen=True, slots=True)
class Done:
    """What the daemon said to a verb."""

    message: str
    answer: Json


@dataclass(frozen=True, slots=True)
class Health:
    """Whether it can serve."""

    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request was refused, and what to do next."""

    error: str
