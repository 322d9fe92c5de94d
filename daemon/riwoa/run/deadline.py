"""When a run must have its answer, from what is configured and what is journaled; and which run is past that."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riwoa.clock import redated
from riwoa.config.hours import deadline_unix_s
from riwoa.config.schema import Run
from riwoa_storage.errors import JournalMissingError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ConfigRevisionRecord, RunRecord

PACE_GENERATIONS = 10  # whose durations tell the pace
_ENDS = ("deadline", "duration_s")  # keys of [run]
_PAUSED_RATIO = 4.0  # to the median


@dataclass(frozen=True, slots=True)
class Deadline:
    """A configured end of a run, and when it was configured.

    Attributes:
        key: of ``[run]``.
        wanted: its value: a local time, or seconds.
        since_unix_s: when it came into force.
    """

    key: str
    wanted: str | float
    since_unix_s: float

    @property
    def due_unix_s(self) -> float:
        """The moment that it means now: a clock that was set since makes a time of day another moment."""
        since_unix_s = redated(self.since_unix_s)
        if isinstance(self.wanted, str):
            return deadline_unix_s(self.wanted, since_unix_s)
        return since_unix_s + self.wanted

    @property
    def setting(self) -> str:
        """As ``--set`` takes it."""
        return f"run.{self.key}={self.wanted}"

    def __str__(self) -> str:
        return self.wanted if isinstance(self.wanted, str) else f"{self.wanted:g} s after the run began, or was told so"


def deadline_of(
    run: Mapping[str, Any], revisions: Sequence[ConfigRevisionRecord], now_unix_s: float
) -> Deadline | None:
    """The deadline of a run by its settings, the earlier where it has both kinds; None without one.

    A time of day means the first after it was configured, however often the daemon is started since; one that is in no
    revision yet was configured now.
    """
    found = []
    for key in _ENDS:
        if run.get(key) is None:
            continue
        since_unix_s = now_unix_s
        for revision in reversed(revisions):
            if revision.config["run"].get(key) != run[key]:
                break
            since_unix_s = revision.created_unix_s
        found.append(Deadline(key, run[key], since_unix_s))
    return min(found, key=lambda deadline: deadline.due_unix_s, default=None)


def training_cut_unix_s(run: Run, now_unix_s: float) -> float | None:
    """When a training before a search is to end with what it has: half of the time to the deadline is the search's."""
    deadline = deadline_of(run.model_dump(), [], now_unix_s)
    if deadline is None:
        return None
    return now_unix_s + max(0.0, deadline.due_unix_s - run.deadline_margin_s - now_unix_s) / 2


class Schedule:
    """When a run must have its answer, and how fast it goes.

    Args:
        now_unix_s: the wall clock.

    Attributes:
        generation_s: durations of the phase's recent generations.
    """

    def __init__(self, now_unix_s: Callable[[], float]) -> None:
        self.generation_s: list[float] = []
        self._now_unix_s = now_unix_s
        self._deadline: Deadline | None = None

    def plan(self, run: Run, revisions: Sequence[ConfigRevisionRecord]) -> None:
        """Take the configured deadline, in force since the revision that brought it."""
        self._deadline = deadline_of(run.model_dump(), revisions, self._now_unix_s())

    @property
    def wanted(self) -> str | None:
        """The deadline in words; None if nobody asked."""
        return None if self._deadline is None else str(self._deadline)

    @property
    def due_unix_s(self) -> float | None:
        """When the answer must be there, None if nobody asked."""
        return None if self._deadline is None else self._deadline.due_unix_s

    @property
    def left_s(self) -> float | None:
        """Seconds until then; None without a deadline."""
        due_unix_s = self.due_unix_s
        return None if due_unix_s is None else due_unix_s - self._now_unix_s()

    @property
    def pace_s(self) -> float:
        """Seconds a generation takes: the mean of recent ones, which the language model may hold up now and then.

        Without those that took many times as long as most: they lasted through a pause.
        """
        if not self.generation_s:
            return 0.0
        most_s = _PAUSED_RATIO * statistics.median(self.generation_s)
        return statistics.fmean(s for s in self.generation_s if s <= most_s)

    def time_left_s(self, work_s: float, margin_s: float) -> float | None:
        """Until so much work is done, or the deadline, less a margin, has come.

        None while it is unknown: before the first generation, and where the work goes on beyond its estimate.
        """
        if not self.generation_s:
            return None
        left_s = self.left_s
        until_s = work_s if left_s is None else min(work_s, left_s - margin_s)
        return until_s if until_s > 0.0 else None

    def took(self, seconds: float) -> None:
        """Take in the duration of a generation; the last ten count."""
        self.generation_s = [*self.generation_s[-(PACE_GENERATIONS - 1) :], seconds]


@dataclass(frozen=True, slots=True)
class Overdue:
    """An unfinished run, and the deadline that it has missed."""

    run: RunRecord
    deadline: Deadline


def overdue(journal: Path, now_unix_s: float, configured: Run | None = None) -> Overdue | None:
    """The unfinished run that has an answer and no time left to ask for a better one; None if there is none.

    Args:
        journal: may be missing.
        now_unix_s: by the wall clock.
        configured: deadline and margin, where they may differ from the journaled ones.
    """
    try:
        with JournalReader(journal) as reader:
            run = reader.latest_run()
            last = reader.last_generation(run.run_id) if run is not None and run.status == "running" else None
            if run is None or last is None or last.leader is None:
                return None
            revisions = reader.config_revisions(run.run_id)
    except JournalMissingError:
        return None
    settings = revisions[-1].config["run"] if configured is None else configured.model_dump()
    deadline = deadline_of(settings, revisions, now_unix_s)
    if deadline is None or now_unix_s < deadline.due_unix_s - settings.get("deadline_margin_s", 0.0):
        return None
    return Overdue(run, deadline)
