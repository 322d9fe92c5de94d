"""What the search makes of a pool's patches: what it picks, what they lead to, and what that gains.

A patch is picked as it was written, or leads to what is picked: the search's climbs start from it. Both are counted as
the reply's. Now and then what would have been asked without it is evaluated, too
(``cognition.counterfactual_share``): the difference is what the model brings, which wins over a parent do not tell. All
of it follows from committed individuals, and lies in the counters of each generation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

ALPHA = 0.05  # of an interval


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ModelCredit:
    """Counts so far; differences are of fitness.

    Attributes:
        patches: different architectures that joined.
        picked: of them, as they were written.
        led_to: candidates that descend from a patch by the search's climbs.
        picked_won: of the picked, those fitter than their parents.
        led_to_won: likewise.
        judged: of the picked, those of which it is known what the greedy rule would have written.
        greedy: of them, those that it would have written, too.
        pairs: candidates of the model that were evaluated beside what would have been asked in their places.
        gain: differences of the pairs, added up.
        gain_squares: their squares, added up.
    """

    patches: int = 0
    picked: int = 0
    led_to: int = 0
    picked_won: int = 0
    led_to_won: int = 0
    judged: int = 0
    greedy: int = 0
    pairs: int = 0
    gain: float = 0.0
    gain_squares: float = 0.0

    def later(self, new: ModelCredit) -> ModelCredit:
        """This and what another generation adds."""
        return ModelCredit(*(getattr(self, f.name) + getattr(new, f.name) for f in fields(self)))

    @property
    def against_rivals(self) -> Interval | None:
        """Mean difference of the pairs, with Student's interval; None with fewer than two."""
        from scipy.special import stdtrit

        n = self.pairs
        if n < 2:
            return None
        mean = self.gain / n
        variance = max(0.0, self.gain_squares - n * mean**2) / (n - 1)
        half = float(stdtrit(n - 1, 1.0 - ALPHA / 2.0)) * math.sqrt(variance / n)
        return Interval(mean, mean - half, mean + half)


def credit_from_json(data: Mapping[str, Any]) -> ModelCredit:
    """As journaled; what another version counted besides is left out."""
    known = {f.name for f in fields(ModelCredit)}
    return ModelCredit(**{name: value for name, value in data.items() if name in known})


def credit_to_json(credit: ModelCredit) -> dict[str, Any]:
    """As journaled; {} where no patch has joined."""
    return asdict(credit) if credit != ModelCredit() else {}
