"""The end of a run: the winner and what could take its place, timed in the runtime that will run them.

A table predicts; the clock decides. A winner that misses the target by more than the table's interval gives way to the
best of those timed that does not. What was measured is the clock's, so it is journaled once and never measured again:
a run that was killed here ends as it would have. It is outside the digest, for nothing of the search depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from riwoa.hardware.interval import UNKNOWN_INTERVAL
from riwoa.hardware.timed import BUSY, TimedNetwork
from riwoa.run.history import Best, Identity
from riwoa.search.fitness import Objective


def limit_ms(target_ms: float | None, interval: float | None) -> float | None:
    """The most that a winner may take; None without a target."""
    return None if target_ms is None else target_ms * (1 + (UNKNOWN_INTERVAL if interval is None else interval))


def runners_up(winner: Best, front: Iterable[Best]) -> list[Best]:
    """Networks that could take the winner's place, best first: within the limits, where the winner is."""
    others = (n for n in front if n.individual.architecture_key != winner.individual.architecture_key)
    able = [network for network in others if network.feasible or not winner.feasible]
    return sorted(able, key=lambda network: network.rank, reverse=True)


def early(others: Sequence[Best], origin: Identity | None, most: int) -> list[Best]:
    """The others with one of them, whatever its rank, as the last of the first ``most``: people will ask for it."""
    one = [network for network in others if network.origin == origin]
    if most < 1 or not one or one[0] in others[:most]:
        return list(others)
    rest = [network for network in others if network.origin != origin]
    return [*rest[: most - 1], *one, *rest[most - 1 :]]


def accuracy_decides(winner: Best, objective: Objective) -> bool:
    """Whether of files that were judged in 8 bits the most accurate wins.

    Not where the search's winner is beyond a limit: so are the others then, and the furthest may be the most accurate.
    """
    return winner.feasible and objective.raised == "accuracy" and not objective.lowered


def chosen(timed: Sequence[TimedNetwork], most_ms: float | None, *, by_accuracy: bool = False) -> TimedNetwork:
    """The first that keeps the limit, if there is one; the very first where none does, or the clock was unsteady.

    Args:
        timed: the search's winner, then the others, best first.
        most_ms: the limit.
        by_accuracy: the most accurate that does, where files were judged; the first of those that are alike.
    """
    first = timed[0]
    if not first.is_clear:
        return first
    able = list(timed)
    if most_ms is not None:
        able = [network for network in timed if network.is_clear and network.ms <= most_ms] or [first]
    return max(able, key=lambda network: network.accuracy or 0.0) if by_accuracy else able[0]


def next_in_line(timed: Sequence[TimedNetwork], untimed: Iterable[Best], most_ms: float | None) -> list[Best]:
    """Of the others those that would keep the limit if the table erred with them as it did with those timed.

    Empty where one of those timed keeps it, or the clock was unsteady.
    """
    clear = [network for network in timed if network.is_clear]
    if most_ms is None or not timed[0].is_clear or any(network.ms <= most_ms for network in clear):
        return []
    factor = median(network.ms / network.predicted_ms for network in clear)
    return [network for network in untimed if network.metrics["latency_ms"] * factor <= most_ms]


def note_of(
    timed: Sequence[TimedNetwork], winner: TimedNetwork, target_ms: float | None, interval: float | None
) -> str:
    """What people should know of a measurement, in a line; "" where the winner keeps its limit.

    Args:
        timed: the search's winner first.
        winner: the run's.
        target_ms: the latency target.
        interval: of the latency table.
    """
    found, most_ms = timed[0], limit_ms(target_ms, interval)
    if winner.accuracy is not None and found.accuracy is not None and winner.accuracy > found.accuracy:
        return (
            f"as it is deployed the search's winner names {100 * found.accuracy:.2f} % of the validation pictures, "
            f"another of the {len(timed)} finalists {100 * winner.accuracy:.2f} %, and has its place"
        )
    if not found.is_clear:
        return (
            f"the machine was busy: the clock spread by ± {100 * found.spread:.0f} %, more than ± {100 * BUSY:.0f} %, "
            "so nothing is claimed of it"
        )
    if most_ms is None or found.ms <= most_ms:
        return ""
    misses = f"{found.ms:.3f} ms, beyond the target of {target_ms:.3f} ms and the table's interval"
    if winner is not found:
        return f"the search's winner takes {misses}; the best of {len(timed)} timed that does not has its place"
    return f"it takes {misses}, and so do the {len(timed) - 1} others that were timed; riwoactl lut check tells more"
