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
from riwoa.run.finalists import (
    Challenger,
    challengers,
    chosen,
    limit_ms,
    next_in_line,
    note_of,
)
from riwoa.run.front import read_front
from riwoa.run.history import Best
from riwoa.run.journal import RunJournal
from riwoa.search.fitness import Objective
from riwoa_storage.events import FinalistsTimed
from riwoa_storage.failpoint import failpoint
from riwoa_storage.records import Json

_log = get_logger("service")
_PAUSE_S = 5.0
_SHARE_OF_REST = 0.5  # of what is left before a deadline; the export needs some, too


@dataclass(frozen=True, slots=True)
class Contest:
    """A run at its end, and who is timed.

    Attributes:
        run: its journal.
        winner: of the search.
        objective: of the search.
        interval: of the latency table.
        most: networks that are timed at once.
        left_s: seconds to the deadline; None without one.
    """

    run: RunJournal
    winner: Best
    objective: Objective
    interval: float | None
    most: int
    left_s: float | None = None


async def time_finalists(contest: Contest, tell: Callable[[str], None]) -> Json:
    """The winner of a run whose search is over, as a generation's row has it: the search's, or what took its place.

    What was journaled is not measured again. Where the run's oracle holds no networks there is nothing to time, and
    nothing is journaled. What fails here takes nothing from what the search has found.

    Args:
        contest: the run.
        tell: told what is done.
    """
    run, winner = contest.run, contest.winner
    known, front = await patiently(lambda: _read(run))
    if known is not None:
        return winner.to_json() if known.leader is None else known.leader
    others = challengers(winner, front, contest.objective)
    try:
        async with asyncio.timeout(None if contest.left_s is None else max(0.0, contest.left_s * _SHARE_OF_REST)):
            runtime, timed = await _timed_in_turns(contest, others, tell)
    except (RiwoaError, TimeoutError) as failed:
        reason = str(failed) or "the deadline left no time"
        _log.warning("finalists_not_timed", reason=reason)
        await run.writer.put_event(FinalistsTimed(run_id=run.run_id, error=reason))
        return winner.to_json()
    if not timed:
        return winner.to_json()
    failpoint("finalists.before_journal")
    event = _event(contest, others, runtime, timed)
    if event.note:
        _log.warning("finalists_timed", note=event.note)
    await run.writer.put_event(event)
    failpoint("finalists.after_journal")
    return winner.to_json() if event.leader is None else event.leader


async def _timed_in_turns(
    contest: Contest, others: Sequence[Challenger], tell: Callable[[str], None]
) -> tuple[str, list[TimedNetwork]]:
    """The runtime in words, and the times of the winner and of the next; where all miss the target, of later ones too.

    No networks where there are none to time.
    """
    rest = contest.most - 1
    first = "{}/{}".format(*contest.winner.origin)
    places = [first, *map(_place, others[:rest])]
    runtime, timed = await _timed(contest.run, places, tell)
    if timed and not timed[0].is_clear:  # perhaps something that is over in a moment
        await asyncio.sleep(_PAUSE_S)
        runtime, timed = await _timed(contest.run, places, tell)
    if not timed:
        return runtime, []
    line = next_in_line(timed, others[rest:], limit_ms(contest.objective.latency_target_ms, contest.interval))
    if line:
        timed += (await _timed(contest.run, [_place(c) for c in line[: max(1, rest)]], tell))[1]
    return runtime, timed


def _event(
    contest: Contest, others: Sequence[Challenger], runtime: str, timed: Sequence[TimedNetwork]
) -> FinalistsTimed:
    """What the clock said, and who is the winner by it."""
    target_ms, interval = contest.objective.latency_target_ms, contest.interval
    by_accuracy = contest.objective.raised == "accuracy" and not contest.objective.lowered
    winner = chosen(timed, limit_ms(target_ms, interval), by_accuracy=by_accuracy)
    return FinalistsTimed(
        run_id=contest.run.run_id,
        networks=tuple(network.to_json() for network in timed),
        runtime=runtime,
        target_ms=target_ms,
        interval=interval,
        leader=None if winner is timed[0] else _leader(contest, winner, others),
        note=note_of(timed, winner, target_ms, interval),
    )


def _read(run: RunJournal) -> tuple[Finalists | None, list[Challenger]]:
    """What the clock said before, and the front. For a thread."""
    with run.reader() as reader:
        front = read_front(reader, reader.run(run.run_id))
        rows = [(network.point.origin[0], network.individual) for network in front.networks]
        return read_finalists(reader, run.run_id), rows


async def _timed(run: RunJournal, places: Sequence[str], tell: Callable[[str], None]) -> tuple[str, list[TimedNetwork]]:
    """The runtime in words, and the times of networks in a process of their own."""

    def told(event: dict[str, Any]) -> None:
        tell(f"timing {len(places)} finalists: round {event['done']} of {event['total']}")

    tell(f"making {len(places)} finalists to time them")
    arguments = [str(run.path), str(run.run_id), *places]
    found = await run_job("riwoa.service.timing", arguments, 1, "the timing of the finalists", told)
    return found["runtime"], [TimedNetwork.from_json(row) for row in found["networks"]]


def _place(challenger: Challenger) -> str:
    return f"{challenger[0]}/{challenger[1].slot}"


def _leader(contest: Contest, network: TimedNetwork, others: Sequence[Challenger]) -> Json:
    """A network as a generation's row has its leader."""
    individual = next(i for generation, i in others if (generation, i.slot) == network.origin)
    value, load = contest.objective.standing(individual.metrics)
    fitness, feasible = float(contest.objective.fitness(value, load)), bool(contest.objective.feasible(load))
    return Best(network.origin[0], individual, fitness, feasible, contest.winner.target_ms).to_json()
