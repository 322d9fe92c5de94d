"""Images of the user's own, from an ``.npz`` file as ``numpy.savez`` writes it. numpy only, no torch.

    train_images, validation_images, test_images    uint8 (n, side, side, 3), red first; the last may be left out
    validation_labels, test_labels                  integers (n,), 0 to classes - 1
    mean, std                                       (3,) on the scale of 0 to 1; left out: ImageNet's

Training images serve to recalibrate BatchNorm and need no labels. Nothing is unpickled, and no array is read before the
headers of all have been checked: a small file can declare (and, compressed, hold) more than any memory.
"""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from riwoa.datasets import npz
from riwoa.datasets.arrays import ByteArray, FloatArray, IntArray, Split, standardise
from riwoa.datasets.npz import Header
from riwoa.datasets.preprocessing import Preprocessing
from riwoa.errors import InputError

MAX_DECLARED_BYTES = 8 * 2**30
RECIPE_VERSION = "image-file-1"  # choice of the recalibration images, resizing, standardising
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

_REQUIRED = ("train_images", "validation_images", "validation_labels")
_OPTIONAL = ("test_images", "test_labels", "mean", "std")
_ORDER_SEED = 20_261


@dataclass(frozen=True)
class ImageFileTask:
    """The images of one file. Pixels are read when first asked for, and kept."""

    path: Path
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _headers: Mapping[str, Header]
    _labels: Mapping[Split, IntArray]
    _pixels: dict[tuple[Split, int], ByteArray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> ImageFileTask:
        """Check the file's declarations; read what is small.

        Raises:
            InputError: the file is missing, damaged, or its arrays are not those of the module's description.
        """
        if not os.path.isfile(path):
            raise InputError(f"there is no image file at {path}; check oracle.supernet.data")
        with npz.opened(path) as archive:
            headers = {name: npz.header(archive, name, path) for name in _names(archive, path)}
            _check_headers(headers, path)
            judged: tuple[Split, ...] = ("validation", "test")
            labels = {s: _labels(archive, s, path) for s in judged if f"{s}_images" in headers}
            mean, std = (_channels(archive, name, headers, path) for name in ("mean", "std"))
        return cls(path, mean, std, headers, labels)

    @property
    def name(self) -> str:
        """The file's name."""
        return str(self.path)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file as it is on the disk, and of what is done with it."""
        try:
            with self.path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"cannot read {self.path} ({error.strerror}); check oracle.supernet.data") from error
        return hashlib.sha256(f"{RECIPE_VERSION} {content}".encode()).hexdigest()

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that exist: training, and those with labels."""
        return ("train", *self._labels)

    @property
    def training_images(self) -> int:
        """Number of training images."""
        return self._headers["train_images"].shape[0]

    def labels(self, split: Split) -> IntArray:
        """Labels of the validation or test split, (n,)."""
        return self._labels[split]

    def views(self, split: Split, resolution: int, n_views: int = 1) -> tuple[FloatArray, IntArray]:
        """Standardised images (n, 3, r, r) and labels; one view an image whatever ``n_views``, which is the digits'.

        Raises:
            InputError: the file is damaged.
        """
        labels = self._labels[split]
        return self._standardised(split, np.arange(len(labels)), resolution), labels

    def recalibration(self, resolution: int, n_images: int) -> FloatArray:
        """The first ``n_images`` of a fixed permutation of the training images, (n_images, 3, r, r).

        Raises:
            InputError: the file is damaged.
        """
        order = np.random.Generator(np.random.Philox(key=_ORDER_SEED)).permutation(self.training_images)
        return self._standardised("train", order[:n_images], resolution)

    def preprocessing(self, resolution: int) -> Preprocessing:
        """How a picture of the size of the file's own becomes an input of this size."""
        side_px = self._headers["validation_images"].shape[1]
        return Preprocessing.shrinking(side_px, resolution, self.mean, self.std)

    def _standardised(self, split: Split, rows: IntArray, resolution: int) -> FloatArray:
        if (split, len(rows)) not in self._pixels:  # what the rows are follows from both
            self._pixels[split, len(rows)] = self._read(split, rows)
        pixels = self._pixels[split, len(rows)]
        return standardise(pixels, self.mean, self.std, resolution)

    def _read(self, split: Split, rows: IntArray) -> ByteArray:
        """Images (len(rows), side, side, 3) in the order of ``rows``, read front to back and no others kept."""
        name = f"{split}_images"
        header = self._headers[name]
        pixels = np.empty((len(rows), *header.shape[1:]), np.uint8)
        each = math.prod(header.shape[1:])
        with npz.opened(self.path) as archive, archive.open(f"{name}.npy") as stream:
            for place in np.argsort(rows):
                stream.seek(header.start_bytes + int(rows[place]) * each)
                pixels[place] = np.frombuffer(stream.read(each), np.uint8).reshape(header.shape[1:])
        return pixels


def _names(archive: zipfile.ZipFile, path: Path) -> list[str]:
    known = [f"{name}.npy" for name in _REQUIRED + _OPTIONAL]
    unknown = [name.removesuffix(".npy") for name in archive.namelist() if name not in known]
    if unknown:  # ignoring a misspelt "std" would cost accuracy without a word
        raise InputError(f"{path}: unknown array {unknown[0]!r}; known are {', '.join(_REQUIRED + _OPTIONAL)}")
    names = npz.names(archive)
    pairs = [n for n in ("test_images", "test_labels") if not {"test_images", "test_labels"}.isdisjoint(names)]
    missing = [name for name in (*_REQUIRED, *pairs) if name not in names]
    if missing:
        raise InputError(f"{path}: there is no array {missing[0]!r}; add it with numpy.savez")
    return names


def _check_headers(headers: Mapping[str, Header], path: Path) -> None:
    total = sum(header.size_bytes for header in headers.values())
    if total > MAX_DECLARED_BYTES:
        raise InputError(
            f"{path}: its arrays take {total / 2**30:.1f} GiB, at most {MAX_DECLARED_BYTES >> 30} are read; "
            "leave images out or make them smaller"
        )
    for name, header in sorted(headers.items()):  # images before the labels that are to match them
        shape, kind = header.shape, header.dtype
        if name.endswith("_images"):
            square = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3
            wanted, fits = "uint8 (n, side, side, 3), square", kind == np.uint8 and square
        elif name.endswith("_labels"):
            n = headers[name.replace("labels", "images")].shape[0]
            wanted, fits = f"integers ({n},), one an image", kind.kind in "iu" and shape == (n,)
        else:
            wanted, fits = "3 numbers, one a channel", kind.kind in "fiu" and shape == (3,)
        if not fits:
            raise InputError(f"{path}: {name} is {kind} {shape}, should be {wanted}")
        if 0 in shape:
            raise InputError(f"{path}: {name} is empty; add images")


def _labels(archive: zipfile.ZipFile, split: str, path: Path) -> IntArray:
    labels = npz.values(archive, f"{split}_labels")
    if int(labels.min()) < 0 or int(labels.max()) >= 2**31:
        raise InputError(f"{path}: {split}_labels go from {labels.min()} to {labels.max()}; classes are counted from 0")
    return np.asarray(labels, dtype=np.int64)


def _channels(archive: zipfile.ZipFile, name: str, headers: Mapping[str, Header], path: Path) -> tuple[float, ...]:
    if name not in headers:
        return IMAGENET[name]
    values = tuple(float(v) for v in npz.values(archive, name))
    if not all((0 <= v if name == "mean" else 0 < v) and v <= 1 for v in values):
        raise InputError(f"{path}: {name} is {values}, should be on the scale of 0 to 1 (divide by 255)")
    return values
