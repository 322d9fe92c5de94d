import pytest

from riwoa.bench.status import bench_status


def test_running_and_stopped_are_measured_against_the_bare_interpreter() -> None:
    result = bench_status(1)
    times = {row["command"]: row["median_ms"] for row in result["rows"]}
    assert set(times) == {"interpreter", "running", "stopped"}
    slower = max(times["running"], times["stopped"])
    assert result["ratio"] == pytest.approx(slower / times["interpreter"])
