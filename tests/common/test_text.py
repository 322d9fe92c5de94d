"""What came from outside cannot steer a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import riwoa.errors
from riwoa.errors import InputError, RiwoaError
from riwoa.log import configure, get_logger
from riwoa.service.foreground import architecture_line
from riwoa.text import duration, printable

HOSTILE = "\x1b[2J\x1b]0;owned\x07\n\u202ename\x9b"


def test_printable_text_is_left_as_it_is() -> None:
    assert printable("Straße 猫 3/6 %") == "Straße 猫 3/6 %"


def test_escapes_line_ends_and_marks_of_direction_are_shown_and_not_obeyed() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed\x00") == "a\\x1b[2Jb c\\u202ed\\x00"


def test_half_a_surrogate_can_be_shown() -> None:
    assert printable("x\udcff") == "x\\udcff"


def test_a_line_is_bounded() -> None:
    assert len(printable("\x1b" * 1000, 20)) == 20


def unsafe(text: str) -> set[str]:
    """Characters that a terminal would act on."""
    return {c for c in text if not c.isprintable()}


ERRORS = [k for k in vars(riwoa.errors).values() if isinstance(k, type) and issubclass(k, RiwoaError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_no_error_of_ours_can_carry_more_than_one_printable_line(kind: type[Exception]) -> None:
    message = str(kind(f"{HOSTILE}: there is no such gene; name another"))
    assert not unsafe(message)
    assert message.endswith("; name another")


def test_a_log_on_a_terminal_shows_names_and_does_not_obey_them() -> None:
    stream = io.StringIO()
    configure("info", "pretty", stream)
    try:
        get_logger("test").warning("evaluation_failed", reason=f"gene {HOSTILE} is no gene")
    finally:
        configure("info", "json", sys.stderr)
    told = stream.getvalue()
    assert "\\x1b[2J" in told
    assert "owned\x07" not in told
    assert "\u202e" not in told


def test_an_architecture_of_any_names_is_one_printable_line() -> None:
    assert not unsafe(architecture_line({HOSTILE: 1, "\x7f": 2}))
    assert architecture_line({"resolution": 3, "stage1.depth": 2}) == '{"resolution": 3, "stage1.depth": 2}'


def test_a_column_of_a_table_called_by_terminal_escapes_is_told_without_them(tmp_path: Path) -> None:
    """The daemon's own output on a terminal, whatever wrote it."""
    (tmp_path / "t.csv").write_text('"\x1b[2J\u202eg",acc\n0,1\n1,2\n', encoding="utf-8")
    sets = [
        "oracle.kind=table",
        f"oracle.table.file={tmp_path / 't.csv'}",
        "oracle.table.genes=g",
        "oracle.table.accuracy=acc",
    ]
    command = [sys.executable, "-m", "riwoa.service", "--foreground", "--state", str(tmp_path / "state")]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command, *(part for pair in sets for part in ("--set", pair)), "--set", "cognition.provider=none"],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
    )
    os.close(theirs)
    told = b""
    try:
        while piece := os.read(ours, 4096):
            told += piece
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) != 0
    assert b"there is no column 'g'; it has" in told
    assert b"\x1b[2J" not in told
    assert "\u202e".encode() not in told


def test_an_input_error_keeps_its_words() -> None:
    assert str(InputError("Straße/猫.npz: there is no table; check its name")).startswith("Straße/猫.npz: ")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (61, "1 min 01 s"), (7500, "2 h 05 min"), (-3, "0 s")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
