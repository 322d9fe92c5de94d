"""The embedded task: scikit-learn's handwritten digits, made hard by fixed corruptions. numpy only, no torch.

The 1,797 real 8x8 scans (Alpaydin & Kaynak 1998, shipped inside scikit-learn) are split once, by a fixed seed, into
train, validation and test. A *view* places a digit on a 40 px canvas with a random affine map (rotation, scale, shear,
translation), colours it, and corrupts it (noise, occlusion, clutter, contrast). Views of validation and test are fixed
by counter-based seeds, several an image, so that every subnet meets the same pictures on every machine.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from riwoa.datasets.arrays import (
    ByteArray,
    FloatArray,
    IntArray,
    Split,
    quantise,
    resize_pixels,
)
from riwoa.datasets.preprocessing import Preprocessing
from riwoa.errors import InputError

CANVAS_PX = 40
RESOLUTIONS = (24, 32, 40)
CLASSES = 10
SPLIT_SIZES: dict[Split, int] = {"train": 997, "validation": 400, "test": 400}
VIEWS_PER_IMAGE = 8
RECIPE_VERSION = "digits-views-1"

_SPLIT_SEED = 20_260
_VIEW_SEEDS: dict[Split, int] = {"train": 11, "validation": 12, "test": 13}
MEAN, STD = 0.50, 0.28  # of the corrupted training views, rounded


@dataclass(frozen=True, slots=True)
class Severity:
    """Upper limits of the corruptions of a view; 0 everywhere leaves an upright, centred, clean digit."""

    rotation_deg: float = 30.0
    scale: tuple[float, float] = (0.50, 1.0)  # side of the digit as a fraction of the canvas
    shear: float = 0.25
    shift: float = 0.7  # fraction of the free room around the digit
    noise: float = 0.30  # standard deviation of the pixel noise on [0, 1]
    contrast: float = 0.35  # least contrast between ink and paper
    occlusion: float = 0.35  # largest side of the occluding rectangle as a fraction of the digit
    clutter: float = 0.8  # ink of fragments of other digits around the one to read


HARD = Severity()
CLEAN = Severity(0.0, (0.85, 0.85), 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)


def between(share: float) -> Severity:
    """The severity at ``share`` of the way from CLEAN (0) to HARD (1), for a training curriculum."""

    def mix(clean: float, hard: float) -> float:
        return clean + (hard - clean) * share

    scale = (mix(CLEAN.scale[0], HARD.scale[0]), mix(CLEAN.scale[1], HARD.scale[1]))
    names = ("rotation_deg", "shear", "shift", "noise", "contrast", "occlusion", "clutter")
    return Severity(scale=scale, **{n: mix(getattr(CLEAN, n), getattr(HARD, n)) for n in names})


def digits_file() -> Path:
    """Where scikit-learn keeps its digits; the package itself is not imported (0.8 s saved in every worker).

    Raises:
        InputError: scikit-learn is not installed, or its file is not where it has been since 0.12.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("scikit-learn is not installed, so the embedded digits are missing; pip install scikit-learn")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise InputError(f"the embedded digits are missing at {path}; reinstall scikit-learn")
    return path


@functools.cache
def _raw() -> tuple[FloatArray, IntArray]:
    """All scans as (1797, 8, 8) in [0, 1] and their labels."""
    path = digits_file()
    try:
        table = np.loadtxt(io.StringIO(gzip.decompress(path.read_bytes()).decode()), delimiter=",", dtype=np.float32)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"cannot read the digits at {path}: {error}; reinstall scikit-learn") from error
    return table[:, :-1].reshape(-1, 8, 8) / 16.0, table[:, -1].astype(np.int64)


@functools.cache
def split_indices(split: Split) -> IntArray:
    """Which of the 1,797 scans belong to a split: one permutation by a fixed seed, stratified by nothing."""
    order = np.random.Generator(np.random.Philox(key=_SPLIT_SEED)).permutation(1797)
    bounds = np.cumsum([0, *SPLIT_SIZES.values()])
    start = list(SPLIT_SIZES).index(split)
    return np.sort(order[bounds[start] : bounds[start + 1]]).astype(np.int64)


