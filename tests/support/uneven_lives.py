"""Lives of a search whose candidates take uneven time, each killed at a failpoint until one gets through.

``python uneven_lives.py JOURNAL FAILPOINT SETTING...``: one interpreter, which forks each life, so that none costs
imports.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.cognition.provider import ScriptedProvider
from riwoa.config.loading import load
from riwoa.config.reload import Reloader
from riwoa.config.schema import as_json
from riwoa.oracle.protocol import EvaluationResult
from riwoa.run.conductor import Conductor
from riwoa.run.evaluations import EvaluationRound, Evaluations
from riwoa.run.journal import RunJournal
from riwoa.run.model_side import LanguageModel
from riwoa.run.task import SearchTask
from riwoa.search.space import Gene, Space
from riwoa_storage import failpoint
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord
from riwoa_storage.writer import JournalWriter

SPACE = Space("uneven", tuple(Gene(f"g{n}", tuple(range(6))) for n in range(6)))
SETTINGS = (
    "search.asynchronous=true",
    "search.offspring=3",
    "search.riwoa.first=5",
    "run.generations=4",
    "run.polish_evaluations=2",
    "cognition.provider=none",
)
LIVES = 40


def share(architecture: Mapping[str, Any], salt: str = "") -> float:
    """In [0, 1), by the architecture."""
    text = repr(sorted(architecture.items())) + salt
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


class UnevenBackend:
    """Workers that take some milliseconds, by the architecture; one in twelve fails.

    Args:
        workers: of them.
        patience: evaluations after which the first ends, which takes as long as these.
    """

    def __init__(self, workers: int = 3, patience: int = 0) -> None:
        self.evaluated: list[str] = []
        self._free = asyncio.Semaphore(workers)
        self._asked = 0
        self._patience = patience

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None, *, judging: bool = False
    ) -> asyncio.Future[EvaluationResult]:
        """Begin an evaluation."""
        return asyncio.ensure_future(self._evaluate(job_id, architecture))

    async def _evaluate(self, job_id: str, architecture: Mapping[str, Any]) -> EvaluationResult:
        self._asked += 1
        is_first = self._asked == 1
        async with self._free:
            await asyncio.sleep(0.02 * share(architecture, "time") ** 2)
            while is_first and len(self.evaluated) < self._patience:
                await asyncio.sleep(0.001)
        self.evaluated.append(job_id)
        if share(architecture, "fails") < 1 / 12:
            return EvaluationResult(job_id, "failed", {}, "as it was told to", 1, 0.0)
        accuracy = sum(architecture.values()) / 40 + 0.1 * share(architecture)
        return EvaluationResult(job_id, "ok", {"accuracy": accuracy}, None, 1, 0.0)


Watch = Callable[[Conductor], None]


async def live(
    path: Path, *settings: str, backend: UnevenBackend | None = None, watch: Watch = lambda conductor: None
) -> str:
    """One life of the run in a journal, to its end; its digest."""
    reloader = Reloader(load(None, [*SETTINGS, *settings], {}), [])
    journal = await JournalWriter.open(path)
    try:
        with JournalReader(path) as reader:
            run = reader.latest_run()
        run_id = run.run_id if run else await journal.begin_run({"seed": 0}, as_json(reloader.config))
        evaluations = Evaluations(backend or UnevenBackend(), journal, path, "uneven", run_id=run_id)  # type: ignore[arg-type]
        task = SearchTask(SPACE, lambda architecture: 1.0 + architecture["g0"], 4.0)
        cognition = reloader.config.cognition
        queue = ProposalQueue(
            ScriptedProvider("mixed"),
            journal,
            lag=cognition.lag,
            timeout_s=lambda: 60.0,
            train_timeout_s=lambda: 60.0,
        )
        conductor = Conductor(
            journal=RunJournal(journal, path, run_id),
            task=task,
            evaluations=evaluations,
            reloader=reloader,
            model=LanguageModel(queue) if cognition.provider == "scripted" else None,
        )
        watch(conductor)
        answers = asyncio.create_task(queue.run())
        await conductor.run()
        answers.cancel()
    finally:
        await journal.close()
    with JournalReader(path) as reader:
        return reader.digest_head(run_id)


def replayed(recorded: Mapping[int, GenerationRecord]) -> Watch:
    """Have candidates arrive as they did in generations that were recorded, whenever they really do."""

    def watch(conductor: Conductor) -> None:
        class Replay(EvaluationRound):
            async def arrived(self, keys: Iterable[str], needed: Iterable[str] = ()) -> set[str]:
                wanted = set(keys)
                told = {i.architecture_key for i in recorded[conductor.generation].individuals}
                assert told <= wanted, "it asked for others"
                await asyncio.gather(*(task for key, task in self._tasks.items() if key in told))
                self.settle()
                return told

        conductor._under_way.work.__class__ = Replay

    return watch


def main(path: Path, where: str, *settings: str) -> None:
    """Fork lives until one ends in peace."""
    name, _, nth = where.partition(":")
    for life in range(LIVES):
        child = os.fork()
        if not child:
            failpoint._wanted, failpoint._left = name, int(nth) + life // 4
            asyncio.run(live(path, *settings))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            print(life)
            return
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"a life ended with {status}"
    raise SystemExit("no life got through")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
