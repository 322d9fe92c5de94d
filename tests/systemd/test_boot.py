"""riwoa under a real systemd: started, asked, edited, killed, frozen, cut from power, booted again.

``make test-systemd``; the container's root directory is made once and kept in RIWOA_TEST_ROOT.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import until
from tests.systemd.machine import Machine, booted, make_root, why_not

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(900)]
UNIT = "riwoa.service"
NIGHTLY = "riwoa-nightly.service"
CONFIG = """\
[run]
generations = {generations}
[search]
population = 6
[oracle]
workers = 1
[oracle.supernet]
validation_views = 1
recalibration_images = 100
[latency]
repeats = 10
[cognition]
provider = "none"
[control]
operators = {operators}
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    folder = Path(os.environ.get("RIWOA_TEST_ROOT", "/var/tmp/riwoa-test"))
    root = make_root(folder)
    for left in (
        "var/lib/riwoa",
        "etc/riwoa",
        "etc/systemd/system/riwoa.service",
        "etc/systemd/system/riwoa.service.d",
        f"etc/systemd/system/{NIGHTLY}",
        f"etc/systemd/system/{NIGHTLY}.d",
    ):
        shutil.rmtree(root / left) if (root / left).is_dir() else (root / left).unlink(missing_ok=True)
    with booted(root, {}) as machine:
        for name in ("friend", "stranger"):
            machine.run("useradd", "--create-home", name, check=False)
        machine.run("riwoactl", "service", "install")
        machine.run("usermod", "-aG", "riwoa", "friend")
        # As in the unit, but a frozen daemon is found in seconds.
        hurry = machine.path(f"etc/systemd/system/{UNIT}.d/hurry.conf")
        hurry.parent.mkdir(exist_ok=True)
        hurry.write_text("[Service]\nWatchdogSec=5\nRestartSec=1\n")
        configure(machine)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "enable", "--now", "riwoa")
        yield machine


def configure(machine: Machine, generations: int = 100_000, operators: str = "[]") -> None:
    """Replace the configuration as an editor does: another file, renamed over it."""
    file = machine.path("etc/riwoa/riwoa.toml")
    beside = file.with_suffix(".new")
    beside.write_text(CONFIG.format(generations=generations, operators=operators))
    beside.chmod(0o644)
    beside.replace(file)


def status(machine: Machine, user: str = "friend") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.run("riwoactl", "status", "--json", user=user, check=False).stdout)
    return found


def shown(machine: Machine, what: str) -> str:
    return machine.run("systemctl", "show", UNIT, f"--property={what}", "--value").stdout.strip()


def generation(machine: Machine) -> int:
    return int((status(machine).get("run") or {}).get("generation", 0))


def searching(machine: Machine, beyond: int = 0) -> None:
    until(lambda: status(machine)["alive"] and generation(machine) > beyond, f"a generation beyond {beyond}", 120)


def test_it_starts_searches_and_says_so_to_systemd(machine: Machine) -> None:
    searching(machine)
    assert shown(machine, "ActiveState") == "active"
    assert "search" in shown(machine, "StatusText")
    assert machine.run("riwoactl", "service", "status").stdout.startswith("riwoa.service  active (running)")
    user = machine.run("stat", "-c", "%U %G", f"/proc/{shown(machine, 'MainPID')}").stdout.split()
    assert user == ["riwoa", "riwoa"]


def test_the_group_may_look_and_only_operators_may_act(machine: Machine) -> None:
    searching(machine)
    assert status(machine)["source"] == "daemon"
    refused = machine.run("riwoactl", "pause", user="friend", check=False)
    assert refused.returncode == 77
    assert "friend may not pause" in refused.stderr
    stranger = machine.run("riwoactl", "status", user="stranger", check=False)
    assert stranger.returncode != 0
    assert "Traceback" not in stranger.stderr
    configure(machine, operators='["friend"]')

    def paused() -> bool:
        return machine.run("riwoactl", "pause", user="friend", check=False).returncode == 0

    until(paused, "friend is an operator", 60)
    until(lambda: status(machine)["state"] == "paused", "paused")
    machine.run("riwoactl", "resume", user="friend")


