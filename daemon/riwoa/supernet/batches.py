"""Where training batches come from: the digits' renderer, or images kept as bytes on the training device.

Everything random is drawn by numpy from a counter-based generator, a few integers an image, so the same images come out
on every device; what is done with them is a few batched operations there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from riwoa.datasets.arrays import ByteArray, FloatArray, IntArray, quantise, resize_matrix
from riwoa.datasets.catalogue import LabelledPixels
from riwoa.datasets.digits import CLEAN, DigitsTask, between, render, resize
from riwoa.errors import InputError

if TYPE_CHECKING:
    from riwoa.datasets.catalogue import ImageTask
    from riwoa.supernet.recipe import Recipe


_MOST_LOG_ASPECT = math.log(4 / 3)  # of a window


class Batches(Protocol):
    """What a trainer needs of its data."""

    def batch(self, step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Images (n, 3, r, r) at one of the recipe's resolutions, channels-last, and labels (n,), on the device.

        A function of ``step`` and of what ``rng`` draws alone.
        """


def batches_of(task: ImageTask, recipe: Recipe, device: torch.device) -> Batches:
    """The task's training images.

    Raises:
        InputError: it has none with labels.
    """
    if isinstance(task, DigitsTask):
        return DigitsBatches(task, recipe, device)
    labels = training_labels(task)
    assert isinstance(task, LabelledPixels)
    return ImageBatches(task.pixels("train"), labels, (task.mean, task.std), recipe, device)


def training_labels(task: ImageTask) -> IntArray:
    """Labels of the training images, (n,).

    Raises:
        InputError: they have none.
    """
    if not isinstance(task, DigitsTask | LabelledPixels):
        raise InputError(f"{task.name} has no labels for its training images, so no supernet can be trained on it")
    return task.labels("train")


def class_weights(labels: IntArray, n_classes: int, power: float) -> FloatArray:
    """What a label of each class weighs in the loss, (n_classes,): frequency to the power ``-power``, 1 on average.

    Averaged over the labels, so that the loss stays as large as it is; a class without images weighs nothing.
    """
    counts = np.bincount(labels, minlength=n_classes).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0.0)
    return np.asarray(weights * (len(labels) / (weights * counts).sum()), np.float32)


