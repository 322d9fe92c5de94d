"""Whole searches as the daemon makes them, conductor and journal included, with somebody who proposes beside.

- ``riwoa-none``: nobody; the control.
- ``riwoa-semantic``: the language model of this machine, asked and trained as in a run.
- ``riwoa-base``: the same, never trained.
- ``riwoa-second``: the same, and learning, after a search with another seed whose best adapter it inherits; what that
  evaluated it does not know.
- ``riwoa-placebo``: in its place patches drawn uniformly from what is offered, of one to four genes.
- ``riwoa-pairs``: in its place random changes of two genes.
- ``riwoa-greedy``: in its place the changes on offer that leave least of the limit unused; while none comes within it,
  those that save most. A block that a change adds counts as the smallest.

All writers go the same way: a request a generation with the same offer, as many patches in the reply, which join the
pool as many generations later. So a difference is one of what is written, and not of how many candidates there are.
Time is that of processors, the model's process included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pydantic import BaseModel

from riwoa.bench.arena import POPULATION, Arena, SearchOver
from riwoa.bench.landscape import Landscape
from riwoa.cognition.adapters import AdapterFiles, journaled
from riwoa.cognition.proposal_queue import ProposalQueue
from riwoa.cognition.protocol import Sample
from riwoa.cognition.provider import ProposalProvider, ScriptedProvider
from riwoa.cognition.samples import packed, samples_wanted
from riwoa.cognition.spelling import in_json
from riwoa.config.loading import Loaded, load
from riwoa.config.reload import Reloader
from riwoa.config.schema import Cognition, Config, Search, as_json
from riwoa.errors import CognitionError, ModelError, UsageError
from riwoa.oracle.protocol import BackendStats, EvaluationResult, OracleInfo
from riwoa.run.conductor import Conductor
from riwoa.run.evaluations import Evaluations
from riwoa.run.greedy import GreedyRule
from riwoa.run.inheritance import heritage_of
from riwoa.run.journal import RunJournal
from riwoa.run.model_side import LanguageModel
from riwoa.run.offers import Offered, placebo_patch
from riwoa.run.provision import provide
from riwoa.run.strategy import search_parameters
from riwoa.run.style import Style, lag_of, style_of
from riwoa.run.task import SearchTask
from riwoa.search.riwoa import RiwoaParameters
from riwoa.search.rng import generator
from riwoa.search.space import Choice
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import ReplyRecord, RequestRecord
from riwoa_storage.writer import JournalWriter

NONE, SEMANTIC, BASE, SECOND = "-none", "-semantic", "-base", "-second"
PLACEBO, PAIRS, GREEDY = "-placebo", "-pairs", "-greedy"
WRITERS = (NONE, SEMANTIC, BASE, SECOND, PLACEBO, PAIRS, GREEDY)
_MODELS = (SEMANTIC, BASE, SECOND)
_EARLIER = 10_000  # beyond its seed that of the search before
_MOST_DRAWS = 20  # of a patch that is to be different from those before

_SETTINGS: Mapping[str, type[BaseModel]] = {"search": Search, "cognition": Cognition}

Patch = Mapping[str, Choice]
LayerMs = Callable[[Mapping[str, Any]], Mapping[str, float]]
Rule = Callable[[RequestRecord, int], Sequence[Patch]]  # so many different patches at most


class ArenaBackend:
    """An ``EvaluationBackend`` that queries an arena; what is asked once the search is over is never answered.

    Attributes:
        over: set when that is asked.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.over = asyncio.Event()

    async def start(self) -> OracleInfo:
        """See ``EvaluationBackend``."""
        return OracleInfo(version="arena", threads=1, load_s=0.0)

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None
    ) -> asyncio.Future[EvaluationResult]:
        """See ``EvaluationBackend``."""
        future: asyncio.Future[EvaluationResult] = asyncio.get_running_loop().create_future()
        try:  # here and now: the order of queries is that of submissions
            value = self._arena.query(self._arena.space.indices(architecture)).value / 100.0
        except SearchOver:
            self.over.set()
            return future
        ok = not math.isnan(value)
        metrics = {"accuracy": value} if ok else {}
        future.set_result(EvaluationResult(job_id, "ok" if ok else "failed", metrics, None if ok else "no value", 1, 0))
        return future

    def cancel(self, job_id: str) -> bool:
        """See ``EvaluationBackend``."""
        return False

    def stats(self) -> BackendStats:
        """See ``EvaluationBackend``."""
        raise NotImplementedError("nobody looks at the workers of an arena")

    async def close(self) -> None:
        """See ``EvaluationBackend``."""


