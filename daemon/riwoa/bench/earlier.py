"""What a contestant remembers of an earlier search on another landscape of the same space: bench ``--after``.

The earlier search is the contestant's own, with the same seed and the whole budget, which counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from riwoa.bench.landscape import Landscape, Measured
from riwoa.run.memory import START
from riwoa.search.space import INACTIVE, IntArray
from riwoa.surrogate.gaussian_process import Examples


@dataclass(frozen=True, slots=True)
class Remembered:
    """As ``riwoa.run.memory`` hands it to a search.

    Attributes:
        prior: what the same oracle said.
        related: what others said.
        start: whom to begin with, canonical indices (n, genes).
    """

    prior: Examples | None = None
    related: tuple[Examples, ...] = ()
    start: IntArray | None = None


def remembered(landscape: Landscape, known: Mapping[str, Measured]) -> Remembered:
    """What a search on the landscape knows of one on its ``earlier``, by the keys of what that measured."""
    keys = [key for key, m in known.items() if np.isfinite(m.value)]
    rows = [[INACTIVE if part == "_" else int(part) for part in key.split(".")] for key in keys]
    indices = np.array(rows, dtype=np.int64).reshape(-1, len(landscape.space))
    values = np.array([known[key].value for key in keys], dtype=np.float64)
    loads = np.array([landscape.free_load(row) for row in indices], dtype=np.float64)
    start = indices[landscape.aim.survival(values, loads)[:START]]
    examples = Examples(landscape.space, indices, values)
    if landscape.earlier_is_same:
        return Remembered(prior=examples, start=start)
    return Remembered(related=(examples,), start=start)
