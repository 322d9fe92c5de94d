"""Measurements as children of a process without torch, and how far long work before a search is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from riwoa.ipc.job import run_job

_REPORT_EVERY_S = 0.25
_WORK = {
    "measuring": ("measuring the operators of this device", "round"),
    "training": ("training the supernet", "step"),
}


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a measurement of this device is, or a training. ``left_s`` extrapolates from this process's rounds."""

    done: int
    total: int  # 0 while nobody knows
    left_s: float | None
    work: Literal["measuring", "training"] = "measuring"
    words: str = ""

    def __str__(self) -> str:
        """The work in words: what, how far it is, and what there is to say of it."""
        (what, unit), words = _WORK[self.work], self.words
        if self.work == "measuring" and self.words:  # another of its steps than the usual one
            what, words = self.words, ""
        share = f": {unit} {self.done:,} of {self.total:,}" if self.total else ""
        return what + share + (f", {words}" if words else "")


ProgressCallback = Callable[[BuildProgress], None]


async def run_child(arguments: list[str], threads: int, progress: ProgressCallback | None = None) -> dict[str, Any]:
    """Run ``python -m riwoa.hardware.build`` with these arguments; cancelling kills it.

    Raises:
        RiwoaError: what the child reports; OracleError when it dies.
    """

    def tell(event: dict[str, Any]) -> None:
        if progress is not None:
            progress(BuildProgress(event["done"], event["total"], event["left_s"], words=event["words"]))

    return await run_job("riwoa.hardware.build", arguments, threads, "the latency measurement", tell)


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
