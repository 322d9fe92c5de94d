from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from riwoa.search.codec import Codec, CodecError
from riwoa.search.space import Gene, Space, SpaceError
from tests.search.support import MIXED, MOBILE, random_indices, spaces


@given(spaces(), st.integers(0, 99))
def test_decoding_an_encoded_row_gives_its_canonical_indices(space: Space, seed: int) -> None:
    indices = random_indices(space, seed, count=4)
    np.testing.assert_array_equal(Codec(space, seed).decode(Codec(space, seed).encode(indices)), indices)


@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6)))
def test_reflection_stays_within_the_bounds_and_leaves_what_is_inside(vectors: np.ndarray) -> None:
    folded = Codec(MOBILE, 0).reflect(vectors)
    assert np.all((folded >= 0.0) & (folded < 1.0))
    np.testing.assert_array_equal(Codec(MOBILE, 0).reflect(folded), folded)


def test_reflection_bounces_off_both_walls() -> None:
    np.testing.assert_allclose(Codec(MOBILE, 0).reflect(np.array([-0.3, 1.3, 2.2, -1.9])), [0.3, 0.7, 0.2, 0.1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_reflecting_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(CodecError, match="not finite"):
        Codec(MOBILE, 0).reflect(np.array([0.5, bad]))


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.0])
def test_decoding_outside_the_unit_cube_is_refused(bad: float) -> None:
    vectors = np.full((2, 46), 0.5)
    vectors[1, 7] = bad
    with pytest.raises(CodecError, match="outside"):
        Codec(MOBILE, 0).decode(vectors)


def test_encoding_an_index_outside_its_gene_names_the_gene() -> None:
    with pytest.raises(CodecError, match="'op'"):
        Codec(MIXED, 0).encode(np.array([[0, 0, 0, 0, 4, 0]]))


@given(st.integers(0, 99), st.data())
def test_a_patch_sets_its_genes_and_keeps_every_other_raw_coordinate(seed: int, data: st.DataObject) -> None:
    codec = Codec(MIXED, 1)
    vector = np.random.default_rng(seed).random(codec.dimension)
    named = data.draw(st.lists(st.sampled_from(MIXED.genes), unique=True))
    changes = {g.name: data.draw(st.sampled_from(g.choices)) for g in named}
    patched = codec.patch(vector, changes)
    raw = codec.raw_indices(patched[None, :])[0]
    untouched = np.ones(codec.dimension, dtype=np.bool_)
    for name, choice in changes.items():
        gene = MIXED.gene_index(name)
        assert MIXED.genes[gene].choices[raw[gene]] == choice
        untouched[codec.columns(gene)] = False
    np.testing.assert_array_equal(patched[untouched], vector[untouched])


def test_a_patch_of_an_unknown_gene_is_refused() -> None:
    with pytest.raises(SpaceError, match="unknown gene 'colour'"):
        Codec(MIXED, 0).patch(np.full(10, 0.5), {"colour": 1})


def test_tied_logits_favour_no_choice_over_many_seeds_and_are_settled_alike_within_one() -> None:
    space = Space("n", (Gene("op", ("a", "b", "c", "d"), kind="nominal"),))
    tied = np.full((1, 4), 0.5)
    picked = [int(Codec(space, seed).raw_indices(tied)[0, 0]) for seed in range(400)]
    assert picked == [int(Codec(space, seed).raw_indices(tied)[0, 0]) for seed in range(400)]
    assert min(np.bincount(picked, minlength=4)) > 60


def test_uniform_genotypes_are_uniform_over_the_choices_of_each_gene() -> None:
    codec = Codec(MIXED, 0)
    raw = codec.raw_indices(np.random.default_rng(0).random((8000, codec.dimension)))
    for gene, count in enumerate(MIXED.cardinalities):
        shares = np.bincount(raw[:, gene], minlength=int(count)) / len(raw)
        np.testing.assert_allclose(shares, 1.0 / count, atol=0.03)


def test_coordinates_at_the_last_float_below_one_decode_to_the_last_choice() -> None:
    top = np.full((1, 46), np.nextafter(1.0, 0.0))
    np.testing.assert_array_equal(Codec(MOBILE, 0).decode(top)[0], MOBILE.cardinalities - 1)
