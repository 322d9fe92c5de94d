"""From records to rows: the covered columns of ``seal.COLUMNS`` in their order, numbers as SQLite gives them back."""

from __future__ import annotations

import time

from riwoa_storage.digest import canonical_fitness, canonical_json
from riwoa_storage.records import (
    AdapterRecord,
    BufferEntryRecord,
    ConfigRevisionRecord,
    EvaluationRecord,
    EventRecord,
    GenerationRecord,
    IndividualRecord,
    ReplyRecord,
    RequestRecord,
)
from riwoa_storage.seal import Row
from riwoa_storage.shared import leader_rest


def when(unix_s: float) -> float:
    """A wall time as stored; now where none is given."""
    return _real(unix_s or time.time())


def _real(number: float) -> float:
    return float(number) + 0.0  # SQLite keeps no negative zero, and an int in a REAL column becomes a float


# fmt: off
def config_revision_row(r: ConfigRevisionRecord) -> Row:
    """Of ``config_revisions``."""
    return (
        r.run_id, r.revision, r.generation, canonical_json(r.config), canonical_json(r.changed), when(r.created_unix_s),
    )


def evaluation_row(e: EvaluationRecord, oracle_id: int, architecture_id: int) -> Row:
    """Of ``evaluations``."""
    return (
        oracle_id, architecture_id, e.status, canonical_json(e.metrics), e.error, int(e.attempts), e.worker,
        _real(e.duration_s), when(e.created_unix_s),
    )


def request_row(r: RequestRecord) -> Row:
    """Of ``requests``."""
    return (
        r.request_id, r.run_id, r.generation, r.slot, r.join_generation, r.model, r.adapter_sha256, int(r.seed),
        r.prompt, canonical_json(r.parameters), when(r.created_unix_s),
    )


def reply_row(r: ReplyRecord) -> Row:
    """Of ``replies``."""
    return (r.request_id, r.status, r.text, r.reason, int(r.tokens), _real(r.duration_s), when(r.created_unix_s))


def generation_row(g: GenerationRecord, leader_architecture_id: int | None) -> Row:
    """Of ``generations``; digest, state's hash and time of commit are filled in."""
    return (
        g.run_id, g.generation, g.phase, g.config_revision, canonical_json(g.counters),
        None if g.leader is None else canonical_json(leader_rest(g.leader)), leader_architecture_id,
        canonical_json(g.inputs), canonical_json(g.joined_requests), _real(g.duration_s), g.digest,
        when(g.committed_unix_s), g.state_sha256,
    )


def individual_row(g: GenerationRecord, i: IndividualRecord, architecture_id: int, fitness_version_id: int) -> Row:
    """Of ``individuals``."""
    return (
        g.run_id, g.generation, int(i.slot), i.operator, *(i.parent or (None, None)), i.genotype, architecture_id,
        i.status, canonical_json(i.metrics), canonical_fitness(i.fitness), fitness_version_id, int(i.cache_hit),
        i.request_id, i.error,
    )


def buffer_row(b: BufferEntryRecord, entry_id: int) -> Row:
    """Of ``buffer_entries``."""
    return (
        entry_id, b.run_id, b.request_id, b.generation, _real(b.parent_fitness), _real(b.child_fitness),
        canonical_json(b.trace), None, when(b.created_unix_s),
    )


def adapter_row(a: AdapterRecord, adapter_id: int) -> Row:
    """Of ``adapters``, without the weights."""
    return (
        adapter_id, a.run_id, a.generation, a.parent_id, a.sha256, a.status, canonical_json(a.training),
        when(a.created_unix_s),
    )


def event_row(e: EventRecord, event_id: int) -> Row:
    """Of ``events``."""
    return (event_id, e.run_id, e.generation, e.kind, canonical_json(e.payload), when(e.created_unix_s))
# fmt: on
