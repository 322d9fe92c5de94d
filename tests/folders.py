"""A folder of pictures as a user has one: classes as folders, JPEG, PNG and WebP mixed, and odd files among them.

The pictures are CIFAR-100's where it is at hand, else views of the embedded digits, so that a test runs everywhere.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from riwoa.datasets.arrays import ByteArray, IntArray, quantise
from riwoa.datasets.cifar import find_cifar100, load_cifar100
from riwoa.datasets.digits import CLEAN, between, load_digits_task, render

Source = Literal["auto", "cifar", "digits"]
_CIFAR_CLASSES: Mapping[str, int] = {
    **{"apple": 0, "sunflower": 82, "bridge": 12, "rocket": 69, "tiger": 88, "bottle": 9, "castle": 17, "dolphin": 30},
    **{"bicycle": 8, "orange": 53, "bear": 3, "butterfly": 14, "camel": 15, "clock": 22, "elephant": 31, "forest": 33},
    **{"house": 37, "lamp": 40, "mushroom": 51, "wolf": 97},
}
_ORIENTATION = 0x0112  # of EXIF
_QUARTER_TURN = 6  # shown right after a turn by 90 degrees clockwise


@dataclass(frozen=True)
class Photos:
    """What was written.

    ``unreadable``: files with a picture's name that hold none; ``foreign``: other files, which are no pictures either.
    """

    root: Path
    class_names: tuple[str, ...]
    pictures: int
    unreadable: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


def make_photos(
    root: Path, classes: int = 8, per_class: int = 100, seed: int = 0, odd: bool = True, *, source: Source = "auto"
) -> Photos:
    """Write ``root/<class>/*``, ``per_class`` pictures of 32 px in each.

    Args:
        root: the folder; its parents are made.
        classes: 1 to 20.
        per_class: up to 600 of CIFAR-100.
        seed: of the choice among the pictures.
        odd: whether some are turned by EXIF, transparent, of a palette, CMYK, of 16 bits, animated or there twice, and
            files lie among them that are empty, cut, hidden or no pictures.
        source: auto = CIFAR-100 where it is at hand, else digits; cifar: skips the test without it.
    """
    draw = _drawer(source)
    names = sorted(list(_CIFAR_CLASSES)[:classes])
    for name in names:
        (root / name).mkdir(parents=True)
        for i, pixels in enumerate(draw(name, per_class, seed)):
            _save(Image.fromarray(pixels), root / name / f"IMG_{i:04}", ("JPEG", "PNG", "WEBP")[i % 3])
    if not odd:
        return Photos(root, tuple(names), classes * per_class)
    return _with_odd_files(Photos(root, tuple(names), classes * per_class))


def make_split_photos(
    root: Path, classes: int = 8, counts: Mapping[str, int] = {"train": 20, "val": 5, "test": 5}, seed: int = 0
) -> Photos:
    """Write ``root/<split>/<class>/*``, so many pictures a class in each split."""
    draw = _drawer("digits")
    names = sorted(list(_CIFAR_CLASSES)[:classes])
    for name in names:
        pictures = iter(draw(name, sum(counts.values()), seed))
        for split, count in counts.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                _save(Image.fromarray(next(pictures)), root / split / name / f"{i:03}", "PNG")
    return Photos(root, tuple(names), classes * sum(counts.values()))


def _save(picture: Image.Image, stem: Path, kind: str) -> None:
    suffix = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}[kind]
    picture.save(stem.with_suffix(suffix), kind, **({} if kind == "PNG" else {"quality": 92}))


# -- pictures ----------------------------------------------------------------------------------------------------------


def _drawer(source: Source) -> Callable[[str, int, int], Iterator[ByteArray]]:
    folder = Path(os.environ.get("RIWOA_DATA") or Path(__file__).parents[1].parent / "shared" / "data") / "cifar-100"
    there = source != "digits" and find_cifar100(folder) is not None
    if source == "cifar" and not there:
        pytest.skip(f"{folder} holds no CIFAR-100; RIWOA_DATA names the folder of official files")
    return functools.partial(_of_cifar, folder) if there else _of_digits


@functools.cache
def _cifar(folder: Path) -> tuple[ByteArray, IntArray]:
    """All pictures and their labels."""
    found = load_cifar100(folder)
    labels = np.concatenate([found.train_labels, found.test_labels])
    return np.concatenate([found.train_images, found.test_images]), labels


def _of_cifar(folder: Path, name: str, count: int, seed: int) -> Iterator[ByteArray]:
    images, labels = _cifar(folder)
    members = np.flatnonzero(labels == _CIFAR_CLASSES[name])
    assert count <= len(members), f"CIFAR-100 has {len(members)} pictures of {name}"
    yield from images[np.random.default_rng([seed, _CIFAR_CLASSES[name]]).permutation(members)[:count]]


def _of_digits(name: str, count: int, seed: int) -> Iterator[ByteArray]:
    """Views of one digit, light on dark for the first ten classes and dark on light for the others."""
    number = list(_CIFAR_CLASSES).index(name)
    task = load_digits_task()
    scans, labels = task.scans("train"), task.labels("train")
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))
    chosen = rng.choice(np.flatnonzero(labels == number % 10), count)
    views = quantise(render(rng, scans[chosen], scans, between(0.3) if count > 1 else CLEAN))
    for view in views.transpose(0, 2, 3, 1):
        yield np.ascontiguousarray(255 - view if number >= 10 else view)


# -- odd files ---------------------------------------------------------------------------------------------------------


def _with_odd_files(photos: Photos) -> Photos:
    """Change some of the pictures and add files, in the first classes."""
    root, names = photos.root, photos.class_names
    first, second = root / names[0], root / names[-1]
    files = sorted(first.iterdir())
    plain = [Image.open(files[i % len(files)]).convert("RGB") for i in range(8)]
    added = 0

    def add(name: str, save: Callable[[Path], None]) -> None:
        nonlocal added
        save(first / name)
        added += 1

    exif = Image.Exif()
    exif[_ORIENTATION] = _QUARTER_TURN
    turned = plain[0].transpose(Image.Transpose.ROTATE_90)
    add("turned by EXIF.JPG", lambda path: turned.save(path, "JPEG", quality=92, exif=exif))
    clear = plain[1].copy()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    add("transparent.png", clear.save)
    add("four inks.jpg", plain[2].convert("CMYK").save)
    deep = np.asarray(plain[3].convert("L")).astype(np.uint16) * 257
    add("sixteen bits.png", Image.fromarray(deep).save)
    add("palette.gif", plain[4].convert("P", palette=Image.Palette.ADAPTIVE).save)
    add("moving.webp", lambda path: plain[5].save(path, save_all=True, append_images=plain[6:8], duration=50))
    add("größer – 大.png", plain[6].save)
    add("no ending", lambda path: plain[7].save(path, "PNG"))
    twice = sorted(second.iterdir())[0]
    (second / f"copy of {twice.name}").write_bytes(twice.read_bytes())

    stream = io.BytesIO()
    plain[0].save(stream, "JPEG")
    unreadable = {f"{names[0]}/empty.jpg": b"", f"{names[-1]}/cut.jpg": stream.getvalue()[:200]}
    foreign = {f"{names[0]}/notes.txt": b"the good ones\n", f"{names[-1]}/clip.mp4": b"\0\0\0\x18ftypmp42"}
    hidden = {f"{names[0]}/.DS_Store": b"\0\0\0\x01Bud1", ".thumbnail": b""}
    for name, content in {**unreadable, **foreign, **hidden}.items():
        (root / name).write_bytes(content)
    (root / "nothing yet").mkdir()
    return Photos(root, names, photos.pictures + added + 1, tuple(unreadable), tuple(foreign))
