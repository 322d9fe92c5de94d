"""Pictures as arrays: in bytes or floats, resized and standardised. numpy only."""

from __future__ import annotations

import functools
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
Split = Literal["train", "validation", "test"]


class Images(Protocol):
    """Images (n, 3, r, r) in float32 by slices or numbers: an array, or what makes one from bytes when looked at."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, 3, r, r)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | IntArray, /) -> FloatArray: ...


class ChosenImages:
    """Some images of others, as they are numbered there; none is copied before it is looked at."""

    def __init__(self, images: Images, rows: IntArray) -> None:
        self._images = images
        self._rows = rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, 3, r, r)."""
        return len(self._rows), *self._images.shape[1:]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | IntArray, /) -> FloatArray:
        return self._images[self._rows[rows]]


_CHUNK_IMAGES = 64  # resized together: bounds the floats of full size


@functools.cache
def resize_matrix(side_px: int, resolution: int) -> FloatArray:
    """(resolution, side_px) weights of one axis, each row summing to 1.

    Smaller: each output pixel is the mean of what it covers (nothing aliases). Larger: bilinear, edges repeated.
    """
    cell = np.arange(side_px)[None, :]
    if resolution > side_px:
        centre = np.clip((np.arange(resolution) + 0.5) * (side_px / resolution) - 0.5, 0, side_px - 1)
        return np.asarray(np.clip(1 - np.abs(centre[:, None] - cell), 0, None), dtype=np.float32)
    edges = np.linspace(0, side_px, resolution + 1)
    low, high = edges[:-1, None], edges[1:, None]
    overlap = np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0, None)
    return np.asarray(overlap / (high - low), dtype=np.float32)


def resize_pixels(images: ByteArray, resolution: int) -> FloatArray:
    """Square images (n, 3, s, s) in bytes -> (n, 3, r, r) floats on 0 to 255; r = s changes the type alone."""
    pixels: FloatArray = images.astype(np.float32)
    if resolution == images.shape[-1]:
        return pixels
    weights = resize_matrix(images.shape[-1], resolution)
    return np.asarray(weights @ pixels @ weights.T, dtype=np.float32)


def standardise(pixels: ByteArray, mean: tuple[float, ...], std: tuple[float, ...], resolution: int) -> FloatArray:
    """Square pictures (n, s, s, 3) in bytes -> (n, 3, r, r); mean and deviation on the scale of 0 to 1."""
    # (byte / 255 - mean) / std as one factor and one shift
    scale = np.array([1 / (255 * s) for s in std], np.float32)[:, None, None]
    shift = np.array([m / s for m, s in zip(mean, std, strict=True)], np.float32)[:, None, None]
    images = np.empty((len(pixels), 3, resolution, resolution), np.float32)
    for start in range(0, len(pixels), _CHUNK_IMAGES):
        chunk = slice(start, start + _CHUNK_IMAGES)
        channels_first = np.ascontiguousarray(pixels[chunk].transpose(0, 3, 1, 2))
        images[chunk] = resize_pixels(channels_first, resolution) * scale - shift
    return images


def quantise(images: FloatArray) -> ByteArray:
    """Values in [0, 1] as 8 bits."""
    return np.rint(images * 255).astype(np.uint8)
