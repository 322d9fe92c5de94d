"""Official files that the repository does not carry, and what OFA's own code makes of them."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.space import DEPTHS, EXPANSIONS, KERNELS, OfaConfig


def official_data(name: str) -> Path:
    """``name`` in the folder that RIWOA_DATA says, else in ``../shared/data`` beside the repository; skips without."""
    folder = Path(os.environ.get("RIWOA_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
    if not (folder / name).exists():
        pytest.skip(f"{folder / name} is not here; RIWOA_DATA names the folder of official files")
    return folder / name


def some_configs(resolutions: tuple[int, ...], count: int, seed: int) -> list[OfaConfig]:
    """Random subnets, every resolution in turn; choices of layers that do not exist are random too."""
    rng = np.random.default_rng(seed)

    def drawn(choices: tuple[int, ...], size: int) -> tuple[int, ...]:
        return tuple(int(c) for c in rng.choice(choices, size))

    return [
        OfaConfig(drawn(KERNELS, 20), drawn(EXPANSIONS, 20), drawn(DEPTHS, 5), resolutions[i % len(resolutions)])
        for i in range(count)
    ]


def ofas_tutorial(module: str) -> Any:
    """A module of ``ofa.tutorial`` without its package, which imports torchvision and gdown for other modules."""
    import_ofa()
    [folder] = importlib.import_module("ofa").__path__
    spec = importlib.util.spec_from_file_location(f"ofa_tutorial_{module}", Path(folder) / "tutorial" / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
