"""Pictures that a tiny supernet learns in seconds: a class is a colour, in an .npz file with labels in every split."""

from pathlib import Path
from typing import Any

import numpy as np

CLASSES, SIDE_PX = 3, 12
# What makes its training take seconds.
TINY_TRAINING = ("oracle.supernet.checkpoint=trained", "train.start=scratch", "train.width=0.1", "train.epochs=25",
                 "train.resolutions=[12]", "train.threads=1", "oracle.supernet.device=cpu")  # fmt: skip


def tiny_file(path: Path, train_each: int = 24, judging_each: int = 10) -> Path:
    """Write the file; pictures of class c are brightest in channel c."""
    arrays: dict[str, Any] = {}
    for s, (split, each) in enumerate((("train", train_each), ("validation", judging_each), ("test", judging_each))):
        rng = np.random.default_rng(s)
        labels = np.repeat(np.arange(CLASSES), each)
        pixels = rng.integers(0, 140, (len(labels), SIDE_PX, SIDE_PX, 3), np.uint8)
        pixels[np.arange(len(labels)), :, :, labels] += 60
        arrays |= {f"{split}_images": pixels, f"{split}_labels": labels}
    np.savez(path, **arrays, class_names=np.array(["red", "green", "blue"]))
    return path
