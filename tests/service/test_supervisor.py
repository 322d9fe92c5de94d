"""What ends a session, and what comes after it: another attempt, an error, or the end of the run."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from riwoa.config.schema import as_json
from riwoa.errors import ConfigError, OracleError
from riwoa.patience import Backoff
from riwoa.service.parts import DaemonParts
from riwoa.service.state import DaemonState
from riwoa.service.supervisor import Supervisor
from riwoa_storage.errors import JournalFullError
from riwoa_storage.events import DeadlineReached
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import PROVENANCE, generation

from .support import daemon_parts

Outcome = Exception | Callable[[], None] | None


class Attempt:
    """A session that ends as it is told to; asked to wait, it waits until it is cancelled."""

    def __init__(self, outcome: Outcome, begins: bool) -> None:
        self.has_begun = False
        self._outcome = outcome
        self._begins = begins

    async def run(self, group: asyncio.TaskGroup) -> None:
        self.has_begun = self._begins
        if isinstance(self._outcome, Exception):
            raise self._outcome
        if self._outcome is not None:
            self._outcome()
            await asyncio.Event().wait()


class Attempts:
    """Sessions, one for each outcome; ``asked`` holds what each was told of a new run."""

    def __init__(self, *outcomes: Outcome, begins: bool = True) -> None:
        self.asked: list[bool] = []
        self._outcomes = list(outcomes)
        self._begins = begins

    def __call__(self, new_run: bool) -> Attempt:
        self.asked.append(new_run)
        return Attempt(self._outcomes.pop(0), self._begins)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[JournalWriter]:
    async with await JournalWriter.open(tmp_path / "journal.db") as writer:
        yield writer


@pytest.fixture
def parts(tmp_path: Path) -> DaemonParts:
    return daemon_parts(tmp_path, "governor.retry_s=0.01")


def test_each_failure_in_a_row_doubles_the_wait_up_to_a_limit_and_one_that_lasted_begins_anew() -> None:
    backoff = Backoff()
    assert [backoff.wait_s(1.0, 30.0) for _ in range(8)] == [30, 60, 120, 240, 480, 960, 960, 960]
    assert backoff.wait_s(961.0, 30.0) == 30
    assert [backoff.wait_s(1.0, 30.0) for _ in range(2)] == [30, 60]
    backoff.reset()
    assert backoff.wait_s(1.0, 30.0) == 30


async def test_what_may_mend_is_tried_again_and_shown_meanwhile(parts: DaemonParts, journal: JournalWriter) -> None:
    shown: list[DaemonState] = []
    change = parts.board.change

    def noted(step: Callable[[DaemonState], DaemonState]) -> DaemonState:
        shown.append(change(step))
        return shown[-1]

    parts.board.change = noted  # type: ignore[method-assign]
    attempts = Attempts(OracleError("no worker starts"), JournalFullError("no space left"), None)
    await Supervisor(parts, journal, attempts, new_run=False).run()
    assert len(attempts.asked) == 3
    assert [s.message for s in shown if s.state == "unhealthy"] == [
        "no worker starts (tried again every 0 s)",
        "no space left (tried again every 0 s)",
    ]
    assert shown[-1] == DaemonState("starting")


@pytest.mark.parametrize(
    ("error", "foreground"), [(ConfigError("no such key"), False), (OracleError("no worker starts"), True)]
)
async def test_what_waiting_would_not_mend_or_somebody_looks_on_at_ends_it(
    error: Exception, foreground: bool, tmp_path: Path, journal: JournalWriter
) -> None:
    attempts = Attempts(error)
    supervisor = Supervisor(daemon_parts(tmp_path, foreground=foreground), journal, attempts, new_run=False)
    with pytest.raises(type(error)):
        await supervisor.run()


@pytest.mark.parametrize("begins", [True, False])
async def test_a_new_run_is_asked_for_until_it_has_begun(
    begins: bool, parts: DaemonParts, journal: JournalWriter
) -> None:
    attempts = Attempts(OracleError("killed"), None, begins=begins)
    await Supervisor(parts, journal, attempts, new_run=True).run()
    assert attempts.asked == [True, not begins]


async def test_a_session_whose_memory_is_wanted_ends_and_another_begins_when_it_may(
    parts: DaemonParts, journal: JournalWriter
) -> None:
    governor = parts.pauses.governor

    def hold(*, held: bool) -> None:
        governor.holds = {"memory": "3 MiB of memory left"} if held else {}
        governor._changed.set()
        parts.pauses.apply()

    attempts = Attempts(lambda: hold(held=True), None)
    supervising = asyncio.create_task(Supervisor(parts, journal, attempts, new_run=False).run())
    async with asyncio.timeout(10):
        while parts.board.shown != DaemonState("paused", "3 MiB of memory left"):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(attempts.asked) == 1
        hold(held=False)
        await supervising
    assert len(attempts.asked) == 2


# -- runs that end, or have ended, without a search ----------------------------------------------------------------


async def begin(journal: JournalWriter, parts: DaemonParts) -> int:
    """An unfinished run of two generations."""
    run_id = await journal.begin_run(PROVENANCE, as_json(parts.config))
    leader = {
        "generation": 0, "slot": 0, "fitness": 0.5, "feasible": True, "target_ms": 2.0, "architecture_key": "k0-0",
        "metrics": {"accuracy": 0.5, "latency_ms": 1.5},
    }  # fmt: skip
    for number in range(2):
        record: GenerationRecord = generation(run_id, number)
        counters = {"evaluations": 3 * (number + 1), "cache_hits": 0, "failures": 0}
        await journal.commit_generation(replace(record, leader=leader, counters=counters, committed_unix_s=time.time()))
    return run_id


async def test_a_run_past_its_deadline_is_ended_from_the_journal_without_a_session(
    tmp_path: Path, journal: JournalWriter
) -> None:
    parts = daemon_parts(tmp_path, "run.deadline=2020-01-01T07:00")
    run_id = await begin(journal, parts)
    attempts = Attempts()
    await Supervisor(parts, journal, attempts, new_run=False).run()
    assert not attempts.asked
    assert parts.board.shown == DaemonState("finished", "run 1 is finished; --new-run starts another")
    assert parts.board.look()["run"]["generation"] == 2  # type: ignore[index]
    with JournalReader(parts.paths.journal) as reader:
        (run,) = reader.runs()
        (event,) = reader.events(run_id, DeadlineReached)
    assert run.status == "finished"
    assert (event.deadline, event.phase) == ("2020-01-01T07:00", "not searching")


@pytest.mark.parametrize(
    ("renew_in_s", "new_run", "sessions"), [(0.0, False, 0), (-3600.0, False, 0), (3600.0, False, 1), (0.0, True, 1)]
)
async def test_a_finished_run_is_followed_by_another_on_request_or_in_another_night(
    renew_in_s: float, new_run: bool, sessions: int, parts: DaemonParts, journal: JournalWriter
) -> None:
    await journal.finish_run(await begin(journal, parts))
    renew_before_unix_s = time.time() + renew_in_s if renew_in_s else 0.0
    attempts = Attempts(None)
    await Supervisor(parts, journal, attempts, new_run=new_run, renew_before_unix_s=renew_before_unix_s).run()
    assert len(attempts.asked) == sessions
    assert parts.board.shown.state == ("starting" if sessions else "finished")
    assert json.dumps(parts.board.look())


async def test_what_could_not_be_exported_is_what_the_finished_run_says(tmp_path: Path, journal: JournalWriter) -> None:
    parts = daemon_parts(tmp_path, "run.export=true")
    await journal.finish_run(await begin(journal, parts))  # its architectures are of no space that could be exported
    await Supervisor(parts, journal, Attempts(), new_run=False).run()
    assert parts.board.shown.state == "finished"
    assert parts.board.shown.message.startswith("not exported: ")
    assert parts.board.shown.message.endswith("; `riwoactl export` tries again")
