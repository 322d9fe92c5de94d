"""Corrupted pictures, one corruption and severity at a time: made, or the published CIFAR-100-C. No torch.

All of CIFAR-100-C would be 2.3 GB; what is made is judged and dropped.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from zipfile import BadZipFile

import numpy as np

from riwoa.datasets.arrays import ByteArray, IntArray
from riwoa.errors import InputError, OracleError
from riwoa.files.ownership import regular_file
from riwoa.ipc.child import child_environment, die_with_parent
from riwoa.validate.corruptions import CORRUPTIONS, SEVERITIES, Frost, corrupt

_AGAIN = "fetch CIFAR-100-C again, or leave --corrupted out to have the corruptions made"
Unit = tuple[str, int]  # a corruption and a severity
UNITS: Sequence[Unit] = tuple((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)


@dataclass(frozen=True, slots=True, eq=False)
class Corrupted:
    """Images (n, s, s, 3) uint8 of one corruption and severity, and their labels (n,)."""

    unit: Unit
    images: ByteArray
    labels: IntArray


class CorruptedSet(Protocol):
    """Where corrupted images come from."""

    @property
    def source(self) -> Literal["published", "made"]:
        """Where the images come from, in the words that the results must say."""

    @property
    def images(self) -> int:
        """Number of images of each corruption and severity."""

    @property
    def facts(self) -> dict[str, Any]:
        """All that decides the pictures, as JSON; results of other facts are not reused."""

    def each(self, units: Sequence[Unit], jobs: int) -> Iterator[Corrupted]:
        """The images of the wanted corruptions and severities, in the given order.

        Raises:
            OracleError: a process that makes them died.
        """


class PublishedSet:
    """The folder of the published archive: ``<corruption>.npy`` (5 n, 32, 32, 3) uint8 by severity, ``labels.npy``.

    Args:
        folder: with all fifteen files and the labels.
        images: judge the first so many of each severity; None for all.

    Raises:
        InputError: a file is missing, or not what it should be.
    """

    source: Literal["published"] = "published"

    def __init__(self, folder: Path, images: int | None = None) -> None:
        labels = _mapped(folder / "labels.npy")
        count = len(labels) // len(SEVERITIES) if labels.ndim == 1 else 0
        if not count or labels.dtype.kind not in "iu" or len(labels) % len(SEVERITIES):
            raise InputError(f"{folder / 'labels.npy'} holds {_told(labels)}, should be (50000,) integers; {_AGAIN}")
        if labels.min() < 0 or labels.max() > 99:
            raise InputError(f"{folder / 'labels.npy'}: labels go from {labels.min()} to {labels.max()}; {_AGAIN}")
        self._labels = labels
        self._count = count
        self._files = {name: _mapped(folder / f"{name}.npy") for name in CORRUPTIONS}
        for name, pictures in self._files.items():
            if pictures.dtype != np.uint8 or pictures.shape != (len(labels), 32, 32, 3):
                wanted = f"({len(labels)}, 32, 32, 3) uint8"
                raise InputError(f"{folder / name}.npy holds {_told(pictures)}, should be {wanted}; {_AGAIN}")
        self._folder = folder
        self.images = count if images is None else min(images, count)

    @property
    def facts(self) -> dict[str, Any]:
        """The folder that they are read from."""
        return {"source": self.source, "folder": str(self._folder.absolute()), "images": self.images}

    def each(self, units: Sequence[Unit], jobs: int) -> Iterator[Corrupted]:
        """The wanted ones, read one after another; ``jobs`` is of no use here."""
        for name, severity in units:
            start = (severity - 1) * self._count
            part = slice(start, start + self.images)
            labels = self._labels[part].astype(np.int64)
            yield Corrupted((name, severity), np.array(self._files[name][part]), labels)


def _mapped(path: Path) -> Any:
    """An array of a .npy file, its pages read on use; nothing pickled is loaded."""
    try:
        found = np.load(regular_file(path), mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):  # by content, whatever the file is called
            found.close()
            raise ValueError("it is an .npz archive, not one array")
        return found
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path} cannot be read ({reason}); {_AGAIN}") from None


def _told(array: Any) -> str:
    return f"{array.shape} {array.dtype}"


class MadeSet:
    """Corruptions of given images (n, s, s, 3), made by ``jobs`` processes and handed out in order."""

    source: Literal["made"] = "made"

    def __init__(self, images: ByteArray, labels: IntArray, sha256: str, seed: int, frost: Frost) -> None:
        self._images = images
        self._labels = labels
        self._sha256 = sha256
        self._seed = seed
        self._frost = frost
        self.images = len(images)

    @property
    def facts(self) -> dict[str, Any]:
        """The test images, the seed, and where frost comes from."""
        frost = {"seed": self._seed, "frost": self._frost.source}
        return {"source": self.source, "data_sha256": self._sha256, "images": self.images, **frost}

    def each(self, units: Sequence[Unit], jobs: int) -> Iterator[Corrupted]:
        """The wanted ones, of which processes make a few ahead."""
        waiting: deque[tuple[Unit, Future[ByteArray]]] = deque()
        left = iter(units)
        with _processes(jobs, (self._images, self._seed, self._frost)) as pool:
            try:
                while True:
                    while len(waiting) <= jobs and (unit := next(left, None)) is not None:
                        waiting.append((unit, pool.submit(_make, *unit)))
                    if not waiting:
                        return
                    unit, future = waiting.popleft()
                    yield Corrupted(unit, future.result(), self._labels)
            except BrokenProcessPool as error:
                raise OracleError(f"a process that makes corruptions died ({error}); lower --jobs") from None


@contextmanager
def _processes(jobs: int, arguments: tuple[Any, ...]) -> Iterator[ProcessPoolExecutor]:
    """Fresh interpreters with one thread each: numerical libraries read the environment when they are imported."""
    before = dict(os.environ)
    context = multiprocessing.get_context("spawn")
    os.environ.update(child_environment(1))
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=arguments)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        os.environ.clear()
        os.environ.update(before)


_GIVEN: list[tuple[ByteArray, int, Frost]] = []  # what a process of the pool was started with


def _begin(images: ByteArray, seed: int, frost: Frost) -> None:
    die_with_parent()
    _GIVEN.append((images, seed, frost))


def _make(name: str, severity: int) -> ByteArray:
    images, seed, frost = _GIVEN[0]
    return corrupt(images, name, severity, seed, frost)
