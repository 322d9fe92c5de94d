"""The drift watch: it waits for idle workers, pauses the search while it measures, tells what it found, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from riwoa.errors import TableError
from riwoa.hardware.drift import Drift, Sentinel
from riwoa.oracle.protocol import BackendStats, WorkerState
from riwoa.service import drift_watch
from riwoa.service.drift_watch import DriftWatch
from riwoa.service.parts import DaemonParts
from riwoa_storage.reader import JournalReader
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import CONFIG, PROVENANCE

from .support import daemon_parts

STEADY = Drift(
    verdict="steady",
    networks=1.01,
    operators=0.99,
    sentinels=(Sentinel("network 1.5 ms", "network", 1.01, 0.98, 1.04, "steady"),),
    affects=(),
    tolerance=0.2,
    rounds=60,
    passes=1,
    load_average=0.5,
    table_sha256="ab" * 32,
)
DRIFTED = replace(STEADY, verdict="drifted", networks=2.0, affects=("every latency and the target",))
BUSY = WorkerState(0, 1, "busy", "x", 0.1, 3, 0, 0.5)
Check = Callable[[Path], Awaitable[Drift]]


def workers(state: WorkerState) -> BackendStats:
    return BackendStats((state,), queued=0, completed=0, failed=0, retried=0)


IDLE = workers(replace(BUSY, state="idle"))


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[JournalWriter]:
    async with await JournalWriter.open(tmp_path / "journal.db") as writer:
        await writer.begin_run(PROVENANCE, CONFIG)
        yield writer


@pytest.fixture
def parts(tmp_path: Path) -> DaemonParts:
    return daemon_parts(tmp_path, "latency.drift_every_s=0.01")


def watch_of(
    parts: DaemonParts, journal: JournalWriter, check: Check, stats: Callable[[], BackendStats] = lambda: IDLE
) -> DriftWatch:
    table = parts.paths.latency_table
    settings = lambda: parts.config.latency  # noqa: E731
    return DriftWatch(table, 1, journal, parts.board, parts.pauses, stats, settings, check)


@pytest.mark.parametrize("found", [STEADY, DRIFTED])
async def test_it_pauses_measures_and_tells_in_status_and_journal(
    found: Drift, parts: DaemonParts, journal: JournalWriter
) -> None:
    held: list[dict[str, str]] = []

    async def check(table: Path) -> Drift:
        held.append(parts.pauses.holds)
        assert table == parts.paths.latency_table
        return found

    await watch_of(parts, journal, check).measure()
    assert held == [{"drift": "measuring whether the latency table still holds"}]
    assert parts.pauses.holds == {}
    shown = parts.board.look()["latency"]
    assert shown is not None
    assert shown["verdict"] == found.verdict
    assert shown["checked_unix_s"] == pytest.approx(parts.board.look()["updated_unix_s"], abs=60)
    with JournalReader(parts.paths.journal) as reader:
        (event,) = [e for e in reader.events(1) if e.kind == "latency_drift"]
    assert Drift.from_json(event.payload) == found


async def test_it_waits_until_no_worker_is_busy(parts: DaemonParts, journal: JournalWriter) -> None:
    states = [workers(BUSY), workers(BUSY), IDLE]

    async def check(table: Path) -> Drift:
        assert not states
        return STEADY

    await watch_of(parts, journal, check, lambda: states.pop(0)).measure()
    assert parts.board.look()["latency"] is not None


async def test_a_check_that_fails_is_no_reason_to_stop(parts: DaemonParts, journal: JournalWriter) -> None:
    async def check(table: Path) -> Drift:
        raise TableError("another device's")

    await watch_of(parts, journal, check).measure()
    assert parts.board.look()["latency"] is None
    assert parts.pauses.holds == {}


async def test_it_measures_when_it_is_time_but_not_while_the_search_pauses(
    parts: DaemonParts, journal: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_watch, "_LOOK_EVERY_S", 0.01)
    measured = asyncio.Event()

    async def check(table: Path) -> Drift:
        measured.set()
        return STEADY

    parts.pauses.hold("person", "by riwoactl pause")
    task = asyncio.create_task(watch_of(parts, journal, check).watch())
    await asyncio.sleep(0.2)
    assert not measured.is_set()
    parts.pauses.release("person")
    async with asyncio.timeout(10):
        await measured.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert parts.pauses.holds == {}
