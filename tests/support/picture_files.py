"""A folder of pictures as ImageNet's are kept: made in a moment, of no meaning."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture_folder(root: Path, classes: int, train_each: int, judging_each: int) -> Path:
    """``root`` with train/<class> and val/<class>, each picture another one of 12 by 9 pixels."""
    for c in range(classes):
        for split, count in (("train", train_each), ("val", judging_each)):
            place = root / split / f"class{c:03}"
            place.mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng([c, i, split == "val"]).integers(0, 256, (12, 9, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root
