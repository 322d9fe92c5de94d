"""Images of the user's own, from an ``.npz`` file as ``numpy.savez`` writes it. numpy only, no torch.

    train_images, validation_images, test_images    uint8 (n, side, side, 3), red first
    train_labels, validation_labels, test_labels    integers (n,), 0 to classes - 1
    class_names                                     (classes,) strings; left out: the numbers
    mean, std                                       (3,) on the scale of 0 to 1; left out: ImageNet's

Training images without labels recalibrate BatchNorm and train nothing. With them the other splits may be left out and
are held out of each class, as ``splits`` does it in a folder by rules 2. Nothing is unpickled, and no array is read
before the headers of all have been checked: a small file can declare (and, compressed, hold) more than any memory.
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
from riwoa.datasets.splits import HELD_OUT_SHARE, Mask, held_out
from riwoa.errors import InputError

MAX_DECLARED_BYTES = 8 * 2**30
# Choice of the recalibration images, resizing, standardising; and what is held out, where something is.
RECIPE_VERSION, _RECIPE_VERSION_HELD_OUT = "image-file-1", "image-file-2"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

_REQUIRED = ("train_images", "validation_images", "validation_labels")
_OPTIONAL = ("train_labels", "test_images", "test_labels", "class_names", "mean", "std")
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_ORDER_SEED = 20_261
_MOST_CLASSES = 100_000


@dataclass(frozen=True, eq=False)
class _Part:
    """The images of a split: rows of one of the file's arrays, and their labels where they have any."""

    array: str
    rows: IntArray
    labels: IntArray | None

    def chosen(self, which: Mask) -> _Part:
        assert self.labels is not None  # none is held out of what has no classes
        return _Part(self.array, self.rows[which], self.labels[which])


@dataclass(frozen=True)
class ImageFileTask:
    """The images of one file. Pixels are read when first asked for, and kept."""

    path: Path
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _headers: Mapping[str, Header]
    _parts: Mapping[Split, _Part]
    _recipe: str
    _pixels: dict[tuple[Split, int], ByteArray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path, *, data_rules: int = 1, data_seed: int = 0) -> ImageFileTask:
        """Check the file's declarations; read what is small.

        Raises:
            InputError: the file is missing, damaged, or its arrays are not those of the module's description.
        """
        if not os.path.isfile(path):
            raise InputError(f"there is no image file at {path}; check oracle.supernet.data")
        with npz.opened(path) as archive:
            headers = {name: npz.header(archive, name, path) for name in _names(archive, path, data_rules)}
            _check_headers(headers, path)
            parts = {s: _part(archive, s, headers, path) for s in _SPLITS if f"{s}_images" in headers}
            mean, std = (_channels(archive, name, headers, path) for name in ("mean", "std"))
            most = max(int(part.labels.max()) + 1 for part in parts.values() if part.labels is not None)
            names = _class_names(archive, headers, most, path)
        given = set(parts)
        if data_rules > 1:
            _hold_out(parts, data_seed, path)
        recipe = RECIPE_VERSION if given == set(parts) else f"{_RECIPE_VERSION_HELD_OUT} {data_seed}"
        return cls(path, names, mean, std, headers, parts, recipe)

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
        return hashlib.sha256(f"{self._recipe} {content}".encode()).hexdigest()

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that exist."""
        return tuple(split for split in _SPLITS if split in self._parts)

    @property
    def side_px(self) -> int:
        """Side of the training images."""
        return self._headers["train_images"].shape[1]

    @property
    def training_images(self) -> int:
        """Number of training images."""
        return len(self._parts["train"].rows)

    def labels(self, split: Split) -> IntArray:
        """Labels of a split, (n,).

        Raises:
            InputError: the training images have none.
        """
        labels = self._parts[split].labels
        if labels is None:
            raise InputError(
                f"{self.path} has no labels for its training images, so no supernet can be trained on it; add "
                "train_labels"
            )
        return labels

    def sources(self, split: Split) -> list[str]:
        """The file, the array and the row of each image."""
        part = self._parts[split]
        return [f"{self.path}:{part.array}[{row}]" for row in part.rows.tolist()]

    def pixels(self, split: Split) -> ByteArray:
        """The images of a split, (n, side, side, 3).

        Raises:
            InputError: the file is damaged.
        """
        return self._read(split, self._parts[split].rows)

    def views(self, split: Split, resolution: int, n_views: int = 1) -> tuple[FloatArray, IntArray]:
        """Standardised images (n, 3, r, r) and labels; one view an image whatever ``n_views``, which is the digits'.

        Raises:
            InputError: the file is damaged.
        """
        return self._standardised(split, self._parts[split].rows, resolution), self.labels(split)

    def recalibration(self, resolution: int, n_images: int) -> FloatArray:
        """The first ``n_images`` of a fixed permutation of the training images, (n_images, 3, r, r).

        Raises:
            InputError: the file is damaged.
        """
        order = np.random.Generator(np.random.Philox(key=_ORDER_SEED)).permutation(self.training_images)
        return self._standardised("train", self._parts["train"].rows[order[:n_images]], resolution)

    def preprocessing(self, resolution: int) -> Preprocessing:
        """How a picture of the size of the file's own becomes an input of this size."""
        side_px = self._headers[self._parts["validation"].array].shape[1]
        return Preprocessing.shrinking(side_px, resolution, self.mean, self.std)

    def _standardised(self, split: Split, rows: IntArray, resolution: int) -> FloatArray:
        if (split, len(rows)) not in self._pixels:  # what the rows are follows from both
            self._pixels[split, len(rows)] = self._read(split, rows)
        pixels = self._pixels[split, len(rows)]
        return standardise(pixels, self.mean, self.std, resolution)

    def _read(self, split: Split, rows: IntArray) -> ByteArray:
        """Images (len(rows), side, side, 3) in the order of ``rows``, read front to back and no others kept."""
        name = self._parts[split].array
        header = self._headers[name]
        pixels = np.empty((len(rows), *header.shape[1:]), np.uint8)
        each = math.prod(header.shape[1:])
        with npz.opened(self.path) as archive, archive.open(f"{name}.npy") as stream:
            for place in np.argsort(rows):
                stream.seek(header.start_bytes + int(rows[place]) * each)
                pixels[place] = np.frombuffer(stream.read(each), np.uint8).reshape(header.shape[1:])
        return pixels


