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
from typing import Any

import numpy as np
import pytest
import torch

from riwoa.errors import StateDirectoryError, TableError, UsageError
from riwoa.hardware import bench, build, remeasure
from riwoa.hardware.calibration import KnownNetwork
from riwoa.hardware.check import check_table
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.process import BuildProgress
from riwoa.hardware.runtime import Runtime
from riwoa.ipc.child import child_environment
from riwoa.supernet.geometry import Backbone, all_operators, operators
from riwoa.supernet.space import OfaConfig

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
            "--repeats",
            str(repeats),
        ),
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[LatencyTable, Path, list[BuildProgress]]:
    path = tmp_path_factory.mktemp("lut") / "lut.json"
    progress: list[BuildProgress] = []
    table = asyncio.run(
        build.build_table_in_child(path, BACKBONE, SMALL, Runtime(), repeats=20, progress=progress.append, sessions=1)
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
    operators_alone = [p for p in progress if not p.words]
    assert operators_alone[-1].done == operators_alone[-1].total == 20
    assert progress[-1].done == progress[-1].total  # of the calibration, which tells its own
    assert "calibrating" in progress[-1].words
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
    with pytest.raises(StateDirectoryError, match=r"cannot write .*lut\.json \(No such file"):
        asyncio.run(build.build_table_in_child(tmp_path / "none" / "lut.json", BACKBONE, SMALL, Runtime(), repeats=10))


def test_too_few_repeats_to_calibrate_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 10"):
        build.build_table(tmp_path / "lut.json", BACKBONE, SMALL, Runtime(), repeats=9)


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


@pytest.mark.parametrize("resolutions", [(24,), (24, 32, 40), (224,)])
def test_no_two_calibration_networks_are_alike(resolutions: tuple[int, ...]) -> None:
    """At 24 px alone the draw nearest to an extreme once was the extreme: left out, it was still known by its twin."""
    configs = bench.spread_configs(resolutions, 24, seed="calibration")
    assert len({operators(config, BACKBONE) for config in configs}) == 24


def test_networks_to_check_on_are_none_of_the_calibrations_even_where_those_are_what_would_be_drawn(
    built: tuple[LatencyTable, Path, list[BuildProgress]],
) -> None:
    drawn = bench.random_configs(SMALL, 40, seed="check 0")
    table = replace(built[0], known=tuple(KnownNetwork(config, 1.0) for config in drawn[:20]))
    found = remeasure.unseen_configs(table, 20, seed="check 0")
    assert found == drawn[20:]
    # Blocks that do not exist do not make another network.
    hidden = [replace(c, ks=(*c.ks[:3], 7 if c.ks[3] == 3 else 3, *c.ks[4:])) for c in drawn if c.d[0] < 4]
    table = replace(table, known=tuple(KnownNetwork(config, 1.0) for config in hidden))
    assert not [c for c in remeasure.unseen_configs(table, 20, seed="check 0") if c in drawn and c.d[0] < 4]


def test_a_table_of_format_1_is_checked_on_none_of_the_networks_that_it_must_have_been_calibrated_on() -> None:
    table = LatencyTable.load(Path(__file__).parent / "golden" / "latency_table_v1.json")
    known = {operators(n.config, table.backbone) for n in remeasure.known_networks(table)}
    assert len(known) == table.calibration.networks == 24
    assert not known & {operators(c, table.backbone) for c in remeasure.unseen_configs(table, 60, seed="check 0")}


def test_sentinels_are_kept_company_so_that_they_are_as_cold_as_when_the_table_was_built(
    built: tuple[LatencyTable, Path, list[BuildProgress]],
) -> None:
    table = built[0]
    found = remeasure.remeasure(table, [table.known[0].config], rounds=3)
    assert {op.key for op in found.rows} == set(table.entries)  # this space is small: all of them
    first = list(found.rows)[:2]
    slow = {key: replace(t, p10_ms=60.0, p50_ms=60.0, p90_ms=60.0) for key, t in table.entries.items()}
    few = remeasure.remeasure(replace(table, entries=slow), [], rounds=2, first=first)
    assert list(few.rows)[:2] == first
    assert len(few.rows) == 8
    assert few.samples.operators.shape == (8, 2)


def test_sessions_move_the_level_and_widen_the_interval(built: tuple[LatencyTable, Path, list[BuildProgress]]) -> None:
    table = built[0]
    configs = [n.config for n in table.known]
    sums = np.array([table.sum_ms(c) for c in configs])
    networks = np.repeat(sums[:, None], 20, axis=1)
    alone = build.calibrated(table, configs, networks)
    apart = build.calibrated(table, configs, networks, [list(1.1 * sums), list(1.2 * sums)])
    assert alone.calibration.slope == pytest.approx(1)
    assert apart.calibration.slope == pytest.approx(1.1)
    assert alone.interval is not None
    assert apart.interval is not None
    assert alone.interval.half_width_percent == pytest.approx(0, abs=1e-3)
    assert apart.interval.within_percent == pytest.approx(0, abs=1e-3)
    assert apart.interval.between_percent > 100 / 11  # the two others lie that far from the median
    assert apart.interval.sessions == 3
    assert apart.notes["session_levels"] == [pytest.approx(1 / 1.1, abs=1e-4), 1.0, pytest.approx(1.2 / 1.1, abs=1e-4)]


def test_networks_that_pay_for_every_launch_get_a_correction_that_still_adds_up(
    built: tuple[LatencyTable, Path, list[BuildProgress]],
) -> None:
    """As on a GPU, where an operator costs its launch whatever it does."""
    table = built[0]
    configs = [n.config for n in table.known]
    launches = np.array([float(len(operators(c, BACKBONE))) for c in configs])
    networks = np.repeat((0.1 * launches)[:, None], 20, axis=1)
    found = build.calibrated(table, configs, networks)
    assert found.correction
    assert found.adds_up()
    for config, ms in zip(configs, 0.1 * launches, strict=True):
        assert found.latency_ms(config) == pytest.approx(ms, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolutions": (0,)}, "pixels"),
        ({"resolutions": ()}, "pixels"),
        ({"resolutions": (10**6,)}, "pixels"),
        ({"backbone": Backbone(0.0, 10)}, "width"),
        ({"backbone": Backbone(float("nan"), 10)}, "width"),
        ({"backbone": Backbone(1e9, 10)}, "width"),
        ({"backbone": Backbone(0.25, 10**9)}, "classes"),
        ({"batch_size": 0}, "batch size"),
        ({"batch_size": 10**9}, "batch size"),
        ({"batch_size": 4096, "resolutions": (1024,)}, "GiB"),
        ({"runtime": Runtime(threads=0)}, "at least one thread"),
        ({"runtime": Runtime("onnxruntime"), "compute": "cuda"}, "--runtime torch"),
        ({"runtime": Runtime("command")}, "latency.command"),
    ],
)
def test_spaces_that_are_none_are_refused_before_memory_is_taken(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"backbone": BACKBONE, "resolutions": SMALL, "runtime": Runtime(), **arguments}
    with pytest.raises(UsageError, match=message):
        build.build_table(tmp_path / "lut.json", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_regime_that_the_device_has_not_is_refused() -> None:
    with pytest.raises(TableError, match="no regime 'graph' on 'cpu'"):
        bench.clock_for("cpu", 1, "graph")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("regime", ["graph", "eager"])
def test_a_gpu_is_measured_by_the_same_code(tmp_path: Path, regime: str) -> None:
    path = tmp_path / "lut.json"
    table = build.build_table(path, BACKBONE, SMALL, Runtime(), repeats=20, compute="cuda", regime=regime, sessions=1)
    assert (table.settings.regime, table.settings.accelerator) == (regime, torch.cuda.get_device_name())
    assert table.settings.memory_format == "channels_last"
    assert all(0 < t.p10_ms < 5 for t in table.entries.values())
    assert table.calibration.spearman > 0.6
    assert LatencyTable.load(path) == table


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_captured_operator_takes_less_than_one_that_is_launched_from_python() -> None:
    ops = all_operators(SMALL, BACKBONE)[:4]
    with torch.inference_mode():
        eager, graph = (bench.clock_for("cuda", 1, regime) for regime in ("eager", "graph"))
        for item in bench.operator_items(ops, "cuda"):
            times = [[clock.operator_ms(item) for _ in range(30)] for clock in (eager, graph)]
            assert 0 < np.percentile(times[1], 10) < np.percentile(times[0], 10)
