"""What chooses jointly by expected improvement: within the limit, never twice, and sooner at the best than chance."""

from __future__ import annotations

import time

import numpy as np
import pytest

from riwoa.search import joint
from riwoa.search.base import Outcome, Proposal, SearchInputError
from riwoa.search.bayesian import BayesianParameters, BayesianSearch
from riwoa.search.codec import Codec
from riwoa.search.dreams import Dreams
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.hypervolume import Staircase
from riwoa.search.riwoa import RiwoaParameters, RotationInvariantWhale
from riwoa.search.space import Gene, IntArray, Space
from riwoa.surrogate.screening import Screening
from tests.search.support import MOBILE, advance, hill

SPACE = Space("cells", tuple(Gene(f"op{i}", tuple("abcd"), "nominal") for i in range(5)))  # 1,024


def accuracy(indices: IntArray) -> float:
    """The best is 3 everywhere; neighbours in a cell make it rugged."""
    return float(0.5 + 0.02 * indices.sum() + 0.01 * np.cos(7.0 * indices[0] * indices[1]))


def load(indices: IntArray) -> float:
    return 1.0 + float(indices.sum())


class Run:
    """One search, told what it asks."""

    def __init__(
        self,
        name: str,
        target_ms: float | None = None,
        seed: int = 0,
        space: Space = SPACE,
        *,
        front: bool = False,
        **settings: float,
    ) -> None:
        params: BayesianParameters
        objective = Objective(target_ms, front=front)
        if name == "gp":
            params = BayesianParameters(**settings)  # type: ignore[arg-type]
            self.strategy = BayesianSearch(space, objective, seed, params, load)
        else:
            params = RiwoaParameters(**settings)  # type: ignore[arg-type]
            self.strategy = RotationInvariantWhale(space, objective, seed, params, load)
        self.screening = Screening(space, of_scores=True)
        self.asked: list[tuple[int, ...]] = []
        self.proposed: list[Proposal] = []

    def step(self) -> None:
        self.screening.guide(self.strategy)
        outcomes = []
        for p in self.strategy.ask():
            self.proposed.append(p)
            indices = self.strategy.codec.decode(p.genotype[None, :])[0]
            fresh = tuple(indices.tolist()) not in self.asked
            self.asked.append(tuple(indices.tolist()))
            outcomes.append(Outcome(p.slot, p.operator, p.genotype, accuracy(indices), load(indices), p.parent))
            if fresh:
                self.screening.tell(indices, accuracy(indices), None)
        self.strategy.tell(outcomes)


NAMES = ("gp", "riwoa")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target_ms", [None, 9.0])
def test_it_meets_the_best_soon_and_asks_nothing_twice_nor_beyond_the_limit(name: str, target_ms: float | None) -> None:
    every = np.array(list(np.ndindex(4, 4, 4, 4, 4)))
    within = [row for row in every if target_ms is None or load(row) <= target_ms]
    best = max(accuracy(row) for row in within)
    run = Run(name, target_ms)
    for _ in range(12):
        run.step()
    assert len(set(run.asked)) == len(run.asked) == 12 * 4
    assert target_ms is None or all(load(np.array(row)) <= target_ms for row in run.asked)
    assert run.strategy.leader is not None
    assert run.strategy.leader.accuracy == pytest.approx(best)  # 48 of 1,024: one search in twenty by chance


@pytest.mark.parametrize("name", NAMES)
def test_of_a_front_it_asks_from_end_to_end_and_forgets_none_of_it(name: str) -> None:
    run = Run(name, 14.0, front=True, population=4)
    for _ in range(12):
        run.step()
    assert len(set(run.asked)) == 12 * 4
    assert all(load(np.array(row)) <= 14.0 for row in run.asked)
    asked = np.array(run.asked)
    found, kept = (
        Staircase.of(np.array(list(map(accuracy, rows))), np.array(list(map(load, rows))), 14.0, 0.5)
        for rows in (asked, run.strategy.codec.decode(run.strategy.population.genotype))
    )
    assert found.loads[0] <= 4.0  # 2 in 100 of all are
    assert found.loads[-1] == 13.0
    assert (len(found.loads), found.area) == (len(kept.loads), kept.area)
    assert len(found.loads) > 4  # more than the population is to have


@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_restored_it_goes_on_as_if_it_had_never_stopped(name: str, front: bool) -> None:
    whole, first = Run(name, 9.0, front=front), Run(name, 9.0, front=front)
    for _ in range(4):
        whole.step()
        first.step()
    again = Run(name, 9.0, front=front)
    again.strategy.restore(first.strategy.snapshot())
    again.screening, again.asked = first.screening, first.asked
    for run in (whole, again):
        run.step()
        run.step()
    assert again.asked == whole.asked


@pytest.mark.parametrize("name", NAMES)
def test_a_space_that_is_asked_out_is_asked_again(name: str) -> None:
    run = Run(name, space=Space("tiny", (Gene("a", ("x", "y"), "nominal"), Gene("b", (1, 2, 3)))))
    for _ in range(4):
        run.step()
    assert len(set(run.asked)) == 6


