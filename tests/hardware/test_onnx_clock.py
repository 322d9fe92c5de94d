"""Tables of ONNX files: measured in onnxruntime here, or judged by a program of the user's."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from riwoa.config.schema import Config
from riwoa.errors import TableError, UsageError
from riwoa.hardware import build, obtain
from riwoa.hardware.check import check_table
from riwoa.hardware.drift import measure_drift
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.onnx_clock import CommandClock
from riwoa.hardware.remarks import remarks
from riwoa.hardware.runtime import Runtime, runtime_mismatches, spoken
from riwoa.paths import shipped
from riwoa.supernet.geometry import Backbone

BACKBONE = Backbone(0.1, 10)
# Says that a network takes a microsecond for each kilobyte of its file.
SIZES = "import os, sys; print('warm'); print({'median_ms': os.path.getsize(sys.argv[1]) / 1e6}['median_ms'])"

# The end of what trtexec of TensorRT 8.6 prints.
TRTEXEC = """\
[10/12/2023-09:14:31] [I] === Performance summary ===
[10/12/2023-09:14:31] [I] Throughput: 1402.77 qps
[10/12/2023-09:14:31] [I] Latency: min = 0.712891 ms, max = 1.02344 ms, mean = 0.7379 ms, median = 0.734375 ms, \
percentile(90%) = 0.75293 ms, percentile(95%) = 0.761719 ms, percentile(99%) = 0.793457 ms
[10/12/2023-09:14:31] [I] H2D Latency: min = 0.0209961 ms, max = 0.0532227 ms, mean = 0.0226 ms, median = 0.0222168 ms
[10/12/2023-09:14:31] [I] GPU Compute Time: min = 0.685059 ms, max = 0.97168 ms, mean = 0.7092 ms, median = 0.70607 ms
[10/12/2023-09:14:31] [I] D2H Latency: min = 0.00341797 ms, max = 0.0131836 ms, mean = 0.0061 ms, median = 0.005859 ms
&&&& PASSED TensorRT.trtexec [TensorRT v8601] # trtexec --onnx=model.onnx
"""


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


def test_a_program_is_held_to_the_threads_of_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as where finalists are made to be timed
    runtime = replace(program("import os; print(os.environ['OMP_NUM_THREADS'])"), threads=3)
    assert CommandClock(runtime).file_ms(tmp_path / "model.onnx") == 3.0


def test_a_table_in_8_bits_says_so_and_what_they_are_worth(table: LatencyTable, tmp_path: Path) -> None:
    path, runtime = tmp_path / "latency_lut.json", Runtime("onnxruntime", networks=10, precision="int8")
    build.build_table(path, BACKBONE, (24,), runtime, repeats=2, sessions=0)
    found = LatencyTable.load(path)
    assert (found.settings.dtype, spoken(found.settings).rpartition(", ")[2]) == ("int8", "int8")
    assert 0.2 < found.notes["int8_over_float32"] < 5
    wanted = Config.model_validate({"latency": {"precision": "int8"}, "oracle": {"supernet": {"width_mult": 0.1}}})
    assert runtime_mismatches(found.settings, wanted.latency) == []
    assert runtime_mismatches(found.settings, Config().latency) == ["latency.precision: 'int8' is not 'float32'"]
    table.save(path)
    with pytest.raises(TableError, match=r"'float32' is not 'int8'.*riwoactl lut build"):
        obtain.known_table(path, wanted)
    for ratio, word in ((1.4, "slower, and less accurate"), (1.01, "no gain"), (0.7, "faster")):
        (line,) = remarks(replace(found, notes={"int8_over_float32": ratio}))
        assert word in line
    with pytest.raises(UsageError, match="int8 is measured in onnxruntime alone"):
        build.build_table(path, BACKBONE, (24,), replace(runtime, name="torch"))


def test_a_table_of_another_version_is_used_and_said_to_be_in_a_line(table: LatencyTable) -> None:
    assert remarks(table) == []
    older = replace(table, settings=replace(table.settings, runtime_version="1.0"))
    (line,) = remarks(older)
    assert "of onnxruntime 1.0, and 1." in line
    assert "`riwoactl lut build` measures anew" in line


@pytest.mark.parametrize(("place", "called"), [(1, ("trtexec",)), (2, ("scp", "ssh"))], ids=["there", "over ssh"])
def test_the_handbooks_program_reads_what_trtexec_prints(place: int, called: tuple[str, ...], tmp_path: Path) -> None:
    text = (shipped("handbook") / "latency.md").read_text(encoding="utf-8")
    (tmp_path / "trt.sh").write_text(text.split("```sh\n")[place].partition("```")[0])
    for name in called:
        said = "" if name == "scp" else TRTEXEC
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'end'\n{said}end\n")
        (tmp_path / name).chmod(0o755)
    command = shlex.join(["env", f"PATH={tmp_path}:/usr/bin:/bin", "sh", str(tmp_path / "trt.sh")])
    clock = CommandClock(Runtime("command", command=command, timeout_s=10, retries=0))
    assert clock.file_ms(tmp_path / "model.onnx") == 0.734375


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
