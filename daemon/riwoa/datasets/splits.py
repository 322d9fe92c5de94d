"""Which of a folder's pictures train, judge and test. What no folder says is held out by a fixed rule. No torch.

By rules 1, of runs that began before there was a choice: DIR/val judges (else DIR itself), DIR/train recalibrates, and
DIR/test tests where it is; nothing is held out. By rules 2:

    DIR/<class>/*                        15 % of each class test, 15 % of the others validate
    DIR/train, without val               the same of DIR/train, where there is no DIR/test
    DIR/train and DIR/val, without test  half of DIR/val tests: a published network has seen all of DIR/train

``val`` may be called ``validation``. A class of three pictures or more has one in each split. Copies of one picture in
one class, which a random choice would put on both sides, stay together.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from riwoa.datasets.arrays import IntArray, Split
from riwoa.datasets.decoding import MOST_FILE_BYTES, named
from riwoa.datasets.entries import Inventory, inventory, some, subfolders
from riwoa.datasets.spec import DataSpec
from riwoa.errors import InputError
from riwoa.files.content import opened_regular

HELD_OUT_SHARE = 0.15
_NAMES: Mapping[Split, tuple[str, ...]] = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class SplitFiles:
    """Pictures by their names below ``folder``, with their classes; -1 where a picture has none that is judged."""

    folder: Path
    names: tuple[str, ...]
    labels: IntArray

    def part(self, rows: IntArray | Mask) -> SplitFiles:
        """Some of them."""
        numbers = np.arange(len(self.names))[rows]
        return SplitFiles(self.folder, tuple(self.names[i] for i in numbers), self.labels[numbers])


@dataclass(frozen=True, eq=False)
class FolderSplits:
    """What a folder holds: classes in their order, pictures by split, and what is odd, by folder.

    ``held_out``: the splits that no folder is for.
    """

    class_names: tuple[str, ...]
    files: Mapping[Split, SplitFiles]
    remarks: Mapping[Path, list[str]]
    held_out: tuple[Split, ...] = ()


def folder_splits(spec: DataSpec) -> FolderSplits:
    """List the folder of ``spec.data``; no picture is decoded.

    Raises:
        InputError: no such folder, classes that are not the supernet's, no images, or none to recalibrate on.
    """
    return _splits_of_before(spec) if spec.data_rules == 1 else _splits(spec)


def _splits_of_before(spec: DataSpec) -> FolderSplits:
    root = Path(spec.data)
    judged = _judged_folders(root)
    training = inventory(_training_folder(root, judged, spec.recalibration_data), loose=True)
    training.check()
    files: dict[Split, SplitFiles] = {}
    remarks = {training.folder: training.remarks()}
    class_names: list[str] = []
    for split, folder in judged.items():
        there = inventory(folder)
        _check_head(folder, there.classes, spec.n_classes, there.beside)
        there.check()
        if not there.pictures:
            raise InputError(f"{folder}: its class folders hold no picture; check oracle.supernet.data")
        remarks[folder] = [*there.remarks(), *_differences(there, training)]
        class_names = class_names or there.classes
        files[split] = _files(there, there.classes)
    return FolderSplits(tuple(class_names), {"train": _files(training, class_names), **files}, remarks)


def _splits(spec: DataSpec) -> FolderSplits:
    """The splits by rules 2."""
    root = Path(spec.data)
    places = split_folders(root)
    if spec.recalibration_data is not None:
        places = {**places, "train": _training_folder(root, places, spec.recalibration_data)}
    elif places == {"validation": root}:  # a flat folder
        places = {"train": root}
    elif "train" not in places:
        _training_folder(root, places, None)
    # Pictures of no class recalibrate, where others judge.
    found = {s: inventory(folder, loose=s == "train" and len(places) > 1) for s, folder in places.items()}
    for there in found.values():
        there.check(spec.data_rules)
    naming = found if spec.recalibration_data is None else {s: i for s, i in found.items() if s != "train"}
    class_names = _class_names(root, naming.values(), spec.n_classes)
    files = {split: _files(there, class_names) for split, there in found.items()}
    whole = dict(files)
    _hold_out(files, root, spec.data_seed)
    remarks = {there.folder: _remarks(split, there, found) for split, there in found.items()}
    return FolderSplits(tuple(class_names), files, remarks, tuple(split for split in files if split not in whole))


def split_folders(root: Path) -> dict[Split, Path]:
    """The folders of the splits; of a folder that holds the classes themselves, itself as the validation split.

    A class may be called train: a folder is a split where class folders lie in it.

    Raises:
        InputError: a folder cannot be read.
    """
    beside = subfolders(root)
    places: dict[Split, Path] = {}
    for split, names in _NAMES.items():
        folders = [root / name for name in names if name in beside]
        filled = [folder for folder in folders if subfolders(folder)]
        if len(filled) > 1:
            raise InputError(f"{root} has both {' and '.join(f.name for f in filled)}; keep one of them")
        places |= {split: filled[0]} if filled else {}
    if "validation" in places and "train" not in places and os.path.isdir(root / "train"):
        places["train"] = root / "train"  # pictures without classes recalibrate
    return places if "train" in places or "validation" in places else {"validation": root}


# -- classes -----------------------------------------------------------------------------------------------------------


def _class_names(root: Path, found: Iterable[Inventory], n_classes: int) -> list[str]:
    """The classes that hold pictures; empty ones count only where the supernet has as many.

    Raises:
        InputError: none, one alone, or not as many as the supernet has.
    """
    filled: set[str] = set()
    there: set[str] = set()
    beside: dict[str, str] = {}
    for one in found:
        there.update(one.classes)
        filled.update(set(one.classes) - set(one.empty))
        beside |= one.beside
    names = sorted(there if len(there) == n_classes else filled)
    if not filled:
        shown = f" ({some(sorted(there))} hold no picture)" if there else ""
        raise InputError(
            f"{root} holds no class folder with pictures{shown}; put the pictures of each class in a "
            "folder of its own, or check oracle.supernet.data"
        )
    if len(names) == 1:
        raise InputError(f"{root} has one class alone ({some(names)}): there is nothing to tell apart; add a folder")
    if n_classes:
        _check_head(root, names, n_classes, beside)
    return names


def _check_head(folder: Path, classes: Sequence[str], n_classes: int, beside: Mapping[str, str]) -> None:
    if len(classes) != n_classes:
        shown = some(list(classes)) or "none"
        others = f"; left out beside them: {named(beside)}" if beside else ""
        raise InputError(
            f"{folder} has {len(classes)} class folders ({shown}), the supernet has {n_classes} classes: "
            "the folders in sorted order must be its classes, every one of them; check oracle.supernet.data and "
            f"oracle.supernet.n_classes{others}"
        )


def _files(there: Inventory, class_names: Sequence[str]) -> SplitFiles:
    """An inventory's pictures, of the classes as they are counted among ``class_names``."""
    number = {name: i for i, name in enumerate(class_names)}
    of_class = np.array([number.get(name, -1) for name in there.classes] + [-1], np.int64)  # the last: loose pictures
    labels = of_class[np.array([c for _, c in there.pictures], np.int64)]
    return SplitFiles(there.folder, tuple(name for name, _ in there.pictures), labels)


