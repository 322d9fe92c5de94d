"""File systems that can do less: the run ends as on a whole one, or is refused in a line that names the file system."""

from __future__ import annotations

import errno
import subprocess
import time
from pathlib import Path

import pytest

from riwoa.ipc.child import child_environment
from tests.crash.test_streams import digest
from tests.crash.test_streams import finished as finished
from tests.crash.test_streams import table as table
from tests.crash.test_streams import undisturbed as undisturbed
from tests.run.test_table_run import table_settings
from tests.service.test_service import command
from tests.support.shim import shim

LONG = ("run.generations=60", "run.polish_evaluations=60", "governor.retry_s=1")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def test_without_locks_a_search_ends_as_with_them(table: Path, tmp_path: Path, undisturbed: str, number: int) -> None:
    state = made(tmp_path / "state")
    ended = life(state, table, shim(state, flock=number))
    assert ended.returncode == 0, ended.stderr
    assert digest(state) == undisturbed


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP], ids=errno.errorcode.get)
def test_where_a_directory_cannot_be_flushed_a_search_ends_as_where_it_can(
    table: Path, tmp_path: Path, undisturbed: str, number: int
) -> None:
    state = made(tmp_path / "state")
    ended = life(state, table, shim(state, dirfsync=number))
    assert ended.returncode == 0, ended.stderr
    assert digest(state) == undisturbed


def test_where_no_socket_can_be_bound_a_search_goes_on_without(table: Path, tmp_path: Path, undisturbed: str) -> None:
    state = made(tmp_path / "state")
    ended = life(state, table, shim(state, bind=errno.EPERM))
    assert ended.returncode == 0, ended.stderr
    assert "no_control_socket" in ended.stderr
    assert digest(state) == undisturbed


@pytest.mark.crash
@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EFBIG, errno.ESTALE], ids=errno.errorcode.get)
def test_a_quota_exceeded_for_seconds_is_waited_out(table: Path, tmp_path: Path, number: int) -> None:
    settings = table_settings(table, *LONG)
    whole = made(tmp_path / "whole")
    undisturbed = subprocess.run(
        command(whole, settings=settings), env=child_environment(1), capture_output=True, timeout=150, check=False
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    state, quota = made(tmp_path / "state"), tmp_path / "quota"
    environment = {**child_environment(1), **shim(state, quota=str(quota), qerr=number)}
    with subprocess.Popen(
        command(state, settings=settings), env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stderr is not None
            while "generation_committed" not in (line := process.stderr.readline()):
                assert line, "it ended before its first generation"
            quota.touch()
            time.sleep(3.0)
            assert process.poll() is None, process.stderr.read()
            quota.unlink()
            _, stderr = process.communicate(timeout=150)
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    assert digest(state) == digest(whole)


def made(state: Path) -> Path:
    state.mkdir()
    return state


def life(state: Path, table: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """One run in an environment of the shim."""
    return subprocess.run(
        command(state, settings=table_settings(table)),
        env={**child_environment(1), **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
