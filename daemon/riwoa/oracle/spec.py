"""From the configuration to the oracle's specification and the pool's limits. No torch."""

from __future__ import annotations

import os
from pathlib import Path

from riwoa.config import Oracle
from riwoa.errors import ConfigError
from riwoa.hardware.probe import fastest_dtype
from riwoa.oracle.pool import PoolSettings
from riwoa.oracle.protocol import SupernetSpec, TableSpec


def oracle_spec(oracle: Oracle) -> SupernetSpec:
    """The worker's specification; "auto" is resolved here, once, and enters the oracle's version."""
    embedded = oracle.checkpoint == "embedded"
    return SupernetSpec(
        checkpoint=None if embedded else str(Path(oracle.checkpoint).absolute()),
        width_mult=oracle.width_mult,
        n_classes=oracle.n_classes,
        data="digits" if oracle.data == "digits" else str(Path(oracle.data).absolute()),
        resolutions=oracle.resolutions,
        dtype=fastest_dtype() if oracle.dtype == "auto" else oracle.dtype,
        batch_size=oracle.batch_images,
        recalibration_images=oracle.recalibration_images,
        validation_views=oracle.validation_views,
        threads=oracle.threads,
    )


def table_spec(oracle: Oracle) -> TableSpec:
    """The worker's specification of a table.

    Raises:
        ConfigError: the table, or what to search it for, is not named.
    """
    if oracle.table is None or oracle.table_accuracy is None:
        missing = "oracle.table, the file" if oracle.table is None else "oracle.table_accuracy, the column to raise"
        raise ConfigError(f"oracle.kind = table needs {missing}")
    return TableSpec(
        path=str(Path(oracle.table).absolute()),
        genes=oracle.table_genes,
        gene_kind="ordered" if oracle.table_order else "nominal",
        accuracy=oracle.table_accuracy,
        report=oracle.table_report,
        latency=oracle.table_latency,
        low_fidelity=oracle.table_low_fidelity,
        low_fidelity_cost=oracle.table_low_fidelity_cost,
        threads=oracle.threads,
    )


def pool_settings(oracle: Oracle, kept_cores: int = 0) -> PoolSettings:
    """The pool's limits; ``kept_cores`` are left to others where the number of workers is ours to choose."""
    return PoolSettings(
        workers=worker_count(oracle, kept_cores),
        evaluation_timeout_s=oracle.timeout_s,
        memory_limit_bytes=oracle.memory_bytes,
    )


def worker_count(oracle: Oracle, kept_cores: int = 0) -> int:
    """Worker processes: as configured, or as many as the usable cores can run at ``threads`` each."""
    if oracle.workers != "auto":
        return int(oracle.workers)
    return max(1, (len(os.sched_getaffinity(0)) - kept_cores) // oracle.threads)