def _remarks(split: Split, there: Inventory, found: Mapping[Split, Inventory]) -> list[str]:
    training = found["train"]
    return there.remarks() + (_differences(there, training) if split != "train" else [])


def _differences(judging: Inventory, training: Inventory) -> list[str]:
    """Classes that only one of two folders has. Recalibration asks for none, but a user may want to know."""
    if not training.classes:
        return []
    lacking = sorted(set(judging.classes) - set(training.classes))
    more = sorted(set(training.classes) - set(judging.classes))
    found = [f"{training.folder} lacks {len(lacking)} of its classes: {some(lacking)}"] if lacking else []
    return [*found, f"{training.folder} has {len(more)} more: {some(more)}"] if more else found


# -- folders -----------------------------------------------------------------------------------------------------------


def _judged_folders(root: Path) -> dict[Split, Path]:
    """By rules 1."""
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
    for split, judge in judged.items():
        one, other = folder.resolve(), judge.resolve()
        if split != "train" and (one.is_relative_to(other) or other.is_relative_to(one)):
            raise InputError(
                f"{folder} and {judge} overlap: BatchNorm must not be recalibrated on the images that judge; name "
                "another folder in oracle.supernet.recalibration_data"
            )
    return folder


# -- what is held out --------------------------------------------------------------------------------------------------


