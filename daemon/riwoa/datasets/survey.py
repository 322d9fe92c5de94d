"""What a folder of pictures is like, looked at before anything is done with it: every file is opened. No torch."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.datasets.arrays import Split
from riwoa.datasets.catalogue import task_of
from riwoa.datasets.decoding import LEFT_OUT_SHARE, coloured, most_left_out, named, opened, read_picture, reason
from riwoa.datasets.spec import DataSpec
from riwoa.datasets.splits import FolderSplits, folder_splits
from riwoa.errors import InputError
from riwoa.limits import whole_cores
from riwoa.text import printable

_ORIENTATION = 0x0112  # of EXIF
_WHOLE_FOLDER_S = 60.0  # after it the rest of a folder is not looked at
_AHEAD = 64  # files given to the threads before the first of them is back: bounds the memory
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Look:
    """What one file turned out to be; ``broken`` says why it is no picture."""

    split: Split
    name: str  # below its split's folder
    digest: bytes = b""  # of the bytes
    kind: str = ""
    shorter_px: int = 0
    odd: tuple[str, ...] = ()
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """A folder's classes, pictures and oddities.

    Attributes:
        counts: pictures by split and class, as they are listed.
        held_out: the splits that no folder is for.
        kinds: formats, the commonest first.
        sides_px: shorter sides: least, median, greatest.
        odd: what is converted -> how many.
        broken: file -> why it is left out.
        copies: exact copies in two splits that folders name, and those in two classes, as pairs of files.
        looked_at: how many files were opened, of all.
    """

    class_names: tuple[str, ...]
    counts: Mapping[Split, tuple[int, ...]]
    held_out: tuple[Split, ...]
    kinds: Mapping[str, int]
    sides_px: tuple[int, int, int]
    odd: Mapping[str, int]
    broken: Mapping[str, str]
    copies: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    looked_at: tuple[int, int]

    @property
    def pictures(self) -> int:
        """Files that are listed as pictures, broken ones among them."""
        return sum(map(sum, self.counts.values()))

    def to_json(self) -> dict[str, Any]:
        """The survey as a JSON object; file names as text that can be printed."""
        return {
            "class_names": [printable(name) for name in self.class_names],
            "pictures": {
                split: dict(zip(map(printable, self.class_names), c, strict=True)) for split, c in self.counts.items()
            },
            "held_out": list(self.held_out),
            "formats": dict(self.kinds),
            "shorter_side_px": dict(zip(("least", "median", "greatest"), self.sides_px, strict=True)),
            "converted": dict(self.odd),
            "left_out": {printable(name): why for name, why in self.broken.items()},
            "copies": [[printable(one), printable(other)] for one, other in self.copies],
            "remarks": list(self.remarks),
            "looked_at": {"files": self.looked_at[0], "of": self.looked_at[1]},
        }


def survey_folder(spec: DataSpec, report: Report = lambda done, total: None) -> Survey:
    """Look at every picture of the folder ``spec.data``, or at as many as a minute allows.

    Raises:
        InputError: as ``folder_splits``; or too many files are no pictures that can be read.
    """
    there = folder_splits(spec)
    every = [(split, files.folder, name) for split, files in there.files.items() for name in files.names]
    # In an order that mixes the classes, so that a part of a large folder stands for it.
    every.sort(key=lambda entry: hashlib.sha256(os.fsencode(entry[2])).digest())
    looks: list[Look] = []
    until_s = time.monotonic() + _WHOLE_FOLDER_S
    for look in _looks(every):
        looks.append(look)
        report(len(looks), len(every))
        if time.monotonic() > until_s:
            break
    _check(spec, looks)
    return _summed(there, looks, len(every))


def _check(spec: DataSpec, looks: list[Look]) -> None:
    """Refuse a folder of which a decoding would leave out too much.

    Raises:
        InputError: names some of the files.
    """
    broken = {look.name: look.broken for look in looks if look.broken is not None}
    if len(broken) > most_left_out(len(looks), spec.data_rules):
        raise InputError(
            f"{spec.data}: {len(broken)} of {len(looks)} files are no pictures that can be read, at most "
            f"{100 * LEFT_OUT_SHARE[spec.data_rules]:g} % may be left out: {named(broken)}; replace or remove them"
        )


def survey_task(spec: DataSpec) -> Survey:
    """The same of pictures that lie in one file: their number, classes and size.

    Raises:
        InputError: as ``task_of``; or its training images have no labels.
    """
    task = task_of(spec)
    labels = {split: task.labels(split) for split in task.splits}
    counts = {
        split: tuple(np.bincount(found, minlength=len(task.class_names)).tolist()) for split, found in labels.items()
    }
    total, side = sum(map(sum, counts.values())), task.side_px
    return Survey(task.class_names, counts, (), {}, (side, side, side), {}, {}, (), (), (total, total))


def _looks(every: list[tuple[Split, Path, str]]) -> Iterable[Look]:
    with ThreadPoolExecutor(whole_cores(), thread_name_prefix="survey") as executor:
        entries = iter(every)
        waiting = [executor.submit(_look, *entry) for entry in islice(entries, _AHEAD)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [executor.submit(_look, *entry) for entry in islice(entries, 1)]


def _look(split: Split, folder: Path, name: str) -> Look:
    try:
        data = read_picture(folder / name)
        picture = opened(data)
        coloured(picture)
        frames = getattr(picture, "n_frames", 1)
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # the decoders of hostile files raise whatever they met
        return Look(split, name, broken=reason(error))
    odd = {
        "turned by EXIF": orientation in range(2, 9),
        "transparent": picture.has_transparency_data,
        "CMYK": picture.mode == "CMYK",
        "grey of 16 bits": picture.mode.startswith("I") or picture.mode == "F",
        "of a palette": picture.mode == "P",
        "moving, the first frame is taken": frames > 1,
    }
    told = tuple(word for word, is_so in odd.items() if is_so)
    return Look(split, name, hashlib.sha256(data).digest(), picture.format or "?", min(picture.size), told)


def _summed(there: FolderSplits, looks: list[Look], every: int) -> Survey:
    good = [look for look in looks if look.broken is None]
    sides = sorted(look.shorter_px for look in good)
    counts = {
        split: tuple(int((files.labels == label).sum()) for label in range(len(there.class_names)))
        for split, files in there.files.items()
    }
    return Survey(
        class_names=there.class_names,
        counts=counts,
        held_out=there.held_out,
        kinds=dict(Counter(look.kind for look in good).most_common()),
        sides_px=(sides[0], round(statistics.median(sides)), sides[-1]) if sides else (0, 0, 0),
        odd=dict(Counter(word for look in good for word in look.odd).most_common()),
        broken={look.name: look.broken for look in sorted(looks, key=lambda look: look.name) if look.broken},
        copies=tuple(_copies(good)),
        remarks=tuple(remark for remarks in there.remarks.values() for remark in remarks),
        looked_at=(len(looks), every),
    )


def _copies(good: list[Look]) -> Iterable[tuple[str, str]]:
    """Pairs of files of the same bytes in two splits or two classes, whose one label or the other is wrong."""
    first: dict[bytes, Look] = {}
    for look in sorted(good, key=lambda look: (look.split, look.name)):
        known = first.setdefault(look.digest, look)
        if known.split != look.split or known.name.partition("/")[0] != look.name.partition("/")[0]:
            yield f"{known.split}: {known.name}", f"{look.split}: {look.name}"
