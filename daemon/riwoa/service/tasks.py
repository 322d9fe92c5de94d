"""Running asyncio tasks to a common end, and telling why they ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from riwoa.errors import RiwoaError
from riwoa_storage.errors import StorageError


class _Over(Exception):
    """Unwinds a task group whose work is over."""


async def stop_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended, however it ends."""
    task.cancel()
    await asyncio.wait((task,))


async def run_until(work: Callable[[asyncio.TaskGroup], Awaitable[None]], until: Coroutine[Any, Any, Any]) -> bool:
    """Run ``work`` in a task group of its own; False when ``until`` ended first and the work was cancelled.

    Raises:
        RiwoaError, StorageError, OSError: what the work, or a task that it started, failed for.
    """

    async def main(group: asyncio.TaskGroup) -> None:
        await work(group)

    finished, failure = False, None
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(main(group), name="work")
            other = group.create_task(until, name="until")
            await asyncio.wait((task, other), return_when=asyncio.FIRST_COMPLETED)
            finished = task.done()
            if finished:
                task.result()
            else:
                await stop_task(task)
            raise _Over
    except* _Over:
        pass
    except* (RiwoaError, StorageError, OSError) as errors:
        failure = first_error(errors)
    if failure is not None:  # raised in there, Python before 3.11.4 wraps it in a group of its own
        raise failure
    return finished


def first_error(error: BaseException) -> BaseException:
    """The first error of a group, however deep; any other error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
