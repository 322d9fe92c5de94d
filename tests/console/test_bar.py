"""Progress as a terminal, a poor terminal and a file see it."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from riwoa.console.bar import ProgressBar
from riwoa.console.terminal import Terminal, fit
from riwoa.ipc.child import child_environment
from tests.run.test_table_run import table as table
from tests.run.test_table_run import table_settings
from tests.service.test_service import command

ESCAPES = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")


def seen_on_a_terminal(words: list[str], columns: int, **environment: str) -> bytes:
    """What a program writes to a terminal of so many columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {k: v for k, v in child_environment(1).items() if k not in ("NO_COLOR", "TERM")}
    with subprocess.Popen(words, env={**clean, **environment}, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        found = b""
        try:
            while piece := os.read(master, 65536):
                found += piece
        except OSError:  # the last that had it open has closed it
            pass
    os.close(master)
    assert process.returncode == 0, found
    return found


def searching(table: Path, state: Path) -> list[str]:
    return command(state, "--foreground", settings=table_settings(table, "log.level=debug"))


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "dumb", "NO_COLOR": "1"}, {}])
def test_a_poor_terminal_gets_plain_lines(table: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    found = seen_on_a_terminal(searching(table, tmp_path / "state"), 80, **environment)
    assert b"\x1b" not in found
    assert b"Winner" in found


def test_without_colours_a_terminal_is_drawn_on_in_place(table: Path, tmp_path: Path) -> None:
    found = seen_on_a_terminal(searching(table, tmp_path / "state"), 80, TERM="xterm", NO_COLOR="1")
    assert b"\x1b[0J" in found
    assert not [e for e in ESCAPES.findall(found) if e.endswith(b"m")]


@pytest.mark.parametrize("columns", [20, 0])
def test_drawn_lines_are_cut_to_a_narrow_terminal(table: Path, tmp_path: Path, columns: int) -> None:
    words = command(tmp_path / "state", "--foreground", settings=table_settings(table))
    found = seen_on_a_terminal(words, columns, TERM="xterm").decode()
    pictures = found.split("\x1b[0J")[1:-1]  # after the last one comes the result, which is never cut
    assert pictures
    drawn = [line for picture in pictures for line in ESCAPES.sub(b"", picture.encode()).decode().splitlines()]
    assert max(map(len, drawn)) < (columns or 80)


def test_a_line_is_cut_by_cells() -> None:
    assert fit("ab漢字", 4) == "ab漢"
    assert fit("ab漢字", 5) == "ab漢"
    assert fit("e\u0301e\u0301", 2) == "e\u0301e\u0301"
    assert fit("abc", 0) == ""


def test_a_stream_that_is_no_terminal_has_a_width_too() -> None:
    assert Terminal.of(io.StringIO()) == Terminal(redraws=False, colours=False, columns=80, rows=24)


def test_without_a_terminal_a_line_is_said_every_ten_seconds() -> None:
    stream = io.StringIO()
    progress = ProgressBar("training", "step", stream, 0.0)
    for second in range(1, 31):
        progress.advance(second, 60, "loss 0.5", float(second))
        progress.show(float(second))
    assert stream.getvalue().splitlines() == [
        "training · step 10 of 60 · 10 s so far · about 50 s left · loss 0.5",
        "training · step 20 of 60 · 20 s so far · about 40 s left · loss 0.5",
        "training · step 30 of 60 · 30 s so far · about 30 s left · loss 0.5",
    ]


def test_work_that_tells_nothing_still_shows_that_it_lives() -> None:
    stream = io.StringIO()
    progress = ProgressBar("verifying", "", stream, 0.0)
    progress.show(9.9)
    assert stream.getvalue() == ""
    progress.show(10.0)
    assert stream.getvalue() == "verifying · 10 s so far\n"


def test_time_left_that_proved_too_hopeful_is_unknown() -> None:
    progress = ProgressBar("training", "step", io.StringIO(), 0.0)
    progress.advance(0, 3, "", 0.0)
    progress.advance(2, 3, "", 10.0)
    assert "about 3 s left" in progress.line(12.0)
    assert "left" not in progress.line(40.0)


def test_continued_work_counts_its_pace_from_where_it_went_on() -> None:
    progress = ProgressBar("training", "step", io.StringIO(), 0.0)
    progress.advance(100, 120, "", 0.0)
    progress.advance(110, 120, "", 10.0)
    assert "about 10 s left" in progress.line(10.0)


def test_a_real_training_prints_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    program = (
        "import sys, riwoa.console.bar as bar; bar._LINE_EVERY_S = 0.2; from riwoa.ctl import main; sys.exit(main())"
    )
    words = ["supernet", "train", "digits", "--steps", "4", "--out", str(tmp_path / "net.safetensors")]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=child_environment(1), capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^training · .*step \d of 4 · .*so far", done.stderr, re.M)
