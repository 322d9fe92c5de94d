"""Fronts: area, contributions and expected improvement against brute force, and who survives."""

from __future__ import annotations

import numpy as np
import pytest

from riwoa.search.fitness import Constraint, FloatArray, Objective
from riwoa.search.hypervolume import Staircase, front_positions, survivors

MOST_LOAD, LEAST_VALUE = 10.0, 1.0


def some_networks(seed: int, count: int = 12) -> tuple[FloatArray, FloatArray]:
    """Values and loads, some beyond the reference, some equal."""
    draw = np.random.default_rng(seed)
    return np.round(draw.uniform(0.0, 6.0, count), 1), np.round(draw.uniform(0.0, 12.0, count), 1)


def area(values: FloatArray, loads: FloatArray) -> float:
    """By a sum over thin columns; all numbers are tenths."""
    columns = np.arange(0.05, MOST_LOAD, 0.1)
    reached = np.where(loads[None, :] <= columns[:, None], values[None, :], -np.inf)
    return float(0.1 * np.maximum(reached.max(axis=1, initial=-np.inf) - LEAST_VALUE, 0.0).sum())


@pytest.mark.parametrize("seed", range(6))
def test_area_and_contributions_are_those_of_thin_columns(seed: int) -> None:
    values, loads = some_networks(seed)
    stairs = Staircase.of(values, loads, MOST_LOAD, LEAST_VALUE)
    assert stairs.area == pytest.approx(area(values, loads))
    for i, contribution in enumerate(stairs.contributions):
        rest = np.delete(stairs.values, i), np.delete(stairs.loads, i)
        assert contribution == pytest.approx(stairs.area - area(*rest))


@pytest.mark.parametrize("seed", range(3))
def test_the_expected_improvement_is_the_mean_growth_of_the_area(seed: int) -> None:
    values, loads = some_networks(seed)
    stairs = Staircase.of(values, loads, MOST_LOAD, LEAST_VALUE)
    quantiles = np.linspace(-6.0, 6.0, 601)
    weights = np.exp(-0.5 * quantiles**2) / np.exp(-0.5 * quantiles**2).sum()
    for mean, deviation, load in ((2.0, 1.0, 0.3), (5.5, 0.5, 4.0), (1.0, 2.0, 9.5), (4.0, 0.2, 7.7)):
        grown = [stairs.believing(mean + deviation * q, load).area - stairs.area for q in quantiles]
        found = stairs.log_expected(np.array([mean]), np.array([deviation]), np.array([load]))
        assert np.exp(found[0]) == pytest.approx(float(weights @ np.array(grown)), rel=1e-3, abs=1e-9)


def test_without_a_front_the_reference_alone_is_to_be_beaten_and_beyond_it_nothing_is_gained() -> None:
    stairs = Staircase.of(np.empty(0), np.empty(0), MOST_LOAD, LEAST_VALUE)
    assert stairs.area == 0.0
    found = stairs.log_expected(np.full(3, 2.0), np.full(3, 1e-9), np.array([4.0, 10.0, np.inf]))
    assert np.exp(found).tolist() == pytest.approx([6.0, 0.0, 0.0])


def test_far_below_the_front_candidates_are_still_told_apart() -> None:
    stairs = Staircase(np.array([1.0]), np.array([50.0]), 10.0, 40.0)
    worse, better = stairs.log_expected(np.array([0.0, 1.0]), np.ones(2), np.array([2.0, 2.0]))
    assert -np.inf < worse < better


@pytest.mark.parametrize("seed", range(6))
def test_survivors_are_sorted_by_front_and_the_first_front_stays_whole(seed: int) -> None:
    values, loads = some_networks(seed, 30)

    def depth(i: int, left: set[int]) -> bool:
        return not any(
            (values[j] >= values[i] and loads[j] <= loads[i]) and ((values[j], -loads[j]) != (values[i], -loads[i]))
            for j in left
        )

    layers, left = [], set(range(30))
    while left:
        layers.append({i for i in left if depth(i, left)})
        left -= layers[-1]
    order = survivors(values, loads, 30, 12.0)
    assert sorted(order.tolist()) == list(range(30))
    ranks = [next(n for n, layer in enumerate(layers) if i in layer) for i in order.tolist()]
    assert ranks == sorted(ranks)
    assert set(front_positions(values, loads).tolist()) == layers[0]
    assert set(survivors(values, loads, 1, 12.0).tolist()) == layers[0]


def test_a_population_of_a_front_spans_it_and_what_is_beyond_the_target_comes_last() -> None:
    accuracy = np.array([0.9, 0.5, 0.7, 0.6, np.nan, 0.95])
    latency_ms = np.array([5.0, 1.0, 3.0, 4.0, 1.0, 20.0])
    front = Objective(10.0, front=True)
    assert set(front.survivors(accuracy, latency_ms, 2).tolist()) == {0, 1, 2}
    assert front.survivors(accuracy, latency_ms, 9).tolist()[3:] == [3, 5]
    assert Objective(10.0).survivors(accuracy, latency_ms, 2).tolist() == [0, 2]
    assert front.ranking(accuracy, latency_ms).tolist() == Objective(10.0).ranking(accuracy, latency_ms).tolist()


def test_the_load_of_a_front_is_the_latencys_share_while_every_limit_is_kept() -> None:
    limits = (Constraint("latency_ms", 10.0), Constraint("size", 4.0))
    front = Objective(10.0, constraints=limits, known=frozenset({"latency_ms", "size"}), front=True)
    kept = {"accuracy": 0.5, "latency_ms": 2.0, "size": 3.9}
    assert front.standing(kept) == (0.5, pytest.approx(0.2))
    assert front.known_load(kept) == pytest.approx(0.2)
    assert front.standing({**kept, "size": 8.0}) == (0.5, pytest.approx(2.0))
    with pytest.raises(ValueError, match="largest latency of interest"):
        Objective(None, front=True)
