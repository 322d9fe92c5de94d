"""Several devices in one search: who is the best for each, and in whose favour members survive.

A network's loads, one a target, follow from its genotype (``LoadsEach``), so a strategy needs no state for them: who
leads for a device is found anew among its members.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from riwoa.search.fitness import FloatArray, IntArray

LoadsEach = Callable[[IntArray], FloatArray]  # canonical indices (n, G) -> loads (n, targets), at most 1 where served
NOBODY = -1


def with_told(loads: FloatArray, told: FloatArray) -> FloatArray:
    """Known loads for each target (n, targets), and of what was told to be beyond a limit, (n,), that for all of them.

    The limit is one that all must keep and only an evaluation tells.
    """
    beyond = told[:, None]
    return np.where(beyond > 1.0, np.maximum(loads, beyond), loads)


def leaders(values: FloatArray, loads: FloatArray) -> IntArray:
    """The row of the best network for each target, the first of equals; ``NOBODY`` where none serves it.

    Shapes (n,) and (n, targets) in, (targets,) out; a value of NaN is a failed evaluation.
    """
    return np.array([next(iter(order), NOBODY) for order in _orders(values, loads)], dtype=np.int64)


def in_turns(values: FloatArray, loads: FloatArray, others: IntArray) -> IntArray:
    """Rows in the order in which they survive: the best for each target, then the second best for each, and so on.

    Those that serve no target come last, in the order of ``others``. Shapes (n,), (n, targets) and (m,) in.
    """
    turns = itertools.zip_longest(*_orders(values, loads), fillvalue=NOBODY)
    named = [row for turn in turns for row in turn if row != NOBODY]
    return np.array(list(dict.fromkeys([*named, *others.tolist()])), dtype=np.int64)


def _orders(values: FloatArray, loads: FloatArray) -> list[list[int]]:
    """The rows that serve each target, best first; equals in their order."""
    served = (loads <= 1.0) & ~np.isnan(values)[:, None]
    order = np.argsort(-values, kind="stable")
    return [order[column[order]].tolist() for column in served.T]
