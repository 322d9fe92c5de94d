from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riwoa.search.base import (
    OPERATORS,
    CallOrderError,
    Outcome,
    PopulationStrategy,
    SearchInputError,
    SearchParameters,
    Strategy,
)
from riwoa.search.codec import Codec
from riwoa.search.fitness import Objective
from riwoa.search.riwoa import RiwoaParameters
from riwoa.search.space import IntArray, Space
from riwoa.search.strategies import make_strategy
from tests.search.support import MIXED, MOBILE, Landscape, advance, hill, outcomes, same, spaces

NAMES = ("riwoa", "woa", "random")
SMALL = SearchParameters(population=8, generations=6, p_semantic=0.4)
AIM = Objective(7.0)


def of_slots(name: str, params: SearchParameters) -> SearchParameters:
    """RI-IWOA with a child a member, which needs no surrogate; what is chosen jointly is tested in test_bayesian."""
    return dataclasses.replace(RiwoaParameters.of(params), joint=False) if name == "riwoa" else params


def fresh(name: str, space: Space = MIXED, params: SearchParameters = SMALL, seed: int = 3) -> PopulationStrategy:
    strategy = make_strategy(name, space, AIM, seed, of_slots(name, params))
    assert isinstance(strategy, PopulationStrategy)
    return strategy


def with_late_joiner(strategy: Strategy, codec: Codec, landscape: Landscape) -> list[Outcome]:
    """The outcomes of one ask, one of them failed, and a late joiner."""
    asked = outcomes(strategy.ask(), codec, landscape)
    asked[2] = dataclasses.replace(asked[2], accuracy=math.nan, latency_ms=math.nan)
    late = dataclasses.replace(asked[0], slot=len(asked), operator="semantic", accuracy=asked[0].accuracy + 0.01)
    return [*asked, late]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("space", [MIXED, MOBILE], ids=["mixed", "mobile"])
def test_restored_at_any_generation_a_search_goes_on_bit_for_bit(name: str, space: Space) -> None:
    landscape, codec = hill(space), Codec(space, 3)
    whole = fresh(name, space)
    snapshots, asks = [], []
    for _ in range(9):  # beyond the schedule, too
        snapshots.append(whole.snapshot())
        told = with_late_joiner(whole, codec, landscape)
        snapshots.append(whole.snapshot())  # between ask and tell: the restored one asks again
        asks.append(told)
        whole.tell(told)
    for at, snapshot in enumerate(snapshots):
        resumed = fresh(name, space)
        resumed.restore(snapshot)
        for generation in range(at // 2, 9):
            told = with_late_joiner(resumed, codec, landscape)
            for mine, theirs in zip(told, asks[generation], strict=True):
                assert (mine.slot, mine.operator, mine.parent) == (theirs.slot, theirs.operator, theirs.parent)
                np.testing.assert_array_equal(mine.genotype, theirs.genotype)
            resumed.tell(told)
        end, expected = resumed.snapshot(), whole.snapshot()
        assert end.keys() == expected.keys()
        for key in end:
            np.testing.assert_array_equal(end[key], expected[key], err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_is_a_copy_that_later_generations_do_not_change(name: str) -> None:
    strategy, codec = fresh(name), Codec(MIXED, 3)
    advance(strategy, codec, hill(MIXED))
    snapshot = strategy.snapshot()
    before = {k: v.copy() for k, v in snapshot.items()}
    advance(strategy, codec, hill(MIXED))
    for key, value in before.items():
        np.testing.assert_array_equal(snapshot[key], value)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(NAMES), st.lists(st.booleans(), max_size=12))
def test_ask_and_tell_must_alternate(name: str, calls: list[bool]) -> None:
    strategy, codec, pending = fresh(name), Codec(MIXED, 3), None
    for is_ask in calls:
        if is_ask and pending is None:
            pending = strategy.ask()
        elif is_ask:
            with pytest.raises(CallOrderError):
                strategy.ask()
        elif pending is not None:
            strategy.tell(outcomes(pending, codec, hill(MIXED)))
            pending = None
        else:
            with pytest.raises(CallOrderError):
                strategy.tell([])


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(NAMES), spaces(), st.integers(0, 2**31))
def test_any_space_can_be_searched_and_proposals_stay_in_the_unit_cube(name: str, space: Space, seed: int) -> None:
    strategy, codec = fresh(name, space, SMALL, seed), Codec(space, seed)
    known = {(-1, -1)}
    for generation in range(7):
        for slot, p in enumerate(advance(strategy, codec, hill(space))):
            assert p.slot == slot
            assert p.operator in OPERATORS
            assert np.all((p.genotype >= 0.0) & (p.genotype < 1.0))
            assert p.parent is None or p.parent in known
            assert (p.parent_genotype is not None) == (p.operator in ("semantic", "placebo"))
        known |= {(generation, slot) for slot in range(8)}
    assert strategy.finished


