"""Levels, quiet hours and waiting: judged on made readings, read once on this machine."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import pytest

from riwoa.config.loading import load
from riwoa.config.schema import Config
from riwoa.errors import ConfigError
from riwoa.service.governor import Governor, Readings, discharging_percent, judge, read_machine

NOON = datetime(2026, 6, 1, 12, 0)
WATCHED = (
    "governor.swap_pause_share=0.5",
    "governor.swap_resume_share=0.25",
    "governor.load_pause=2.0",
    "governor.load_resume=1.0",
)
SETTINGS = load(None, WATCHED, {}).config.governor
CALM = Readings(
    disk_free_bytes=2**40,
    memory_available_bytes=2**40,
    swap_used_share=0.0,
    load_per_core=0.1,
    temperature_c=40.0,
    battery_percent=90.0,
)


@pytest.mark.parametrize(
    ("name", "reading", "bad", "between", "good"),
    [
        ("disk", "disk_free_bytes", 2**20, 300 * 2**20, 2**30),
        ("memory", "memory_available_bytes", 2**20, 512 * 2**20, 2**31),
        ("swap", "swap_used_share", 0.9, 0.4, 0.1),
        ("load", "load_per_core", 3.0, 1.5, 0.5),
        ("temperature", "temperature_c", 95.0, 85.0, 60.0),
        ("battery", "battery_percent", 10.0, 40.0, 80.0),
    ],
)
def test_it_pauses_at_one_level_and_goes_on_at_a_calmer_one(
    name: str, reading: str, bad: float, between: float, good: float
) -> None:
    def held(value: float, before: set[str]) -> set[str]:
        readings = Readings(**{reading: value})  # type: ignore[arg-type]
        return set(judge(SETTINGS, readings, NOON, before))

    assert held(bad, set()) == {name}
    assert held(between, set()) == set()
    assert held(between, {name}) == {name}
    assert held(good, {name}) == set()


def test_a_quantity_that_the_machine_does_not_tell_pauses_nothing() -> None:
    assert judge(SETTINGS, Readings(), NOON, {"temperature", "battery"}) == {}
    assert judge(SETTINGS, CALM, NOON, set()) == {}


def test_a_quantity_without_levels_is_not_watched() -> None:
    assert judge(Config().governor, Readings(load_per_core=99.0, swap_used_share=1.0), NOON, set()) == {}


def test_the_reason_says_what_is_and_what_is_waited_for() -> None:
    (reason,) = judge(SETTINGS, Readings(disk_free_bytes=100 * 2**20), NOON, set()).values()
    assert reason == "100 MiB free on the disk; goes on above 512"


def test_quiet_hours_pause() -> None:
    settings = load(None, ['governor.quiet_hours=["08:00-18:00", "23:00-01:00"]'], {}).config.governor
    assert judge(settings, CALM, NOON, set()) == {"quiet hours": "quiet hours 08:00-18:00"}
    assert judge(settings, CALM, NOON.replace(hour=0), set()) == {"quiet hours": "quiet hours 23:00-01:00"}
    assert judge(settings, CALM, NOON.replace(hour=18), set()) == {}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("governor.disk_resume_bytes=1", "only to pause again"),
        ("governor.temperature_resume_c=99.0", "only to pause again"),
        ("governor.load_pause=2.0", "or neither"),
        ("governor.every_s=0.0", "greater than 0"),
        ('governor.quiet_hours=["8-18"]', "22:00-07:00"),
    ],
)
def test_levels_that_contradict_each_other_are_refused(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(None, [setting], {})


def test_this_machine_is_read(tmp_path: Path) -> None:
    readings = read_machine(tmp_path)
    assert readings.disk_free_bytes is not None
    assert 2**20 < readings.disk_free_bytes < 2**60
    assert readings.memory_available_bytes is not None
    assert 2**20 < readings.memory_available_bytes < 2**50
    assert readings.load_per_core is not None
    assert readings.load_per_core >= 0
    assert readings.temperature_c is None or 1 < readings.temperature_c < 150


def test_a_state_directory_that_is_gone_is_a_disk_that_tells_nothing(tmp_path: Path) -> None:
    assert read_machine(tmp_path / "gone").disk_free_bytes is None


async def test_whoever_waits_is_woken_by_the_look_that_ends_the_pause(tmp_path: Path) -> None:
    given = [Readings(temperature_c=99.0)]
    changes: list[set[str]] = []
    governor = Governor(
        lambda: SETTINGS, tmp_path, lambda: changes.append(set(governor.holds)), read=lambda _: given[-1]
    )
    governor.look()
    assert not governor.unloads  # heat ends with a rest, the workers stay
    waiting = asyncio.create_task(governor.until(lambda: not governor.holds))
    await asyncio.sleep(0)
    given.append(Readings(temperature_c=85.0))
    governor.look()
    await asyncio.sleep(0)
    assert not waiting.done()
    given.append(Readings(temperature_c=70.0))
    governor.look()
    assert await asyncio.wait_for(waiting, 1.0)
    assert changes == [{"temperature"}, set()]


async def test_a_wait_that_ran_out_says_so(tmp_path: Path) -> None:
    governor = Governor(lambda: SETTINGS, tmp_path, read=lambda _: Readings(memory_available_bytes=1))
    governor.look()
    assert governor.unloads
    assert not await governor.until(lambda: not governor.holds, timeout_s=0.01)


def supply(folder: Path, name: str, **facts: str) -> None:
    (folder / name).mkdir(parents=True)
    for fact, value in facts.items():
        (folder / name / fact).write_text(f"{value}\n")


def test_the_machines_own_battery_counts_while_it_discharges_and_no_mouses(tmp_path: Path) -> None:
    assert discharging_percent(tmp_path / "none") is None
    supply(tmp_path, "AC", type="Mains", online="1")
    supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device", status="Discharging", capacity="5")
    assert discharging_percent(tmp_path) is None
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", capacity="42")
    supply(tmp_path, "BAT1", type="Battery", status="Charging", capacity="80")
    supply(tmp_path, "BAT2", type="Battery", status="Discharging", capacity="nonsense")
    assert discharging_percent(tmp_path) == 42.0


def test_sensors_that_fail_in_any_way_are_sensors_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("MemAvailable")

    for name in ("virtual_memory", "swap_memory", "sensors_temperatures"):
        monkeypatch.setattr(f"riwoa.service.governor.psutil.{name}", broken)
    readings = read_machine(Path("/"))
    assert (readings.memory_available_bytes, readings.swap_used_share, readings.temperature_c) == (None, None, None)
