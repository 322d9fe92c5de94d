"""Children by others stand in the pool, and are chosen only where they promise most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from riwoa.search import joint
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


def begun(wide: Space = SPACE, **settings: Any) -> RotationInvariantWhale:
    """A search that knows its first three."""
    params = RiwoaParameters(population=8, offspring=3, generations=9, first=3, **settings)
    strategy = RotationInvariantWhale(wide, Objective(None), 0, params)
    first = strategy.ask()
    strategy.tell([Outcome(p.slot, p.operator, p.genotype, 0.1 * p.slot, 1.0, None) for p in first])
    return strategy


class Deep(Fond):
    """Believes least in what has a rare choice, and most in what has it with each of the next genes changed, too."""

    def __init__(self, written: Any, steps: int) -> None:
        self._written = written
        self._steps = steps

    def predict(self, indices: Any) -> tuple[Any, Any]:
        rare = indices[:, 0] == self._written[0]
        changed = (indices != self._written)[:, 1 : 1 + self._steps].sum(axis=1)
        means = np.where(changed == self._steps, 1.0, 0.01 * changed)
        return np.where(rare, means, 0.2), np.full(len(indices), 1e-3)

    def believe(self, indices: Any) -> Deep:
        return self


RARE = Space("rare", (Gene("g0", tuple(range(5000))), *(Gene(f"g{i}", tuple(range(5))) for i in range(1, 8))))


def suggesting(strategy: RotationInvariantWhale, steps: int = 1) -> list[Any]:
    """What is asked where one of two suggestions has what is worth having some steps from it."""
    parent = strategy.elites(1)[0]
    plain = strategy.codec.patch(parent.genotype, {"g3": 1})
    rare = strategy.codec.patch(parent.genotype, {"g0": 4321})
    strategy.set_posterior(Deep(strategy.codec.decode(rare[None, :])[0], steps))
    strategy.suggest([Suggestion(plain, (0, 1)), Suggestion(rare, (7, 7))])
    return strategy.ask()


def test_what_descends_from_a_suggestion_says_so_and_names_its_parent() -> None:
    strategy = begun(RARE)
    asked = suggesting(strategy)
    theirs = [p for p in asked if strategy.codec.decode(p.genotype[None, :])[0][0] == 4321]
    assert ("climb", 1, (7, 7)) in {(p.operator, p.suggested, p.parent) for p in theirs}
    # A crossing is its first parent's, whoever the other is.
    assert all((p.suggested is None) == (p.parent != (7, 7)) for p in asked)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_suggestion_has_children_and_these_have_though_everything_else_promises_more(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any(p.suggested == 1 for p in suggesting(begun(RARE), steps))
    assert not any(p.suggested == 1 for p in suggesting(begun(RARE), 99))  # nothing comes of it: promise decides
    monkeypatch.setattr(joint, "FAIR", 0)
    assert not any(p.suggested == 1 for p in suggesting(begun(RARE), steps))


def test_beside_what_a_suggestion_led_to_goes_what_would_have_been_asked_without_it() -> None:
    plain = suggesting(begun(RARE, counterfactual_share=0.0))
    asked = suggesting(begun(RARE, counterfactual_share=1.0))
    assert len(asked) == len(plain) == 3
    assert [p.rival_of for p in plain] == [None] * 3
    assert [p.rival_of for p in asked] == [None, 0, None]
    assert asked[0].suggested == 1
    assert asked[1].suggested is None
    assert (asked[0].genotype == plain[0].genotype).all()  # what is picked is picked anyway
    half = [suggesting(begun(RARE, counterfactual_share=share))[1].rival_of for share in (0.0, 0.5, 1.0)]
    assert half in ([None, None, 0], [None, 0, 0])  # a draw of the seed
