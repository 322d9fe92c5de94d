"""Pictures from files: OFA's resize and crop, and a cache of the bytes that it gives. Pillow and numpy only, no torch.

OFA judges on ``Resize(ceil(r / 0.875))`` and ``CenterCrop(r)`` (``build_valid_transform`` of its ImageNet provider, of
torchvision, not needed here): bilinear with antialiasing, the shorter side to the given size.

What a file is, its content says, not its name. Grey of more than 8 bits, which Pillow would cut to white, is scaled. Of
a picture that moves, the first frame is taken. By rules 2 a picture is turned as its EXIF orientation says, and what is
transparent shows white; by rules 1, which are torchvision's, colours are taken as they are stored.

Decoding 2,000 photographs takes longer than evaluating a small network on them, so it is done once: the cache holds one
file of plain bytes a resolution, to be mapped into memory by every worker, and a manifest that says what is in it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from riwoa.datasets.arrays import ByteArray, FloatArray, IntArray
from riwoa.errors import InputError
from riwoa.files.content import opened_regular
from riwoa.files.lock import Lock
from riwoa.files.ownership import unwritable
from riwoa.parsing import parse_json
from riwoa.paths import xdg
from riwoa.text import printable
from riwoa_storage.durable import flush, replace_durably

if TYPE_CHECKING:
    from PIL import Image

RULE_VERSIONS = {1: "ofa-validation-1", 2: "riwoa-upright-1"}  # how a file becomes bytes
# Which files become bytes at all, and those of more than 8 bits: raised, what was decoded before is decoded anew.
_DECODER_VERSION = 2
_SCALED = (
    b"scaled from more than 8 bits"  # in the hash of the content, where the rule's version alone gave other pixels
)
LEFT_OUT_SHARE = {1: 0.02, 2: 0.10}  # of the files may be left out, by the rules
_ALWAYS_LEFT_OUT = 3  # by rules 2: a few, however small the split
_KEY = re.compile("[0-9a-f]{64}")  # of a listing
MOST_PIXELS = 100_000_000  # of a picture, before and after resizing: a small file can declare far more
MOST_FILE_BYTES = 256 * 2**20
_MOST_MANIFEST_BYTES = 1 << 28  # of millions of images
_CROP_SHARE = 0.875
_SHOWN = 3  # unreadable files that a message names
_MAX_REASON_CHARACTERS = 100
_OBJECT = re.compile(r"<[^<>]*>")  # an object as Python names it: another address, or descriptor, every time


class StandardisedImages:
    """Images kept as bytes and standardised when they are looked at: to whoever slices, an array (n, 3, r, r).

    Args:
        pixels: (n, r, r, 3), red first; may be a file mapped into memory.
        mean: taken from each channel, on the scale of 0 to 1.
        std: what each channel is divided by afterwards.
    """

    def __init__(self, pixels: ByteArray, mean: Sequence[float], std: Sequence[float]) -> None:
        self._pixels = pixels
        self._scale = np.array([1 / (255 * s) for s in std], np.float32)
        self._shift = np.array([m / s for m, s in zip(mean, std, strict=True)], np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, 3, r, r)."""
        n, height, width, channels = self._pixels.shape
        return n, channels, height, width

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, rows: slice | IntArray, /) -> FloatArray:
        """The images of a slice, or of these numbers, (k, 3, r, r) float32."""
        standardised = self._pixels[rows] * self._scale - self._shift
        return np.ascontiguousarray(standardised.transpose(0, 3, 1, 2))


def most_left_out(files: int, rules: int) -> int:
    """How many of so many files may be no readable pictures."""
    return max(int(LEFT_OUT_SHARE[rules] * files), _ALWAYS_LEFT_OUT if rules > 1 else 0)


