"""The parts of a daemon on a directory of the test's own, without a process around them."""

from __future__ import annotations

from pathlib import Path

from riwoa.config.loading import load
from riwoa.paths import StatePaths
from riwoa.service.notify import Notifier
from riwoa.service.parts import DaemonParts

# What the machine that runs the tests lacks must not pause them.
_UNWATCHED = (
    "governor.disk_pause_bytes=0",
    "governor.disk_resume_bytes=0",
    "governor.memory_pause_bytes=0",
    "governor.memory_resume_bytes=0",
    "governor.temperature_pause_c=100",
    "governor.temperature_resume_c=100",
    "governor.battery_pause_percent=0",
    "governor.battery_resume_percent=0",
)


def daemon_parts(state: Path, *overrides: str, foreground: bool = False) -> DaemonParts:
    settings = [*_UNWATCHED, "run.export=false", *overrides]
    loaded = load(None, settings, {})
    return DaemonParts.assemble(StatePaths(state), loaded, settings, Notifier(), foreground=foreground)