class RuleProvider(ScriptedProvider):
    """Answers by a rule, and does not learn."""

    def __init__(self, rule: Rule) -> None:
        super().__init__("good")
        self._rule = rule

    async def generate(self, batch: Sequence[RequestRecord]) -> list[ReplyRecord]:
        """See ``ProposalProvider.generate``."""
        return [
            ReplyRecord(
                request_id=request.request_id,
                status="ok",
                text=packed(Sample(in_json(patch)) for patch in self._rule(request, samples_wanted(request) or 1)),
                reason=None,
                tokens=1,
                duration_s=0.0,
                created_unix_s=time.time(),
            )
            for request in batch
        ]


def placebo(request: RequestRecord, count: int) -> Sequence[Patch]:
    """Uniform draws from what is offered."""
    return _drawn(request, count, lambda offered, draw: placebo_patch(offered, request.parameters["most_genes"], draw))


def pairs(request: RequestRecord, count: int) -> Sequence[Patch]:
    """Random changes of two genes."""

    def pair(offered: Offered, draw: np.random.Generator) -> Patch:
        genes = [list(offered)[i] for i in draw.choice(len(offered), min(2, len(offered)), replace=False)]
        return {gene: offered[gene][int(draw.integers(len(offered[gene])))] for gene in genes}

    return _drawn(request, count, pair)


def _drawn(
    request: RequestRecord, count: int, draw_patch: Callable[[Offered, np.random.Generator], Patch]
) -> Sequence[Patch]:
    """As many different draws as are to be had."""
    offered, draw = request.parameters["choices"], generator(request.seed, 0, "bench.placebo")
    found: dict[str, Patch] = {}
    for _ in range(_MOST_DRAWS * count):
        patch = draw_patch(offered, draw)
        found.setdefault(in_json(dict(sorted(patch.items()))), patch)
        if len(found) == count:
            break
    return list(found.values())


def greedy(landscape: Landscape) -> Rule:
    """The rule by which a run judges its model, too (``riwoa.run.greedy``).

    Raises:
        UsageError: there is no limit.
    """
    space, limit = landscape.space, landscape.aim.limit
    if limit is None:
        raise UsageError(f"--strategies: riwoa{GREEDY} spends what a limit leaves; name a --constraint or a target")
    return GreedyRule(space, lambda a: landscape.free_load(space.indices(a)) or 0.0, lambda: limit).patches


@dataclass(frozen=True, slots=True)
class Whole:
    """What a whole search came to, beside what it found.

    Attributes:
        generations: that it took.
        joined: different patches that the search could choose from.
        picked: networks of these that it evaluated, as written or what they led to.
        trainings: whose adapter was accepted.
    """

    generations: int
    joined: int
    picked: int
    trainings: int


def processors_s() -> float:
    """Processor time of this process and of all that it started, in seconds."""
    here, process = os.times(), psutil.Process()
    total = here.user + here.system + here.children_user + here.children_system
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone: it counts among the children that were waited for
            total += sum(child.cpu_times()[:4])
    return total