def _hold_out(files: dict[Split, SplitFiles], root: Path, seed: int) -> None:
    """Make the splits that are missing, out of others.

    Raises:
        InputError: there is nothing to hold out.
    """
    if "test" not in files:
        source: Split = "validation" if "validation" in files else "train"
        _take(files, source, "test", 0.5 if source == "validation" else HELD_OUT_SHARE, seed)
    if "validation" not in files:
        _take(files, "train", "validation", HELD_OUT_SHARE, seed)
    if not len(files["validation"].names):
        raise InputError(
            f"{root}: no class has two pictures, so that none can judge; add pictures to its class folders"
        )
    if not len(files["test"].names):
        del files["test"]


def _take(files: dict[Split, SplitFiles], source: Split, target: Split, share: float, seed: int) -> None:
    given = files[source]

    def place(group: list[int]) -> bytes:  # by a hash of the name, so that a picture more moves few others
        return hashlib.sha256(os.fsencode(f"{seed} {target} {given.names[group[0]]}")).digest()

    held = held_out(given.labels, share, lambda members: sorted(_copies(given, members), key=place))
    files[target], files[source] = given.part(held), given.part(~held)


def held_out(labels: IntArray, share: float, groups_of: Callable[[IntArray], Iterable[Sequence[int]]]) -> Mask:
    """Which pictures are held out: a share of each class of two or more, at least one and never all.

    Args:
        labels: (n,); a negative one is of no class.
        share: of each class.
        groups_of: the members of a class in the order in which they are taken, together what must stay together.
    """
    held = np.zeros(len(labels), bool)
    for label in range(int(labels.max(initial=-1)) + 1):
        members = np.flatnonzero(labels == label)
        wanted = max(1, round(share * len(members))) if len(members) > 1 else 0
        taken: list[int] = []
        for group in groups_of(members):
            if len(taken) < wanted and len(taken) + len(group) < len(members):
                taken += group
        held[taken] = True
    return held


def _copies(given: SplitFiles, members: IntArray) -> list[list[int]]:
    """Members by content: files of one size are read, and those of the same bytes are together."""
    by_size: dict[int, list[int]] = {}
    for i in members.tolist():
        by_size.setdefault(_size_bytes(given.folder / given.names[i]), []).append(i)
    groups: list[list[int]] = []
    for alike in by_size.values():
        by_content: dict[bytes, list[int]] = {}
        for i in alike:
            content = file_digest(given.folder / given.names[i]) if len(alike) > 1 else None
            by_content.setdefault(content or str(i).encode(), []).append(i)
        groups += by_content.values()
    return groups


def file_digest(path: Path) -> bytes | None:
    """SHA-256 of a file's bytes; None where it cannot be read, is empty, or larger than a picture may be."""
    try:
        with opened_regular(path) as stream:
            if not 0 < os.fstat(stream.fileno()).st_size <= MOST_FILE_BYTES:
                return None
            return hashlib.file_digest(stream, "sha256").digest()  # type: ignore[arg-type]
    except (OSError, ValueError):
        return None


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
