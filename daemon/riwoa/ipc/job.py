"""Long work as a child of a process without torch: one JSON object a line, and no orphan."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from riwoa.errors import OracleError, RiwoaError
from riwoa.ipc.child import child_command, child_environment, error_from_json, error_to_json
from riwoa.parsing import parse_json_object
from riwoa.text import printable
from riwoa_storage.errors import StorageError

_LAST_WORDS_S = 1.0
_LEAVING_S = 5.0  # for a job that is cancelled to save what it has
Order = Literal["leave", "finish"]  # save your state and go; end with what you have


# Of ``run_job``'s first five arguments: whoever runs a job may pause it meanwhile.
RunJob = Callable[[str, list[str], int, str, Callable[[dict[str, Any]], None]], Awaitable[dict[str, Any]]]


class JobLeftError(Exception):
    """A job has left, as it was ordered to: its state is saved, and run again it continues."""


class JobOrders:
    """Tells a job what it is to do, also one that is still to be started."""

    def __init__(self) -> None:
        self._given: list[Order] = []
        self._stdin: asyncio.StreamWriter | None = None

    def give(self, order: Order) -> None:
        """Give an order; a job that is over takes none."""
        self._given.append(order)
        self._send(order)

    def attach(self, stdin: asyncio.StreamWriter) -> None:
        """Give those so far to the process that has been started."""
        self._stdin = stdin
        for order in self._given:
            self._send(order)

    def _send(self, order: Order) -> None:
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(order.encode() + b"\n")


async def run_job(
    module: str,
    arguments: list[str],
    threads: int,
    what: str,
    on_progress: Callable[[dict[str, Any]], None],
    orders: JobOrders | None = None,
) -> dict[str, Any]:
    """Run ``python -m module --child ...`` to its result; cancelling kills it, after a moment where it takes orders.

    Its lines are objects with an ``event``: "progress", told to ``on_progress``; at last "done" with a ``result``,
    "error", or "left".

    Args:
        module: to run.
        arguments: of its command line.
        threads: that its numeric libraries are held to.
        what: it does, for messages.
        on_progress: told of each report.
        orders: that the job takes on its standard input; None: it takes none.

    Raises:
        JobLeftError: it was ordered to leave, and has.
        RiwoaError: what the child reports; OracleError when it dies.
    """
    process = await asyncio.create_subprocess_exec(
        *child_command(module, "--child", *arguments),
        stdin=asyncio.subprocess.PIPE,  # held open: its end is how the child learns that we are gone
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,  # ours may be full, or nobody reads it: then a warning would stop the child
        env=child_environment(threads),
        start_new_session=True,
        limit=2**22,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    words = asyncio.create_task(_last_line(process.stderr), name="job-log")
    if orders is not None and process.stdin is not None:
        orders.attach(process.stdin)
    try:
        result = await _result(process.stdout, on_progress)
        if result is not None:
            return result
        code = await process.wait()
    except asyncio.CancelledError:
        if orders is not None:
            orders.give("leave")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _LEAVING_S)
        raise
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.wait({words}, timeout=_LAST_WORDS_S)
        words.cancel()
    why = f" ({words.result()})" if words.done() and not words.cancelled() and words.result() else ""
    raise OracleError(f"{what} died with status {code}{why}; run it again, it continues where it was")


async def _result(events: asyncio.StreamReader, on_progress: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """Read a job's events to its result; None where they end without one.

    Raises:
        JobLeftError, RiwoaError: as ``run_job``.
    """
    async for line in events:
        event = parse_json_object(line)
        if event["event"] == "progress":
            on_progress(event)
        elif event["event"] == "error":
            raise error_from_json(event)
        elif event["event"] == "left":
            raise JobLeftError
        elif event["event"] == "done":
            return dict(event["result"])
    return None


async def _last_line(stream: asyncio.StreamReader) -> str:
    """Read a stream to its end and return its last line, which in a traceback is the error."""
    rest = b""
    while chunk := await stream.read(4096):
        rest = (rest + chunk)[-4096:]
    return printable(rest.decode(errors="replace").strip().rpartition("\n")[2])


# -- in the child ----------------------------------------------------------------------------------------------------


class Orders:
    """What the parent has ordered so far: a thread that reads standard input takes it, the work asks between steps."""

    def __init__(self) -> None:
        self.leave = False
        self.finish = False

    def take(self, line: bytes) -> None:
        """Take a line that ``JobOrders`` wrote."""
        self.leave = self.leave or line == b"leave\n"
        self.finish = self.finish or line == b"finish\n"


def answer(work: Callable[[], Mapping[str, Any]]) -> int:
    """Do the work, print its result or its error as ``run_job`` reads them, and return the exit code."""
    try:
        result = work()
    except JobLeftError:
        report("left")
        return 0
    except (RiwoaError, StorageError) as error:
        report("error", **error_to_json(error))
        return error.exit_code
    report("done", result=dict(result))
    return 0


def report(event: str, **fields: Any) -> None:
    """Print one event as ``run_job`` reads it."""
    print(json.dumps({"event": event, **fields}), flush=True)
