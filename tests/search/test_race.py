"""Stakes and bounds: who may be given up, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from riwoa.search.base import SearchParameters
from riwoa.search.codec import Codec
from riwoa.search.fitness import Objective
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa.search.race import FEWEST, Bound, Cut, EliminationThreshold
from riwoa.search.riwoa import RiwoaParameters, RotationInvariantWhale
from riwoa.search.strategies import make_strategy
from tests.search.support import MOBILE, advance, hill, outcomes

AIM = Objective(10.0)
FRONT = [ParetoPoint("a", 0.5, 5.0), ParetoPoint("b", 0.7, 8.0)]


def test_without_a_cut_or_a_front_anything_matters() -> None:
    assert EliminationThreshold(AIM, None, FRONT).needed(9.0) == -math.inf
    assert EliminationThreshold(AIM, Cut(0.6, 9.0), []).needed(9.0) == -math.inf


def test_within_the_target_the_least_of_cut_front_and_parent_counts() -> None:
    threshold = EliminationThreshold(AIM, Cut(0.6, 9.0), FRONT)
    assert threshold.needed(9.0) == 0.6  # the cut: the front asks for 0.7 there
    assert threshold.needed(6.0) == pytest.approx(0.5)  # the front: what is as fast has 0.5
    assert threshold.needed(4.0) == -math.inf  # faster than all that is known
    assert threshold.needed(9.0, parent_fitness=0.55) == 0.55


def test_beyond_the_target_the_factor_counts_and_a_cut_within_it_is_out_of_reach() -> None:
    front = [ParetoPoint("a", 0.9, 5.0)]
    assert EliminationThreshold(AIM, Cut(0.6, 9.0), front).needed(20.0) == pytest.approx(0.9)  # only the front is left
    assert EliminationThreshold(AIM, Cut(0.4, 15.0), front).needed(20.0) == pytest.approx(0.4 * 10 / 15 * 2)
    assert (
        EliminationThreshold(AIM, Cut(0.4, 15.0), front).needed(9.0) == -math.inf
    )  # within the target goes before all others


def test_an_infinite_latency_is_left_to_the_oracle_and_equals_stay_on_the_front() -> None:
    threshold = EliminationThreshold(AIM, Cut(0.6, 15.0), FRONT)
    assert threshold.needed(math.inf, parent_fitness=0.3) == -math.inf
    assert EliminationThreshold(Objective(None), Cut(0.9, 0.0), [ParetoPoint("a", 0.9, 0.0)]).needed(0.0) < 0.9


def test_too_few_bound_nothing() -> None:
    values = list(np.linspace(0.4, 0.8, FEWEST - 1))
    assert Bound(values, values, 0.9).upper(0.1) == math.inf


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bounds_hold_as_often_as_they_say(confidence: float) -> None:
    rng = np.random.default_rng(3)
    held = []
    for _ in range(400):
        cheap = rng.uniform(0.3, 0.7, 41)
        full = 0.2 + 0.8 * cheap + rng.normal(0.0, 0.02, 41)
        held.append(full[-1] <= Bound(list(cheap[:-1]), list(full[:-1]), confidence).upper(cheap[-1]))
    assert abs(np.mean(held) - confidence) < 3 * math.sqrt(confidence * (1 - confidence) / 400)


def test_a_rung_that_says_nothing_gives_nobody_up() -> None:
    rng = np.random.default_rng(4)
    bound = Bound([0.1 + 0.2] * 40, list(rng.uniform(0.4, 0.8, 40)), 0.9)
    assert bound.upper(0.1) == bound.upper(0.9) > 0.7


@pytest.mark.parametrize("seed", range(3))
def test_with_elitism_giving_up_the_hopeless_leaves_the_search_as_it_was(seed: int) -> None:
    """The claim of the module: who cannot matter leaves no trace, whether evaluated or given up."""
    aim = Objective(6.0)
    landscape = hill(MOBILE, seed)
    codec = Codec(MOBILE, seed)
    params = RiwoaParameters(population=10, generations=30, joint=False)
    whole, raced = (RotationInvariantWhale(MOBILE, aim, seed, params) for _ in range(2))
    archive, given_up = ParetoArchive(), 0
    for _ in range(30):
        threshold = EliminationThreshold(aim, raced.cut, archive.front())
        advance(whole, codec, landscape)
        told = []
        for o in outcomes(raced.ask(), codec, landscape):
            hopeless = o.accuracy <= threshold.needed(o.latency_ms)
            given_up += hopeless
            if not hopeless:
                archive.add(ParetoPoint(o.genotype.tobytes().hex(), o.accuracy, o.latency_ms))
            told.append(replace(o, accuracy=math.nan) if hopeless else o)
        raced.tell(told)
    assert given_up > 50
    assert raced.leader is not None
    assert whole.leader is not None
    assert raced.leader.origin == whole.leader.origin
    assert np.array_equal(raced.population.genotype, whole.population.genotype)


@pytest.mark.parametrize("name", ["random", "woa"])
def test_baselines_are_cut_at_their_leader(name: str) -> None:
    strategy = make_strategy(name, MOBILE, AIM, 0, SearchParameters(population=6, generations=9))
    assert strategy.cut is None
    advance(strategy, Codec(MOBILE, 0), hill(MOBILE, 1))
    assert strategy.leader is not None
    assert strategy.cut == Cut(strategy.leader.accuracy, strategy.leader.latency_ms)


def test_without_elitism_nobody_is_cut() -> None:
    params = RiwoaParameters(population=6, generations=9, joint=False, elitism=False)
    strategy = make_strategy("riwoa", MOBILE, AIM, 0, params)
    advance(strategy, Codec(MOBILE, 0), hill(MOBILE, 1))
    assert strategy.cut is None
