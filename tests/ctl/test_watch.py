"""``riwoactl watch``: what one picture shows, at several widths; the live one on a real pseudo-terminal."""

import os
import pty
import select
import signal
import sys
import termios
import time
from pathlib import Path

import pytest

from riwoa.console.chart import Axis, chart, steps
from riwoa.ctl import main
from riwoa.ctl.watch import Seen, screen

from .support import individual, write_journal

_FIRST = [(individual(0, ("a", 0.5, 1.0)), individual(1, ("b", 0.6, 1.5)))]
_MORE = [*_FIRST, (individual(0, ("c", 0.8, 3.0)), individual(1, ("d", 0.7, 1.9)))]


def _number(value: float) -> str:
    return f"{value:g}"


def test_a_point_stands_where_it_belongs_and_one_beyond_the_axes_nowhere() -> None:
    side = Axis(0.0, 10.0, _number)
    lines = chart([(0.0, 0.0), (10.0, 10.0), (11.0, 5.0)], side, side, 40, 9, plain=True)
    grid = [line.partition("|")[2] for line in lines[:-1]]
    assert [row for row, line in enumerate(grid) if "*" in line] == [0, 7]
    assert grid[0].index("*") == len(grid[0]) - 1 == 40 - 4 - 1  # beyond the margin of "10 |"
    assert grid[7].index("*") == 0
    assert lines[0].startswith("10 |")
    assert lines[7].startswith(" 0 |")
    assert lines[8].split() == ["0", "10"]
    assert max(map(len, lines)) <= 40


def test_braille_tells_points_of_one_character_apart() -> None:
    side = Axis(0.0, 1.0, _number)
    (first, *_), (second, *_) = (chart([(0.0, up)], side, side, 40, 9) for up in (1.0, 0.96))
    assert {first[-1], second[-1]} == {"\u2801", "\u2802"}


def test_there_is_no_picture_without_room() -> None:
    side = Axis(0.0, 1.0, _number)
    assert chart([(0.5, 0.5)], side, side, 15, 9) == []
    assert chart([(0.5, 0.5)], side, side, 40, 3) == []


def test_the_best_stays_until_there_is_a_better_one() -> None:
    line = steps([(2.0, 0.5), (6.0, 0.9)], Axis(0.0, 8.0, _number), 8)
    assert line[0] == (2.0, 0.5)  # nothing was known before
    assert {value for at, value in line if at < 6.0} == {0.5}
    assert {value for at, value in line if at >= 6.0} == {0.9}


def test_what_is_new_in_the_journal_is_added_to_what_was_seen(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal.db", _FIRST)
    seen = Seen(tmp_path / "journal.db")
    seen.look()
    seen.look()  # nothing twice
    assert seen.best == [(1, 0.5), (2, 0.6)]
    (tmp_path / "journal.db").unlink()
    write_journal(tmp_path / "journal.db", _MORE)
    seen.look()
    assert seen.clouds == [(1.0, 0.5), (1.5, 0.6), (3.0, 0.8), (1.9, 0.7)]
    assert seen.best[-1] == (4, 0.7)  # "c" is beyond the target of 2 ms


@pytest.mark.parametrize("columns", [20, 40, 79, 120])
def test_no_line_is_wider_than_the_terminal_and_no_picture_higher(tmp_path: Path, columns: int) -> None:
    write_journal(tmp_path / "journal.db", _MORE)
    seen = Seen(tmp_path / "journal.db")
    seen.look()
    status = {
        "state": "running",
        "alive": True,
        "run": {"run_id": 1, "phase": "search", "generation": 2, "target_ms": 2},
    }
    for rows in (5, 24, 50):
        lines = screen(status, seen, columns, rows)  # type: ignore[arg-type]
        assert max(map(len, lines)) <= columns
        assert len(lines) <= rows
    assert any("target 2 ms" in line for line in lines) == (columns >= 40)


def test_in_a_pipe_it_says_a_line_and_leaves_with_the_code_of_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / "journal.db", _MORE)
    assert main(["watch", "--state", str(tmp_path)]) == main(["status", "--state", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[0].startswith("stopped")
    assert main(["watch", "--state", str(tmp_path / "none")]) == 3
    assert "no run here" in capsys.readouterr().out


def test_on_a_terminal_it_draws_and_q_brings_back_what_stood_there(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal.db", _MORE)
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        arguments = ["-m", "riwoa.ctl", "watch", "--state", str(tmp_path), "--every", "0.2"]
        os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, "TERM": "xterm"})
    termios.tcsetwinsize(terminal, (40, 80))
    shown, asked, until_s = b"", False, time.monotonic() + 60.0
    try:
        while time.monotonic() < until_s:
            if not select.select([terminal], [], [], 0.5)[0]:
                continue
            try:
                part = os.read(terminal, 65536)
            except OSError:  # Linux says so when the other side is closed
                break
            shown += part
            if not part:
                break
            if b"best so far" in shown and not asked:
                asked = os.write(terminal, b"q") > 0
    finally:
        if not asked:
            os.kill(pid, signal.SIGKILL)
        _, code = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(code) == 3  # nobody searches there
    before, _, after = shown.partition(b"\x1b[?1049l")
    assert before.startswith(b"\x1b[?1049h")
    assert b"accuracy against latency" in before
    assert b"state" in after  # and how it stands
