"""CIFAR-100 (Krizhevsky, 2009) from its official archive, ``cifar-100-python.tar.gz``. numpy only, no torch.

    cifar-100-python/train    a pickled dict: b"data" uint8 (n, 3072), red plane first; b"fine_labels", n of 0 to 99
    cifar-100-python/test     the same
    cifar-100-python/meta     b"fine_label_names", what the labels mean; it may be missing

Repacked, the folder may lie deeper or be missing, and the archive be plain or packed by xz or bzip2: what it is, its
content says. The archive is read as a stream and nothing of it is written to the disk. Its pickles are the only ones
riwoa reads without torch, and they come from anywhere, so they are not *executed*: ``_Reader`` knows the few opcodes
that such a dict is made of and three harmless stand-ins for the names in it; everything else is refused (a pickle can
name any function, https://docs.python.org/3/library/pickle.html#restricting-globals). Python's own unpickler in Python
is used rather than the one in C, since its memo is a dict: a hostile index cannot make it allocate.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar, Literal, Protocol

import numpy as np

from riwoa.datasets.arrays import ByteArray, FloatArray, IntArray, Split, standardise
from riwoa.datasets.preprocessing import Preprocessing
from riwoa.errors import InputError
from riwoa.files.content import ZIP, beginning, opened_regular
from riwoa.text import printable

CLASSES = 100
SIDE_PX = 32
FOLDER = "cifar-100-python"
ARCHIVE = f"{FOLDER}.tar.gz"
RECIPE_VERSION = "cifar-100-1"  # the split, the choice of the recalibration images, resizing, standardising

# All members together, unpacked; the official ones take 187 MB, and 270 MB where pixels are written as text.
MAX_UNPACKED_BYTES = 512 * 2**20
VALIDATION_SHARE = 10  # one in so many training images of each class
_SPLIT_SEED = 20_262
_ORDER_SEED = 20_263
_BLOCK_BYTES = 1 << 20
_MAX_REASON_CHARACTERS = 120
_MEMBERS: tuple[Split, ...] = ("train", "test")
_META = "meta"
_MAX_NAME_CHARACTERS = 60
_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {  # by how a file begins
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_TAR, _TAR_AT = b"ustar", 257
_ENDINGS = (".tar.gz", ".tgz", ".tar", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    MemoryError,
    OverflowError,
    RecursionError,
    pickle.UnpicklingError,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True, slots=True, eq=False)
class Cifar100:
    """The pictures as the archive holds them. Arrays are not to be written to."""

    train_images: ByteArray  # (50000, 32, 32, 3), red first
    train_labels: IntArray  # (50000,)
    test_images: ByteArray  # (10000, 32, 32, 3)
    test_labels: IntArray  # (10000,)
    sha256: str  # over pixels and labels, whatever they were packed in
    class_names: tuple[str, ...]  # the numbers, where the archive names none
    classes: int = CLASSES


def load_cifar100(path: Path) -> Cifar100:
    """The pictures of the official archive, or of the folder ``cifar-100-python`` that it unpacks to.

    Any number of images is read, so a smaller archive of the same layout serves too.

    Args:
        path: the archive, the folder, or a folder that holds either.

    Raises:
        InputError: nothing of the kind is there, or it is truncated, damaged, hostile, or not CIFAR-100.
    """
    place = find_cifar100(path)
    if place is None:
        raise InputError(f"there is no CIFAR-100 at {path}; name {ARCHIVE} or the folder {FOLDER}")
    contents: dict[str, Mapping[Any, Any]] = {}
    try:
        for name, stream in _members_of_folder(place) if place.is_dir() else _members_of_archive(place):
            contents[name] = _told_names(stream) if name == _META else _Reader(stream).dict()
    except _DAMAGE as error:
        if not set(_MEMBERS) <= contents.keys():  # else names alone are missing
            reason = printable((str(error).splitlines() or [type(error).__name__])[0], _MAX_REASON_CHARACTERS)
            raise InputError(f"{place} is not an intact CIFAR-100 ({reason}); fetch {ARCHIVE} again") from error
    missing = [name for name in _MEMBERS if name not in contents]
    if missing:
        raise InputError(f"{place}: there is no {FOLDER}/{missing[0]}; fetch {ARCHIVE} again")
    (train, train_labels), (test, test_labels) = (_arrays(contents.pop(name), f"{place}: {name}") for name in _MEMBERS)
    digest = hashlib.sha256()
    for array in (train, train_labels, test, test_labels):
        digest.update(f"{array.dtype.str}{array.shape};".encode())
        digest.update(array.data)
    names = _class_names(contents.get(_META, {}))
    return Cifar100(train, train_labels, test, test_labels, digest.hexdigest(), names)


def _told_names(stream: _Source) -> Mapping[Any, Any]:
    """What the file of names holds; nothing where it is damaged, for it decides no picture."""
    try:
        return _Reader(stream).dict()
    except _DAMAGE:
        return {}


def _class_names(meta: Mapping[Any, Any]) -> tuple[str, ...]:
    """What the labels mean, in their order; their numbers where that is not told."""
    told = meta.get(b"fine_label_names", meta.get("fine_label_names"))
    given = told if isinstance(told, list) else []
    texts = [name.decode("ascii", "replace") if isinstance(name, bytes) else name for name in given]
    names = tuple(printable(text, _MAX_NAME_CHARACTERS) for text in texts if isinstance(text, str) and text)
    return names if len(set(names)) == len(given) == CLASSES else tuple(str(number) for number in range(CLASSES))


def find_cifar100(path: Path) -> Path | None:
    """The archive or unpacked folder that ``path`` means; None where it is neither."""
    if os.path.isfile(path):
        return path if _is_archive(path) else None
    for place in (path, path / FOLDER):
        if all(os.path.isfile(place / name) for name in _MEMBERS):
            return place
    try:
        names = sorted(name for name in os.listdir(path) if name.lower() in [FOLDER + end for end in _ENDINGS])
    except (OSError, ValueError):
        return None
    return next((path / name for name in names if os.path.isfile(path / name)), None)


def _is_archive(path: Path) -> bool:
    """Whether a file is an archive: by its content, or by its name where that tells nothing."""
    start = beginning(path)
    known = start.startswith(tuple(_PACKED)) or start[_TAR_AT:].startswith(_TAR)
    return known or (path.name.lower().endswith(_ENDINGS) and not start.startswith(ZIP))


@dataclass(frozen=True)
class Cifar100Task:
    """CIFAR-100 as a task: a tenth of each class's training images validates, the official test images test.

    The split is one permutation by a fixed seed: 45,000 and 5,000 of the 50,000. Pixels stay bytes; floats are made
    for one resolution at a time. Standardised by the mean and deviation of all training pixels.
    """

    pictures: Cifar100
    where: str
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")
    side_px: ClassVar[int] = SIDE_PX
    _split: dict[Split, IntArray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> Cifar100Task:
        """Read and check the whole archive.

        Raises:
            InputError: as ``load_cifar100``; or too few images of each class to hold some back.
        """
        task = cls(load_cifar100(path), str(path))
        if not len(task.indices("validation")):
            raise InputError(f"{path}: fewer than {VALIDATION_SHARE} training images of each class; none can validate")
        return task

    @property
    def name(self) -> str:
        """The archive's name."""
        return self.where

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels mean, in their order."""
        return self.pictures.class_names

    @cached_property
    def sha256(self) -> str:
        """Hash of pixels and labels, and of what is done with them."""
        return hashlib.sha256(f"{RECIPE_VERSION} {self.pictures.sha256}".encode()).hexdigest()

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of all training pixels by channel, on the scale of 0 to 1."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of all training pixels by channel, on the scale of 0 to 1."""
        return self._moments[1]

    @property
    def training_images(self) -> int:
        """Number of training images that do not validate."""
        return len(self.indices("train"))

    def indices(self, split: Literal["train", "validation"]) -> IntArray:
        """Which of the archive's training images belong to the split, ascending."""
        if not self._split:
            rng = np.random.Generator(np.random.Philox(key=_SPLIT_SEED))
            held_back = np.zeros(len(self.pictures.train_labels), bool)
            for label in range(CLASSES):
                members = rng.permutation(np.flatnonzero(self.pictures.train_labels == label))
                held_back[members[: len(members) // VALIDATION_SHARE]] = True
            self._split["train"] = np.flatnonzero(~held_back)
            self._split["validation"] = np.flatnonzero(held_back)
        return self._split[split]

    def pixels(self, split: Split) -> ByteArray:
        """The images of a split as bytes, (n, 32, 32, 3)."""
        return self.pictures.test_images if split == "test" else self.pictures.train_images[self.indices(split)]

    def labels(self, split: Split) -> IntArray:
        """Labels of a split, (n,)."""
        return self.pictures.test_labels if split == "test" else self.pictures.train_labels[self.indices(split)]

    def sources(self, split: Split) -> list[str]:
        """The archive, its member and the row of each image."""
        rows = range(len(self.pictures.test_labels)) if split == "test" else self.indices(split).tolist()
        return [f"{self.where}:{'test' if split == 'test' else 'train'}[{row}]" for row in rows]

    def views(self, split: Split, resolution: int, n_views: int = 1) -> tuple[FloatArray, IntArray]:
        """Standardised images (n, 3, r, r) and labels; one view an image whatever ``n_views``, which is the digits'."""
        return self._standardised(self.pixels(split), resolution), self.labels(split)

    def recalibration(self, resolution: int, n_images: int) -> FloatArray:
        """The first ``n_images`` of a fixed permutation of the training images, (n_images, 3, r, r)."""
        order = np.random.Generator(np.random.Philox(key=_ORDER_SEED)).permutation(self.indices("train"))
        return self._standardised(self.pictures.train_images[order[:n_images]], resolution)

    def preprocessing(self, resolution: int) -> Preprocessing:
        """How a picture of CIFAR's size becomes an input of this size."""
        return Preprocessing.shrinking(SIDE_PX, resolution, self.mean, self.std)

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Exact mean and deviation by channel, from how often each byte occurs."""
        means, stds = [], []
        for channel in range(3):
            counts = np.bincount(self.pictures.train_images[..., channel].ravel(), minlength=256)
            values, share = np.arange(256) / 255, counts / counts.sum()
            mean = float(values @ share)
            means.append(mean)
            stds.append(max(float((values - mean) ** 2 @ share) ** 0.5, 1 / 255))  # a flat channel divides by one step
        return tuple(means), tuple(stds)

    def _standardised(self, pixels: ByteArray, resolution: int) -> FloatArray:
        return standardise(pixels, self.mean, self.std, resolution)


class _Source(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Bounded:
    """A stream of which no more than a bound is ever read: what is packed into a small file can be of any size."""

    def __init__(self, stream: _Source, bound_bytes: int) -> None:
        self._stream = stream
        self._left_bytes = bound_bytes

    def read(self, size: int = -1) -> bytes:
        wanted = self._left_bytes + 1 if size < 0 else min(size, self._left_bytes + 1)
        content = self._stream.read(wanted)
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            raise ValueError(f"more than {MAX_UNPACKED_BYTES >> 20} MiB unpacked")
        return content


@contextmanager
def _unpacked(path: Path) -> Iterator[_Source]:
    with opened_regular(path) as packed:
        start = packed.read(8)
        packed.seek(0)
        reader = next((reader for magic, reader in _PACKED.items() if start.startswith(magic)), None)
        if reader is None:
            yield packed
            return
        with reader(packed) as stream:
            yield stream


def _members_of_archive(path: Path) -> Iterator[tuple[str, _Source]]:
    """The three files, in the archive's order. Other members are passed over: nothing is ever written to the disk.

    They lie in one folder of the archive, whichever; a folder of that name is another data set's.
    """
    left = [*_MEMBERS, _META]
    folder: PurePosixPath | None = None
    with _unpacked(path) as stream:
        bounded: Any = _Bounded(stream, MAX_UNPACKED_BYTES)
        with tarfile.open(fileobj=bounded, mode="r|", bufsize=_BLOCK_BYTES) as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                name = next((name for name in left if name == place.name), None)
                if name is None or member.isdir() or folder not in (None, place.parent):
                    continue
                left.remove(name)  # a second one of the same name is passed over
                folder = place.parent
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.size > MAX_UNPACKED_BYTES:
                    raise ValueError(f"{member.name} is no plain file of at most {MAX_UNPACKED_BYTES >> 20} MiB")
                content = archive.extractfile(member)
                assert content is not None
                yield name, content
                if not left:
                    return


def _members_of_folder(path: Path) -> Iterator[tuple[str, _Source]]:
    for name in (*_MEMBERS, *([_META] if os.path.isfile(path / _META) else [])):
        with opened_regular(path / name) as stream:
            yield name, _Bounded(stream, MAX_UNPACKED_BYTES)


class _PickledArray:
    """What ``numpy.core.multiarray._reconstruct`` returns in these pickles, filled by BUILD: checked, not executed."""

    values: np.ndarray[Any, np.dtype[Any]]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, content = state
        if not isinstance(dtype, _PickledDtype) or not isinstance(content, bytes) or len(shape) not in (1, 2):
            raise ValueError("an array of something other than numbers")
        flat = np.frombuffer(content, dtype.kind)
        self.values = flat.reshape([int(n) for n in shape], order="F" if column_major else "C")


class _PickledDtype:
    """``numpy.dtype`` of the few kinds that pixels and labels may have; numpy's own state adds nothing to them."""

    def __init__(self, kind: Any, *_: Any) -> None:
        text = kind.decode("ascii") if isinstance(kind, bytes) else str(kind)
        if text.lstrip("<|") not in ("u1", "u2", "u4", "i2", "i4", "i8"):
            raise ValueError(f"an array of {text[:10]}")
        self.kind = "<" + text.lstrip("<|")

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|", b"<", b"|"):
            raise ValueError("an array of swapped bytes")


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """``_codecs.encode`` as Python 3 writes bytes in protocol 2; ``_Reader`` counts what it gives."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise ValueError("text in another encoding than latin1")
    return text.encode("latin1")


def _empty_bytes(*arguments: Any) -> bytes:
    """``builtins.bytes()``, which stands for empty bytes in protocol 2."""
    if arguments:
        raise ValueError("bytes made of something")
    return b""


def _new_array(*_: Any) -> _PickledArray:
    return _PickledArray()


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "dtype"): _PickledDtype,
    ("numpy", "ndarray"): _new_array,  # an argument of _reconstruct, never called by honest pickles; harmless if it is
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _empty_bytes,
    ("builtins", "bytes"): _empty_bytes,
}
# What dicts, lists, numbers, strings, bytes and arrays are written in by protocols 2 and 3.
_OPCODES = (
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.REDUCE),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINUNICODE, pickle.BINBYTES, pickle.SHORT_BINBYTES),
)


class _Reader(pickle._Unpickler):
    """Reads a pickle of the module's description; any other opcode or name is an error before anything of it is run."""

    stack: list[Any]

    def _fill(self) -> None:
        """Carry out BUILD on stand-ins alone: the general one sets attributes of whatever it meets."""
        state = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, _PickledArray | _PickledDtype):
            raise pickle.UnpicklingError(f"it builds a {type(made).__name__}")
        made.__setstate__(state)

    dispatch: ClassVar[dict[int, Any]] = {
        **{op[0]: pickle._Unpickler.dispatch[op[0]] for op in _OPCODES},
        pickle.BUILD[0]: _fill,
    }

    def __init__(self, stream: _Source) -> None:
        # Python 2 wrote its strings as bytes: leave them so.
        self._raw = _Raw(stream)
        self._encoded_bytes = 0
        super().__init__(io.BufferedReader(self._raw, _BLOCK_BYTES), encoding="bytes", fix_imports=False)

    def _encode(self, *arguments: Any) -> bytes:
        """Encode a text, but no more bytes in all than were read: a remembered text could be without end.

        Raises:
            ValueError: it would be more.
        """
        content = _encoded(*arguments)
        self._encoded_bytes += len(content)
        if self._encoded_bytes > self._raw.read_bytes:
            raise ValueError("it makes more bytes than it holds")
        return content

    def find_class(self, module: Any, name: Any) -> Any:
        """The stand-in of a name; any other name is an error.

        Raises:
            UnpicklingError: any other name, which honest pictures do not mention.
        """
        try:
            found = _NAMES[str(module), str(name)]
            return self._encode if found is _encoded else found
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no pictures need") from None

    def dict(self) -> Mapping[Any, Any]:
        """The dict that the pickle holds.

        Raises:
            UnpicklingError: it is something else.
        """
        try:
            content = self.load()
        except KeyError as error:  # of the dispatch table
            raise pickle.UnpicklingError(f"unexpected opcode or reference {error}") from None
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it holds no dict")
        return content


class _Raw(io.RawIOBase):
    """A stream with the ``readline`` and ``readinto`` that the unpickler wants, over one that only reads."""

    def __init__(self, stream: _Source) -> None:
        super().__init__()
        self._stream = stream
        self.read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        self.read_bytes += len(content)
        return len(content)


def _arrays(content: Mapping[Any, Any], where: str) -> tuple[ByteArray, IntArray]:
    """Images (n, 32, 32, 3) and labels (n,) of one pickled dict.

    Raises:
        InputError: one is missing, or not what it should be.
    """
    found = {name: content.get(name.encode(), content.get(name)) for name in ("data", "fine_labels")}
    pixels: Any = found["data"].values if isinstance(found["data"], _PickledArray) else np.empty(0)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3 * SIDE_PX**2 or not len(pixels):
        raise InputError(
            f"{where}: data is {pixels.dtype} {pixels.shape}, should be uint8 (n, 3072); fetch {ARCHIVE} again"
        )
    raw = found["fine_labels"]
    numbers: Any = []
    if isinstance(raw, _PickledArray):
        numbers = raw.values
    elif isinstance(raw, list) and all(type(n) is int and 0 <= n < CLASSES for n in raw):
        numbers = raw
    labels = np.array(numbers, np.int64)  # a copy: what was unpickled is read-only, which torch warns of
    if labels.shape != (len(pixels),) or int(labels.min()) < 0 or int(labels.max()) >= CLASSES:
        raise InputError(
            f"{where}: fine_labels are not {len(pixels)} numbers from 0 to {CLASSES - 1}; fetch {ARCHIVE} again"
        )
    return np.ascontiguousarray(pixels.reshape(-1, 3, SIDE_PX, SIDE_PX).transpose(0, 2, 3, 1)), labels
