"""What a search is about: posed by the kind of oracle that the configuration names.

The service knows nothing of supernets or tables: it starts the workers that the problem specifies, and hands space and
latencies to the conductor.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from riwoa.config.schema import Config
from riwoa.errors import ConfigError
from riwoa.hardware.process import ProgressCallback
from riwoa.oracle.attainable import check_metrics
from riwoa.oracle.kind import OracleKind, Problem
from riwoa.oracle.kinds import kind_named
from riwoa.run.memory import Memory, with_memory
from riwoa.run.strategy import NO_LATENCIES, check_asynchronous, check_front, check_targets
from riwoa.run.task import SearchTask
from riwoa.surrogate.gaussian_process import Examples


def search_task(
    problem: Problem, config: Config, prior: Examples | None = None, memory: Memory | None = None
) -> SearchTask:
    """What a conductor must know of a problem; ``prior``, of a file, and ``memory`` are what is known beforehand."""
    task = SearchTask(
        space=problem.space,
        latency_ms=problem.latency_of,
        auto_target_ms=problem.auto_target_ms,
        layer_ms=problem.layer_ms,
        catalogue=problem.catalogue,
        prior=prior,
        known=problem.known,
        answers_latency=config.oracle.settings.answers_latency,
    )
    return task if memory is None else with_memory(task, memory)


async def load_problem(config: Config, latency_table: Path, progress: ProgressCallback | None = None) -> Problem:
    """The problem that a configuration names; may take minutes where this device must be measured first.

    Args:
        config: the configuration in force.
        latency_table: where this device's operator table lies, or is to lie.
        progress: told how the measurement goes.

    Raises:
        RiwoaError: a table or another input is missing, damaged or of another device.
    """
    oracle = kind_named(config.oracle.kind)
    with oracle.blamed("pose its problem"):
        check_metrics(config, oracle.value.metrics)
        check_front(config)
        check_asynchronous(config)
        check_targets(config)
        problem = await oracle.value.problem(config, latency_table, progress)
        return _of_front(with_devices(problem, oracle.value, config), config)


def with_devices(problem: Problem, kind: OracleKind, config: Config) -> Problem:
    """The problem with the latencies of other devices that the configuration names: limits and targets.

    Raises:
        RiwoaError: a table is missing, damaged or of other networks.
    """
    if problem.auto_target_ms is None and any(target.table is None for target in config.objective.targets):
        raise ConfigError(NO_LATENCIES)
    devices = {name: kind.device_latency(table, config) for name, table in config.objective.tables.items()}
    ranges = {**kind.known_ranges(config), **{name: device.range_ms for name, device in devices.items()}}
    problem = replace(problem, ranges=ranges)
    if not devices:
        return problem
    hashes = [problem.latency_sha256, *(f"{name} {device.sha256}" for name, device in devices.items())]
    return replace(
        problem,
        known={**problem.known, **{name: device.latency_of for name, device in devices.items()}},
        latency_sha256=hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
    )


def _of_front(problem: Problem, config: Config) -> Problem:
    """The problem, in which "auto" means the whole range of latencies where a front is looked for.

    Raises:
        ConfigError: there are no latencies.
    """
    if config.objective.kind != "front":
        return problem
    if problem.auto_target_ms is None:
        raise ConfigError(
            "objective.kind = front: there are no latencies here; name some, or set objective.kind = best"
        )
    return replace(problem, auto_target_ms=problem.range_ms[1])
