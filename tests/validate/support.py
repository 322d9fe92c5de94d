"""Pictures that look a little like photographs."""

from __future__ import annotations

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
    found: np.ndarray[Any, np.dtype[np.uint8]] = (255 * np.clip(shades + detail, 0, 1)).astype(np.uint8)
    return found
