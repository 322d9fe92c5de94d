"""What a search is about: a space, who judges accuracies in it, and what a latency is, free to ask for.

Each kind of oracle poses its own problem. The service knows nothing of supernets or tables: it starts the workers that
the problem specifies, and hands space and latencies to the conductor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from riwoa.config.schema import Config
from riwoa.errors import InfeasibleTargetError
from riwoa.hardware.obtain import obtain_table
from riwoa.hardware.ofa_table import OfaLatencyTable
from riwoa.hardware.process import ProgressCallback
from riwoa.hardware.target import auto_target_ms
from riwoa.oracle.protocol import OracleSpec
from riwoa.oracle.spec import oracle_spec, predictor_spec, table_spec
from riwoa.oracle.table import TableOracle
from riwoa.run.task import LatencyMs, LayerMs
from riwoa.search.catalogue import Catalogue
from riwoa.search.space import Space
from riwoa.supernet.space import mobilenet_space, ofa_config


@dataclass(frozen=True, slots=True)
class Problem:
    """One oracle's space and latencies; fixed for a run.

    Attributes:
        space: the architectures.
        spec: what each worker process is given.
        exact_spec: judges the winner once more, as it will be exported; None where ``spec`` is exact.
        latency_of: milliseconds of an architecture; free, so a search may ask as often as it likes.
        layer_ms: the same by layers, for prompts; empty where layers have no times.
        range_ms: least and greatest latency of the space.
        auto_target_ms: what ``objective.latency_ms = "auto"`` stands for; None where there are no latencies.
        latency_sha256: of everything that decides a latency; a resumed run must find the same.
        measured: the file of this device's own table, where the latencies come from one.
        catalogue: the architectures that exist, where they can be counted.
    """

    space: Space
    spec: OracleSpec
    exact_spec: OracleSpec | None
    latency_of: LatencyMs
    layer_ms: LayerMs
    range_ms: tuple[float, float]
    auto_target_ms: float | None
    latency_sha256: str
    measured: Path | None = None
    catalogue: Catalogue | None = None

    def check_target(self, config: Config) -> None:
        """Refuse a latency target that no architecture meets.

        Raises:
            InfeasibleTargetError: says what is attainable.
        """
        check_attainable(config, self.range_ms)


def check_attainable(config: Config, range_ms: tuple[float, float]) -> None:
    """Refuse a latency target below the least of a space.

    Raises:
        InfeasibleTargetError: says what is attainable.
    """
    wanted, (low_ms, high_ms) = config.objective.latency_ms, range_ms
    if wanted != "auto" and float(wanted) < low_ms:
        raise InfeasibleTargetError(
            f"objective.latency_ms = {float(wanted):g} ms is out of reach: the space attains "
            f"{low_ms:.3f} to {high_ms:.3f} ms; set a target in this range"
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
    if config.oracle.kind == "table":
        return table_problem(config)
    if config.oracle.kind == "predictor":
        return predictor_problem(config)
    return await _supernet(config, latency_table, progress)


async def _supernet(config: Config, latency_table: Path, progress: ProgressCallback | None) -> Problem:
    table = await obtain_table(latency_table, config, progress)
    spec, resolutions = oracle_spec(config.oracle), config.oracle.resolutions
    return Problem(
        space=mobilenet_space(resolutions),
        spec=spec,
        exact_spec=replace(spec, dtype="float32", rung_images=()) if spec.dtype != "float32" else None,
        latency_of=lambda architecture: table.latency_ms(ofa_config(architecture)),
        layer_ms=lambda architecture: table.layers_ms(ofa_config(architecture)),
        range_ms=table.range_ms(resolutions),
        auto_target_ms=auto_target_ms(table, resolutions),
        latency_sha256=table.sha256,
        measured=latency_table,
    )


def table_problem(config: Config) -> Problem:
    """The search in a table of finished measurements."""
    spec = table_spec(config.oracle)
    table = TableOracle(spec)
    return Problem(
        space=table.space,
        spec=spec,
        exact_spec=None,
        latency_of=table.latency_ms,
        layer_ms=lambda architecture: {},
        range_ms=table.range_ms,
        # Not the geometric mean of the range: one network without layers (0.01 ms) would make it a target for stumps.
        auto_target_ms=table.median_ms,
        latency_sha256=table.latency_sha256,
        catalogue=table.catalogue(),
    )


def predictor_problem(config: Config) -> Problem:
    """The search by OFA's predictor and tables."""
    spec, resolutions = predictor_spec(config.oracle), config.oracle.resolutions
    tables = OfaLatencyTable(Path(str(config.oracle.latency_tables)))
    low_ms, high_ms = tables.range_ms(resolutions)
    return Problem(
        space=mobilenet_space(resolutions),
        spec=spec,
        exact_spec=None,
        latency_of=lambda architecture: tables.latency_ms(ofa_config(architecture)),
        layer_ms=lambda architecture: tables.layers_ms(ofa_config(architecture)),
        range_ms=(low_ms, high_ms),
        auto_target_ms=math.sqrt(low_ms * high_ms),
        latency_sha256=tables.sha256(resolutions),
    )
