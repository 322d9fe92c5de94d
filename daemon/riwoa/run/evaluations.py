"""From architectures to outcomes: what is committed is free, what is stored is not repeated, the rest is evaluated.

Hit or miss is decided by committed generations alone (ruling 4): an evaluation that a killed daemon stored but never
committed is used again without a word, and counts as the evaluation that it was.

Where the oracle has lower rungs, each candidate is raced up them: evaluated on the cheapest first, and given up there
if, by what is committed, it can change nothing (``riwoa.search.race``). What a rung gave is stored and counted like any
evaluation; an accuracy is always a full one.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from riwoa.log import get_logger
from riwoa.oracle.protocol import OWN_ERROR, EvaluationBackend, EvaluationResult
from riwoa.patience import patiently
from riwoa.search.fitness import Objective
from riwoa.search.racing import EXPECTED, NO_RACE, Race, metric_of
from riwoa.text import printable
from riwoa_storage.errors import RowDamagedError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import EvaluationRecord, IndividualRecord, IndividualStatus
from riwoa_storage.writer import JournalWriter

_log = get_logger("evaluations")
_T = TypeVar("_T")
_MOST_NAMES = 120  # characters of the metrics' names that a message repeats


ACCURACY = Objective(None)


@dataclass(frozen=True, slots=True)
class EvaluationOutcome:
    """Raw metrics of an architecture, or why there are none. ``hit``: known from a committed generation.

    ``dropped``: given up on a lower rung, and these are the metrics so far.
    """

    metrics: Mapping[str, Any]
    error: str | None
    hit: bool
    dropped: bool = False

    @property
    def ok(self) -> bool:
        """Whether it was evaluated in full."""
        return self.error is None and not self.dropped

    @property
    def status(self) -> IndividualStatus:
        """As journaled."""
        return "failed" if self.error is not None else "dropped" if self.dropped else "ok"


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """An architecture to evaluate; ``needed`` is the accuracy that it must exceed to change anything."""

    key: str
    architecture: Mapping[str, Any]
    needed: float = -math.inf


_DERIVED = ("predicted", "predicted_sd", EXPECTED)  # metrics that no evaluation gave


def outcome_of(rows: Sequence[IndividualRecord]) -> EvaluationOutcome:
    """What the evaluation of an architecture has given, by its committed individuals, at least one, oldest first.

    The first that was not given up stays; of what was given up, every rung.
    """
    rungs: dict[str, Any] = {}
    for i in rows:
        raw = {name: value for name, value in i.metrics.items() if name not in _DERIVED}
        if i.status != "dropped":
            return EvaluationOutcome(raw, i.error if i.status == "failed" else None, hit=True)
        rungs |= raw
    return EvaluationOutcome(rungs, None, hit=True, dropped=True)


class EvaluationRound:
    """One generation's evaluations: each architecture is worked for once, whenever it is added."""

    def __init__(self, evaluations: Evaluations, group: asyncio.TaskGroup | Tasks, race: Race) -> None:
        self._evaluations = evaluations
        self._group = group
        self._race = race
        self._committed: dict[str, EvaluationOutcome] = {}  # of the keys that were added
        self._fresh: dict[str, EvaluationOutcome] = {}
        self._tasks: dict[str, asyncio.Task[EvaluationOutcome]] = {}
        self._needed: dict[str, float] = {}  # by key, of whoever asks least of it

    async def add(self, wanted: Sequence[EvaluationRequest]) -> None:
        """Begin the evaluation of what is neither committed nor in this round already; does not wait for it."""
        keys = dict.fromkeys(w.key for w in wanted)
        committed, stored = await self._evaluations.past(keys, self._race.rungs)
        self._committed |= committed
        new: dict[str, EvaluationRequest] = {}
        for w in wanted:
            if self._settled(w.key) or w.key in self._fresh:
                continue
            if w.key in self._needed and w.needed >= self._needed[w.key]:
                continue
            self._needed[w.key] = w.needed
            if w.key in self._tasks:
                again = self._evaluations.work_on(self._tasks[w.key], w, self._race, self._committed.get(w.key))
                self._tasks[w.key] = self._group.create_task(again, name=f"evaluate {w.key} again")
            else:
                new[w.key] = w
        for key, w in new.items():
            known = stored.get((None, key))
            if known is not None and not self._race.rungs:
                self._fresh[key] = EvaluationOutcome(known, None, False)
            else:
                work = self._evaluations.work(w, self._race, stored, self._committed.get(key))
                self._tasks[key] = self._group.create_task(work, name=f"evaluate {key}")

    def _settled(self, key: str) -> bool:
        """Whether it has an outcome that stays: one given up is raced again, from the rungs that it has."""
        return key in self._committed and not self._committed[key].dropped

    def settle(self) -> None:
        """Take the results of those that are done."""
        self._fresh |= {key: task.result() for key, task in self._tasks.items() if task.done()}

    async def arrived(self, keys: Iterable[str], needed: Iterable[str] = ()) -> set[str]:
        """Which of these, which were added, have an outcome by the time when one, and all that are ``needed``, have.

        Raises:
            RiwoaError: nothing can be evaluated any more.
        """
        wanted = set(keys)
        if all(key in self._tasks for key in wanted):
            await asyncio.wait([self._tasks[key] for key in wanted], return_when=asyncio.FIRST_COMPLETED)
        if late := [self._tasks[key] for key in needed if key in self._tasks]:
            await asyncio.wait(late)
        self.settle()
        return {key for key in wanted if key not in self._tasks or key in self._fresh}

    def let_go(self, keys: Iterable[str]) -> None:
        """Forget these: what came of them is committed."""
        for key in keys:
            for held in (self._committed, self._fresh, self._tasks, self._needed):
                held.pop(key, None)

    def outcomes(self, keys: Sequence[str]) -> list[EvaluationOutcome]:
        """Outcomes by key, in order, once the round is over; the second of two equal keys is a hit of the first.

        So hits follow from the order of the keys and from committed generations, not from when they were added.
        """
        found, seen = [], set()
        for key in keys:
            known = self._fresh.get(key) or self._committed[key]
            found.append(replace(known, hit=known.hit or key in seen))
            seen.add(key)
        return found


