"""What the oracle and the export need of a data set, and the data set that a configuration names. No torch."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from riwoa.datasets.arrays import ByteArray, Images, IntArray, Split
from riwoa.datasets.cifar import Cifar100Task, find_cifar100
from riwoa.datasets.digits import load_digits_task
from riwoa.datasets.folder import FolderTask
from riwoa.datasets.image_file import ImageFileTask
from riwoa.datasets.preprocessing import Preprocessing
from riwoa.datasets.spec import DataSpec
from riwoa.errors import InputError


class ImageTask(Protocol):
    """Square colour images with labels, the same arrays in every process that asks."""

    @property
    def name(self) -> str:
        """The name that messages use."""

    @property
    def sha256(self) -> str:
        """Hash of everything that decides an image or a label."""

    @property
    def mean(self) -> tuple[float, ...]:
        """What is subtracted from each channel, on the scale of 0 to 1."""

    @property
    def std(self) -> tuple[float, ...]:
        """What each channel is divided by afterwards."""

    @property
    def side_px(self) -> int:
        """Side of the training images, where these are square pixels to train on."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels mean, in their order; the numbers where nothing names them."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that exist; "test" may be missing."""

    @property
    def training_images(self) -> int:
        """Number of training images, which recalibration may use."""

    def labels(self, split: Split) -> IntArray:
        """Labels of the distinct images of a split, (n,).

        Raises:
            InputError: of the training images, where they have none.
        """

    def sources(self, split: Split) -> list[str]:
        """Where each of ``labels`` comes from: the path of a file, or a file's name with an array and a row."""

    def views(self, split: Split, resolution: int, n_views: int) -> tuple[Images, IntArray]:
        """Standardised images (n, 3, r, r) of the validation or test split, and their labels."""

    def recalibration(self, resolution: int, n_images: int) -> Images:
        """Standardised *training* images (n_images, 3, r, r), for BatchNorm statistics."""

    def preprocessing(self, resolution: int) -> Preprocessing:
        """How a picture from outside becomes an input of this size, exactly as these images did."""


@runtime_checkable
class LabelledPixels(Protocol):
    """What a task of images must have besides ``ImageTask`` to be trained on."""

    def pixels(self, split: Split) -> ByteArray:
        """Images (n, side, side, 3)."""

    def labels(self, split: Split) -> IntArray:
        """Their labels, (n,)."""


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


def task_of(spec: DataSpec) -> ImageTask:
    """The task of a spec: one of ``load_task``, or a folder of images.

    Raises:
        InputError: as ``load_task``, and what ``FolderTask.open`` refuses.
    """
    path = Path(spec.data)
    if spec.data == "digits" or find_cifar100(path) is not None:
        return load_task(spec.data)
    if os.path.isdir(path):
        return FolderTask.open(spec)
    return ImageFileTask.open(path, data_rules=spec.data_rules, data_seed=spec.data_seed)


def check_task(task: ImageTask, spec: DataSpec) -> None:
    """Refuse a task that the spec's supernet cannot be judged on.

    Raises:
        InputError: its split is missing, a label of it without a class, too few training images.
    """
    if spec.split not in task.splits:
        raise InputError(
            f"{task.name}: there is no {spec.split} split; add {spec.split}_images and {spec.split}_labels"
        )
    largest = int(task.labels(spec.split).max())  # of this split alone: a folder's others would be decoded for it
    if largest >= spec.n_classes:
        raise InputError(
            f"{task.name}: {spec.split} labels go up to {largest}, but the supernet has the classes 0 to "
            f"{spec.n_classes - 1}; check oracle.supernet.n_classes"
        )
    if spec.data_rules == 1 and spec.recalibration_images > task.training_images:  # later: all there are
        raise InputError(
            f"{task.name}: {task.training_images} training images are too few for "
            f"oracle.supernet.recalibration_images = {spec.recalibration_images}; lower it, or add images"
        )


def check_every_split(task: ImageTask, spec: DataSpec) -> None:
    """``check_task`` of each split that can judge, whichever ``spec`` names.

    Raises:
        InputError: as ``check_task``.
    """
    judging: tuple[Literal["validation", "test"], ...] = ("validation", "test")
    for split in judging:
        if split in task.splits:
            check_task(task, replace(spec, split=split))
