"""When a run must have its answer, from what is configured and what is journaled; and which run is past that."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from riwoa.clock import redated
from riwoa.config.hours import deadline_unix_s
from riwoa.config.schema import Run
from riwoa_storage.errors import JournalMissingError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ConfigRevisionRecord, RunRecord

PACE_GENERATIONS = 10  # whose durations tell the pace
_PAUSED_RATIO = 4.0  # to the median


@dataclass(frozen=True, slots=True)
class Deadline:
    """A configured deadline, and when it was configured."""

    wanted: str
    since_unix_s: float

    @property
    def due_unix_s(self) -> float:
        """The moment that it means now: a clock that was set since makes a time of day another moment."""
        return deadline_unix_s(self.wanted, redated(self.since_unix_s))


def deadline_of(wanted: str | None, revisions: Sequence[ConfigRevisionRecord], now_unix_s: float) -> Deadline | None:
    """The deadline of a run, None without one.

    A time of day means the first after it was configured, however often the daemon is started since; one that is in no
    revision yet was configured now.
    """
    if wanted is None:
        return None
    since_unix_s = now_unix_s
    for revision in reversed(revisions):
        if revision.config["run"].get("deadline") != wanted:
            break
        since_unix_s = revision.created_unix_s
    return Deadline(wanted, since_unix_s)


def training_cut_unix_s(run: Run, now_unix_s: float) -> float | None:
    """When a training before a search is to end with what it has: half of the time to the deadline is the search's."""
    deadline = deadline_of(run.deadline, [], now_unix_s)
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

    def plan(self, wanted: str | None, revisions: Sequence[ConfigRevisionRecord]) -> None:
        """Take the configured deadline, in force since the revision that brought it."""
        self._deadline = deadline_of(wanted, revisions, self._now_unix_s())

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

    def took(self, seconds: float) -> None:
        """Take in the duration of a generation; the last ten count."""
        self.generation_s = [*self.generation_s[-(PACE_GENERATIONS - 1) :], seconds]


@dataclass(frozen=True, slots=True)
class Overdue:
    """An unfinished run, and the deadline that it has missed."""

    run: RunRecord
    deadline: str


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
    journaled = revisions[-1].config["run"]
    wanted = journaled.get("deadline") if configured is None else configured.deadline
    margin_s = journaled.get("deadline_margin_s", 0.0) if configured is None else configured.deadline_margin_s
    deadline = deadline_of(wanted, revisions, now_unix_s)
    late = deadline is not None and now_unix_s >= deadline.due_unix_s - margin_s
    return Overdue(run, str(wanted)) if late else None
