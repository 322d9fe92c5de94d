"""A small space, and steps in it whose gains are known."""

from __future__ import annotations

import numpy as np

from riwoa.learning.trajectories import Network, Trajectory
from riwoa.search.space import Gene, Space

SPACE = Space(
    "steps",
    (
        Gene("stage1.depth", (1, 2, 3)),
        Gene("stage1.kernel", (3, 5, 7)),
        Gene("stage2.kernel", (3, 5, 7)),
        Gene("op", ("conv", "pool", "skip"), kind="nominal"),
    ),
)


def network(indices: list[int], value: float, latency_ms: float = 10.0) -> Network:
    """An evaluated network."""
    return Network.of(np.array(indices), value, latency_ms, latency_ms)


def step(number: int, before: list[int], after: list[int], gain: float, added_ms: float = 0.0) -> Trajectory:
    """The number-th step of a search."""
    ends = network(before, 0.5), network(after, 0.5 + gain, 10.0 + added_ms)
    return Trajectory((number + 1, 0), (0, 0), "climb", *ends)


def drawn_steps(count: int, seed: int = 0) -> list[Trajectory]:
    """Steps of one or two genes: larger kernels gain, in stage 2 most; other genes do nothing."""
    draw, found = np.random.default_rng(seed), []
    for number in range(count):
        before = draw.integers(0, 3, 4)
        after = before.copy()
        for gene in draw.choice(4, size=draw.integers(1, 3), replace=False):
            after[gene] = (after[gene] + draw.integers(1, 3)) % 3
        gain = 0.02 * (after[2] - before[2]) + 0.01 * (after[1] - before[1]) + 0.001 * draw.standard_normal()
        found.append(step(number, before.tolist(), after.tolist(), float(gain), float(after[2] - before[2])))
    return found
