"""From the configuration to the oracle's specification and the pool's limits. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from riwoa.cognition.accelerator import probe_accelerator
from riwoa.config import Oracle
from riwoa.errors import InputError
from riwoa.hardware.probe import fastest_dtype
from riwoa.oracle.pool import PoolSettings
from riwoa.oracle.protocol import SupernetSpec


def oracle_spec(oracle: Oracle) -> SupernetSpec:
    """The worker's specification; "auto" is resolved here, once, and enters the oracle's version."""
    embedded = oracle.checkpoint == "embedded"
    device = oracle_device(oracle)
    return SupernetSpec(
        checkpoint=None if embedded else str(Path(oracle.checkpoint).absolute()),
        width_mult=oracle.width_mult,
        n_classes=oracle.n_classes,
        stem=oracle.stem,
        data="digits" if oracle.data == "digits" else str(Path(oracle.data).absolute()),
        resolutions=oracle.resolutions,
        dtype=_fastest_dtype(device) if oracle.dtype == "auto" else oracle.dtype,
        batch_size=oracle.batch_images if device == "cpu" else None,
        recalibration_images=oracle.recalibration_images,
        validation_views=oracle.validation_views,
        threads=oracle.threads,
        device=device,
    )


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
    return PoolSettings(
        workers=worker_count(oracle, kept_cores),
        evaluation_timeout_s=oracle.timeout_s,
        memory_limit_bytes=oracle.memory_bytes,
    )


def worker_count(oracle: Oracle, kept_cores: int = 0) -> int:
    """Worker processes: as configured, or as many as the usable cores can run at ``threads`` each; one on a GPU."""
    if oracle.workers != "auto":
        return int(oracle.workers)
    if oracle_device(oracle) == "cuda":
        return 1  # each would hold a CUDA context and the images of its own
    return max(1, (len(os.sched_getaffinity(0)) - kept_cores) // oracle.threads)
