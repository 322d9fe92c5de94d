"""``riwoactl time``: networks of a run by the clock, as they would be exported."""

from __future__ import annotations

import asyncio
from typing import Any

from riwoa.console.bar import bar
from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit
from riwoa.ctl.past import ARCH_HELP, add_run, candidate
from riwoa.errors import InputError, UsageError
from riwoa.hardware.timed import BUSY, TimedNetwork
from riwoa.ipc.job import run_job
from riwoa.paths import client_state
from riwoa_storage.history import PlacedIndividual
from riwoa_storage.reader import JournalReader

_DESCRIPTION = """Times networks of a run on this device, one after the other in turns, in the runtime of the state's
latency table and as they would be exported: the best, or those that are named. Beside each time stands where another
process will find it, and what the table said. Nothing is journaled, and the search may go on, though it disturbs."""
_BUSY_WORDS = "the machine is busy; these times mean little: end other work (or `riwoactl pause`) and time again"


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Time them and print the times.

    Raises:
        InputError: one is not in the journal, or the run's kind of oracle has no networks to time.
        RiwoaError: one cannot be made or timed.
    """
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("arch", nargs="*", metavar="ARCH", help=f"{ARCH_HELP} (default: best)")
    add_run(parser)
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    with JournalReader(paths.journal) as reader:
        found = [candidate(reader, word, given.run) for word in given.arch or ["best"]]
    runs = sorted({i.run_id for i in found})
    if len(runs) > 1:
        raise UsageError(f"these are of runs {', '.join(map(str, runs))}; time those of one run at once")
    each = list({i.name: i for i in found}.values())
    arguments = [str(paths.journal), str(runs[0]), *("{}/{}".format(*i.place) for i in each)]
    with bar("timing", "round") as advance:
        job = run_job("riwoa.service.timing", arguments, 1, "the timing", lambda e: advance(e["done"], e["total"], ""))
        told = asyncio.run(job)
    if not told["networks"]:
        raise InputError(f"run {runs[0]} has no networks to time: its oracle answers from a table or a predictor")
    timed = [TimedNetwork.from_json(row) for row in told["networks"]]
    data = {
        "run_id": runs[0],
        "runtime": told["runtime"],
        "networks": [{"name": i.name, **t.to_json()} for i, t in zip(each, timed, strict=True)],
    }
    emit(options, data, _text(told["runtime"], each, timed))
    return 0


def _text(runtime: str, each: list[PlacedIndividual], timed: list[TimedNetwork]) -> str:
    """A row each, and whether the clock was steady."""
    rows: list[list[Any]] = [["", "", "ms", "in other processes", "by the table"]]
    for i, t in zip(each, timed, strict=True):
        beyond = t.ms / t.predicted_ms - 1.0
        between = f"{t.low_ms:.3f} to {t.high_ms:.3f}"
        place = "{}/{}".format(*i.place)
        rows.append([place, i.name, f"{t.ms:.3f}", between, f"{t.predicted_ms:.3f} ({100 * beyond:+.0f} %)"])
    busy = "" if all(t.spread <= BUSY for t in timed) else f"\n{_BUSY_WORDS}"
    return f"{runtime}\n{columns(rows)}{busy}"
