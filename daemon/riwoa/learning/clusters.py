"""Groups of points by k-means with careful seeding (Arthur & Vassilvitskii, "k-means++", 2007)."""

from __future__ import annotations

import numpy as np

from riwoa.search.fitness import FloatArray
from riwoa.search.space import IntArray

_MOST_ROUNDS = 25


def clustered(points: FloatArray, count: int, draw: np.random.Generator) -> IntArray:
    """A group in [0, ``count``) for each point (n, columns), (n,); fewer groups where fewer points differ."""
    centres = _seeded(points, count, draw)
    groups = _nearest(points, centres)
    for _ in range(_MOST_ROUNDS):
        centres = np.array([points[groups == g].mean(axis=0) for g in np.unique(groups)])
        found = _nearest(points, centres)
        if np.array_equal(found, groups):
            break
        groups = found
    return groups


def _seeded(points: FloatArray, count: int, draw: np.random.Generator) -> FloatArray:
    """Centres drawn among the points, each the likelier the farther it is from those before."""
    chosen = [int(draw.integers(len(points)))]
    away = _squared(points, points[chosen])[:, 0]
    while len(chosen) < count and away.max() > 0.0:
        chosen.append(int(draw.choice(len(points), p=away / away.sum())))
        away = np.minimum(away, _squared(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def _nearest(points: FloatArray, centres: FloatArray) -> IntArray:
    return np.asarray(np.argmin(_squared(points, centres), axis=1))


def _squared(points: FloatArray, centres: FloatArray) -> FloatArray:
    """Squared distances, (n, centres); without BLAS, so that the last bits do not depend on the number of cores."""
    return np.stack([np.square(points - centre).sum(axis=1) for centre in centres], axis=1)
