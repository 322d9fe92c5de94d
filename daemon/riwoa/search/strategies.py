"""Every strategy of riwoa's own by its name."""

from __future__ import annotations

from collections.abc import Mapping

from riwoa.search.base import LatencyOf, PopulationStrategy, SearchInputError, SearchParameters, Strategy
from riwoa.search.baselines import LocalSearch, RandomSearch, RegularisedEvolution, Whale
from riwoa.search.bayesian import BayesianSearch
from riwoa.search.fitness import Objective
from riwoa.search.riwoa import RotationInvariantWhale
from riwoa.search.space import Space
from riwoa.search.targets import LoadsEach

STRATEGIES: Mapping[str, type[PopulationStrategy]] = {
    s.name: s for s in (RotationInvariantWhale, Whale, RandomSearch, RegularisedEvolution, LocalSearch, BayesianSearch)
}


def make_strategy(
    name: str,
    space: Space,
    objective: Objective,
    seed: int,
    params: SearchParameters,
    latency_of: LatencyOf | None = None,
    loads_each: LoadsEach | None = None,
) -> Strategy:
    """A fresh strategy by its name in ``STRATEGIES``.

    ``latency_of`` tells the latency of a phenotype where it costs nothing (a table); RI-IWOA then asks only networks
    within the target, as far as it finds them. ``loads_each`` tells the loads for each target of an objective that has
    such.

    Raises:
        SearchInputError: no strategy has this name.
    """
    if name not in STRATEGIES:
        raise SearchInputError(f"no strategy is called {name!r}; choose from {', '.join(STRATEGIES)}")
    strategy = STRATEGIES[name]
    of_targets = {} if loads_each is None else {"loads_each": loads_each}
    return strategy(space, objective, seed, params, latency_of if strategy.uses_latency else None, **of_targets)
