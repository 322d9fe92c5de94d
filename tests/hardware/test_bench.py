"""Measuring this machine: complete, resumable after SIGKILL, and never outliving the parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from riwoa.child import child_environment
from riwoa.errors import StateDirectoryError, TableError, UsageError
from riwoa.hardware import bench, build, remeasure
from riwoa.hardware.check import check_table
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.process import BuildProgress
from riwoa.oracle.geometry import Backbone, all_operators, operators
from riwoa.oracle.mobilenet import OfaConfig

BACKBONE = Backbone(0.25, 10)
SMALL = (24,)


def command(table: Path, repeats: int, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "riwoa.hardware.build", *options, "build", "--table", str(table)),
        *(
            "--width-mult",
            "0.25",
            "--classes",
            "10",
            "--resolutions",
            "24",
            "--threads",
            "1",
            "--repeats",
            str(repeats),
        ),
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[LatencyTable, Path, list[BuildProgress]]:
    path = tmp_path_factory.mktemp("lut") / "lut.json"
    progress: list[BuildProgress] = []
    table = asyncio.run(
        build.build_table_in_child(path, BACKBONE, SMALL, 1, repeats=20, progress=progress.append, sessions=1)
    )
    return table, path, progress


def test_a_build_times_every_operator_calibrates_and_reports_progress(
    built: tuple[LatencyTable, Path, list[BuildProgress]],
) -> None:
    table, path, progress = built
    assert set(table.entries) == {op.key for op in all_operators(SMALL, BACKBONE)}
    assert {t.count for t in table.entries.values()} == {20}
    assert all(0 < t.p10_ms <= t.p50_ms <= t.p90_ms for t in table.entries.values())
    assert (table.calibration.networks, table.calibration.repeats) == (24, 4)
    assert progress[-1].done == progress[-1].total == 20
    assert LatencyTable.load(path) == table
    assert os.listdir(path.parent) == ["lut.json"]


def test_the_fitted_line_predicts_the_networks_it_was_fitted_on(
    built: tuple[LatencyTable, Path, list[BuildProgress]],
) -> None:
    table = built[0]
    low, high = table.range_ms()
    assert 0 < low < high
    assert table.calibration.spearman > 0.6
    assert table.calibration.mean_abs_error_percent < 30


def test_a_check_measures_other_networks_and_reports_against_the_repeatability(
    built: tuple[LatencyTable, Path, list[BuildProgress]],
) -> None:
    result = check_table(built[0], networks=8, rounds=6)
    json.dumps(result, allow_nan=False)
    assert {"spearman", "kendall", "mean_abs_error_percent", "repeatability", "drift", "table_sha256"} <= set(result)
    assert len(result["rows"]) == 8
    assert all(row["measured_ms"] > 0 and row["predicted_ms"] > 0 for row in result["rows"])
    fitted_on = {operators(n.config, BACKBONE) for n in built[0].known}
    checked = {operators(OfaConfig.from_json(row["architecture"]), BACKBONE) for row in result["rows"]}
    assert len(fitted_on) == 24
    assert len(checked) == 8
    assert not checked & fitted_on
    assert [row["predictor"] for row in result["predictors"]] == [
        "latency table",
        "latency table x level",
        "plain sum of operators",
        "MACs",
        "parameters",
        "ceiling: half against half",
    ]
    assert 0 <= result["interval"]["coverage"] <= 1


def test_a_table_of_another_device_is_not_checked_here(
    built: tuple[LatencyTable, Path, list[BuildProgress]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remeasure, "probe", lambda: replace(built[0].device, board="elsewhere"))
    with pytest.raises(TableError, match="measured elsewhere"):
        check_table(built[0], networks=3, rounds=2)


def test_killed_measurements_continue_where_they_were(tmp_path: Path) -> None:
    path = tmp_path / "lut.json"
    child = subprocess.Popen(command(path, 5000), stdout=subprocess.PIPE, env=child_environment(1))
    partial = tmp_path / ".lut.json.partial"
    wait_until(lambda: rounds_in(partial) > 0, 60)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with np.load(partial) as stored:
        done = int(stored["rounds_done"])
        first_rounds = stored["operators"][:, :done]
        header = json.loads(bytes(stored["header"]))
    assert done > 0
    assert header["settings"]["repeats"] == 5000
    ops, configs = all_operators(SMALL, BACKBONE), bench.spread_configs(SMALL, 24, seed="calibration")
    samples = bench.PartialFile(path, header).load(bench.Samples.empty(len(ops), len(configs), 5000))
    assert samples.rounds_done == done
    assert np.array_equal(samples.operators[:, :done], first_rounds)
    # The command itself takes them up: its first report is beyond them.
    again = subprocess.Popen(command(path, 5000), stdout=subprocess.PIPE, env=child_environment(1))
    assert again.stdout is not None
    report = json.loads(again.stdout.readline())
    again.kill()
    again.communicate()
    assert report["done"] == done + 1


def rounds_in(partial: Path) -> int:
    """Rounds saved; the file is only ever replaced whole, so it can be read at any moment."""
    if not partial.exists():
        return 0
    with np.load(partial) as stored:
        return int(stored["rounds_done"])


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_saved_rounds_of_another_measurement_or_damaged_ones_are_not_used(tmp_path: Path) -> None:
    table = tmp_path / "lut.json"
    samples = bench.Samples(np.ones((3, 10)), np.ones((2, 2)), 10)
    bench.PartialFile(table, {"threads": 1}).save(samples)
    empty = bench.Samples.empty(3, 2, 10)
    assert bench.PartialFile(table, {"threads": 1}).load(empty).rounds_done == 10
    assert bench.PartialFile(table, {"threads": 2}).load(empty) is empty
    bench.PartialFile(table, {"threads": 1}).save(bench.Samples(np.full((3, 10), np.nan), np.ones((2, 2)), 10))
    assert bench.PartialFile(table, {"threads": 1}).load(empty) is empty
    whole = bench.PartialFile(table, {}).path.read_bytes()
    for damaged in (whole[:100], b"", b"PK\x03\x04" + whole[50:], np.lib.format.MAGIC_PREFIX):
        bench.PartialFile(table, {}).path.write_bytes(damaged)
        assert bench.PartialFile(table, {"threads": 1}).load(empty) is empty


def test_a_child_ends_when_its_standard_input_does(tmp_path: Path) -> None:
    child = subprocess.Popen(
        command(tmp_path / "lut.json", 5000, "--child"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(1),
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert json.loads(child.stdout.readline())["event"] == "progress"
    child.stdin.close()
    assert child.wait(timeout=5) == 113
    child.stdout.close()


def test_an_unwritable_table_is_one_error_with_its_class(tmp_path: Path) -> None:
    with pytest.raises(StateDirectoryError, match=r"cannot write the latency table .*No such file"):
        asyncio.run(build.build_table_in_child(tmp_path / "none" / "lut.json", BACKBONE, SMALL, 1, repeats=10))


def test_too_few_repeats_to_calibrate_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 10"):
        build.build_table(tmp_path / "lut.json", BACKBONE, SMALL, 1, repeats=9)


def test_a_missing_cuda_device_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(TableError, match="choose 'cpu' or 'cuda'"):
        bench.clock_for("tpu", 1)
    if not torch.cuda.is_available():
        with pytest.raises(TableError, match="no CUDA device"):
            bench.clock_for("cuda", 1)


def test_another_busy_process_does_not_change_what_one_thread_is_measured_to_take() -> None:
    """A module that only waits takes no processor time; with more threads the wall clock has to be used."""

    class Wait(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02)
            return x

    item = bench.Timed(Wait(), torch.zeros(1))
    assert bench.clock_for("cpu", threads=1).operator_ms(item) < 10
    assert bench.clock_for("cpu", threads=2).operator_ms(item) >= 20


def test_calibration_networks_span_the_range_and_every_resolution() -> None:
    configs = bench.spread_configs((24, 32, 40), 24, seed="calibration")
    sizes = [sum(op.macs for op in operators(c, BACKBONE)) for c in configs]
    assert {c.r for c in configs} == {24, 32, 40}
    assert sizes[0] == min(sizes)
    assert sizes[1] == max(sizes)
    assert configs == bench.spread_configs((24, 32, 40), 24, seed="calibration")


def test_timed_networks_are_real_subnets_of_the_same_operators() -> None:
    config = bench.random_configs(SMALL, 1, seed="x")[0]
    network = bench.network_items([config], BACKBONE, "cpu")[0]
    ops = operators(config, BACKBONE)
    items = bench.operator_items(ops, "cpu")
    assert sum(p.numel() for p in network.module.parameters()) == sum(
        p.numel() for item in items for p in item.module.parameters()
    )
    for op, item in zip(ops, items, strict=True):
        out = item.module(item.input)
        assert len(out) == 1
        assert tuple(out.shape[1:]) == ((op.out_c,) if op.kind == "classifier" else (op.out_c, op.out_h, op.out_w))
