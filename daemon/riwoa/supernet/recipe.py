"""How a supernet is trained: the recipe, which its file carries. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from riwoa.datasets.digits import CLASSES, RESOLUTIONS
from riwoa.errors import InputError
from riwoa.files.ownership import regular_file
from riwoa.parsing import parse_json
from riwoa.supernet.geometry import STEMS, Stem

_MAX_WIDTH, _MAX_CLASSES, _MAX_RESOLUTION = 8, 10**6, 4096


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the trained weights, besides data, library versions, device and thread count."""

    width_mult: float = 0.25
    n_classes: int = CLASSES
    resolutions: tuple[int, ...] = RESOLUTIONS
    steps: int = 5000
    largest_only_steps: int = 1500  # the teacher learns first; then every step is a whole sandwich
    batch_images: int = 128
    curriculum_steps: int = 1200  # digits: corruption grows linearly from none to full
    clean_share: float = 0.08  # digits: of a batch; the rest are corrupted views
    random_subnets: int = 1
    learning_rate: float = 0.004
    weight_decay: float = 0.02
    warmup_steps: int = 100
    temperature: float = 1.0
    ema: float = 0.998
    seed: int = 0
    stem: Stem = "imagenet"
    minutes: float = 0.0  # 0: ``steps`` counts; else as many steps as fit are found once, from the speed of the first
    optimiser: Literal["adamw", "sgd"] = "adamw"
    precision: Literal["float32", "bfloat16"] = "float32"  # of activations; weights and their sums are float32
    label_smoothing: float = 0.05
    crop_px: int = 0  # images: random shift in both directions
    flip: bool = False  # images: left and right
    cutout_px: int = 0  # images: side of the square that is blanked
    stored: Literal["float32", "float16"] = "float32"  # of the parameters in the file
    start: Literal["drawn", "identity"] = "drawn"  # of residual blocks; identity: the last BatchNorm's scale is zero
    source: str = ""  # the supernet whose weights it starts from, all but the classifier; "": from scratch
    source_sha256: str = ""  # of that file
    head_only_steps: int = 0  # the new classifier learns first, on features that stay as they are
    zoom: float = 1.0  # images: the least share of the area that a random cut shows, in place of the shift; 1: no cut
    colour: float = 0.0  # images: random change of brightness and contrast, as a share
    balance: float = 0.0  # labels weigh as their class's frequency to this negative power; 0: all alike
    checks: int = 0  # so often the largest subnet is judged on validation images; training that helps no longer ends
    patience: int = 3  # checks in a row, each worse than the best one by a standard error, that end it


DIGITS = Recipe()
# For one fast GPU and some five minutes; on a CPU take fewer steps, smaller batches and pictures.
CIFAR100 = Recipe(
    width_mult=0.5,
    n_classes=100,
    resolutions=(24, 28, 32),
    steps=2600,  # 60 epochs
    largest_only_steps=0,
    batch_images=1024,
    random_subnets=2,
    optimiser="sgd",
    learning_rate=0.4,
    weight_decay=5e-4,
    warmup_steps=130,
    ema=0.995,
    stem="small",
    label_smoothing=0.1,
    crop_px=4,
    flip=True,
    cutout_px=8,
    stored="float16",
    start="identity",
)


def read_recipe(path: Path) -> Recipe:
    """The recipe a supernet was trained with.

    Raises:
        InputError: the file is no safetensors file, or carries no recipe, or a damaged one.
    """
    try:
        with safe_open(regular_file(path), framework="np") as handle:
            notes = handle.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); fetch or train it again") from error
    if "recipe" not in notes:
        raise InputError(f"{path} carries no training recipe; it was not written by 'riwoactl supernet train'")
    try:
        return recipe_from(parse_json(notes["recipe"]))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} carries a damaged training recipe ({error}); train it again") from error


def recipe_from(data: dict[str, Any]) -> Recipe:
    """The recipe of a JSON object; what older ones did not say takes its default, and absurd sizes are refused."""
    recipe = replace(Recipe(), **{**data, "resolutions": tuple(data["resolutions"])})
    sizes = 0 < recipe.width_mult <= _MAX_WIDTH and 0 < recipe.n_classes <= _MAX_CLASSES and recipe.stem in STEMS
    if not sizes or not all(0 < r <= _MAX_RESOLUTION for r in recipe.resolutions):
        raise ValueError(f"a supernet of width {recipe.width_mult} and {recipe.n_classes} classes")
    return recipe
