"""What the oracle and the export need of a data set, and the data set that a configuration names. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from riwoa.errors import InputError
from riwoa.oracle.cifar import Cifar100Task, find_cifar100
from riwoa.oracle.data import FloatArray, IntArray, Split, load_digits_task
from riwoa.oracle.images import ImageFileTask
from riwoa.oracle.protocol import SupernetSpec


class ImageTask(Protocol):
    """Square colour images with labels, the same arrays in every process that asks."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def sha256(self) -> str:
        """Hash of everything that decides an image or a label."""

    @property
    def mean(self) -> tuple[float, ...]:
        """What was taken from each channel, on the scale of 0 to 1."""

    @property
    def std(self) -> tuple[float, ...]:
        """What each channel was divided by afterwards."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those there are; "test" may be missing."""

    @property
    def training_images(self) -> int:
        """How many there are to recalibrate on."""

    def labels(self, split: Split) -> IntArray:
        """Labels of the distinct images of the validation or test split, (n,)."""

    def views(self, split: Split, resolution: int, n_views: int) -> tuple[FloatArray, IntArray]:
        """Standardised images (n, 3, r, r) of the validation or test split, and their labels."""

    def recalibration(self, resolution: int, n_images: int) -> FloatArray:
        """Standardised *training* images (n_images, 3, r, r), for BatchNorm statistics."""


def load_task(data: str) -> ImageTask:
    """The embedded digits, CIFAR-100 (its archive, or the folder of it), or the images of an ``.npz`` file.

    Raises:
        InputError: the digits are missing, or the file is missing or not what it should be.
    """
    if data == "digits":
        return load_digits_task()
    if find_cifar100(Path(data)) is not None:
        return Cifar100Task.open(Path(data))
    return ImageFileTask.open(Path(data))


def check_task(task: ImageTask, spec: SupernetSpec) -> None:
    """Refuse a task that the spec's supernet cannot be judged on.

    Raises:
        InputError: a split that is missing, a label without a class, too few training images.
    """
    if spec.split not in task.splits:
        raise InputError(
            f"{task.name}: there is no {spec.split} split; add {spec.split}_images and {spec.split}_labels"
        )
    for split in task.splits[1:]:
        largest = int(task.labels(split).max())
        if largest >= spec.n_classes:
            raise InputError(
                f"{task.name}: {split} labels go up to {largest}, but the supernet has the classes 0 to "
                f"{spec.n_classes - 1}; check oracle.n_classes"
            )
    if spec.recalibration_images > task.training_images:
        raise InputError(
            f"{task.name}: {task.training_images} training images are too few for oracle.recalibration_images = "
            f"{spec.recalibration_images}; lower it, or add images"
        )
