"""What is said of searches with two tables: the same rule for both, and nothing where nothing differs."""

from __future__ import annotations

import pytest

from riwoa.bench.runtimes import Network, Searched, Settings, summary
from riwoa.ctl.bench_runtime import in_words


def searched(*networks: tuple[str, float, float]) -> Searched:
    """Of (key, accuracy, milliseconds by the table); the first is the winner."""
    found = [Network(key, {}, accuracy, ms) for key, accuracy, ms in networks]
    return Searched(found, found[0])


MEASURED_MS = {"slow": 0.20, "fast": 0.10, "faster": 0.08, "late": 0.15, "poor": 0.05}
RATIOS = [1.0, 1.21]
TEST = {"slow": 0.80, "fast": 0.81, "faster": 0.79, "late": 0.82, "poor": 0.5}


def test_both_users_take_the_fastest_of_their_own_table_at_the_lesser_winners_accuracy() -> None:
    torch = searched(("slow", 0.90, 4.0), ("late", 0.88, 4.2), ("poor", 0.60, 1.0))
    own = searched(("fast", 0.92, 0.1), ("faster", 0.91, 0.08), ("poor", 0.60, 0.05))
    found = summary(Settings(seeds=2), [(torch, own), (own, torch)], MEASURED_MS, TEST, RATIOS, {})
    first, second = found["rows"]
    taken = {name: network["key"] for name, network in first["equal_accuracy"].items()}
    assert taken == {"torch": "slow", "runtime": "faster"}
    assert first["ratio"] == pytest.approx(2.5)
    assert second["ratio"] == pytest.approx(1 / 2.5)  # whoever has which table
    assert found["ratio"] == pytest.approx(1.0)
    assert found["ratio_between"][0] < 1 < found["ratio_between"][1]
    assert found["gain_at_equal_time"]["test"]["mean"] == pytest.approx(0.0)
    assert found["of_the_same_networks"]["ratio"] == pytest.approx(1.1)
    assert "at equal accuracy torch's takes 1.000 times as long" in in_words(found)


def test_searches_that_found_the_same_differ_by_nothing() -> None:
    same = searched(("slow", 0.90, 4.0), ("poor", 0.60, 1.0))
    found = summary(Settings(seeds=3), [(same, same)] * 3, MEASURED_MS, TEST, RATIOS, {})
    assert found["ratio_between"] == [1.0, 1.0]
    assert found["test_difference_at_equal_accuracy"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