def _affine_coordinates(
    rng: np.random.Generator, n: int, severity: Severity
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Source coordinates (n, H, W) in pixels of the 8x8 scan for each canvas pixel, and the digit's side (n,)."""
    angle = np.deg2rad(rng.uniform(-1, 1, n) * severity.rotation_deg)
    side = rng.uniform(*severity.scale, n) * CANVAS_PX
    shear = rng.uniform(-1, 1, n) * severity.shear
    free = (CANVAS_PX - side) / 2
    centre = CANVAS_PX / 2 - 0.5 + rng.uniform(-1, 1, (2, n)) * free * severity.shift
    grid = np.arange(CANVAS_PX, dtype=np.float64)
    dy = grid[None, :, None] - centre[0][:, None, None]
    dx = grid[None, None, :] - centre[1][:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    to_source = (8.0 / side)[:, None, None]
    v = (cos * dy - sin * dx) * to_source
    u = (sin * dy + cos * dx) * to_source + shear[:, None, None] * v
    return (v + 3.5).astype(np.float32), (u + 3.5).astype(np.float32), side.astype(np.float32)


def _bilinear(scans: FloatArray, v: FloatArray, u: FloatArray) -> FloatArray:
    """Sample (n, 8, 8) at (n, H, W) coordinates with zero outside."""
    padded = np.pad(scans, ((0, 0), (2, 2), (2, 2)))
    v = np.clip(v + 2, 0, 10.999)
    u = np.clip(u + 2, 0, 10.999)
    v0, u0 = v.astype(np.int64), u.astype(np.int64)
    fv, fu = v - v0, u - u0
    flat = padded.reshape(len(scans), -1)
    base = v0 * 12 + u0
    rows = np.arange(len(scans))[:, None, None]
    top = flat[rows, base] * (1 - fu) + flat[rows, base + 1] * fu
    bottom = flat[rows, base + 12] * (1 - fu) + flat[rows, base + 13] * fu
    return np.asarray(top * (1 - fv) + bottom * fv, dtype=np.float32)


def _clutter(rng: np.random.Generator, scans: FloatArray, pool: FloatArray, severity: Severity) -> FloatArray:
    """Fragments of other digits, pushed towards the border, (n, H, W)."""
    n = len(scans)
    other = pool[rng.integers(0, len(pool), n)]
    v, u, _ = _affine_coordinates(rng, n, Severity(rotation_deg=90.0, scale=(0.35, 0.6), shift=0.0))
    away = rng.uniform(0, 2 * np.pi, n)
    reach = rng.uniform(5.0, 9.0, n)  # in source pixels: the fragment's centre lies outside the digit's
    v = v + (np.sin(away) * reach).astype(np.float32)[:, None, None]
    u = u + (np.cos(away) * reach).astype(np.float32)[:, None, None]
    strength = (rng.uniform(0, 1, n) * severity.clutter).astype(np.float32)
    return np.asarray(_bilinear(other, v, u) * strength[:, None, None], dtype=np.float32)


def render(rng: np.random.Generator, scans: FloatArray, pool: FloatArray, severity: Severity) -> FloatArray:
    """Views (n, 3, 40, 40) in [0, 1] of (n, 8, 8) scans; ``pool`` lends the clutter."""
    n = len(scans)
    v, u, side = _affine_coordinates(rng, n, severity)
    ink = _bilinear(scans, v, u)
    if severity.clutter > 0:
        ink = np.maximum(ink, _clutter(rng, scans, pool, severity))
    if severity.occlusion > 0:
        ink = ink * _occlusion_mask(rng, n, side, severity)
    # Two colours at least `contrast` apart in every channel on average; either may be the darker one.
    paper = rng.uniform(0, 1, (n, 3, 1, 1)).astype(np.float32)
    gap = rng.uniform(severity.contrast, 1.0, (n, 1, 1, 1)).astype(np.float32)
    room = np.where(paper > 0.5, -paper, 1 - paper)
    colour = paper + room * gap
    image = paper + (colour - paper) * ink[:, None]
    if severity.noise > 0:
        level = (rng.uniform(0, 1, (n, 1, 1, 1)) * severity.noise).astype(np.float32)
        image = image + level * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.clip(image, 0, 1), dtype=np.float32)


def _occlusion_mask(rng: np.random.Generator, n: int, side: FloatArray, severity: Severity) -> FloatArray:
    """Masks (n, H, W): 0 inside a rectangle near the centre, 1 outside."""
    half = rng.uniform(0, severity.occlusion, (2, n)) * side / 2
    centre = CANVAS_PX / 2 + rng.uniform(-0.35, 0.35, (2, n)) * side
    grid = np.arange(CANVAS_PX, dtype=np.float32)
    inside_y = np.abs(grid[None] - centre[0][:, None]) < half[0][:, None]
    inside_x = np.abs(grid[None] - centre[1][:, None]) < half[1][:, None]
    return np.asarray(1.0 - (inside_y[:, :, None] & inside_x[:, None, :]), dtype=np.float32)


def resize(images: ByteArray, resolution: int) -> FloatArray:
    """Canvases (n, 3, 40, 40) in bytes -> (n, 3, r, r) floats, standardised; r = 40 only standardises."""
    return np.asarray(resize_pixels(images, resolution) * (1 / (255 * STD)) - MEAN / STD, dtype=np.float32)


@dataclass(frozen=True)
class DigitsTask:
    """The embedded classification task: 10 classes, 3 channels, inputs of 24, 32 or 40 px (others are resized to).

    Every method is a pure function of the constants above: two processes, two machines, two years give the same arrays.
    Canvases are kept once drawn, since drawing one costs more than resizing it to every resolution.
    """

    resolutions: Sequence[int] = RESOLUTIONS
    n_classes: int = CLASSES
    name: ClassVar[str] = "the embedded digits"
    mean: ClassVar[tuple[float, ...]] = (MEAN,) * 3
    std: ClassVar[tuple[float, ...]] = (STD,) * 3
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    class_names: ClassVar[tuple[str, ...]] = tuple(str(number) for number in range(CLASSES))
    side_px: ClassVar[int] = CANVAS_PX
    training_images: ClassVar[int] = SPLIT_SIZES["train"]
    _canvases: dict[tuple[Split, int], ByteArray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of everything that decides an image: recipe, constants, scans."""
        scans, labels = _raw()
        text = f"{RECIPE_VERSION} {HARD} {SPLIT_SIZES} {VIEWS_PER_IMAGE} {_SPLIT_SEED} {_VIEW_SEEDS} {MEAN} {STD}"
        return hashlib.sha256(text.encode() + scans.tobytes() + labels.tobytes()).hexdigest()

    def labels(self, split: Split) -> IntArray:
        """Labels of the distinct images of a split, (n,)."""
        return _raw()[1][split_indices(split)]

    def sources(self, split: Split) -> list[str]:
        """The row of each among scikit-learn's digits, ``load_digits().images``."""
        return [f"sklearn.datasets.load_digits:images[{row}]" for row in split_indices(split).tolist()]

    def scans(self, split: Split) -> FloatArray:
        """The raw scans of a split, (n, 8, 8) in [0, 1]."""
        return _raw()[0][split_indices(split)]

    def canvas(self, split: Split, view: int) -> ByteArray:
        """View number ``view`` of every image of a split, (n, 3, 40, 40), 8 bits a channel; not to be written to."""
        if (split, view) not in self._canvases:
            rng = np.random.Generator(np.random.Philox(key=_VIEW_SEEDS[split], counter=[0, 0, 0, view]))
            drawn = quantise(render(rng, self.scans(split), self.scans("train"), HARD))
            drawn.flags.writeable = False
            self._canvases[split, view] = drawn
        return self._canvases[split, view]

    def views(self, split: Split, resolution: int, n_views: int = VIEWS_PER_IMAGE) -> tuple[FloatArray, IntArray]:
        """Corrupted views, (n_views * n, 3, r, r) standardised, and their labels; view-major order."""
        images = np.concatenate([resize(self.canvas(split, view), resolution) for view in range(n_views)])
        return images, np.tile(self.labels(split), n_views)

    def clean(self, split: Split, resolution: int) -> tuple[FloatArray, IntArray]:
        """Upright, centred, uncorrupted images (colours vary), (n, 3, r, r), and their labels."""
        rng = np.random.Generator(np.random.Philox(key=_VIEW_SEEDS[split] + 100))
        canvas = quantise(render(rng, self.scans(split), self.scans("train"), CLEAN))
        return resize(canvas, resolution), self.labels(split)

    def recalibration(self, resolution: int, n_images: int = 400) -> FloatArray:
        """The first ``n_images`` corrupted *training* views, for BatchNorm statistics, (n_images, 3, r, r)."""
        return resize(self.canvas("train", 0)[:n_images], resolution)

    def preprocessing(self, resolution: int) -> Preprocessing:
        """How a canvas becomes an input of this size."""
        return Preprocessing.shrinking(CANVAS_PX, resolution, self.mean, self.std)


def load_digits_task() -> DigitsTask:
    """The embedded task, its file checked.

    Raises:
        InputError: scikit-learn's digits are missing or damaged.
    """
    _raw()
    return DigitsTask()
