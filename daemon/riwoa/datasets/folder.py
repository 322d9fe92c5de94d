"""ImageNet-style folders as a task: the class is the folder's name. Pillow and numpy only, no torch.

    DIR/val/<class>/*       judge; without DIR/val, DIR/<class>/* do
    DIR/train/<class>/*     recalibrate BatchNorm, never the images that judge
    DIR/test/<class>/*      judge winners, where there are any (ImageNet's own has no classes)

Pictures are what Pillow opens. What is none is counted and named, and refused where it is more than a few files.

Classes are counted in the sorted order of their names, which for ImageNet's wnids is the order of its published
networks. Of each split a fixed random choice is used; a smaller one is the beginning of a larger one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path

import numpy as np

from riwoa.datasets.arrays import Images, IntArray, Split
from riwoa.datasets.decoding import RULE_VERSION, Listing, Prepared, StandardisedImages, cache_directory, named, prepare
from riwoa.datasets.entries import Inventory, inventory, some, subfolders
from riwoa.datasets.image_file import IMAGENET
from riwoa.datasets.preprocessing import Preprocessing
from riwoa.datasets.spec import DataSpec
from riwoa.errors import InputError
from riwoa.text import printable

_MOST_REMARK_CHARACTERS = 1_000
_STREAMS: Mapping[Split, int] = {"train": 1, "validation": 2, "test": 3}  # counters of the random choices


@dataclass(frozen=True)
class FolderTask:
    """Images of one folder, decoded into the cache when they are first asked for."""

    root: Path
    resolutions: tuple[int, ...]  # decoded together
    _found: Mapping[Split, Listing]
    _labels: Mapping[Split, IntArray]  # of the listings, readable or not
    _training_images: int
    _split: Split  # the one that the oracle judges on
    _cache: Path
    _prepared: dict[Split, Prepared] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, spec: DataSpec, cache: Path | None = None) -> FolderTask:
        """List the folder of ``spec.data`` and choose; no picture is read.

        Raises:
            InputError: no such folder, classes that are not the supernet's, no images, or none to recalibrate on.
        """
        root = Path(spec.data)
        judged = _judged_folders(root)
        training = inventory(_training_folder(root, judged, spec.recalibration_data), loose=True)
        training.check()
        _remark(training.folder, training.remarks())
        found: dict[Split, Listing] = {}
        found["train"], _ = _listing("train", training, spec.recalibration_images, spec.data_seed)
        labels: dict[Split, IntArray] = {}
        for split, folder in judged.items():
            there = inventory(folder)
            _check_classes(there, spec.n_classes)
            there.check()
            if not there.pictures:
                raise InputError(f"{folder}: its class folders hold no picture; check oracle.supernet.data")
            _remark(folder, [*there.remarks(), *_differences(there, training)])
            found[split], labels[split] = _listing(split, there, spec.validation_images, spec.data_seed)
        directory = cache_directory() if cache is None else cache
        return cls(root, spec.resolutions, found, labels, len(training.pictures), spec.split, directory)

    @property
    def name(self) -> str:
        """The folder's name."""
        return str(self.root)

    @cached_property
    def sha256(self) -> str:
        """Hash of the chosen files' bytes, of their labels, and of what is done with them."""
        facts: list[object] = [RULE_VERSION, metadata.version("pillow"), IMAGENET]
        facts += [self._ready("train").content_sha256, self._ready(self._split).content_sha256]
        facts.append(self.labels(self._split).tolist())
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @property
    def mean(self) -> tuple[float, ...]:
        """ImageNet's, by channel on the scale of 0 to 1."""
        return IMAGENET["mean"]

    @property
    def std(self) -> tuple[float, ...]:
        """ImageNet's, by channel on the scale of 0 to 1."""
        return IMAGENET["std"]

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that exist; training always does."""
        return ("train", *self._labels)

    @property
    def training_images(self) -> int:
        """Number of training images; recalibration uses some of them."""
        return self._training_images

    def labels(self, split: Split) -> IntArray:
        """Labels of the chosen, readable images of the validation or test split, (n,)."""
        return self._labels[split][list(self._ready(split).kept)]

    def views(self, split: Split, resolution: int, n_views: int = 1) -> tuple[Images, IntArray]:
        """Images (n, 3, r, r) and labels; one view an image whatever ``n_views``, which is the digits'.

        Raises:
            InputError: too many images are unreadable.
        """
        return self._images(split, resolution), self.labels(split)

    def recalibration(self, resolution: int, n_images: int) -> Images:
        """The first ``n_images`` of the chosen, readable training images, (n_images, 3, r, r).

        Raises:
            InputError: too many images are unreadable.
        """
        return self._images("train", resolution, n_images)

    def preprocessing(self, resolution: int) -> Preprocessing:
        """How a file becomes an input of this size."""
        return Preprocessing.cropping(resolution, self.mean, self.std)

    def _images(self, split: Split, resolution: int, most: int | None = None) -> StandardisedImages:
        return StandardisedImages(self._ready(split, resolution).pixels(resolution)[:most], self.mean, self.std)

    def _ready(self, split: Split, resolution: int | None = None) -> Prepared:
        if split not in self._prepared or resolution not in (None, *self.resolutions):
            wanted = self.resolutions if resolution is None else sorted({*self.resolutions, resolution})
            self._prepared[split] = prepare(self._found[split], wanted, self._cache)
        return self._prepared[split]


def _judged_folders(root: Path) -> dict[Split, Path]:
    subfolders(root)  # whether it can be read at all
    if os.path.isdir(root / "val"):
        test = root / "test"
        labelled = os.path.isdir(test) and subfolders(test)
        return {"validation": root / "val", **({"test": test} if labelled else {})}
    if os.path.isdir(root / "train"):
        raise InputError(f"{root} has a folder train but none called val; name the folder that judges val")
    return {"validation": root}


def _training_folder(root: Path, judged: Mapping[Split, Path], named: str | None) -> Path:
    folder = Path(named) if named is not None else root / "train"
    if not os.path.isdir(folder):
        setting = (
            "oracle.supernet.recalibration_data = " + named if named is not None else f"{root} has no folder train"
        )
        raise InputError(
            f"{setting}: there are no training images to recalibrate BatchNorm on, and those that judge must not be "
            "used; add DIR/train, or name a folder of training images in oracle.supernet.recalibration_data"
        )
    for judge in judged.values():
        one, other = folder.resolve(), judge.resolve()
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise InputError(
                f"{folder} and {judge} overlap: BatchNorm must not be recalibrated on the images that judge; name "
                "another folder in oracle.supernet.recalibration_data"
            )
    return folder


def _check_classes(there: Inventory, n_classes: int) -> None:
    if len(there.classes) != n_classes:
        shown = some(there.classes) or "none"
        others = f"; left out beside them: {named(there.beside)}" if there.beside else ""
        raise InputError(
            f"{there.folder} has {len(there.classes)} class folders ({shown}), the supernet has {n_classes} classes: "
            "the folders in sorted order must be its classes, every one of them; check oracle.supernet.data and "
            f"oracle.supernet.n_classes{others}"
        )


def _differences(judging: Inventory, training: Inventory) -> list[str]:
    """Classes that only one of two folders has. Recalibration asks for none, but a user may want to know."""
    if not training.classes:
        return []
    lacking = sorted(set(judging.classes) - set(training.classes))
    more = sorted(set(training.classes) - set(judging.classes))
    found = [f"{training.folder} lacks {len(lacking)} of its classes: {some(lacking)}"] if lacking else []
    return [*found, f"{training.folder} has {len(more)} more: {some(more)}"] if more else found


def _remark(folder: Path, remarks: list[str]) -> None:
    if remarks:
        print(printable(f"{folder}: {'; '.join(remarks)}", _MOST_REMARK_CHARACTERS), file=sys.stderr)


def _listing(split: Split, there: Inventory, wanted: int, seed: int) -> tuple[Listing, IntArray]:
    """The chosen pictures in the order of their choice, and their classes."""
    order = _choice(split, len(there.pictures), wanted, seed)
    labels = np.array([there.pictures[i][1] for i in order], dtype=np.int64)
    return Listing(there.folder, tuple(there.pictures[i][0] for i in order)), labels


def _choice(split: Split, available: int, wanted: int, seed: int) -> IntArray:
    """The first ``wanted`` of a fixed permutation; all there are where they are fewer."""
    generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, _STREAMS[split]]))
    return generator.permutation(available)[:wanted]