def steps_per_epoch(task: ImageTask, recipe: Recipe) -> int:
    """Steps in which every training image is met about once.

    Raises:
        InputError: the training images have no labels.
    """
    return max(1, len(training_labels(task)) // recipe.batch_images)


class DigitsBatches:
    """Corrupted views of the embedded digits, harder from step to step; drawn anew each time, on the CPU."""

    def __init__(self, task: DigitsTask, recipe: Recipe, device: torch.device) -> None:
        self._scans, self._labels = task.scans("train"), task.labels("train")
        self._recipe = recipe
        self._device = device

    def batch(self, step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """See ``Batches``."""
        recipe, scans = self._recipe, self._scans
        chosen = rng.integers(0, len(scans), recipe.batch_images)
        n_clean = round(recipe.clean_share * recipe.batch_images)
        severity = between(min(1.0, (step + 1) / max(1, recipe.curriculum_steps)))
        hard = render(rng, scans[chosen[n_clean:]], scans, severity)
        clean = render(rng, scans[chosen[:n_clean]], scans, CLEAN)
        resolution = int(rng.choice(recipe.resolutions))
        images = torch.from_numpy(resize(quantise(np.concatenate([clean, hard])), resolution)).to(self._device)
        labels = torch.from_numpy(self._labels[chosen]).to(self._device)
        return images.contiguous(memory_format=torch.channels_last), labels


class ImageBatches:
    """Images in a new order each epoch: shifted by some pixels (the edge mirrored), flipped, a square cut out.

    With ``zoom`` below 1 a random window of each is shown instead, which larger photographs want. The last images of an
    epoch that fill no batch are left out of it. Cutout: DeVries & Taylor, 2017.

    Args:
        pixels: (n, side, side, 3), kept on the device as they are.
        labels: (n,).
        moments: mean and deviation by channel, on the scale of 0 to 1.
        recipe: says how much of each augmentation, and the resolutions.
        device: where they are kept and worked on.
    """

    def __init__(
        self,
        pixels: ByteArray,
        labels: IntArray,
        moments: tuple[tuple[float, ...], tuple[float, ...]],
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self._pixels = torch.tensor(pixels, device=device)
        self._labels = torch.tensor(labels, device=device)
        self._recipe = recipe
        self._device = device
        self._side = int(pixels.shape[1])
        self._batch_images = min(recipe.batch_images, len(labels))
        self._grid = torch.arange(self._side, device=device)
        mean, std = (torch.tensor(moment, device=device).reshape(1, 3, 1, 1) for moment in moments)
        self._scale, self._shift = 1 / (255 * std), mean / std
        self._resizing = {
            r: torch.tensor(resize_matrix(self._side, r), device=device) for r in recipe.resolutions if r != self._side
        }
        self._order: tuple[int, IntArray] = (-1, np.empty(0, np.int64))

    def batch(self, step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """See ``Batches``."""
        recipe, n, side = self._recipe, self._batch_images, self._side
        shifts = rng.integers(-recipe.crop_px, recipe.crop_px + 1, (2, n))
        flips = rng.integers(0, 2, n) * recipe.flip
        centres = rng.integers(0, side, (2, n))
        resolution = int(rng.choice(recipe.resolutions))
        rows, down, right, flipped, cut_y, cut_x = self._sent(np.stack([self._rows(step), *shifts, flips, *centres]))
        if recipe.zoom < 1.0:
            images = self._cut(rows, flipped, self._sent(_windows(rng, n, recipe.zoom)), resolution)
        else:
            images = self._shifted(rows, down, right, flipped)
        if recipe.colour:
            contrast, brightness = self._sent(rng.uniform(-recipe.colour, recipe.colour, (2, n)).astype(np.float32))
            images = images * (1 + contrast[:, None, None, None]) + brightness[:, None, None, None]
        if recipe.cutout_px:
            # Its side is a share of what is shown, at whatever size.
            grid = (
                self._grid
                if images.shape[-1] == side
                else torch.linspace(0, side - 1, images.shape[-1], device=self._device)
            )
            near_y, near_x = (2 * (grid - c[:, None]).abs() < recipe.cutout_px for c in (cut_y, cut_x))
            images.masked_fill_((near_y[:, :, None] & near_x[:, None, :])[:, None], 0.0)
        if resolution != images.shape[-1]:
            weights = self._resizing[resolution]
            images = weights @ images @ weights.T
        return images.contiguous(memory_format=torch.channels_last), self._labels[rows]

    def _shifted(self, rows: Tensor, down: Tensor, right: Tensor, flipped: Tensor) -> Tensor:
        """Standardised images (n, 3, side, side), shifted and flipped."""
        y = _mirrored(self._grid + down[:, None], self._side)
        x = _mirrored(self._grid + right[:, None], self._side)
        x = torch.where(flipped[:, None] == 1, self._side - 1 - x, x)
        return self._standardised(self._pixels[rows[:, None, None], y[:, :, None], x[:, None, :]])

    def _cut(self, rows: Tensor, flipped: Tensor, windows: Tensor, resolution: int) -> Tensor:
        """Standardised windows (n, 3, r, r) of the images: ``windows`` (4, n) are half sizes and centres on -1 to 1."""
        half_y, half_x, y, x = windows
        half_x = torch.where(flipped == 1, -half_x, half_x)
        zero = torch.zeros_like(y)
        moves = torch.stack([torch.stack([half_x, zero, x], 1), torch.stack([zero, half_y, y], 1)], 1)
        grid = F.affine_grid(moves, [len(rows), 3, resolution, resolution], align_corners=False)
        images = self._standardised(self._pixels[rows])
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _standardised(self, pixels: Tensor) -> Tensor:
        return pixels.permute(0, 3, 1, 2).to(torch.float32) * self._scale - self._shift

    def _rows(self, step: int) -> IntArray:
        epoch, place = divmod(step, len(self._labels) // self._batch_images)
        if self._order[0] != epoch:
            # The counter's third word keeps it apart from the generators of single steps.
            rng = np.random.Generator(np.random.Philox(key=self._recipe.seed, counter=[0, 0, 1, epoch]))
            self._order = epoch, rng.permutation(len(self._labels))
        return self._order[1][place * self._batch_images :][: self._batch_images]

    def _sent(self, draws: IntArray | FloatArray) -> Tensor:
        """A copy on the device, queued behind what it is doing: pinned memory needs no waiting."""
        tensor = torch.from_numpy(draws)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor


def _windows(rng: np.random.Generator, n: int, least_share: float) -> FloatArray:
    """Windows (4, n) of a square from -1 to 1: half heights, half widths, and centres at which they lie inside.

    Area and aspect as of Szegedy et al., "Going Deeper with Convolutions", 2015.
    """
    share, aspect = rng.uniform(least_share, 1.0, n), np.exp(rng.uniform(-_MOST_LOG_ASPECT, _MOST_LOG_ASPECT, n))
    half = np.minimum(1.0, np.sqrt([share / aspect, share * aspect]))
    return np.concatenate([half, rng.uniform(-1.0, 1.0, (2, n)) * (1 - half)]).astype(np.float32)


def _mirrored(index: Tensor, side: int) -> Tensor:
    """Pixels beyond an edge are those as far on this side of it (the edge itself is not repeated)."""
    return (side - 1 - (side - 1 - index.abs()).abs()).abs()
