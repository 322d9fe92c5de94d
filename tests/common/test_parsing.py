from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.ipc.frames import decode_frame, encode_frame
from riwoa.parsing import parse_json, parse_json_object, parse_toml, read_once
from tests.support.odd_json import ODD_BYTES

_OBJECTS = {"no state", "a state of another kind"}


@pytest.mark.parametrize("text", [b for name, b in ODD_BYTES.items() if name not in _OBJECTS])
@pytest.mark.parametrize("read", [parse_json_object, decode_frame])
def test_whatever_json_holds_reading_it_gives_an_object_or_one_line(read: Any, text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\A.+\Z"):
        read(text * 17 if len(text) > 1 << 24 and read is decode_frame else text)


def test_depth_is_counted_outside_strings_alone() -> None:
    assert parse_json(json.dumps(["[{" * 500, '\\"[' * 500])) == ["[{" * 500, '\\"[' * 500]
    assert parse_json("[" * 64 + "]" * 64)
    with pytest.raises(ValueError, match="deeper than 64"):
        parse_json("[" * 65 + "]" * 65)
    assert len(parse_json(json.dumps([[1]] * 1000))) == 1000


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=40,
)


@given(st.dictionaries(st.text(), _JSON, max_size=5))
def test_a_frame_reads_back_as_it_was_written(message: dict[str, Any]) -> None:
    assert decode_frame(encode_frame(message)) == message


def test_even_a_deep_caller_gets_one_line() -> None:
    def deeper(depth: int) -> None:
        if depth:
            return deeper(depth - 1)
        with pytest.raises(ValueError, match="nested"):
            parse_toml("x = " + "[" * 800)

    deeper(300)


def test_a_pipe_whose_writer_takes_its_time_is_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("wb", buffering=0) as stream:
            for piece in (b"a", b"b", b"c"):
                time.sleep(0.2)
                stream.write(piece)

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.1)  # it waits for a reader now
    assert read_once(fifo, 100) == (b"abc", True)
    writer.join()


def test_a_pipe_whose_writer_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riwoa.parsing._SILENCE_S", 0.2)
    reading, writing = os.pipe()
    try:
        with pytest.raises(ValueError, match="writer says nothing"):
            read_once(f"/dev/fd/{reading}", 100)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_list_of_many_numbers_is_no_key_of_many_parts() -> None:
    numbers = [i + 0.5 for i in range(500)]
    assert parse_toml(f"x = {numbers}")["x"] == numbers
    for key in (".".join("a" * 200), " . ".join("1" * 200), "x = {" + ".".join("a" * 200)):
        with pytest.raises(ValueError, match="more than 100 parts"):
            parse_toml(f"{key} = 1")
