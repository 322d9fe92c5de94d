"""Who gets how much: deterministic rules on discounted counts of what was committed.

Nothing is drawn: the same counts give the same share.

The language model's share of the attack: each of two rivals, k = semantic and what a semantic slot gives up (spirals;
any geometric move where candidates are chosen jointly), has won W_k of its N_k proposals, where every generation
multiplies both by ``DISCOUNT`` before it adds its own. With a uniform Beta(1, 1) prior the posterior mean of its win
rate is

    m_k = (W_k + 1) / (N_k + 2),

and the share of the attack is m_semantic / (m_semantic + m_geometric), kept within [``LEAST``, ``MOST``] so that
neither falls silent and both go on being measured. The places of a pool: see ``PoolCredit``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riwoa.search.base import Outcome
from riwoa.search.fitness import FloatArray

DISCOUNT = 0.95  # half of the evidence is forgotten in 14 generations: what pays early does not pay late
LEAST, MOST = 0.05, 0.95
# Operators that share places of a pool: uniform ones, mutants, crossings, whale moves.
FAMILIES = (("init",), ("mutate",), ("recombine",), ("encircle", "search", "spiral"))
_FAMILY_OF = {operator: n for n, operators in enumerate(FAMILIES) for operator in operators}
_COLUMNS = ("credit.gains", "credit.evaluations")


def semantic_share(semantic: tuple[float, float], geometric: tuple[float, float]) -> float:
    """The share of attacks that go to the language model, from discounted (wins, proposals) of both.

    Raises:
        ValueError: counts are negative, or there are more wins than proposals.
    """
    model, geometry = _posterior_mean(*semantic), _posterior_mean(*geometric)
    return min(MOST, max(LEAST, model / (model + geometry)))


def _posterior_mean(wins: float, proposals: float) -> float:
    if not 0.0 <= wins <= proposals:
        raise ValueError(f"{wins} wins of {proposals} proposals")
    return (wins + 1.0) / (proposals + 2.0)


@dataclass(frozen=True, slots=True)
class PoolCredit:
    """What the operators of a joint choice have brought, by ``FAMILIES``; shares of the pool follow from it.

    An evaluation brings the share of the new population that it stands before, itself included, and nothing where it is
    not in it. What rounds of children led to belongs to none of them.

    Attributes:
        gains: discounted, (families,).
        evaluations: discounted, (families,).
    """

    gains: FloatArray
    evaluations: FloatArray

    @staticmethod
    def none() -> PoolCredit:
        """Before anything was evaluated."""
        return PoolCredit(np.zeros(len(FAMILIES)), np.zeros(len(FAMILIES)))

    @staticmethod
    def of(snapshot: Mapping[str, npt.NDArray[np.generic]]) -> PoolCredit:
        """That of a search's snapshot."""
        return PoolCredit(*(np.array(snapshot[name], dtype=np.float64) for name in _COLUMNS))

    def columns(self) -> dict[str, npt.NDArray[np.generic]]:
        """As a search's snapshot holds it."""
        return dict(zip(_COLUMNS, (self.gains.copy(), self.evaluations.copy()), strict=True))

    def later(self, outcomes: Iterable[Outcome], places: Mapping[int, int], size: int) -> PoolCredit:
        """This credit after a generation.

        Args:
            outcomes: its evaluations.
            places: of those that joined the population, by slot, 0 the best.
            size: of the population.
        """
        gains, evaluations = DISCOUNT * self.gains, DISCOUNT * self.evaluations
        for o in outcomes:
            if o.operator in _FAMILY_OF:
                gains[_FAMILY_OF[o.operator]] += 1.0 - places[o.slot] / size if o.slot in places else 0.0
                evaluations[_FAMILY_OF[o.operator]] += 1.0
        return PoolCredit(gains, evaluations)

    def places(self, usual: Sequence[int]) -> list[int]:
        """How many of a pool's places each family gets, of as many as it has as a rule: those times what it brings.

        What a family brings is the posterior mean, as above; each keeps a quarter of its usual places, to be measured.
        """
        usual_places = np.array(usual)
        kept = usual_places // 4
        brings = (self.gains + 1.0) / (self.evaluations + 2.0)
        weights = usual_places * brings[: len(usual)]
        free = int(usual_places.sum() - kept.sum())
        won = np.floor(free * weights / weights.sum()).astype(np.int64)
        won[np.argmax(weights)] += free - won.sum()
        return [int(n) for n in kept + won]


def shares_of(places: Sequence[int]) -> dict[str, float]:
    """The share of the pool that each operator has, its like included, by the places of the first ``FAMILIES``."""
    return {operator: n / sum(places) for family, n in zip(FAMILIES, places, strict=False) for operator in family}
