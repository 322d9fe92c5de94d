"""The digest chain: pure functions from records to sha256, so that one string compares two histories.

What enters: everything that a generation decided or computed, and the text of the replies that joined it. What stays
out: wall times; the run's number in its journal (a request is named by its generation and slot), so that the same
search gives the same digest wherever it is journaled; and the evaluation cache, requests' prompts, configuration texts
(they hold paths), buffer, adapters and events, whose effects the generations show.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from riwoa_storage.records import GenerationRecord, IndividualRecord, Json


def canonical_json(value: object) -> str:
    """JSON with sorted keys, compact, ASCII, floats as ``repr`` writes them: equal values give equal text.

    Raises:
        ValueError: a number is not finite.
        TypeError: an object has a key that is no string (it would read back as another value), or a value is no JSON.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: object) -> object:
    if type(value) in _SCALARS:  # most by far, and asking whether each is a Mapping is slow
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"a JSON object needs string keys, got {sorted(map(repr, value))[:3]}")
        return {key: item if type(item) in _SCALARS else _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) in _SCALARS else _plain(item) for item in value]
    return value


_SCALARS = frozenset({str, int, float, bool, type(None)})


def run_digest(provenance: Json) -> str:
    """Start of a run's chain, hexadecimal."""
    return _sha256(["riwoa run 1", provenance])


def generation_digest(previous: str, g: GenerationRecord, reply_texts: Sequence[tuple[str, str, str]]) -> str:
    """Next link of the chain, hexadecimal.

    Args:
        previous: digest of the generation before, or of the run.
        g: the generation; its ``digest`` and wall times are not looked at.
        reply_texts: (request_id, status, text) of ``g.joined_requests``, in that order.

    Raises:
        ValueError: ``reply_texts`` are not those of the joined requests, or a number is not finite.
    """
    if tuple(request_id for request_id, _, _ in reply_texts) != tuple(g.joined_requests):
        raise ValueError("reply_texts must hold one entry for each joined request, in their order")
    return _sha256(
        [
            "riwoa generation 1",
            previous,
            g.generation,
            g.phase,
            g.config_revision,
            g.inputs,
            [[relative_request_id(request_id), status, text] for request_id, status, text in reply_texts],
            [_individual(i) for i in sorted(g.individuals, key=lambda i: i.slot)],
            g.counters,
            g.leader,
            state_sha256(g),
        ]
    )


def state_sha256(g: GenerationRecord) -> str:
    """Hash of the strategy's state; the state itself the journal keeps of the last generation alone."""
    return g.state_sha256 if g.state is None else hashlib.sha256(g.state).hexdigest()


def relative_request_id(request_id: str) -> str:
    """The ``generation/slot`` of a request id ``run/generation/slot``."""
    return request_id.partition("/")[2]


def canonical_fitness(fitness: float | None) -> float | None:
    """A float as SQLite gives it back: it keeps no negative zero, and an int in a REAL column becomes a float."""
    return None if fitness is None else float(fitness) + 0.0


def _individual(i: IndividualRecord) -> list[Any]:
    return [
        i.slot,
        i.operator,
        i.parent,
        i.genotype.hex(),
        i.architecture,
        i.architecture_key,
        i.status,
        i.metrics,
        canonical_fitness(i.fitness),
        i.fitness_version,
        bool(i.cache_hit),
        None if i.request_id is None else relative_request_id(i.request_id),
        i.error,
    ]


def _sha256(content: list[Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
