"""Time networks of a run as they are exported, in the runtime of its latency table: a child of the daemon.

``python -m riwoa.service.timing JOURNAL RUN GENERATION/SLOT...`` prints one JSON object a line: progress, then
``{"event": "done", ...}`` or ``{"event": "error", ...}``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from riwoa.config.loading import from_journal
from riwoa.export import Place, Winner, found_network, read_winner
from riwoa.hardware.deployed import DeployedNetwork, time_deployed
from riwoa.hardware.interval import UNKNOWN_INTERVAL
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.process import BuildProgress
from riwoa.hardware.runtime import Runtime, Settings, runtime_of, spoken
from riwoa.hardware.timed import BUSY, TimedNetwork
from riwoa.ipc.child import die_with_parent, watch_stdin
from riwoa.ipc.job import answer, report
from riwoa.paths import StatePaths

_PAUSE_S = 5.0


def time_networks(journal: Path, run_id: int, places: Sequence[Place]) -> dict[str, Any]:
    """The runtime in words, and each network's time; no networks where the run's kind of oracle has none to time.

    Raises:
        RiwoaError: the table is gone or another's, or a network cannot be made or timed.
        StorageError: the journal cannot be read.
    """
    table = LatencyTable.load(StatePaths(journal.absolute().parent).latency_table)
    found = [read_winner(journal, run_id, place) for place in places]
    deployed = [network for winner in found if (network := _deployed(winner, journal)) is not None]
    if len(deployed) < len(found):
        return {"runtime": "", "networks": []}
    predicted_ms = [float(winner.leader["metrics"]["latency_ms"]) for winner in found]
    runtime = _runtime(table.settings, found[0])
    measured = time_deployed(deployed, predicted_ms, table.settings, runtime, _tell)
    if measured[0].spread > BUSY:  # perhaps something that is over in a moment
        time.sleep(_PAUSE_S)
        measured = time_deployed(deployed, predicted_ms, table.settings, runtime, _tell)
    share = UNKNOWN_INTERVAL if table.interval is None else table.interval.between_percent / 100
    networks = [
        TimedNetwork(
            str(winner.leader["architecture_key"]),
            place,
            ms,
            latency.ms,
            *latency.between(share),
            latency.spread,
            net.sha256,
            net.accuracy,
        )
        for winner, place, ms, latency, net in zip(found, places, predicted_ms, measured, deployed, strict=True)
    ]
    now = replace(table.settings, runtime_version=runtime.version)
    return {"runtime": spoken(now), "networks": [network.to_json() for network in networks]}


def _deployed(winner: Winner, journal: Path) -> DeployedNetwork | None:
    oracle, found = found_network(winner, journal)
    with oracle.blamed("make a network that is to be timed"):
        return oracle.value.deployed(found)


def _runtime(settings: Settings, winner: Winner) -> Runtime:
    """The table's, with the patience for a program that the run's configuration has."""
    latency = from_journal(winner.config).latency
    return replace(runtime_of(settings), timeout_s=latency.command_timeout_s, retries=latency.command_retries)


def _tell(p: BuildProgress) -> None:
    report("progress", done=p.done, total=p.total)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m riwoa.service.timing", description=__doc__)
    parser.add_argument("--child", action="store_true", help="end with the parent, or when standard input ends")
    parser.add_argument("journal", type=Path)
    parser.add_argument("run", type=int)
    parser.add_argument("places", nargs="+", metavar="GENERATION/SLOT")
    given = parser.parse_args(argv)
    if given.child:
        die_with_parent()
        watch_stdin()
    places = [(int(generation), int(slot)) for generation, slot in (place.split("/") for place in given.places)]
    return answer(lambda: time_networks(given.journal, given.run, places))


if __name__ == "__main__":
    sys.exit(main())
