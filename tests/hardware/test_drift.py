"""The drift check sees what moved and says what it affects, and keeps quiet about noise."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from riwoa.errors import TableError, UsageError
from riwoa.hardware import bench, build, drift
from riwoa.hardware.drift import Drift, check_drift_in_child, confirmed, judge, measure_drift, sentinel
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.runtime import Runtime
from riwoa.supernet.geometry import Backbone
from riwoa_storage.events import Event, LatencyDrift
from tests.hardware.devices import FakeClock, busy

Device = Callable[[FakeClock], None]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    """Of a made-up device on which a network takes 0.9 times what its operators take alone."""
    path = tmp_path_factory.mktemp("drift") / "lut.json"
    with pytest.MonkeyPatch.context() as patch:
        clock = FakeClock(noise=busy, network=0.9)
        patch.setattr(bench, "clock_for", lambda *_: clock)
        return build.build_table(path, Backbone(0.25, 10), (24,), Runtime(), repeats=60, sessions=0)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return lambda clock: monkeypatch.setattr(bench, "clock_for", lambda *_: clock)


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_not_drift(table: LatencyTable, device: Device, seed: int) -> None:
    device(FakeClock(noise=busy, network=0.9, rng=random.Random(seed)))
    found = measure_drift(table)
    assert found.verdict != "drifted"
    assert found.affects == ()
    assert found.networks == pytest.approx(1, abs=0.05)
    assert found.operators == pytest.approx(1, abs=0.05)


def test_a_device_left_to_itself_is_steady(table: LatencyTable, device: Device) -> None:
    device(FakeClock(network=0.9))
    found = measure_drift(table)
    assert found.verdict == "steady"
    assert {s.verdict for s in found.sentinels} == {"steady"}
    assert [s.kind for s in found.sentinels].count("network") == 3
    assert 4 <= [s.kind for s in found.sentinels].count("operator") <= 6


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_device_that_changed_its_pace_has_drifted_in_all_latencies(
    table: LatencyTable, device: Device, factor: float
) -> None:
    device(FakeClock(noise=lambda rng: factor * busy(rng), network=0.9))
    found = measure_drift(table)
    assert found.verdict == "drifted"
    assert found.networks == pytest.approx(factor, rel=0.05)
    assert len(found.affects) == 1
    assert "every latency and the target" in found.affects[0]
    assert f"{found.networks:.2f} times" in found.affects[0]


def test_one_sort_of_operator_that_slowed_down_is_named_with_what_it_affects(
    table: LatencyTable, device: Device
) -> None:
    def wide(module: torch.nn.Module) -> float:
        return 2.0 if any(getattr(m, "kernel_size", 0) == (7, 7) for m in module.modules()) else 1.0

    device(FakeClock(network=0.9, slower=wide))
    found = measure_drift(table)
    assert found.verdict == "drifted"
    moved = [s.name for s in found.sentinels if s.verdict == "drifted"]
    assert moved
    assert all("_k7_" in name for name in moved)
    assert found.operators == pytest.approx(1, abs=0.05)
    assert all(any(name in what for what in found.affects) for name in moved)
    assert all("ranking" in what for what in found.affects)


def test_what_stays_as_it_was_while_others_slow_down_is_not_what_drifted() -> None:
    times = np.full(60, 2.0)
    assert sentinel("x", "operator", times, 2.0, 1.5, 0.2).verdict == "unclear"
    assert sentinel("x", "operator", times * 2.5, 2.0, 1.5, 0.2).verdict == "drifted"
    assert sentinel("x", "operator", times * 1.5, 2.0, 1.5, 0.2).verdict == "steady"


def test_two_processes_have_to_agree_and_in_the_same_direction(table: LatencyTable, device: Device) -> None:
    def measured(factor: float) -> Drift:
        device(FakeClock(noise=lambda rng: factor, network=0.9))
        return measure_drift(table)

    slow, fast, same = measured(1.5), measured(0.6), measured(1.0)
    assert (slow.verdict, fast.verdict, same.verdict) == ("drifted", "drifted", "steady")
    assert confirmed(slow, slow).verdict == "drifted"
    assert confirmed(slow, slow).passes == 2
    for first, second in ((slow, fast), (fast, slow), (same, slow)):
        assert confirmed(first, second).verdict == "unclear"
        assert confirmed(first, second).affects == ()
    assert confirmed(slow, same).verdict == "steady"


def test_the_second_process_is_asked_only_if_the_first_sees_drift(
    table: LatencyTable, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.save(tmp_path / "lut.json")
    asked: list[list[str]] = []
    answers: list[float] = []

    async def child(arguments: list[str], threads: int, progress: object) -> dict[str, object]:
        asked.append(arguments)
        factor = answers.pop(0)
        device(FakeClock(noise=lambda rng: factor, network=0.9))
        return dict(json.loads(json.dumps(measure_drift(table).to_json(), allow_nan=False)))

    monkeypatch.setattr(drift, "run_child", child)
    for factors, passes, verdict in (([1.0], 1, "steady"), ([1.5, 1.0], 2, "steady"), ([1.5, 1.5], 2, "drifted")):
        asked.clear()
        answers[:] = factors
        found = asyncio.run(check_drift_in_child(tmp_path / "lut.json", pause_s=0))
        assert (found.verdict, found.passes, len(asked)) == (verdict, passes, passes)


def test_the_child_really_measures_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "lut.json"
    build.build_table(path, Backbone(0.25, 10), (24,), Runtime(), repeats=10, sessions=0)
    found = asyncio.run(check_drift_in_child(path, rounds=12, tolerance=9.0, pause_s=0))
    assert found.verdict != "drifted"
    assert found.table_sha256 == LatencyTable.load(path).sha256
    assert Drift.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(UsageError, match="at least 12 rounds"):
        asyncio.run(check_drift_in_child(path, rounds=5))
    with pytest.raises(TableError, match="does not exist"):
        asyncio.run(check_drift_in_child(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.95, 1.05, "steady"),
        (1.05, 1.3, "unclear"),
        (1.16, 1.3, "drifted"),
        (0.5, 0.8, "drifted"),
        (0.8, 1.0, "unclear"),
        (0.5, 2.0, "unclear"),
        (float("nan"), 2.0, "unclear"),
        (1.2, float("inf"), "unclear"),
    ],
)
def test_a_whole_interval_has_to_lie_beyond_the_tolerance(low: float, high: float, verdict: str) -> None:
    assert judge(low, high, 0.15) == verdict


def test_an_interval_encloses_its_ratio_and_widens_with_the_noise() -> None:
    rng = np.random.default_rng(0)
    quiet = sentinel("x", "network", rng.normal(2.0, 0.01, 60), 2.0, 1.0, 0.15)
    loud = sentinel("x", "network", rng.normal(2.0, 0.4, 60), 2.0, 1.0, 0.15)
    assert quiet.low <= quiet.ratio <= quiet.high
    assert loud.high - loud.low > 5 * (quiet.high - quiet.low)


def test_the_event_of_a_check_has_its_fields() -> None:
    of_event, of_check, common = ({f.name for f in dataclasses.fields(of)} for of in (LatencyDrift, Drift, Event))
    assert of_event - common == of_check
