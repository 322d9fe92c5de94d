"""Streams that take nothing: the search, its exit code and its digest are those of the run that nobody disturbed.

A short share runs in ``make test``, all of it in ``make test-crash``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from riwoa.ipc.child import child_environment
from riwoa_storage.replay import verify
from tests.run.test_table_run import table_settings, write_table
from tests.service.test_service import command, ctl, run
from tests.support.outlets import OUTLETS, run_into

BOTH = (1, 2)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def finished(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a run whose streams are in order."""
    state = tmp_path_factory.mktemp("finished") / "state"
    done = run(state, settings=table_settings(table))
    assert done.returncode == 0, done.stderr
    return state


@pytest.fixture
def undisturbed(finished: Path) -> str:
    """The digest of a run whose streams are in order."""
    return digest(finished)


def digest(state: Path) -> str:
    found = verify(state / "journal.db")
    assert found.runs[-1].status == "finished"
    return str(found.final_digest)


def disturbed(table: Path, tmp_path: Path, kind: str, streams: tuple[int, ...], *arguments: str) -> str:
    """The digest of a run whose streams take nothing; it must end well and say nothing of it elsewhere."""
    state = tmp_path / "state"
    daemon = command(state, *arguments, settings=table_settings(table))
    ended = run_into(kind, streams, daemon, child_environment(1), tmp_path, started=(state / "journal.db").exists)
    assert ended.code == 0, ended.said
    assert "Traceback" not in ended.said
    assert "Exception ignored" not in ended.said
    return digest(state)


@pytest.mark.parametrize("kind", OUTLETS)
def test_a_search_whose_streams_take_nothing_ends_as_if_they_did(
    table: Path, tmp_path: Path, undisturbed: str, kind: str
) -> None:
    assert disturbed(table, tmp_path, kind, BOTH, "--foreground") == undisturbed


@pytest.mark.crash
@pytest.mark.parametrize("foreground", [True, False], ids=["foreground", "daemon"])
@pytest.mark.parametrize("streams", [(1,), (2,), BOTH], ids=["stdout", "stderr", "both"])
@pytest.mark.parametrize("kind", OUTLETS)
def test_whatever_stream_takes_nothing_in_whatever_way(
    table: Path, tmp_path: Path, undisturbed: str, kind: str, streams: tuple[int, ...], foreground: bool
) -> None:
    arguments = ("--foreground",) if foreground else ()
    assert disturbed(table, tmp_path, kind, streams, *arguments) == undisturbed


def test_a_reader_that_ends_after_a_line_ends_nothing(table: Path, tmp_path: Path, undisturbed: str) -> None:
    daemon = command(tmp_path / "state", settings=table_settings(table))
    with subprocess.Popen(daemon, env=child_environment(1), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline()
        process.stderr.close()
        assert process.wait(timeout=120) == 0
    assert digest(tmp_path / "state") == undisturbed


def test_a_journal_never_gets_the_number_of_a_closed_stream(table: Path, tmp_path: Path) -> None:
    settings = table_settings(table, "run.generations=2000", "run.polish_evaluations=500")
    words = " ".join(map(repr, command(tmp_path / "state", settings=settings)))
    with subprocess.Popen(["sh", "-c", f"exec {words} <&- >&- 2>&-"], env=child_environment(1)) as process:
        try:
            while not (tmp_path / "state" / "journal.db").exists():
                assert process.poll() is None
            found = {number: os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1, 2)}
        finally:
            process.kill()
    assert set(found.values()) == {"/dev/null"}


VERBS = (("status",), ("pareto",), ("verify",), ("config", "show"), ("--help",), ("lut", "--help"))
CODES = {"closed": (0, 0), "full": (74, 74), "broken": (141, 141)}  # stdout alone, both


@pytest.mark.parametrize("kind", CODES)
def test_a_verb_whose_output_cannot_be_written_says_so_in_a_line(finished: Path, tmp_path: Path, kind: str) -> None:
    state = shutil.copytree(finished, tmp_path / "state")
    for verb in VERBS:
        words = [*command(state)[:1], "-m", "riwoa.ctl", *verb, "--state", str(state)]
        alone = run_into(kind, (1,), words, child_environment(1), tmp_path)
        both = run_into(kind, BOTH, words, child_environment(1), tmp_path)
        assert (alone.code, both.code) == CODES[kind], verb
        assert alone.said == (
            "riwoactl: standard output cannot be written (No space left on device); the work itself is done\n"
            if kind == "full"
            else ""
        )


