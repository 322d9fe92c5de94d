"""Bayesian optimisation as a strategy: within the limit, never twice, and sooner at the best than chance."""

from __future__ import annotations

import numpy as np
import pytest

from riwoa.search.base import Outcome, SearchInputError
from riwoa.search.bayesian import BayesianParameters, BayesianSearch
from riwoa.search.fitness import Objective
from riwoa.search.hypervolume import Staircase
from riwoa.search.space import Gene, IntArray, Space
from riwoa.surrogate.screening import Screening

SPACE = Space("cells", tuple(Gene(f"op{i}", tuple("abcd"), "nominal") for i in range(5)))  # 1,024


def accuracy(indices: IntArray) -> float:
    """The best is 3 everywhere; neighbours in a cell make it rugged."""
    return float(0.5 + 0.02 * indices.sum() + 0.01 * np.cos(7.0 * indices[0] * indices[1]))


def load(indices: IntArray) -> float:
    return 1.0 + float(indices.sum())


class Run:
    """One search, told what it asks."""

    def __init__(
        self, target_ms: float | None, seed: int = 0, space: Space = SPACE, *, front: bool = False, most: int = 20
    ) -> None:
        objective = Objective(target_ms, front=front)
        self.strategy = BayesianSearch(space, objective, seed, BayesianParameters(population=most), load)
        self.screening = Screening(space, of_scores=True)
        self.asked: list[tuple[int, ...]] = []

    def step(self) -> None:
        self.screening.guide(self.strategy)
        outcomes = []
        for p in self.strategy.ask():
            indices = self.strategy.codec.decode(p.genotype[None, :])[0]
            fresh = tuple(indices.tolist()) not in self.asked
            self.asked.append(tuple(indices.tolist()))
            outcomes.append(Outcome(p.slot, p.operator, p.genotype, accuracy(indices), load(indices), p.parent))
            if fresh:
                self.screening.tell(indices, accuracy(indices), None)
        self.strategy.tell(outcomes)


@pytest.mark.parametrize("target_ms", [None, 9.0])
def test_it_meets_the_best_soon_and_asks_nothing_twice_nor_beyond_the_limit(target_ms: float | None) -> None:
    every = np.array(list(np.ndindex(4, 4, 4, 4, 4)))
    within = [row for row in every if target_ms is None or load(row) <= target_ms]
    best = max(accuracy(row) for row in within)
    run = Run(target_ms)
    for _ in range(12):
        run.step()
    assert len(set(run.asked)) == len(run.asked) == 5 + 11 * 4
    assert target_ms is None or all(load(np.array(row)) <= target_ms for row in run.asked)
    assert run.strategy.leader is not None
    assert run.strategy.leader.accuracy == pytest.approx(best)  # 49 of 1,024: one search in twenty by chance


def test_of_a_front_it_finds_nearly_all_and_forgets_none_of_it() -> None:
    run = Run(14.0, front=True, most=4)
    for _ in range(25):
        run.step()
    assert all(load(np.array(row)) <= 14.0 for row in run.asked)
    every, asked = np.array(list(np.ndindex(4, 4, 4, 4, 4))), np.array(run.asked)
    whole, found, kept = (
        Staircase.of(np.array(list(map(accuracy, rows))), np.array(list(map(load, rows))), 14.0, 0.5)
        for rows in (every, asked, run.strategy.codec.decode(run.strategy.population.genotype))
    )
    assert found.area > 0.98 * whole.area  # 101 of 1,024; chance has 0.95
    assert (len(found.loads), kept.area) == (len(kept.loads), found.area)
    assert len(found.loads) > 4  # more than the population is to have


@pytest.mark.parametrize("front", [False, True])
def test_restored_it_goes_on_as_if_it_had_never_stopped(front: bool) -> None:
    whole, first = Run(9.0, front=front), Run(9.0, front=front)
    for _ in range(4):
        whole.step()
        first.step()
    again = Run(9.0, front=front)
    again.strategy.restore(first.strategy.snapshot())
    again.screening, again.asked = first.screening, first.asked
    for run in (whole, again):
        run.step()
        run.step()
    assert again.asked == whole.asked


def test_a_space_that_is_asked_out_is_asked_again() -> None:
    run = Run(None, space=Space("tiny", (Gene("a", ("x", "y"), "nominal"), Gene("b", (1, 2, 3)))))
    for _ in range(4):
        run.step()
    assert len(set(run.asked)) == 6


def test_another_strategys_snapshot_is_refused() -> None:
    snapshot = Run(None).strategy.snapshot() | {"strategy": np.array("woa")}
    with pytest.raises(SearchInputError, match="a snapshot of woa cannot continue as gp"):
        Run(None).strategy.restore(snapshot)