def test_uniform_architectures_come_first_and_whale_moves_are_among_those_that_are_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for rounds in ("ROUNDS", "LATER_ROUNDS"):  # what they lead to comes out ahead of them nearly always here
        monkeypatch.setattr(joint, rounds, 0)
    landscape, codec, screening = hill(MOBILE, 1), Codec(MOBILE, 0), Screening(MOBILE, of_scores=True)
    strategy = RotationInvariantWhale(MOBILE, Objective(7.0), 0, RiwoaParameters(first=12), lambda r: landscape(r)[1])
    operators: list[str] = []
    for _ in range(12):
        screening.guide(strategy)
        for p in advance(strategy, codec, landscape):
            indices = codec.decode(p.genotype[None, :])[0]
            screening.tell(indices, landscape(indices)[0], None)
            operators.append(p.operator)
    assert operators[:12] == ["init"] * 12
    assert {"spiral", "search", "encircle"} & set(operators[12:])
    assert {"mutate", "recombine"} & set(operators[12:])


def test_slots_that_ask_the_model_carry_the_parent_of_what_they_fall_back_to() -> None:
    run = Run("riwoa", p_semantic=0.5, placebo_share=0.25, first=8)
    for _ in range(40):
        run.step()
    known = {(n // 4, n % 4): p.genotype for n, p in enumerate(run.proposed)}
    asking = [p for p in run.proposed if p.operator in ("semantic", "placebo")]
    for p in asking:
        assert p.parent is not None
        np.testing.assert_array_equal(p.parent_genotype, known[p.parent])
        assert p.fallback in ("mutate", "climb", "recombine", "spiral", "search", "encircle")
    with_parents = [p for p in run.proposed if p.parent is not None]
    assert len(asking) / len(with_parents) == pytest.approx(0.25, abs=0.08)
    assert sum(p.operator == "placebo" for p in asking) / len(asking) == pytest.approx(0.25, abs=0.15)


def test_another_strategys_snapshot_is_refused() -> None:
    snapshot = Run("gp").strategy.snapshot() | {"strategy": np.array("woa")}
    with pytest.raises(SearchInputError, match="a snapshot of woa cannot continue as gp"):
        Run("gp").strategy.restore(snapshot)


@pytest.mark.parametrize("name", NAMES)
def test_where_better_ones_fail_uniform_ones_find_back_and_the_search_goes_on(name: str) -> None:
    """Failures teach a surrogate nothing: it expects most beyond the border, again and again."""
    run = Run(name, first=8)
    failed, barren, longest = 0, 0, 0
    for _ in range(30):
        run.screening.guide(run.strategy)
        outcomes = []
        for p in run.strategy.ask():
            indices = run.strategy.codec.decode(p.genotype[None, :])[0]
            fails = indices.sum() > 9
            value = np.nan if fails else accuracy(indices)
            outcomes.append(Outcome(p.slot, p.operator, p.genotype, value, load(indices), p.parent))
            if not fails:
                run.screening.tell(indices, value, None)
        run.strategy.tell(outcomes)
        none = all(np.isnan(o.accuracy) for o in outcomes)
        failed, barren = failed + none, barren + 1 if none else 0
        longest = max(longest, barren)
    assert failed > 3
    assert longest < 5


def test_few_within_a_limit_are_each_asked_once_before_any_again() -> None:
    run = Run("gp", 3.0, offspring=8, first=40)  # 21 cells of a sum of 2 at most
    for _ in range(3):
        run.step()
    assert len(set(run.asked)) >= 20


def test_a_dream_lies_between_two_of_the_best_is_new_and_takes_the_place_of_one() -> None:
    run = Run("riwoa", 9.0, dreams=1.0)
    for _ in range(5):
        run.step()
    for _ in range(3):
        members = run.strategy.codec.decode(run.strategy.population.genotype)
        before = list(run.asked)
        run.step()
        *others, last = run.proposed[-4:]
        dream = run.strategy.codec.decode(last.genotype[None, :])[0]
        assert last.operator == "dream"
        assert last.parent is not None
        assert "dream" not in {p.operator for p in others}
        assert tuple(dream.tolist()) not in before
        assert load(dream) <= 9.0
        assert all(gene in column for gene, column in zip(dream.tolist(), members.T.tolist(), strict=True))


def test_a_dream_is_drawn_in_less_than_a_tenth_of_a_second_and_the_same_again() -> None:
    draw = np.random.default_rng(0)
    elites = np.stack([draw.integers(0, MOBILE.cardinalities) for _ in range(10)])
    dreams = Dreams(MOBILE, lambda rows: np.zeros(len(rows)))

    def promise(rows: IntArray) -> FloatArray:
        return rows.sum(axis=1).astype(np.float64)

    started_s = time.perf_counter()
    first = dreams.between(elites, promise, np.random.default_rng(1))
    assert time.perf_counter() - started_s < 0.1
    assert np.array_equal(first.raw, dreams.between(elites, promise, np.random.default_rng(1)).raw)
    assert len(first) > 0
