"""What came from outside cannot steer a terminal."""

from __future__ import annotations

from riwoa.text import printable


def test_printable_text_is_left_as_it_is() -> None:
    assert printable("Straße 猫 3/6 %") == "Straße 猫 3/6 %"


def test_escapes_line_ends_and_marks_of_direction_are_shown_and_not_obeyed() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed\x00") == "a\\x1b[2Jb c\\u202ed\\x00"


def test_half_a_surrogate_can_be_shown() -> None:
    assert printable("x\udcff") == "x\\udcff"


def test_a_line_is_bounded() -> None:
    assert len(printable("\x1b" * 1000, 20)) == 20
