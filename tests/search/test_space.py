from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.search.space import Condition, Gene, Space, SpaceError
from tests.search.support import MIXED, random_indices, spaces


@given(spaces(), st.integers(0, 99))
def test_an_architecture_and_its_indices_name_each_other(space: Space, seed: int) -> None:
    (indices,) = random_indices(space, seed)
    np.testing.assert_array_equal(space.indices(space.architecture(indices)), indices)


@given(spaces(), st.integers(0, 99))
def test_canonical_form_is_reached_in_one_step_and_marks_exactly_the_inactive_genes(space: Space, seed: int) -> None:
    raw = np.random.default_rng(seed).integers(0, space.cardinalities, (5, len(space)))
    canonical = space.canonical(raw)
    np.testing.assert_array_equal(space.canonical(canonical), canonical)
    for row, out in zip(raw, canonical, strict=True):
        for i, gene in enumerate(space.genes):
            active = gene.active_if is None or row[space.position[gene.active_if.gene]] >= gene.active_if.at_least
            assert out[i] == (row[i] if active else -1)


@given(spaces())
def test_a_declaration_survives_json(space: Space) -> None:
    assert Space.from_json(space.to_json()) == space
    assert Space.from_json(space.to_json()).sha256 == space.sha256


def test_neighbours_are_one_step_for_ordered_and_every_other_choice_for_nominal_genes() -> None:
    assert MIXED.neighbours(0, 0) == [1]
    assert MIXED.neighbours(0, 1) == [0, 2]
    assert MIXED.neighbours(1, 0) == []
    assert MIXED.neighbours(4, 2) == [0, 1, 3]


def test_equal_phenotypes_share_a_key_whatever_their_inactive_genes_say() -> None:
    a = np.array([0, 0, 1, 2, 3, 1])
    b = np.array([0, 0, 2, 0, 3, 0])
    assert MIXED.key(a) == MIXED.key(b) == "0.0._._.3._"


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ({"depth": 2, "only": "x", "op": "conv", "colour": 1}, "unknown gene 'colour'"),
        ({"depth": 2, "only": "x"}, "'op' is missing"),
        ({"depth": 2, "only": "x", "op": "conv", "kernel.3": 3}, "'kernel.3' is inactive"),
        ({"depth": 2, "only": "x", "op": "fft"}, "no choice 'fft'"),
    ],
)
def test_an_architecture_outside_the_space_is_refused_by_gene(architecture: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        MIXED.indices(architecture)


@pytest.mark.parametrize(
    ("declaration", "words"),
    [
        ([], "a space is a table"),
        ({"genes": []}, "lacks the key 'name'"),
        ({"name": "s", "genes": []}, "no genes"),
        ({"name": "s", "genes": "abc"}, "list of tables"),
        ({"name": "s", "genes": [{"name": "a"}]}, "lacks the key 'choices'"),
        ({"name": "s", "genes": [{"name": "a", "choices": [1, 1.0]}]}, "distinct"),
        ({"name": "s", "genes": [{"name": "a", "choices": [True]}]}, "string or a number"),
        ({"name": "s", "genes": [{"name": "a", "choices": [float("nan")]}]}, "finite"),
        ({"name": "s", "genes": [{"name": "a", "choices": [1], "kind": "loose"}]}, "'ordered' or 'nominal'"),
        ({"name": "s", "genes": [{"name": "a", "choices": [1], "colour": 1}]}, "unknown key 'colour'"),
        (
            {"name": "s", "genes": [{"name": "a", "choices": [1], "active_if": {"gene": "b", "at_least": 1}}]},
            "earlier gene",
        ),
        (
            {"name": "s", "genes": [{"name": "a", "choices": [1], "active_if": {"gene": "b", "at_least": "x"}}]},
            "must be a number",
        ),
    ],
)
def test_a_malformed_declaration_is_refused_with_the_place(declaration: Any, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        Space.from_json(declaration)


def test_a_condition_may_not_hang_on_a_conditional_gene() -> None:
    genes = (
        Gene("a", (1, 2)),
        Gene("b", (1, 2), active_if=Condition("a", 2)),
        Gene("c", (1, 2), active_if=Condition("b", 2)),
    )
    with pytest.raises(SpaceError, match="always active"):
        Space("chain", genes)


@pytest.mark.parametrize("number", [10**400, -(10**400), float("nan"), float("inf")])
def test_a_number_that_no_float_holds_is_no_choice_and_no_limit(number: float) -> None:
    genes: list[dict[str, object]] = [{"name": "a", "choices": [1, 2]}, {"name": "b", "choices": [1, number]}]
    with pytest.raises(SpaceError, match="a choice must be finite"):
        Space.from_json({"name": "s", "genes": genes})
    genes[1] = {"name": "b", "choices": [1, 2], "active_if": {"gene": "a", "at_least": number}}
    with pytest.raises(SpaceError, match="at_least must be a number"):
        Space.from_json({"name": "s", "genes": genes})


def declared(**gene: Any) -> dict[str, Any]:
    first = {"name": "act", "choices": [0, 1, 2], "words": ["relu", "tanh", "silu"], **gene}
    return {
        "name": "s",
        "genes": [first, {"name": "w", "choices": [8, 16], "active_if": {"gene": "act", "at_least": 1}}],
    }


def test_choices_have_words_for_who_reads_and_the_space_is_the_same() -> None:
    space, bare = Space.from_json(declared()), Space.from_json(declared(words=None))
    assert (space, space.sha256, space.to_json()) == (bare, bare.sha256, bare.to_json())
    assert space.worded({"act": 1, "w": 16}) == {"act": "tanh", "w": 16}
    told = space.in_words
    assert told.genes[0].choices == ("relu", "tanh", "silu")
    for architecture in ({"act": 0}, {"act": 2, "w": 8}):  # who is active does not change
        assert told.key(told.indices(space.worded(architecture))) == space.key(space.indices(architecture))


@pytest.mark.parametrize(
    ("gene", "words"),
    [
        ({"words": "relu"}, "words must be a list of texts"),
        ({"words": [1, 2, 3]}, "words must be a list of texts"),
        ({"words": ["relu", "tanh"]}, "a word of its own for each of its 3 choices"),
        ({"words": ["relu", "relu", "silu"]}, "a word of its own for each of its 3 choices"),
        ({"choices": ["a", "b", "c"], "words": ["b", "x", "y"], "kind": "nominal"}, "'b' is another of its choices"),
    ],
    ids=["text", "numbers", "few", "twice", "another"],
)
def test_words_that_do_not_tell_choices_apart_are_refused(gene: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError) as error:
        Space.from_json(declared(**gene))
    assert any(words in problem for problem in error.value.problems)
