"""Work that runs until something else ends first, the error that it fails for, and lines that would flood the log."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from riwoa.errors import OracleError
from riwoa.service import logs
from riwoa.service.logs import ChildLog
from riwoa.service.tasks import first_error, run_until, stop_task


async def forever() -> None:
    await asyncio.Event().wait()


async def test_work_that_ends_first_ends_what_it_started_and_what_it_was_to_run_until() -> None:
    started: list[asyncio.Task[Any]] = []

    async def work(group: asyncio.TaskGroup) -> None:
        started.append(group.create_task(forever()))
        await asyncio.sleep(0)

    assert await run_until(work, forever())
    assert started[0].cancelled()


async def test_work_is_cancelled_and_has_ended_when_the_other_ends_first() -> None:
    ended: list[str] = []

    async def work(group: asyncio.TaskGroup) -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.01)
            ended.append("in order")

    assert not await run_until(work, asyncio.sleep(0))
    assert ended == ["in order"]


@pytest.mark.parametrize("beside", [True, False])
async def test_what_the_work_or_a_task_beside_it_fails_for_is_raised_bare(beside: bool) -> None:
    async def fail() -> None:
        raise OracleError("no worker starts")

    async def work(group: asyncio.TaskGroup) -> None:
        await (group.create_task(fail()) if beside else fail())

    with pytest.raises(OracleError, match="no worker starts"):
        await run_until(work, forever())


async def test_a_bug_is_not_taken_for_an_error_of_ours() -> None:
    async def work(group: asyncio.TaskGroup) -> None:
        raise KeyError("odd")

    with pytest.raises(ExceptionGroup) as caught:
        await run_until(work, forever())
    assert isinstance(first_error(caught.value), KeyError)


async def test_a_stopped_task_has_ended_even_if_it_fails_on_the_way() -> None:
    async def stubborn() -> None:
        try:
            await forever()
        finally:
            raise OSError("on the way")

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await stop_task(task)
    assert isinstance(task.exception(), OSError)


def test_a_child_that_floods_fills_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    written: list[str] = []
    dropped: list[int] = []
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(logs._log, "warning", lambda event, count: dropped.append(count), raising=False)
    log = ChildLog(most_a_minute=2)
    for _ in range(5):
        log.say(lambda event, line: written.append(line), "worker_said", line="x")
    assert (len(written), dropped) == (2, [])
    now_s = 61.0
    log.say(lambda event, line: written.append(line), "worker_said", line="x")
    assert (len(written), dropped) == (3, [3])