@pytest.mark.parametrize("name", NAMES)
def test_seeds_make_searches_different_and_repeatable(name: str) -> None:
    def third_ask(seed: int) -> list[float]:
        strategy, codec = fresh(name, MOBILE, SMALL, seed), Codec(MOBILE, seed)
        for _ in range(2):
            advance(strategy, codec, hill(MOBILE))
        return [float(p.genotype.sum()) for p in strategy.ask()]

    assert third_ask(1) == third_ask(1)
    assert third_ask(1) != third_ask(2)


@pytest.mark.parametrize("name", NAMES)
def test_the_leader_is_the_best_within_the_target_as_soon_as_one_is_known(name: str) -> None:
    strategy, codec, seen = fresh(name), Codec(MIXED, 3), []
    for _ in range(5):
        told = outcomes(strategy.ask(), codec, hill(MIXED))
        strategy.tell(told)
        seen += told
        feasible = [o for o in seen if o.latency_ms <= 7.0]
        best = max(feasible or seen, key=lambda o: float(AIM.fitness(o.accuracy, o.latency_ms)))
        assert strategy.leader is not None
        assert strategy.leader.accuracy == best.accuracy
        assert strategy.leader.latency_ms == best.latency_ms


@pytest.mark.parametrize("name", NAMES)
def test_while_everything_fails_fresh_candidates_are_drawn_and_nobody_leads(name: str) -> None:
    strategy = fresh(name)
    asked = set()
    for _ in range(3):
        proposals = strategy.ask()
        assert {p.operator for p in proposals} == {"init"}
        asked |= {p.genotype.tobytes() for p in proposals}
        strategy.tell([Outcome(p.slot, p.operator, p.genotype, math.nan, math.nan, None) for p in proposals])
    assert len(asked) == 24
    assert strategy.leader is None


@pytest.mark.parametrize("elitism", [True, False])
def test_a_generation_of_failures_among_good_ones_neither_stops_nor_leads_the_search(elitism: bool) -> None:
    strategy = fresh("riwoa", params=dataclasses.replace(RiwoaParameters.of(SMALL), elitism=elitism))
    codec = Codec(MIXED, 3)
    advance(strategy, codec, hill(MIXED))
    before = strategy.leader
    for _ in range(2):
        strategy.tell([Outcome(p.slot, p.operator, p.genotype, math.nan, 1.0, None) for p in strategy.ask()])
    assert before is not None
    assert strategy.leader is not None
    assert strategy.leader.origin == before.origin
    assert len(advance(strategy, codec, hill(MIXED))) == 8


def test_a_late_joiner_better_than_a_member_takes_a_place_and_a_worse_one_does_not() -> None:
    codec = Codec(MOBILE, 3)
    for bonus, belongs in ((0.5, True), (-0.4, False)):
        strategy = fresh("riwoa", MOBILE)
        told = outcomes(strategy.ask(), codec, lambda _: (0.5, 1.0))
        genotype = codec.reflect(told[0].genotype + 0.4)
        strategy.tell([*told, Outcome(8, "semantic", genotype, 0.5 + bonus, 1.0, (0, 0))])
        origins = [tuple(o) for o in strategy.population.origin.tolist()]
        assert ((0, 8) in origins) == belongs
        assert len(origins) == 8


