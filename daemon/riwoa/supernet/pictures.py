"""What the pictures that are to train a supernet are, seen before any of them is decoded. No torch."""

from __future__ import annotations

import os
import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from riwoa.datasets.cifar import CLASSES as CIFAR_CLASSES
from riwoa.datasets.cifar import find_cifar100
from riwoa.datasets.digits import CLASSES as DIGITS
from riwoa.datasets.digits import RESOLUTIONS
from riwoa.datasets.image_file import ImageFileTask
from riwoa.datasets.splits import folder_splits

if TYPE_CHECKING:
    from riwoa.datasets.spec import DataSpec

_CIFAR_PX = 32
_LOOKED_AT = 32  # pictures of a folder, whose size stands for all


def classes_and_side_px(spec: DataSpec) -> tuple[int, int]:
    """How many classes the pictures of ``spec.data`` have, and how many pixels most of them on their shorter side.

    Raises:
        InputError: nothing is there, or it is damaged, or no data set.
    """
    path = Path(spec.data)
    if spec.data == "digits":
        return DIGITS, RESOLUTIONS[-1]
    if find_cifar100(path) is not None:
        return CIFAR_CLASSES, _CIFAR_PX
    if not os.path.isdir(path):
        task = ImageFileTask.open(path, data_rules=spec.data_rules, data_seed=spec.data_seed)
        return len(task.class_names), task.side_px
    there = folder_splits(replace(spec, n_classes=0))
    files = there.files["train"]
    every = max(1, len(files.names) // _LOOKED_AT)
    sides = [side for name in files.names[::every] if (side := _side_px(files.folder / name))]
    return len(there.class_names), round(statistics.median(sides)) if sides else RESOLUTIONS[-1]


def _side_px(file: Path) -> int:
    """The shorter side of a picture; 0 where it cannot be told, which decoding will."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return min(picture.size)
    except Exception:  # of Pillow's many kinds, on a file that may be anything
        return 0
