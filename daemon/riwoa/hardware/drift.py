"""Does the device still run as it did when its table was built? Sentinels measured again, and a verdict.

A search that runs all night compares latencies from a table that was measured once. Heat, a power limit, a new driver
or a neighbour that stays can change the device meanwhile. The check measures again a handful of operators and three
whole calibration networks, in seconds, and says what a change would affect.

It is slow to speak: a sentinel counts as drifted only where the whole interval of its ratio lies beyond the tolerance,
and the check as a whole only where a second process, after a pause, finds the same. ``riwoactl help results`` has
the false alarms counted on a busy machine.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from riwoa.errors import UsageError
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.process import ProgressCallback, run_child
from riwoa.hardware.runtime import COMMAND
from riwoa.supernet.geometry import Operator, operators

if TYPE_CHECKING:
    from riwoa.hardware.bench import FloatArray

ROUNDS = 60
TOLERANCE = 0.2
OPERATORS = 6
NETWORKS = 3
BLOCKS_OF_ROUNDS = 6  # the least and the greatest of six hold the median with 1 - 2 / 2**6 = 97 %
_PAUSE_S = 5.0
Verdict = Literal["steady", "unclear", "drifted"]


@dataclass(frozen=True, slots=True)
class Sentinel:
    """How many times the table's time something takes now. For operators relative to ``Drift.operators``, too."""

    name: str
    kind: Literal["network", "operator"]
    ratio: float
    low: float
    high: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Drift:
    """What the sentinels say together.

    ``networks`` is the median ratio of whole networks: the factor by which every latency of the table is off.
    ``operators`` is the median ratio of all operators measured. ``affects`` says in words what no longer holds; it is
    empty unless the verdict is "drifted".
    """

    verdict: Verdict
    networks: float
    operators: float
    sentinels: tuple[Sentinel, ...]
    affects: tuple[str, ...]
    tolerance: float
    rounds: int
    passes: int
    load_average: float | None
    table_sha256: str

    def to_json(self) -> dict[str, Any]:
        """JSON object; ``from_json`` reads it back."""
        return {**asdict(self), "sentinels": [asdict(s) for s in self.sentinels], "affects": list(self.affects)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Drift:
        """The check that ``to_json`` wrote."""
        sentinels = tuple(Sentinel(**s) for s in data["sentinels"])
        return Drift(**{**data, "sentinels": sentinels, "affects": tuple(data["affects"])})


async def check_drift_in_child(
    path: Path,
    *,
    rounds: int = ROUNDS,
    tolerance: float = TOLERANCE,
    pause_s: float = _PAUSE_S,
    progress: ProgressCallback | None = None,
) -> Drift:
    """Measure the sentinels of the table at ``path`` in a process of its own; in a second one if the first sees drift.

    For the daemon: no torch here, a few seconds of one core, and cancelling kills the child. Where memory comes to lie
    is one process's luck, so the second opinion is a process, too.

    Raises:
        RiwoaError: as ``measure_drift``; OracleError when the child dies.
    """
    threads = LatencyTable.load(path).settings.threads
    arguments = ["drift", "--table", str(path), "--rounds", str(rounds), "--tolerance", repr(tolerance)]
    first = Drift.from_json(await run_child(arguments, threads, progress))
    if first.verdict != "drifted":
        return first
    await asyncio.sleep(pause_s)
    return confirmed(first, Drift.from_json(await run_child(arguments, threads, progress)))


def confirmed(first: Drift, second: Drift) -> Drift:
    """The second measurement, "drifted" only in what the first one says as well, in the same direction."""
    before = {s.name: s for s in first.sentinels}

    def judged(s: Sentinel) -> Sentinel:
        other = before.get(s.name)
        same = other is not None and other.verdict == "drifted" and (other.ratio > 1) == (s.ratio > 1)
        return s if s.verdict != "drifted" or same else replace(s, verdict="unclear")

    sentinels = tuple(judged(s) for s in second.sentinels)
    return _summary(replace(second, sentinels=sentinels, passes=first.passes + second.passes))


def measure_drift(
    table: LatencyTable, rounds: int = ROUNDS, tolerance: float = TOLERANCE, progress: ProgressCallback | None = None
) -> Drift:
    """Measure the sentinels once, here. Torch.

    Raises:
        TableError: the table was measured on another device, or has no operators of its own space.
        UsageError: too few rounds for an interval, or a tolerance that is none.
    """
    from riwoa.hardware.bench import undisturbed_ms
    from riwoa.hardware.probe import notes
    from riwoa.hardware.remeasure import known_networks, remeasure, spread

    if rounds < 2 * BLOCKS_OF_ROUNDS or not 0 < tolerance < 10:
        raise UsageError(f"a drift check needs at least {2 * BLOCKS_OF_ROUNDS} rounds and a tolerance such as 0.2")
    if table.settings.runtime == COMMAND:
        raise UsageError("a program that times networks has no sentinels; compare with `riwoactl lut check`")
    networks = spread(known_networks(table), NETWORKS)
    ops = sentinel_operators(table, networks[len(networks) // 2].config)
    found = remeasure(table, [n.config for n in networks], rounds, progress, first=ops)
    typical = found.typical_ratio(table)
    times = found.samples.operators[[found.rows[op] for op in ops]]
    per_network = [sentinel(f"network {n.ms:.3f} ms", "network", row, n.ms, 1.0, tolerance)
                   for n, row in zip(networks, found.samples.networks, strict=True)]  # fmt: skip
    per_operator = [
        sentinel(op.key, "operator", row, table.operator_ms(op), typical, tolerance)
        for op, row in zip(ops, times, strict=True)
    ]
    now = undisturbed_ms(found.samples.networks)
    ratios = sorted(float(ms) / n.ms for ms, n in zip(now, networks, strict=True))
    return _summary(
        Drift(
            verdict="steady",
            networks=ratios[len(ratios) // 2],
            operators=typical,
            sentinels=(*per_network, *per_operator),
            affects=(),
            tolerance=tolerance,
            rounds=found.samples.operators.shape[1],
            passes=1,
            load_average=notes()["load_average"],
            table_sha256=table.sha256,
        )
    )


def sentinel_operators(table: LatencyTable, config: Any) -> list[Operator]:
    """The slowest operator of each sort (kind, kernel, with or without squeeze-and-excitation) in a network.

    The slowest sorts first; at most six.
    """
    slowest: dict[tuple[str, int, bool], Operator] = {}
    for op in sorted(operators(config, table.backbone), key=table.operator_ms, reverse=True):
        slowest.setdefault((op.kind, op.kernel, op.se), op)
    return list(slowest.values())[:OPERATORS]


def sentinel(
    name: str,
    kind: Literal["network", "operator"],
    times_ms: FloatArray,
    table_ms: float,
    level: float,
    tolerance: float,
) -> Sentinel:
    """The ratio of one item's (rounds,) times to the table's, and the verdict on it.

    The interval runs from the least to the greatest tenth percentile of six runs of consecutive rounds: without a word
    about distributions, it holds their median with 97 %. Operators are judged relative to ``level`` as well, the ratio
    that is typical of them: what slows them all alike shows in the networks, and one that stays as it was while others
    slow down is not the one that drifted.
    """
    import numpy as np

    from riwoa.hardware.bench import undisturbed_ms

    ratio = float(undisturbed_ms(times_ms[None])[0]) / table_ms
    blocks = [float(undisturbed_ms(b[None])[0]) / table_ms for b in np.array_split(times_ms, BLOCKS_OF_ROUNDS)]
    low, high = min(*blocks, ratio), max(*blocks, ratio)
    verdict = judge(low / level, high / level, tolerance)
    if verdict == "drifted" and judge(low, high, tolerance) != "drifted":
        verdict = "unclear"
    return Sentinel(name, kind, ratio, low, high, verdict)


def judge(low: float, high: float, tolerance: float) -> Verdict:
    """The verdict on a ratio's interval: wholly beyond the tolerance, wholly within, or neither."""
    most = 1 + tolerance
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unclear"
    if low > most or high < 1 / most:
        return "drifted"
    return "steady" if low >= 1 / most and high <= most else "unclear"


def _summary(drift: Drift) -> Drift:
    """The check with the verdict of all its sentinels, and what that affects."""
    affects = tuple(_affected(drift))
    verdicts = {s.verdict for s in drift.sentinels}
    verdict: Verdict = "drifted" if affects else "steady" if verdicts == {"steady"} else "unclear"
    return replace(drift, verdict=verdict, affects=affects)


def _affected(drift: Drift) -> Sequence[str]:
    networks = [s for s in drift.sentinels if s.kind == "network"]
    moved = [s for s in networks if s.verdict == "drifted"]
    found = []
    if 2 * len(moved) > len(networks):
        found.append(f"every latency and the target: networks take {drift.networks:.2f} times what the table says")
    changed = [s for s in drift.sentinels if s.kind == "operator" and s.verdict == "drifted"]
    found += [
        f"the ranking of networks with {s.name}: it takes {s.ratio:.2f} times what the table says, "
        f"operators in general {drift.operators:.2f}"
        for s in changed
    ]
    return found
