from riwoa.learning.trajectories import Change, Trajectory, both_ends, gains
from riwoa.search.fitness import Objective

from .support import SPACE, network, step


def test_a_step_tells_its_changes_and_gains() -> None:
    told = step(3, [0, 0, 1, 2], [0, 2, 1, 0], 0.01, added_ms=1.5)
    assert told.changes == (Change(1, 0, 2), Change(3, 2, 0))
    assert abs(told.value_gain - 0.01) < 1e-12
    assert told.latency_change_ms == 1.5


def test_a_gene_that_only_one_of_the_two_has_is_no_change() -> None:
    told = Trajectory((1, 0), (0, 0), "climb", network([0, 1, -1, 2], 0.5), network([1, 1, 2, 2], 0.5))
    assert told.changes == (Change(0, 0, 1),)


def test_the_gain_is_that_of_fitness_by_the_objective_in_force() -> None:
    told = step(0, [0, 0, 1, 2], [0, 2, 1, 0], 0.1, added_ms=10.0)  # twice the time
    assert abs(told.gain(Objective(None)) - 0.1) < 1e-12
    assert abs(told.gain(Objective(10.0)) + 0.2) < 1e-12
    assert gains([told, told], Objective(10.0)) == [told.gain(Objective(10.0))] * 2


def test_ends_come_back_as_indices() -> None:
    before, after = both_ends([step(0, [0, 0, 1, -1], [0, 2, 1, 0], 0.0)], SPACE)
    assert before.tolist() == [[0, 0, 1, -1]]
    assert after.tolist() == [[0, 2, 1, 0]]
