"""The end of a run: winner and front judged once on pictures that chose nothing, each journaled when it is done.

A judgement is a pure function of the network and the pictures, so it stays outside the run's digest, as evaluations do.
What is journaled is not done again: a run that was killed here goes on with the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from riwoa.log import get_logger
from riwoa.oracle.answers import unpack_answers
from riwoa.oracle.pool import PoolSettings, WorkerPool
from riwoa.oracle.protocol import EvaluationResult, OracleInfo, OracleSpec, Pool, views_of
from riwoa.run.history import Best
from riwoa.run.journal import RunJournal
from riwoa.search.paired import accuracy_of
from riwoa.search.pareto import ParetoPoint
from riwoa_storage.events import NetworkJudged
from riwoa_storage.records import IndividualRecord

_log = get_logger("judging")
_SLOWER = 10  # than an evaluation of the search, which may be in bfloat16 and of fewer pictures
_SHARE_OF_REST = 0.5  # of what is left before a deadline; the export needs some, too

Told = Callable[[int, int], None]  # done, of how many


@dataclass(frozen=True, slots=True)
class Judges:
    """Who judges, and how many at a time."""

    spec: OracleSpec
    settings: PoolSettings
    make: Callable[[OracleSpec, PoolSettings], Pool] = WorkerPool

    @property
    def pool(self) -> Pool:
        """Workers that are not started yet."""
        timeout_s = self.settings.evaluation_timeout_s * _SLOWER
        return self.make(self.spec, replace(self.settings, evaluation_timeout_s=timeout_s))


def unjudged(
    journal: RunJournal, winner: Best, front: Iterable[ParetoPoint], others: Iterable[Best] = ()
) -> list[IndividualRecord]:
    """The winner and the front, but for what is judged already: the winner first, then by nearness in latency.

    ``others``: the winners for further devices, which come after the first. Reads the journal: for a thread.
    """
    target_ms = float(winner.metrics["latency_ms"])
    near = sorted(front, key=lambda point: (abs(point.latency_ms - target_ms), point.latency_ms, point.key))
    winners = {best.individual.architecture_key: best.origin for best in (winner, *others)}
    places = {**winners, **{point.key: point.origin for point in near}}
    with journal.reader() as reader:
        events = reader.events(journal.run_id, NetworkJudged)
        judged = {event.architecture_key for event in events if event.error is None}
        wanted = [place for key, place in places.items() if key not in judged]
        found = [reader.individual(journal.run_id, *place) for place in wanted]
    return [individual for individual in found if individual is not None]


async def judge_networks(
    journal: RunJournal,
    judges: Judges,
    networks: Sequence[IndividualRecord],
    *,
    left_s: Callable[[], float | None] = lambda: None,
    tell: Told = lambda done, total: None,
) -> None:
    """Judge the first of these networks, and the others while there is time.

    Args:
        journal: where each is written when it is done.
        judges: who judges.
        networks: the most wanted first.
        left_s: seconds to the deadline; None without one.
        tell: called at each that is done.

    Raises:
        RiwoaError: the judges cannot start, or all fail.
    """
    if not networks:
        return
    async with judges.pool as pool:
        info, done = await pool.start(), 0

        async def judge(individual: IndividualRecord) -> None:
            nonlocal done
            key = individual.architecture_key
            result = await (await pool.submit(key, individual.architecture, judging=True))
            event = _judged(key, result, info, views_of(judges.spec.to_json()))
            if event.error is not None:
                _log.warning("network_not_judged", architecture=key, reason=event.error)
            await journal.writer.put_event(replace(event, run_id=journal.run_id))
            done += 1
            tell(done, len(networks))

        tell(0, len(networks))
        await judge(networks[0])
        rest_s = left_s()
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(None if rest_s is None else max(0.0, rest_s * _SHARE_OF_REST)),
                asyncio.TaskGroup() as group,
            ):
                for individual in networks[1:]:
                    group.create_task(judge(individual), name=f"judge {individual.architecture_key}")
        if done < len(networks):
            _log.info("judging_cut_by_deadline", judged=done, of=len(networks))


def _judged(key: str, result: EvaluationResult, info: OracleInfo, views: int) -> NetworkJudged:
    """What a judgement came to."""
    if result.status != "ok":
        return NetworkJudged(architecture_key=key, error=result.reason or result.status)
    pictures = int(result.metrics["images"]) // views
    accuracy = accuracy_of(unpack_answers(result.correct, pictures, views))
    return NetworkJudged(
        architecture_key=key,
        oracle_version=info.version,
        accuracy=accuracy.value,
        accuracy_error=accuracy.error,
        pictures=pictures,
        views=views,
        correct=result.correct,
    )
