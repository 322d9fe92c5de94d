"""Which network of a run is taken when its winner is not wanted: the best within another latency, or by weights.

Whatever a run looked for, its evaluated networks answer this at once: a front holds the best within every latency.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from riwoa.errors import InputError
from riwoa.run.front import Front, FrontNetwork, chosen_run, read_front
from riwoa.search.fitness import METRIC_NAME
from riwoa.text import named_measure, number
from riwoa_storage.reader import JournalReader

LATENCY = "latency"
_WEIGHT = re.compile(rf"({METRIC_NAME})=([0-9]*\.?[0-9]+)")


@dataclass(frozen=True, slots=True)
class Preference:
    """What is wanted of a network.

    Attributes:
        within_ms: the most that it may take; None for any.
        weights: of the metric that the run raises, and of "latency"; {} for the best metric alone.
    """

    within_ms: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything is wanted."""
        return self.within_ms is not None or bool(self.weights)

    def __str__(self) -> str:
        weighed = ",".join(f"{name}={weight:g}" for name, weight in self.weights.items())
        within = "" if self.within_ms is None else f"within {number(self.within_ms)} ms"
        return " ".join(filter(None, (within, weighed and f"by {weighed}")))


def weights(text: str) -> dict[str, float]:
    """The weights that a text such as ``accuracy=0.7,latency=0.3`` names.

    Raises:
        ValueError: it names none, or not two above 0 of which one is of the latency.
    """
    found = [_WEIGHT.fullmatch(word.strip()) for word in text.split(",")]
    named = {match[1]: float(match[2]) for match in found if match is not None}
    if None in found or len(named) != 2 or LATENCY not in named or not min(named.values()) > 0:
        raise ValueError("two weights above 0, such as accuracy=0.7,latency=0.3")
    return named


def preferred(front: Front, wish: Preference) -> FrontNetwork:
    """The evaluated network of a run that is wanted, among those that keep its further limits.

    Raises:
        InputError: no such network was evaluated; says what is attainable.
    """
    run, raised = f"run {front.run.run_id}", front.objective.raised
    if strangers := wish.weights.keys() - {raised, LATENCY}:
        raise InputError(f"{run} raises {raised}; --prefer weighs that and {LATENCY}, not {min(strangers)}")
    if front.networks and not any(map(latency_ms, front.networks)):
        raise InputError(f"{run} knows no latencies, so nothing can be chosen by them; riwoactl pareto shows its front")
    if not front.able:
        why = "keeps its further limits" if front.networks else "was evaluated"
        raise InputError(f"no network of {run} {why} yet; let it run on")
    within = [n for n in front.able if wish.within_ms is None or latency_ms(n) <= wish.within_ms]
    if not within:
        fastest, best = front.able[0], front.able[-1]
        further = any(limit.metric != "latency_ms" for limit in front.objective.limits)
        limited = " of those that keep its further limits" if further else ""
        raise InputError(
            f"no network of {run} takes at most {number(wish.within_ms or 0.0)} ms: the fastest{limited} takes "
            f"{latency_ms(fastest):.3f} ms ({_value(front, fastest)}), the best {latency_ms(best):.3f} ms "
            f"({_value(front, best)}); name a latency from {_rounded_up(latency_ms(fastest))} ms on, or search with "
            "a smaller objective.latency_ms"
        )
    if wish.weights:
        return _nearest(within, wish.weights[raised], wish.weights[LATENCY])
    # Equals all stay on a front: one that was judged says more.
    return max(within, key=lambda n: (n.point.accuracy, n.is_winner, n.test is not None))


def chosen_network(journal: Path, run_id: int | None, wish: Preference) -> FrontNetwork:
    """The network of a run (the latest) that is wanted.

    Raises:
        InputError: as ``preferred``, or no run was begun.
        StorageError: the journal cannot be read, or there is no such run.
    """
    with JournalReader(journal) as reader:
        return preferred(read_front(reader, chosen_run(reader, run_id)), wish)


def latency_ms(network: FrontNetwork) -> float:
    """Of the network, as the search saw it."""
    return float(network.individual.metrics["latency_ms"])


def _nearest(networks: Sequence[FrontNetwork], of_value: float, of_latency: float) -> FrontNetwork:
    """The network whose larger weighted distance from the best value and the least latency is the smallest.

    Distances are shares of what these networks span (weighted Chebyshev: every network of a front is the answer to
    some weights, which holds for no weighted sum).
    """
    values, times_ms = [n.point.accuracy for n in networks], [latency_ms(n) for n in networks]
    span, span_ms = max(values) - min(values) or 1.0, max(times_ms) - min(times_ms) or 1.0

    def distances(n: FrontNetwork) -> tuple[float, float]:
        behind = of_value * (max(values) - n.point.accuracy) / span
        slower = of_latency * (latency_ms(n) - min(times_ms)) / span_ms
        return max(behind, slower), behind + slower

    return min(networks, key=distances)


def _value(front: Front, network: FrontNetwork) -> str:
    return named_measure(front.objective.raised, network.individual.metrics[front.objective.raised])


def _rounded_up(ms: float) -> str:
    return f"{math.ceil(ms * 1000) / 1000:.3f}"
