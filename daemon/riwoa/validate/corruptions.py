"""The fifteen corruptions of CIFAR-10-C and CIFAR-100-C at their five severities. No torch.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019;
severities are those of the published CIFAR sets (32 px), which are milder than ImageNet-C's. On pictures of another
size every length grows with the side, so that the same share of a picture is blurred, moved or covered; noise by the
pixel, pixelation and compression keep their numbers, and are milder on larger pictures.

Written for this project, over whole arrays of images, from the published definitions: the packages on the registry
carry ImageNet's severities, and want OpenCV, and numba or ImageMagick. What differs from the published sets:

- random draws come from numpy's Philox, keyed by (seed, corruption, severity, block of images);
- motion blur and snow follow ImageMagick's kernel and offsets in float, without its 16-bit steps in between;
- elastic transform samples in float, where OpenCV rounds positions to 1/32 pixel;
- frost takes the published photographs where a folder of them is given, else textures grown here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from riwoa.errors import InputError
from riwoa.search.rng import generator

CIFAR_PX = 32  # the side that the severities are published for
LEAST_PX = 8
SEVERITIES = (1, 2, 3, 4, 5)
# Images that share a random stream: few enough to stay in the cache, and the corruption of an image does not depend
# on how many blocks follow its own.
BLOCK_IMAGES = 250
_MAX_PHOTOGRAPH_PIXELS = 2**25
_PHOTOGRAPHS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")  # a sixth was never drawn

Images = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[Any]]  # of either precision
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Frost:
    """Textures (h, w, 3) uint8, at least 33 px each way, and where they come from: "photographs" or "procedural"."""

    source: str
    textures: tuple[Images, ...]


@dataclass(frozen=True, slots=True)
class _Draw:
    """What a corruption may use besides the images: its random stream, the frost, and the pictures' side."""

    rng: np.random.Generator
    frost: Frost
    side_px: int

    @property
    def scale(self) -> float:
        """What a length is multiplied by: 1 for pictures of CIFAR's size."""
        return self.side_px / CIFAR_PX


# (images (n, s, s, 3) uint8, the severity's parameters, draw) -> the same shape on the scale of 0 to 255
_Corrupt = Callable[[Images, Any, _Draw], Floats | Images]
_TABLE: dict[str, tuple[_Corrupt, tuple[Any, ...]]] = {}


def _severities(*parameters: Any) -> Callable[[_Corrupt], _Corrupt]:
    """Register a corruption under its function's name, with the parameters of severities 1 to 5."""

    def register(function: _Corrupt) -> _Corrupt:
        _TABLE[function.__name__] = (function, parameters)
        return function

    return register