def test_an_edit_applies_without_a_restart_and_a_bad_one_is_told(machine: Machine) -> None:
    searching(machine)
    before, pid = status(machine)["config"]["revision"], shown(machine, "MainPID")
    configure(machine, generations=99_999)
    until(lambda: bool(status(machine)["config"]["revision"] > before), "the edit applied")
    assert status(machine)["run"]["generations"] == 99_999
    machine.path("etc/riwoa/riwoa.toml").write_text("[run]\ngenerations = -1\n")
    refused = machine.run("systemctl", "reload", "riwoa", check=False)
    assert refused.returncode != 0
    assert "run.generations" in machine.run("journalctl", "-u", UNIT, "-n", "5", "--no-pager").stdout
    until(lambda: bool(status(machine)["config"]["error"]), "the bad edit told")
    configure(machine, generations=99_999)
    until(lambda: not status(machine)["config"]["error"], "the good edit back")
    assert shown(machine, "MainPID") == pid


def test_killed_it_is_started_again_and_goes_on(machine: Machine) -> None:
    searching(machine, beyond=1)
    before, pid = generation(machine), shown(machine, "MainPID")
    machine.run("systemctl", "kill", "--signal=KILL", UNIT)
    until(lambda: shown(machine, "MainPID") not in (pid, "0"), "another process")
    searching(machine, beyond=before)
    assert status(machine)["run"]["resumed_from"] >= before - 1
    assert int(shown(machine, "NRestarts")) >= 1


def test_frozen_it_is_found_by_the_watchdog_and_started_again(machine: Machine) -> None:
    searching(machine)
    before, pid = generation(machine), shown(machine, "MainPID")
    machine.run("sh", "-c", f"kill -STOP {pid}")
    until(lambda: shown(machine, "MainPID") not in (pid, "0"), "another process", 90)
    searching(machine, beyond=before)


def test_cut_from_power_and_booted_again_it_goes_on_where_it_was(machine: Machine) -> None:
    searching(machine, beyond=2)
    before = generation(machine)
    machine.cut_power()
    machine.boot()
    searching(machine, beyond=before)
    assert status(machine)["run"]["resumed_from"] >= before - 1
    verified = machine.run("riwoactl", "verify", "--json", "--state", "/var/lib/riwoa")
    assert json.loads(verified.stdout)["ok"]


def is_active(machine: Machine, unit: str) -> str:
    return machine.run("systemctl", "is-active", unit, check=False).stdout.strip()


def at_night(machine: Machine, begins_h: int, ends_h: int) -> None:
    """Call it night from so many hours from now to so many."""
    now = int(machine.run("date", "+%H").stdout)
    hours = f"{(now + begins_h) % 24:02d}:00-{(now + ends_h) % 24:02d}:00"
    drop_in = machine.path(f"etc/systemd/system/{NIGHTLY}.d/hours.conf")
    drop_in.parent.mkdir(exist_ok=True)
    command = f"/opt/riwoa/bin/riwoad --config /etc/riwoa/riwoa.toml --nightly {hours}"
    drop_in.write_text(f"[Service]\nExecStart=\nExecStart={command}\n")
    machine.run("systemctl", "daemon-reload")


def test_by_night_it_goes_on_where_the_other_stopped_and_by_day_it_ends_at_once(machine: Machine) -> None:
    searching(machine)
    before = generation(machine)
    at_night(machine, 3, 8)
    machine.run("systemctl", "enable", "--now", "riwoa-nightly.timer")
    assert NIGHTLY in machine.run("systemctl", "list-timers", "--no-pager").stdout
    machine.run("systemctl", "start", NIGHTLY, check=False)
    until(lambda: "nothing to do" in machine.run("journalctl", "-u", NIGHTLY, "--no-pager").stdout, "day told", 30)
    until(lambda: is_active(machine, NIGHTLY) == "inactive", "ended", 10)
    assert is_active(machine, UNIT) == "active"  # and can still be asked: the other's end took nothing along
    assert status(machine)["source"] == "daemon"
    at_night(machine, -2, 4)
    machine.run("systemctl", "start", NIGHTLY, check=False)
    until(lambda: "already serves" in machine.run("journalctl", "-u", NIGHTLY, "--no-pager").stdout, "left alone", 30)
    machine.run("systemctl", "disable", "--now", "riwoa")
    machine.run("systemctl", "start", NIGHTLY)
    assert NIGHTLY in machine.run("riwoactl", "service", "status").stdout
    searching(machine, beyond=before)
    assert status(machine)["run"]["deadline_unix_s"] is not None
    machine.run("systemctl", "stop", NIGHTLY)


def test_uninstalled_it_leaves_state_and_configuration(machine: Machine) -> None:
    machine.run("riwoactl", "service", "uninstall")
    assert is_active(machine, UNIT) == "inactive"
    assert machine.path("var/lib/riwoa/journal.db").exists()
    assert machine.path("etc/riwoa/riwoa.toml").exists()
