from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa_storage.digest import canonical_json, generation_digest, run_digest
from riwoa_storage.records import GenerationRecord
from tests.storage.samples import PROVENANCE, generation, individual

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_json_survives_a_round_trip_to_the_last_bit(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


def test_canonical_json_does_not_depend_on_the_order_of_keys_or_the_kind_of_mapping() -> None:
    assert canonical_json({"b": (1, 2), "a": 0.1}) == canonical_json(MappingProxyType({"a": 0.1, "b": [1, 2]}))
    assert canonical_json({"b": (1, 2), "a": 0.1}) == '{"a":0.1,"b":[1,2]}'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_number_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"accuracy": number})


def test_a_key_that_would_read_back_as_another_is_refused() -> None:
    with pytest.raises(TypeError, match="string keys"):
        canonical_json({"layers": [{1: "a"}]})


def test_the_chain_starts_from_everything_in_the_provenance() -> None:
    assert run_digest(PROVENANCE) != run_digest({**PROVENANCE, "seed": 8})


def test_wall_times_do_not_enter_the_digest() -> None:
    g = generation(1, 0)
    later = replace(g, duration_s=99.0, committed_unix_s=1.0, digest="whatever it was")
    assert generation_digest("p", later, []) == generation_digest("p", g, [])


def test_the_number_that_a_run_has_in_its_journal_does_not_enter_the_digest() -> None:
    def digest(run_id: int) -> str:
        request_id = f"{run_id}/0/1"
        g = generation(run_id, 1, individuals=(individual(1, 0, request_id=request_id),), joined_requests=(request_id,))
        return generation_digest("p", g, [(request_id, "ok", "text")])

    assert digest(1) == digest(12)


CHANGES: dict[str, Any] = {
    "generation": {"generation": 4},
    "phase": {"phase": "polish"},
    "configuration": {"config_revision": 1},
    "state": {"state": b"another"},
    "counters": {"counters": {"evaluations": 1}},
    "leader": {"leader": None},
    "inputs": {"inputs": {"deadline": True}},
    "missing individual": {"individuals": ()},
    **{
        f"individual's {field}": {"individuals": (individual(3, 0, **{field: value}),)}
        for field, value in {
            "slot": 1,
            "operator": "search",
            "parent": (0, 0),
            "genotype": b"\0" * 24,
            "architecture": {"depth": 4},
            "architecture_key": "other",
            "status": "failed",
            "metrics": {"accuracy": 0.1},
            "fitness": 0.123,
            "fitness_version": "v2",
            "cache_hit": True,
            "request_id": "1/2/0",
            "error": "non-finite accuracy",
        }.items()
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_everything_that_a_generation_decided_enters_the_digest(change: str) -> None:
    g = generation(1, 3, individuals=(individual(3, 0),))
    changed: GenerationRecord = replace(g, **CHANGES[change])
    assert generation_digest("p", changed, []) != generation_digest("p", g, [])


def test_the_previous_digest_and_the_joined_texts_enter_the_digest() -> None:
    g = generation(1, 1, joined_requests=("1/0/0",))
    texts = [("1/0/0", "ok", "a")]
    digests = {
        generation_digest("p", g, texts),
        generation_digest("q", g, texts),
        generation_digest("p", g, [("1/0/0", "ok", "b")]),
        generation_digest("p", g, [("1/0/0", "timeout", "a")]),
    }
    assert len(digests) == 4


def test_texts_of_other_requests_than_the_joined_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="joined"):
        generation_digest("p", generation(1, 1, joined_requests=("1/0/0",)), [])


def test_the_order_in_which_individuals_are_listed_does_not_matter() -> None:
    g = generation(1, 0)
    assert generation_digest("p", replace(g, individuals=g.individuals[::-1]), []) == generation_digest("p", g, [])
