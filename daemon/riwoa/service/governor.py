"""The governor: the search pauses while disk, memory, load, heat, battery or the hour ask for it.

Each watched quantity has a level at which the search pauses and another, calmer one at which it goes on, so that it
does not flutter. A pause drops nothing: what is committed or stored stays, and the search goes on as after a kill.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import psutil

from riwoa.config.hours import inside
from riwoa.config.schema import Governor as Settings
from riwoa.limits import memory
from riwoa.log import get_logger
from riwoa.patience import BestEffort

_log = get_logger("governor")
# A pause for one of these frees the memory of every worker: waiting would not free it, or lasts for hours.
UNLOADING = frozenset({"memory", "swap", "battery", "quiet hours"})
_PLAUSIBLE_C = (1.0, 115.0)  # sensors that are not connected read 0, -273, 127 or 255
_SUPPLIES = Path("/sys/class/power_supply")
_MIB = 2**20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Readings:
    """What the machine's sensors tell; None where it has none."""

    disk_free_bytes: int | None = None  # what an ordinary user may still write where the state lies
    memory_available_bytes: int | None = None
    swap_used_share: float | None = None
    load_per_core: float | None = None  # runnable threads over one minute, riwoa's own among them
    temperature_c: float | None = None  # of the hottest sensor
    battery_percent: float | None = None  # None on mains, too


def read_machine(state: Path) -> Readings:
    """Read every sensor once; one that fails counts as missing."""
    swap, found = _quietly(psutil.swap_memory), _quietly(memory)
    load = _quietly(os.getloadavg)
    disk = _quietly(lambda: os.statvfs(state))
    return Readings(
        disk_free_bytes=disk.f_bavail * disk.f_frsize if disk else None,
        memory_available_bytes=found.available_bytes if found else None,
        swap_used_share=swap.used / swap.total if swap and swap.total else None,
        # Of the whole machine, by all its cores: the kernel counts no container's threads apart.
        load_per_core=load[0] / (os.cpu_count() or 1) if load else None,
        temperature_c=_hottest_c(),
        battery_percent=discharging_percent(),
    )


@dataclass(frozen=True, slots=True)
class _Watched:
    """A watched quantity with its two settings, ``<name>_pause<unit>`` and ``<name>_resume<unit>``."""

    name: str
    reading: str
    unit: str
    low_is_bad: bool
    words: str
    scale: float = 1.0

    def hold(self, settings: Settings, readings: Readings, *, held: bool) -> str | None:
        """Why to pause, None to go on; a search that pauses already (``held``) waits for the calmer level."""
        value: float | None = getattr(readings, self.reading)
        pause: float | None = getattr(settings, f"{self.name}_pause{self.unit}")
        resume: float | None = getattr(settings, f"{self.name}_resume{self.unit}")
        if value is None or pause is None or resume is None:
            return None
        level = resume if held else pause
        if value >= level if self.low_is_bad else value <= level:
            return None
        way = "above" if self.low_is_bad else "below"
        return f"{value * self.scale:.4g} {self.words}; goes on {way} {resume * self.scale:.4g}"


_WATCHED = (
    _Watched("disk", "disk_free_bytes", "_bytes", True, "MiB free on the disk", 1 / _MIB),
    _Watched("memory", "memory_available_bytes", "_bytes", True, "MiB of memory left", 1 / _MIB),
    _Watched("swap", "swap_used_share", "_share", False, "% of the swap in use", 100),
    _Watched("load", "load_per_core", "", False, "runnable threads a core"),
    _Watched("temperature", "temperature_c", "_c", False, "degrees Celsius"),
    _Watched("battery", "battery_percent", "_percent", True, "% of the battery left"),
)


def judge(settings: Settings, readings: Readings, now: datetime, held: Collection[str]) -> dict[str, str]:
    """The reasons to pause, by what is watched; empty to go on.

    Args:
        settings: the levels in force.
        readings: of the machine.
        now: local time, for the quiet hours.
        held: what it pauses for already.
    """
    judged = {w.name: w.hold(settings, readings, held=w.name in held) for w in _WATCHED}
    found = {name: reason for name, reason in judged.items() if reason is not None}
    quiet = next((hours for hours in settings.quiet_hours if inside(hours, now)), None)
    return found if quiet is None else {**found, "quiet hours": f"quiet hours {quiet}"}


class Governor:
    """Watches the machine; ``holds`` says why the search pauses, empty while it may go on.

    Args:
        settings: the levels in force, asked at each look.
        state: where the journal lies.
        on_change: called when the reasons have changed in kind, after ``holds``.
        read: the machine's readings.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        state: Path,
        on_change: Callable[[], None] = lambda: None,
        read: Callable[[Path], Readings] = read_machine,
    ) -> None:
        self.holds: dict[str, str] = {}
        self.readings = Readings()
        self._settings = settings
        self._state = state
        self._on_change = on_change
        self._read = read
        self._changed = asyncio.Event()

    @property
    def unloads(self) -> bool:
        """Whether a pause is to end the workers, so that their memory is freed."""
        return bool(UNLOADING & self.holds.keys())

    def look(self) -> None:
        """Read the machine and judge it once."""
        self.readings = self._read(self._state)
        time.tzset()  # a traveller's clock moves to another zone while the daemon runs
        before, self.holds = self.holds, judge(self._settings(), self.readings, datetime.now(), self.holds)
        for name in self.holds.keys() - before.keys():
            _log.warning("search_paused", by=name, reason=self.holds[name])
        for name in before.keys() - self.holds.keys():
            _log.info("pause_over", by=name)
        if self.holds.keys() != before.keys():
            self._changed.set()
            self._on_change()

    async def watch(self) -> None:
        """Look every ``governor.every_s`` seconds until cancelled."""
        looking = BestEffort("governor")
        while True:
            looking.attempt(self.look)
            await asyncio.sleep(self._settings().every_s)

    async def until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until ``condition``, asked at each change of the holds, is true; False after ``timeout_s``."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not condition():
            self._changed.clear()
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except TimeoutError:
                return condition()
        return True


def _quietly(read: Callable[[], _T]) -> _T | None:
    try:
        return read()
    except Exception:  # drivers report whatever they like, and psutil fails in many ways: no reading is none
        return None


def _hottest_c() -> float | None:
    sensors = _quietly(psutil.sensors_temperatures) or {}
    low, high = _PLAUSIBLE_C
    return max((s.current for group in sensors.values() for s in group if low < s.current < high), default=None)


def discharging_percent(supplies: Path = _SUPPLIES) -> float | None:
    """The charge of the machine's fullest discharging battery, in percent; None on mains.

    A mouse's battery (scope "Device") does not count; psutil would take the emptiest of all, the mouse's too.
    """
    found = []
    for supply in _quietly(lambda: sorted(supplies.glob("*"))) or []:

        def told(name: str, supply: Path = supply) -> str:
            return (_quietly((supply / name).read_text) or "").strip()

        if told("type") == "Battery" and told("scope") != "Device" and told("status") == "Discharging":
            percent = _quietly(lambda: float(told("capacity")))
            found += [percent] if percent is not None else []
    return max(found, default=None)
