"""Small archives in CIFAR-100's official layout: as Python 2 wrote them, and as Python 3 writes them in protocol 2."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def pictures(per_class: int, seed: int) -> tuple[Pixels, Labels]:
    """Noise around a colour that follows from the class, planes first (n, 3072); classes in turn."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(100), per_class)
    colour = np.stack([labels * 2.5, 255 - labels * 2.5, labels % 10 * 25.5], 1)[:, :, None]
    noisy = colour + rng.normal(0, 20, (len(labels), 3, 32 * 32))
    return np.clip(noisy, 0, 255).astype(np.uint8).reshape(len(labels), 3072), labels


def python3_pickle(pixels: npt.NDArray[Any], labels: Any) -> bytes:
    """Bytes keys, protocol 2: what Python 3 writes for Python 2 to read."""
    return pickle.dumps({b"batch_label": b"one", b"data": pixels, b"fine_labels": labels, b"filenames": [b""]}, 2)


def python2_pickle(pixels: Pixels, labels: list[int]) -> bytes:
    """Opcode for opcode what Python 2's cPickle wrote: the format of the official archive."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    def numbers(values: list[int]) -> bytes:
        return b"](" + b"".join(number(v) for v in values) + b"e"

    blank = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + string(b"b") + b"tR"
    dtype = b"cnumpy\ndtype\n(" + string(b"u1") + b"K\x00K\x01tR"
    dtype += b"(K\x03" + string(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    shape = number(len(pixels)) + number(3072) + b"\x86"
    array = blank + b"(K\x01" + shape + dtype + b"\x89" + string(pixels.tobytes()) + b"tb"
    items = {
        b"filenames": b"](" + string(b"bos_taurus_s_000507.png") + b"e",
        b"batch_label": string(b"training batch 1 of 1"),
        b"fine_labels": numbers(labels),
        b"coarse_labels": numbers([0] * len(labels)),
        b"data": array,
    }
    return b"\x80\x02}q\x01(" + b"".join(string(k) + v for k, v in items.items()) + b"u."


def archive(path: Path, members: Mapping[str, bytes]) -> Path:
    """Members under ``cifar-100-python/``, packed in their order."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def small_archive(folder: Path, per_class: int = 20, test_per_class: int = 2) -> Path:
    """An archive of 100 classes that a user's own could be."""
    train, test = pictures(per_class, 0), pictures(test_per_class, 1)
    members = {"train": python3_pickle(train[0], train[1].tolist()), "test": python3_pickle(test[0], test[1].tolist())}
    return archive(folder / "cifar-100-python.tar.gz", members)
