"""RI-IWOA that draws many children for a slot and asks one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from riwoa.errors import InputError
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.riwoa import RiwoaParameters, RotationInvariantWhale
from riwoa.search.space import IntArray
from riwoa.surrogate.gaussian_process import Examples, fit
from riwoa.surrogate.screening import Screening, prior_examples
from tests.search.support import MIXED, MOBILE, advance, hill, same

AIM = Objective(7.0)


def screened(seed: int = 0, **changes: float) -> RotationInvariantWhale:
    params = RiwoaParameters(population=8, generations=12, joint=False, **changes)  # type: ignore[arg-type]
    landscape = hill(MOBILE, 1)
    return RotationInvariantWhale(MOBILE, AIM, seed, params, lambda row: landscape(row)[1])


def oracle(indices: IntArray) -> FloatArray:
    """A screen that knows the landscape."""
    return np.array([hill(MOBILE, 1)(row)[0] for row in indices])


def test_a_screen_that_knows_the_landscape_finds_better_children_and_none_twice() -> None:
    plain, chosen = screened(), screened()
    chosen.set_screen(oracle)
    codec = Codec(MOBILE, 0)
    for _ in range(4):
        advance(plain, codec, hill(MOBILE, 1))
        asked = advance(chosen, codec, hill(MOBILE, 1))
        keys = {row.tobytes() for row in codec.decode(np.stack([p.genotype for p in asked]))}
        assert len(keys) == len(asked)
    assert plain.leader is not None
    assert chosen.leader is not None
    assert chosen.leader.fitness > plain.leader.fitness + 0.02


def test_one_child_a_slot_is_what_it_is_without_a_screen() -> None:
    plain, single = screened(), screened(screened=1)
    single.set_screen(oracle)
    codec = Codec(MOBILE, 0)
    for _ in range(3):
        assert same(advance(plain, codec, hill(MOBILE, 1)), advance(single, codec, hill(MOBILE, 1)))


def test_a_target_whose_latencies_are_not_known_beforehand_leaves_the_screen_alone() -> None:
    params = RiwoaParameters(population=8, joint=False)
    plain, blind = (RotationInvariantWhale(MOBILE, AIM, 0, params) for _ in range(2))
    blind.set_screen(oracle)
    codec = Codec(MOBILE, 0)
    for _ in range(2):
        assert same(advance(plain, codec, hill(MOBILE, 1)), advance(blind, codec, hill(MOBILE, 1)))


def test_slots_that_ask_the_model_ask_it_all_the_same_and_for_the_same_parent() -> None:
    plain, chosen = (screened(p_semantic=0.7, placebo_share=0.3) for _ in range(2))
    codec = Codec(MOBILE, 0)
    for strategy in (plain, chosen):
        advance(strategy, codec, hill(MOBILE, 1))
    chosen.set_screen(oracle)
    before, now = plain.ask(), chosen.ask()
    asking = [p.slot for p in before if p.operator in ("semantic", "placebo")]
    assert asking
    assert asking == [p.slot for p in now if p.operator in ("semantic", "placebo")]
    for slot in asking:
        assert (before[slot].operator, before[slot].parent) == (now[slot].operator, now[slot].parent)
        assert np.array_equal(before[slot].parent_genotype, now[slot].parent_genotype)  # type: ignore[arg-type]
    assert any(not np.array_equal(before[slot].genotype, now[slot].genotype) for slot in asking)


def test_children_beyond_the_target_are_asked_only_where_no_other_was_drawn() -> None:
    strategy = screened()
    strategy.set_screen(lambda indices: np.ones(len(indices)))
    codec = Codec(MOBILE, 0)
    advance(strategy, codec, hill(MOBILE, 1))
    for proposal in strategy.ask():
        assert hill(MOBILE, 1)(codec.decode(proposal.genotype[None, :])[0])[1] <= 7.0


def test_a_predictor_that_learns_as_it_goes_finds_more_than_none() -> None:
    """Paired over seeds, on a landscape that it does not know."""
    gains = []
    for seed in range(6):
        best = []
        for screening in (None, Screening(MOBILE)):
            strategy, codec = screened(seed), Codec(MOBILE, seed)
            landscape = hill(MOBILE, 1)
            for _ in range(10):
                if screening is not None:
                    screening.learn()
                    strategy.set_screen(screening.screen)
                for proposal in advance(strategy, codec, landscape):
                    if screening is not None:
                        indices = codec.decode(proposal.genotype[None, :])[0]
                        screening.tell(indices, landscape(indices)[0], None)
            assert strategy.leader is not None
            best.append(strategy.leader.fitness)
        gains.append(best[1] - best[0])
    assert np.mean(gains) > 0.01
    assert sum(g > 0 for g in gains) >= 5


def test_a_screening_that_knows_too_little_or_only_equals_screens_nothing() -> None:
    screening = Screening(MOBILE)
    screening.learn()
    assert screening.screen is None
    assert screening.predict(np.zeros((1, len(MOBILE)), dtype=np.int64)) is None
    rows = MOBILE.canonical(np.random.default_rng(0).integers(0, MOBILE.cardinalities, (30, len(MOBILE))))
    for row in rows:
        screening.tell(row, 0.5, None)
    screening.learn()
    assert screening.screen is None


def test_what_it_says_of_itself_counts_the_intervals_that_held() -> None:
    screening = Screening(MOBILE)
    row = np.zeros(len(MOBILE), dtype=np.int64)
    for accuracy, predicted in ((0.5, None), (0.5, (0.5, 0.01)), (0.6, (0.5, 0.01)), (0.51, (0.5, 0.01))):
        screening.tell(row, accuracy, predicted)
    assert screening.view() == {"examples": 4, "prior": 0, "interval": 0.9, "covered": pytest.approx(2 / 3)}


def test_equal_histories_screen_alike() -> None:
    """What a resumed run needs: the same evaluations give the same choice, whatever was learned in between."""
    landscape = hill(MOBILE, 2)
    rows = MOBILE.canonical(np.random.default_rng(5).integers(0, MOBILE.cardinalities, (60, len(MOBILE))))
    often, once = Screening(MOBILE), Screening(MOBILE)
    for screening, steps in ((often, [20, 40, 60]), (once, [60])):
        for start, end in pairwise([0, *steps]):
            for row in rows[start:end]:
                screening.tell(row, landscape(row)[0], None)
            screening.learn()
    assert often.screen is not None
    assert once.screen is not None
    assert np.array_equal(often.screen(rows), once.screen(rows))


def test_a_prior_screens_the_first_generation_and_gives_way_to_what_the_run_finds() -> None:
    landscape = hill(MOBILE, 1)
    rows = MOBILE.canonical(np.random.default_rng(7).integers(0, MOBILE.cardinalities, (300, len(MOBILE))))
    prior = Examples(MOBILE, rows, np.array([landscape(row)[0] for row in rows]))
    screening, codec = Screening(MOBILE, prior), Codec(MOBILE, 0)
    screening.learn()
    plain, screened_first = screened(), screened()
    screened_first.set_screen(screening.screen)
    means = []
    for strategy in (plain, screened_first):
        asked = strategy.ask()
        assert {p.operator for p in asked} == {"init"}
        assert all(p.parent is None for p in asked)
        means.append(np.mean([landscape(codec.decode(p.genotype[None, :])[0])[0] for p in asked]))
    assert means[1] > means[0] + 0.02
    for row in rows[:30]:
        screening.tell(row, 0.9, None)  # the run found otherwise
    screening.learn()
    found = screening.predict(rows[:30])
    assert found is not None
    assert np.mean([mean for mean, _ in found]) > prior.accuracies[:30].mean() + 0.05


def test_a_predictor_of_another_space_is_refused(tmp_path: Path) -> None:
    rows = MOBILE.canonical(np.random.default_rng(7).integers(0, MOBILE.cardinalities, (40, len(MOBILE))))
    fit(Examples(MOBILE, rows, np.linspace(0.5, 0.6, 40))).save(tmp_path / "mine.safetensors")
    found = prior_examples(str(tmp_path / "mine.safetensors"), MOBILE)
    assert found is not None
    assert len(found) == 40
    with pytest.raises(InputError, match="train one on a journal of this space"):
        prior_examples(str(tmp_path / "mine.safetensors"), MIXED)
    with pytest.raises(InputError, match=r"no accuracy predictor of riwoa's"):
        prior_examples(str(tmp_path / "missing.safetensors"), MOBILE)


def test_the_number_of_threads_changes_no_bit_of_what_is_predicted() -> None:
    """A resumed run may have other cores, and what was predicted is in the digest."""
    landscape = hill(MOBILE, 2)
    rows = MOBILE.canonical(np.random.default_rng(5).integers(0, MOBILE.cardinalities, (700, len(MOBILE))))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            screening = Screening(MOBILE)
            for row in rows[:380]:
                screening.tell(row, landscape(row)[0], None)
            screening.learn()
            found.append(screening.predict(rows[380:]))
    assert found[0] == found[1]


def test_of_a_long_prior_the_latest_are_learned_from() -> None:
    rows = MOBILE.canonical(np.random.default_rng(7).integers(0, MOBILE.cardinalities, (900, len(MOBILE))))
    screening = Screening(MOBILE, Examples(MOBILE, rows, np.linspace(0.5, 0.9, 900)))
    screening.learn()
    assert screening.view()["prior"] == 400
    found = screening.predict(rows[:50])
    assert found is not None
    assert np.mean([mean for mean, _ in found]) > 0.7
    for row in rows[:450]:
        screening.tell(row, 0.6, None)
    screening.tell(rows[450], 0.7, None)
    screening.learn()
    assert screening.view()["prior"] == 0