@dataclass(frozen=True)
class Listing:
    """Files in the order in which they are used, by their names below ``root``, and the rules they are read by."""

    root: Path
    names: tuple[str, ...]
    rules: int = 1

    @cached_property
    def key(self) -> str:
        """Hash of what decides the bytes as far as it shows without reading: names, sizes, times, and the rule.

        Raises:
            InputError: a file is gone.
        """
        facts = [RULE_VERSIONS[self.rules], _DECODER_VERSION, metadata.version("pillow"), *map(self._facts, self.names)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _facts(self, name: str) -> tuple[str, int, int]:
        try:
            found = (self.root / name).stat()
        except OSError as error:
            raise InputError(f"cannot read {self.root / name} ({error.strerror}); start again") from None
        return name, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Prepared:
    """A listing's pictures, ready to be mapped."""

    kept: tuple[int, ...]  # the readable ones, as positions in the listing
    unreadable: Mapping[str, str]  # name -> why
    content_sha256: str  # of the readable files' bytes, in order
    directory: Path
    key: str

    def pixels(self, resolution: int) -> ByteArray:
        """Pixels (n, r, r, 3) of the kept files, mapped read-only."""
        shape = (len(self.kept), resolution, resolution, 3)
        return np.memmap(_pixels_file(self.directory, self.key, resolution), np.uint8, "r", shape=shape)


def cache_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Where decoded pictures lie: ``riwoa/pictures`` in $XDG_CACHE_HOME, in systemd's state directory, in ~/.cache."""
    env = os.environ if environment is None else environment
    base = env.get("STATE_DIRECTORY", "").partition(":")[0]
    if not base or os.path.isabs(env.get("XDG_CACHE_HOME", "")):
        base = xdg("XDG_CACHE_HOME", ".cache", "XDG_CACHE_HOME", env)
    return Path(os.path.realpath(base), "riwoa", "pictures")


@dataclass(frozen=True, slots=True)
class CachedPictures:
    """What the cache holds of one listing.

    Attributes:
        manifest: which pictures, and what came of them.
        files: that and the pixels.
    """

    manifest: Path
    files: tuple[Path, ...]

    @classmethod
    def all_in(cls, directory: Path) -> list[CachedPictures]:
        """Of every listing in a cache; none where there is no cache."""
        manifests = (file for file in sorted(directory.glob("*.json")) if _KEY.fullmatch(file.stem))
        return [cls(m, (m, *sorted(directory.glob(f"{m.stem}.*.rgb")))) for m in manifests]

    def remove(self) -> None:
        """Remove them; whoever has them mapped keeps them, and what is being decoded just now stays."""
        with Lock(self.manifest.with_suffix(".lock")) as lock:
            if lock.take():
                for file in self.files:
                    file.unlink(missing_ok=True)


def prepare(listing: Listing, resolutions: Sequence[int], directory: Path) -> Prepared:
    """Decode what the cache lacks. A second process waits for the first, and then finds everything.

    Raises:
        InputError: more than ``most_left_out`` of the files are no readable pictures, or they changed meanwhile.
        StateDirectoryError, FullDiskError: the cache cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with Lock(directory / f"{listing.key}.lock") as lock:
            lock.wait()
            return _prepare_alone(listing, resolutions, directory)
    except OSError as error:
        raise unwritable(directory, error, "set XDG_CACHE_HOME") from None


def _prepare_alone(listing: Listing, resolutions: Sequence[int], directory: Path) -> Prepared:
    known = _read_manifest(listing, directory)
    missing = [r for r in resolutions if known is None or not _is_whole(known, r)]
    if known is not None and not missing:
        return known
    found = _decode(listing, missing, directory)
    if known is not None and found != known:
        _manifest_file(directory, listing.key).unlink()  # the next start decodes everything anew
        raise InputError(f"{listing.root}: its images changed while they were read; start again")
    for resolution in missing:
        file = _pixels_file(directory, listing.key, resolution)
        _temporary(file).replace(file)
    content = {"kept": found.kept, "unreadable": found.unreadable, "content_sha256": found.content_sha256}
    # Last, and durably: with it, the files that it speaks of are there.
    flush(directory)
    replace_durably(_manifest_file(directory, listing.key), json.dumps(content).encode())
    return found


def _decode(listing: Listing, resolutions: Sequence[int], directory: Path) -> Prepared:
    """Write each resolution's pixels beside their place, flushed; every file is read and decoded once."""
    digest, kept, unreadable = hashlib.sha256(), [], {}
    most = most_left_out(len(listing.names), listing.rules)
    with contextlib.ExitStack() as stack:
        streams: list[tuple[int, IO[bytes]]] = [
            (r, stack.enter_context(_temporary(_pixels_file(directory, listing.key, r)).open("wb")))
            for r in resolutions
        ]
        for i, name in enumerate(listing.names):
            try:
                data = read_picture(listing.root / name)
                picture = opened(data)
                crops = [cropped(rgb, r) for rgb in (coloured(picture, listing.rules),) for r, _ in streams]
            except Exception as error:  # the decoders of hostile files raise whatever they met
                unreadable[name] = reason(error)
                if len(unreadable) > most:
                    raise InputError(_too_many(listing, unreadable, i + 1)) from None
                continue
            for (_, stream), crop in zip(streams, crops, strict=True):
                stream.write(crop.tobytes())
            digest.update(hashlib.sha256(data).digest() + (_SCALED if _is_deep(picture) else b""))
            kept.append(i)
    for resolution in resolutions:
        flush(_temporary(_pixels_file(directory, listing.key, resolution)))
    if unreadable:
        print(f"left out {len(unreadable)} of {len(listing.names)} images: {named(unreadable)}", file=sys.stderr)
    return Prepared(tuple(kept), unreadable, digest.hexdigest(), directory, listing.key)


def why_no_picture(path: Path) -> str | None:
    """What is wrong with a file as a picture, as far as its beginning tells; None where it can be one."""
    from PIL import Image

    try:
        with opened_regular(path) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(stream, formats=_formats())
    except Exception as error:  # the decoders of hostile files raise whatever they met
        return reason(error)
    return None


def opened(data: bytes) -> Image.Image:
    """A picture in its own mode, decoded whole.

    Raises:
        Exception: of Pillow's many kinds; ValueError for one of absurd size.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that nobody asks for
        picture = Image.open(io.BytesIO(data), formats=_formats())
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"{picture.width}x{picture.height} pixels are more than {MOST_PIXELS:,}")
        picture.load()
        return picture


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that Pillow opens by itself, the usual ones first; for EPS it would start another program."""
    from PIL import Image

    Image.init()
    usual = ("JPEG", "PNG")
    return (*usual, *(name for name in Image.OPEN if name not in (*usual, "EPS")))


def _is_deep(picture: Image.Image) -> bool:
    """Whether a picture's grey has more than 8 bits; colours of 16 bits Pillow itself has scaled to 8."""
    return picture.mode.startswith("I") or picture.mode == "F"


def coloured(picture: Image.Image, rules: int = 2) -> Image.Image:
    """A decoded picture in RGB; by rules 2 upright, and over white where it is transparent.

    Raises:
        Exception: of Pillow's many kinds; ValueError where nothing says what is white.
    """
    from PIL import Image

    turned = _upright(picture) if rules > 1 else picture
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a palette's transparency is dropped
        if _is_deep(picture):
            white = _white(picture)
            grey = np.asarray(turned).astype(np.float32)  # 255 times 16 bits is exact in it
            return Image.fromarray(np.rint(255 * grey / white).astype(np.uint8)).convert("RGB")
        if rules > 1 and turned.has_transparency_data:
            clear = turned.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
        return turned.convert("RGB")


def _upright(picture: Image.Image) -> Image.Image:
    """A picture turned as its EXIF orientation says; metadata that cannot be read turn nothing."""
    from PIL import ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            turned: Image.Image = ImageOps.exif_transpose(picture)
        except Exception:  # of hostile metadata: of many kinds, and the picture itself is whole
            return picture
    return turned


def _white(picture: Image.Image) -> float:
    """The number that stands for white in a picture of deep grey.

    Raises:
        ValueError: nothing says which.
    """
    if picture.mode.startswith("I;16"):
        tags: Any = getattr(picture, "tag_v2", {})  # of a TIFF, which may have 12 bits as well
        return float(2 ** tags.get(258, (16,))[0] - 1)
    if picture.mode == "I" and picture.format == "PPM":
        return 65535.0  # Pillow scales to it
    low, high = picture.getextrema()
    if picture.mode == "F" and 0.0 <= low <= high <= 1.0:  # type: ignore[operator]  # of one channel: two numbers
        return 1.0
    raise ValueError("numbers of 32 bits, and nothing says which is white; save it with 8 or 16 bits")


def shorter_side_px(resolution: int) -> int:
    """To how many pixels OFA's validation transform brings the shorter side before it crops."""
    return math.ceil(resolution / _CROP_SHARE)


def cropped(picture: Image.Image, resolution: int) -> ByteArray:
    """The picture after OFA's validation transform, (r, r, 3). Raises as ``cropped_to``."""
    return cropped_to(picture, shorter_side_px(resolution), resolution)


def cropped_to(picture: Image.Image, short: int, side: int) -> ByteArray:
    """The middle of the picture after its shorter side was brought to ``short`` pixels, (side, side, 3).

    Raises:
        ValueError: so narrow a picture that resizing its shorter side makes the longer one absurd.
    """
    from PIL import Image

    width, height = picture.size
    # torchvision's rule, integer division included; a picture that fits already is not resampled.
    if width <= height:
        size = (short, int(short * height / width))
    else:
        size = (int(short * width / height), short)
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"{width}x{height} pixels are too narrow a picture")
    resized = picture if min(width, height) == short else picture.resize(size, Image.Resampling.BILINEAR)
    left, top = round((resized.width - side) / 2), round((resized.height - side) / 2)
    return np.asarray(resized.crop((left, top, left + side, top + side)), dtype=np.uint8)


