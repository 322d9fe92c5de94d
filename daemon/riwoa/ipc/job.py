"""Long work as a child of a process without torch: one JSON object a line, and no orphan."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from riwoa.errors import OracleError, RiwoaError
from riwoa.ipc.child import child_command, child_environment, error_from_json, error_to_json
from riwoa.parsing import parse_json_object
from riwoa.text import printable
from riwoa_storage.errors import StorageError

_LAST_WORDS_S = 1.0


async def run_job(
    module: str, arguments: list[str], threads: int, what: str, on_progress: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Run ``python -m module --child ...`` to its result; cancelling kills it.

    Its lines are objects with an ``event``: "progress", told to ``on_progress``; at last "done" with a ``result``, or
    "error".

    Args:
        module: to run.
        arguments: of its command line.
        threads: that its numeric libraries are held to.
        what: it does, for messages.
        on_progress: told of each report.

    Raises:
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
    try:
        async for line in process.stdout:
            event = parse_json_object(line)
            if event["event"] == "progress":
                on_progress(event)
            elif event["event"] == "error":
                raise error_from_json(event)
            elif event["event"] == "done":
                return dict(event["result"])
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.wait({words}, timeout=_LAST_WORDS_S)
        words.cancel()
    why = f" ({words.result()})" if words.done() and not words.cancelled() and words.result() else ""
    raise OracleError(f"{what} died with status {code}{why}; run it again, it continues where it was")


async def _last_line(stream: asyncio.StreamReader) -> str:
    """Read a stream to its end and return its last line, which in a traceback is the error."""
    rest = b""
    while chunk := await stream.read(4096):
        rest = (rest + chunk)[-4096:]
    return printable(rest.decode(errors="replace").strip().rpartition("\n")[2])


# -- in the child ----------------------------------------------------------------------------------------------------


def answer(work: Callable[[], Mapping[str, Any]]) -> int:
    """Do the work, print its result or its error as ``run_job`` reads them, and return the exit code."""
    try:
        result = work()
    except (RiwoaError, StorageError) as error:
        report("error", **error_to_json(error))
        return error.exit_code
    report("done", result=dict(result))
    return 0


def report(event: str, **fields: Any) -> None:
    """Print one event as ``run_job`` reads it."""
    print(json.dumps({"event": event, **fields}), flush=True)
