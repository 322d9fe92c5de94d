"""How much of the attack the language model gets: a deterministic rule on discounted, committed win counts.

Each of two rivals, k = semantic and what a semantic slot gives up (spirals; any geometric move where candidates are
chosen jointly), has won W_k of its N_k proposals, where every generation multiplies both by ``DISCOUNT`` before it adds
its own. With a uniform Beta(1, 1) prior the posterior mean of its win rate is

    m_k = (W_k + 1) / (N_k + 2),

and the share of the attack is m_semantic / (m_semantic + m_geometric), kept within [``LEAST``, ``MOST``] so that
neither falls silent and both go on being measured. Nothing is drawn: the same counts give the same share.
"""

from __future__ import annotations

DISCOUNT = 0.95  # half of the evidence is forgotten in 14 generations: what pays early does not pay late
LEAST, MOST = 0.05, 0.95


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
