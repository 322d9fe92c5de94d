"""The proof at a start: it tells how far it is, is remembered in parts, and what passes does not end it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from riwoa.config.loading import load
from riwoa.files.lock import Lock
from riwoa.paths import StatePaths
from riwoa.service import main as module
from riwoa.service.main import Service
from riwoa_storage.errors import JournalUnreadableError
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import verify
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import write_run

GENERATIONS = 23
PART = 10


@pytest.fixture
async def unproved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """On a journal without a mark, as a migration leaves it."""
    await write_run(tmp_path / "journal.db", GENERATIONS)
    monkeypatch.setattr(module, "_PART", PART)
    lock = Lock(tmp_path / "lock")
    return Service(StatePaths(tmp_path), load(None, [], {}), [], lock=lock, new_run=False, foreground=False)


async def proved(service: Service, *, starting: bool = True) -> None:
    async with await JournalWriter.open(service.paths.journal) as journal:
        await service._prove(journal, starting=starting)


def marked(service: Service) -> int:
    """How many generations a later start takes for proved."""
    with JournalReader(service.paths.journal) as reader:
        mark = reader.integrity.verified(1)
    return 0 if mark is None else mark.generations


async def test_a_long_proof_feeds_the_watchdog_and_tells_how_far_it_is(
    unproved: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    fed: list[float] = []
    on_proof = unproved._on_proof

    def watched(done: int, total: int) -> None:
        unproved._progress_s = 0.0
        on_proof(done, total)
        fed.append(unproved._progress_s)
        told.append(unproved.board.message)

    monkeypatch.setattr(unproved, "_on_proof", watched)
    await proved(unproved)
    assert told == [f"verifying the journal: generation {done} of 23" for done in range(1, 24)]
    assert all(fed)
    assert unproved.board.message == ""
    assert marked(unproved) == GENERATIONS
    told.clear()
    await proved(unproved)
    assert not told


async def test_a_proof_that_is_cut_short_goes_on_from_the_last_part_that_was_remembered(
    unproved: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    on_proof = unproved._on_proof

    def dies(done: int, total: int) -> None:
        if done == GENERATIONS - 1:
            raise RuntimeError("killed")
        on_proof(done, total)

    monkeypatch.setattr(unproved, "_on_proof", dies)
    with pytest.raises(RuntimeError):
        await proved(unproved)
    assert marked(unproved) == 2 * PART
    monkeypatch.setattr(unproved, "_on_proof", lambda done, total: told.append(done))
    await proved(unproved)
    assert told == [21, 22, 23]


async def test_a_daemon_that_stops_does_not_wait_for_the_proof(
    unproved: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()
    told: list[int] = []

    def slow(done: int, total: int) -> None:
        told.append(done)
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.2), loop).result()

    monkeypatch.setattr(unproved, "_on_proof", slow)
    proof = asyncio.create_task(proved(unproved))
    await begun.wait()
    proof.cancel()
    with pytest.raises(asyncio.CancelledError):
        await proof
    await loop.shutdown_default_executor()
    assert told == [1]


@pytest.mark.parametrize("starting", [True, False])
async def test_a_proof_that_lacks_a_file_descriptor_is_tried_again(
    unproved: Service, monkeypatch: pytest.MonkeyPatch, starting: bool
) -> None:
    left = [OSError(24, "Too many open files"), JournalUnreadableError("unable to open database file")]

    def lacking(*arguments: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return verify(*arguments, **options)

    monkeypatch.setattr("riwoa.patience._AGAIN_S", 0.01)
    monkeypatch.setattr(module, "verify", lacking)
    await proved(unproved, starting=starting)
    assert marked(unproved) == GENERATIONS