def read_picture(path: Path) -> bytes:
    """The bytes of a file that is to be a picture.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, or larger than a picture may be.
    """
    with opened_regular(path) as stream:
        data = stream.read(MOST_FILE_BYTES + 1)
    if len(data) > MOST_FILE_BYTES:
        raise ValueError(f"more than {MOST_FILE_BYTES >> 20} MiB")
    return data


def reason(error: Exception) -> str:
    """Why a file is no picture, in a few words that are the same whenever and wherever it is read."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "no picture that Pillow knows"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return printable(_OBJECT.sub("it", " ".join(text.split())) or type(error).__name__, _MAX_REASON_CHARACTERS)


def named(unreadable: Mapping[str, str]) -> str:
    """The first few of left-out files, for a message."""
    shown = "; ".join(f"{printable(name)} ({why})" for name, why in list(unreadable.items())[:_SHOWN])
    return shown + ("; ..." if len(unreadable) > _SHOWN else "")


def _too_many(listing: Listing, unreadable: Mapping[str, str], looked_at: int) -> str:
    return (
        f"{listing.root}: {len(unreadable)} of the first {looked_at} images cannot be read, at most "
        f"{100 * LEFT_OUT_SHARE[listing.rules]:g} % of {len(listing.names)} may be left out: {named(unreadable)}; "
        "replace or remove them"
    )


# -- the cache's files -------------------------------------------------------------------------------------------------


def _manifest_file(directory: Path, key: str) -> Path:
    return directory / f"{key}.json"


def _pixels_file(directory: Path, key: str, resolution: int) -> Path:
    return directory / f"{key}.{resolution}.rgb"


def _temporary(file: Path) -> Path:
    return file.with_name(f"{file.name}.tmp")  # one writer at a time: the lock is held


def _read_manifest(listing: Listing, directory: Path) -> Prepared | None:
    """The manifest of what was decoded before; None where there is none or it is damaged."""
    try:
        content: Any = parse_json(_manifest_file(directory, listing.key).read_bytes(), _MOST_MANIFEST_BYTES)
        kept, unreadable, sha256 = content["kept"], content["unreadable"], content["content_sha256"]
        whole = len(kept) + len(unreadable) == len(listing.names) and list(kept) == sorted({int(i) for i in kept})
    except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return Prepared(tuple(kept), dict(unreadable), str(sha256), directory, listing.key) if whole else None


def _is_whole(prepared: Prepared, resolution: int) -> bool:
    file = _pixels_file(prepared.directory, prepared.key, resolution)
    return file.is_file() and file.stat().st_size == len(prepared.kept) * resolution**2 * 3
