"""ImageNet-style folders as a task: the class is the folder's name. Pillow and numpy only, no torch.

    DIR/<class>/*           are split; or
    DIR/train/<class>/*     train, and recalibrate BatchNorm: never the images that judge
    DIR/val/<class>/*       judge
    DIR/test/<class>/*      judge winners (ImageNet's own has no classes, and is none)

Which is which, and what is held out where a split is missing, ``splits`` says. Pictures are what Pillow opens. What is
none is counted and named, and refused where it is more than a few files.

Classes are counted in the sorted order of their names, which for ImageNet's wnids is the order of its published
networks. Of each split a fixed random choice recalibrates or judges; a smaller one is the beginning of a larger one.
All training pictures with a class train.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np

from riwoa.datasets.arrays import ByteArray, Images, IntArray, Split
from riwoa.datasets.decoding import RULE_VERSIONS, Listing, Prepared, StandardisedImages, cache_directory, prepare
from riwoa.datasets.image_file import IMAGENET
from riwoa.datasets.preprocessing import Preprocessing
from riwoa.datasets.spec import DataSpec
from riwoa.datasets.splits import SplitFiles, folder_splits
from riwoa.errors import InputError
from riwoa.text import printable

_MOST_REMARK_CHARACTERS = 1_000
_STREAMS: Mapping[Split, int] = {"train": 1, "validation": 2, "test": 3}  # counters of the random choices


@dataclass(frozen=True)
class FolderTask:
    """Images of one folder, decoded into the cache when they are first asked for."""

    root: Path
    class_names: tuple[str, ...]
    spec: DataSpec
    _files: Mapping[Split, SplitFiles]  # all there are
    _found: Mapping[Split, Listing]  # those chosen to recalibrate and to judge
    _labels: Mapping[Split, IntArray]  # of those that judge, readable or not
    _cache: Path
    _prepared: dict[Split | Literal["training"], Prepared] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def open(cls, spec: DataSpec, cache: Path | None = None) -> FolderTask:
        """List the folder of ``spec.data`` and choose; no picture is decoded.

        Raises:
            InputError: no such folder, classes that are not the supernet's, no images, or none to recalibrate on.
        """
        there = folder_splits(spec)
        for folder, remarks in there.remarks.items():
            _remark(folder, remarks)
        found: dict[Split, Listing] = {}
        labels: dict[Split, IntArray] = {}
        for split, files in there.files.items():
            wanted = spec.recalibration_images if split == "train" else spec.validation_images
            chosen = files.part(_choice(split, len(files.names), wanted, spec.data_seed))
            found[split] = Listing(chosen.folder, chosen.names, spec.data_rules)
            if split != "train":
                labels[split] = chosen.labels
        directory = cache_directory() if cache is None else cache
        return cls(Path(spec.data), there.class_names, spec, there.files, found, labels, directory)

    @property
    def name(self) -> str:
        """The folder's name."""
        return str(self.root)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Input sizes that are decoded together."""
        return self.spec.resolutions

    @cached_property
    def sha256(self) -> str:
        """Hash of the chosen files' bytes, of their labels, and of what is done with them.

        By rules 2 of the training pictures' names and labels too: all of them train a supernet.
        """
        facts: list[object] = [RULE_VERSIONS[self.spec.data_rules], metadata.version("pillow"), IMAGENET]
        facts += [self._ready("train").content_sha256, self._ready(self.spec.split).content_sha256]
        facts.append(self.labels(self.spec.split).tolist())
        if self.spec.data_rules > 1:
            facts.append([self._files["train"].names, self._files["train"].labels.tolist()])
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
        return tuple(split for split in _STREAMS if split in self._found)

    @property
    def training_images(self) -> int:
        """Number of training images; recalibration uses some of them."""
        return len(self._files["train"].names)

    @property
    def side_px(self) -> int:
        """Side of the pictures that train: the largest resolution."""
        return max(self.resolutions)

    def labels(self, split: Split) -> IntArray:
        """Labels of all readable training images, or of the chosen, readable ones of another split, (n,).

        Raises:
            InputError: too many images are unreadable, or no training image is of a class.
        """
        if split == "train":
            return self._labelled_training.labels[list(self._training().kept)]
        return self._labels[split][list(self._ready(split).kept)]

    def sources(self, split: Split) -> list[str]:
        """The paths of the pictures of ``labels``.

        Raises:
            InputError: as ``labels``.
        """
        if split == "train":
            folder, names, kept = self._labelled_training.folder, self._labelled_training.names, self._training().kept
        else:
            folder, names, kept = self._found[split].root, self._found[split].names, self._ready(split).kept
        return [str((folder / names[i]).absolute()) for i in kept]

    def pixels(self, split: Split) -> ByteArray:
        """The images of ``labels``, (n, side, side, 3), cut as ``views`` are; mapped read-only from the cache.

        Raises:
            InputError: as ``labels``.
        """
        ready = self._training() if split == "train" else self._ready(split, self.side_px)
        return ready.pixels(self.side_px)

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
        return Preprocessing.cropping(resolution, self.mean, self.std, self.spec.data_rules)

    def _images(self, split: Split, resolution: int, most: int | None = None) -> StandardisedImages:
        return StandardisedImages(self._ready(split, resolution).pixels(resolution)[:most], self.mean, self.std)

    @cached_property
    def _labelled_training(self) -> SplitFiles:
        files = self._files["train"]
        if not np.any(files.labels >= 0):
            raise InputError(
                f"{self.root} has no labels for its training images, so no supernet can be trained on it; put them "
                "into folders of its classes"
            )
        return files.part(files.labels >= 0)

    def _training(self) -> Prepared:
        if "training" not in self._prepared:
            files = self._labelled_training
            listing = Listing(files.folder, files.names, self.spec.data_rules)
            self._prepared["training"] = prepare(listing, (self.side_px,), self._cache)
        return self._prepared["training"]

    def _ready(self, split: Split, resolution: int | None = None) -> Prepared:
        if split not in self._prepared or resolution not in (None, *self.resolutions):
            wanted = self.resolutions if resolution is None else sorted({*self.resolutions, resolution})
            self._prepared[split] = prepare(self._found[split], wanted, self._cache)
        return self._prepared[split]


def _remark(folder: Path, remarks: list[str]) -> None:
    if remarks:
        print(printable(f"{folder}: {'; '.join(remarks)}", _MOST_REMARK_CHARACTERS), file=sys.stderr)


def _choice(split: Split, available: int, wanted: int, seed: int) -> IntArray:
    """The first ``wanted`` of a fixed permutation; all there are where they are fewer."""
    generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, _STREAMS[split]]))
    return generator.permutation(available)[:wanted]
