"""Tables of ONNX files: measured in onnxruntime here, or judged by a program of the user's."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from riwoa.config.schema import Config
from riwoa.errors import TableError
from riwoa.hardware import build, obtain
from riwoa.hardware.check import check_table
from riwoa.hardware.drift import measure_drift
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.onnx_clock import CommandClock
from riwoa.hardware.runtime import Runtime, runtime_mismatches, spoken
from riwoa.supernet.geometry import Backbone

BACKBONE = Backbone(0.1, 10)
# Says that a network takes a microsecond for each kilobyte of its file.
SIZES = "import os, sys; print('warm'); print({'median_ms': os.path.getsize(sys.argv[1]) / 1e6}['median_ms'])"


def program(code: str) -> Runtime:
    return Runtime("command", networks=10, command=shlex.join([sys.executable, "-c", code]), timeout_s=10, retries=0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    path = tmp_path_factory.mktemp("lut") / "lut.json"
    build.build_table(path, BACKBONE, (24,), Runtime("onnxruntime", networks=10), repeats=4, sessions=0)
    return LatencyTable.load(path)


def test_a_table_in_onnxruntime_says_so_and_predicts_whole_networks(table: LatencyTable) -> None:
    assert (table.settings.runtime, table.settings.regime, table.settings.graph_level) == (
        "onnxruntime",
        "session",
        "all",
    )
    assert spoken(table.settings).startswith("onnxruntime 1.")
    found = check_table(table, networks=8, rounds=4)
    assert found["predictors"][0]["median_error_percent"] < 25  # half of a percent on an idle machine


def test_such_a_table_is_watched_for_drift(table: LatencyTable) -> None:
    slower = replace(table, entries={k: replace(t, p10_ms=t.p10_ms / 3) for k, t in table.entries.items()})
    assert measure_drift(table, rounds=12, tolerance=9.0).verdict != "drifted"
    assert measure_drift(slower, rounds=12, tolerance=0.2).operators > 2


def test_auto_goes_on_with_the_table_that_lies_there(table: LatencyTable) -> None:
    auto, torch = Config().latency, replace(table.settings, runtime="torch", regime="eager", graph_level="")
    assert runtime_mismatches(table.settings, auto) == runtime_mismatches(torch, auto) == []
    named = auto.model_copy(update={"runtime": "onnxruntime"})
    assert runtime_mismatches(torch, named) == ["latency.runtime: 'torch' is not 'onnxruntime'"]
    rewritten = auto.model_copy(update={"graph_level": "basic"})
    assert runtime_mismatches(table.settings, rewritten) == ["latency.graph_level: 'all' is not 'basic'"]


def test_a_table_of_another_runtime_is_refused_with_what_to_do(table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "latency_lut.json"
    table.save(path)
    config = Config.model_validate({"latency": {"runtime": "torch"}})
    with pytest.raises(TableError, match=r"another runtime .*'onnxruntime' is not 'torch'.*riwoactl lut build"):
        obtain.known_table(path, config)


def test_a_program_judges_networks(tmp_path: Path) -> None:
    runtime = program(SIZES)
    found = build.build_table(tmp_path / "lut.json", BACKBONE, (24,), runtime, repeats=2, sessions=0)
    assert (found.settings.runtime, found.settings.command) == ("command", runtime.command)
    assert all(0.05 < network.ms < 5 for network in found.known)
    assert len({network.ms for network in found.known}) > 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('fast')", "last line"),
        ("print(-1)", "needs to be milliseconds"),
        ("print('nan')", "needs to be milliseconds"),
        ("", "needs to be milliseconds"),
        ("raise SystemExit('no phone')", "ended with 1 .no phone."),
    ],
)
def test_a_program_that_tells_no_time_is_one_line(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        CommandClock(program(code)).file_ms(tmp_path / "model.onnx")


def test_a_program_is_given_its_time_and_asked_again(tmp_path: Path) -> None:
    slow = replace(program("import time; time.sleep(30)"), timeout_s=0.3)
    with pytest.raises(TableError, match=r"longer than 0\.3 s; raise"):
        CommandClock(slow).file_ms(tmp_path / "model.onnx")
    once = (
        "import pathlib, sys; p = pathlib.Path(sys.argv[1]); found = p.exists(); p.touch(); print(2.5) if found else 1"
    )
    assert CommandClock(replace(program(once), retries=1)).file_ms(tmp_path / "model.onnx") == 2.5
