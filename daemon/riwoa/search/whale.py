"""The update equations of the whale optimisation algorithm (Mirjalili & Lewis, Adv. Eng. Softw. 95, 2016).

Equation numbers are the paper's. Products are elementwise and all arguments broadcast, so one call moves a population:
positions ``(n, D)``, scalars a whale ``(n, 1)``.
"""

from __future__ import annotations

import numpy as np

from riwoa.search.fitness import FloatArray


def control(tau: float) -> float:
    """a, falling linearly from 2 to 0 as ``tau``, the share of the run that is over, goes from 0 to 1."""
    return 2.0 * (1.0 - min(max(tau, 0.0), 1.0))


def coefficient_a(a: float, r: FloatArray) -> FloatArray:
    """A = 2a·r − a, uniform in [−a, a].  Eq. (2.3)."""
    return 2.0 * a * r - a


def coefficient_c(r: FloatArray) -> FloatArray:
    """C = 2·r, uniform in [0, 2].  Eq. (2.4)."""
    return 2.0 * r


def encircle(leader: FloatArray, x: FloatArray, a: FloatArray, c: FloatArray) -> FloatArray:
    """X' = X* − A·|C·X* − X|.  Eqs. (2.1), (2.2)."""
    return leader - a * np.abs(c * leader - x)


def search(other: FloatArray, x: FloatArray, a: FloatArray, c: FloatArray) -> FloatArray:
    """X' = X_rand − A·|C·X_rand − X|.  Eqs. (2.7), (2.8)."""
    return other - a * np.abs(c * other - x)


def spiral(leader: FloatArray, x: FloatArray, turn: FloatArray, b: float) -> FloatArray:
    """X' = |X* − X|·e^{bl}·cos(2πl) + X*, where ``turn`` is l in [−1, 1].  Eq. (2.5)."""
    return np.abs(leader - x) * np.exp(b * turn) * np.cos(2.0 * np.pi * turn) + leader


def signed_spiral(leader: FloatArray, x: FloatArray, turn: FloatArray, b: float) -> FloatArray:
    """X' = (X − X*)·e^{bl}·cos(2πl) + X*: Eq. (2.5) without the modulus, hence the same in every rotated frame.

    With the modulus every coordinate moves to the same side of the leader, along the diagonals of the axes at hand.
    """
    return (x - leader) * np.exp(b * turn) * np.cos(2.0 * np.pi * turn) + leader
