"""Collects the status object from whoever knows its parts, writes ``status.json``, and sums it up in one line."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from riwoa import __version__
from riwoa.clock import redated
from riwoa.hardware.interval import plus_minus
from riwoa.patience import BestEffort
from riwoa.service.limit_text import further, hypervolume_words, missed_words, value_words
from riwoa.service.progress import steps
from riwoa.service.state import DaemonState, State
from riwoa.service.status_object import (
    ClusterStatus,
    CognitionStatus,
    ConfigStatus,
    EvaluationsStatus,
    ExperienceStatus,
    GovernorStatus,
    ImprovementStatus,
    JudgementStatus,
    LatencyStatus,
    LeaderStatus,
    OperatorStatus,
    ProposalsStatus,
    RunStatus,
    ScreeningStatus,
    StatusObject,
    TargetStatus,
    TimedStatus,
    WorkerStatus,
)
from riwoa.service.target_text import target_value
from riwoa.text import duration

SCHEMA = 1
_RATE_WINDOW_S = 60.0
_LEAST_LEFT_S = 1.0


class Rate:
    """Counts events and tells how many a second there were over the last minute, by the monotonic clock."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=4096)
        self._since = time.monotonic()

    def tick(self) -> None:
        """Count one more event."""
        self._times.append(time.monotonic())

    def per_s(self) -> float:
        """Events a second; 0 before the first."""
        now = time.monotonic()
        while self._times and now - self._times[0] > _RATE_WINDOW_S:
            self._times.popleft()
        span = min(_RATE_WINDOW_S, now - self._since)
        return len(self._times) / span if self._times and span > 0 else 0.0


def _unknown() -> None:
    return None


@dataclass(slots=True)
class StatusSources:
    """Where the parts of the status object come from; each is called at every look, so that nothing shown is stale.

    The last three keys are missing from the status object until somebody knows them.
    """

    run: Callable[[], RunStatus | None] = _unknown
    time_left_s: Callable[[], float | None] = _unknown
    leader: Callable[[], LeaderStatus | None] = _unknown
    targets: Callable[[], list[TargetStatus]] = list
    improvement: Callable[[], ImprovementStatus | None] = _unknown
    timed: Callable[[], TimedStatus | None] = _unknown
    test: Callable[[], JudgementStatus | None] = _unknown
    proposals: Callable[[], ProposalsStatus | None] = _unknown
    config: Callable[[], ConfigStatus | None] = _unknown
    evaluations: Callable[[], EvaluationsStatus | None] = _unknown
    cognition: Callable[[], CognitionStatus | None] = _unknown
    governor: Callable[[], GovernorStatus | None] = _unknown
    latency: Callable[[], LatencyStatus | None] = _unknown
    pareto: Callable[[], int] = int
    workers: Callable[[], list[WorkerStatus]] = list
    warnings: Callable[[], list[str]] = list
    cluster: Callable[[], ClusterStatus | None] = _unknown
    operators: Callable[[], dict[str, OperatorStatus]] | None = None
    screening: Callable[[], ScreeningStatus | None] | None = None
    experience: Callable[[], ExperienceStatus | None] | None = None
    socket: Callable[[], str | None] | None = None


