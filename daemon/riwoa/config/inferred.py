"""What nobody needs to type: settings of a supernet that its checkpoint, or the pictures that are to train it, know.

A journaled configuration holds the values themselves, so a run goes on with those that it began with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riwoa.config.kinds.supernet import TRAINED, SupernetSettings
from riwoa.datasets.spec import DataSpec
from riwoa.errors import RiwoaError
from riwoa.supernet.pictures import classes_and_side_px
from riwoa.supernet.plan import Wishes, settled, source_of
from riwoa.supernet.published import PUBLISHED
from riwoa.supernet.recipe import read_recipe

if TYPE_CHECKING:
    from riwoa.config.schema import Config, Train

PREFIX = "oracle.supernet."
NAMES = ("width_mult", "n_classes", "stem", "resolutions")


def inferred(config: Config, given: Collection[str]) -> dict[str, Any]:
    """Values by dotted keys of what is not ``given`` and is known otherwise.

    Where a file is missing or damaged nothing is known; a start says what is wrong with it.
    """
    settings = config.oracle.supernet
    if config.oracle.kind != "supernet" or settings.checkpoint in ("embedded", *PUBLISHED):
        return {}
    try:
        if settings.checkpoint == TRAINED:
            found = _of_pictures(config.train, settings, {key.removeprefix(PREFIX) for key in given})
        else:
            recipe = read_recipe(Path(settings.checkpoint))
            found = {name: getattr(recipe, name) for name in NAMES}
    except (RiwoaError, OSError):
        return {}
    return {f"{PREFIX}{name}": found[name] for name in NAMES if f"{PREFIX}{name}" not in given}


def _of_pictures(train: Train, settings: SupernetSettings, given: Collection[str]) -> dict[str, Any]:
    """The same of a supernet that is still to be trained; ``given`` are names of settings.

    Raises:
        InputError: nothing is at ``data``, or not where the training is to start from.
    """
    path = settings.data if settings.data == "digits" else str(Path(settings.data).absolute())
    spec = DataSpec(n_classes=0, data=path, data_seed=settings.data_seed, data_rules=settings.data_rules)
    n_classes, side_px = classes_and_side_px(spec)
    wishes = wishes_of(train, {name: getattr(settings, name) for name in NAMES if name in given})
    whole = settled(wishes, side_px, source_of(train.start, wishes.width_mult))
    return {
        "n_classes": n_classes,
        "width_mult": whole.width_mult,
        "stem": whole.stem,
        "resolutions": whole.resolutions,
    }


def wishes_of(train: Train, settings: Mapping[str, Any]) -> Wishes:
    """What ``[train]`` asks for, and of ``[oracle.supernet]`` those ``settings`` that bind a training."""
    return Wishes(
        minutes=train.minutes,
        epochs=train.epochs,
        width_mult=settings.get("width_mult") if train.width == "auto" else train.width,
        stem=settings.get("stem"),
        resolutions=settings.get("resolutions") if train.resolutions == "auto" else train.resolutions,
        seed=train.seed,
    )
