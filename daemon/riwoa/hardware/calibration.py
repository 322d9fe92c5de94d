"""From the sum of operators to the time of a whole network: what a table says of it. ``fit`` finds the numbers.

A straight line in the sum does it where a network takes as long as its parts. Where it does not (on a GPU a plain sum
can rank networks at 0.667 where 0.950 is attainable: HELP, Lee et al., NeurIPS 2021, README), a *correction* adds a few
physical quantities, each a sum over the operators. So a block still has a share of the latency, the fastest subnet is
still found exactly, and a latency is still a pure function of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from riwoa.supernet.geometry import Operator
from riwoa.supernet.space import OfaConfig

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Calibration:
    """``latency = intercept + slope * sum of operators``, and how well that fits the networks it was fitted on.

    With a correction, its milliseconds come on top; ``spearman`` and ``mean_abs_error_percent`` are then those of both.
    ``repeatability`` is the Spearman correlation of the networks' times over even rounds with those over odd rounds:
    how well half the measurement ranks like the other half bounds what any prediction can show. ``disturbance`` is the
    networks' median over their tenth percentile, near 1 on a quiet device.
    """

    intercept_ms: float
    slope: float
    networks: int
    repeats: int
    spearman: float
    mean_abs_error_percent: float
    repeatability: float
    disturbance: float


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a network's measured time lies: within ``half_width_percent`` of the predicted one, ``level`` of the time.

    Two parts make it, added as squares (``fit.interval``). ``within_percent``: what networks differ by from their
    predictions inside one process; conformal, an order statistic of ``scores`` leave-one-out errors.
    ``between_percent``: what all of them are off by in one process; Student's t over ``sessions`` processes, and 0, not
    known, where there was one.
    """

    level: float
    half_width_percent: float
    within_percent: float
    between_percent: float
    scores: int
    sessions: int


@dataclass(frozen=True, slots=True)
class KnownNetwork:
    """A whole network that was measured for the calibration, and its time: the median over the sessions."""

    config: OfaConfig
    ms: float


IDENTITY = Calibration(0.0, 1.0, 0, 0, 0.0, 0.0, 0.0, 0.0)


def _depthwise_mib(op: Operator) -> float:
    """Memory that a block's depthwise convolution reads and writes, at batch 1: the part that no MAC count sees."""
    if op.kind not in ("mbconv", "sepconv"):
        return 0.0
    values = op.mid_c * (op.in_h * op.in_w + op.out_h * op.out_w + op.kernel**2)
    return values * _FLOAT_BYTES / 2**20


def _input_mpx(op: Operator) -> float:
    return op.in_h * op.in_w / 1e6 if op.kind == "stem" else 0.0


# What a correction may count, each a sum over operators: launches, squeeze-and-excitation's two round trips to memory,
# depthwise traffic, arithmetic, and (through the stem) the resolution.
FEATURES: Mapping[str, Callable[[Operator], float]] = {
    "operators": lambda op: 1.0,
    "squeeze_excites": lambda op: float(op.se),
    "depthwise_mib": _depthwise_mib,
    "gmacs": lambda op: op.macs / 1e9,
    "input_mpx": _input_mpx,
}


def correction_ms(correction: Mapping[str, float], op: Operator) -> float:
    """An operator's part of a correction (milliseconds by feature), on top of its calibrated time."""
    return sum(weight * FEATURES[name](op) for name, weight in correction.items())
