"""Strategies on the embedded task: a supernet's subnets, evaluated for real, within a latency of a table.

Fixed beforehand: population 20, the latency target that the configuration says (auto: the geometric mean of the
attainable range), the same seeds for every strategy. The winners meet the test pictures only afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from riwoa.bench.arena import POPULATION, Found
from riwoa.bench.contest import Report, Settings, search_all
from riwoa.bench.measures import summary
from riwoa.bench.subnets import EvaluationFile, Evaluator, SubnetLandscape
from riwoa.config.schema import Config
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.obtain import obtain_table
from riwoa.hardware.target import auto_target_ms
from riwoa.oracle.supernet import supernet_spec
from riwoa.oracle.supernet_oracle import build_supernet_oracle
from riwoa.search.fitness import Objective


@dataclass(frozen=True, slots=True)
class Task:
    """What a process needs to make the landscape.

    Attributes:
        config: of the oracle and the target.
        table: latencies.
        evaluations: file where they are kept.
    """

    config: Config
    table: LatencyTable
    evaluations: Path

    def landscape(self) -> SubnetLandscape:
        """The landscape; the oracle is made when it is first asked.

        Raises:
            UsageError, StateDirectoryError: the evaluations cannot be kept there.
        """
        spec, file = supernet_spec(self.config.oracle), EvaluationFile(self.evaluations)
        evaluator, judge = (
            Evaluator(partial(build_supernet_oracle, one), file) for one in (spec, replace(spec, split="test"))
        )
        resolutions = tuple(self.config.oracle.supernet.resolutions)
        return SubnetLandscape(evaluator, judge, self.table, objective(self.config, self.table), resolutions)


async def load_table(named: Path | None, own: Path, config: Config) -> LatencyTable:
    """The named table as it is, else the daemon's.

    Raises:
        TableError: it is missing, damaged or does not fit.
    """
    return LatencyTable.load(named) if named is not None else await obtain_table(own, config)


def objective(config: Config, table: LatencyTable) -> Objective:
    """What the daemon would look for with this configuration on this device."""
    wanted = config.objective.latency_ms
    target_ms = auto_target_ms(table, config.oracle.supernet.resolutions) if wanted == "auto" else float(wanted)
    return Objective(target_ms, config.objective.exponent)


def bench_embedded(
    settings: Settings,
    task: Task,
    *,
    workers: int = 1,
    out: Path | None = None,
    progress: Report = lambda done, total: None,
) -> dict[str, Any]:
    """Run every (strategy, seed), then judge the winners on the test pictures.

    Raises:
        RiwoaError: the oracle cannot be made, or a file cannot be written.
        UsageError: a strategy cannot take part.
    """
    landscape = task.landscape()
    found = search_all(settings, landscape, out, progress, make=task.landscape, workers=workers)
    facts = {
        "target_ms": landscape.aim.latency_target_ms,
        "device": "device of the table",
        "latency_table_sha256": task.table.sha256,
        "oracle": supernet_spec(task.config.oracle).to_json(),
        "population": POPULATION,
        "evaluations": str(task.evaluations),
    }
    return {
        "bench": "embedded",
        **summary(settings, landscape, found),
        "winners": _winners(landscape, found),
        "settings": {**facts, **asdict(settings)},
    }


def _winners(landscape: SubnetLandscape, found: Sequence[Found]) -> list[dict[str, Any]]:
    """The network of each search that found one."""
    rows = []
    for f in found:
        if f.row is None:
            continue
        indices, test = landscape.indices(f.row), landscape.report(f.row)
        rows.append(
            {
                "strategy": f.strategy,
                "seed": f.seed,
                "validation": f.improvements[-1][1],
                "test": None if math.isnan(test) else test,
                "latency_ms": landscape.free_load(indices),
                "architecture": landscape.space.architecture(indices),
            }
        )
    return rows