async def search_whole(arena: Arena, seed: int, writer: str, settings: Mapping[str, Any]) -> Whole:
    """Search until the budget or the schedule is spent.

    Args:
        arena: where.
        seed: of the run.
        writer: one of ``WRITERS``.
        settings: of the strategy, other than the defaults.

    Raises:
        UsageError: the writer needs a limit, and there is none.
        ModelError: no language model is here.
        CognitionError: it never answered: this would be a search without it.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-whole-")))
        journal = await JournalWriter.open(folder / "journal.db")
        stack.push_async_callback(journal.close)
        config = _configured(arena, seed, writer, settings).config
        author = await _author(config, arena.landscape, writer)
        if author is not None:
            stack.push_async_callback(author.provider.close)
        if writer == SECOND:
            before = Arena(arena.landscape, arena.budget)
            await _searched(before, seed + _EARLIER, writer, settings, author, journal, folder)
            arena.begin()
        return await _searched(arena, seed, writer, settings, author, journal, folder)


async def _searched(
    arena: Arena,
    seed: int,
    writer: str,
    settings: Mapping[str, Any],
    author: _Author | None,
    journal: JournalWriter,
    folder: Path,
) -> Whole:
    """One search as a run of the journal."""
    landscape, limit, path = arena.landscape, arena.aim.limit, folder / "journal.db"
    layers_ms: LayerMs = getattr(landscape, "layers_ms", lambda architecture: {})
    space, backend = landscape.space, ArenaBackend(arena)
    loaded = _configured(arena, seed, writer, settings)
    model, provenance = None, {"seed": seed, "space": space.to_json()}
    if author is not None:
        adapters = AdapterFiles(folder / "adapters", journaled(path))
        queue = _queue(author.provider, journal, loaded.config.cognition, adapters)
        model = LanguageModel(queue, author.style)
        provenance |= author.provenance
    if writer == SECOND:
        with JournalReader(path) as reader:
            found = heritage_of(reader, provenance, role="pool").adapter
        provenance |= {} if found is None else {"adapter": found.to_json()}
    run_id = await journal.begin_run(provenance, as_json(loaded.config))
    conductor = Conductor(
        journal=RunJournal(journal, path, run_id),
        task=SearchTask(
            space=space,
            latency_ms=lambda a: landscape.free_load(space.indices(a)) or 0.0,
            auto_target_ms=limit,
            layer_ms=layers_ms,
        ),
        evaluations=Evaluations(backend, journal, path, f"arena {seed}", run_id=run_id),
        reloader=Reloader(loaded, []),
        model=model,
    )
    await _until_over(conductor, backend, None if model is None else model.proposal_queue)
    return _what_came(path, run_id, conductor)


async def _until_over(conductor: Conductor, backend: ArenaBackend, queue: ProposalQueue | None) -> None:
    """Run a search, its requests answered by the queue, until it ends or the arena is over.

    Raises:
        CognitionError: no request was ever answered.
    """
    searching = asyncio.create_task(conductor.run(), name="search")
    beside: list[asyncio.Task[Any]] = [asyncio.create_task(backend.over.wait(), name="over")]
    if queue is not None:
        beside.append(asyncio.create_task(queue.run(), name="proposals"))
    try:
        done, _ = await asyncio.wait([searching, *beside], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for tasks in ([searching], beside):  # a search that ends takes back what it has asked for
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    stats = None if queue is None else queue.stats()
    if queue is not None and stats is not None and 0 < stats.answered == stats.failed:
        reason = stats.provider.reason or "see above"
        raise CognitionError(f"no reply of {queue.provider.model} came to anything: {reason}")


def _what_came(path: Path, run_id: int, conductor: Conductor) -> Whole:
    with JournalReader(path) as reader:
        each = [reader.generation(run_id, number) for number in range(conductor.generation)]
        adapters = reader.adapters(run_id, weights=False)
    return Whole(
        generations=conductor.generation,
        joined=conductor.history.counters["patches"],
        picked=sum(i.request_id is not None for g in each for i in g.individuals),
        trainings=sum(a.status != "rejected" for a in adapters),
    )


def _queue(
    provider: ProposalProvider, journal: JournalWriter, cognition: Cognition, adapters: AdapterFiles
) -> ProposalQueue:
    """Between the writer and the search, as the daemon has it."""
    return ProposalQueue(
        provider,
        journal,
        lag=lag_of(cognition),
        timeout_s=lambda: cognition.timeout_s,
        train_timeout_s=lambda: cognition.train_timeout_s,
        adapters=adapters,
    )


def _configured(arena: Arena, seed: int, writer: str, settings: Mapping[str, Any]) -> Loaded:
    """The configuration of a run that spends the budget, its schedule as long as that lasts without repeats."""
    given = {
        "run.seed": seed,
        "run.evaluations": arena.budget,
        "run.polish_evaluations": 0,
        "search.population": POPULATION,
        "search.placebo_share": 0.0,
        "objective.latency_ms": arena.aim.limit if arena.aim.limit is not None else "none",
        "cognition.provider": "none" if writer == NONE else "model",
        "cognition.role": "pool",
        "cognition.train": writer in (SEMANTIC, SECOND),
        "objective.exponent": arena.aim.exponent,
    }
    for name, value in settings.items():
        of = next((of for of, known in _SETTINGS.items() if name in known.model_fields), "search.riwoa")
        given[f"{of}.{name}"] = value
    words = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    parameters = search_parameters(load(None, words, {}).config, 0.0)
    assert isinstance(parameters, RiwoaParameters)
    at_once = parameters.offspring if parameters.joint else parameters.population
    return load(None, [*words, f"run.generations={max(1, math.ceil(arena.budget / at_once))}"], {})


@dataclass(frozen=True, slots=True)
class _Author:
    """Who writes, how, and what a run's record says of it."""

    provider: ProposalProvider
    style: Style
    provenance: Mapping[str, Any]


async def _author(config: Config, landscape: Landscape, writer: str) -> _Author | None:
    """Who writes; None where nobody does.

    Raises:
        UsageError: the writer needs a limit, and there is none.
        ModelError: no language model is here.
    """
    if writer == NONE:
        return None
    if writer not in _MODELS:
        rule = {PLACEBO: placebo, PAIRS: pairs}.get(writer) or greedy(landscape)
        return _Author(RuleProvider(rule), style_of(config.cognition), {})
    found = await provide(lambda: config.cognition, None, lambda _: None)
    if found.provider is None:
        raise ModelError(f"--strategies: riwoa{writer} needs a language model: {found.reason}")
    return _Author(found.provider, found.style, found.provenance())
