"""Fronts: area, contributions and expected improvement against brute force, and who survives."""

from __future__ import annotations

import numpy as np
import pytest

from riwoa.search.base import Members
from riwoa.search.fitness import Constraint, FloatArray, Objective
from riwoa.search.hypervolume import Staircase, front_positions, survival_order
from riwoa.search.improvement import FrontImprovement
from riwoa.search.space import IntArray

MOST_LOAD, LEAST_VALUE = 10.0, 1.0


class Believed:
    """A posterior of architectures of one gene: means and deviations of scores."""

    count = 0

    def __init__(self, of: dict[int, tuple[float, float]]) -> None:
        self.of = of

    def predict(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        found = np.array([self.of[row[0]] for row in indices])
        return found[:, 0], found[:, 1]

    def believe(self, indices: IntArray) -> Believed:
        return self

    def score(self, value: float) -> float:
        return max(value, -2.0)

    def log_success(self, indices: IntArray) -> FloatArray:
        return np.zeros(len(indices))


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
    known = Believed({0: (2.0, 1.0), 1: (5.5, 0.5), 2: (1.0, 2.0), 3: (4.0, 0.2)})
    at = (0.3, 4.0, 9.5, 7.7)
    found = np.exp(FrontImprovement((stairs,), lambda row: at[row[0]], 0).promise(known, np.arange(4)[:, None]))
    quantiles = np.linspace(-6.0, 6.0, 601)
    weights = np.exp(-0.5 * quantiles**2) / np.exp(-0.5 * quantiles**2).sum()
    for row, (mean, deviation) in known.of.items():
        grown = [stairs.with_network(mean + deviation * q, at[row]).area - stairs.area for q in quantiles]
        assert found[row] == pytest.approx(float(weights @ np.array(grown)), rel=1e-3, abs=1e-9)


def test_beyond_the_reference_and_where_no_load_is_known_nothing_is_promised_and_far_below_a_front_little_is() -> None:
    empty = Staircase.of(np.empty(0), np.empty(0), MOST_LOAD, LEAST_VALUE)
    assert empty.area == 0.0
    known = Believed({0: (2.0, 1e-9), 1: (2.0, 1e-9), 2: (2.0, 1e-9)})
    rows = np.arange(3)[:, None]
    at = FrontImprovement((empty,), lambda row: (4.0, 10.0, None)[row[0]], 0)
    assert np.exp(at.promise(known, rows)).tolist() == pytest.approx([6.0, 0.0, 0.0])
    high = Staircase(np.array([1.0]), np.array([50.0]), 10.0, 40.0)
    worse, better = FrontImprovement((high,), lambda row: 2.0, 0).promise(
        Believed({0: (0.0, 1.0), 1: (1.0, 1.0)}), rows[:2]
    )
    assert -np.inf < worse < better


def test_what_is_asked_takes_turns_and_counts_for_the_next() -> None:
    known = Believed({0: (1.0, 0.1), 1: (-0.5, 0.1)})
    members = Members(np.empty((3, 1)), np.array([-1.0, 0.5, 2.0]), np.array([1.0, 5.0, 11.0]), np.zeros((3, 2), int))
    front = FrontImprovement.of(members, 10.0, known, lambda row: (6.0, 2.0)[row[0]], 0)
    assert [stairs.least_value for stairs in front.fronts] == [0.0, -0.67, -2.0, 0.5]
    assert not len(front.fronts[3].values)  # above the best: only a better one counts in that turn
    assert front.fronts[2].values.tolist() == [-1.0, 0.5]  # what is beyond the limit is not on it
    good, fast = front.promise(known, np.arange(2)[:, None])
    assert good > fast
    later = front.believing(known, np.array([[0]])).believing(known, np.array([[0]]))
    good, fast = later.promise(known, np.arange(2)[:, None])
    assert fast > good  # which is believed to be on the front already


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
    order = survival_order(values, loads, 12.0)
    assert sorted(order.tolist()) == list(range(30))
    ranks = [next(n for n, layer in enumerate(layers) if i in layer) for i in order.tolist()]
    assert ranks == sorted(ranks)
    assert set(front_positions(values, loads).tolist()) == layers[0]


def test_a_population_of_a_front_spans_it_and_what_is_beyond_the_target_comes_last() -> None:
    accuracy = np.array([0.9, 0.5, 0.7, 0.6, np.nan, 0.95])
    latency_ms = np.array([5.0, 1.0, 3.0, 4.0, 1.0, 20.0])
    front = Objective(10.0, front=True)
    order = front.survival(accuracy, latency_ms).tolist()
    assert (set(order[:3]), order[3:]) == ({0, 1, 2}, [3, 5])
    assert front.front_size(accuracy, latency_ms) == 3
    assert Objective(10.0).survival(accuracy, latency_ms).tolist() == [0, 2, 3, 1, 5]
    assert front.ranking(accuracy, latency_ms).tolist() == Objective(10.0).ranking(accuracy, latency_ms).tolist()


def test_the_load_of_a_front_is_the_latencys_share_while_every_limit_is_kept() -> None:
    limits = (Constraint("latency_ms", 10.0), Constraint("size", 4.0))
    front = Objective(10.0, constraints=limits, known=frozenset({"latency_ms", "size"}), front=True)
    kept = {"accuracy": 0.5, "latency_ms": 2.0, "size": 3.9}
    assert front.standing(kept) == pytest.approx((0.5, 0.2))
    assert front.known_load(kept) == pytest.approx(0.2)
    assert front.standing({**kept, "size": 8.0}) == pytest.approx((0.5, 2.0))
    with pytest.raises(ValueError, match="largest latency of interest"):
        Objective(None, front=True)
