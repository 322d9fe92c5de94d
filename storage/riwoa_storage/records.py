"""What the journal holds, as frozen records. Dicts inside are JSON objects; bytes are opaque to the journal.

The order of a record's fields is the order of its table's columns (``tables.py``), which checksums depend on. Events
have a class a kind (``events.py``). Wall-clock fields (``*_unix_s``, ``duration_s``) never enter a digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Json = Mapping[str, Any]
RunStatus = Literal["running", "finished", "abandoned"]  # abandoned: superseded by --new-run
Phase = Literal["search", "polish"]
IndividualStatus = Literal["ok", "failed", "dropped"]  # dropped: given up on a lower rung
EvaluationStatus = Literal["ok", "failed"]
ReplyStatus = Literal["ok", "timeout", "failed"]
AdapterStatus = Literal["current", "superseded", "rejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One search. ``provenance`` is the JSON object that names everything the result depends on.

    It holds at least ``seed``, ``strategy``, ``space``, ``objective``, ``oracle_version``, ``latency_table_sha256``
    and ``versions`` (of libraries). The digest chain of the run starts from its hash.
    """

    run_id: int
    status: RunStatus
    provenance: Json
    generations: int = 0  # how many are committed
    digest: str = ""  # of the last one, or of the provenance before the first
    created_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRevisionRecord:
    """A configuration as applied from ``generation`` on; revision 0 is the one the run began with."""

    run_id: int
    revision: int
    generation: int
    config: Json
    changed: Json  # dotted key -> [old, new]
    created_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IndividualRecord:
    """A candidate with its outcome, at (generation, slot)."""

    slot: int
    operator: str
    parent: tuple[int, int] | None  # (generation, slot)
    genotype: bytes  # little-endian float64 vector in the unit cube
    architecture: Json  # canonical phenotype: active genes only
    architecture_key: str
    status: IndividualStatus
    metrics: Json  # raw: accuracy, latency_ms, macs, parameters, ...; empty when failed, no accuracy when dropped
    fitness: float | None
    fitness_version: str
    cache_hit: bool
    request_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRecord:
    """One committed ask -> evaluate -> tell, written in one transaction with its individuals."""

    run_id: int
    generation: int
    phase: Phase
    config_revision: int
    state: bytes | None  # the strategy's after tell (population, basis, ...); None once a later one is committed
    counters: Json  # evaluations, cache_hits, failures, stagnation, ...
    leader: Json | None  # {"generation", "slot", "fitness", "metrics", "architecture_key", "feasible"}
    inputs: Json  # what the clock decided (timeouts, a dead worker, a deadline); {} in a reference run
    individuals: tuple[IndividualRecord, ...]
    joined_requests: tuple[str, ...] = ()  # request ids whose replies joined here; their text enters the digest
    duration_s: float = 0.0
    digest: str = ""  # filled by the journal
    committed_unix_s: float = 0.0  # filled by the journal
    state_sha256: str = ""  # filled by the journal


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSummary:
    """A committed generation without its state and individuals: what a progress line or a picture needs."""

    run_id: int
    generation: int
    phase: Phase
    config_revision: int
    counters: Json
    leader: Json | None
    inputs: Json
    duration_s: float
    digest: str
    committed_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """One finished evaluation, stored when it arrives; key is (oracle_version, architecture_key)."""

    oracle_version: str
    architecture_key: str
    architecture: Json
    status: EvaluationStatus
    metrics: Json
    error: str | None
    attempts: int
    worker: str
    duration_s: float
    created_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A language-model request, journaled before it is sent. ``request_id`` is "run/generation/slot"."""

    request_id: str
    run_id: int
    generation: int
    slot: int
    join_generation: int
    model: str
    adapter_sha256: str | None
    seed: int
    prompt: str
    parameters: Json
    created_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRecord:
    """The full answer to a request, stored before it is used."""

    request_id: str
    status: ReplyStatus
    text: str
    reason: str | None
    tokens: int
    duration_s: float
    created_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferEntryRecord:
    """A semantic success: the whole trace verbatim. Consumed (``consumed_by`` = adapter id), never deleted.

    The journal assigns ``entry_id``; a record on its way in carries 0.
    """

    entry_id: int
    run_id: int
    request_id: str
    generation: int
    parent_fitness: float
    child_fitness: float
    trace: Json
    consumed_by: int | None = None
    created_unix_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRecord:
    """A LoRA checkpoint: safetensors bytes and the training it came from.

    The journal assigns ``adapter_id``; a record on its way in carries 0.
    """

    adapter_id: int
    run_id: int
    generation: int
    parent_id: int | None
    sha256: str
    weights: bytes | None  # None once retention dropped the bytes
    status: AdapterStatus
    training: Json
    created_unix_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunVerification:
    """A run whose chain was recomputed from its rows and held, up to a number of generations."""

    run_id: int
    generations: int
    digest: str  # of the last of them
    status: RunStatus | None = None  # of the run; not stored with a mark
