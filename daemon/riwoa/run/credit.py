"""What each operator is worth: proposals, wins over the parent, gain. From committed individuals, so deterministic.

The tallies lie in the counters of each generation; seconds are wall times, joined when somebody looks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from riwoa.search.bandit import DISCOUNT
from riwoa_storage.reader import JournalReader

SLICE = 256  # generations whose seconds are counted at a time
CONFIDENCE_Z = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True, slots=True)
class Tally:
    """An operator's proposals so far, of those that had a parent to beat."""

    proposals: int = 0  # asked for: a request whose reply was due, or a candidate
    valid: int = 0  # that became a candidate
    repeats: int = 0  # of an architecture evaluated before: they cost nothing and find nothing
    wins: int = 0  # fitter than the parent by more than the success margin
    gain: float = 0.0  # fitness of child - fitness of parent, summed over the wins
    recent_proposals: float = 0.0  # discounted, for the bandit
    recent_wins: float = 0.0
    share: float | None = None  # of the pool that was chosen from, its like included; None where none is learned

    @property
    def recent(self) -> tuple[float, float]:
        """Discounted (wins, proposals)."""
        return self.recent_wins, self.recent_proposals

    def later(self, new: Tally) -> Tally:
        """This tally after one more generation."""
        return Tally(
            proposals=self.proposals + new.proposals,
            valid=self.valid + new.valid,
            repeats=self.repeats + new.repeats,
            wins=self.wins + new.wins,
            gain=self.gain + new.gain,
            recent_proposals=DISCOUNT * self.recent_proposals + new.proposals,
            recent_wins=DISCOUNT * self.recent_wins + new.wins,
        )


@dataclass(frozen=True, slots=True)
class Child:
    """A candidate's outcome beside its parent's; ``gain`` is None where either could not be evaluated."""

    operator: str
    gain: float | None
    won: bool
    repeat: bool


Tallies = Mapping[str, Tally]


def tallied(
    before: Tallies, children: Iterable[Child], unusable: Mapping[str, int], shares: Mapping[str, float]
) -> dict[str, Tally]:
    """The tallies after a generation.

    Args:
        before: the generation.
        children: of the generation.
        unusable: counts proposals that came to no candidate, by operator.
        shares: of the pool, by operator (``riwoa.search.base.Strategy.shares``).
    """
    new = {operator: Tally(proposals=count) for operator, count in unusable.items() if count}
    for c in children:
        t = new.get(c.operator, Tally())
        new[c.operator] = Tally(
            proposals=t.proposals + 1,
            valid=t.valid + 1,
            repeats=t.repeats + c.repeat,
            wins=t.wins + c.won,
            gain=t.gain + (c.gain if c.won and c.gain is not None else 0.0),
        )
    found = {}
    for name in sorted({*before, *new}):
        last = before.get(name, Tally())
        found[name] = replace(last.later(new.get(name, Tally())), share=shares.get(name, last.share))
    return found


def tallies_from_json(data: Mapping[str, Mapping[str, Any]]) -> dict[str, Tally]:
    """The tallies of a journaled generation; what another version counted besides is left out."""
    known = {f.name for f in fields(Tally)}
    return {name: Tally(**{k: v for k, v in row.items() if k in known}) for name, row in data.items()}


def tallies_to_json(tallies: Tallies) -> dict[str, dict[str, Any]]:
    """As journaled."""
    found = {name: asdict(tally) for name, tally in tallies.items()}
    return {name: {k: v for k, v in row.items() if v is not None} for name, row in found.items()}


def wilson(wins: int, proposals: int, z: float = CONFIDENCE_Z) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson, 1927); (0, 1) without a proposal."""
    if proposals == 0:
        return 0.0, 1.0
    p, n = wins / proposals, proposals
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def credit_rows(
    tallies: Tallies, seconds: Mapping[str, float], leaders: Mapping[str, int] | None = None
) -> dict[str, dict[str, Any]]:
    """For those who look on: each operator's counts, win rate of its proposals with interval, and gain.

    ``mean_gain`` is what a proposal brought on average, losers bringing nothing: they leave the population.

    Args:
        tallies: by operator.
        seconds: what its proposals cost, choosing, writing, evaluation and training together; gain per second is None
            where that is not known.
        leaders: how often the leader came from it, an operator without a parent to beat, too; None where nobody knows.
    """
    rows = {}
    for name in sorted({*tallies, *(leaders or {})}):
        t = tallies.get(name, Tally())
        low, high = wilson(t.wins, t.proposals)
        spent_s = seconds.get(name, 0.0)
        rows[name] = {
            "proposals": t.proposals,
            "valid": t.valid,
            "repeats": t.repeats,
            "wins": t.wins,
            "win_rate": t.wins / max(1, t.proposals),
            "win_rate_low": low,
            "win_rate_high": high,
            "mean_gain": t.gain / max(1, t.proposals),
            "share": t.share,
            "seconds": spent_s,
            "gain_per_s": t.gain / spent_s if spent_s > 0 else None,
            "leaders": None if leaders is None else leaders.get(name, 0),
        }
    return rows


class OperatorSeconds:
    """What each operator's proposals cost in wall time, and which leaders they brought for it.

    Choosing and evaluations, and for the language model's the writing and the trainings too, failed ones included:
    without them its later proposals would not be what they are.

    Args:
        journal_path: where the times lie; read for generations that were committed since the last count.
        run_id: the run.
        oracle_versions: whose evaluations count: the oracle's, in full and on its lower rungs.
    """

    def __init__(self, journal_path: Path, run_id: int, oracle_versions: Sequence[str]) -> None:
        self._path = journal_path
        self._run_id = run_id
        self._versions = tuple(oracle_versions)
        self._generations = 0  # counted so far
        self._seconds: Counter[str] = Counter()
        self._leaders: Counter[str] = Counter()
        self.model_s = 0.0  # of writing and training alone, as far as they are counted
        self.model_leaders = 0  # leaders that came of a reply

    @property
    def leaders(self) -> Mapping[str, int]:
        """How often a new leader came from an operator, as far as that is counted."""
        return dict(self._leaders)

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds by operator, as far as they are counted."""
        return dict(self._seconds)

    def count(self, generation: int) -> bool:
        """Count a slice of the generations before this one, all of them committed; whether more are left.

        Reads the journal: for a thread, since a run that is continued has many to count.
        """
        start, end = self._generations, min(generation, self._generations + SLICE)
        if end <= start:
            return False
        with JournalReader(self._path) as reader:
            each = [reader.seconds.evaluating(self._run_id, v, start, end) for v in self._versions]
            each.append(reader.seconds.choosing(self._run_id, start, end))
            leaders = reader.history.leaders(self._run_id, start, end)
            model_s = reader.seconds.writing(self._run_id, start, end)
            model_s += reader.seconds.training(self._run_id, start, end)
        self._generations = end
        self.model_s += model_s
        for spent in (*each, {"semantic": model_s}):
            self._seconds.update(spent)
        for (operator, of_request), count in leaders.items():
            self._leaders[operator] += count
            self.model_leaders += count if of_request else 0
        return end < generation