class StatusBoard:
    """Holds the daemon's state, assembles the status object, and writes it to status.json.

    Args:
        path: of status.json.
        state_directory: as it is shown.
        go_on: the command that continues the run when this daemon has ended.
    """

    def __init__(self, path: Path, state_directory: Path, go_on: str = "") -> None:
        self.sources = StatusSources()
        self._go_on = go_on
        self._shown = DaemonState("starting")
        self._since_unix_s = time.time()  # of the state
        self._showing = threading.Lock()  # threads that read or verify the journal tell how far they are
        self._path = path
        self._state_directory = str(state_directory)
        self._writing = BestEffort("status.json")
        self._started_unix_s = time.time()

    @property
    def shown(self) -> DaemonState:
        """The state and its message now."""
        return self._shown

    def show(self, state: State, message: str = "") -> None:
        """Change state and message together."""
        self.change(lambda _: DaemonState(state, message))

    def change(self, step: Callable[[DaemonState], DaemonState]) -> DaemonState:
        """Replace the state by what ``step`` makes of it, and return that. May be called from any thread."""
        with self._showing:
            before, self._shown = self._shown, step(self._shown)
            if before.state != self._shown.state:
                self._since_unix_s = time.time()
            return self._shown

    def withdraw(self, told: DaemonState) -> None:
        """Take the message of ``told`` back, if nothing has been shown since."""
        self.change(lambda shown: shown.saying("") if shown is told else shown)

    def look(self) -> StatusObject:
        """The status object now."""
        of, shown = self.sources, self._shown
        left_s = of.time_left_s()
        status: StatusObject = {
            "schema": SCHEMA,
            "version": __version__,
            "state_directory": self._state_directory,
            "pid": os.getpid(),
            "started_unix_s": redated(self._started_unix_s),
            "state": shown.state,
            "state_since_unix_s": redated(self._since_unix_s),
            "go_on": self._go_on or None,
            "message": shown.message,
            "updated_unix_s": time.time(),
            "warnings": of.warnings(),
            "run": of.run(),
            # Nobody knows how much longer: what was to be done by now goes on.
            "time_left_s": None if left_s is None or left_s < _LEAST_LEFT_S else left_s,
            "leader": of.leader(),
            "targets": of.targets(),
            "improvement": of.improvement(),
            "test": of.test(),
            "timed": of.timed(),
            "proposals": of.proposals(),
            "config": of.config(),
            "evaluations": of.evaluations(),
            "cognition": of.cognition(),
            "governor": of.governor(),
            "latency": of.latency(),
            "pareto": of.pareto(),
            "workers": of.workers(),
            "cluster": of.cluster(),
        }
        if of.operators is not None:
            status["operators"] = of.operators()
        if of.screening is not None:
            status["screening"] = of.screening()
        if of.experience is not None:
            status["experience"] = of.experience()
        if of.socket is not None:
            status["socket"] = of.socket()
        return status

    def write(self) -> None:
        """Replace status.json. It is a convenience, not a record: a full disk must not stop the search here."""
        self._writing.attempt(self._write)

    def _write(self) -> None:
        """Write a new file and rename it, so that no reader ever sees half of one; the group may read it."""
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.look()))
        temporary.chmod(0o640)
        temporary.replace(self._path)


def one_line(status: StatusObject) -> str:
    """The status in one line, for ``systemctl status`` and the terminal."""
    run, leader, counts = status.get("run"), status.get("leader"), status.get("evaluations")
    if not run or not counts:
        return str(status.get("message") or status["state"])
    done, total, unit = steps(status)
    paused = [f"paused: {status.get('message')}"] if status["state"] == "paused" else []
    parts = [
        *paused,
        f"{run['phase']} {done} of {total} {unit}" + (f", {counts['unique']} evaluations" * (unit == "generations")),
    ]
    if counts["per_s"]:
        parts.append(f"{counts['per_s']:.1f} a second")
    if leader:
        limits = leader.get("limits") or []
        missed = missed_words(limits) if further(limits) else "misses the target"
        mark = "" if leader["feasible"] else f" ({missed})"
        target = f" of {run['target_ms']:.3f}" if run.get("target_ms") else ""
        # 0: a table without latencies
        interval = plus_minus(leader.get("latency_interval"))
        at = f" at {leader['latency_ms']:.3f}{target} ms{interval}" if leader["latency_ms"] else ""
        parts.append(f"leader {_accuracy(status, leader)}{at}{mark}")
    if targets := status.get("targets"):
        parts.append(", ".join(f"{t['name']} {target_value(t)}" for t in targets))
    if front := hypervolume_words(status):
        parts.append(f"front of {status.get('pareto')}{front}")
    if status.get("message") and status["state"] in ("running", "polishing"):  # what is done beside it, or after
        parts.append(str(status["message"]))
    time_left_s = status.get("time_left_s")
    if time_left_s is not None:
        parts.append(f"{duration(time_left_s)} left")
    return " · ".join(parts)


def _accuracy(status: StatusObject, leader: LeaderStatus) -> str:
    """The leader's accuracy: on the test pictures once they are asked, until then on those that choose."""
    test = status.get("test") or {}
    found = test.get("accuracy")
    if found is not None:
        return f"{100 * found:.2f} % on test"
    return f"{value_words(leader)}{' on validation' if leader.get('images') else ''}"
