"""A table measured on a busy machine is said to be one wherever a latency of it is shown."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from riwoa.ctl import main
from riwoa.ctl.status_text import render
from riwoa.hardware.calibration import Interval
from riwoa.hardware.interval import advice, interval_of, plus_minus
from riwoa.paths import StatePaths
from riwoa.service.foreground import show_end
from riwoa.service.status import one_line
from riwoa.service.views import finished_view
from riwoa_storage.reader import JournalReader
from riwoa_storage.writer import JournalWriter
from tests.bench.support import a_table
from tests.ctl.support import generation, individual, status_object

SAYS = "± 36 % by this table: measured on a busy machine; `riwoactl lut build` on an idle one narrows it"


def a_run(state: Path, half_width_percent: float) -> None:
    """A finished run on a table of such an interval."""
    interval = Interval(0.9, half_width_percent, half_width_percent, 0.0, 60, 1)
    table = replace(a_table(), interval=interval)
    table.save(state / "latency_lut.json")
    record = generation(1, 0, (individual(0, ("a", 0.75, 1.5), {"ops": 1}),))
    assert record.leader is not None
    counters = {"evaluations": 1, "cache_hits": 0, "failures": 0}
    record = replace(record, counters=counters, leader={**record.leader, "target_ms": 2.0})

    async def write() -> None:
        async with await JournalWriter.open(state / "journal.db") as journal:
            provenance = {"latency_table_sha256": table.sha256, "oracle": {"kind": "supernet"}}
            await journal.begin_run({"seed": 0, "strategy": "riwoa", **provenance}, {})
            await journal.commit_generation(record)
            await journal.finish_run(1)

    asyncio.run(write())


def test_the_interval_is_the_one_of_the_table_that_the_run_used(tmp_path: Path) -> None:
    file = tmp_path / "latency_lut.json"
    assert interval_of(file, "x") is None
    a_table().save(file)
    assert interval_of(file, a_table().sha256) is None  # it holds none
    a_run(tmp_path, 36.0)
    with JournalReader(tmp_path / "journal.db") as reader:
        run = reader.latest_run()
    assert run is not None
    assert interval_of(file, run.provenance["latency_table_sha256"]) == pytest.approx(0.36)
    assert interval_of(file, a_table().sha256) is None  # another's
    file.write_text("{")
    assert interval_of(file, run.provenance["latency_table_sha256"]) is None


@pytest.mark.parametrize(("half_width_percent", "shown", "wide"), [(36.0, "± 36 %", True), (5.1, "± 5 %", False)])
def test_every_place_that_shows_a_latency_shows_its_interval(
    half_width_percent: float, shown: str, wide: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path, half_width_percent)

    assert main(["pareto", "--state", str(tmp_path)]) == 0
    front = capsys.readouterr().out
    assert f"1.500 ms {shown}" in front
    assert (SAYS in front) == wide

    assert main(["lut", "show", "--state", str(tmp_path)]) == 0
    assert (SAYS in capsys.readouterr().out) == wide

    leader = status_object()["leader"]
    assert leader is not None
    status = status_object(leader={**leader, "latency_interval": half_width_percent / 100})
    assert f"1.700 ms {shown}" in render({**status, "alive": True})
    assert (SAYS in render({**status, "alive": True})) == wide
    assert f"1.700 of 1.900 ms {shown}" in one_line(status)

    show_end(status_object(state="finished"), StatePaths(tmp_path))
    end = capsys.readouterr().out
    assert f"1.500 ms an image {shown}, by this device's table (eager torch, 1 thread)" in end
    assert (SAYS in end) == wide

    with JournalReader(tmp_path / "journal.db") as reader:
        run, last = reader.latest_run(), reader.last_generation(1)
    assert run is not None
    assert last is not None
    leader = finished_view(run, last, 0.36, {}).leader
    assert leader is not None
    assert leader["latency_interval"] == 0.36


def test_without_an_interval_nothing_is_claimed() -> None:
    assert (plus_minus(None), advice(None), advice(0.05)) == ("", "", "")
    assert "±" not in render({**status_object(), "alive": True})
