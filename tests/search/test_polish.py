from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riwoa.search.base import CallOrderError, LatencyOf, Leader, Outcome, SearchInputError
from riwoa.search.codec import Codec
from riwoa.search.fitness import Objective
from riwoa.search.polish import BATCH, Polish
from riwoa.search.space import Space
from riwoa.surrogate.mixture import MixtureLearner, MixtureProcess
from tests.search.support import MIXED, MOBILE, Landscape, advance, hill, outcomes, random_indices, same, spaces

SEED = 4
ANYTHING = Objective(None)


def polish(
    space: Space,
    landscape: Landscape,
    objective: Objective = ANYTHING,
    budget: int = 40,
    start: int = 0,
    latency_of: LatencyOf | None = None,
    pairs: bool = False,
) -> Polish:
    (indices,) = random_indices(space, start)
    accuracy, latency_ms = landscape(indices)
    leader = Leader(
        genotype=Codec(space, SEED).encode(indices[None, :])[0],
        indices=indices,
        accuracy=accuracy,
        latency_ms=latency_ms,
        fitness=float(objective.fitness(accuracy, latency_ms)),
        origin=(9, 2),
    )
    return Polish(
        space, objective, SEED, leader, budget=budget, start_generation=10, latency_of=latency_of, pairs=pairs
    )


def finish(p: Polish, codec: Codec, landscape: Landscape) -> list[int]:
    """Run to the end; the size of each batch."""
    sizes = []
    while not p.finished:
        sizes.append(len(advance(p, codec, landscape)))
    return sizes


@settings(deadline=None, max_examples=60)
@given(spaces(), st.integers(0, 99), st.integers(0, 30), st.booleans())
def test_polish_is_never_worse_and_never_spends_more_than_its_budget(
    space: Space, seed: int, budget: int, noisy: bool
) -> None:
    rng = np.random.default_rng(seed)
    table: dict[bytes, tuple[float, float]] = {}

    def landscape(indices: np.ndarray) -> tuple[float, float]:
        fails = noisy and rng.random() < 0.3
        return table.setdefault(indices.tobytes(), (math.nan if fails else rng.random(), rng.random()))

    codec, objective = Codec(space, SEED), Objective(0.5)
    indices = random_indices(space, seed)
    table[indices[0].tobytes()] = (rng.random(), rng.random())
    p = polish(space, landscape, objective, budget, start=seed)
    before = p.leader
    sizes = finish(p, codec, landscape)
    assert sum(sizes) <= budget
    after = p.leader
    if bool(objective.feasible(before.latency_ms)):
        assert bool(objective.feasible(after.latency_ms))
    best = objective.ranking([before.accuracy, after.accuracy], [before.latency_ms, after.latency_ms])
    assert best[0] == 1 or (before.fitness, before.origin) == (after.fitness, after.origin)
    assert landscape(after.indices) == (after.accuracy, after.latency_ms)


def test_a_phenotype_is_never_asked_twice() -> None:
    p, codec, keys = polish(MOBILE, hill(MOBILE), budget=120), Codec(MOBILE, SEED), []
    while not p.finished:
        keys += [MOBILE.key(codec.decode(q.genotype[None, :])[0]) for q in advance(p, codec, hill(MOBILE))]
    assert len(keys) == len(set(keys)) > 60


@pytest.mark.parametrize("space", [MIXED, MOBILE], ids=["mixed", "mobile"])
def test_with_budget_enough_it_ends_where_no_single_change_is_better(space: Space) -> None:
    landscape, codec = hill(space), Codec(space, SEED)
    p = polish(space, landscape, budget=3000)
    finish(p, codec, landscape)
    end = p.leader
    for gene in np.flatnonzero(end.indices >= 0):
        for choice in space.neighbours(int(gene), int(end.indices[gene])):
            vector = end.genotype.copy()
            codec.set_choice(vector, int(gene), choice)
            assert landscape(codec.decode(vector[None, :])[0])[0] <= end.accuracy


@pytest.mark.parametrize("pairs", [False, True], ids=["single changes", "pairs, as believed"])
@pytest.mark.parametrize("space", [MIXED, MOBILE], ids=["mixed", "mobile"])
def test_restored_at_any_batch_it_goes_on_bit_for_bit(space: Space, pairs: bool) -> None:
    landscape, codec = hill(space), Codec(space, SEED)
    posterior = believed(space, landscape) if pairs else None
    whole = polish(space, landscape, budget=24, pairs=pairs)
    whole.set_posterior(posterior)
    snapshots, asks = [whole.snapshot()], []
    while not whole.finished:
        proposals = whole.ask()
        snapshots.append(whole.snapshot())  # between ask and tell
        asks.append(proposals)
        whole.tell(outcomes(proposals, codec, landscape))
        snapshots.append(whole.snapshot())
    assert len(asks) >= 3
    for at, snapshot in enumerate(snapshots):
        resumed = polish(space, landscape, budget=24, start=7, pairs=pairs)  # another start: the snapshot holds its own
        resumed.restore(snapshot)
        resumed.set_posterior(posterior)
        generation = at // 2
        while not resumed.finished:
            assert resumed.generation == 10 + generation
            proposals = resumed.ask()
            assert same(proposals, asks[generation])
            resumed.tell(outcomes(proposals, codec, landscape))
            generation += 1
        assert generation == len(asks)
        assert resumed.leader.origin == whole.leader.origin
        np.testing.assert_array_equal(resumed.leader.genotype, whole.leader.genotype)


