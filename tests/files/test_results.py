"""Files of results: each line that was appended is there again, whatever a kill, a full disk or another process did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from riwoa.errors import StateDirectoryError, UsageError
from riwoa.files.results import ResultFile

START = b'{"key": "'


def opened(path: Path) -> ResultFile:
    return ResultFile(path, "results of a test", START)


def rows(path: Path) -> list[dict[str, object]]:
    with opened(path) as file:
        return list(file.rows())


def test_what_was_appended_is_read_again_and_each_line_is_flushed_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed, fsync = tmp_path / "new" / "r.jsonl", [], os.fsync

    def counted(descriptor: int) -> None:
        fsync(descriptor)
        flushed.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", counted)
    with opened(path) as file:
        assert list(file.rows()) == []
        for n in range(3):
            file.append({"key": "größer", "n": n})
            assert flushed[-1].count(b"\n") == n + 1
    assert rows(path) == [{"key": "größer", "n": n} for n in range(3)]


def test_a_line_that_was_torn_anywhere_is_dropped_and_the_next_one_does_not_glue_to_it(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    lines = [json.dumps({"key": "a", "n": n}).encode() + b"\n" for n in range(2)]
    for end in range(len(lines[1])):
        path.write_bytes(lines[0] + lines[1][:end])
        with opened(path) as file:
            file.append({"key": "a", "n": 2})
        whole = end == len(lines[1]) - 1  # only its line end was lost
        assert [row["n"] for row in rows(path)] == ([0, 1, 2] if whole else [0, 2])
    for end in range(len(lines[0])):  # a kill at the very first line
        path.write_bytes(lines[0][:end])
        with opened(path) as file:
            file.append({"key": "a", "n": 1})
        assert rows(path)[-1]["n"] == 1


@pytest.mark.parametrize("content", [b"my own notes\n", b'{"name": "package"}\n', b"\x00\x01"])
def test_a_file_of_something_else_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="something else than results of a test"):
        opened(path)
    assert path.read_bytes() == content
    with pytest.raises(UsageError, match="is a directory"):
        opened(tmp_path)


def test_lines_that_hold_no_object_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    deep = b"[" * 100_000
    path.write_bytes(b"\n".join([b'{"key": "a"}', b"[1]", b"\xff\xfe", deep, b"", b'{"key": "b"}']))
    assert [row["key"] for row in rows(path)] == ["a", "b"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirectoryError, match="name another --out"):
        opened(tmp_path / "file" / "r.jsonl")


_FILL = """
import resource, signal, sys
from pathlib import Path
from riwoa.errors import FullDiskError
from riwoa.files.results import ResultFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
file = ResultFile(Path(sys.argv[1]), "results of a test", b'{"key": "')
for n in range(1000):
    try:
        file.append({"key": "a" * 40, "n": n})
    except FullDiskError:
        print(n)
        break
"""


def test_a_disk_that_fills_up_is_told_and_every_line_before_is_there(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    done = subprocess.run([sys.executable, "-c", _FILL, str(path)], capture_output=True, text=True, check=True)
    kept = int(done.stdout)
    assert kept > 10
    assert path.stat().st_size == 1000  # a part of the line that did not fit
    with opened(path) as file:
        file.append({"key": "a", "n": kept})
    assert [row["n"] for row in rows(path)] == list(range(kept + 1))


_WRITE = """
import sys
from pathlib import Path
from riwoa.files.results import ResultFile
file = ResultFile(Path(sys.argv[1]), "results of a test", b'{"key": "')
for n in range(50):
    file.append({"key": sys.argv[2], "n": n, "long": sys.argv[2] * 50_000})
"""


def test_lines_of_two_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", _WRITE, str(path), name]) for name in "ab"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    found = rows(path)
    for name in "ab":
        assert [row["n"] for row in found if row["key"] == name] == list(range(50))
    assert all(row["long"] == str(row["key"]) * 50_000 for row in found)
