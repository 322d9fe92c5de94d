"""What the daemon says of itself: one JSON object, for the control socket, status.json, systemd and the terminal."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from riwoa import __version__
from riwoa.clock import redated
from riwoa.hardware.interval import advice, plus_minus
from riwoa.patience import Convenience
from riwoa.text import duration

SCHEMA = 1
_RATE_WINDOW_S = 60.0


class Rate:
    """Evaluations a second over the last minute, by the monotonic clock."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=4096)
        self._since = time.monotonic()

    def tick(self) -> None:
        """One more."""
        self._times.append(time.monotonic())

    def per_s(self) -> float:
        """Events a second; 0 before the first."""
        now = time.monotonic()
        while self._times and now - self._times[0] > _RATE_WINDOW_S:
            self._times.popleft()
        span = min(_RATE_WINDOW_S, now - self._since)
        return len(self._times) / span if self._times and span > 0 else 0.0


class StatusBoard:
    """Collects the parts from whoever knows them and writes status.json whole (tmp, rename), group-readable.

    ``sources`` are called at each look, so that nothing here is ever stale.
    """

    def __init__(self, path: Path, state_directory: Path) -> None:
        self.state = "starting"
        self.message = ""
        self.sources: dict[str, Callable[[], Any]] = {}
        self._path = path
        self._writing = Convenience("status.json")
        self._fixed = {
            "schema": SCHEMA,
            "version": __version__,
            "state_directory": str(state_directory),
            "pid": os.getpid(),
        }
        self._started_unix_s = time.time()

    def look(self) -> dict[str, Any]:
        """The status object now; its keys are documented in the README and stable."""
        parts = {name: source() for name, source in self.sources.items()}
        empty: dict[str, Any] = dict.fromkeys(
            ("run", "time_left_s", "leader", "proposals", "config", "evaluations", "cognition", "governor", "latency")
        )
        return {
            **self._fixed,
            "started_unix_s": redated(self._started_unix_s),
            "state": self.state,
            "message": self.message,
            "updated_unix_s": time.time(),
            **empty,
            "pareto": 0,
            "workers": [],
            **parts,
        }

    def write(self) -> None:
        """Replace status.json. It is a convenience, not a record: a full disk must not stop the search here."""
        self._writing.attempt(self._write)

    def _write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.look()))
        temporary.chmod(0o640)
        temporary.replace(self._path)


def one_line(status: Mapping[str, Any]) -> str:
    """For ``systemctl status`` and the terminal."""
    run, leader, counts = status.get("run"), status.get("leader"), status.get("evaluations")
    if not run or not counts:
        return str(status.get("message") or status["state"])
    done, total = steps(run)
    paused = [f"paused: {status.get('message')}"] if status["state"] == "paused" else []
    parts = [
        *paused,
        f"{run['phase']} {done}/{total}",
        f"{counts['unique']} evaluations ({counts['per_s']:.1f}/s)",
    ]
    if leader:
        mark = "" if leader["feasible"] else " (misses the target)"
        target = f" of {run['target_ms']:.3f}" if run.get("target_ms") else ""
        wide = leader.get("latency_interval") if advice(leader.get("latency_interval")) else None
        at = f"{leader['latency_ms']:.3f}{target} ms{plus_minus(wide)}"
        parts.append(f"leader {100 * leader['accuracy']:.2f} % at {at}{mark}")
    if status.get("time_left_s") is not None:
        parts.append(f"{duration(status['time_left_s'])} left")
    return " · ".join(parts)


def steps(run: Mapping[str, Any]) -> tuple[int, int]:
    """How far the phase is and how far it goes: generations of the search, evaluations of the polish."""
    if run["phase"] == "polish" and "polish_spent" in run and "polish_evaluations" in run:
        return run["polish_spent"], run["polish_evaluations"]
    return run["generation"], run["generations"]
