from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.search.bandit import DISCOUNT, FAMILIES, LEAST, MOST, PoolCredit, semantic_share
from riwoa.search.base import Outcome

COUNTS = st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)).map(lambda pair: (min(pair), max(pair)))


def test_without_evidence_both_operators_get_the_same() -> None:
    assert semantic_share((0, 0), (0, 0)) == 0.5


def test_the_share_is_the_ratio_of_posterior_means() -> None:
    assert semantic_share((3, 8), (1, 8)) == pytest.approx((4 / 10) / (4 / 10 + 2 / 10))


@given(COUNTS, COUNTS)
def test_neither_operator_ever_falls_silent(semantic: tuple[float, float], spiral: tuple[float, float]) -> None:
    assert LEAST <= semantic_share(semantic, spiral) <= MOST


@given(COUNTS, COUNTS, st.floats(0.1, 100))
def test_another_win_never_lowers_the_share(
    semantic: tuple[float, float], spiral: tuple[float, float], more: float
) -> None:
    won = (semantic[0] + more, semantic[1] + more)
    lost = (semantic[0], semantic[1] + more)
    assert semantic_share(lost, spiral) <= semantic_share(semantic, spiral) <= semantic_share(won, spiral)


def test_what_paid_long_ago_is_forgotten() -> None:
    recent = (40.0, 40.0)
    for _ in range(60):  # generations in which nothing was won any more
        recent = (DISCOUNT * recent[0], DISCOUNT * recent[1] + 3)
    assert semantic_share(recent, (10, 20)) < 0.2


def test_places_of_a_pool_go_to_whoever_joins_the_population_and_nobody_loses_all() -> None:
    usual, credit = [50, 150, 75, 80], PoolCredit.none()
    assert credit.places(usual) == pytest.approx(usual, abs=2)
    for _ in range(50):
        operators = ("search", "mutate", "mutate", "climb", "init")
        outcomes = [Outcome(slot, o, np.zeros(1), 0.5, 1.0, None) for slot, o in enumerate(operators)]
        credit = credit.later(outcomes, {0: 0, 3: 1}, 20)  # the whale's move leads, the climb's follows
    credit = credit.later([Outcome(0, "init", np.zeros(1), np.nan, 1.0, None)], {}, 0)  # no population yet
    init, mutants, crossings, whales = credit.places(usual)
    assert init + mutants + crossings + whales == sum(usual)
    assert whales > 150
    assert mutants < 75
    assert min(init / 50, mutants / 150, crossings / 75) >= 0.25 - 0.02
    assert [len(family) for family in FAMILIES] == [1, 1, 1, 3]


@pytest.mark.parametrize("counts", [(2, 1), (-1, 3)])
def test_impossible_counts_are_refused(counts: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="wins of"):
        semantic_share(counts, (0, 0))
