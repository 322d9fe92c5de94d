"""Directories that are renamed or removed under a program, and names that hold what a terminal would obey."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.service.test_places import daemon, program, status_of
from tests.service.test_places import table as table


def test_a_search_goes_on_once_its_renamed_directory_is_back(table: Path, tmp_path: Path) -> None:
    state, moved = tmp_path / "state", tmp_path / "moved"
    with daemon(state, table) as process:
        state.rename(moved)
        time.sleep(3.0)
        assert process.poll() is None
        moved.rename(state)
        before, end_s = status_of(state)["run"]["generation"], time.monotonic() + 60
        while status_of(state)["run"]["generation"] <= before + 1:
            assert process.poll() is None, table.with_name("said").read_text()
            assert time.monotonic() < end_s
            time.sleep(0.1)


@pytest.mark.parametrize("name", ["riwoad", "riwoactl"])
def test_in_a_directory_that_was_removed_a_program_does_its_work(name: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()

    def enter_and_remove() -> None:
        os.chdir(gone)
        gone.rmdir()

    done = program(name, "--help", preexec_fn=enter_and_remove)
    assert done.returncode == 0
    assert "usage: " in done.stdout
    assert done.stderr == ""


def test_a_path_that_a_terminal_would_obey_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    (tmp_path / "\x1b[31m").mkdir()
    done = program("riwoactl", "--state", tmp_path / "\x1b[31m", "pareto")
    assert done.returncode == 66
    assert r"\x1b[31m" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("name", ["riwoad", "riwoactl"])
def test_an_empty_state_is_not_the_usual_place(name: str, tmp_path: Path) -> None:
    done = program(
        name, "--state", "", *(["status"] if name == "riwoactl" else []), env={**os.environ, "HOME": str(tmp_path)}
    )
    assert done.returncode == 64
    assert "needs a directory" in done.stderr
    assert not any(tmp_path.iterdir())
