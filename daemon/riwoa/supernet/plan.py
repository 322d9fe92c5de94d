"""How a supernet for somebody's pictures is to be trained, from what the pictures are and what is asked for. No torch.

Everything that nobody names follows from the pictures: resolutions from their size, augmentation from both, the class
weights from how unevenly the classes are filled; width and strides from the supernet that the training starts from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from riwoa.errors import InputError
from riwoa.supernet.geometry import Stem
from riwoa.supernet.published import PUBLISHED, published_path, sha256_of
from riwoa.supernet.recipe import Recipe, read_recipe

SCRATCH, AUTO = "scratch", "auto"
_SMALL_PX = 40  # pictures up to this size are shown almost as they are, shifted but not cut
_LARGE_PX = (64, 80, 96)  # of photographs: what trains and is judged in minutes on a processor
_WIDTH = 0.25
_BATCH_IMAGES = 64
_WARMUP_STEPS, _HEAD_ONLY_STEPS = 100, 50
_UNEVEN = 1.5  # times as many images of one class as of another


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a recipe depends on of the pictures that train."""

    n_classes: int
    images: int
    side_px: int
    unevenness: float = 1.0  # images of the largest class by those of the smallest


@dataclass(frozen=True, slots=True)
class Source:
    """A supernet to start from. ``width_mult`` is None where its file does not say."""

    name: str
    path: Path
    width_mult: float | None
    stem: Stem = "imagenet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is asked for; None: as it suits the pictures."""

    minutes: float = 10.0
    epochs: int | None = None
    width_mult: float | None = None
    stem: Stem | None = None
    resolutions: tuple[int, ...] | None = None
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"


def source_of(start: str, width_mult: float | None) -> Source | None:
    """What ``train.start`` means: the supernet to start from, None for scratch.

    Args:
        start: "auto", "scratch", a published name, or a path.
        width_mult: that is asked for; "auto" starts from nothing of another width.

    Raises:
        InputError: it is not here, or of another width than is asked for.
    """
    if start == SCRATCH:
        return None
    if start == AUTO:
        found = _published("riwoa_cifar100_w0.25")
        return found if width_mult in (None, found.width_mult) else None
    if start in PUBLISHED:
        _require_width(start, PUBLISHED[start].width_mult, width_mult)
        return _published(start)
    source = _of_file(Path(start).absolute())
    _require_width(start, source.width_mult, width_mult)
    return source


def _require_width(start: str, found: float | None, asked: float | None) -> None:
    if found is not None and asked is not None and found != asked:
        raise InputError(
            f"train.start = {start} is a supernet of width {found:g}, and one of width {asked:g} is asked for: every "
            "layer of theirs differs in size; leave the width out, or set train.start to scratch"
        )


def _published(name: str) -> Source:
    net = PUBLISHED[name]
    return Source(name, published_path(net), net.width_mult)


def _of_file(path: Path) -> Source:
    if not path.is_file():
        named = ", ".join(PUBLISHED)
        raise InputError(f"train.start: there is no supernet at {path}; name scratch, a file, or one of {named}")
    try:
        recipe = read_recipe(path)
    except InputError:  # of another maker: its width shows when it is loaded
        return Source(path.name, path, None)
    return Source(path.name, path, recipe.width_mult, recipe.stem)


def settled(wishes: Wishes, side_px: int, source: Source | None) -> Wishes:
    """The wishes with width, strides and resolutions, for pictures of this size."""
    resolutions = wishes.resolutions or resolutions_for(side_px)
    # For pictures of 32 px the small strides reach more, in fifteen times the time: minutes on a processor are too few.
    stem: Stem = source.stem if source is not None else "imagenet"
    width_mult = wishes.width_mult or (source.width_mult if source is not None else None) or _WIDTH
    return replace(wishes, resolutions=resolutions, stem=wishes.stem or stem, width_mult=width_mult)


def plan(pictures: Pictures, wishes: Wishes, source: Source | None) -> Recipe:
    """The recipe for a supernet of these pictures."""
    wishes = settled(wishes, pictures.side_px, source)
    assert wishes.width_mult is not None
    assert wishes.resolutions is not None
    assert wishes.stem is not None
    small = wishes.resolutions[-1] <= _SMALL_PX
    batch_images = max(1, min(_BATCH_IMAGES, pictures.images // 2))
    steps = (wishes.epochs or 0) * max(1, pictures.images // batch_images)  # 0: as many as fit into the minutes
    short = min(_WARMUP_STEPS, max(1, steps // 10)) if steps else _WARMUP_STEPS
    recipe = Recipe(
        width_mult=wishes.width_mult,
        n_classes=pictures.n_classes,
        resolutions=wishes.resolutions,
        steps=max(1, steps),
        minutes=0.0 if steps else wishes.minutes,
        largest_only_steps=0,
        batch_images=batch_images,
        learning_rate=0.002,
        weight_decay=0.02,
        warmup_steps=short,
        ema=0.99,
        seed=wishes.seed,
        stem=wishes.stem,
        precision=wishes.precision,
        label_smoothing=0.1,
        crop_px=pictures.side_px // 8 if small else 0,
        zoom=1.0 if small else 0.35,
        flip=True,
        cutout_px=pictures.side_px // 4 if small else 0,
        colour=0.1,
        stored="float16",
        start="identity",
        balance=0.5 if pictures.unevenness > _UNEVEN else 0.0,
        checks=10,
    )
    if source is None:
        return recipe
    head_only = min(_HEAD_ONLY_STEPS, short)
    sha256 = sha256_of(source.path)
    return replace(recipe, start="drawn", source=source.name, source_sha256=sha256, head_only_steps=head_only)


def resolutions_for(side_px: int) -> tuple[int, ...]:
    """Input sizes for pictures of this size, ascending."""
    if side_px >= _LARGE_PX[-1]:
        return _LARGE_PX
    step, shares = (4, (0.75, 0.875, 1.0)) if side_px <= _SMALL_PX else (8, (2 / 3, 5 / 6, 1.0))
    return tuple(sorted({max(step, step * round(share * side_px / step)) for share in shares}))