def corrupt(images: Images, name: str, severity: int, seed: int, frost: Frost) -> Images:
    """Corrupted copies of images; the same for the same arguments, in whatever process.

    Args:
        images: (n, s, s, 3) uint8, s at least 8.
        name: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: of the random draws.
        frost: ``frost_photographs`` or ``frost_procedural``; only frost looks at it.

    Raises:
        ValueError: another shape or type, an unknown corruption or severity.
    """
    side_px = images.shape[1] if images.ndim == 4 else 0
    if images.dtype != np.uint8 or side_px < LEAST_PX or images.shape[1:] != (side_px, side_px, 3):
        raise ValueError(
            f"images must be uint8 of shape (n, s, s, 3), s at least {LEAST_PX}, not {images.dtype} {images.shape}"
        )
    if name not in _TABLE or severity not in SEVERITIES:
        raise ValueError(f"there is no corruption {name!r} of severity {severity}; choose from {CORRUPTIONS}, 1 to 5")
    function, parameters = _TABLE[name]
    out = np.empty_like(images)
    for start in range(0, len(images), BLOCK_IMAGES):
        rng = generator(seed, severity, f"corruption.{name}", start // BLOCK_IMAGES)
        part = slice(start, start + BLOCK_IMAGES)
        corrupted = function(images[part], parameters[severity - 1], _Draw(rng, frost, side_px))
        # The published sets cut the fraction off, so these do.
        out[part] = np.clip(corrupted, 0, 255).astype(np.uint8)
    return out


# -- noise -------------------------------------------------------------------------------------------------------------


@_severities(0.04, 0.06, 0.08, 0.09, 0.10)
def gaussian_noise(x: Images, scale: float, draw: _Draw) -> Floats:
    """Additive normal noise; ``scale`` on the scale of 0 to 1."""
    return x + 255 * np.float32(scale) * draw.rng.standard_normal(x.shape, dtype=np.float32)


@_severities(500, 250, 100, 75, 50)
def shot_noise(x: Images, photons: float, draw: _Draw) -> Floats:
    """Poisson noise; ``photons`` arrive at full brightness."""
    return draw.rng.poisson(x * (photons / 255)) * (255 / photons)


@_severities(0.01, 0.02, 0.03, 0.05, 0.07)
def impulse_noise(x: Images, share: float, draw: _Draw) -> Floats | Images:
    """Salt and pepper: ``share`` of the values becomes 0 or 255, with equal chance."""
    hit = draw.rng.random(x.shape, dtype=np.float32) <= share
    salt = draw.rng.random(x.shape, dtype=np.float32) <= 0.5
    return np.where(hit, np.where(salt, np.uint8(255), np.uint8(0)), x)


# -- blur --------------------------------------------------------------------------------------------------------------


@_severities((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
def defocus_blur(x: Images, disk: tuple[float, float], draw: _Draw) -> Floats:
    """Convolution with a disk of a radius, smoothed by a 3 px Gaussian."""
    radius, alias_sigma = disk
    kernel = disk_kernel(radius * draw.scale, alias_sigma).astype(np.float32)
    return np.asarray(ndimage.correlate(x.astype(np.float32), kernel[None, :, :, None], mode="mirror"))


def disk_kernel(radius: float, alias_sigma: float) -> Floats:
    """A disk that sums to 1, smoothed by a 3-tap Gaussian each way."""
    reach = math.floor(radius) + 1
    grid = np.arange(-reach, reach + 1)
    disk = (grid[:, None] ** 2 + grid[None, :] ** 2 <= radius**2).astype(np.float64)
    taps = np.exp(-np.array([1.0, 0.0, 1.0]) / (2 * alias_sigma**2))
    smooth = ndimage.correlate1d(disk / disk.sum(), taps / taps.sum(), axis=0, mode="constant")
    return np.asarray(ndimage.correlate1d(smooth, taps / taps.sum(), axis=1, mode="constant"))


@_severities((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))
def glass_blur(x: Images, glass: tuple[float, int], draw: _Draw) -> Floats:
    """A Gaussian, pixels displaced by at most one upwards and to the left, a Gaussian again; at 32 px."""
    (sigma, rounds), reach = glass, max(1, round(draw.scale))
    sigma *= draw.scale
    # Whole levels are on the knife's edge of the cut: the published arithmetic, in double precision.
    y = (_gaussian(x / 255.0, sigma) * 255).astype(np.uint8)
    inner = np.arange(reach + 1, draw.side_px - reach + 1)
    for _ in range(rounds):
        # Meant as a swap, but numpy's assignment to views makes it a copy, and rows and columns are walked from the
        # far end: every pixel takes the value of one that the same round has not touched.
        steps = draw.rng.integers(-reach, reach, (2, len(x), len(inner), len(inner)))
        rows, columns = inner[:, None] + steps[0], inner[None, :] + steps[1]
        moved = slice(inner[0], inner[-1] + 1)
        y[:, moved, moved] = y[np.arange(len(x))[:, None, None], rows, columns]
    return 255 * _gaussian(y / 255.0, sigma)


def _gaussian(x: Floats, sigma: float) -> Floats:
    return np.asarray(ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest", truncate=4))


@_severities((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
def motion_blur(x: Images, motion: tuple[float, float], draw: _Draw) -> Floats:
    """One-sided Gaussian blur along a direction within 45 degrees of the horizontal."""
    radius, sigma = (length * draw.scale for length in motion)
    return np.rint(_moved(x.astype(np.float32), radius, sigma, draw.rng.uniform(-45, 45, len(x))))


def _moved(x: Floats, radius: float, sigma: float, angles_degree: Floats) -> Floats:
    """ImageMagick's motion blur: the weighted sum of copies shifted along the angle, edges repeated.

    ``x``: (n, s, s, c); ``angles_degree``: (n,).
    """
    side_px = x.shape[1]
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angles = np.deg2rad(angles_degree)[:, None]
    flat = np.ascontiguousarray(x).reshape(-1, x.shape[3])
    images = (np.arange(len(x)) * side_px**2)[:, None, None]
    out = np.zeros_like(flat)
    for step in steps[weights > 1e-5]:  # less cannot change a level
        rows = _shifted(np.ceil(step * np.sin(angles) - 0.5), side_px)
        columns = _shifted(np.ceil(step * np.cos(angles) - 0.5), side_px)
        chosen = images + rows[:, :, None] * side_px + columns[:, None, :]
        out += np.float32(weights[step]) * np.take(flat, chosen.ravel(), axis=0)
    return out.reshape(x.shape)


def _shifted(offsets: Floats, side_px: int) -> Ints:
    """Row (or column) numbers moved by each image's offset (n, 1), held within the image: (n, s)."""
    return np.clip(np.arange(side_px) + offsets.astype(np.int64), 0, side_px - 1)


@_severities(1.06, 1.11, 1.16, 1.21, 1.26)
def zoom_blur(x: Images, end: float, draw: _Draw) -> Floats:
    """The mean of the image and of its magnifications from 1 to ``end`` in steps of 0.01."""
    pixels = x.astype(np.float32).transpose(0, 3, 1, 2)
    total, factors = pixels.copy(), np.arange(1, end, 0.01)
    for factor in factors:
        zoom = zoom_matrix(float(factor), draw.side_px).astype(np.float32)
        total += zoom @ pixels @ zoom.T
    return np.asarray(total / (len(factors) + 1)).transpose(0, 2, 3, 1)


@lru_cache(maxsize=64)
def zoom_matrix(factor: float, side_px: int) -> Floats:
    """Linear magnification of the middle of some samples, cut to as many again, as a matrix (s, s)."""
    crop = math.ceil(side_px / factor)
    top = (side_px - crop) // 2
    zoomed = ndimage.zoom(np.eye(side_px)[top : top + crop], (factor, 1), order=1)
    trim = (len(zoomed) - side_px) // 2
    return np.asarray(zoomed[trim : trim + side_px])


# -- weather -----------------------------------------------------------------------------------------------------------


@_severities(
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)
def snow(x: Images, parameters: tuple[float, ...], draw: _Draw) -> Floats:
    """Flakes: normal noise, magnified, thresholded and moved downwards, over a whitened image."""
    mean, std, zoom, threshold, radius, sigma, kept = parameters
    layer: Floats = draw.rng.normal(mean, std, x.shape[:3]).astype(np.float32)
    matrix = zoom_matrix(max(1.0, zoom * draw.scale), draw.side_px).astype(np.float32)
    layer = matrix @ layer @ matrix.T
    layer[layer < threshold] = 0
    layer = np.floor(np.clip(layer, 0, 1) * 255)[..., None]
    layer = np.rint(_moved(layer, radius * draw.scale, sigma * draw.scale, draw.rng.uniform(-135, -45, len(x))))
    grey = x @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    whitened = kept * x + (1 - kept) * np.maximum(x, grey[..., None] * 1.5 + 127.5)
    return np.asarray(whitened + layer + np.rot90(layer, 2, axes=(1, 2)))


@_severities((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
def frost(x: Images, shares: tuple[float, float], draw: _Draw) -> Floats:
    """A piece of a frost texture added to a darkened image."""
    textures, size = [_enlarged(texture, draw.scale) for texture in draw.frost.textures], draw.side_px
    which = draw.rng.integers(0, len(textures), len(x))
    at = draw.rng.random((len(x), 2))
    out = np.empty(x.shape)
    for i, (texture, place) in enumerate(zip(which, at, strict=True)):
        whole = textures[texture]
        row, column = (int(p * (side - size)) for p, side in zip(place, whole.shape, strict=False))
        out[i] = shares[0] * x[i] + shares[1] * whole[row : row + size, column : column + size]
    return out


def _enlarged(texture: Images, scale: float) -> Images:
    """A texture for larger pictures; those for CIFAR's size, and smaller ones, are cut from it as it is."""
    if scale <= 1:
        return texture
    height, width = (math.ceil(side * scale) for side in texture.shape[:2])
    return np.asarray(Image.fromarray(texture).resize((width, height), Image.Resampling.BILINEAR))


def frost_photographs(folder: Path) -> Frost:
    """The published photographs, ``frost1.png`` to ``frost5.jpg``, at the fifth of their size that CIFAR's set uses.

    Raises:
        InputError: one is missing, no picture, or of an absurd size.
    """
    textures = []
    for name in _PHOTOGRAPHS:
        try:
            with Image.open(folder / name) as picture:
                if not 33 * 5 <= min(picture.size) or math.prod(picture.size) > _MAX_PHOTOGRAPH_PIXELS:
                    raise InputError(f"{folder / name} has {picture.size} pixels; fetch the published photograph again")
                # OpenCV's bilinear interpolation at a scale of exactly 1/5 takes the middle one of five pixels.
                textures.append(np.asarray(picture.convert("RGB"))[2::5, 2::5])
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(
                f"frost photograph {folder / name} cannot be read ({error}); name a folder with {_PHOTOGRAPHS[0]} to "
                f"{_PHOTOGRAPHS[-1]}, or leave --frost out for textures grown here"
            ) from None
    return Frost("photographs", tuple(textures))


@lru_cache(maxsize=1)
def frost_procedural() -> Frost:
    """Five textures (200, 200, 3) that look roughly like frosted glass: needles along six directions, bluish white.

    Not the photographs: accuracies under frost are comparable with each other, not with published ones.
    """
    return Frost("procedural", tuple(_needles(generator(0, i, "frost.texture")) for i in range(5)))


def _needles(rng: np.random.Generator, side: int = 200, directions: int = 6) -> Images:
    """The brightest of thin, long streaks of noise along each direction, over soft clouds; any brightness occurs."""
    first = rng.uniform(0, 180)
    streaks = [
        _streaks(rng.standard_normal((side, side)), first + 180 * i / directions, int(rng.integers(4, 9)))
        for i in range(directions)
    ]
    clouds = ndimage.gaussian_filter(rng.standard_normal((side, side)), 12, mode="wrap")
    picture = np.max(streaks, axis=0) + 0.8 * clouds / clouds.std()
    ranks = picture.ravel().argsort().argsort().reshape(side, side) / (side * side)  # uniform brightness
    tint = np.array([0.88, 0.96, 1.0])
    return np.asarray(np.rint(255 * (0.15 + 0.8 * ranks)[..., None] * tint), dtype=np.uint8)


def _streaks(noise: Floats, angle_degree: float, length_px: int) -> Floats:
    steps = np.arange(-length_px, length_px + 1)
    angle = math.radians(angle_degree)
    total = np.zeros_like(noise)
    for step in steps:
        total += np.roll(noise, (round(step * math.sin(angle)), round(step * math.cos(angle))), (0, 1))
    return np.asarray(total / total.std())


@_severities((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
def fog(x: Images, thickness: tuple[float, float], draw: _Draw) -> Floats:
    """Plasma added, and the whole scaled back to the image's brightest value."""
    amount, decay = thickness
    brightest = x.max(axis=(1, 2, 3), keepdims=True) / 255.0
    clouded = x / 255.0 + amount * plasma(draw.rng, len(x), decay, draw.side_px)[..., None]
    return np.asarray(clouded * (255 * brightest / (brightest + amount)))


def plasma(rng: np.random.Generator, count: int, decay: float, side_px: int) -> Floats:
    """Height maps by the diamond-square algorithm on a torus, (count, s, s), cut from a power of two; from 0 to 1."""
    torus_px = 2 ** math.ceil(math.log2(side_px))
    heights = np.zeros((count, torus_px, torus_px))
    step, wobble = torus_px, 100.0

    def wobbled(total: Floats) -> Floats:
        return total / 4 + wobble * rng.uniform(-wobble, wobble, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, 1)
        heights[:, half::step, half::step] = wobbled(pairs + np.roll(pairs, -1, 2))
        centres, corners = heights[:, half::step, half::step], heights[:, ::step, ::step]
        vertical, horizontal = centres + np.roll(centres, 1, 1), corners + np.roll(corners, -1, 2)
        heights[:, ::step, half::step] = wobbled(vertical + horizontal)
        horizontal, vertical = centres + np.roll(centres, 1, 2), corners + np.roll(corners, -1, 1)
        heights[:, half::step, ::step] = wobbled(horizontal + vertical)
        step, wobble = half, wobble / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return np.asarray(heights / heights.max(axis=(1, 2), keepdims=True))[:, :side_px, :side_px]


# -- digital -----------------------------------------------------------------------------------------------------------


@_severities(0.05, 0.1, 0.15, 0.2, 0.3)
def brightness(x: Images, added: float, draw: _Draw) -> Floats:
    """HSV's value raised, hue and saturation kept: each channel keeps its ratio to the largest."""
    largest = x.max(axis=3, keepdims=True)
    value = np.clip(largest / 255.0 + added, 0, 1)
    ratios = np.divide(x, largest, out=np.ones(x.shape), where=largest > 0)  # black is grey: no hue to keep
    return np.asarray(value * ratios * 255)


@_severities(0.75, 0.5, 0.4, 0.3, 0.15)
def contrast(x: Images, factor: float, draw: _Draw) -> Floats:
    """Each channel's distance from its mean over the image, shrunk."""
    values = x / 255.0
    means = values.mean(axis=(1, 2), keepdims=True)
    return np.asarray(((values - means) * factor + means) * 255)


@_severities((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
def elastic_transform(x: Images, parameters: tuple[float, ...], draw: _Draw) -> Floats:
    """A random affine map, then smooth random displacements; parameters are shares of the image's side."""
    amount, sigma, corner = (draw.side_px * p for p in parameters)
    rows, columns = _affine_grid(draw.rng, len(x), corner, draw.side_px)
    moved = bilinear(x.astype(np.float32), rows, columns, "mirror")
    noise = draw.rng.uniform(-1, 1, (2, *x.shape[:3]))
    shifts = amount * ndimage.gaussian_filter(noise, (0, 0, sigma, sigma), mode="reflect", truncate=3)
    grid = np.arange(draw.side_px)
    return bilinear(moved, grid[:, None] + shifts[0], grid[None, :] + shifts[1], "reflect")


def _affine_grid(rng: np.random.Generator, count: int, corner_px: float, side_px: int) -> tuple[Floats, Floats]:
    """Where each pixel comes from under the affine maps that move three points by at most ``corner_px`` each way."""
    centre, reach = side_px // 2, side_px // 3
    before = np.array([[centre + reach] * 2, [centre + reach, centre - reach], [centre - reach] * 2], dtype=float)
    after = before + rng.uniform(-corner_px, corner_px, (count, 3, 2))
    ones = np.ones((count, 3, 1))
    inverse = np.linalg.solve(np.concatenate([after, ones], axis=2), np.broadcast_to(before, (count, 3, 2)))
    columns, rows = np.meshgrid(np.arange(side_px), np.arange(side_px))
    homogeneous = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(-1, 3).astype(float)
    source = (homogeneous @ inverse).reshape(count, side_px, side_px, 2)
    return source[..., 1], source[..., 0]


def bilinear(x: Floats, rows: Floats, columns: Floats, border: str) -> Floats:
    """Images (n, s, s, c) sampled at positions (n, s, s), beyond the border as scipy's "mirror" or "reflect"."""
    flat, side_px = np.ascontiguousarray(x).reshape(-1, x.shape[3]), x.shape[1]
    images = (np.arange(len(x)) * side_px**2)[:, None, None]
    row, column = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = (rows - row).astype(np.float32), (columns - column).astype(np.float32)
    out = np.zeros(x.shape, dtype=np.float32)
    for i, weight_row in ((row, 1 - down), (row + 1, down)):
        for j, weight_column in ((column, 1 - right), (column + 1, right)):
            chosen = images + _folded(i, border, side_px) * side_px + _folded(j, border, side_px)
            out += (weight_row * weight_column)[..., None] * np.take(flat, chosen, axis=0)
    return out


def _folded(index: Ints, border: str, side_px: int) -> Ints:
    """An index beyond the image folded back: "mirror" about an edge pixel's centre, "reflect" about its far side."""
    if border == "mirror":
        folded = np.mod(index, 2 * side_px - 2)
        return np.asarray(np.minimum(folded, 2 * side_px - 2 - folded))
    folded = np.mod(index, 2 * side_px)
    return np.asarray(np.minimum(folded, 2 * side_px - 1 - folded))


@_severities(0.95, 0.9, 0.85, 0.75, 0.65)
def pixelate(x: Images, share: float, draw: _Draw) -> Images:
    """Shrunk to ``share`` of the side and back, each with a box filter."""
    small, whole = (int(draw.side_px * share),) * 2, (draw.side_px,) * 2
    return _each(x, lambda p: p.resize(small, Image.Resampling.BOX).resize(whole, Image.Resampling.BOX))


@_severities(80, 65, 58, 50, 40)
def jpeg_compression(x: Images, quality: int, draw: _Draw) -> Images:
    """Compressed and decompressed."""

    def compressed(picture: Image.Image) -> Image.Image:
        stream = BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return _each(x, compressed)


def _each(x: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    return np.stack([np.asarray(change(Image.fromarray(image)), dtype=np.uint8) for image in x])


CORRUPTIONS: Sequence[str] = tuple(_TABLE)
