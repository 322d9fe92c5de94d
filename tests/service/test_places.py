"""One place, one name: where state, socket and models lie, and whose modules are imported there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa import paths
from riwoa.datasets.decoding import cache_directory
from riwoa.errors import UsageError
from riwoa.files.model_store import models_home
from riwoa.ipc.child import child_command, child_environment
from riwoa.paths import StatePaths, client_state, daemon_state
from tests.run.test_table_run import ACCURACY, OPS, table_settings
from tests.support.shim import shim

PROGRAMS = Path(sys.executable).parent
LONG = ("run.generations=100000", "search.population=6")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    np.savez(tmp_path / "cells.npz", ops=OPS, acc=ACCURACY)
    return tmp_path / "cells.npz"


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variable names a place, and the working directory holds no run."""
    for variable in ("RIWOA_STATE", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "RIWOA_SOCKET", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(paths, "SYSTEM_STATE", str(tmp_path / "system"))
    return here


def program(name: str, *arguments: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAMS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, **settings)


def sets(table: Path, *more: str) -> list[str]:
    return [part for setting in (*table_settings(table), *more) for part in ("--set", setting)]


@contextlib.contextmanager
def daemon(state: str | Path, table: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that has begun to search and has no end of its own; what it says goes into ``said`` beside the table."""
    command = [str(PROGRAMS / "riwoad"), "--state", str(state), *sets(table, *LONG)]
    said = table.with_name("said")
    with (
        said.open("wb") as stderr,
        subprocess.Popen(command, env={**os.environ, **variables}, stderr=stderr) as process,
    ):
        try:
            end_s = time.monotonic() + 60
            while status_of(state).get("run") is None:
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < end_s
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def status_of(state: str | Path) -> dict[str, Any]:
    try:
        return dict(json.loads((Path(state) / "status.json").read_text()))
    except (OSError, ValueError):
        return {}


def begun(place: Path) -> str:
    place.mkdir(parents=True)
    (place / "status.json").write_text("{}")
    return str(place)


# -- the order -------------------------------------------------------------------------------------------------------


def test_both_programs_look_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nothing_named: Path
) -> None:
    def both() -> set[str]:
        return {daemon_state(None).directory, client_state(None).directory}

    assert both() == {str(tmp_path / "home/.local/state/riwoa")}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert both() == {str(tmp_path / "xdg/riwoa")}
    assert both() == {str(tmp_path / "xdg/riwoa")}
    local = begun(nothing_named / ".riwoa")
    assert both() == {local}
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/first:{tmp_path}/second")
    assert both() == {str(tmp_path / "first")}
    monkeypatch.setenv("RIWOA_STATE", str(tmp_path / "named"))
    assert both() == {str(tmp_path / "named")}
    assert daemon_state("x").directory == client_state("x").directory == str(nothing_named / "x")


def test_only_riwoactl_falls_back_to_the_services_state(tmp_path: Path) -> None:
    system = begun(tmp_path / "system")
    assert client_state(None).directory == system
    assert daemon_state(None).directory == str(tmp_path / "home/.local/state/riwoa")
    own = begun(tmp_path / "home/.local/state/riwoa")
    assert client_state(None).directory == own


def test_empty_variables_and_relative_xdg_directories_count_as_not_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("RIWOA_STATE", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "RIWOA_SOCKET"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    state = daemon_state(None)
    assert state.directory == str(tmp_path / "home/.local/state/riwoa")
    assert state.socket_name == f"{state.directory}/control.sock"
    empty = {"RIWOA_MODELS": "", "STATE_DIRECTORY": "", "XDG_DATA_HOME": "relative", "XDG_CACHE_HOME": "relative"}
    assert models_home(empty) == tmp_path / "home/.local/share/riwoa/models"
    assert cache_directory(empty) == tmp_path / "home/.cache/riwoa/pictures"


def test_one_directory_has_one_name_however_it_is_spelt(tmp_path: Path, nothing_named: Path) -> None:
    state = tmp_path / "elsewhere" / "state"
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    state.mkdir()
    (nothing_named / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    (nothing_named / "state").mkdir()  # what a path without its links would mean
    spellings: list[str | Path] = [
        state,
        f"{state}/",
        f"{state}/.",
        "link/../state",
        "../elsewhere/state",
        f"{tmp_path}//elsewhere/state",
    ]
    found = {StatePaths(spelling).directory for spelling in spellings}
    assert found == {str(state)}
    assert {str(StatePaths(spelling).journal) for spelling in spellings} == {f"{state}/journal.db"}


def test_the_services_state_has_the_services_socket_however_it_is_spelt(tmp_path: Path) -> None:
    system = tmp_path / "system"
    system.mkdir()
    (tmp_path / "link").symlink_to(system)
    for spelling in (system, f"{system}/", tmp_path / "link", f"{tmp_path}/here/../system"):
        assert StatePaths(spelling).socket_name == "/run/riwoa/control.sock"


def test_without_a_home_directory_one_line_asks_for_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for look, hint in ((daemon_state, "--state or RIWOA_STATE"), (client_state, "--state or RIWOA_STATE")):
        with pytest.raises(UsageError, match=f"has no home directory here: set {hint}"):
            look(None)
    with pytest.raises(UsageError, match="set RIWOA_MODELS"):
        models_home({})


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root to become an unknown user")
def test_an_unknown_user_without_a_home_is_told_what_to_set_and_can_search(table: Path, nothing_named: Path) -> None:
    stranger = ["unshare", "-U", "--map-user=54321", "env", "-i", f"PATH={os.environ['PATH']}"]
    for name in ("riwoad", "riwoactl status"):
        command = [*stranger, str(PROGRAMS / name.split()[0]), *name.split()[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 64
        assert done.stderr.endswith("user 54321 has no home directory here: set --state or RIWOA_STATE\n")
        assert done.stderr.count("\n") == 1
    assert list(nothing_named.iterdir()) == []  # no folder named ~
    nothing_named.chmod(0o777)
    model = ["--set", "cognition.provider=model", "--set", "search.population=6"]  # no home: no models, and no error
    command = [*stranger, str(PROGRAMS / "riwoad"), "--state", "st", *sets(table, "run.generations=1"), *model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert status_of("st")["state"] == "finished"


# -- one directory, one daemon ---------------------------------------------------------------------------------------


def test_two_spellings_of_one_directory_are_served_by_one_daemon(table: Path, tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "B" / "deep").mkdir(parents=True)
    (tmp_path / "A" / "sl").symlink_to(tmp_path / "B" / "deep")
    spelt = f"{tmp_path}/A/sl/../st"
    with daemon(spelt, table):
        assert (tmp_path / "B/st/journal.db").exists()
        assert not (tmp_path / "A/st").exists()
        for other in (f"{tmp_path}/B/st/", tmp_path / "B/deep/../st"):
            second = program("riwoad", "--state", other, *sets(table))
            assert second.returncode == 75
            answer = program("riwoactl", "--state", other, "status", "--json")
            assert json.loads(answer.stdout)["source"] == "daemon"


def test_a_daemon_and_riwoactl_started_beside_a_finished_run_mean_the_same(table: Path, nothing_named: Path) -> None:
    assert program("riwoad", "--state", ".riwoa", *sets(table)).returncode == 0  # as `make run` does
    again = program("riwoad", *sets(table))
    assert again.returncode == 0
    assert f'"path": "{nothing_named}/.riwoa"' in again.stderr
    assert "run 1 is finished" in program("riwoactl", "status").stdout
    assert not (nothing_named.parent / "home").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO], ids=errno.errorcode.get)
def test_a_finished_daemon_is_not_alive_and_a_second_one_kept_out_where_there_is_no_flock(
    table: Path, tmp_path: Path, number: int
) -> None:
    state = tmp_path / "st"
    state.mkdir()
    environment = shim(state, flock=number)
    with daemon(state, table, **environment) as first:
        assert "already serves" in program("riwoad", "--state", state, *sets(table), env=environment).stderr
        assert json.loads(program("riwoactl", "--state", state, "status", "--json", env=environment).stdout)["alive"]
        first.terminate()
        assert first.wait(30) == 0
    assert "no flock on the" in table.with_name("said").read_text()
    after = json.loads(program("riwoactl", "--state", state, "status", "--json", env=environment).stdout)
    assert (after["alive"], after["state"]) == (False, "stopped")
    assert program("riwoactl", "--state", state, "compact", env=environment).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root to mount")
def test_a_state_on_read_only_media_is_refused_in_one_line_that_names_the_file_system(
    table: Path, tmp_path: Path
) -> None:
    state = tmp_path / "media" / "st"
    state.mkdir(parents=True)
    mount = f"mount --bind {state.parent} {state.parent} && mount -o remount,ro,bind {state.parent}"
    command = [str(PROGRAMS / "riwoad"), "--state", str(state), *sets(table)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount" in done.stderr and "riwoad" not in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    assert done.returncode == 73
    assert "(Read-only file system, on the " in done.stderr
    assert f" at {state.parent}); choose another with --state" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_directory_whose_files_are_of_something_else_becomes_no_state(table: Path, tmp_path: Path) -> None:
    for file, content in (("status.json", '{"project": "thesis"}'), ("lock", "my notes")):
        place = tmp_path / f"of-{file}"
        place.mkdir()
        (place / file).write_text(content)
        done = program("riwoad", "--state", place, *sets(table))
        assert (done.returncode, done.stderr.count("\n")) == (73, 1)
        assert [(path.name, path.read_text()) for path in place.iterdir()] == [(file, content)]


# -- the socket ------------------------------------------------------------------------------------------------------


def test_a_socket_that_was_put_elsewhere_is_found_without_being_told(table: Path, tmp_path: Path) -> None:
    place = tmp_path / "c.sock"
    with daemon(tmp_path / "st", table, RIWOA_SOCKET=str(place)) as process:
        assert place.is_socket()
        assert not (tmp_path / "st/control.sock").exists()
        assert (
            json.loads(program("riwoactl", "--state", tmp_path / "st", "status", "--json").stdout)["source"] == "daemon"
        )
        assert program("riwoactl", "--state", tmp_path / "st", "stop").returncode == 0
        process.communicate()
    assert process.returncode == 0
    assert not place.exists()


def test_without_any_socket_the_search_goes_on_and_is_seen_in_its_file(table: Path, tmp_path: Path) -> None:
    state = tmp_path / "st"
    with daemon(state, table, **shim(tmp_path, bind=1)) as process:
        seen = program("riwoactl", "--state", state, "status", "--json")
        assert seen.returncode == 0
        assert (json.loads(seen.stdout)["state"], json.loads(seen.stdout)["source"]) == ("running", "file")
        refused = program("riwoactl", "--state", state, "stop")
        assert (refused.returncode, f"`kill -TERM {process.pid}` stops it" in refused.stderr) == (69, True)
        process.terminate()
        assert process.wait(30) == 0
    said = table.with_name("said").read_text()
    assert "no_control_socket" in said
    assert "set RIWOA_SOCKET" in said


def test_a_file_and_another_daemons_socket_in_the_sockets_place_are_left_alone(table: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    environment = {**os.environ, "RIWOA_SOCKET": str(thesis)}
    done = program("riwoad", "--state", tmp_path / "a", *sets(table), env=environment)
    assert done.returncode == 0
    assert "something lies there that is no socket" in done.stderr
    assert thesis.read_text() == "years of work"
    environment = {**os.environ, "RIWOA_SOCKET": str(tmp_path / "shared.sock")}
    with daemon(tmp_path / "b", table, RIWOA_SOCKET=environment["RIWOA_SOCKET"]):
        other = program("riwoad", "--state", tmp_path / "c", *sets(table), env=environment)
        assert other.returncode == 0
        assert "another daemon listens there" in other.stderr
        answer = json.loads(program("riwoactl", "--state", tmp_path / "b", "status", "--json").stdout)
        assert (answer["source"], answer["state_directory"]) == ("daemon", str(tmp_path / "b"))


def test_no_verb_reaches_the_daemon_of_another_state(table: Path, tmp_path: Path) -> None:
    shared = {**os.environ, "RIWOA_SOCKET": str(tmp_path / "shared.sock")}
    mine, other = tmp_path / "mine", tmp_path / "other"
    with daemon(other, table, RIWOA_SOCKET=shared["RIWOA_SOCKET"]) as its:
        with daemon(mine, table, RIWOA_SOCKET=shared["RIWOA_SOCKET"]) as process:  # goes on without a socket
            assert "socket=" not in (mine / "lock").read_text()
            for stray in ("", f"socket={shared['RIWOA_SOCKET']}\n"):  # as an older version's lock says
                with (mine / "lock").open("a") as lock:
                    lock.write(stray)
                refused = program("riwoactl", "--state", mine, "stop", env=shared)
                assert (refused.returncode, f"`kill -TERM {process.pid}` stops it" in refused.stderr) == (69, True)
                seen = json.loads(program("riwoactl", "--state", mine, "status", "--json", env=shared).stdout)
                assert (seen["source"], seen["pid"], seen["state"]) == ("file", process.pid, "running")
                attached = program("riwoad", "--state", mine, "--foreground", *sets(table), env=shared)
                assert f"the daemon that serves {mine} no longer answers" in attached.stderr
        absent = program("riwoactl", "--state", tmp_path / "none", "stop", env=shared)
        assert (absent.returncode, f"no daemon runs on {tmp_path / 'none'}" in absent.stderr) == (69, True)
        assert its.poll() is None
        assert program("riwoactl", "--state", other, "stop", env=shared).returncode == 0


# -- whose modules are imported --------------------------------------------------------------------------------------

_TRAPS = ("ofa/__init__.py", "random.py", "json.py", "sitecustomize.py", "torch/__init__.py", "structlog/__init__.py")


def trapped(folder: Path) -> Path:
    """A folder whose modules tell that they were executed."""
    for trap in _TRAPS:
        (folder / trap).parent.mkdir(exist_ok=True)
        (folder / trap).write_text(f"open({str(folder / 'executed')!r}, 'a').write({trap!r} + '\\n')\n")
    return folder / "executed"


@pytest.mark.parametrize("path", [None, ":/nowhere", ".:/nowhere"])
def test_nothing_is_imported_from_the_working_directory(
    path: str | None, table: Path, nothing_named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed = trapped(nothing_named)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
        (nothing_named / "sitecustomize.py").unlink()  # Python itself looks for that there, before any program begins
    for arguments in (["riwoad", *sets(table, "run.export=true")], ["riwoactl", "status"], ["riwoactl", "export"]):
        done = program(arguments[0], *arguments[1:])
        assert (done.returncode, executed.exists()) == (0, False), done.stderr


def test_neither_the_supernets_workers_nor_a_measurement_import_from_there(nothing_named: Path) -> None:
    executed = trapped(nothing_named)
    quick = ["--repeats", "2", "--networks", "10", "--sessions", "0", "--resolutions", "24", "--table", "t.json"]
    assert program("riwoactl", "lut", "build", *quick).returncode == 0
    (nothing_named / ".riwoa").mkdir()
    small = ["run.generations=1", "run.polish_evaluations=0", "search.population=4", "oracle.workers=1"]
    small += [
        "oracle.supernet.resolutions=[24]",
        "oracle.supernet.validation_views=1",
        "oracle.supernet.recalibration_images=50",
    ]
    small += ["latency.repeats=10", "cognition.provider=scripted", "search.p_semantic=1", "cognition.role=slot"]
    arguments = [part for setting in small for part in ("--set", setting)]
    shutil.copy("t.json", ".riwoa/latency_lut.json")
    done = program("riwoad", "--state", ".riwoa", *arguments)
    assert (done.returncode, executed.exists()) == (0, False), done.stderr
    assert (nothing_named / ".riwoa/export/model.safetensors").exists()


def test_a_child_of_python_m_keeps_off_it_too(nothing_named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed = trapped(nothing_named)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", "relative", "/somewhere"]))
    environment = child_environment(1)
    assert "/somewhere" in environment["PYTHONPATH"].split(os.pathsep)
    assert all(map(os.path.isabs, environment["PYTHONPATH"].split(os.pathsep)))
    subprocess.run(child_command("riwoa.ctl", "config", "show"), env=environment, check=True, stdout=subprocess.DEVNULL)
    grandchild = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import random, json'], check=True)"
    subprocess.run([sys.executable, "-c", grandchild], env=environment, check=True)
    assert not executed.exists()
