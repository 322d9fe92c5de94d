"""The latency table adds up, knows its range, and refuses what it should not believe."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa.errors import TableError
from riwoa.hardware.calibration import FEATURES, Calibration, Interval, KnownNetwork
from riwoa.hardware.lut import LatencyTable, Timing
from riwoa.hardware.probe import probe
from riwoa.hardware.runtime import Settings
from riwoa.supernet.geometry import Backbone, all_operators, fixed_operators, operators
from riwoa.supernet.space import OfaConfig
from riwoa_storage.durable import replace_durably

BACKBONE = Backbone(0.25, 10)
RESOLUTIONS = (24, 32, 40)


def a_table(seed: int = 0) -> LatencyTable:
    """Made-up but plausible: time grows with MACs, plus noise."""
    rng = random.Random(seed)
    entries = {}
    for op in all_operators(RESOLUTIONS, BACKBONE):
        ms = round(0.02 + op.macs / 1e7 + rng.random() / 10, 6)
        entries[op.key] = Timing(500, ms * 1.1, ms / 10, ms, ms * 1.05, ms * 1.2)
    return LatencyTable(
        device=probe(),
        settings=Settings("cpu", threads=1, repeats=500),
        backbone=BACKBONE,
        resolutions=RESOLUTIONS,
        entries=entries,
        calibration=Calibration(-0.1, 1.25, 24, 100, 0.99, 1.5, 0.98, 1.02),
        libraries={"torch": "2.13"},
        notes={"governor": None},
    )


def random_config(rng: random.Random) -> OfaConfig:
    return OfaConfig(
        ks=tuple(rng.choice((3, 5, 7)) for _ in range(20)),
        e=tuple(rng.choice((3, 4, 6)) for _ in range(20)),
        d=tuple(rng.choice((2, 3, 4)) for _ in range(5)),
        r=rng.choice(RESOLUTIONS),
    )


def test_latency_is_the_calibrated_sum_of_the_subnets_operators() -> None:
    table, rng = a_table(), random.Random(1)
    for _ in range(50):
        config = random_config(rng)
        total = sum(table.entries[op.key].p10_ms for op in operators(config, BACKBONE))
        assert table.sum_ms(config) == pytest.approx(total, rel=1e-12)
        assert table.latency_ms(config) == pytest.approx(-0.1 + 1.25 * total, rel=1e-12)


def test_layers_and_what_belongs_to_none_make_up_the_latency() -> None:
    table, rng = a_table(), random.Random(3)
    for _ in range(50):
        config = random_config(rng)
        layers = table.layers_ms(config)
        assert list(layers) == [f"stage{s + 1}.block{b + 1}" for s, depth in enumerate(config.d) for b in range(depth)]
        every = operators(config, BACKBONE)
        start, end = fixed_operators(BACKBONE, config.r)
        blocks = [op for op in every if op.key not in {o.key for o in (*start, *end)}]
        assert sum(layers.values()) == pytest.approx(1.25 * sum(table.entries[op.key].p10_ms for op in blocks))


def test_the_range_is_that_of_exhaustive_choice_and_bounds_every_subnet() -> None:
    table, rng = a_table(), random.Random(2)
    fastest, slowest = table.extremes()
    low, high = table.range_ms()
    assert (low, high) == (table.latency_ms(fastest), table.latency_ms(slowest))
    assert low < high
    for extreme, sign in ((fastest, 1), (slowest, -1)):
        here = table.latency_ms(extreme)
        for neighbour in neighbours(extreme):
            assert sign * table.latency_ms(neighbour) >= sign * here - 1e-12
    assert all(low <= table.latency_ms(random_config(rng)) <= high for _ in range(500))
    assert table.range_ms([24])[1] <= high


def neighbours(config: OfaConfig) -> list[OfaConfig]:
    """Every config that differs in one gene; enough to test, since genes contribute independently given the depths."""
    found = [replace(config, r=r) for r in RESOLUTIONS]
    for i in range(20):
        found += [replace(config, ks=(*config.ks[:i], k, *config.ks[i + 1 :])) for k in (3, 5, 7)]
        found += [replace(config, e=(*config.e[:i], e, *config.e[i + 1 :])) for e in (3, 4, 6)]
    for s in range(5):
        found += [replace(config, d=(*config.d[:s], d, *config.d[s + 1 :])) for d in (2, 3, 4)]
    return found


def test_a_latency_costs_less_than_a_hundredth_of_listing_all_operators_of_the_space() -> None:
    table, config = a_table(), random_config(random.Random(3))
    table.latency_ms(config)

    def best_s(call: Callable[[], object]) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    assert best_s(lambda: table.latency_ms(config)) < best_s(lambda: all_operators(RESOLUTIONS, BACKBONE)) / 20


def test_a_table_reads_back_equal_with_the_same_hash(tmp_path: Path) -> None:
    table = a_table()
    table.save(tmp_path / "lut.json")
    found = LatencyTable.load(tmp_path / "lut.json")
    assert found == table
    assert found.sha256 == table.sha256
    assert a_table(seed=1).sha256 != table.sha256
    assert os.listdir(tmp_path) == ["lut.json"]


def test_an_operator_that_was_not_measured_is_named_with_the_way_out() -> None:
    table, config = a_table(), OfaConfig((3,) * 20, (3,) * 20, (2,) * 5, 48)
    with pytest.raises(TableError, match=r"lacks the operator mbconv_i24x24x8.*riwoactl lut build"):
        table.latency_ms(config)
    assert table.missing(RESOLUTIONS, BACKBONE) == []
    assert table.missing((48,), BACKBONE)


def test_another_device_or_thread_count_is_refused_by_name() -> None:
    table = a_table()
    table.require(probe(), threads=1)
    with pytest.raises(TableError, match=r"threads: 1 is not 4.*riwoactl lut build"):
        table.require(probe(), threads=4)
    with pytest.raises(TableError, match="board"):
        table.require(replace(probe(), board="Jetson Orin Nano"), threads=1)


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    data = a_table().to_json()
    change(data)
    return json.dumps(data).encode()


def entry(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(data: dict[str, Any]) -> None:
        first = next(iter(data["entries"]))
        data["entries"][first][name] = value

    return change


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "truncated": (edited(lambda d: None)[:5000], "not valid JSON"),
    "not utf-8": (b"\xff\xfe\x00{", "not valid JSON"),
    "deeply nested": (b"[" * 200_000, "not valid JSON"),
    "another JSON": (b'{"riwoa": 1}', "not a latency table"),
    "a list": (b"[]", "not a latency table"),
    "duplicate key": (b'{"kind": 1, "kind": 2}', "twice"),
    "newer": (edited(lambda d: d.update(schema=4)), "schema 4"),
    "schema in words": (edited(lambda d: d.update(schema="2" * 1000)), "schema"),
    "schema true": (edited(lambda d: d.update(schema=True)), "schema True"),
    "NaN": (edited(entry("p10_ms", float("nan"))), "NaN"),
    "infinite": (edited(entry("p10_ms", float("inf"))), "Infinity"),
    "overflowing": (edited(entry("p10_ms", 1.2345)).replace(b"1.2345", b"1e999", 1), "not a sensible float"),
    "negative": (edited(entry("p10_ms", -1.0)), "impossible statistics"),
    "zero": (edited(entry("p10_ms", 0)), "impossible statistics"),
    "huge": (edited(entry("p90_ms", 1e9)), "not a sensible float"),
    "huge integer": (edited(entry("p90_ms", 10**400)), "not a sensible float"),
    "text for a number": (edited(entry("p10_ms", "1")), "not a sensible float"),
    "boolean for a number": (edited(entry("count", True)), "not a sensible int"),
    "missing field": (edited(lambda d: next(iter(d["entries"].values())).pop("p10_ms")), "exactly the fields"),
    "entry is a list": (edited(lambda d: d["entries"].update(x=[1])), "not an object"),
    "no entries": (edited(lambda d: d.update(entries={})), "no operators"),
    "no device": (edited(lambda d: d.pop("device")), "'device'"),
    "falling calibration": (edited(lambda d: d["calibration"].update(slope=-1.0)), "positive slope"),
    "free networks": (edited(lambda d: d["calibration"].update(intercept_ms=-1e6)), "no time at all"),
    "no resolutions": (edited(lambda d: d.update(resolutions=[])), "resolutions"),
    "no threads": (edited(lambda d: d["settings"].update(threads=0)), "at least one thread"),
    "no runtime": (edited(lambda d: d["settings"].update(runtime="tflite")), "runtimes"),
    "another stem": (edited(lambda d: d["backbone"].update(stem="large")), "backbone"),
    "impossible backbone": (edited(lambda d: d["backbone"].update(width_mult=0.0)), "backbone"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gets_one_line_that_says_what_and_what_next(tmp_path: Path, name: str) -> None:
    content, expected = HOSTILE[name]
    path = tmp_path / "lut.json"
    path.write_bytes(content)
    with pytest.raises(TableError) as caught:
        LatencyTable.load(path)
    message = str(caught.value)
    assert expected in message
    assert str(path) in message
    assert "riwoactl lut build" in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))


def test_a_damaged_number_is_noticed_by_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "lut.json"
    a_table().save(path)
    path.write_text(path.read_text().replace('"repeats": 500', '"repeats": 501', 1))
    with pytest.raises(TableError, match="sha256"):
        LatencyTable.load(path)


def test_a_file_without_a_hash_is_a_table_too(tmp_path: Path) -> None:
    path = tmp_path / "lut.json"
    path.write_bytes(edited(lambda d: None))
    assert LatencyTable.load(path) == a_table()


def test_a_stem_is_kept_and_one_that_goes_without_saying_leaves_the_hash_alone(tmp_path: Path) -> None:
    assert "stem" not in a_table().to_json()["backbone"]
    small = replace(a_table(), backbone=replace(BACKBONE, stem="small"))
    small.save(tmp_path / "lut.json")
    assert small.sha256 != a_table().sha256
    entries = {op.key: next(iter(small.entries.values())) for op in all_operators((24,), small.backbone)}
    complete = replace(small, entries=entries, resolutions=(24,))
    complete.save(tmp_path / "lut.json")
    assert LatencyTable.load(tmp_path / "lut.json") == complete
    assert complete.missing((24,), BACKBONE)  # OFA's strides are other operators


def test_missing_directory_and_oversized_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="does not exist"):
        LatencyTable.load(tmp_path / "none.json")
    with pytest.raises(TableError, match="is a directory"):
        LatencyTable.load(tmp_path)
    big = tmp_path / "big.json"
    with big.open("wb") as stream:
        stream.truncate(17 * 2**20)
    with pytest.raises(TableError, match="larger than 16 MiB"):
        LatencyTable.load(big)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lut.json"
    replace_durably(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["lut.json"]


# --- format 2: correction, interval, known networks, settings; and what format 1 has to stay -------------------------

CORRECTION = {"operators": 0.004, "squeeze_excites": -0.002, "depthwise_mib": 0.01, "gmacs": 1.5, "input_mpx": 2.0}


def corrected_table() -> LatencyTable:
    rng = random.Random(7)
    return replace(
        a_table(),
        settings=Settings("cuda", 1, 500, memory_format="channels_last", batch_size=8, regime="graph", accelerator="X"),
        correction=CORRECTION,
        interval=Interval(0.9, 2.5, 1.5, 2.0, 72, 3),
        known=tuple(KnownNetwork(random_config(rng), 4.0 + i) for i in range(3)),
    )


def test_a_correction_adds_what_its_features_count_over_the_operators() -> None:
    table, rng = corrected_table(), random.Random(1)
    line = replace(table, correction={})
    for _ in range(50):
        config = random_config(rng)
        ops = operators(config, BACKBONE)
        extra = sum(weight * FEATURES[name](op) for name, weight in CORRECTION.items() for op in ops)
        assert table.correction_ms(config) == pytest.approx(extra, rel=1e-9)
        assert table.latency_ms(config) == pytest.approx(line.latency_ms(config) + extra, rel=1e-9)
        assert table.latency_ms(config) == corrected_table().latency_ms(config)
        assert line.correction_ms(config) == 0


def test_corrected_layers_stem_head_and_intercept_still_make_up_the_latency() -> None:
    table, rng = corrected_table(), random.Random(3)
    for _ in range(50):
        config = random_config(rng)
        start, end = fixed_operators(BACKBONE, config.r)
        fixed = sum(
            1.25 * table.operator_ms(op) + sum(w * FEATURES[name](op) for name, w in CORRECTION.items())
            for op in (*start, *end)
        )
        assert -0.1 + fixed + sum(table.layers_ms(config).values()) == pytest.approx(table.latency_ms(config))


def test_the_corrected_range_bounds_every_subnet() -> None:
    table, rng = corrected_table(), random.Random(2)
    low, high = table.range_ms()
    fastest, slowest = table.extremes()
    assert (low, high) == (table.latency_ms(fastest), table.latency_ms(slowest))
    assert all(low <= table.latency_ms(random_config(rng)) <= high for _ in range(500))
    assert all(table.latency_ms(n) >= low - 1e-12 for n in neighbours(fastest))


def test_an_interval_is_a_share_of_the_prediction_and_older_tables_have_none() -> None:
    table, config = corrected_table(), random_config(random.Random(4))
    predicted = table.latency_ms(config)
    assert table.interval_ms(config) == pytest.approx((predicted * 0.975, predicted * 1.025))
    assert replace(table, interval=Interval(0.9, 250.0, 1.5, 250.0, 72, 3)).interval_ms(config) == pytest.approx(
        (0.0, predicted * 3.5)
    )
    assert a_table().interval_ms(config) is None


def test_what_format_2_added_is_read_back_and_covered_by_the_hash(tmp_path: Path) -> None:
    table = corrected_table()
    table.save(tmp_path / "lut.json")
    assert LatencyTable.load(tmp_path / "lut.json") == table
    others = [
        replace(table, correction={**CORRECTION, "gmacs": 1.6}),
        replace(table, interval=None),
        replace(table, known=table.known[1:]),
        replace(table, settings=replace(table.settings, batch_size=9)),
        replace(table, settings=replace(table.settings, regime="eager")),
        replace(table, settings=replace(table.settings, accelerator="Y")),
    ]
    assert len({t.sha256 for t in (table, *others)}) == len(others) + 1


def test_a_table_of_format_1_keeps_its_format_hash_and_latencies(tmp_path: Path) -> None:
    """It was the shipped one. Its hash is in records of runs; its latencies are those of the code that wrote it."""
    golden = Path(__file__).parent / "golden" / "latency_table_v1.json"
    table = LatencyTable.load(golden)
    assert table.schema == 1
    assert table.sha256 == "9a1879aedb013efc1e6ba0e75aa54c7c0ad7a76fe7b0bfb8553fa552ac0274f8"
    rng = random.Random("golden")
    found = []
    for _ in range(1000):
        config = random_config(rng)
        found += [table.latency_ms(config).hex(), *(ms.hex() for ms in table.layers_ms(config).values())]
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()
    assert digest == "71639ef0bcefe60928998ae25286408445cd85892f625e47b818b667b8d2620d"
    assert [ms.hex() for ms in table.range_ms((24,))] == ["0x1.67fd71aa86b3cp+1", "0x1.990a9f98398f3p+2"]
    assert [ms.hex() for ms in table.range_ms((40,))] == ["0x1.73445cd0a130fp+1", "0x1.8e892c63c8689p+2"]
    table.save(tmp_path / "copy.json")
    assert json.loads((tmp_path / "copy.json").read_text()) == json.loads(golden.read_text())


# sha256, then the latencies of its known networks.
GOLDEN_2 = (
    "dbe6a9fec30f3c7d6983ce8628a0f3799b0b92deda30c782437549860883b860",
    "0x1.0ecc5ac28a39fp+1",
    "0x1.01874d1e0f796p+1",
    "0x1.01c58b44b76a0p+1",
)


def test_a_golden_table_of_format_2_reads_as_it_was_written() -> None:
    table = LatencyTable.load(Path(__file__).parent / "golden" / "latency_table_v2.json")
    assert table.schema == 2
    assert table.sha256 == GOLDEN_2[0]
    assert [table.latency_ms(n.config).hex() for n in table.known] == list(GOLDEN_2[1:])
    assert table.interval == Interval(0.9, 2.5, 1.5, 2.0, 72, 3)
    assert table.settings == corrected_table().settings
    assert set(table.correction) == set(FEATURES)


def corrected(change: Callable[[dict[str, Any]], object]) -> bytes:
    data = corrected_table().to_json()
    change(data)
    return json.dumps(data).encode()


def weight(value: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["correction"].update(gmacs=value)


def known(value: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["known"].append(value)


A_NETWORK = corrected_table().to_json()["known"][0]["architecture"]

HOSTILE_2: dict[str, tuple[bytes, str]] = {
    "correction infinite": (corrected(weight(float("inf"))), "Infinity"),
    "correction overflowing": (corrected(weight(0.12345)).replace(b"0.12345", b"1e999", 1), "not a sensible float"),
    "correction NaN": (corrected(weight(float("nan"))), "NaN"),
    "correction absurd": (corrected(weight(1e300)), "not a sensible float"),
    "correction in words": (corrected(weight("1")), "not a sensible float"),
    "correction of something else": (corrected(lambda d: d["correction"].update(moons=1.0)), "counts 'moons'"),
    "correction a list": (corrected(lambda d: d.update(correction=[1])), "'correction'"),
    "correction missing": (corrected(lambda d: d.pop("correction")), "'correction'"),
    "correction that takes time away": (corrected(weight(-1e6)), "less than no time"),
    "interval below nothing": (corrected(lambda d: d["interval"].update(half_width_percent=-1.0)), "'interval'"),
    "interval certain": (corrected(lambda d: d["interval"].update(level=1.0)), "'interval'"),
    "interval between below nothing": (
        corrected(lambda d: d["interval"].update(between_percent=-1.0)),
        "'interval'",
    ),
    "interval from nothing": (corrected(lambda d: d["interval"].update(scores=0)), "'interval'"),
    "interval infinite": (
        corrected(lambda d: d["interval"].update(half_width_percent=0.12345)).replace(b"0.12345", b"1e999", 1),
        "not a sensible float",
    ),
    "interval a number": (corrected(lambda d: d.update(interval=3)), "not an object"),
    "known missing": (corrected(lambda d: d.pop("known")), "'known'"),
    "known too many": (corrected(lambda d: d.update(known=[0] * 5000)), "at most 4096"),
    "known no object": (corrected(known(3)), "exactly an architecture"),
    "known in no time": (corrected(known({"architecture": A_NETWORK, "ms": 0.0})), "no time at all"),
    "known of another space": (corrected(known({"architecture": {**A_NETWORK, "d": [9] * 5}, "ms": 1.0})), "choices"),
    "known too short": (corrected(known({"architecture": {**A_NETWORK, "ks": [3]}, "ms": 1.0})), "whole numbers"),
    "known of true": (corrected(known({"architecture": {**A_NETWORK, "r": [True]}, "ms": 1.0})), "whole numbers"),
    "known of no size": (corrected(known({"architecture": {**A_NETWORK, "r": [0]}, "ms": 1.0})), "pixels"),
    "known no architecture": (corrected(known({"architecture": 3, "ms": 1.0})), "an architecture needs"),
    "no batch": (corrected(lambda d: d["settings"].update(batch_size=0)), "batch size"),
    "absurd batch": (corrected(lambda d: d["settings"].update(batch_size=10**9)), "batch size"),
    "unknown regime": (corrected(lambda d: d["settings"].update(regime="warp")), "regime"),
    "graph on a processor": (corrected(lambda d: d["settings"].update(compute="cpu")), "regime"),
    "settings of format 1": (corrected(lambda d: d["settings"].pop("regime")), "exactly the fields"),
    "format 1 with settings of format 2": (corrected(lambda d: d.update(schema=1)), "exactly the fields"),
    "millions of resolutions": (corrected(lambda d: d.update(resolutions=[24] * 10**6)), "resolutions"),
    "an operator twice": (
        corrected(lambda d: None).replace(b'"pool_i', b'"classifier_i1x1x320_o1x1x10_m0_k1_s1_none": {}, "pool_i', 1),
        "twice",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_2)
def test_a_hostile_file_of_format_2_is_refused_in_one_line_too(tmp_path: Path, name: str) -> None:
    content, expected = HOSTILE_2[name]
    path = tmp_path / "lut.json"
    path.write_bytes(content)
    with pytest.raises(TableError) as caught:
        LatencyTable.load(path)
    message = str(caught.value)
    assert expected in message
    assert "riwoactl lut build" in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
