"""Paired comparison: exact where it can be checked against other ways, and views of one picture are one picture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from riwoa.search.paired import accuracy_of, difference_of, sign_flip_p


@pytest.mark.parametrize(("only_ours", "only_theirs"), [(0, 0), (1, 0), (3, 11), (40, 25), (900, 1050)])
def test_with_one_view_a_picture_it_is_mcnemars_exact_test(only_ours: int, only_theirs: int) -> None:
    differences = np.array([1] * only_ours + [-1] * only_theirs + [0] * 7)
    total = only_ours + only_theirs
    expected = stats.binomtest(only_ours, total).pvalue if total else 1.0
    assert sign_flip_p(differences) == pytest.approx(expected)


def test_with_views_it_counts_every_choice_of_signs() -> None:
    differences = np.array([3, -1, 0, 2, 2, -1, 4, 1])
    found = abs(differences.sum())
    sums = [abs(np.dot(differences, signs)) for signs in itertools.product((-1, 1), repeat=len(differences))]
    assert sign_flip_p(differences) == pytest.approx(np.mean([s >= found for s in sums]))


def test_showing_each_picture_more_often_makes_nothing_surer() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((2, 300, 1)) < 0.8
    once, often = difference_of(ours, theirs), difference_of(np.tile(ours, 8), np.tile(theirs, 8))
    assert (often.value, often.error, often.p) == pytest.approx((once.value, once.error, once.p))
    assert accuracy_of(np.tile(ours, 8)).error == pytest.approx(accuracy_of(ours).error)
    assert accuracy_of(ours).error == pytest.approx(np.sqrt(ours.mean() * (1 - ours.mean()) / 299))


def test_the_same_answers_differ_by_nothing_and_all_right_is_not_without_error() -> None:
    right = np.ones((60, 1), dtype=bool)
    same = difference_of(right, right)
    assert (same.value, same.error, same.p, same.is_clear) == (0.0, 0.0, 1.0, False)
    assert accuracy_of(right).error == pytest.approx(0.5 / 61)


def test_a_difference_that_chance_seldom_makes_is_clear() -> None:
    theirs = np.zeros((100, 1), dtype=bool)
    ours = theirs.copy()
    ours[:5] = True
    assert not difference_of(ours, theirs).is_clear  # 5 to 0: p = 0.0625
    ours[:6] = True
    assert difference_of(ours, theirs).is_clear  # 6 to 0: p = 0.031
    assert difference_of(theirs, ours).value == pytest.approx(-0.06)
