from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.search.fitness import Objective


def test_within_the_target_fitness_is_the_accuracy_itself() -> None:
    np.testing.assert_array_equal(Objective(10.0).fitness([0.7, 0.8], [10.0, 3.0]), [0.7, 0.8])


def test_beyond_the_target_accuracy_is_discounted_by_the_excess() -> None:
    assert Objective(10.0).fitness(0.8, 20.0) == pytest.approx(0.4)
    assert Objective(10.0, exponent=-0.07).fitness(0.8, 20.0) == pytest.approx(0.8 * 2**-0.07)


def test_a_failed_evaluation_is_worse_than_anything() -> None:
    assert Objective(10.0).fitness(math.nan, 1.0) == -np.inf
    assert Objective(10.0).fitness(math.nan, math.nan) == -np.inf


def test_without_a_target_everything_is_feasible_and_undiscounted() -> None:
    objective = Objective(None)
    assert objective.fitness(0.3, 1e9) == 0.3
    assert bool(objective.feasible(1e9))


def test_the_ranking_puts_every_feasible_entry_before_the_fittest_infeasible_one() -> None:
    order = Objective(10.0).ranking([0.9, 0.2, math.nan, 0.3, 0.2], [10.1, 9.0, 1.0, 10.0, 9.0])
    assert order.tolist() == [3, 1, 4, 0]


@given(st.floats(0.01, 1), st.floats(0.1, 100), st.floats(0.1, 100))
def test_slower_is_never_fitter_at_equal_accuracy(accuracy: float, a_ms: float, b_ms: float) -> None:
    fast, slow = Objective(10.0).fitness([accuracy, accuracy], sorted((a_ms, b_ms)))
    assert fast >= slow


def test_the_version_tells_objectives_apart() -> None:
    versions = {Objective(t, w).version for t in (None, 12.5, 13.0) for w in (-1.0, -0.07)}
    assert len(versions) == 6
    assert Objective(12.5).version == "v1:T=12.5:w=-1.0"


@pytest.mark.parametrize(("target", "exponent"), [(0.0, -1.0), (math.nan, -1.0), (10.0, 0.0), (10.0, math.inf)])
def test_a_senseless_objective_is_refused(target: float, exponent: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Objective(target, exponent)
