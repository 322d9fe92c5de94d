"""Have the finalists of a run timed, once, and journal what the clock said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from riwoa.errors import RiwoaError
from riwoa.hardware.timed import Finalists, TimedNetwork, read_finalists
from riwoa.ipc.job import run_job
from riwoa.log import get_logger
from riwoa.patience import patiently
from riwoa.run.finalists import accuracy_decides, chosen, early, limit_ms, next_in_line, note_of, runners_up
from riwoa.run.front import chosen_run, read_front
from riwoa.run.history import Best, Identity
from riwoa.run.journal import RunJournal
from riwoa.search.fitness import Objective
from riwoa.search.pareto import ParetoPoint
from riwoa_storage.events import FinalistsTimed
from riwoa_storage.failpoint import failpoint
from riwoa_storage.records import Json

Tell = Callable[[str, int, int], None]  # in words; how much is done, and of how much: 0 where nobody counts

_log = get_logger("service")
_SHARE_OF_REST = 0.5  # of what is left before a deadline; the export needs some, too


@dataclass(frozen=True, slots=True)
class EndedSearch:
    """A search that is over, and how many of its networks are timed.

    Attributes:
        run: the journal.
        winner: of the search.
        front: of the search, by its objective.
        objective: of the search.
        interval: of the latency table.
        most: networks that are timed at once.
        left_s: seconds to the deadline; None without one.
    """

    run: RunJournal
    winner: Best
    front: Sequence[ParetoPoint]
    objective: Objective
    interval: float | None
    most: int
    left_s: float | None = None


async def time_finalists(search: EndedSearch, tell: Tell) -> Json:
    """The winner of a run whose search is over, as a generation's row has it: the search's, or what took its place.

    What was journaled is not measured again. Where the run's oracle holds no networks there is nothing to time, and
    nothing is journaled. What fails here takes nothing from what the search has found.

    Args:
        search: that is over.
        tell: told what is done.
    """
    run, winner = search.run, search.winner
    known, front, equal = await patiently(lambda: _read(search))
    if known is not None:
        return winner.to_json() if known.leader is None else known.leader
    others = early(runners_up(winner, front), equal, search.most - 1)
    try:
        async with asyncio.timeout(None if search.left_s is None else max(0.0, search.left_s * _SHARE_OF_REST)):
            runtime, timed = await _timed_in_turns(search, others, tell)
    except (RiwoaError, OSError) as failed:
        reason = str(failed) or "the deadline left no time"
        _log.warning("finalists_not_timed", reason=reason)
        await run.writer.put_event(FinalistsTimed(run_id=run.run_id, error=reason))
        return winner.to_json()
    if not timed:
        return winner.to_json()
    failpoint("finalists.before_journal")
    event = _event(search, others, runtime, timed)
    if event.note:
        _log.warning("finalists_timed", note=event.note)
    await run.writer.put_event(event)
    failpoint("finalists.after_journal")
    return winner.to_json() if event.leader is None else event.leader


async def _timed_in_turns(search: EndedSearch, others: Sequence[Best], tell: Tell) -> tuple[str, list[TimedNetwork]]:
    """The runtime in words, and the times of the winner and of the next; where all miss the target, of later ones too.

    No networks where there are none to time.
    """
    rest = search.most - 1
    runtime, timed = await _timed(search.run, [search.winner, *others[:rest]], tell)
    if not timed:
        return runtime, []
    line = next_in_line(timed, others[rest:], limit_ms(search.objective.latency_target_ms, search.interval))
    if line:
        timed += (await _timed(search.run, line[: max(1, rest)], tell))[1]
    return runtime, timed


def _event(search: EndedSearch, others: Sequence[Best], runtime: str, timed: Sequence[TimedNetwork]) -> FinalistsTimed:
    """What the clock said, and who is the winner by it."""
    target_ms, interval = search.objective.latency_target_ms, search.interval
    by_accuracy = accuracy_decides(search.winner, search.objective)
    winner = chosen(timed, limit_ms(target_ms, interval), by_accuracy=by_accuracy)
    leader = None if winner is timed[0] else next(n for n in others if n.origin == winner.origin).to_json()
    return FinalistsTimed(
        run_id=search.run.run_id,
        networks=tuple(network.to_json() for network in timed),
        runtime=runtime,
        target_ms=target_ms,
        interval=interval,
        leader=leader,
        note=note_of(timed, winner, target_ms, interval),
    )


def _read(search: EndedSearch) -> tuple[Finalists | None, list[Best], Identity | None]:
    """What the clock said before, the front, and where the fastest that is as good as the winner stands.

    For a thread.
    """
    run_id = search.run.run_id
    with search.run.reader() as reader:
        asked = [(point.origin[0], reader.individual(run_id, *point.origin)) for point in search.front]
        found = [(at, individual) for at, individual in asked if individual is not None]
        known = read_finalists(reader, run_id)
        equal = read_front(reader, chosen_run(reader, run_id), found).fastest_equal
    front = [Best.of(at, individual, search.objective) for at, individual in found]
    return known, front, None if equal is None else equal.point.origin


async def _timed(run: RunJournal, networks: Sequence[Best], tell: Tell) -> tuple[str, list[TimedNetwork]]:
    """The runtime in words, and the times of networks in a process of their own."""

    def told(event: dict[str, Any]) -> None:
        done, total = event["done"], event["total"]
        tell(f"timing {len(networks)} finalists: round {done} of {total}", done, total)

    tell(f"making {len(networks)} finalists to time them", 0, 0)
    arguments = [str(run.path), str(run.run_id), *("{}/{}".format(*network.origin) for network in networks)]
    found = await run_job("riwoa.service.timing", arguments, 1, "the timing of the finalists", told)
    return found["runtime"], [TimedNetwork.from_json(row) for row in found["networks"]]