class Tasks:
    """Tasks that outlive the generation that began them."""

    def __init__(self) -> None:
        self._all: set[asyncio.Task[Any]] = set()

    def create_task(self, work: Coroutine[Any, Any, _T], *, name: str) -> asyncio.Task[_T]:
        """Begin one; whoever awaits it sees what it raises."""
        task = asyncio.create_task(work, name=name)
        self._all.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._all.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: all of them may fail at once, and the first is told

    async def cancel(self) -> None:
        """End those that are left."""
        left = list(self._all)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


Stored = Mapping[tuple[str | None, str], Mapping[str, Any]]  # (rung or None, architecture key) -> metrics


class Evaluations:
    """Evaluates a generation's architectures, storing each result as it arrives.

    Args:
        backend: where misses go.
        journal: where results are stored; failures are not, they are committed with their generation.
        journal_path: read for what is committed, and for results that an earlier life stored and never committed.
        oracle_version: what the results hold for.
        run_id: whose committed generations decide what is a hit; None for evaluations of no run's generations.
        on_result: called at each result that was worked for, on whatever rung.
        on_full: called at each that was one in full.
        objective: names what must be among the metrics.
    """

    def __init__(
        self,
        backend: EvaluationBackend,
        journal: JournalWriter,
        journal_path: Path,
        oracle_version: str,
        on_result: Callable[[], None] = lambda: None,
        on_full: Callable[[], None] = lambda: None,
        *,
        run_id: int | None = None,
        objective: Objective = ACCURACY,
    ) -> None:
        self._backend = backend
        self._journal = journal
        self._path = journal_path
        self.oracle_version = oracle_version
        self._on_result = on_result
        self._on_full = on_full
        self._run_id = run_id
        self._objective = objective
        self.outstanding = 0  # worked for at this moment, or waiting for it

    def known(self, keys: Iterable[str]) -> set[str]:
        """Those of these architectures that have an outcome in a committed generation; reads the journal."""
        if self._run_id is None:
            return set()
        with JournalReader(self._path) as reader:
            return reader.by_key.committed_keys(self._run_id, keys)

    async def evaluate(self, wanted: Sequence[EvaluationRequest]) -> list[EvaluationOutcome]:
        """Outcomes in full, in order; the second of two equal keys is a hit of the first.

        Cancelling it cancels what is under way.
        """
        async with self.round() as work:
            await work.add(wanted)
        return work.outcomes([w.key for w in wanted])

    @asynccontextmanager
    async def round(self, race: Race = NO_RACE) -> AsyncIterator[EvaluationRound]:
        """Work of one generation, that may be added in parts; leaving the context waits for all of it."""
        async with asyncio.TaskGroup() as group:
            yield (work := EvaluationRound(self, group, race))
        work.settle()

    async def past(self, keys: Iterable[str], rungs: Sequence[str]) -> tuple[dict[str, EvaluationOutcome], Stored]:
        """What committed generations say of these keys; and of those not settled, what was stored besides."""
        return await patiently(lambda: self._past(list(keys), rungs))

    def _past(self, keys: Sequence[str], rungs: Sequence[str]) -> tuple[dict[str, EvaluationOutcome], Stored]:
        with JournalReader(self._path) as reader:
            rows = reader.by_key.committed_outcomes(self._run_id, keys) if self._run_id is not None else {}
            committed = {key: outcome_of(of) for key, of in rows.items()}
            unsettled = [key for key in keys if key not in committed or committed[key].dropped]
            return committed, self._stored(reader, unsettled, rungs)

    def _stored(self, reader: JournalReader, keys: Sequence[str], rungs: Sequence[str]) -> Stored:
        """Results that an earlier life stored and never committed; they count as the evaluations that they were."""
        found = {}
        for rung in (*rungs, None):
            for key, record in self._records(reader, keys, rung).items():
                if record.status == "ok" and self._unusable(record.metrics, rung) is None:
                    found[rung, key] = record.metrics
        return found

    def _records(self, reader: JournalReader, keys: Sequence[str], rung: str | None) -> Mapping[str, EvaluationRecord]:
        version = version_at(self.oracle_version, rung)
        try:
            return reader.by_key.evaluations_of(version, keys)
        except RowDamagedError:
            pass
        found = {}
        for key in keys:
            try:
                record = reader.by_key.evaluation(version, key)
            except RowDamagedError as error:  # only a cache: evaluated again, and that replaces it
                _log.warning("stored_evaluation_left_out", architecture=key, rung=rung, reason=str(error))
                continue
            if record is not None:
                found[key] = record
        return found

    async def work_on(
        self,
        before: asyncio.Task[EvaluationOutcome],
        wanted: EvaluationRequest,
        race: Race,
        known: EvaluationOutcome | None,
    ) -> EvaluationOutcome:
        """Race one on that a second candidate of the round asks less of, if the first gave it up."""
        found = await before
        if not found.dropped:
            return found
        _, stored = await self.past([wanted.key], race.rungs)
        return await self.work(wanted, race, stored, known)

    async def work(
        self, wanted: EvaluationRequest, race: Race, stored: Stored, known: EvaluationOutcome | None
    ) -> EvaluationOutcome:
        """Race an architecture up the rungs, and store what each gives; ``known``: what is committed of it."""
        metrics: dict[str, Any] = {}
        fresh = known is None  # whether a rung had to be asked that no committed generation knows
        for rung in race.rungs:
            name = metric_of(rung)
            if known is not None and name in known.metrics:
                metrics[name] = known.metrics[name]
            else:
                fresh = True
                found, error = await self._result(wanted, rung, stored)
                if error is not None and error.startswith(OWN_ERROR):
                    continue  # a row without its low fidelity, say: what is wrong with the rest, the rest will tell
                if error is not None:
                    return EvaluationOutcome({}, error, False)
                value = self._objective.value(found)
                if math.isnan(value):
                    continue  # what is to be raised is known without an evaluation
                metrics[name] = value
            verdict = race.verdict(rung, wanted.key, metrics[name], wanted.needed)
            if verdict == "given up":
                expected = race.expected(rung, metrics[name])
                return EvaluationOutcome({**metrics, **expected}, None, not fresh, dropped=True)
            if verdict == "audited":
                metrics["audited"] = wanted.needed
        found, error = await self._result(wanted, None, stored)
        return EvaluationOutcome({**found, **metrics} if error is None else {}, error, False)

    async def _result(
        self, w: EvaluationRequest, rung: str | None, stored: Stored
    ) -> tuple[Mapping[str, Any], str | None]:
        """Metrics on a rung, or in full (None), and why there are none."""
        known = stored.get((rung, w.key))
        if known is not None:
            return known, None
        self.outstanding += 1
        try:
            job_id = w.key if rung is None else f"{w.key}@{rung}"
            result = await (await self._backend.submit(job_id, w.architecture, rung))
        finally:
            self.outstanding -= 1
        error = (result.reason or result.status) if result.status != "ok" else self._unusable(result.metrics, rung)
        if error is None:
            await self._journal.put_evaluation(self._record(w, rung, result))
        else:
            _log.warning("evaluation_failed", architecture=w.key, rung=rung, reason=error, attempts=result.attempts)
        self._on_result()
        if rung is None:
            self._on_full()
        return (result.metrics, None) if error is None else ({}, error)

    def _unusable(self, metrics: Mapping[str, Any], rung: str | None) -> str | None:
        """Why metrics on a rung, or in full (None), cannot be judged."""
        needed = self._objective.metrics if rung is None else self._objective.metrics[:1]
        return _unusable(metrics, [name for name in needed if name not in self._objective.known])

    def _record(self, w: EvaluationRequest, rung: str | None, result: EvaluationResult) -> EvaluationRecord:
        return EvaluationRecord(
            oracle_version=version_at(self.oracle_version, rung),
            architecture_key=w.key,
            architecture=w.architecture,
            status="ok",
            metrics=result.metrics,
            error=None,
            attempts=result.attempts,
            worker=result.worker,
            duration_s=result.duration_s,
            created_unix_s=time.time(),
        )


def version_at(oracle_version: str, rung: str | None) -> str:
    """What results on a lower rung hold for, and of a full evaluation (None)."""
    if rung is None:
        return oracle_version
    return hashlib.sha256(f"{oracle_version} on rung {rung}".encode()).hexdigest()


def _unusable(metrics: Mapping[str, Any], needed: Sequence[str]) -> str | None:
    """Why metrics cannot be ranked: one that is needed is missing or not finite, or the accuracy is no fraction."""
    missing = [name for name in needed if name not in metrics]
    if missing:
        gave = printable(", ".join(metrics), _MOST_NAMES) or "nothing"
        return f"the oracle gave no {missing[0]}, which [objective] names; it gave {gave}"
    for name in needed:
        if not isinstance(metrics[name], int | float) or not math.isfinite(metrics[name]):
            return f"{name} is {metrics[name]!r}, which is no finite number"
    accuracy = metrics.get("accuracy")
    if accuracy is not None and (not isinstance(accuracy, int | float) or not 0.0 <= accuracy <= 1.0):
        return f"the accuracy {accuracy!r} is not a fraction"
    return None
