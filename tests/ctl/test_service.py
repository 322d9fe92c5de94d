"""What `riwoactl service` writes, and that systemd itself accepts it: verified and scored, with no systemd running."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from riwoa.config.loading import load
from riwoa.ctl import main, service
from riwoa.ctl.service import unit_file
from riwoa.errors import ServiceManagerError, UsageError

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def install(root: Path, *more: str) -> int:
    return main(["service", "install", "--root", str(root), *more])


def test_it_writes_the_unit_its_user_and_an_example_and_keeps_a_configuration_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "etc/riwoa").mkdir(parents=True)
    (tmp_path / "etc/riwoa/riwoa.toml").write_text("[run]\nseed = 7\n")
    assert install(tmp_path) == 0
    unit = (tmp_path / "etc/systemd/system/riwoa.service").read_text()
    assert f"ExecStart={Path(sys.executable).parent}/riwoad --config /etc/riwoa/riwoa.toml" in unit
    assert (tmp_path / "etc/sysusers.d/riwoa.conf").read_text().splitlines()[-1].startswith("u riwoa ")
    assert (tmp_path / "etc/riwoa/riwoa.toml").read_text() == "[run]\nseed = 7\n"
    assert not (tmp_path / "etc/systemd/system/riwoa.service.d").exists()


def test_uninstalling_removes_what_was_installed_and_keeps_configuration_and_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "var/lib/riwoa"
    state.mkdir(parents=True)
    install(tmp_path, "--gpu")
    assert (tmp_path / "etc/systemd/system/riwoa.service.d/gpu.conf").exists()
    capsys.readouterr()
    assert main(["service", "uninstall", "--root", str(tmp_path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["removed"]) == 8
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["riwoa.toml"]
    assert state.is_dir()


@pytest.mark.parametrize(
    ("place", "says"),
    [("/home/me/venv/bin", "cannot read"), ("/tmp/venv/bin", "cannot read"), ("/srv/my apps/bin", "plain")],
)
def test_a_place_that_the_service_could_not_start_from_is_refused(
    place: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", f"{place}/python")
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(service, "__file__", "/srv/riwoa/ctl/service.py")
    with pytest.raises(UsageError, match=says):
        service._programs(Path("/"))


def test_the_example_configuration_is_valid() -> None:
    file = Path(__file__).resolve().parents[2] / "systemd" / "riwoa.toml"
    assert load(file, [], {}).config == load(None, [], {}).config  # it spells out defaults


def test_where_systemd_did_not_boot_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here: this would install a service")
    assert main(["service", "install"]) == 64
    assert "not booted with systemd" in capsys.readouterr().err


UNITS = (
    "riwoa.service",
    "riwoa-nightly.service",
    "riwoa-nightly.timer",
    "riwoa-backup.service",
    "riwoa-backup.timer",
)


@needs_systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for program in ("riwoad", "riwoactl"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    for name in UNITS:
        (tmp_path / name).write_text(unit_file(name).replace("/opt/riwoa/bin", str(tmp_path)))
    command = ["systemd-analyze", "verify", *(str(tmp_path / name) for name in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    about_them = [line for line in done.stderr.splitlines() if "riwoa" in line]
    assert not about_them


@needs_systemd
@pytest.mark.parametrize("name", ["riwoa.service", "riwoa-nightly.service"])
def test_the_unit_is_hardened_to_two_points_or_less(tmp_path: Path, name: str) -> None:
    unit = tmp_path / name
    unit.write_text(unit_file(name))
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    score = re.search(rf"exposure level for {name}: ([\d.]+)", done.stdout)
    assert score is not None, done.stderr
    assert float(score[1]) <= 2.0


@pytest.mark.parametrize("name", ["riwoa.service", "riwoa-nightly.service"])
def test_systemd_ends_no_start_for_how_long_it_takes(name: str) -> None:
    assert "TimeoutStartSec=infinity" in unit_file(name).splitlines()  # it would be 90 s: less than a large migration


def test_by_night_the_service_differs_in_its_hours_alone() -> None:
    def lines(name: str) -> list[str]:
        body = unit_file(name).partition("[Service]")[2].partition("[Install]")[0]
        return body.replace(" --nightly 21:00-07:00", "").split("\n")

    def settings(name: str) -> list[str]:
        return [line for line in lines(name) if line and not line.startswith("#")]

    assert settings("riwoa-nightly.service") == settings("riwoa.service")


def test_the_unit_names_exit_codes_that_a_restart_cannot_mend() -> None:
    from riwoa.errors import ConfigError, InfeasibleTargetError, InputError, TableError, UsageError
    from riwoa_storage.errors import JournalCorruptError

    line = re.search(r"^RestartPreventExitStatus=(.*)$", unit_file("riwoa.service"), re.MULTILINE)
    assert line is not None
    hopeless = (ConfigError, InfeasibleTargetError, InputError, TableError, UsageError, JournalCorruptError)
    assert {kind.exit_code for kind in hopeless} <= {int(code) for code in line[1].split()}


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="this machine runs systemd")
def test_without_systemd_its_status_is_a_line_and_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "status"]) == 69
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("riwoa-no-such-command", "show"), "no riwoa-no-such-command on this machine"),
        (("false",), "`false` failed"),
        (("/", "x"), "`/ x` failed"),
    ],
)
def test_a_command_of_systemd_that_is_missing_or_fails_is_no_bug(command: tuple[str, ...], told: str) -> None:
    with pytest.raises(ServiceManagerError, match=re.escape(told)) as caught:
        service._call(*command)
    assert caught.value.exit_code == 69
