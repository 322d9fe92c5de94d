"""What a search is about: posed by the kind of oracle that the configuration names.

The service knows nothing of supernets or tables: it starts the workers that the problem specifies, and hands space and
latencies to the conductor.
"""

from __future__ import annotations

from pathlib import Path

from riwoa.config.schema import Config
from riwoa.hardware.process import ProgressCallback
from riwoa.oracle.kind import Problem
from riwoa.oracle.kinds import kind_named
from riwoa.run.task import SearchTask
from riwoa.surrogate.gaussian_process import Examples


def search_task(problem: Problem, config: Config, prior: Examples | None = None) -> SearchTask:
    """What a conductor must know of a problem; ``prior`` is what the screening predictor knows beforehand."""
    return SearchTask(
        space=problem.space,
        latency_ms=problem.latency_of,
        auto_target_ms=problem.auto_target_ms,
        layer_ms=problem.layer_ms,
        catalogue=problem.catalogue,
        prior=prior,
        known=problem.known,
        answers_latency=config.oracle.settings.answers_latency,
    )


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
        return await oracle.value.problem(config, latency_table, progress)
