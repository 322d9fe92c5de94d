"""Which pictures retrain a network, and which judge it.

Nothing is chosen while a network is retrained, so what validated in the search trains here too: all pictures but those
that judge. Those are the test pictures; where there are none, the validation pictures, which then train nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from riwoa.datasets.arrays import ByteArray, IntArray
from riwoa.datasets.catalogue import LabelledPixels
from riwoa.datasets.digits import DigitsTask
from riwoa.search.rng import generator
from riwoa.supernet.batches import Batches, DigitsBatches, ImageBatches, training_labels
from riwoa.supernet.plan import Pictures

if TYPE_CHECKING:
    import torch

    from riwoa.datasets.arrays import Split
    from riwoa.datasets.catalogue import ImageTask
    from riwoa.supernet.recipe import Recipe


def judging_split(task: ImageTask) -> Split:
    """The split that judges retrained networks."""
    return "test" if "test" in task.splits else "validation"


@dataclass(frozen=True, slots=True, eq=False)
class TrainingPictures:
    """All that trains: pixels (n, s, s, 3) and labels (n,). The digits, drawn anew at every step, have no pixels."""

    task: ImageTask
    pixels: ByteArray | None
    labels: IntArray

    @classmethod
    def of(cls, task: ImageTask, most: int | None = None, seed: int = 0) -> TrainingPictures:
        """The training pictures and, unless they judge, the validation pictures; at most ``most``, drawn by the seed.

        Raises:
            InputError: the training pictures have no labels.
        """
        labels = training_labels(task)
        if isinstance(task, DigitsTask):
            return cls(task, None, labels)
        assert isinstance(task, LabelledPixels)
        pixels = task.pixels("train")
        if judging_split(task) != "validation" and "validation" in task.splits:
            pixels = np.concatenate([pixels, task.pixels("validation")])
            labels = np.concatenate([labels, task.labels("validation")])
        if most is not None and most < len(labels):
            rows = np.sort(generator(seed, 0, "retrain.pictures").permutation(len(labels))[:most])
            pixels, labels = pixels[rows], labels[rows]
        return cls(task, pixels, labels)

    def described(self, n_classes: int) -> Pictures:
        """What a recipe depends on of them."""
        filled = np.bincount(self.labels, minlength=n_classes)
        filled = filled[filled > 0]
        side_px = self.task.side_px if self.pixels is None else self.pixels.shape[1]
        return Pictures(n_classes, len(self.labels), side_px, float(filled.max() / filled.min()))

    def batches(self, recipe: Recipe, device: torch.device) -> Batches:
        """Where a trainer's batches come from."""
        if self.pixels is None:
            assert isinstance(self.task, DigitsTask)
            return DigitsBatches(self.task, recipe, device)
        return ImageBatches(self.pixels, self.labels, (self.task.mean, self.task.std), recipe, device)


def judging_pictures(task: ImageTask, most: int | None = None) -> tuple[ByteArray, IntArray]:
    """Pictures (n, s, s, 3) to be corrupted and their labels: those that judge, or ``most`` of them, evenly spread.

    Of the digits, one view of each.
    """
    split = judging_split(task)
    labels = task.labels(split)
    rows = np.arange(len(labels))
    if most is not None and most < len(labels):
        rows = rows[:most] * len(labels) // most
    if isinstance(task, DigitsTask):
        return np.ascontiguousarray(task.canvas(split, 0).transpose(0, 2, 3, 1)[rows]), labels[rows]
    assert isinstance(task, LabelledPixels)
    return np.array(task.pixels(split)[rows]), labels[rows]