def test_a_verb_that_complains_to_nobody_has_the_same_exit_code(tmp_path: Path) -> None:
    words = [*command(tmp_path)[:1], "-m", "riwoa.ctl", "pause", "--state", str(tmp_path)]
    for kind in ("closed", "full", "broken", "blocked"):
        assert run_into(kind, (2,), words, child_environment(1), tmp_path).code == 69, kind


def test_what_an_encoding_lacks_is_shown_by_what_looks_alike(table: Path, tmp_path: Path) -> None:
    plain = {**child_environment(1), "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    daemon = command(tmp_path / "state", "--foreground", settings=table_settings(table))
    done = subprocess.run(daemon, env=plain, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert b"riwoa - " in done.stdout
    assert b"Winner" in done.stdout


def test_a_full_log_loses_lines_and_says_so_once_there_is_room(table: Path, tmp_path: Path) -> None:
    from riwoa.console.streams import LossyWriter
    from riwoa.log import configure, get_logger

    full, log = os.open("/dev/full", os.O_WRONLY), os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    try:
        writer = LossyWriter(full)
        configure("info", "json", writer)  # type: ignore[arg-type]
        for n in range(3):
            get_logger("test").info("event", n=n)
        writer.drain(10)
        os.dup2(log, full)
        get_logger("test").info("event", n=3)
        writer.drain(10)
    finally:
        configure("info", "auto")
        os.close(full)
        os.close(log)
    assert '"lines_lost": 3' in (tmp_path / "log").read_text()


def test_what_a_finalizer_prints_in_the_middle_of_a_line_is_written_too(tmp_path: Path) -> None:
    program = """
import gc
from riwoa.console.streams import LossyWriter
class Forgotten:
    def __init__(self):
        self.itself = self
    def __del__(self):
        writer.write("finalizer\\n")
for after in range(1, 201):  # so many objects more, wherever that is: in the write, or in the thread that it begins
    writer = LossyWriter(1)
    gc.collect()
    gc.set_threshold(after)
    Forgotten()
    writer.write("line\\n")
    gc.set_threshold(0)
    gc.collect()
    writer.drain(20)
"""
    words = [*command(tmp_path)[:1], "-c", program]
    done = subprocess.run(words, env=child_environment(1), capture_output=True, text=True, timeout=60, check=True)
    assert sorted(done.stdout.splitlines()) == ["finalizer"] * 200 + ["line"] * 200


def test_where_there_is_no_thread_left_words_are_lost_and_counted_until_there_is(tmp_path: Path) -> None:
    program = """
import resource, sys, threading
from riwoa.console.streams import LossyWriter
writer = LossyWriter(1)
threading.stack_size(2**30)
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (2**29, before[1]))
writer.write("lost\\n")
lost = writer.lost
resource.setrlimit(resource.RLIMIT_AS, before)
writer.write("written\\n")
writer.drain(20)
print(lost, writer.lost, file=sys.stderr)
"""
    words = [*command(tmp_path)[:1], "-c", program]
    done = subprocess.run(words, env=child_environment(1), capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("written\n", "1 1\n")


def test_attached_to_a_daemon_a_stream_that_takes_nothing_changes_neither(
    table: Path, tmp_path: Path, undisturbed: str
) -> None:
    state = tmp_path / "state"
    settings = table_settings(table)
    with subprocess.Popen(command(state, settings=settings), env=child_environment(1), stderr=subprocess.DEVNULL) as it:
        while it.poll() is None and not (state / "control.sock").exists():
            pass
        for kind in ("broken", "full"):
            ended = run_into(kind, BOTH, command(state, "--foreground", settings=settings), child_environment(1), state)
            assert ended.code == 0
    assert it.returncode == 0
    assert digest(state) == undisturbed
    assert ctl(state, "verify").returncode == 0