def test_riwoa_never_asks_a_phenotype_twice_while_the_space_is_large() -> None:
    strategy, codec = fresh("riwoa", MOBILE, SearchParameters(population=20, generations=12)), Codec(MOBILE, 3)
    keys = [
        MOBILE.key(codec.decode(p.genotype[None, :])[0])
        for _ in range(16)
        for p in advance(strategy, codec, hill(MOBILE))
    ]
    assert len(set(keys)) == len(keys)


def test_riwoa_asks_only_networks_within_a_target_that_is_free_to_check() -> None:
    landscape = hill(MOBILE)

    def latency_of(indices: IntArray) -> float:
        return landscape(indices)[1]

    params = of_slots("riwoa", SearchParameters(generations=8))
    strategy = make_strategy("riwoa", MOBILE, Objective(5.4), 5, params, latency_of)
    codec = Codec(MOBILE, 5)
    drawn = codec.decode(np.random.default_rng(0).random((200, 46)))
    assert np.mean([latency_of(row) <= 5.4 for row in drawn]) < 0.2  # the target is hard to meet by chance
    asked = [p for _ in range(8) for p in advance(strategy, codec, landscape)]
    assert all(latency_of(codec.decode(p.genotype[None, :])[0]) <= 5.4 for p in asked)


def test_semantic_slots_carry_the_parent_to_patch_and_the_placebo_takes_its_share_of_them() -> None:
    params = SearchParameters(population=20, generations=40, p_semantic=0.5, placebo_share=0.25)
    strategy, codec = fresh("riwoa", MOBILE, params), Codec(MOBILE, 3)
    drawn: dict[str, int] = {}
    genotypes: dict[tuple[int, int], np.ndarray] = {}
    for generation in range(40):
        for p in advance(strategy, codec, hill(MOBILE)):
            drawn[p.operator] = drawn.get(p.operator, 0) + 1
            genotypes[generation, p.slot] = p.genotype
            if p.parent_genotype is not None:
                assert p.parent is not None
                np.testing.assert_array_equal(p.parent_genotype, genotypes[p.parent])
    asked = drawn["semantic"] + drawn["placebo"]
    assert asked / (39 * 20) == pytest.approx(0.25, abs=0.05)  # half the slots attack
    assert drawn["placebo"] / asked == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("name", NAMES)
def test_a_new_objective_judges_the_stored_raw_metrics_again(name: str) -> None:
    strategy, codec = fresh(name, MOBILE), Codec(MOBILE, 3)
    told = outcomes(strategy.ask(), codec, hill(MOBILE))
    strategy.tell(told)
    strict = Objective(sorted(o.latency_ms for o in told)[1])
    strategy.set_objective(strict)
    expected = max((o for o in told if o.latency_ms <= (strict.latency_target_ms or 0.0)), key=lambda o: o.accuracy)
    assert strategy.leader is not None
    assert strategy.leader.origin == (0, expected.slot)
    np.testing.assert_array_equal(
        strategy.fitness(strategy.population),
        strict.fitness(strategy.population.accuracy, strategy.population.latency_ms),
    )


def test_only_some_settings_change_within_a_run() -> None:
    strategy = fresh("riwoa")
    small = of_slots("riwoa", SMALL)
    strategy.set_parameters(dataclasses.replace(small, generations=99, p_semantic=0.9, placebo_share=0.0))
    assert not strategy.finished
    with pytest.raises(SearchInputError, match="population cannot change"):
        strategy.set_parameters(dataclasses.replace(small, population=9))
    strategy.ask()
    with pytest.raises(CallOrderError):
        strategy.set_parameters(small)


