"""riwoa's own strategies in an arena, driven as the daemon drives its own: one driver, the same predictor, races."""

from __future__ import annotations

import math
from dataclasses import replace

from riwoa.bench.arena import POPULATION, Arena, Found
from riwoa.bench.contestants import AFTER, BLIND, RACED, UNSCREENED, Contestant
from riwoa.bench.earlier import Remembered, remembered
from riwoa.bench.landscape import Landscape, Measured
from riwoa.errors import UsageError
from riwoa.search.base import Identity, LatencyOf, Outcome, Proposal, SearchParameters
from riwoa.search.driver import Driver, Evaluated
from riwoa.search.racing import Race, Racing
from riwoa.search.riwoa import RiwoaParameters
from riwoa.search.space import Space
from riwoa.search.strategies import STRATEGIES, make_strategy
from riwoa.surrogate.screening import Screening

_CHEAP = "cheap"  # the one rung
RACE_CONFIDENCE = 0.9  # the default of oracle.rung_confidence


def scheduled(contestant: Contestant, budget: int) -> SearchParameters:
    """The contestant's settings, with a schedule as long as the budget lasts without repeats."""
    params = contestant.parameters(POPULATION, 1)
    if isinstance(params, RiwoaParameters) and contestant.suffix == UNSCREENED:
        params = replace(params, joint=False)  # which needs a predictor
    together = STRATEGIES[contestant.base].of_scores(params)
    return replace(params, generations=max(1, math.ceil(budget / (params.offspring if together else POPULATION))))


def screening_of(
    contestant: Contestant, params: SearchParameters, space: Space, known: Remembered | None = None
) -> Screening | None:
    """A predictor of its own for who chooses by one."""
    strategy = STRATEGIES[contestant.base]
    screens = strategy.screens(params) and contestant.suffix != UNSCREENED
    if not screens:
        return None
    known = known or Remembered()
    joint = strategy.of_scores(params)
    failures = joint and learns_failures(params)
    return Screening(space, known.prior, related=known.related, of_scores=joint, of_failures=failures)


def learns_failures(params: SearchParameters) -> bool:
    """Whether what fails or is given up teaches a contestant's predictor."""
    return bool(getattr(params, "learn_failures", False))


def remembered_by(contestant: Contestant, seed: int, landscape: Landscape, budget: int) -> Remembered:
    """What the contestant has found on the earlier landscape, if it remembers any.

    Raises:
        UsageError: it should, and there is none.
    """
    if contestant.suffix != AFTER:
        return Remembered()
    if landscape.earlier is None:
        raise UsageError(f"--strategies: {contestant.name} has searched before; say what with --after")
    before = Arena(landscape.earlier, budget)
    OwnSearch(replace(contestant, suffix=""), seed, before).run()
    return remembered(landscape, before.known)


class OwnSearch:
    """One strategy spending one budget.

    Raises:
        UsageError: it is to race where nothing is cheap.
    """

    def __init__(self, contestant: Contestant, seed: int, arena: Arena, known: Remembered | None = None) -> None:
        landscape = arena.landscape
        if contestant.suffix == RACED and landscape.cheap_cost is None:
            what = "races by cheap measurements; name them with --low-fidelity"
            raise UsageError(f"--strategies: {contestant.name} {what}")
        constrained = landscape.aim.limit is not None
        free: LatencyOf | None = landscape.free_load if constrained and contestant.suffix != BLIND else None
        params = scheduled(contestant, arena.budget)
        known = known or Remembered()
        self._arena = arena
        self._contestant = contestant
        self._seed = seed
        racing = Racing([_CHEAP], RACE_CONFIDENCE, seed, teaches=learns_failures(params))
        self._driver = Driver(
            make_strategy(contestant.base, landscape.space, landscape.aim, seed, params, free),
            guide=screening_of(contestant, params, landscape.space, known),
            racing=racing if contestant.suffix == RACED else None,
            start=known.start,
        )
        self._cheap: dict[str, float] = {}  # cheap measurements, paid once an architecture
        self._fitness: dict[Identity, float] = {}  # of everybody who was measured, to be beaten by children

    def run(self) -> Found:
        """Ask and tell until the search is over."""
        while not self._arena.over:
            proposals = self._driver.ask()
            race = self._driver.race()
            evaluated = [self._query(p, race) for p in proposals]
            if self._arena.over:
                break  # whatever of this generation lies beyond the budget was never evaluated
            generation = self._driver.strategy.generation
            self._driver.tell(told := [e for e in evaluated if e is not None])
            self._fitness |= {(generation, e.outcome.slot): self._fitness_of(e.outcome) for e in told}
        return self._arena.found(self._contestant.name, self._seed, self._driver.strategy.generation)

    def _fitness_of(self, o: Outcome) -> float:
        return float(self._arena.aim.fitness(o.accuracy, o.latency_ms))

    def _query(self, p: Proposal, race: Race) -> Evaluated | None:
        """A proposal's measurement; a new one is counted, and judged, while the search goes on (None beyond)."""
        arena = self._arena
        indices = self._driver.codec.decode(p.genotype[None, :])[0]
        key, fresh = arena.space.key(indices), False
        if key in arena.known and key not in arena.given_up:
            arena.repeats += 1
        elif not arena.over:
            before = arena.spent
            m = arena.pay(key, indices, lambda m: bool(race.rungs) and self._hopeless(p, key, m, race))
            fresh = arena.spent > before
            arena.repeats += arena.spent == before  # given up before, and again by what was paid for then
        if key not in arena.known:
            return None
        m = arena.known[key]
        metrics = {"accuracy": m.value}
        if math.isfinite(self._cheap.get(key, math.nan)):
            metrics[_CHEAP] = self._cheap[key]
        given_up = key in arena.given_up
        if given_up:
            metrics |= race.expected(_CHEAP, self._cheap[key])
        outcome = Outcome(p.slot, p.operator, p.genotype, m.value, m.load, p.parent, given_up)
        return Evaluated(outcome, metrics, fresh)

    def _hopeless(self, p: Proposal, key: str, m: Measured, race: Race) -> bool:
        """Whether to give an architecture up, as ``riwoa.run.evaluations`` would: its parent counts, too."""
        if m.row is None:
            return False
        if key not in self._cheap:
            self._cheap[key] = self._arena.pay_cheap(m)
        needed = race.needed(m.load, self._parent_fitness(p))
        cheap = self._cheap[key]
        return math.isfinite(cheap) and race.verdict(_CHEAP, key, cheap, needed) == "given up"

    def _parent_fitness(self, p: Proposal) -> float | None:
        """Fitness of a proposal's parent; None where there is none, or it has no value."""
        fitness = self._fitness[p.parent] if p.parent is not None else -math.inf
        return fitness if math.isfinite(fitness) else None
