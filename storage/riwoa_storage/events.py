"""What happened to a run that is worth telling later: one frozen class a kind of event, and the table of kinds.

An event is stored as its kind's name and a JSON object, which are the fields of its class beyond those that all events
have. A field that an older version did not write has a default; one that a newer version adds is left out when read; a
kind that only a newer version knows is read as ``UnknownEvent``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from riwoa_storage.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The fields of every event; a ``created_unix_s`` of 0 becomes the time at which it is stored."""

    run_id: int | None = None
    generation: int | None = None
    created_unix_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed(Event):
    """A daemon went on with a run; ``restarted`` are the keys that only a restart may change, with their new values."""

    restarted: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CognitionProvided(Event):
    """Who writes a run's proposals since this start of the daemon."""

    state: str  # "model", "scripted", "model gone" or "geometric only"
    model: str | None
    reason: str
    directory: str | None  # of the model's files


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryInherited(Event):
    """What a run knew as it began of evaluations of earlier runs; ``content`` is what its provenance has the hash of.

    Written down, because later the journal holds more evaluations, and may no longer hold those.
    """

    content: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigApplied(Event):
    """A configuration revision came into force; ``changed``: dotted key -> [old, new]."""

    changed: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRefused(Event):
    """An edited configuration was refused, all of it or its ``refused`` keys: dotted key -> [old, new]."""

    reason: str
    refused: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineReached(Event):
    """A deadline ended the run; ``phase`` is the search's, or "not searching"."""

    deadline: str | None
    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceExhausted(Event):
    """Nothing is left to find: all ``architectures`` within the target are known."""

    architectures: int
    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConverged(Event):
    """The search is over: its last ``candidates`` in a row brought nothing new within the target."""

    candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WinnerConfirmed(Event):
    """The winner was evaluated once more, in the precision that is exported."""

    architecture_key: str
    oracle_version: str
    metrics: Json
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkJudged(Event):
    """A network of the front was judged, once, on pictures that chose nothing; or why it could not be.

    ``correct`` are its answers, a bit an image, as its oracle packs them; ``accuracy`` is None with an ``error``.
    """

    architecture_key: str
    oracle_version: str = ""
    split: str = "test"
    accuracy: float | None = None
    accuracy_error: float | None = None
    pictures: int = 0
    views: int = 1
    correct: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalistsTimed(Event):
    """The winner and what could take its place were timed in the runtime that will run them; or why they were not.

    ``networks`` are objects of ``riwoa.hardware.timed.TimedNetwork``, the search's winner first; ``interval`` is the
    latency table's. ``leader`` is the network that took the winner's place, as a generation's row has a leader; None
    where the winner kept it. ``note`` says in a line what people should know of it, if there is something.
    """

    networks: tuple[Json, ...] = ()
    runtime: str = ""
    target_ms: float | None = None
    interval: float | None = None
    leader: Json | None = None
    note: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyDrift(Event):
    """A check of the latency table against the device; the fields are those of ``riwoa.hardware.drift.Drift``."""

    verdict: str
    networks: float
    operators: float
    sentinels: tuple[Json, ...]
    affects: tuple[str, ...]
    tolerance: float
    rounds: int
    passes: int
    load_average: float | None
    table_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Event):
    """A user asked the daemon for something that changes what it does; ``by``: for whom, where a client tells it."""

    verb: str
    user: str
    by: str | None = None
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDue(Event):
    """Somebody is to be told; ``key`` is the same for the same occurrence."""

    alert: str
    key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSent(Event):
    """Somebody was told, ``by`` these ways."""

    key: str
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceTimed(Event):
    """What the search took to choose its candidates since the last of these; ``seconds``: operator -> wall seconds."""

    seconds: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestsWithdrawn(Event):
    """So many requests of a generation that is asked anew were taken back."""

    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFailed(Event):
    """A training gave no adapter, after so many seconds."""

    reason: str
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterJudged(Event):
    """What accepted and rejected adapters have in common."""

    sha256: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterAccepted(AdapterJudged):
    """The gate let a trained adapter into service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRejected(AdapterJudged):
    """The gate kept a trained adapter out of service, for these reasons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTried(AdapterJudged):
    """The gate judged by a run's first lessons the adapter that it inherited."""

    accepted: bool
    from_run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptersLeftOut(Event):
    """Why a run did not inherit adapters of earlier runs, a line each."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterUnusable(Event):
    """An adapter in service gave way to the one before; one that the model ``refused`` is never tried again."""

    sha256: str
    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensSpent(Event):
    """A server was asked, which costs tokens: which model answered, by its own word; None where nothing came back.

    ``estimated``: the server did not count them.
    """

    request_id: str
    model: str | None
    fingerprint: str | None
    tokens_in: int
    tokens_out: int
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChanged(Event):
    """A server answers with another model, or another configuration of it, than it did before in this run."""

    request_id: str  # the first that it answered
    model: str | None
    fingerprint: str | None
    former_model: str | None
    former_fingerprint: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationAskedAgain(Event):
    """An evaluation took far longer than others, and was asked of another worker, too."""

    job: str
    after_s: float
    limit_s: float  # beyond which it was late
    node: str  # of the slow one
    again_on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationAnsweredTwice(Event):
    """One of the two answers of an evaluation that was asked twice; the ``first`` counts."""

    job: str
    node: str
    first: bool
    status: str
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownEvent(Event):
    """An event of a kind that this version does not know, as it is stored."""

    kind: str
    payload: Json


KINDS: Mapping[str, type[Event]] = {
    "resumed": RunResumed,
    "cognition": CognitionProvided,
    "memory": MemoryInherited,
    "config_applied": ConfigApplied,
    "config_refused": ConfigRefused,
    "deadline": DeadlineReached,
    "space_exhausted": SpaceExhausted,
    "search_converged": SearchConverged,
    "winner_confirmed": WinnerConfirmed,
    "network_judged": NetworkJudged,
    "finalists_timed": FinalistsTimed,
    "latency_drift": LatencyDrift,
    "asked": Asked,
    "alert_due": AlertDue,
    "alert_sent": AlertSent,
    "choice_timed": ChoiceTimed,
    "requests_withdrawn": RequestsWithdrawn,
    "training_failed": TrainingFailed,
    "adapter_accepted": AdapterAccepted,
    "adapter_rejected": AdapterRejected,
    "adapter_tried": AdapterTried,
    "adapters_left_out": AdaptersLeftOut,
    "adapter_unusable": AdapterUnusable,
    "tokens_spent": TokensSpent,
    "model_changed": ModelChanged,
    "evaluation_asked_again": EvaluationAskedAgain,
    "evaluation_answered_twice": EvaluationAnsweredTwice,
}
_KIND_OF = {of: kind for kind, of in KINDS.items()}
_COMMON = frozenset(f.name for f in fields(Event))


def kind_of(event: Event) -> str:
    """The name under which an event is stored."""
    return event.kind if isinstance(event, UnknownEvent) else _KIND_OF[type(event)]


def payload_of(event: Event) -> Json:
    """The JSON object that is stored of an event."""
    if isinstance(event, UnknownEvent):
        return event.payload
    if isinstance(event, ConfigApplied):  # stored without a name around it
        return event.changed
    return {f.name: getattr(event, f.name) for f in fields(event) if f.name not in _COMMON}


def event_of(kind: str, payload: Json, **common: Any) -> Event:
    """The event of a stored kind and payload; ``common`` are the fields that all events have.

    Raises:
        TypeError: the payload is no object, or lacks a field.
    """
    if not isinstance(payload, Mapping):
        raise TypeError(f"an event's payload is an object, not {type(payload).__name__}")
    of = KINDS.get(kind)
    if of is None:
        return UnknownEvent(kind=kind, payload=payload, **common)
    if of is ConfigApplied:
        return ConfigApplied(changed=payload, **common)
    known = {f.name for f in fields(of)} - _COMMON
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in payload.items() if name in known
    }
    return of(**{**common, **values})