def told_with(**changes: object) -> list[Outcome]:
    strategy, codec = fresh("riwoa"), Codec(MIXED, 3)
    told = outcomes(strategy.ask(), codec, hill(MIXED))
    return [dataclasses.replace(told[0], **changes), *told[1:]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (told_with()[1:], "cover the asked slots"),
        ([*told_with(), told_with()[0]], "told twice"),
        (told_with(accuracy=math.inf), "metrics must be finite"),
        (told_with(latency_ms=math.nan), "metrics must be finite"),
        (told_with(latency_ms=-1.0), "metrics must be finite"),
        (told_with(genotype=np.full(10, math.nan)), "numbers in"),
        (told_with(genotype=np.zeros(3)), "numbers in"),
        (told_with(operator="magic"), "unknown operator"),
    ],
)
def test_an_outcome_that_makes_no_sense_is_refused_and_the_right_one_still_accepted(
    told: list[Outcome], words: str
) -> None:
    strategy = fresh("riwoa")
    strategy.ask()
    with pytest.raises(SearchInputError, match=words):
        strategy.tell(told)
    strategy.tell(told_with())
    assert strategy.generation == 1


def test_a_snapshot_of_something_else_is_refused() -> None:
    snapshot = fresh("woa").snapshot()
    with pytest.raises(SearchInputError, match="cannot continue as riwoa"):
        fresh("riwoa").restore(snapshot)
    other = fresh("woa")
    advance(other, Codec(MIXED, 3), hill(MIXED))
    with pytest.raises(SearchInputError, match="this space needs"):
        fresh("woa", MOBILE).restore(other.snapshot())
    with pytest.raises(SearchInputError, match="8 members, not 9"):
        fresh("woa", params=dataclasses.replace(SMALL, population=9)).restore(other.snapshot())
    with pytest.raises(SearchInputError, match="lacks"):
        fresh("woa").restore({"strategy": np.array("woa"), "generation": np.array(1)})


def test_an_unknown_strategy_or_setting_is_refused_with_what_there_is() -> None:
    with pytest.raises(SearchInputError, match="riwoa, woa, random"):
        make_strategy("annealing", MIXED, AIM, 0, SMALL)
    with pytest.raises(SearchInputError, match="population must be at least 4"):
        SearchParameters(population=3)
    with pytest.raises(SearchInputError, match="p_semantic must lie"):
        SearchParameters(p_semantic=1.5)


def test_random_search_is_uniform_over_the_choices() -> None:
    strategy, codec = fresh("random", params=SearchParameters(population=2000)), Codec(MIXED, 3)
    raw = codec.raw_indices(np.array([p.genotype for p in strategy.ask()]))
    for gene, count in enumerate(MIXED.cardinalities):
        np.testing.assert_allclose(np.bincount(raw[:, gene], minlength=int(count)) / 2000, 1 / count, atol=0.05)


def test_riwoa_climbs_further_than_random_and_woa_on_the_46_gene_space() -> None:
    def reached(name: str, seed: int) -> float:
        landscape, codec = hill(MOBILE, seed), Codec(MOBILE, seed)
        params = of_slots(name, SearchParameters(population=20, generations=10))
        strategy = make_strategy(name, MOBILE, Objective(8.0), seed, params, lambda row: landscape(row)[1])
        for _ in range(10):
            advance(strategy, codec, landscape)
        assert strategy.leader is not None
        return strategy.leader.fitness

    best = {name: np.array([reached(name, seed) for seed in range(8)]) for name in NAMES}
    assert np.all(best["riwoa"] > best["random"])
    assert np.mean(best["riwoa"] > best["woa"]) >= 0.75
    assert np.mean(best["riwoa"] - best["woa"]) > 0.0


