"""A small CIFAR-100 archive in the official format, and pictures that look a little like photographs."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage


def pictures(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(count, 32, 32, 3): smooth shades and a few sharp edges, spread over the whole range."""
    rng = np.random.default_rng(seed)
    clouds = ndimage.gaussian_filter(rng.standard_normal((count, 32, 32, 3)), (0, 4, 4, 0.5), mode="wrap")
    clouds /= clouds.std(axis=(1, 2, 3), keepdims=True)
    grid = np.arange(32)
    corner = rng.integers(4, 20, (count, 2))
    inside = (grid[None, :, None] >= corner[:, :1, None]) & (grid[None, None, :] >= corner[:, 1:, None])
    shades = 0.45 + 0.16 * clouds + 0.2 * inside[..., None] * rng.choice([-1, 1], (count, 1, 1, 3))
    detail = 0.04 * rng.standard_normal((count, 32, 32, 1))
    return (255 * np.clip(shades + detail, 0, 1)).astype(np.uint8)


def write_archive(path: Path, train: int = 200, test: int = 100, classes: int = 100) -> Path:
    """``cifar-100-python.tar.gz``: two pickled dicts with bytes keys. A class shows in the picture's colour."""
    with tarfile.open(path, "w:gz") as archive:
        for name, count, seed in (("train", train, 1), ("test", test, 2)):
            labels = np.arange(count) % classes
            images = pictures(count, seed)
            tint = np.random.default_rng(3).integers(-90, 90, (classes, 1, 1, 3))
            images = np.clip(images.astype(int) + tint[labels], 0, 255).astype(np.uint8)
            rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(count, 3072)
            content = pickle.dumps({b"data": rows, b"fine_labels": [int(label) for label in labels]}, protocol=2)
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
