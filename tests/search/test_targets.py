"""Several devices in one search: who leads, who survives, what is promised, against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from riwoa.search.base import Leader, Outcome
from riwoa.search.bayesian import BayesianParameters, BayesianSearch
from riwoa.search.codec import Codec
from riwoa.search.fitness import Constraint, DeviceTarget, FloatArray, Objective
from riwoa.search.improvement import TargetsImprovement
from riwoa.search.polish import Polish
from riwoa.search.riwoa import RiwoaParameters, RotationInvariantWhale
from riwoa.search.space import Gene, IntArray, Space
from riwoa.search.targets import NOBODY, in_turns, leaders
from riwoa.surrogate.screening import Screening
from tests.search.test_hypervolume import Believed

SPACE = Space("cells", tuple(Gene(f"op{i}", tuple("abcd"), "nominal") for i in range(5)))  # 1,024
ALL = np.array(np.unravel_index(np.arange(4**5), (4,) * 5)).T
WEIGHTS = np.array([[1.0, 0.2, 0.2, 1.0, 0.2], [0.2, 1.0, 1.0, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2, 1.0]])
LIMITS = np.array([2.5, 3.5, 4.5])
TARGETS = tuple(DeviceTarget(n, Constraint(f"latency_ms_{n}", 1.0)) for n in "abc")
AIM = Objective(None, targets=TARGETS)


def accuracy(indices: IntArray) -> float:
    return float(0.5 + 0.02 * indices.sum() + 0.01 * np.cos(7.0 * indices[0] * indices[1]))


def loads_each(indices: IntArray) -> FloatArray:
    return np.asarray(indices @ WEIGHTS.T / LIMITS)


def load(indices: IntArray) -> float:
    return float(loads_each(indices[None, :]).min())


def best_of_all() -> list[float]:
    values, served = np.array([accuracy(row) for row in ALL]), loads_each(ALL) <= 1.0
    return [float(values[column].max()) for column in served.T]


@pytest.mark.parametrize("seed", range(5))
def test_each_target_names_its_best_in_turn_and_failures_are_nobodys(seed: int) -> None:
    draw = np.random.default_rng(seed)
    values, loads = np.round(draw.random(20), 1), draw.uniform(0.5, 2.0, (20, 3))
    values[draw.random(20) < 0.2] = np.nan
    loads[:, 2] += 5.0 * (seed == 0)  # nobody serves it
    order = np.array([row for row in np.argsort(-values, kind="stable") if not math.isnan(values[row])])
    found = in_turns(values, loads, order).tolist()
    assert sorted(found) == sorted(order.tolist())
    expected: list[int] = []
    ranks = [[int(row) for row in order if loads[row, target] <= 1.0] for target in range(3)]
    for turn in range(20):
        for rank in ranks:
            expected += [row for row in rank[turn : turn + 1] if row not in expected]
    assert found[: len(expected)] == expected
    assert leaders(values, loads).tolist() == [rank[0] if rank else NOBODY for rank in ranks]


def test_the_load_is_that_of_the_target_that_is_served_best_and_of_a_limit_that_all_must_keep() -> None:
    aim = Objective(None, constraints=(Constraint("parameters", 10.0),), targets=TARGETS[:2])
    metrics = {"accuracy": 0.7, "latency_ms_a": 0.5, "latency_ms_b": 3.0, "parameters": 8.0}
    assert aim.standing(metrics) == (0.7, 0.8)  # a is served; the parameters use more of their limit
    assert aim.target_loads(metrics) == (0.8, 3.0)
    assert aim.standing({**metrics, "parameters": 20.0})[1] == 2.0
    assert aim.limit == 1.0
    assert aim.version != Objective(None, constraints=aim.constraints).version
    assert Objective(None).version == "v1:T=none:w=-1.0"
    with pytest.raises(ValueError, match="front is of one device"):
        Objective(8.0, front=True, targets=TARGETS)


def test_what_is_promised_is_the_mean_growth_of_the_targets_bests_and_counts_for_the_next() -> None:
    known = Believed({0: (1.0, 0.5), 1: (0.2, 0.1), 2: (2.0, 0.3)})
    at = np.array([[0.5, 2.0], [0.5, 0.9], [1.5, 1.5]])  # row 2 serves nobody
    aim = TargetsImprovement(np.array([0.8, 0.1]), lambda indices: at[indices[:, 0]])
    rows = np.arange(3)[:, None]
    quantiles = np.linspace(-6.0, 6.0, 2401)
    weights = np.exp(-0.5 * quantiles**2) / np.exp(-0.5 * quantiles**2).sum()
    grown = np.array(
        [
            [weights @ np.maximum(mean + deviation * quantiles - top, 0.0) for top in aim.tops]
            for mean, deviation in known.of.values()
        ]
    ) * (at <= 1.0)
    np.testing.assert_allclose(np.exp(aim.promise(known, rows)), grown.sum(axis=1), rtol=1e-3, atol=1e-12)
    later = aim.believing(known, rows[:1])
    assert later.tops.tolist() == [1.0, 0.1]  # of the target that it serves alone
    assert aim.believing(known, rows[1:2]).tops.tolist() == [0.8, 0.2]  # it is expected to be better for one
    turns = [TargetsImprovement(aim.tops, aim.loads_each, turn) for turn in (1, 3)]
    for target, turn in enumerate(turns):
        alone = grown[:, target] + np.exp(-7.0) * grown.sum(axis=1)
        np.testing.assert_allclose(np.exp(turn.promise(known, rows)), alone, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("name", ["gp", "riwoa"])
def test_one_search_finds_the_best_for_every_target_and_goes_on_as_it_was_restored(name: str) -> None:
    def strategy() -> BayesianSearch:
        if name == "gp":
            return BayesianSearch(SPACE, AIM, 1, BayesianParameters(), load, loads_each)
        return RotationInvariantWhale(SPACE, AIM, 1, RiwoaParameters(), load, loads_each)

    def step(one: BayesianSearch, known: Screening) -> list[tuple[int, ...]]:
        known.guide(one)
        asked = one.ask()
        rows = one.codec.decode(np.stack([p.genotype for p in asked]))
        told = [
            Outcome(p.slot, p.operator, p.genotype, accuracy(row), load(row), p.parent)
            for p, row in zip(asked, rows, strict=True)
        ]
        one.tell(told)
        for o, row in zip(told, rows, strict=True):
            known.tell(row, o.accuracy, None)
        return [tuple(row) for row in rows.tolist()]

    whole, screening = strategy(), Screening(SPACE, of_scores=True)
    asked: list[tuple[int, ...]] = []
    for generation in range(25):
        if generation == 12:
            restored, other = strategy(), Screening(SPACE, of_scores=True)
            restored.restore(whole.snapshot())
            for row in asked:
                other.tell(np.array(row), accuracy(np.array(row)), None)
        new = step(whole, screening)
        if generation >= 12:
            assert step(restored, other) == new
        asked += new
    rows = np.array(asked)
    assert len(np.unique(rows, axis=0)) == len(rows) == 100
    assert (loads_each(rows) <= 1.0).any(axis=1).all()  # nothing was asked that serves nobody
    assert ((loads_each(rows[:12]) <= 1.0).sum(axis=0) >= 3).all()  # from the start on no target waits
    values, loads = np.array([accuracy(row) for row in rows]), loads_each(rows)
    assert [values[row] for row in leaders(values, loads)] == pytest.approx(best_of_all())
    assert len(set(best_of_all())) == 3
    members = whole.population
    held = leaders(members.accuracy, whole.target_loads(members))
    assert members.accuracy[held].tolist() == pytest.approx(best_of_all())  # each one's leader survives


def test_a_polish_looks_around_every_targets_leader_and_shares_its_budget() -> None:
    codec = Codec(SPACE, 3)
    rows = np.array([[0, 0, 1, 0, 3], [3, 1, 0, 3, 2], [3, 0, 2, 3, 2]])
    values, loads = np.array([accuracy(row) for row in rows]), loads_each(rows)
    assert leaders(values, loads).tolist() == [0, 1, 2]

    def leader(number: int, row: IntArray) -> Leader:
        genotype = codec.encode(row[None])[0]
        return Leader(genotype, row, accuracy(row), load(row), accuracy(row), (7, number))

    def polish() -> Polish:
        first, *others = (leader(n, row) for n, row in enumerate(rows))
        return Polish(
            SPACE,
            AIM,
            3,
            first,
            budget=24,
            start_generation=9,
            latency_of=load,
            loads_each=loads_each,
            others=others,
        )

    p = polish()
    parents: list[tuple[int, int] | None] = []
    while not p.finished:
        resumed = polish()
        resumed.restore(p.snapshot())
        proposals = p.ask()
        assert [q.genotype.tolist() for q in resumed.ask()] == [q.genotype.tolist() for q in proposals]
        parents += [q.parent for q in proposals]
        found = codec.decode(np.stack([q.genotype for q in proposals]))
        assert (loads_each(found) <= 1.0).any(axis=1).all()
        told = [
            Outcome(q.slot, q.operator, q.genotype, accuracy(row), load(row), q.parent)
            for q, row in zip(proposals, found, strict=True)
        ]
        p.tell(told)
    assert len(parents) == 24
    assert {(7, 0), (7, 1), (7, 2)} <= set(parents)
