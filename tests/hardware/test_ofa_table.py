"""OFA's latency tables, read and summed as OFA does."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from riwoa.errors import TableError
from riwoa.hardware.ofa_table import OfaLatencyTable
from riwoa.supernet.space import OfaConfig
from tests.support.ofa_files import write_tables
from tests.support.official import ofas_tutorial, official_data, some_configs

SMALLEST = OfaConfig((3,) * 20, (3,) * 20, (2,) * 5, 160)


def ofas_estimator(table: dict[str, Any]) -> Any:
    """OFA's own summation over a table; its constructor would download one and read it unsafely."""
    kind = ofas_tutorial("latency_table").LatencyEstimator
    estimator = kind.__new__(kind)
    estimator.lut = table
    return estimator


def test_the_official_tables_give_what_ofas_own_code_gives_at_every_resolution() -> None:
    folder = official_data("once-for-all/latency_table@note10")
    resolutions = tuple(sorted(int(f.name.partition("_")[0]) for f in folder.glob("*_lookup_table.yaml")))
    assert len(resolutions) == 17
    assert {160, 176, 192, 208, 224} <= set(resolutions)
    theirs = {
        r: ofas_estimator(yaml.safe_load((folder / f"{r}_lookup_table.yaml").read_text("utf-8"))) for r in resolutions
    }
    ours = OfaLatencyTable(folder)
    configs = some_configs(resolutions, 1020, seed=3)
    together = ours.latencies_ms(configs)
    low_ms, high_ms = ours.range_ms(resolutions)
    for config, of_all in zip(configs, together, strict=True):
        expected = theirs[config.r].predict_network_latency_given_spec(config.to_json())
        assert ours.latency_ms(config) == pytest.approx(expected, rel=1e-12)
        assert of_all == pytest.approx(expected, rel=1e-12)
        assert low_ms <= expected <= high_ms


def test_the_parts_are_the_layers_that_exist_and_add_up() -> None:
    table = OfaLatencyTable(official_data("once-for-all/latency_table@note10"))
    config = OfaConfig((7,) * 20, (6,) * 20, (2, 3, 4, 2, 3), 224)
    parts = table.layers_ms(config)
    blocks = [f"stage{s + 1}.block{b + 1}" for s, depth in enumerate(config.d) for b in range(depth)]
    assert list(parts) == ["stem", *blocks, "head"]
    assert sum(parts.values()) == pytest.approx(table.latency_ms(config))
    assert all(ms > 0 for ms in parts.values())


def test_a_missing_resolution_is_named_when_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"160_lookup_table\.yaml: cannot be read .*needed for each resolution"):
        OfaLatencyTable(tmp_path).latency_ms(SMALLEST)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "a mapping from operators"),
        (b"- 1\n- 2\n", "a mapping from operators"),
        (b"{", "cannot be read"),
        (b"\xff\xfe\xff", "cannot be read"),
        (b"a: 2001-99-99\n", "cannot be read"),
        (b"a: !!python/object/apply:os.getcwd []\n", "cannot be read"),
        (b"[" * 5000, "cannot be read"),
        (b"Conv-input:160x160x3: {mean: 1.0}\n", "no timing of Conv-input:160x160x3-output:80x80x24"),
        (b"Conv-input:160x160x3-output:80x80x24: {mean: fast}\n", "no timing of Conv-input"),
        (b"Conv-input:160x160x3-output:80x80x24: 1.0\n", "no timing of Conv-input"),
        (b"Conv-input:160x160x3-output:80x80x24: {mean: .nan}\n", "is nan, no time"),
        (b"Conv-input:160x160x3-output:80x80x24: {mean: -1.0}\n", "is -1.0, no time"),
    ],
)
def test_another_file_is_refused_with_one_line(tmp_path: Path, content: bytes, hint: str) -> None:
    (tmp_path / "160_lookup_table.yaml").write_bytes(content)
    with pytest.raises(TableError, match=hint) as caught:
        OfaLatencyTable(tmp_path).latency_ms(SMALLEST)
    assert "\n" not in str(caught.value)


def test_each_file_is_read_once(tmp_path: Path) -> None:
    folder = official_data("once-for-all/latency_table@note10")
    copy = tmp_path / "160_lookup_table.yaml"
    copy.write_bytes((folder / copy.name).read_bytes())
    table = OfaLatencyTable(tmp_path)
    first = table.latency_ms(SMALLEST)
    copy.unlink()
    assert table.latency_ms(SMALLEST) == first


def test_the_range_is_that_of_the_space_and_many_are_summed_as_each_alone(tmp_path: Path) -> None:
    table = OfaLatencyTable(write_tables(tmp_path / "tables", (160, 192)))
    configs = some_configs((160, 192), 200, seed=4)
    alone = [table.latency_ms(c) for c in configs]
    np.testing.assert_allclose(table.latencies_ms(configs), alone, rtol=1e-12)
    low_ms, high_ms = table.range_ms((160, 192))
    assert low_ms < min(alone) < max(alone) < high_ms
    improved = best = SMALLEST
    for layer, gene, choice in product(range(20), ("ks", "e"), (3, 5, 7, 4, 6)):  # additive: one block at a time
        values = list(getattr(best, gene))
        values[layer] = choice
        if choice in ((3, 5, 7) if gene == "ks" else (3, 4, 6)):
            chosen = tuple(values)
            improved = replace(best, ks=chosen) if gene == "ks" else replace(best, e=chosen)
            best = min((best, improved), key=table.latency_ms)
    assert low_ms <= table.latency_ms(best) < table.latency_ms(SMALLEST)


def test_the_hash_is_of_the_files_that_are_used(tmp_path: Path) -> None:
    folder = write_tables(tmp_path / "tables", (160, 192))
    both, one = OfaLatencyTable(folder).sha256((160, 192)), OfaLatencyTable(folder).sha256((160,))
    file = folder / "192_lookup_table.yaml"
    file.write_text(file.read_text() + "more: {mean: 1.0}\n")
    assert OfaLatencyTable(folder).sha256((160,)) == one
    assert OfaLatencyTable(folder).sha256((160, 192)) != both
    with pytest.raises(TableError, match="176_lookup_table"):
        OfaLatencyTable(folder).sha256((176,))
