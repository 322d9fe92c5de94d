"""Children by others stand in the pool, and are chosen only where they promise most."""

from __future__ import annotations

from typing import Any

import numpy as np

from riwoa.search.base import Outcome, Suggestion
from riwoa.search.fitness import Objective
from riwoa.search.riwoa import RiwoaParameters, RotationInvariantWhale
from riwoa.search.space import Gene, Space

SPACE = Space("wide", tuple(Gene(f"g{i}", tuple(range(50))) for i in range(12)))


class Fond:
    """Believes in one architecture, and that others are worse the more genes differ, all alike far from it."""

    count = 100

    def __init__(self, wanted: Any) -> None:
        self._wanted = wanted

    def predict(self, indices: Any) -> tuple[Any, Any]:
        same = (indices == self._wanted).all(axis=1)
        return np.where(same, 1.0, 0.0), np.full(len(indices), 1e-3)

    def believe(self, indices: Any) -> Fond:
        return self

    def score(self, value: float) -> float:
        return 0.5

    def log_success(self, indices: Any) -> Any:
        return np.zeros(len(indices))


def test_a_suggestion_is_asked_where_it_promises_most_and_in_the_place_of_another() -> None:
    params = RiwoaParameters(population=8, offspring=3, generations=9, first=3)
    strategy = RotationInvariantWhale(SPACE, Objective(None), 0, params)
    assert strategy.elites(4) == ()  # nobody is known yet
    first = strategy.ask()
    strategy.tell([Outcome(p.slot, p.operator, p.genotype, 0.1 * p.slot, 1.0, None) for p in first])
    best = strategy.elites(1)[0]
    assert best.identity == (0, 2)
    wanted = strategy.codec.patch(best.genotype, {"g1": 49, "g5": 0, "g9": 25})
    other = strategy.codec.patch(best.genotype, {"g2": 7})
    strategy.set_posterior(Fond(strategy.codec.decode(wanted[None, :])[0]))
    strategy.suggest([Suggestion(other, (0, 1)), Suggestion(wanted, (7, 7))])
    asked = strategy.ask()
    assert len(asked) == 3
    (found,) = [p for p in asked if p.operator == "semantic"]
    assert found.parent == (7, 7)  # who need not be a member any more
    assert (strategy.codec.decode(found.genotype[None, :]) == strategy.codec.decode(wanted[None, :])).all()