def test_ask_and_tell_take_less_than_a_millisecond_a_candidate() -> None:
    codec, landscape = Codec(MOBILE, 3), hill(MOBILE)
    strategy = fresh("riwoa", MOBILE, SearchParameters(population=20, generations=20))
    spent_s = []
    for _ in range(20):
        begun_s = time.process_time()
        proposals = strategy.ask()
        asked_s = time.process_time() - begun_s
        results = outcomes(proposals, codec, landscape)
        begun_s = time.process_time()
        strategy.tell(results)
        spent_s.append(asked_s + time.process_time() - begun_s)
    assert float(np.median(spent_s)) / 20 < 1e-3


def test_asking_changes_nothing() -> None:
    a, b = fresh("riwoa"), fresh("riwoa")
    assert same(a.ask(), b.ask())
    for key, value in fresh("riwoa").snapshot().items():
        np.testing.assert_array_equal(value, a.snapshot()[key])


@pytest.mark.parametrize("name", ["evolution", "local"])
@pytest.mark.parametrize("space", [MIXED, MOBILE], ids=["mixed", "mobile"])
def test_a_steady_state_baseline_goes_on_bit_for_bit_from_any_snapshot(name: str, space: Space) -> None:
    landscape, codec = hill(space), Codec(space, 3)
    whole = fresh(name, space)
    snapshots, asks = [], []
    for _ in range(60):
        snapshots.append(whole.snapshot())
        told = outcomes(whole.ask(), codec, landscape)
        if whole.generation % 7 == 3:
            told[0] = dataclasses.replace(told[0], accuracy=math.nan, latency_ms=math.nan)
        asks.append(told)
        whole.tell(told)
    for at in (0, 1, 2, 17, 40, 59):
        resumed = fresh(name, space)
        resumed.restore(snapshots[at])
        for told in asks[at:]:
            for proposal, outcome in zip(resumed.ask(), told, strict=True):
                np.testing.assert_array_equal(proposal.genotype, outcome.genotype)
            resumed.tell(told)
        end, expected = resumed.snapshot(), whole.snapshot()
        assert end.keys() == expected.keys()
        for key in end:
            np.testing.assert_array_equal(end[key], expected[key], err_msg=key)


def test_evolution_mutates_one_gene_of_a_member_and_lets_the_oldest_die() -> None:
    strategy, codec, landscape = fresh("evolution"), Codec(MIXED, 3), hill(MIXED)
    strategy.tell(outcomes(strategy.ask(), codec, landscape))
    members = {(0, slot) for slot in range(SMALL.population)}
    for generation in range(1, 20):
        (child,) = strategy.ask()
        assert child.parent in members
        row = int(np.flatnonzero((strategy.population.origin == child.parent).all(axis=1))[0])
        before, after = codec.raw_indices(np.stack((strategy.population.genotype[row], child.genotype)))
        assert (before != after).sum() == 1
        strategy.tell(outcomes([child], codec, landscape))
        members.remove(min(members))
        members.add((generation, 0))
        assert {(int(g), int(s)) for g, s in strategy.population.origin} == members


def test_local_search_ends_where_no_neighbour_is_better_and_starts_again() -> None:
    strategy, codec, landscape = fresh("local"), Codec(MIXED, 3), hill(MIXED)
    restarts = 0
    for _ in range(200):
        before = strategy.population
        (asked,) = strategy.ask()
        if asked.operator == "restart":
            restarts += 1
            indices = codec.decode(before.genotype)[0]
            for gene in np.flatnonzero(indices >= 0):
                for choice in MIXED.neighbours(int(gene), int(indices[gene])):
                    vector = before.genotype[0].copy()
                    codec.set_choice(vector, int(gene), choice)
                    accuracy, latency_ms = landscape(codec.decode(vector[None, :])[0])
                    rivals = ([before.accuracy[0], accuracy], [before.latency_ms[0], latency_ms])
                    assert AIM.ranking(*rivals)[0] == 0
        strategy.tell(outcomes([asked], codec, landscape))
    assert restarts >= 2
    assert strategy.leader is not None
