"""What lies in a folder of class folders: pictures, and what is none, each with the reason. No torch.

Nothing is passed over in silence, and nothing can hold the reader up: a pipe is never opened. A file with a picture's
extension is taken for one until it is decoded; of any other the beginning is looked at, since its name says little.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from riwoa.datasets.decoding import LEFT_OUT_SHARE, most_left_out, named, why_no_picture
from riwoa.errors import InputError
from riwoa.text import printable

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".jp2", ".ppm", ".pgm")
_SHOWN = 3


@dataclass(frozen=True)
class Inventory:
    """Everything in a folder of class folders; names are relative to it, in sorted order."""

    folder: Path
    classes: list[str] = field(default_factory=list)
    pictures: list[tuple[str, int]] = field(default_factory=list)  # with the number of the class
    left_out: dict[str, str] = field(default_factory=dict)  # in the class folders: name -> why
    beside: dict[str, str] = field(default_factory=dict)  # besides the class folders: name -> why
    hidden: list[str] = field(default_factory=list)  # the file manager's: none of the pictures, and no fault either

    @property
    def empty(self) -> list[str]:
        """Classes without a picture."""
        filled = {number for _, number in self.pictures}
        return [name for number, name in enumerate(self.classes) if number not in filled]

    def check(self, rules: int = 1) -> None:
        """Refuse a folder of which more than a few files would be left out.

        Raises:
            InputError: names some of them.
        """
        count = len(self.pictures) + len(self.left_out)
        if len(self.left_out) > most_left_out(count, rules):
            raise InputError(
                f"{self.folder}: {len(self.left_out)} of {count} files are no pictures that can be read, at most "
                f"{100 * LEFT_OUT_SHARE[rules]:g} % may be left out: {named(self.left_out)}; convert or remove them"
            )

    def remarks(self) -> list[str]:
        """What is odd in the folder, though it can be used."""
        count = len(self.pictures) + len(self.left_out)
        found = []
        if self.left_out:
            found.append(f"left out {len(self.left_out)} of {count} files: {named(self.left_out)}")
        if self.beside:
            found.append(f"left out {len(self.beside)} beside the class folders: {named(self.beside)}")
        if self.hidden:
            found.append(f"left out {len(self.hidden)} hidden: {some(self.hidden)}")
        if self.empty:
            have = "class has" if len(self.empty) == 1 else "classes have"
            found.append(f"{len(self.empty)} {have} no picture: {some(self.empty)}")
        return found


def inventory(folder: Path, *, loose: bool = False) -> Inventory:
    """What lies in a folder and in its class folders.

    Args:
        folder: of class folders.
        loose: whether pictures beside the class folders count, as of class -1.

    Raises:
        InputError: the folder, or one in it, cannot be read.
    """
    found = Inventory(folder)
    for entry in _entries(folder):
        if _hidden(entry):
            found.hidden.append(entry.name)
        elif _is(entry.is_dir):
            found.classes.append(entry.name)
        elif (why := _why_left_out(entry)) is None and loose:
            found.pictures.append((entry.name, -1))
        else:
            found.beside[entry.name] = why or "a picture of no class"
    for number, name in enumerate(found.classes):
        for entry in _entries(folder / name):
            below = os.path.join(name, entry.name)
            if _hidden(entry):
                found.hidden.append(below)
            elif _is(entry.is_dir):
                found.left_out[below] = "a folder in a class folder"
            elif (why := _why_left_out(entry)) is None:
                found.pictures.append((below, number))
            else:
                found.left_out[below] = why
    return found


def subfolders(folder: Path) -> list[str]:
    """Names of the class folders, sorted.

    Raises:
        InputError: the folder cannot be read.
    """
    return [entry.name for entry in _entries(folder) if not _hidden(entry) and _is(entry.is_dir)]


def some(names: list[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(printable(name, 100) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot read the folder {folder} ({error.strerror}); check oracle.supernet.data") from None


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".")


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # of a link that leads in circles; ``_why_left_out`` says so
        return False


def _why_left_out(entry: os.DirEntry[str]) -> str | None:
    """Why an entry cannot be a picture; None where it can."""
    try:
        if not entry.is_file():
            return "no regular file" if os.path.exists(entry.path) else "a link to nothing"
    except OSError as error:
        return error.strerror or "cannot be read"
    return None if entry.name.lower().endswith(_SUFFIXES) else why_no_picture(Path(entry.path))
