"""SIGKILL and SIGSTOP of the daemon's children at random moments: workers, the model, the export."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from riwoa.cognition.protocol import ModelSpec
from riwoa.ipc.child import child_environment
from riwoa_storage.replay import compare, verify
from tests.crash.test_crash import fresh, learning
from tests.service.test_service import SMALL, command, run
from tests.service.test_service import table as table
from tests.service.test_service import whole as whole

WORKER, MODEL, EXPORT = "riwoa.oracle.worker", "riwoa.cognition.worker", "riwoa.export"
LIFE_S = 300.0


def hurt(
    state: Path,
    settings: Sequence[str],
    module: str,
    signals: Sequence[signal.Signals],
    *,
    at_once: bool = False,
) -> int:
    """Run to the end while each signal hits a child of that name, moments apart; how many hit."""
    seed = random.SystemRandom().randrange(2**32)
    rng, hits, seen = random.Random(seed), 0, set[int]()
    print(f"\nseed {seed}")
    process = subprocess.Popen(
        command(state, settings=settings), env=child_environment(1), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        end_s, next_s = time.monotonic() + LIFE_S, 0.0
        while process.poll() is None and time.monotonic() < end_s:
            found = [pid for pid in children(process.pid, module) if pid not in seen]
            if found and next_s == 0.0:
                next_s = time.monotonic() + (0.0 if at_once else rng.uniform(0.0, 2.0))
            if found and hits < len(signals) and time.monotonic() >= next_s:
                victim = rng.choice(found)
                seen.add(victim)  # a process is hit once, and no candidate twice: the second would be its own fault
                os.kill(victim, signals[hits])
                hits, next_s = hits + 1, time.monotonic() + rng.uniform(3.0, 5.0)
            time.sleep(0.002 if at_once else 0.02)
        _, stderr = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, stderr
    return hits


def children(parent: int, module: str) -> list[int]:
    """Processes of that module below the daemon."""
    found = []
    try:
        for child in psutil.Process(parent).children():
            if module in child.cmdline():
                found.append(child.pid)
    except psutil.Error:  # it ended while we looked
        pass
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_stopped_costs_no_evaluation(
    table: Path, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    settings = (*SMALL, "oracle.timeout_s=5")
    assert hurt(fresh(tmp_path / "hurt", table), settings, WORKER, [number]) == 1
    found = compare(whole / "journal.db", tmp_path / "hurt" / "journal.db")
    assert found.same, found.message


@pytest.mark.crash
@pytest.mark.timeout(900)
@pytest.mark.parametrize("round_", range(5))
def test_workers_killed_and_stopped_at_random_moments(table: Path, tmp_path: Path, round_: int) -> None:
    settings = (*SMALL, "run.generations=12")
    assert run(fresh(tmp_path / "whole", table), settings=settings).returncode == 0
    signals = [signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL, signal.SIGSTOP]
    assert hurt(fresh(tmp_path / "hurt", table), (*settings, "oracle.timeout_s=5"), WORKER, signals) > 0
    found = compare(tmp_path / "whole" / "journal.db", tmp_path / "hurt" / "journal.db")
    assert found.same, found.message


@pytest.mark.crash
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_model_that_is_killed_or_stopped_ends_no_search(
    table: Path, tmp_path: Path, tiny_llama: ModelSpec, number: signal.Signals
) -> None:
    """Replies that it did not give are missing, so the digest may be another; the journal is whole all the same."""
    settings = (*learning(tiny_llama, 0), "cognition.timeout_s=10", "cognition.train_timeout_s=20")
    state = fresh(tmp_path / "state", table)
    assert hurt(state, settings, MODEL, [number]) == 1
    assert verify(state / "journal.db").runs[-1].status == "finished"


@pytest.mark.crash
@pytest.mark.timeout(400)
def test_an_export_that_is_killed_is_made_by_the_next_start(table: Path, tmp_path: Path) -> None:
    settings = (*SMALL, "run.export=true")
    state = fresh(tmp_path / "state", table)
    assert hurt(state, settings, EXPORT, [signal.SIGKILL], at_once=True) == 1
    assert verify(state / "journal.db").runs[-1].status == "finished"
    assert run(state, settings=settings).returncode == 0
    assert (state / "export" / "provenance.json").exists()
