"""Measurements as children of a process without torch: one JSON object a line, and no orphan."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from riwoa.errors import OracleError
from riwoa.ipc.child import child_command, child_environment, error_from_json
from riwoa.parsing import parse_json_object
from riwoa.text import printable

_REPORT_EVERY_S = 0.25
_LAST_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a measurement is. ``left_s`` extrapolates from the rounds of this process."""

    done: int
    total: int
    left_s: float | None


ProgressCallback = Callable[[BuildProgress], None]


async def run_child(arguments: list[str], threads: int, progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Run ``python -m riwoa.hardware.build`` with these arguments; cancelling kills it.

    Raises:
        RiwoaError: what the child reports; OracleError when it dies.
    """
    process = await asyncio.create_subprocess_exec(
        *child_command("riwoa.hardware.build", "--child", *arguments),
        stdin=asyncio.subprocess.PIPE,  # held open: its end is how the child learns that we are gone
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,  # ours may be full, or nobody reads it: then a warning would stop the child
        env=child_environment(threads),
        start_new_session=True,
        limit=2**22,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    words = asyncio.create_task(_last_line(process.stderr), name="measurement-log")
    try:
        async for line in process.stdout:
            event = parse_json_object(line)
            if event["event"] == "progress" and progress is not None:
                progress(BuildProgress(event["done"], event["total"], event["left_s"]))
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
    raise OracleError(f"the latency measurement died with status {code}{why}; run it again, it continues where it was")


async def _last_line(stream: asyncio.StreamReader) -> str:
    """Read a stream to its end and return its last line, which in a traceback is the error."""
    rest = b""
    while chunk := await stream.read(4096):
        rest = (rest + chunk)[-4096:]
    return printable(rest.decode(errors="replace").strip().rpartition("\n")[2])


def throttled(progress: ProgressCallback | None) -> Callable[[int, int], None] | None:
    """A few reports a second, with the time left."""
    if progress is None:
        return None
    start_s, first, last_s = time.monotonic(), -1, 0.0

    def report(done: int, total: int) -> None:
        nonlocal first, last_s
        now_s = time.monotonic()
        first = done if first < 0 else first
        if done < total and now_s - last_s < _REPORT_EVERY_S:
            return
        last_s = now_s
        taken = done - first
        progress(BuildProgress(done, total, (now_s - start_s) / taken * (total - done) if taken else None))

    return report
