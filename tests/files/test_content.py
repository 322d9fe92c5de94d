"""Whatever a path leads to, or cannot lead to: one line of ours, and nobody waits."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from riwoa.datasets.catalogue import task_of
from riwoa.datasets.cifar import load_cifar100
from riwoa.errors import InputError, RiwoaError
from riwoa.files.ownership import opened_file
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.ofa_table import OfaLatencyTable
from riwoa.oracle.kinds import build_oracle
from riwoa.oracle.predictor import AccuracyPredictor
from riwoa.oracle.table import TableOracle, TableSpec
from riwoa.oracle.table_file import column_names
from riwoa.supernet.spec import SupernetSpec
from riwoa.surrogate.gaussian_process import Surrogate

READERS: dict[str, Callable[[Path], object]] = {
    "table": lambda path: TableOracle(TableSpec(path=str(path), genes="g", accuracy="a")),
    "joined column": lambda path: TableOracle(
        TableSpec(path=str(path.parent / "whole.csv"), genes="g", accuracy=f"{path}:a")
    ),
    "columns": column_names,
    "data": lambda path: task_of(SupernetSpec(data=str(path))),
    "CIFAR-100": load_cifar100,
    "checkpoint": lambda path: build_oracle(SupernetSpec(checkpoint=str(path)).to_json()),
    "latency table": LatencyTable.load,
    "OFA's table": lambda path: OfaLatencyTable(path.parent / "of" / path.name).sha256((224,)),
    "OFA's predictor": AccuracyPredictor.load,
    "predictor": Surrogate.load,
}
PLACES: dict[str, Callable[[Path], Path]] = {
    "a NUL in the name": lambda folder: folder / "a\0b",
    "a name too long": lambda folder: folder / ("x" * 300),
    "half a character": lambda folder: folder / "\udcff",
    "nothing": lambda folder: folder / "nothing",
    "a pipe": lambda folder: folder / "pipe",
    "a device": lambda folder: folder / "zero",
    "a link in circles": lambda folder: folder / "loop",
    "a folder": lambda folder: folder / "folder",
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_in_one_line_at_once(tmp_path: Path, reader: str, place: str) -> None:
    (tmp_path / "whole.csv").write_text("g,a\n0,0.5\n1,0.25\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zero", "loop", "folder"):
        (tmp_path / "of" / name).mkdir(parents=True)
        (tmp_path / "of" / name / "224_lookup_table.yaml").symlink_to(tmp_path / name)
    with pytest.raises(RiwoaError) as refused:
        READERS[reader](PLACES[place](tmp_path))
    assert all(c.isprintable() for c in str(refused.value))
    assert len(str(refused.value)) < 2000


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b"a: " + b"9" * 5000, b"a: &x [*x]", b"a: 2001-99-99", b"\xff\xfe", b"? {}\n", b"x" * (5 << 20)],
    ids=["deep", "5,000 digits", "in itself", "no date", "no UTF-8", "no key", "long"],
)
def test_text_that_is_none_of_ofas_tables_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "224_lookup_table.yaml").write_bytes(content)
    with pytest.raises(RiwoaError, match=r"224_lookup_table|no timing of"):
        OfaLatencyTable(tmp_path).range_ms((224,))


@pytest.mark.timeout(60)
def test_what_becomes_a_pipe_once_it_was_looked_at_holds_nobody_up(tmp_path: Path) -> None:
    whole, place, stop = tmp_path / "whole.csv", tmp_path / "table.csv", threading.Event()
    whole.write_text("g,a\n0,0.5\n1,0.25\n")
    os.mkfifo(tmp_path / "pipe")

    def change() -> None:
        while not stop.is_set():
            for now in ("pipe", "whole.csv"):
                os.link(tmp_path / now, tmp_path / "next")
                (tmp_path / "next").replace(place)

    os.link(whole, place)
    with ThreadPoolExecutor() as other:
        changing = other.submit(change)
        try:
            for _ in range(2000):
                with contextlib.suppress(InputError), opened_file(place) as stream:
                    assert stream.read(4) == b"g,a\n"
                with contextlib.suppress(InputError):
                    assert column_names(place) == ["g", "a"]
        finally:
            stop.set()
        changing.result(10)
