from dataclasses import replace

import numpy as np

from riwoa.learning.order import FEWEST, StepOrder
from riwoa.learning.trajectories import both_ends

from .support import SPACE, drawn_steps


def taught(count: int) -> StepOrder:
    order = StepOrder(SPACE, 10.0)
    for step in drawn_steps(count):
        order.learn(step, step.value_gain)
    return order


def test_nothing_is_expected_before_a_few_steps() -> None:
    before, after = both_ends(drawn_steps(3), SPACE)
    assert taught(FEWEST - 1).expect(before, after, np.full(3, np.nan), np.zeros(3)) is None
    assert taught(FEWEST).expect(before, after, np.full(3, np.nan), np.zeros(3)) is not None


def test_other_steps_are_put_in_the_order_of_what_they_gain() -> None:
    steps = drawn_steps(60, seed=1)
    before, after = both_ends(steps, SPACE)
    added = np.array([s.after.load - s.before.load for s in steps])
    expected = taught(100).expect(before, after, np.full(60, np.nan), added)
    assert expected is not None
    assert np.corrcoef(expected, [s.value_gain for s in steps])[0, 1] > 0.9


def test_what_a_surrogate_expects_is_followed_where_it_is_right() -> None:
    order = StepOrder(SPACE, None)
    for step in drawn_steps(60):
        order.learn(replace(step, expected_value=step.after.value), step.value_gain)
    before, after = both_ends(drawn_steps(2), SPACE)
    low, high = order.expect(before[[0, 0]], after[[0, 0]], np.array([-0.01, 0.01]), np.zeros(2))  # type: ignore[misc]
    assert high > low


def test_parts_are_told_by_what_more_of_them_gains() -> None:
    strongest = taught(200).strongest()
    assert strongest[0][0].what == "kernel"
    assert strongest[0][1] > 0.0
