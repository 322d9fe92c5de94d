"""Who is timed at the end of a run, and who is its winner by the clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from riwoa.hardware.timed import TimedNetwork
from riwoa.run.finalists import accuracy_decides, chosen, early, limit_ms, next_in_line, note_of, runners_up
from riwoa.run.history import Best
from riwoa.search.fitness import Constraint, Objective
from tests.ctl.support import individual

TARGET_MS, INTERVAL = 2.0, 0.05
WITHIN = Objective(TARGET_MS)


def timed(key: str, ms: float, *, predicted_ms: float | None = None, spread: float = 0.01) -> TimedNetwork:
    """The measured ``key``, whose parts lie ``spread`` up and down."""
    low_ms, high_ms = ms * (1 - spread), ms * (1 + spread)
    return TimedNetwork(key, (0, 0), predicted_ms or ms, ms, low_ms, high_ms, spread, "sha")


def front(*rows: tuple[str, float, float], objective: Objective = WITHIN) -> list[Best]:
    return [Best.of(0, individual(slot, row), objective) for slot, row in enumerate(rows)]


def keys(found: list[Best]) -> list[str]:
    return [one.individual.architecture_key for one in found]


def test_those_within_the_target_are_next_best_first_and_no_other_where_the_winner_is() -> None:
    points = (("slow", 0.95, 2.4), ("small", 0.7, 0.5), ("winner", 0.9, 1.9), ("near", 0.8, 1.2))
    rows = front(*points)
    assert keys(runners_up(rows[2], rows)) == ["near", "small"]
    rows = front(*points, objective=Objective(None))
    assert keys(runners_up(rows[2], rows)) == ["slow", "near", "small"]
    rows = front(*points, objective=Objective(0.4))
    assert keys(runners_up(rows[0], rows))[0] == "small"  # the fittest of those that miss


def test_one_that_people_will_ask_for_is_timed_whatever_its_rank() -> None:
    others = front(("best", 0.9, 1.9), ("next", 0.8, 1.8), ("later", 0.7, 1.7), ("fast", 0.6, 0.5))
    assert keys(early(others, (0, 3), 2)) == ["best", "fast", "next", "later"]
    assert keys(early(others, (0, 0), 2)) == keys(others)
    assert keys(early(others, (0, 3), 0)) == keys(early(others, None, 2)) == keys(others)


def test_where_files_in_8_bits_were_judged_the_most_accurate_within_the_limit_wins() -> None:
    ms = (1.9, 2.3, 1.8, 1.0)
    shares = (0.86, 0.90, 0.87, 0.87)
    networks = [replace(timed(str(i), ms[i]), accuracy=shares[i]) for i in range(4)]
    most_ms = limit_ms(TARGET_MS, INTERVAL)
    found = chosen(networks, most_ms, by_accuracy=True)
    assert (found.architecture_key, chosen(networks, most_ms).architecture_key) == ("2", "0")
    assert "names 86.00 % of the validation pictures, another of the 4 finalists 87.00 %" in note_of(
        networks, found, TARGET_MS, INTERVAL
    )
    busy = [replace(networks[0], spread=0.2), *networks[1:]]
    assert chosen(busy, most_ms, by_accuracy=True) is busy[0]
    assert TimedNetwork.from_json(networks[0].to_json()) == networks[0]


def test_accuracy_decides_only_where_the_winner_keeps_the_limits() -> None:
    """Where nothing does, the most accurate would be the one that is the furthest beyond them."""
    near, far = front(("near", 0.8, 1.0), ("far", 0.95, 9.0), objective=Objective(0.9))
    assert not near.feasible
    assert near.rank > far.rank
    assert not accuracy_decides(near, Objective(0.9))
    assert accuracy_decides(Best.of(0, near.individual, WITHIN), WITHIN)
    assert not accuracy_decides(replace(near, feasible=True), Objective(TARGET_MS, raised="f1"))


def test_every_limit_of_the_objective_is_kept() -> None:
    least = Objective(TARGET_MS, constraints=(Constraint("latency_ms", TARGET_MS), Constraint("accuracy", 0.85, True)))
    rows = front(("winner", 0.9, 1.9), ("near", 0.8, 1.2), objective=least)
    assert keys(runners_up(rows[0], rows)) == []


@pytest.mark.parametrize(
    ("winner_ms", "winner"),
    [
        (1.9, "winner"),
        (2.09, "winner"),  # beyond the target, within the interval
        (2.2, "second"),
    ],
)
def test_a_winner_that_misses_by_more_than_the_interval_gives_way_to_the_best_that_does_not(
    winner_ms: float, winner: str
) -> None:
    networks = [timed("winner", winner_ms), timed("first", 2.3), timed("second", 1.8), timed("third", 1.0)]
    most_ms = limit_ms(TARGET_MS, INTERVAL)
    found = chosen(networks, most_ms)
    assert found.architecture_key == winner
    note = note_of(networks, found, TARGET_MS, INTERVAL)
    assert (note == "") == (winner == "winner")
    assert "\n" not in note
    assert winner == "winner" or "beyond the target of 2.000 ms" in note


def test_a_busy_machine_says_so_and_changes_nothing() -> None:
    networks = [timed("winner", 4.0, spread=0.23), timed("other", 1.0)]
    assert chosen(networks, limit_ms(TARGET_MS, INTERVAL)) is networks[0]
    assert next_in_line(networks, front(("small", 0.7, 0.5)), TARGET_MS) == []
    assert "the clock spread by ± 23 %, more than ± 10 %" in note_of(networks, networks[0], TARGET_MS, INTERVAL)
    unsteady = [timed("winner", 4.0), timed("other", 1.0, spread=0.5), timed("third", 0.9)]
    assert chosen(unsteady, TARGET_MS).architecture_key == "third"  # one that nobody can be sure of takes no place


def test_without_a_target_or_an_interval() -> None:
    networks = [timed("winner", 2.15), timed("other", 1.0)]
    assert chosen(networks, limit_ms(None, INTERVAL)) is networks[0]
    assert chosen(networks, limit_ms(TARGET_MS, None)) is networks[0]  # 10 % where a table knows no interval


def test_where_all_miss_the_next_are_those_that_fit_as_the_table_errs() -> None:
    networks = [timed("winner", 3.8, predicted_ms=1.9), timed("near", 3.0, predicted_ms=1.5)]
    rest = front(("mid", 0.75, 1.1), ("small", 0.7, 0.9), ("least", 0.6, 0.5))
    assert keys(next_in_line(networks, rest, TARGET_MS)) == ["small", "least"]
    assert next_in_line([*networks, timed("fits", 1.9)], rest, TARGET_MS) == []
    none = note_of(networks, networks[0], TARGET_MS, INTERVAL)
    assert "so do the 1 others that were timed" in none
