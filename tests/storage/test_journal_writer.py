from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa_storage.connect import _try_to_write
from riwoa_storage.errors import (
    JournalClosedError,
    JournalFullError,
    JournalLockedError,
    JournalRefusedError,
    JournalUnwritableError,
    StorageError,
)
from riwoa_storage.events import RequestsWithdrawn, RunResumed, kind_of
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ConfigRevisionRecord
from riwoa_storage.replay import verify
from riwoa_storage.transactions import QUEUE_LENGTH, _transact
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import (
    CONFIG,
    PROVENANCE,
    WHEN,
    adapter,
    buffer_entry,
    committed,
    evaluation,
    generation,
    individual,
    reply,
    request,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_a_commit_survives_power_loss_as_far_as_sqlite_can_promise(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            assert list(await writer._transactions._connection.execute_fetchall(f"PRAGMA {pragma}")) == [(value,)]


async def test_what_was_committed_is_read_back_to_the_last_bit(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        await writer.put_requests([request(run_id, 0, 2), request(run_id, 0, 1)])
        await writer.commit_generation(generation(run_id, 0))
        await writer.put_replies([reply(f"{run_id}/0/2"), reply(f"{run_id}/0/1", status="timeout", text="")])
        failed = individual(
            1, 3, operator="semantic", parent=(0, 2), request_id=f"{run_id}/0/2", status="failed", metrics={},
            fitness=None, error="non-finite accuracy", cache_hit=True,
        )  # fmt: skip
        g = generation(run_id, 1, joined_requests=(f"{run_id}/0/2", f"{run_id}/0/1"), inputs={"timeout": [1]})
        g = replace(g, individuals=(*g.individuals, failed))
        event = RunResumed(restarted={"at": 1}, run_id=run_id, generation=1, created_unix_s=WHEN)
        entry = buffer_entry(run_id, f"{run_id}/0/2", 1)
        digest = await writer.commit_generation(g, events=[event], buffer=[entry])
    with JournalReader(path) as reader:
        assert reader.last_generation(run_id) == committed(g, digest)
        assert list(reader.generations(run_id, start=1)) == [committed(g, digest)]
        assert reader.digest_head(run_id) == digest
        assert reader.requests(run_id) == [request(run_id, 0, 1), request(run_id, 0, 2)]
        assert reader.replies(run_id)[f"{run_id}/0/1"] == reply(f"{run_id}/0/1", status="timeout", text="")
        assert reader.events(run_id) == [event]
        assert reader.buffer(run_id) == [replace(entry, entry_id=1)]
        assert [c.config for c in reader.config_revisions(run_id)] == [CONFIG]


async def test_a_new_run_supersedes_the_running_one(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        first = await writer.begin_run(PROVENANCE, CONFIG)
        second = await writer.begin_run(PROVENANCE, CONFIG)
        await writer.finish_run(second)
        await writer.finish_run(second)
        third = await writer.begin_run(PROVENANCE, CONFIG)
        with JournalReader(path) as reader:
            statuses = {run.run_id: run.status for run in reader.runs()}
    assert statuses == {first: "abandoned", second: "finished", third: "running"}


async def test_the_first_evaluation_and_the_first_reply_stay(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        await writer.put_evaluation(evaluation("a", 0.5))
        await writer.put_evaluations([evaluation("a", 0.9), evaluation("b", 0.7)])
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        await writer.put_requests([request(run_id, 0, 0)])
        await writer.put_requests([request(run_id, 0, 0), request(run_id, 0, 1)])
        await writer.put_replies([reply(f"{run_id}/0/0", "first")])
        await writer.put_replies([reply(f"{run_id}/0/0", "second")])
    with JournalReader(path) as reader:
        assert list(reader.evaluations("table-1")) == [evaluation("a", 0.5), evaluation("b", 0.7)]
        assert reader.by_key.evaluation("table-1", "a") == evaluation("a", 0.5)
        assert reader.by_key.evaluation("table-2", "a") is None
        assert reader.replies(run_id)[f"{run_id}/0/0"].text == "first"
        assert [r.slot for r in reader.requests(run_id, unanswered=True)] == [1]
        assert [r.slot for r in reader.requests(run_id, unanswered=False)] == [0]


async def test_requests_are_taken_back_with_their_replies_only_before_their_generation_is_committed(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        await writer.commit_generation(generation(run_id, 0))
        await writer.put_requests([request(run_id, g, slot) for g in (0, 1) for slot in (0, 1)])
        await writer.put_replies([reply(f"{run_id}/{g}/0") for g in (0, 1)])
        await writer.withdraw_requests(run_id, 1, events=[RequestsWithdrawn(requests=2)])
        with pytest.raises(JournalRefusedError, match=r"generation 0 .* is committed"):
            await writer.withdraw_requests(run_id, 0)
        with pytest.raises(JournalRefusedError, match="no run 9"):
            await writer.withdraw_requests(9, 0)
    with JournalReader(path) as reader:
        assert [(r.generation, r.slot) for r in reader.requests(run_id)] == [(0, 0), (0, 1)]
        assert list(reader.replies(run_id)) == [f"{run_id}/0/0"]
        assert [kind_of(e) for e in reader.events()] == ["requests_withdrawn"]


async def test_an_adapter_consumes_its_entries_and_supersedes_in_one_transaction(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        await writer.put_requests([request(run_id, 0, slot) for slot in range(3)])
        entries = [await writer.put_buffer_entry(buffer_entry(run_id, f"{run_id}/0/{slot}", 0)) for slot in range(3)]
        first = await writer.put_adapter(adapter(run_id, 1), consumed=entries[:2])
        with pytest.raises(JournalRefusedError, match="consumed before"):
            await writer.put_adapter(adapter(run_id, 2, b"again"), consumed=entries[1:])
        with pytest.raises(JournalRefusedError, match="sha256"):
            await writer.put_adapter(adapter(run_id, 2, sha256="0" * 64))
        rejected = await writer.put_adapter(adapter(run_id, 2, b"worse", status="rejected", parent_id=first))
        second = await writer.put_adapter(adapter(run_id, 3, b"better", parent_id=first), consumed=entries[2:])
    with JournalReader(path) as reader:
        assert [e.consumed_by for e in reader.buffer(run_id)] == [first, first, second]
        assert {a.adapter_id: a.status for a in reader.adapters(run_id)} == {
            first: "superseded", rejected: "rejected", second: "current",
        }  # fmt: skip


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a gap": ({"generation": 3}, "generation 3 of run 1 does not follow 0"),
    "a generation again": ({"generation": 0}, "does not follow"),
    "an unknown run": ({"run_id": 9}, "no run 9"),
    "an unknown configuration": ({"config_revision": 5}, "FOREIGN KEY"),
    "a reply that was not journaled": ({"joined_requests": ("1/0/0",)}, "reply was not journaled"),
    "a slot twice": ({"individuals": (individual(1, 0), individual(1, 0))}, "UNIQUE"),
    "a parent that is not there": ({"individuals": (individual(1, 0, parent=(0, 7)),)}, "FOREIGN KEY"),
    "a parent of the future": ({"individuals": (individual(1, 0, parent=(2, 0)),)}, "CHECK"),
    "an unknown phase": ({"phase": "later"}, "CHECK"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_generation_that_breaks_a_rule_is_refused_whole_and_the_writer_goes_on(path: Path, what: str) -> None:
    changes, message = REFUSED[what]
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        await writer.commit_generation(generation(run_id, 0))
        event = RunResumed(run_id=run_id)
        with pytest.raises(JournalRefusedError, match=message):
            await writer.commit_generation(generation(run_id, 1, **changes), events=[event])
        with JournalReader(path) as reader:
            assert reader.generation_count(run_id) == 1
            assert reader.events() == []
        await writer.commit_generation(generation(run_id, 1))
    assert verify(path).ok


async def test_a_finished_run_takes_no_more_generations(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        await writer.finish_run(run_id)
        with pytest.raises(JournalRefusedError, match="is finished"):
            await writer.commit_generation(generation(run_id, 0))
        with pytest.raises(JournalRefusedError, match="no run 5"):
            await writer.finish_run(5)
        with pytest.raises(JournalRefusedError, match="CHECK"):
            await writer.finish_run(run_id, "tired")  # type: ignore[arg-type]


async def test_configuration_revisions_have_no_gap(path: Path) -> None:
    def revision(run_id: int, number: int) -> ConfigRevisionRecord:
        return ConfigRevisionRecord(
            run_id=run_id,
            revision=number,
            generation=1,
            config={"n": number},
            changed={"n": [0, 1]},
            created_unix_s=WHEN,
        )

    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        with pytest.raises(JournalRefusedError, match="revision 2 of run 1 does not follow 0"):
            await writer.put_config_revision(revision(run_id, 2))
        await writer.put_config_revision(revision(run_id, 1))
        await writer.commit_generation(generation(run_id, 0))
        await writer.commit_generation(generation(run_id, 1, config_revision=1))
        with JournalReader(path) as reader:
            assert reader.config_revisions(run_id)[1] == revision(run_id, 1)


@pytest.mark.parametrize("fitness", [-0.0, 1, 1e300, 5e-324, None])
async def test_a_fitness_that_sqlite_stores_in_its_own_way_keeps_the_chain_intact(path: Path, fitness: float) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        await writer.commit_generation(generation(run_id, 0, individuals=(individual(0, 0, fitness=fitness),)))
    assert verify(path).ok


@pytest.mark.parametrize("metrics", [{"accuracy": float("nan")}, {"latency_ms": float("inf")}])
async def test_a_non_finite_metric_is_refused_and_leaves_no_trace(path: Path, metrics: dict[str, float]) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        with pytest.raises(ValueError, match="JSON"):
            await writer.commit_generation(generation(run_id, 0, individuals=(individual(0, 0, metrics=metrics),)))
        with pytest.raises(ValueError, match="JSON"):
            await writer.put_evaluation(evaluation("a", metrics=metrics))
        await writer.commit_generation(generation(run_id, 0))
    assert verify(path).runs[0].generations == 1


@pytest.mark.parametrize("pauses", range(12))
async def test_cancelling_the_caller_at_any_point_neither_splits_nor_loses_its_transaction(
    path: Path, pauses: int
) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        task = asyncio.create_task(writer.commit_generation(generation(run_id, 0)))
        await asyncio.sleep(0)  # handed in
        for _ in range(pauses):
            await asyncio.sleep(0.0001)
        came_in_time = task.cancel()
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError) == came_in_time
        with JournalReader(path) as reader:  # already durable when the cancellation comes through
            assert reader.generation_count(run_id) == 1
        await writer.commit_generation(generation(run_id, 1))
    assert verify(path).ok


async def test_cancelling_during_the_commit_itself_leaves_the_writer_in_step(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        loop = asyncio.get_running_loop()

        def cancel(name: str) -> None:  # on the connection's thread, between the last statement and COMMIT
            if name == "journal.before_commit":
                loop.call_soon_threadsafe(task.cancel)
                time.sleep(0.02)

        with monkeypatch.context() as patch:
            patch.setattr("riwoa_storage.transactions.failpoint", cancel)
            task = asyncio.create_task(writer.commit_generation(generation(run_id, 0)))
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not writer._transactions._connection.in_transaction
        await writer.commit_generation(generation(run_id, 1))


async def test_writers_of_many_tasks_do_not_share_a_transaction(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        evaluations = [writer.put_evaluation(evaluation(f"k{n}")) for n in range(3 * QUEUE_LENGTH)]
        refused = writer.commit_generation(generation(run_id, 5))
        results = await asyncio.gather(refused, *evaluations, return_exceptions=True)
    assert isinstance(results[0], JournalRefusedError)
    with JournalReader(path) as reader:
        assert len(list(reader.evaluations("table-1"))) == 3 * QUEUE_LENGTH


async def test_transactions_become_durable_in_the_order_in_which_they_were_handed_in(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        count = 2 * QUEUE_LENGTH + 5  # more than the queue holds: each but the first needs its predecessor
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(writer.commit_generation(generation(run_id, number, slots=1)))
                await asyncio.sleep(0)  # newcomers meet others who already wait for room
    assert verify(path).runs[0].generations == count


async def test_closing_finishes_what_was_handed_in_before(path: Path) -> None:
    writer = await JournalWriter.open(path)
    tasks = [asyncio.create_task(writer.put_evaluation(evaluation(f"k{n}"))) for n in range(2 * QUEUE_LENGTH)]
    await asyncio.sleep(0)
    await writer.close()
    await asyncio.gather(*tasks)
    await writer.close()
    with pytest.raises(JournalClosedError, match="open it again"):
        await writer.put_evaluation(evaluation("late"))
    with JournalReader(path) as reader:
        assert len(list(reader.evaluations("table-1"))) == 2 * QUEUE_LENGTH


async def test_a_clean_close_leaves_one_file(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        await writer.put_event(RunResumed())
    assert [file.name for file in path.parent.iterdir()] == ["journal.db"]


class BrokenDisk(sqlite3.OperationalError):
    sqlite_errorcode = 10  # SQLITE_IOERR


async def test_an_io_error_reaches_the_caller_the_waiting_and_the_later_ones(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await JournalWriter.open(path)
    run_id = await writer.begin_run(PROVENANCE, CONFIG)

    def fail(_: str) -> None:
        raise BrokenDisk("disk I/O error")

    calls = [writer.put_evaluation(evaluation(f"k{n}")) for n in range(2 * QUEUE_LENGTH)]
    async with asyncio.timeout(10):
        with monkeypatch.context() as patch:
            patch.setattr("riwoa_storage.transactions.failpoint", fail)
            results = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(JournalUnwritableError, match="check the disk"):  # although the disk works again
            await writer.commit_generation(generation(run_id, 0))
        await writer.close()
    assert {type(result) for result in results} == {JournalUnwritableError}
    async with await JournalWriter.open(path) as writer:
        await writer.commit_generation(generation(run_id, 0))


async def test_the_disk_is_tried_off_the_event_loop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush of a disk that fails may take any time."""
    tried_on: list[int] = []

    def fail(_: str) -> None:
        raise BrokenDisk("disk I/O error")

    def tried(name: str) -> None:
        tried_on.append(threading.get_ident())
        _try_to_write(name)

    async with await JournalWriter.open(path) as writer:
        monkeypatch.setattr("riwoa_storage.connect._try_to_write", tried)
        monkeypatch.setattr("riwoa_storage.transactions.failpoint", fail)
        with pytest.raises(JournalUnwritableError, match="check the disk"):
            await writer.put_evaluation(evaluation("a"))
    assert tried_on
    assert threading.get_ident() not in tried_on


def test_what_tries_the_disk_touches_nobodys_file(path: Path) -> None:
    path.write_bytes(b"journal")
    precious = path.with_name("precious")
    precious.write_bytes(b"precious")
    path.with_name(f"{path.name}.{os.getpid()}.probe").symlink_to(precious)
    before = sorted(path.parent.iterdir())
    _try_to_write(str(path))
    assert precious.read_bytes() == b"precious"
    assert sorted(path.parent.iterdir()) == before


async def test_an_unexpected_error_inside_a_transaction_stops_the_writer_without_a_hang(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("can't start new thread")

    async with await JournalWriter.open(path) as writer:
        async with asyncio.timeout(10):
            with monkeypatch.context() as patch:
                patch.setattr("riwoa_storage.transactions.failpoint", fail)
                with pytest.raises(StorageError, match="can't start new thread"):
                    await writer.put_evaluation(evaluation("a"))
            with pytest.raises(StorageError, match="can't start new thread"):
                await writer.put_evaluation(evaluation("a"))


async def test_the_death_of_the_owner_task_reaches_everyone_who_waits(path: Path) -> None:
    writer = await JournalWriter.open(path)
    calls = [asyncio.create_task(writer.put_evaluation(evaluation(f"k{n}"))) for n in range(3 * QUEUE_LENGTH)]
    await asyncio.sleep(0.001)
    writer._transactions._owner.cancel()
    async with asyncio.timeout(10):
        results = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(JournalClosedError):
            await writer.put_evaluation(evaluation("late"))
    written = [f"k{n}" for n, result in enumerate(results) if result is None]
    assert {type(result) for result in results if result is not None} == {JournalClosedError}
    with JournalReader(path) as reader:
        stored = {e.architecture_key for e in reader.evaluations("table-1")}
    assert stored.issuperset(written)


def test_a_loop_that_is_torn_down_without_closing_hangs_nobody_and_loses_nothing(path: Path) -> None:
    async def leave() -> None:
        writer = await JournalWriter.open(path)
        await writer.put_evaluation(evaluation("durable"))
        for n in range(2 * QUEUE_LENGTH):
            background.append(asyncio.create_task(writer.put_evaluation(evaluation(f"k{n}"))))
        await asyncio.sleep(0)

    background: list[asyncio.Task[None]] = []
    asyncio.run(leave())
    assert all(task.done() for task in background)
    with JournalReader(path) as reader:
        assert reader.by_key.evaluation("table-1", "durable")
    assert verify(path).ok


async def fill(writer: JournalWriter, run_id: int) -> int:
    """Commit generations until the disk is full; returns how many were."""
    for number in range(1000):
        try:
            await writer.commit_generation(generation(run_id, number, state=os.urandom(60_000)))
        except JournalFullError:
            return number
    raise AssertionError("the disk never filled up")


async def test_a_full_database_rolls_back_one_transaction_and_goes_on_once_there_is_room(path: Path) -> None:
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        await writer._transactions._connection.execute_fetchall("PRAGMA max_page_count = 200")
        count = await fill(writer, run_id)
        with JournalReader(path) as reader:
            assert reader.generation_count(run_id) == count
        with pytest.raises(JournalFullError, match=r"^no space left for .*: free some space, then start again"):
            await writer.commit_generation(generation(run_id, count, state=os.urandom(60_000)))
        await writer._transactions._connection.execute_fetchall("PRAGMA max_page_count = 4000")
        await writer.commit_generation(generation(run_id, count))
    assert verify(path).runs[0].generations == count + 1


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("a file system of its own needs root and mount")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


async def test_a_full_disk_is_told_apart_and_loses_no_committed_generation(tiny_disk: Path) -> None:
    path = tiny_disk / "journal.db"
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        count = await fill(writer, run_id)
        assert count > 0
        ballast.unlink()
        await writer.commit_generation(generation(run_id, count))
    assert verify(path).runs[0].generations == count + 1


async def test_another_process_that_holds_the_lock_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riwoa_storage.transactions.BUSY_TIMEOUT_S", 0.05)
    async with await JournalWriter.open(path, lock_patience_s=0.2) as writer:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalLockedError, match="stop that one"):
            await writer.put_evaluation(evaluation("a"))
        other.execute("ROLLBACK")
        other.close()
        await writer.put_evaluation(evaluation("a"))


async def test_a_lock_that_sqlite_does_not_wait_out_is_asked_for_now_and_then(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in a loop that keeps a core busy."""
    monkeypatch.setattr("riwoa_storage.transactions.BUSY_TIMEOUT_S", 0.0)
    async with await JournalWriter.open(path, lock_patience_s=0.5) as writer:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        tries: list[str] = []

        def counted(*arguments: Any) -> Any:
            tries.append("")
            return _transact(*arguments)

        monkeypatch.setattr("riwoa_storage.transactions._transact", counted)
        with pytest.raises(JournalLockedError):
            await writer.put_evaluation(evaluation("a"))
        assert 2 <= len(tries) <= 5
        other.execute("ROLLBACK")
        other.close()
        await writer.put_evaluation(evaluation("a"))


async def test_opening_waits_a_lock_out_without_spinning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Path] = []

    def locked(name: Path) -> None:
        tries.append(name)
        raise JournalLockedError("locked")

    monkeypatch.setattr("riwoa_storage.writer.migrate", locked)
    with pytest.raises(JournalLockedError):
        await JournalWriter.open(path, lock_patience_s=0.5)
    assert 2 <= len(tries) <= 5


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "missing" / "journal.db", "not a directory; create it first"),
        (tmp_path, "it is no file"),
    ):
        with pytest.raises(JournalUnwritableError, match=message):
            await JournalWriter.open(path)


async def test_a_file_system_that_refuses_wal_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("riwoa_storage.connect").connect.WRITER_PRAGMAS, "journal_mode", ("DELETE", "wal"))
    with pytest.raises(JournalUnwritableError, match="local disk"):
        await JournalWriter.open(path)
