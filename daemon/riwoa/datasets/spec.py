"""Which pictures, and how many of them for what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Pictures that judge a network, and those that BatchNorm is recalibrated on."""

    n_classes: int = 10  # 0: as many as the data has
    data: str = "digits"  # or the absolute path of other images (riwoa.datasets.catalogue)
    resolutions: tuple[int, ...] = (24, 32, 40)  # prepared input sizes; a result depends on its own alone
    split: Literal["validation", "test"] = "validation"  # a search never sees "test"; it judges winners afterwards
    recalibration_images: int = 400
    validation_images: int = 2000  # of a folder: the most that judge
    data_seed: int = 0  # of the choice among a folder's images
    recalibration_data: str | None = None  # absolute path of a folder; None: the data's own training images
    # 2: pictures upright and over white, missing splits held out; 1: as runs of before that read them
    data_rules: Literal[1, 2] = 1