def _names(archive: zipfile.ZipFile, path: Path, data_rules: int) -> list[str]:
    known = [f"{name}.npy" for name in _REQUIRED + _OPTIONAL]
    unknown = [name.removesuffix(".npy") for name in archive.namelist() if name not in known]
    if unknown:  # ignoring a misspelt "std" would cost accuracy without a word
        raise InputError(f"{path}: unknown array {unknown[0]!r}; known are {', '.join(_REQUIRED + _OPTIONAL)}")
    names = npz.names(archive)
    split = data_rules > 1 and "train_labels" in names  # whatever lacks is held out
    wanted = {"train_images"} if split else set(_REQUIRED)
    for pair in ({"validation_images", "validation_labels"}, {"test_images", "test_labels"}):
        wanted |= pair if not pair.isdisjoint(names) else set()
    missing = sorted(wanted - set(names), key=(_REQUIRED + _OPTIONAL).index)
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
        elif name == "class_names":
            wanted, fits = "(classes,) strings", kind.kind == "U" and len(shape) == 1 and shape[0] <= _MOST_CLASSES
        else:
            wanted, fits = "3 numbers, one a channel", kind.kind in "fiu" and shape == (3,)
        if not fits:
            raise InputError(f"{path}: {name} is {kind} {shape}, should be {wanted}")
        if 0 in shape:
            raise InputError(f"{path}: {name} is empty; add images")


def _part(archive: zipfile.ZipFile, split: Split, headers: Mapping[str, Header], path: Path) -> _Part:
    labels = _labels(archive, split, path) if f"{split}_labels" in headers else None
    return _Part(f"{split}_images", np.arange(headers[f"{split}_images"].shape[0]), labels)


def _labels(archive: zipfile.ZipFile, split: str, path: Path) -> IntArray:
    labels = npz.values(archive, f"{split}_labels")
    if int(labels.min()) < 0 or int(labels.max()) >= 2**31:
        raise InputError(f"{path}: {split}_labels go from {labels.min()} to {labels.max()}; classes are counted from 0")
    return np.asarray(labels, dtype=np.int64)


def _class_names(archive: zipfile.ZipFile, headers: Mapping[str, Header], at_least: int, path: Path) -> tuple[str, ...]:
    if "class_names" not in headers:
        return tuple(str(number) for number in range(min(at_least, _MOST_CLASSES)))
    names = tuple(str(name) for name in npz.values(archive, "class_names"))
    if len(names) < at_least or len(set(names)) < len(names):
        raise InputError(f"{path}: class_names holds {len(set(names))} names, the labels go up to {at_least - 1}")
    return names


def _hold_out(parts: dict[Split, _Part], seed: int, path: Path) -> None:
    """Make the splits that are missing out of others, where these have labels.

    Raises:
        InputError: no class has two images.
    """

    def take(source: Split, target: Split, share: float) -> None:
        given = parts[source]
        if given.labels is None:
            return
        rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, 4 + _SPLITS.index(target)]))
        held = held_out(given.labels, share, lambda members: [[int(i)] for i in rng.permutation(members)])
        if np.any(held):
            parts[target], parts[source] = given.chosen(held), given.chosen(~held)

    if "test" not in parts:
        take(*(("validation", "test", 0.5) if "validation" in parts else ("train", "test", HELD_OUT_SHARE)))
    if "validation" not in parts:
        take("train", "validation", HELD_OUT_SHARE)
    if "validation" not in parts:
        raise InputError(f"{path}: no class has two training images, so that none can judge; add images")


def _channels(archive: zipfile.ZipFile, name: str, headers: Mapping[str, Header], path: Path) -> tuple[float, ...]:
    if name not in headers:
        return IMAGENET[name]
    values = tuple(float(v) for v in npz.values(archive, name))
    if not all((0 <= v if name == "mean" else 0 < v) and v <= 1 for v in values):
        raise InputError(f"{path}: {name} is {values}, should be on the scale of 0 to 1 (divide by 255)")
    return values
