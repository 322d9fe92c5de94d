"""Runs under several limits, as a user has them: killed, continued, shown, refused."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from riwoa.hardware.obtain import shipped_table
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare
from tests.run.test_command_run import best
from tests.run.test_table_run import life, table_settings
from tests.service.test_service import SMALL, ctl, one_line, run, state, table  # noqa: F401  # fixtures

OPS = np.array(list(itertools.product(range(4), repeat=4)), dtype=np.uint8)
ACCURACY = 50.0 + 3 * OPS.sum(axis=1) + np.cos(np.arange(256.0))
PHONE_MS = 1.0 + OPS.astype(float) @ np.array([1.0, 0.5, 0.25, 2.0])
BOARD_MS = 1.0 + OPS.astype(float) @ np.array([2.0, 0.25, 1.0, 0.5])
OTHER_MS = 13.0 - PHONE_MS / 2  # fast where the phone is slow


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    np.savez(tmp_path / "cells.npz", ops=OPS, acc=ACCURACY)
    np.savez(tmp_path / "latency.npz", phone_ms=PHONE_MS, board_ms=BOARD_MS, other_ms=OTHER_MS)
    return tmp_path / "cells.npz"


def limited(measured: Path, *devices: tuple[str, float], target_ms: float = 6.0) -> tuple[str, ...]:
    tables = [{"name": n, "table": f"latency.npz:{n}_ms", "at_most_ms": most} for n, most in devices]
    inline = ", ".join(f'{{name="{t["name"]}", table="{t["table"]}", at_most_ms={t["at_most_ms"]}}}' for t in tables)
    latency = ("oracle.table.latency=latency.npz:phone_ms", f"objective.latency_ms={target_ms}")
    scripted = ("cognition.provider=scripted", "cognition.script=mixed", "search.p_semantic=0.6")
    return table_settings(measured, *latency, f"objective.devices=[{inline}]", *scripted)


def prompts(place: Path) -> Sequence[str]:
    with JournalReader(place / "journal.db") as reader:
        return [request.prompt for request in reader.requests(1)]


def test_several_devices_limit_a_run_that_is_killed_and_continued(measured: Path, tmp_path: Path) -> None:
    settings = limited(measured, ("board", 5.0))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(whole, settings=settings)
    assert done.returncode == 0, done.stderr
    for failpoint in ("journal.before_commit:9", "conductor.evaluated:2"):
        assert life(killed, settings, failpoint) == -signal.SIGKILL
    assert life(killed, settings, "") == 0
    found = compare(whole / "journal.db", killed / "journal.db")
    assert found.same, found.message
    metrics = best(whole)
    both = (PHONE_MS <= 6) & (BOARD_MS <= 5)
    assert metrics["accuracy"] == pytest.approx(ACCURACY[both].max() / 100)
    assert metrics["latency_ms_board"] <= 5
    shown = f"latency_ms_board <= 5 ms: {metrics['latency_ms_board']:g} ms, met"
    for told in (ctl(killed, "status"), ctl(killed, "pareto")):
        assert shown in told.stdout
    (killed / "status.json").unlink()
    assert shown in ctl(killed, "status").stdout
    assert any("\nLimits: latency_ms_board <= 5 ms (now " in prompt for prompt in prompts(whole))


def test_a_device_that_was_measured_anew_is_not_taken_for_the_one_of_before(measured: Path, tmp_path: Path) -> None:
    settings = limited(measured, ("board", 5.0))
    assert life(tmp_path / "state", settings, "conductor.evaluated:2") == -signal.SIGKILL
    np.savez(tmp_path / "latency.npz", phone_ms=PHONE_MS, board_ms=BOARD_MS + 1, other_ms=OTHER_MS)
    refused = run(tmp_path / "state", settings=settings)
    assert refused.returncode != 0
    assert "begun with another latency table" in one_line(refused.stderr)


def test_where_nothing_keeps_all_limits_the_tightest_is_named_with_what_is_reached(
    measured: Path, tmp_path: Path
) -> None:
    done = run(tmp_path / "state", "--foreground", settings=limited(measured, ("other", 9.0), target_ms=4.0))
    assert done.returncode == 0, done.stderr
    assert "Winner (NOT within its limits)" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "the tightest limit" in line]
    assert "NOT met; the tightest limit: the evaluated networks reach" in line
    data = json.loads(ctl(tmp_path / "state", "status", "--json").stdout)["leader"]
    assert [row["metric"] for row in data["limits"]] == ["latency_ms", "latency_ms_other"]
    assert any(row["tightest"] for row in data["limits"])
    assert not data["feasible"]


def test_the_embedded_supernet_keeps_within_another_devices_table(state: Path) -> None:  # noqa: F811
    other = f'{{name="reference", table="{shipped_table()}", at_most_ms=0.12}}'
    settings = (*SMALL, f"objective.devices=[{other}]", 'objective.constraints=["parameters <= 400_000"]')
    done = run(state, settings=(*settings, "run.generations=1", "run.polish_evaluations=0"))
    assert done.returncode == 0, done.stderr
    metrics = best(state)
    assert metrics["latency_ms_reference"] <= 0.12
    assert metrics["parameters"] <= 400_000
