"""What it brings that evaluation and generation run at the same time, on the workload of ``make run``.

Three ways through the same generations of the same search, each with fresh processes and a fresh journal:

- overlapped, as the daemon does it: one oracle worker and one language-model process, at one thread each;
- alternating: the same two, never both at work at the same time;
- alternating with all cores to whichever runs: as many oracle workers, and threads of the model, as there are cores.

Nothing can beat the bound (Te + Tm) / max(Te, Tm), where Te and Tm are the seconds of evaluation and of generation
while they alternate. The clock runs from the commit of the first generation, which draws at random and asks nothing of
the model, until the last one is committed and everything that it asked for is answered. No adapter is trained
meanwhile. The ways take turns, and every ratio is of one round.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from riwoa.bench.alternation import AlternatingBackend, AlternatingProvider, Alternation
from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.cognition.provider import ProposalProvider
from riwoa.config.loading import Loaded, load
from riwoa.config.reload import Reloader
from riwoa.config.schema import Config, as_json
from riwoa.errors import CognitionError, ModelError, RiwoaError
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.target import auto_target_ms
from riwoa.limits import whole_cores
from riwoa.oracle.pool import WorkerPool
from riwoa.oracle.supernet import supernet_spec
from riwoa.oracle.workers import pool_settings
from riwoa.run.conductor import Conductor, Hooks
from riwoa.run.evaluations import Evaluations
from riwoa.run.journal import RunJournal
from riwoa.run.model_side import LanguageModel
from riwoa.run.provision import provide
from riwoa.run.style import Style
from riwoa.run.task import SearchTask
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa_storage.reader import JournalReader
from riwoa_storage.writer import JournalWriter

Report = Callable[[int, int, str], None]  # done, total, what comes next
_PATIENCE_S = 3600.0  # a batch also waits for its turn


@dataclass(frozen=True, slots=True)
class Way:
    """How the two sides share the cores."""

    name: str
    alternate: bool
    workers: int
    threads: int  # of the language model


@dataclass(frozen=True, slots=True)
class Passed:
    """One way through the generations. ``both_s``: seconds in which both sides were at work."""

    seconds: float
    evaluation_s: float
    generation_s: float
    both_s: float
    evaluations: int
    requests: int
    unanswered: int
    tokens: int
    digest: str  # of the search: equal where the same was proposed and found


def ways(cores: int) -> tuple[Way, Way, Way]:
    """Overlapped, alternating, alternating with all cores."""
    return (
        Way("overlapped", False, 1, 1),
        Way("alternating", True, 1, 1),
        Way("alternating_all_cores", True, cores, cores),
    )


# The model is asked whatever it costs, in every generation.
_ASKED = ("cognition.train=false", "cognition.provider=model", "cognition.role=slot")


async def bench_overlap(
    table: LatencyTable,
    *,
    generations: int = 40,
    repeats: int = 3,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    progress: Report = lambda done, total, words: None,
) -> dict[str, Any]:
    """``ratio``: seconds alternating by seconds overlapped, the median over ``repeats`` rounds of other seeds.

    Args:
        table: latencies of this device.
        generations: how many are timed, after the first.
        repeats: rounds; each goes every way once, in another order.
        file: the daemon's configuration.
        overrides: ``KEY=VALUE`` each, on top of it.
        progress: called before each way of each round.

    Raises:
        ModelError: no language model is here; the message says how to get one.
        RiwoaError: the oracle or the model fails.
    """
    base = load(file, [*overrides, *_ASKED]).config
    model = (await _writer(base))[0].model  # says at once what is missing
    cores = whole_cores()
    rows = []
    for repeat in range(repeats):
        seed = base.run.seed + repeat
        passed = {}
        for i in range(3):
            way = ways(cores)[(repeat + i) % 3]
            progress(3 * repeat + i, 3 * repeats, way.name)
            loaded = load(file, [*overrides, *_settings(base, way, seed, generations)])
            passed[way.name] = await _pass(way, loaded, table, generations)
        rows.append(row(seed, passed))
    progress(3 * repeats, 3 * repeats, "")
    return summary(rows, {"generations": generations, "cores": cores, "model": model})


def _settings(base: Config, way: Way, seed: int, generations: int) -> list[str]:
    """What this way changes of the configuration; the schedule of the search stays, unless it is shorter."""
    return [
        f"run.seed={seed}",
        f"run.generations={max(base.run.generations, generations + 2)}",
        f"search.riwoa.first={base.search.offspring}",  # a generation's: what is drawn at random asks nothing
        f"oracle.workers={way.workers}",
        "oracle.threads=1",
        f"cognition.threads={way.threads}",
        *_ASKED,
    ]


async def _writer(config: Config) -> tuple[ProposalProvider, Style]:
    """The language model, as the daemon would find it for a new run, and how it writes.

    Raises:
        ModelError: there is none.
    """
    found = await provide(lambda: config.cognition, None, lambda _: None)
    if found.provider is None or found.spec is None:
        raise ModelError(f"there is nothing to overlap without a language model: {found.reason}")
    return found.provider, found.style


# -- one way -----------------------------------------------------------------------------------------------------------


async def _pass(way: Way, loaded: Loaded, table: LatencyTable, generations: int) -> Passed:
    """Go one way, in processes and a state directory of its own."""
    config = loaded.config
    alternation = Alternation(alternate=way.alternate)
    clock = _Clock(alternation, generations)
    async with AsyncExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-overlap-"))) / "journal.db"
        provider, style = await _writer(config)
        stack.push_async_callback(provider.close)
        pool = WorkerPool(supernet_spec(config.oracle), pool_settings(config.oracle))
        stack.push_async_callback(pool.close)
        oracle, _ = await asyncio.gather(pool.start(), provider.start())
        journal = await JournalWriter.open(path)
        stack.push_async_callback(journal.close)
        proposal_queue = ProposalQueue(
            AlternatingProvider(provider, alternation), journal, lag=config.cognition.lag, timeout_s=lambda: _PATIENCE_S
        )
        run_id = await journal.begin_run({"seed": config.run.seed}, as_json(config))
        conductor = Conductor(
            journal=RunJournal(journal, path, run_id),
            task=SearchTask(
                space=mobilenet_space(config.oracle.supernet.resolutions),
                latency_ms=lambda architecture: table.latency_ms(ofa_config(architecture)),
                auto_target_ms=auto_target_ms(table, config.oracle.supernet.resolutions),
                layer_ms=lambda architecture: table.layers_ms(ofa_config(architecture)),
            ),
            evaluations=Evaluations(
                AlternatingBackend(pool, alternation), journal, path, oracle.version, run_id=run_id
            ),
            reloader=Reloader(loaded, []),
            model=LanguageModel(proposal_queue, style),
            hooks=Hooks(on_commit=lambda: clock.committed(conductor)),
        )
        await _until_answered(conductor, proposal_queue, clock, path)
        return clock.passed(path, conductor.run_id)


async def _until_answered(conductor: Conductor, proposal_queue: ProposalQueue, clock: _Clock, path: Path) -> None:
    """Search until the clock has seen its generations and everything that they asked for is answered."""
    failure = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(proposal_queue.run(), name="proposals"),
                group.create_task(conductor.run(), name="search"),
            ]
            await clock.over.wait()
            with JournalReader(path) as reader:
                unanswered = reader.requests(conductor.run_id, unanswered=True)
            await proposal_queue.collect(r.request_id for r in unanswered)
            for task in tasks:
                task.cancel()
    except* RiwoaError as errors:
        failure = _first(errors)
    if failure is not None:  # raised in there, Python before 3.11.4 wraps it in a group of its own
        raise failure


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


class _Clock:
    """Seconds from the first commit to the last and the replies to it; the search then pauses."""

    def __init__(self, alternation: Alternation, generations: int) -> None:
        self.over = asyncio.Event()
        self._alternation = alternation
        self._generations = generations
        self._seen: list[tuple[float, float, float, float, int]] = []  # at each commit

    def committed(self, conductor: Conductor) -> None:
        """A generation is committed."""
        evaluations = conductor.history.counters["evaluations"]
        self._seen.append((time.monotonic(), *self._worked(), evaluations))
        if len(self._seen) == self._generations + 1:
            conductor.running.clear()
            self.over.set()

    def _worked(self) -> tuple[float, float, float]:
        alternation = self._alternation
        return alternation.busy_s("evaluation"), alternation.busy_s("generation"), alternation.both_s

    def passed(self, path: Path, run_id: int) -> Passed:
        """What the clock saw, once everything is answered."""
        start_s, *worked_s, evaluations = self._seen[0]
        end_s, *_, evaluations_at_end = self._seen[-1]
        evaluation_s, generation_s, both_s = (b - a for a, b in zip(worked_s, self._worked(), strict=True))
        with JournalReader(path) as reader:
            replies = reader.replies(run_id).values()
            return Passed(
                seconds=max(end_s, self._alternation.ended_s) - start_s,
                evaluation_s=evaluation_s,
                generation_s=generation_s,
                both_s=both_s,
                evaluations=evaluations_at_end - evaluations,
                requests=len(replies),
                unanswered=sum(r.status != "ok" for r in replies),
                tokens=sum(r.tokens for r in replies),
                digest=reader.digest_head(run_id),
            )


# -- what came of it ---------------------------------------------------------------------------------------------------


def row(seed: int, passed: Mapping[str, Passed]) -> dict[str, Any]:
    """One round: its ratios, and what they are made of.

    Raises:
        CognitionError: a request was left without a reply, so that the ways did not do the same.
    """
    unanswered = sum(p.unanswered for p in passed.values())
    if unanswered:
        raise CognitionError(
            f"the language model left {unanswered} requests without a reply; `riwoactl model check` shows why"
        )
    overlapped, alternating = passed["overlapped"], passed["alternating"]
    sides = alternating.evaluation_s, alternating.generation_s
    if min(sides) <= 0:
        raise CognitionError(
            "nothing was asked of the language model: there is nothing to overlap; set more generations"
        )
    bound = sum(sides) / max(sides)
    ratio = alternating.seconds / overlapped.seconds
    return {
        "seed": seed,
        "ratio": ratio,
        "bound": bound,
        "share_of_bound": ratio / bound,
        # Without the credit for what alternating spends on neither side (commits, messages).
        "share_of_longer_side": max(sides) / overlapped.seconds,
        "ratio_against_all_cores": passed["alternating_all_cores"].seconds / overlapped.seconds,
        "same_search": overlapped.digest == alternating.digest,
        "ways": {name: asdict(p) for name, p in passed.items()},
    }


def summary(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The result object: medians over the rounds, least and most of the share of the bound, and the rounds."""
    names = ("ratio", "bound", "share_of_bound", "share_of_longer_side", "ratio_against_all_cores")
    shares = [r["share_of_bound"] for r in rows]
    return {
        "bench": "overlap",
        **{name: statistics.median(r[name] for r in rows) for name in names},
        "share_of_bound_range": [min(shares), max(shares)],
        "same_search": all(r["same_search"] for r in rows),
        **facts,
        "rows": list(rows),
    }
