"""One search for several devices against a search a device, on NAS-Bench-201's tables."""

from __future__ import annotations

import numpy as np
import pytest

from riwoa.bench.targets import DEVICES, Settings, bench_targets
from riwoa.ctl.contest import targets_words
from tests.support.official import official_data


def test_one_search_of_a_table_finds_for_each_device_at_least_what_its_own_finds_with_as_many_queries() -> None:
    folder = official_data("nas-bench-201/accuracy.npz").parent
    latency = np.load(folder / "latency.npz")
    values = np.load(folder / "accuracy.npz")["c100_val200"]
    found = bench_targets(Settings("nas-bench-201", seeds=2, budget=160), folder.parent)
    together, apart, in_turn = found["rows"]
    assert (together["way"], apart["way"], in_turn["way"]) == ("together", "apart", "in turn")
    for device, mean in zip(DEVICES, together["by_device"], strict=True):
        column = latency[DEVICES[device]]
        best = values[column <= np.nanquantile(column, 0.25)].max()
        assert mean <= best + 1e-6  # nothing beyond a device's limit is counted
        assert mean > best - 1.5
    assert together["mean"] > apart["mean"]
    assert found["comparisons"][0]["against"] == "apart"
    assert found["comparisons"][0]["mean_difference"] == pytest.approx(together["mean"] - apart["mean"])
    assert "together" in targets_words(found)
