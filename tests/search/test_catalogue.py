from __future__ import annotations

import itertools

import numpy as np
import pytest

from riwoa.search.catalogue import Catalogue
from riwoa.search.fitness import Objective
from riwoa.search.space import Gene, Space

ANY, FAST = Objective(None), Objective(2.5)


def catalogue(kind: str = "nominal", cards: int = 4, every: int = 1) -> Catalogue:
    """Two genes; the row (a, b) takes 1 + a milliseconds; the last row was never measured."""
    genes = tuple(Gene(name, tuple(range(cards)), kind) for name in "ab")  # type: ignore[arg-type]
    indices = np.array(list(itertools.product(range(cards), repeat=2)))[::every]
    numbers = {row.tobytes(): n for n, row in enumerate(indices)}
    usable = np.arange(len(indices)) < len(indices) - 1
    return Catalogue(Space("t", genes), indices, usable, 1.0 + indices[:, 0], lambda row: numbers.get(row.tobytes()))


def test_what_is_left_shrinks_by_what_is_evaluated_and_heeds_target_and_gaps() -> None:
    of = catalogue()
    assert len(of.left(ANY)) == 15
    assert len(of.left(FAST)) == 8
    of.evaluated("0.0")
    of.evaluated("0.0")
    assert len(of.left(ANY)) == 14
    assert len(of.left(FAST)) == 7
    assert not of.holds(np.array([3, 3]))


@pytest.mark.parametrize(("every", "sparse"), [(1, False), (40, False), (200, True)])
def test_sparse_is_a_table_of_less_than_a_hundredth_of_its_combinations(every: int, sparse: bool) -> None:
    assert catalogue(cards=40, every=every).sparse is sparse


@pytest.mark.parametrize("kind", ["nominal", "ordered"])
def test_what_does_not_exist_becomes_the_nearest_row_that_is_left_and_none_twice(kind: str) -> None:
    of = catalogue(kind, cards=40, every=41)  # the diagonal
    asked = np.array([[5, 6], [5, 6], [7, 7], [39, 39]])
    moved = of.moved(asked, ANY)
    assert moved[2].tolist() == [7, 7]  # exists
    assert all(of.holds(row) for row in moved)
    assert len({row.tobytes() for row in moved}) == 4
    assert sorted(moved[:2, 0].tolist()) == [5, 6]
    of.evaluated("5.5")
    assert of.moved(asked[:1], ANY).tolist() == [[6, 6]]
    slow = of.moved(np.array([[30, 31]]), FAST)
    assert slow[0, 0] <= 1  # within the target
