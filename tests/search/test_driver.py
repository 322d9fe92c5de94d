"""The driver of ask and tell: what the conductor and the benchmarks share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from riwoa.search.base import CallOrderError, Outcome, Proposal, Strategy
from riwoa.search.catalogue import Catalogue
from riwoa.search.driver import Driver, Evaluated, Prediction
from riwoa.search.fitness import Objective
from riwoa.search.racing import NO_RACE, Racing
from riwoa.search.riwoa import RiwoaParameters
from riwoa.search.space import Gene, IntArray, Space
from riwoa.search.strategies import make_strategy

SPACE = Space("grid", tuple(Gene(f"g{n}", tuple(range(5))) for n in range(4)))
PARAMETERS = RiwoaParameters(population=6, generations=10, joint=False)


class Listening:
    """A guide that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[list[int], float, Prediction | None]] = []
        self.guided = 0

    def guide(self, strategy: Strategy) -> None:
        self.guided += 1

    def predict(self, indices: IntArray) -> list[Prediction] | None:
        return [(0.5, 0.1)] * len(indices) if self.told else None

    def forget(self) -> None:
        self.told.clear()

    def tell(self, indices: IntArray, accuracy: float, predicted: Prediction | None) -> None:
        self.told.append((indices.tolist(), accuracy, predicted))


def driver(**parts: Any) -> Driver:
    return Driver(make_strategy("riwoa", SPACE, Objective(None), 3, PARAMETERS), **parts)


def evaluated(d: Driver, p: Proposal, *, fresh: bool = True, failed: bool = False, **metrics: float) -> Evaluated:
    accuracy = float("nan") if failed else float(d.codec.decode(p.genotype[None, :])[0].sum()) / 20
    outcome = Outcome(p.slot, p.operator, p.genotype, accuracy, 1.0, p.parent)
    return Evaluated(outcome, {} if failed else {"accuracy": accuracy, **metrics}, fresh and not failed)


def test_a_guide_learns_once_of_each_success_and_guides_before_each_ask() -> None:
    guide = Listening()
    d = driver(guide=guide)
    proposals = d.ask()
    assert d.predictions([p.genotype for p in proposals]) == [None] * 6
    rows = [evaluated(d, p) for p in proposals[:4]]
    rows += [evaluated(d, proposals[4], fresh=False), evaluated(d, proposals[5], failed=True)]
    d.tell(rows)
    decoded = d.codec.decode(np.stack([p.genotype for p in proposals])).tolist()
    assert guide.told == [(decoded[n], rows[n].outcome.accuracy, None) for n in range(4)]
    (again, *_) = d.ask()
    assert d.predictions([again.genotype]) == [(0.5, 0.1)]
    d.learn([evaluated(d, again, predicted=0.6, predicted_sd=0.2)])
    assert guide.told[-1][2] == (0.6, 0.2)
    assert guide.guided == 2


def test_a_guide_learns_of_failures_and_of_who_was_given_up_what_the_rung_let_expect() -> None:
    guide = Listening()
    d = driver(guide=guide)
    failed, silent, told, *others = d.ask()
    lost = [
        Outcome(p.slot, p.operator, p.genotype, math.nan, 1.0, None, p is not failed) for p in (failed, silent, told)
    ]
    metrics: list[dict[str, float]] = [{}, {"cheap": 0.2}, {"cheap": 0.2, "expected": 0.3}]
    rows = [Evaluated(o, m, fresh=True) for o, m in zip(lost, metrics, strict=True)]
    d.tell([*rows, *(evaluated(d, p, fresh=False) for p in others)])
    assert [accuracy for _, accuracy, _ in guide.told] == [pytest.approx(math.nan, nan_ok=True), 0.3]


def test_by_another_objective_everything_is_learned_anew() -> None:
    """What a load costs that nobody knew beforehand follows from the exponent."""
    guide = Listening()
    d = driver(guide=guide, known=lambda indices: None)
    d.strategy.set_objective(Objective(0.5))
    rows = [evaluated(d, p) for p in d.ask()]
    d.tell(rows)
    before = [accuracy for _, accuracy, _ in guide.told]
    assert before == [pytest.approx(0.5 * row.outcome.accuracy) for row in rows]
    d.strategy.set_objective(Objective(0.5, exponent=-2.0))
    d.relearn(rows)
    assert [accuracy for _, accuracy, _ in guide.told] == [pytest.approx(0.5 * value) for value in before]


def test_every_success_competes_for_the_front_repeats_too() -> None:
    d = driver()
    proposals = d.ask()
    rows = [evaluated(d, p, fresh=p.slot % 2 == 0, failed=p.slot == 5) for p in proposals]
    d.tell(rows)
    best = max(row.outcome.accuracy for row in rows[:5])
    front = d.archive.front()
    assert {point.accuracy for point in front} == {best}
    assert all(point.origin[0] == 0 and rows[point.origin[1]].outcome.accuracy == best for point in front)


def test_the_race_reaches_for_the_front_and_nobody_races_without_rungs() -> None:
    assert driver().race() is NO_RACE
    assert driver(racing=Racing([], 0.9, 0)).race() is NO_RACE
    d = driver(racing=Racing(["cheap"], 0.9, 0))
    rows = [evaluated(d, p, cheap=0.1) for p in d.ask()]
    d.tell(rows)
    race = d.race()
    best = max(row.outcome.accuracy for row in rows)
    assert race.threshold is not None
    assert race.needed(1.0, None) < best
    assert race.needed(1.0, -1.0) <= -1.0  # a child need only beat its parent


def test_proposals_are_moved_to_what_exists_where_nothing_proposed_does() -> None:
    there = np.array([[0, 0, 0, 0], [4, 4, 4, 4]])

    def row_of(indices: IntArray) -> int | None:
        found = np.flatnonzero((there == indices).all(axis=1))
        return int(found[0]) if len(found) else None

    catalogue = Catalogue(SPACE, there, np.ones(2, dtype=np.bool_), np.zeros(2), row_of)
    plain, moved = driver().ask(), driver(catalogue=catalogue).ask()
    assert [p.slot for p in moved] == [p.slot for p in plain]
    codec = driver().codec
    assert {tuple(codec.decode(p.genotype[None, :])[0].tolist()) for p in moved} == {(0, 0, 0, 0), (4, 4, 4, 4)}


def test_ask_and_tell_alternate() -> None:
    d = driver()
    d.ask()
    with pytest.raises(CallOrderError, match="asked twice"):
        d.ask()


def test_half_of_the_first_generation_are_those_to_start_with_the_others_explore() -> None:
    start = np.array([[4, 4, 4, 4], [4, 4, 4, 3], [3, 4, 4, 4], [0, 0, 0, 0]])
    d, plain = driver(start=start), driver()
    proposals, others = d.ask(), plain.ask()
    assert d.codec.decode(np.stack([p.genotype for p in proposals[:3]])).tolist() == start[:3].tolist()
    assert [(p.slot, p.operator, p.parent) for p in proposals] == [(slot, "init", None) for slot in range(6)]
    for p, other in zip(proposals[3:], others[3:], strict=True):
        assert p.genotype.tolist() == other.genotype.tolist()
    d.tell([evaluated(d, p) for p in proposals])
    assert d.strategy.leader is not None
    assert d.strategy.leader.indices.tolist() == [4, 4, 4, 4]
    assert not np.array_equal(d.codec.decode(np.stack([p.genotype for p in d.ask()]))[:3], start[:3])
