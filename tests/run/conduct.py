"""Runs a conductor on a real journal and a real worker process with a cheap landscape."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from riwoa.cognition.adapters import AdapterFiles, journaled
from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.cognition.provider import ProposalProvider, ScriptedProvider
from riwoa.config.loading import load
from riwoa.config.reload import Reloader
from riwoa.config.schema import as_json
from riwoa.oracle.pool import PoolSettings, WorkerPool
from riwoa.oracle.protocol import ModuleSpec
from riwoa.run.conductor import Conductor, Hooks
from riwoa.run.evaluations import Evaluations
from riwoa.run.journal import RunJournal
from riwoa.run.model_side import LanguageModel
from riwoa.run.task import SearchTask
from riwoa.supernet.space import mobilenet_space
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, IndividualRecord
from riwoa_storage.writer import JournalWriter

SPACE = mobilenet_space((24, 32, 40))
# The search by slots asks the model from the second generation on, whatever its oracle answers.
SMALL = (
    "search.riwoa.joint=false",
    "search.population=6",
    "run.generations=4",
    "run.polish_evaluations=10",
    "oracle.workers=1",
    "cognition.provider=none",
    "cognition.role=slot",
    "cognition.lag=0",
    "cognition.train_lag=2",
)
# The search as it is by default: candidates chosen jointly, from the third generation on.
JOINT = ("search.riwoa.joint=true", "search.offspring=6", "search.riwoa.first=12")


class StopHere(Exception):
    """Ends a run after a commit, as a kill would."""


def latency_ms(architecture: Mapping[str, Any]) -> float:
    sizes = sum(v for k, v in architecture.items() if k != "resolution")
    return float(sizes * architecture["resolution"] / 1000)


async def conduct(
    path: Path,
    *settings: str,
    target_ms: float = 4.5,
    stop_after: int | None = None,
    provider: ProposalProvider | None = None,
    trainer: Callable[[], ProposalProvider | None] = lambda: None,
    oracle: Mapping[str, Any] | None = None,
    reloader: Reloader | None = None,
    at_commit: Any = None,
    before_commit: Any = None,
    on_result: Any = lambda: None,
    now_unix_s: Callable[[], float] = time.time,
) -> str:
    """Run to the end (or to ``stop_after`` commits) and return the digest; continues the run in the journal.

    ``before_commit(record)`` and ``at_commit(conductor)`` may raise ``StopHere``.
    """
    loaded = load(None, [*SMALL, *settings], {})
    reloader = reloader or Reloader(loaded, [])
    spec = ModuleSpec(factory="landscape_oracle:landscape", arguments=oracle or {})
    commits = 0

    def on_commit() -> None:
        nonlocal commits
        commits += 1
        if at_commit is not None:
            at_commit(conductor)
        if commits == stop_after:
            raise StopHere

    async with JournalWriter_open(path) as journal, _workers(spec) as pool:
        if before_commit is not None:
            _watch_commits(journal, before_commit)
        with JournalReader(path) as reader:
            run = reader.latest_run()
        run_id = run.run_id if run else await journal.begin_run({"seed": 0}, as_json(reloader.config))
        proposal_queue = None
        if reloader.config.cognition.provider == "scripted":
            cognition = reloader.config.cognition
            answering = provider or ScriptedProvider(cognition.script)
            proposal_queue = ProposalQueue(
                answering,
                journal,
                lag=cognition.lag,
                timeout_s=lambda: cognition.timeout_s,
                train_timeout_s=lambda: cognition.train_timeout_s,
                adapters=AdapterFiles(path.parent / f"{path.stem}.adapters", journaled(path)),
                trainer=trainer if cognition.train_beside else None,
            )
        conductor = Conductor(
            journal=RunJournal(journal, path, run_id),
            task=SearchTask(SPACE, latency_ms, target_ms),
            evaluations=Evaluations(pool, journal, path, "landscape-1", on_result, run_id=run_id),
            reloader=reloader,
            model=LanguageModel(proposal_queue) if proposal_queue else None,
            hooks=Hooks(on_commit=on_commit),
            now_unix_s=now_unix_s,
        )
        answerer = asyncio.create_task(proposal_queue.run()) if proposal_queue else None
        try:
            await conductor.run()
        except StopHere:
            pass
        finally:
            if answerer is not None:
                answerer.cancel()
    with JournalReader(path) as reader:
        return reader.digest_head(run_id)


def gain_over_parent(child: IndividualRecord, everybody: Mapping[tuple[int, int], IndividualRecord]) -> float:
    """Fitness of an evaluated child less that of its parent, which is among ``everybody`` by (generation, slot)."""
    assert child.parent is not None
    parent = everybody[child.parent]
    assert child.fitness is not None
    assert parent.fitness is not None
    return child.fitness - parent.fitness


def _watch_commits(journal: JournalWriter, before_commit: Any) -> None:
    commit = journal.commit_generation

    async def watched(g: GenerationRecord, **more: Any) -> str:
        before_commit(g)
        return await commit(g, **more)

    journal.commit_generation = watched  # type: ignore[method-assign]


# By event loop and oracle: a life that is killed in its conductor costs its successor no start of a worker. A loop that
# ends cancels what is left in it, and a pool so cancelled stops its workers.
_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, WorkerPool]] = WeakKeyDictionary()


@asynccontextmanager
async def _workers(spec: ModuleSpec) -> AsyncIterator[WorkerPool]:
    """The workers of this test: those of the life before, unless they were left with work, or failed."""
    pools, key = _pools.setdefault(asyncio.get_running_loop(), {}), repr(spec)
    pool = pools.pop(key, None) or WorkerPool(spec, PoolSettings(workers=1, backoff_s=0.01, poll_s=0.05))
    try:
        await pool.start()
        yield pool
    except BaseException:
        await pool.close()
        raise
    stats = pool.stats()
    if stats.queued or any(worker.state != "idle" for worker in stats.workers):
        await pool.close()
    else:
        pools[key] = pool


class JournalWriter_open:
    """``JournalWriter.open`` as a context."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> JournalWriter:
        self._writer = await JournalWriter.open(self._path)
        return self._writer

    async def __aexit__(self, *_: object) -> None:
        await self._writer.close()
