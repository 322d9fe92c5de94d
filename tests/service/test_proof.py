"""The proof of the journal: it tells how far it is, is remembered in parts, and what passes does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from riwoa.service import proof as module
from riwoa.service.parts import DaemonParts
from riwoa.service.proof import JournalProof
from riwoa.service.session import Session
from riwoa_storage.errors import JournalUnreadableError
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import verify
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import write_run

from .support import daemon_parts

GENERATIONS = 23
PART = 10


@pytest.fixture
async def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[JournalWriter]:
    """Without a mark, as a migration leaves it."""
    await write_run(tmp_path / "journal.db", GENERATIONS)
    monkeypatch.setattr(module, "_PART", PART)
    async with await JournalWriter.open(tmp_path / "journal.db") as writer:
        yield writer


@pytest.fixture
def unproved(journal: JournalWriter, tmp_path: Path) -> JournalProof:
    return JournalProof(journal, tmp_path / "journal.db")


def marked(state: Path) -> int:
    """How many generations a later start takes for proved."""
    with JournalReader(state / "journal.db") as reader:
        mark = reader.integrity.verified(1)
    return 0 if mark is None else mark.generations


async def test_a_long_proof_feeds_the_watchdog_and_tells_how_far_it_is(
    journal: JournalWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: DaemonParts = daemon_parts(tmp_path)
    told: list[str] = []
    fed: list[float] = []
    note = parts.progress.note
    session = Session(parts, journal, new_run=False)
    tell = session._show_proof

    def noted() -> None:
        fed.append(1.0)
        note()

    def watched(done: int, total: int) -> None:
        tell(done, total)
        told.append(parts.board.shown.message)

    monkeypatch.setattr(parts.progress, "note", noted)
    monkeypatch.setattr(session, "_show_proof", watched)
    await session._prove_at_start()
    assert told == [f"verifying the journal: generation {done} of 23" for done in range(1, 24)]
    assert len(fed) == GENERATIONS
    assert parts.board.shown.message == ""
    assert marked(tmp_path) == GENERATIONS
    told.clear()
    await session._prove_at_start()
    assert not told


async def test_a_proof_takes_back_its_own_message_alone(journal: JournalWriter, tmp_path: Path) -> None:
    parts = daemon_parts(tmp_path)
    session = Session(parts, journal, new_run=False)
    proving = asyncio.create_task(session._prove_at_start())
    while not parts.board.shown.message:
        await asyncio.sleep(0)
    await proving
    assert parts.board.shown.message == ""
    parts.board.show("measuring", "measuring the operators of this device")
    await session._prove_at_start()
    assert parts.board.shown.message == "measuring the operators of this device"


async def test_a_proof_that_is_cut_short_goes_on_from_the_last_part_that_was_remembered(
    unproved: JournalProof, tmp_path: Path
) -> None:
    told: list[int] = []

    def dies(done: int, total: int) -> None:
        if done == GENERATIONS - 1:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        await unproved.prove(dies)
    assert marked(tmp_path) == 2 * PART
    await unproved.prove(lambda done, total: told.append(done))
    assert told == [21, 22, 23]


async def test_a_daemon_that_stops_does_not_wait_for_the_proof(unproved: JournalProof) -> None:
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()
    told: list[int] = []

    def slow(done: int, total: int) -> None:
        told.append(done)
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.2), loop).result()

    proof = asyncio.create_task(unproved.prove(slow))
    await begun.wait()
    proof.cancel()
    with pytest.raises(asyncio.CancelledError):
        await proof
    await loop.shutdown_default_executor()
    assert told == [1]


@pytest.mark.parametrize("structure", [True, False])
async def test_a_proof_that_lacks_a_file_descriptor_is_tried_again(
    unproved: JournalProof, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, structure: bool
) -> None:
    left = [OSError(24, "Too many open files"), JournalUnreadableError("unable to open database file")]

    def lacking(*arguments: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return verify(*arguments, **options)

    monkeypatch.setattr("riwoa.patience._AGAIN_S", 0.01)
    monkeypatch.setattr(module, "verify", lacking)
    await unproved.prove(structure=structure)
    assert marked(tmp_path) == GENERATIONS
