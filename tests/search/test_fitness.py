from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.search.fitness import Constraint, Objective


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


def test_a_limit_is_read_and_its_load_is_at_most_one_exactly_where_it_is_met() -> None:
    assert Constraint.parse(" parameters<=2e6 ") == Constraint("parameters", 2e6)
    for text, values in (("a <= 8", (4.0, 8.0, 12.0)), ("a >= 0.5", (1.0, 0.5, 0.25)), ("a <= 0", (-1.0, 0.0, 1.0))):
        limit = Constraint.parse(text)
        assert [limit.met(value) for value in values] == [True, True, False]
        assert [limit.load(value) <= 1.0 for value in values] == [True, True, False]
    assert Constraint("a", 8.0).load(4.0) == 0.5
    assert Constraint("a", 8.0).load(12.0) == 1.5
    for wrong in ("a < 3", "a <= x", "a <= inf", "<= 3", "a == 3"):
        with pytest.raises(ValueError, match="NAME <= NUMBER"):
            Constraint.parse(wrong)


def test_with_limits_the_greatest_share_of_one_is_the_load_and_the_version_tells() -> None:
    plain = Objective(10.0)
    limited = Objective(10.0, constraints=(Constraint("latency_ms", 10.0), Constraint("energy", 4.0)))
    metrics = {"accuracy": 0.8, "latency_ms": 5.0, "energy": 6.0}
    assert plain.standing(metrics) == (0.8, 5.0)
    assert limited.standing(metrics) == (0.8, 1.5)
    assert limited.known_load({"latency_ms": 5.0}) == 0.5
    assert not limited.feasible(1.5)
    assert plain.version == "v1:T=10.0:w=-1.0"
    assert limited.version != plain.version


def test_a_lowered_metric_counts_negative_and_gets_worse_beyond_a_limit() -> None:
    aim = Objective(None, raised="energy", lowered=True, constraints=(Constraint("accuracy", 0.5, at_least=True),))
    inside, beyond = (aim.standing({"energy": 3.0, "accuracy": a}) for a in (0.6, 0.25))
    assert float(aim.fitness(*inside)) == -3.0
    assert float(aim.fitness(*beyond)) == -4.5
    assert aim.value_of(-4.5, 1.5) == -3.0
