"""The course of a run: how far it was when, and what happened to it on the way."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from riwoa.report.facts import Incident
from riwoa.text import duration
from riwoa_storage.events import (
    AdapterAccepted,
    AdapterRejected,
    AdapterTried,
    AdapterUnusable,
    ConfigApplied,
    DeadlineReached,
    Event,
    LatencyDrift,
    ModelChanged,
    RunResumed,
    SearchConverged,
    SpaceExhausted,
    TrainingFailed,
)
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationSummary, RunRecord

_MOST_INCIDENTS = 100
_MOST_KEYS = 4  # of a reload, told by name


class Course:
    """Evaluations and working seconds after so many generations; the first entry of both is the start.

    Working seconds leave out the time in which the daemon was stopped or paused between generations.
    """

    def __init__(self, run: RunRecord, summaries: Sequence[GenerationSummary]) -> None:
        self._committed = [s.committed_unix_s for s in summaries]
        self.evaluations = [0, *(int(s.counters.get("evaluations", 0)) for s in summaries)]
        self.seconds = [0.0, *accumulate(s.duration_s for s in summaries)]
        self.ended_unix_s = self._committed[-1] if self._committed else run.created_unix_s
        self._began_unix_s = run.created_unix_s

    def idle_before(self, event: Event) -> float:
        """Seconds from the last generation that was committed before an event, or the run's begin, to the event."""
        at = self.at(event.created_unix_s)
        return max(0.0, event.created_unix_s - (self._committed[at - 1] if at else self._began_unix_s))

    def at(self, unix_s: float) -> int:
        """How many generations were committed by then."""
        return bisect_right(self._committed, unix_s)

    def of(self, event: Event) -> int:
        """How many generations were committed when something happened."""
        if event.generation is not None:
            return min(max(event.generation, 0), len(self._committed))
        return self.at(event.created_unix_s)


def incidents_of(reader: JournalReader, run: RunRecord, course: Course) -> tuple[Incident, ...]:
    """What happened to a run, oldest first; of very many the newest."""
    found = []
    for event in reader.events(run.run_id):
        told = _told(event, course)
        if told is not None:
            at = course.of(event)
            found.append(Incident(course.evaluations[at], course.seconds[at], *told))
    return tuple(found[-_MOST_INCIDENTS:])


def stopped_s(reader: JournalReader, run: RunRecord, course: Course) -> float:
    """For how long the daemon was stopped in the middle of a run, or had not committed anything since its start."""
    return sum(course.idle_before(event) for event in reader.events(run.run_id, RunResumed))


def _told(event: Event, course: Course) -> tuple[str, str] | None:
    """Kind and words of an event that a chart marks; None for others."""
    match event:
        case AdapterAccepted():
            return "training", "the language model was trained; the gate accepted the adapter"
        case AdapterRejected(reasons=reasons):
            return "training", f"the language model was trained; the gate rejected the adapter: {'; '.join(reasons)}"
        case AdapterTried(from_run=run, accepted=accepted, reasons=reasons):
            verdict = "accepted it" if accepted else f"rejected it: {'; '.join(reasons)}"
            return "training", f"the adapter of run {run} was tried; the gate {verdict}"
        case TrainingFailed(reason=reason):
            return "incident", f"a training of the language model failed: {reason}"
        case AdapterUnusable(reason=reason):
            return "incident", f"an adapter gave way to the one before: {reason}"
        case ModelChanged(model=model, former_model=former):
            return "incident", f"the server answered with another model: {model}, {former} before"
        case ConfigApplied(changed=changed):
            return "reload", f"configuration reloaded: {_changes(changed)}"
        case RunResumed():
            return (
                "incident",
                f"the daemon had ended, and was started again after {duration(course.idle_before(event))}",
            )
        case DeadlineReached():
            return "end", "the deadline ended the run"
        case SpaceExhausted():
            return "end", "everything within the target was known"
        case SearchConverged(candidates=candidates):
            return "end", f"the search ended: its last {candidates} candidates brought nothing new"
        case LatencyDrift(verdict="drifted"):
            return "incident", f"the device drifted from its latency table by {event.networks:.2f}x"
        case _:
            return None


def _changes(changed: Mapping[str, object]) -> str:
    told = [
        f"{key} {pair[0]} → {pair[1]}" if isinstance(pair, list | tuple) and len(pair) == 2 else key
        for key, pair in list(changed.items())[:_MOST_KEYS]
    ]
    more = len(changed) - len(told)
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")
