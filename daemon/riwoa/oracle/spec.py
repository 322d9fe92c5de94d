"""From the configuration to the oracle's specification and the pool's limits. No torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from riwoa.config.schema import Oracle
from riwoa.errors import ConfigError, InputError
from riwoa.hardware.accelerator import probe_accelerator
from riwoa.hardware.probe import fastest_dtype
from riwoa.limits import memory, usable_cores
from riwoa.oracle.pool import PoolSettings
from riwoa.oracle.predictor import RESOLUTIONS_PX
from riwoa.oracle.protocol import PredictorSpec, TableSpec
from riwoa.supernet.published import PUBLISHED
from riwoa.supernet.spec import SupernetSpec

_WORKER_BYTES = 2**30  # resident, of the embedded supernet with its images
_DECODING_TIMEOUT_S = 3600.0  # the first worker on a folder decodes its images, the others wait for it


def oracle_spec(oracle: Oracle) -> SupernetSpec:
    """The worker's specification; "auto" is resolved here, once, and enters the oracle's version."""
    device = oracle_device(oracle)
    return SupernetSpec(
        checkpoint=_checkpoint(oracle.checkpoint),
        width_mult=oracle.width_mult,
        n_classes=oracle.n_classes,
        stem=oracle.stem,
        data="digits" if oracle.data == "digits" else _absolute(oracle.data),
        resolutions=oracle.resolutions,
        dtype=_fastest_dtype(device) if oracle.dtype == "auto" else oracle.dtype,
        batch_size=oracle.batch_images if device == "cpu" else None,
        recalibration_images=oracle.recalibration_images,
        validation_views=oracle.validation_views,
        validation_images=oracle.validation_images,
        data_seed=oracle.data_seed,
        recalibration_data=None if oracle.recalibration_data == "train" else _absolute(oracle.recalibration_data),
        rung_images=tuple(rung for rung in oracle.rungs if isinstance(rung, int)),
        threads=oracle.threads,
        device=device,
    )


def table_spec(oracle: Oracle) -> TableSpec:
    """The worker's specification of a table.

    Raises:
        ConfigError: the table, or what to search it for, is not named.
    """
    missing = [] if oracle.table is not None else ["oracle.table, the file"]
    missing += [] if oracle.table_accuracy is not None else ["oracle.table_accuracy, the column to raise"]
    if oracle.table is None or oracle.table_accuracy is None:
        raise ConfigError(*(f"oracle.kind = table needs {what}" for what in missing))
    return TableSpec(
        path=_absolute(oracle.table),
        genes=oracle.table_genes,
        gene_kind="ordered" if oracle.table_order else "nominal",
        accuracy=oracle.table_accuracy,
        report=oracle.table_report,
        latency=oracle.table_latency,
        low_fidelity=oracle.table_low_fidelity,
        low_fidelity_cost=oracle.table_low_fidelity_cost,
        threads=oracle.threads,
    )


def predictor_spec(oracle: Oracle) -> PredictorSpec:
    """The worker's specification of OFA's predictor.

    Raises:
        ConfigError: the predictor or its latency tables are not named, or a resolution is none of the predictor's.
    """
    needed = {"predictor": "OFA's acc_predictor.pth", "latency_tables": "a folder of OFA's tables"}
    wrong = [
        f"oracle.kind = predictor needs oracle.{name}, {what}"
        for name, what in needed.items()
        if getattr(oracle, name) is None
    ]
    unknown = [r for r in oracle.resolutions if r not in RESOLUTIONS_PX]
    wrong += [f"oracle.resolutions: OFA's predictor knows {RESOLUTIONS_PX}, not {unknown[0]}"] if unknown else []
    if wrong:
        raise ConfigError(*wrong)
    return PredictorSpec(predictor=_absolute(str(oracle.predictor)), threads=oracle.threads)


def oracle_device(oracle: Oracle) -> Literal["cpu", "cuda"]:
    """Where accuracies are computed; "auto" is a GPU where torch can use one (a child process looks, once).

    Raises:
        InputError: "cuda" is asked for and there is none.
    """
    if oracle.device == "cpu":
        return "cpu"
    if probe_accelerator() is not None:
        return "cuda"
    if oracle.device == "cuda":
        raise InputError("oracle.device = cuda, but torch finds no CUDA GPU here; set it to auto or cpu")
    return "cpu"


def _fastest_dtype(device: Literal["cpu", "cuda"]) -> Literal["float32", "bfloat16"]:
    if device == "cpu":
        return fastest_dtype()
    accelerator = probe_accelerator()
    return "bfloat16" if accelerator is not None and accelerator.bfloat16 else "float32"


def pool_settings(oracle: Oracle, kept_cores: int = 0) -> PoolSettings:
    """The pool's limits; ``kept_cores`` are left to others where the number of workers is ours to choose."""
    limits = PoolSettings(
        workers=worker_count(oracle, kept_cores),
        evaluation_timeout_s=oracle.timeout_s,
        memory_limit_bytes=oracle.memory_bytes,
    )
    return replace(limits, start_timeout_s=_DECODING_TIMEOUT_S) if Path(oracle.data).is_dir() else limits


def _checkpoint(setting: str) -> str | None:
    if setting == "embedded":
        return None
    return setting if setting in PUBLISHED else _absolute(setting)


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def worker_count(oracle: Oracle, kept_cores: int = 0) -> int:
    """Worker processes: as configured, or as many as the usable cores can run at ``threads`` each; one on a GPU.

    Of a supernet's, no more than the memory can hold: where it is short, they would be killed in turns.
    """
    if oracle.workers != "auto":
        return int(oracle.workers)
    if oracle.kind == "supernet" and oracle_device(oracle) == "cuda":
        return 1  # each would hold a CUDA context and the images of its own
    by_cores = int(usable_cores() - kept_cores) // oracle.threads
    by_memory = memory().total_bytes // _WORKER_BYTES if oracle.kind == "supernet" else by_cores
    return max(1, min(by_cores, by_memory))
