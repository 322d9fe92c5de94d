"""Who is given up early: the bounds of one generation, and what a run has learned of them.

Everything follows from committed individuals, so a resumed run gives up the same. Now and then a candidate that would
have been given up is evaluated in full all the same: the journal then tells how often the bounds are wrong.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from riwoa.search.race import MOST, Bound, EliminationThreshold

AUDITED_SHARE = 0.05
EXPECTED = "expected"  # metric of one that was given up: its accuracy, as far as its rung told
Verdict = Literal["goes on", "audited", "given up"]


def metric_of(rung: str) -> str:
    """The name under which an individual's accuracy on a rung is journaled."""
    return f"accuracy_{rung}" if rung.isdecimal() else rung


@dataclass(frozen=True, slots=True)
class Race:
    """The race of one generation; the default has no lower rungs and gives nobody up.

    Attributes:
        rungs: lower ones, cheapest first.
        bounds: what a rung says of the full accuracy.
        threshold: what a candidate must reach; None while nobody is given up.
        seed: of the audits.
        teaches: whether those who are given up are noted with what is expected of them, to be learned from.
    """

    rungs: tuple[str, ...] = ()
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    threshold: EliminationThreshold | None = None
    seed: int = 0
    teaches: bool = False

    def needed(self, latency_ms: float | None, parent_fitness: float | None) -> float:
        """The accuracy that a candidate must exceed to change anything."""
        return -math.inf if self.threshold is None else self.threshold.needed(latency_ms, parent_fitness)

    def verdict(self, rung: str, key: str, accuracy: float, needed: float) -> Verdict:
        """What becomes of an architecture by its accuracy on a rung, where ``needed`` must be exceeded.

        One that will not exceed it is given up; now and then it is evaluated all the same, to audit the bounds.
        """
        if self.bounds[rung].upper(accuracy) > needed:
            return "goes on"
        return "audited" if self.audits(key, needed) else "given up"

    def expected(self, rung: str, accuracy: float) -> dict[str, float]:
        """The metric that notes what is expected of one that is given up; none where nobody learns from it."""
        return {EXPECTED: self.bounds[rung].expected(accuracy)} if self.teaches else {}

    def audits(self, key: str, needed: float) -> bool:
        """Whether to go on with a hopeless candidate; one that no accuracy would save is not worth it."""
        digest = hashlib.sha256(f"{self.seed} audit {key}".encode()).digest()
        return math.isfinite(needed) and int.from_bytes(digest[:8], "big") < AUDITED_SHARE * 2**64


NO_RACE = Race()


class Racing:
    """What a run has committed on its rungs.

    Args:
        rungs: the oracle's lower ones, cheapest first.
        confidence: of each bound.
        seed: the run's.
        teaches: see ``Race``.
    """

    def __init__(self, rungs: Sequence[str], confidence: float, seed: int, *, teaches: bool = False) -> None:
        self._teaches = teaches
        self.rungs = tuple(rungs)
        self._confidence = confidence
        self._seed = seed
        self._full: deque[float] = deque(maxlen=MOST)
        self._cheap: dict[str, deque[float]] = {rung: deque(maxlen=MOST) for rung in rungs}

    def learns_from(self, metrics: Mapping[str, Any]) -> bool:
        """Whether these are of an individual that was evaluated on every rung."""
        return all(metric_of(rung) in metrics for rung in self.rungs)

    def learn(self, metrics: Mapping[str, Any], accuracy: float) -> None:
        """Take in a committed individual that was evaluated on every rung and in full, once; the newest are kept."""
        if self.learns_from(metrics):
            self._full.append(accuracy)
            for rung in self.rungs:
                self._cheap[rung].append(metrics[metric_of(rung)])

    def forget(self) -> None:
        """Forget every individual."""
        for known in (self._full, *self._cheap.values()):
            known.clear()

    def race(self, threshold: EliminationThreshold) -> Race:
        """The race of the next generation."""
        full = list(self._full)
        bounds = {rung: Bound(list(self._cheap[rung]), full, self._confidence) for rung in self.rungs}
        return Race(self.rungs, bounds, threshold, self._seed, self._teaches)
