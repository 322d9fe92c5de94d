from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.search.pareto import ParetoArchive, ParetoPoint

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25).map(
    lambda rows: [ParetoPoint(f"k{i}", a / 10, float(b)) for i, (a, b) in enumerate(rows)]
)


def dominates(a: ParetoPoint, b: ParetoPoint) -> bool:
    no_worse = a.accuracy >= b.accuracy and a.latency_ms <= b.latency_ms
    return no_worse and (a.accuracy, a.latency_ms) != (b.accuracy, b.latency_ms)


def archive(points: list[ParetoPoint]) -> ParetoArchive:
    out = ParetoArchive()
    for p in points:
        out.add(p)
    return out


@given(POINTS)
def test_the_front_is_exactly_the_points_that_no_other_dominates(points: list[ParetoPoint]) -> None:
    expected = {p for p in points if not any(dominates(q, p) for q in points)}
    assert set(archive(points).front()) == expected


@given(POINTS, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order_of_adding(points: list[ParetoPoint], random: object) -> None:
    shuffled = sorted(points, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert archive(points).front() == archive(shuffled).front()


def test_the_front_runs_from_the_fastest_to_the_most_accurate() -> None:
    front = archive([ParetoPoint("b", 0.9, 9.0), ParetoPoint("a", 0.5, 1.0), ParetoPoint("c", 0.7, 5.0)]).front()
    assert [p.key for p in front] == ["a", "c", "b"]


def test_equal_points_stay_but_a_key_only_once() -> None:
    out = ParetoArchive()
    assert out.add(ParetoPoint("a", 0.5, 1.0))
    assert out.add(ParetoPoint("b", 0.5, 1.0))
    assert not out.add(ParetoPoint("a", 0.5, 1.0, (3, 4)))
    assert [(p.key, p.origin) for p in out.front()] == [("a", (-1, -1)), ("b", (-1, -1))]


def test_a_failed_evaluation_has_no_place_in_the_archive() -> None:
    with pytest.raises(ValueError, match="finite"):
        ParetoArchive().add(ParetoPoint("a", math.nan, 1.0))


def test_a_long_front_takes_in_each_point_in_a_moment() -> None:
    out = archive([ParetoPoint(f"k{i}", i / 20_000, float(i)) for i in range(20_000)])  # in 20 s when all were compared
    assert len(out) == 20_000
    assert out.add(ParetoPoint("best", 1.0, 0.0))
    assert [p.key for p in out.front()] == ["best"]