def test_networks_known_to_miss_the_target_are_not_asked() -> None:
    landscape, codec = hill(MOBILE), Codec(MOBILE, SEED)
    start_ms = landscape(random_indices(MOBILE, 0)[0])[1]
    p = polish(MOBILE, landscape, Objective(start_ms + 0.05), 60, latency_of=lambda i: landscape(i)[1])
    asked = []
    while not p.finished:
        asked += [codec.decode(q.genotype[None, :])[0] for q in advance(p, codec, landscape)]
    assert asked
    assert all(landscape(i)[1] <= start_ms + 0.05 for i in asked)


def test_a_leader_that_misses_the_target_may_be_replaced_by_one_that_meets_it_though_less_accurate() -> None:
    landscape, codec = hill(MOBILE), Codec(MOBILE, SEED)
    accuracy, start_ms = landscape(random_indices(MOBILE, 0)[0])
    p = polish(MOBILE, landscape, Objective(start_ms - 0.3), 200, latency_of=lambda i: landscape(i)[1])
    finish(p, codec, landscape)
    assert p.leader.latency_ms <= start_ms - 0.3
    assert p.leader.origin != (9, 2)
    assert accuracy > 0


def believed(space: Space, landscape: Landscape, examples: int = 60) -> MixtureProcess:
    """What is believed of a landscape after some evaluations."""
    indices = random_indices(space, 100, examples)
    return MixtureLearner(space).learn(indices, np.array([landscape(row)[0] for row in indices]))


@pytest.mark.parametrize("pairs", [False, True])
def test_the_most_promising_are_asked_first(pairs: bool) -> None:
    landscape, codec, gained = hill(MOBILE), Codec(MOBILE, SEED), {True: 0.0, False: 0.0}
    posterior = believed(MOBILE, landscape)
    for believes in gained:
        for start in range(5):
            p = polish(MOBILE, landscape, budget=12, start=start, pairs=pairs)
            before = p.leader.accuracy
            p.set_posterior(posterior if believes else None)
            finish(p, codec, landscape)
            gained[believes] += p.leader.accuracy - before
    assert gained[True] > 1.3 * gained[False]


def test_pairs_of_changes_go_on_where_no_single_change_is_better() -> None:
    landscape, codec = hill(MIXED), Codec(MIXED, SEED)
    single, pairs = (polish(MIXED, landscape, budget=3000, pairs=pairs) for pairs in (False, True))
    asked = [sum(finish(p, codec, landscape)) for p in (single, pairs)]
    assert asked[1] > asked[0]
    assert pairs.leader.accuracy >= single.leader.accuracy


def test_a_polish_that_an_older_version_began_goes_on_around_its_leader() -> None:
    landscape, codec = hill(MOBILE), Codec(MOBILE, SEED)
    begun = polish(MOBILE, landscape, budget=40)
    for _ in range(3):
        advance(begun, codec, landscape)
    snapshot = begun.snapshot()
    del snapshot["pairs"]  # as older versions stored it
    resumed = polish(MOBILE, landscape, budget=40, start=7, pairs=True)
    resumed.restore(snapshot)
    assert resumed.leader.origin == begun.leader.origin
    assert sum(finish(resumed, codec, landscape)) <= 40 - 3 * BATCH  # what it had asked counts
    assert resumed.leader.accuracy >= begun.leader.accuracy


def test_batches_are_bounded_and_numbered_on_from_the_search() -> None:
    p, codec = polish(MOBILE, hill(MOBILE), budget=50), Codec(MOBILE, SEED)
    assert p.generation == 10
    sizes = finish(p, codec, hill(MOBILE))
    assert max(sizes) <= BATCH
    assert p.generation == 10 + len(sizes)
    assert p.leader.origin[0] >= 10


def test_calls_out_of_order_and_senseless_arguments_are_refused() -> None:
    p, codec = polish(MIXED, hill(MIXED), budget=12), Codec(MIXED, SEED)
    with pytest.raises(CallOrderError, match="ask before telling"):
        p.tell([])
    proposals = p.ask()
    with pytest.raises(CallOrderError, match="asked twice"):
        p.ask()
    told = outcomes(proposals, codec, hill(MIXED))
    with pytest.raises(SearchInputError, match="metrics must be finite"):
        p.tell([dataclasses.replace(told[0], accuracy=math.inf), *told[1:]])
    p.tell(told)
    finish(p, codec, hill(MIXED))
    with pytest.raises(CallOrderError, match="finished"):
        p.ask()
    with pytest.raises(SearchInputError, match="budget"):
        polish(MIXED, hill(MIXED), budget=-1)
    with pytest.raises(SearchInputError, match="cannot continue as polish"):
        p.restore({"strategy": np.array("riwoa")})


def test_a_budget_of_nothing_is_finished_at_once_with_the_leader_it_was_given() -> None:
    p = polish(MIXED, hill(MIXED), budget=0)
    assert p.finished
    assert p.leader.origin == (9, 2)


def test_everything_failing_leaves_the_leader() -> None:
    p = polish(MOBILE, hill(MOBILE), budget=30)
    while not p.finished:
        p.tell([Outcome(q.slot, q.operator, q.genotype, math.nan, math.nan, q.parent) for q in p.ask()])
    assert p.leader.origin == (9, 2)


def test_a_new_objective_is_applied_to_what_is_known() -> None:
    landscape, codec = hill(MOBILE), Codec(MOBILE, SEED)
    p = polish(MOBILE, landscape, budget=80)
    finish(p, codec, landscape)
    fast_ms = landscape(random_indices(MOBILE, 0)[0])[1]
    p.set_objective(Objective(fast_ms))
    assert p.leader.latency_ms <= fast_ms
