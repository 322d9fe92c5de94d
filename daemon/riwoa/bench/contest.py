"""Contestants over many seeds on a landscape that answers at once: what each had found after how many queries.

As in the other benchmarks the population is 20, the schedule as long as the budget would last without repeats.

Every finished search is a line of a file, keyed by the landscape, the budget and the contestant's code: a benchmark
that was killed, run again, goes on, and another strategy pays for its own searches alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from riwoa.bench.arena import MOST_REPEATS, POPULATION, Arena, Found
from riwoa.bench.contestants import Contestant, contestants
from riwoa.bench.crew import work
from riwoa.bench.landscape import Landscape
from riwoa.bench.own import OwnSearch, remembered_by
from riwoa.bench.peers import search_by_peer
from riwoa.bench.whole import WRITERS, processors_s, search_whole
from riwoa.files.results import ResultFile

Report = Callable[[int, int], None]
Job = tuple[Contestant, int]  # with the seed
DEFAULT_STRATEGIES = "riwoa,woa,random"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is compared, and how long."""

    seeds: int = 30
    budget: int = 200
    strategies: tuple[str, ...] = tuple(DEFAULT_STRATEGIES.split(","))


class SearchFile:
    """Finished searches, by key (see ``search_key``), strategy and seed.

    Raises:
        UsageError, StateDirectoryError: as ``ResultFile``.
    """

    def __init__(self, path: Path) -> None:
        self._file = ResultFile(path, "searches of a benchmark", b'{"key": "')
        self._known: dict[tuple[str, str, int], Found] = {}
        for row in self._file.rows():
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a line of something else
                found = Found.from_json(row["found"])
                self._known[str(row["key"]), found.strategy, found.seed] = found

    def get(self, key: str, strategy: str, seed: int) -> Found | None:
        """A search that was finished before."""
        return self._known.get((key, strategy, seed))

    def put(self, key: str, found: Found) -> None:
        """Keep a search, durably."""
        self._file.append({"key": key, "found": asdict(found)})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def search(contestant: Contestant, seed: int, landscape: Landscape, budget: int) -> Found:
    """One search.

    Raises:
        UsageError: the contestant cannot take part here.
    """
    if contestant.is_peer:
        return search_by_peer(contestant.base, seed, landscape, budget)
    known = remembered_by(contestant, seed, landscape, budget)  # before the account is opened
    if contestant.suffix in WRITERS:
        arena = Arena(landscape, budget, clock=processors_s)  # the model is another process
        whole = asyncio.run(search_whole(arena, seed, contestant.suffix, dict(contestant.settings)))
        found = arena.found(contestant.name, seed, whole.generations)
        return replace(found, joined=whole.joined, picked=whole.picked, trainings=whole.trainings)
    return OwnSearch(contestant, seed, Arena(landscape, budget), known).run()


def search_all(
    settings: Settings,
    landscape: Landscape,
    out: Path | None,
    progress: Report = lambda done, total: None,
    *,
    make: Callable[[], Landscape] | None = None,
    workers: int = 1,
) -> list[Found]:
    """Every (strategy, seed), by strategy, then seed; those that ``out`` holds are not searched again.

    Args:
        settings: who, and how long.
        landscape: where.
        out: file of finished searches.
        progress: told of each.
        make: the landscape anew, in a process; needed for more workers than one.
        workers: searches at once.

    Raises:
        UsageError: a contestant cannot take part here.
        StateDirectoryError: ``out`` cannot be written.
    """
    file = SearchFile(out) if out is not None else None
    named = contestants(",".join(settings.strategies))
    keys = {c.name: search_key(c, landscape, settings.budget) for c in named}
    found: dict[tuple[str, int], Found] = {}
    try:
        left: list[Job] = []
        for seed, contestant in product(range(settings.seeds), named):
            kept = file.get(keys[contestant.name], contestant.name, seed) if file is not None else None
            if kept is None:
                left.append((contestant, seed))
            else:
                found[contestant.name, seed] = kept
        total = settings.seeds * len(named)
        progress(len(found), total)
        here = make if make is not None and workers > 1 else lambda: landscape
        for (contestant, seed), one in work(here, partial(_do, settings.budget), left, workers):
            found[contestant.name, seed] = one
            if file is not None:
                file.put(keys[contestant.name], one)
            progress(len(found), total)
    finally:
        if file is not None:
            file.close()
    return [found[c.name, seed] for c in named for seed in range(settings.seeds)]


def _do(budget: int, landscape: Landscape, job: Job) -> Found:
    return search(*job, landscape, budget)


def search_key(contestant: Contestant, landscape: Landscape, budget: int) -> str:
    """Everything that decides a search but name and seed, the code included."""
    facts = [landscape.key, budget, POPULATION, MOST_REPEATS, contestant.version]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
