from pathlib import Path

import pytest

from riwoa.bench import journal as bench
from riwoa.bench.journal import bench_journal, file_system


def test_every_store_is_measured_on_the_same_genes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("GENERATIONS", 2), ("RDB_TRIALS", 1), ("FILE_TRIALS", 1)):
        monkeypatch.setattr(bench, name, value)
    result = bench_journal(tmp_path / "new", repeats=1)
    rates = {row["store"]: row["evaluations_per_s"] for row in result["rows"]}
    assert result["ratio"] == pytest.approx(rates["riwoa"] / rates["optuna_rdb"])
    assert result["ratio_journal_file"] == pytest.approx(rates["riwoa"] / rates["optuna_journal_file"])
    assert result["settings"]["genes"] == 46
    assert not list((tmp_path / "new").iterdir())


def test_without_optuna_its_rows_are_empty_and_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "GENERATIONS", 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = bench_journal(tmp_path, repeats=1)
    assert result["ratio"] is None
    theirs = [row for row in result["rows"] if row["store"].startswith("optuna")]
    assert all(row["evaluations_per_s"] is None and "riwoa[bench]" in row["missing"] for row in theirs)


def test_the_file_system_of_a_path_is_that_of_its_longest_mount_point() -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(Path("/")) == [m for m in mounts if m[1] == "/"][-1][2]
