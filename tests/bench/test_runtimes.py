"""What is said of searches with two tables: the same rule for both, and nothing where nothing differs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from riwoa.bench.runtimes import Network, Searched, Settings, _accuracies, _of_the_same, _search, summary
from riwoa.bench.subnets import EvaluationFile, Evaluator, SubnetLandscape
from riwoa.ctl.bench_runtime import in_words
from riwoa.hardware.lut import LatencyTable
from riwoa.search.fitness import Objective
from riwoa.supernet.space import mobilenet_space, ofa_config

from .support import RESOLUTIONS, FakeOracle, a_table, accuracy_of

SPACE = mobilenet_space(RESOLUTIONS)


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


def evaluator(folder: Path) -> Evaluator:
    return Evaluator(lambda: FakeOracle("validation"), EvaluationFile(folder / "e.jsonl"))


def opposite(table: LatencyTable) -> LatencyTable:
    """A table to which a slow operator is fast."""
    entries = {key: dataclasses.replace(t, p10_ms=0.001 / t.p10_ms) for key, t in table.entries.items()}
    return dataclasses.replace(table, entries=entries)


def test_a_search_keeps_all_that_it_evaluated_and_its_best_within_the_target(tmp_path: Path) -> None:
    judge, table = evaluator(tmp_path), a_table()
    landscape = SubnetLandscape(judge, judge, a_table(), Objective(1.0), RESOLUTIONS)
    found = _search(30, landscape, (table, 0, 0.8))
    assert len({n.key for n in found.networks}) == len(found.networks) == judge.measured == 30
    within = [n for n in found.networks if n.predicted_ms <= 0.8]
    assert found.winner == max(within, key=lambda n: n.accuracy)
    assert all(n.predicted_ms == table.latency_ms(ofa_config(n.architecture)) for n in found.networks)
    assert all(n.accuracy == pytest.approx(accuracy_of(n.architecture)) for n in found.networks)


def test_each_table_names_its_own_fastest_of_what_both_searches_evaluated() -> None:
    tables = a_table(), opposite(a_table())
    rng = np.random.default_rng(0)
    rows = SPACE.canonical(np.array([[rng.integers(len(g.choices)) for g in SPACE.genes] for _ in range(12)]))
    drawn = {SPACE.key(row): SPACE.architecture(row) for row in rows}
    times = [{key: table.latency_ms(ofa_config(a)) for key, a in drawn.items()} for table in tables]
    by_table = [sorted(drawn, key=ms.__getitem__) for ms in times]
    poor = {keys[0] for keys in by_table}  # the fastest of each, which are below the level
    found = [Network(key, a, 0.5 if key in poor else 0.9, 1.0) for key, a in drawn.items()]
    good = next(n for n in found if n.key not in poor)
    named = _of_the_same((Searched(found[:6], good), Searched(found[6:], good)), tables)
    assert [n.key for n in named] == [next(key for key in keys if key not in poor) for keys in by_table]
    assert named[0].key != named[1].key


def test_a_network_that_is_shown_twice_is_judged_once(tmp_path: Path) -> None:
    architecture = SPACE.architecture(np.zeros(len(SPACE.genes), dtype=np.int64))
    judge, network = evaluator(tmp_path), Network("a", architecture, 0.9, 1.0)
    assert _accuracies([network, network], judge) == {"a": accuracy_of(architecture)}
    assert judge.measured == 1
