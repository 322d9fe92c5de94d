"""What the protocol is asked for: settings, the paths among them, and the search's configuration that follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from riwoa.config.kinds.supernet import TRAINED
from riwoa.config.renamed import new_name
from riwoa.datasets.cifar import find_cifar100
from riwoa.datasets.digits import RESOLUTIONS
from riwoa.errors import InputError
from riwoa.paths import StatePaths
from riwoa.supernet.checkpoint import is_safetensors
from riwoa.supernet.geometry import Backbone, Stem
from riwoa.supernet.pictures import classes_and_side_px
from riwoa.supernet.plan import resolutions_for
from riwoa.supernet.published import PUBLISHED
from riwoa.supernet.recipe import read_recipe
from riwoa.supernet.spec import SupernetSpec
from riwoa.validate.corrupted import PublishedSet
from riwoa.validate.corruptions import frost_photographs
from riwoa.validate.recipes import Protocol, Retraining

_INHERITED_IMAGES = 2000  # that the weights of a named supernet are recalibrated on, as OFA does
_DIGITS_RECALIBRATION = 400  # as a search does: there are few


@dataclass(frozen=True, slots=True)
class Settings:
    """All that decides the outcome, besides library versions and the processor.

    What is None follows from the finished search, from the checkpoint, or from the pictures.
    """

    protocol: Protocol
    data: str | None  # the pictures; None: the finished search's
    width_mult: float | None = None
    stem: Stem | None = None
    resolutions: tuple[int, ...] | None = None
    supernet: str | None = None  # a checkpoint; None: trained here, where one is needed
    supernet_options: tuple[str, ...] = ()  # of `riwoactl supernet train cifar100`, where it is trained here
    architecture: Mapping[str, Any] | None = None  # instead of a search
    state: str | None = None  # of a finished search, instead of one here
    table: str | None = None  # this device's latency table; None: the search's
    search: Mapping[str, Any] = field(default_factory=dict)  # configuration keys of the daemon
    retraining: Retraining = field(default_factory=Retraining)
    controls: bool = True
    corrupted: str | None = None  # the published archive's folder
    frost: str | None = None  # a folder with the published photographs
    images: int | None = None  # pictures that are corrupted; None for all that judge
    device: str = "cpu"
    threads: int = 1
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """What ``job.json`` holds."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @property
    def searches(self) -> bool:
        """Whether the search is one of its own."""
        return self.architecture is None and self.state is None


def check_paths(s: Settings) -> None:
    """Look at every path that was named, before a folder is bound to it.

    Raises:
        InputError: one leads nowhere, or to something else.
    """
    searched = s.state if s.architecture is None else None  # beside an architecture it is not read
    data = None if s.data == "digits" else s.data
    supernet = None if s.supernet in PUBLISHED else s.supernet
    pictures, is_there = ("CIFAR-100", find_cifar100) if s.protocol == "cifar100" else ("pictures", Path.exists)
    named: list[tuple[str, str | None, str, Callable[[Path], object]]] = [
        ("--data", data, pictures, is_there),
        ("--supernet", supernet, "checkpoint", Path.is_file),
        ("--state", searched, "journal of a search", lambda path: StatePaths(path).journal.is_file()),
        ("--table", s.table, "latency table", Path.is_file),
        ("--corrupted", s.corrupted, "folder", Path.is_dir),
        ("--frost", s.frost, "folder", Path.is_dir),
    ]
    for option, path, what, holds in named:
        if path is not None and not holds(Path(path)):
            raise InputError(f"{option}: there is no {what} at {path}; correct the path")
    if s.corrupted is not None:
        PublishedSet(Path(s.corrupted), s.images)
    elif s.frost is not None:
        frost_photographs(Path(s.frost))


def search_toml(s: Settings, checkpoint: Path | None) -> str:
    """The search's configuration as TOML: dotted keys, and values that JSON writes alike.

    Args:
        s: the settings.
        checkpoint: the supernet; None: the digits' own, or one that the search trains first.
    """
    own = "embedded" if s.data == "digits" else TRAINED
    published = s.supernet if s.supernet in PUBLISHED else None
    named = {"width_mult": s.width_mult, "stem": s.stem, "resolutions": s.resolutions}
    keys: dict[str, Any] = {
        "run.seed": s.seed,
        "run.export": False,
        "oracle.supernet.checkpoint": published or (own if checkpoint is None else str(checkpoint.absolute())),
        **({"oracle.supernet.n_classes": 100} if s.protocol == "cifar100" else {}),
        **{f"oracle.supernet.{name}": value for name, value in named.items() if value is not None},
        "oracle.supernet.data": s.data,
        "oracle.supernet.device": s.device,
        **{new_name(key, "supernet"): value for key, value in s.search.items()},
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def spec_of(s: Settings) -> SupernetSpec:
    """Pictures and backbone where no search says what they are: as named, else the checkpoint's, else as suits them.

    Raises:
        InputError: the checkpoint or the pictures cannot be read.
    """
    assert s.data is not None
    assert s.architecture is not None
    spec = SupernetSpec(
        n_classes=0,
        data=s.data,
        data_rules=1 if s.data == "digits" else 2,
        recalibration_images=_DIGITS_RECALIBRATION if s.data == "digits" else _INHERITED_IMAGES,
        checkpoint=s.supernet,
        device="cuda" if s.device == "cuda" else "cpu",
        threads=s.threads,
    )
    n_classes, side_px = classes_and_side_px(spec)
    backbone, resolutions = backbone_of(s.supernet)
    resolutions = s.resolutions or resolutions or (RESOLUTIONS if s.data == "digits" else resolutions_for(side_px))
    return replace(
        spec,
        n_classes=n_classes,
        width_mult=s.width_mult or backbone.width_mult,
        stem=s.stem or backbone.stem,
        resolutions=tuple(sorted({*resolutions, int(s.architecture["resolution"])})),
    )


def backbone_of(supernet: str | None) -> tuple[Backbone, tuple[int, ...] | None]:
    """Widths, strides and resolutions of a checkpoint; the digits' where none is named, or it does not say."""
    usual = Backbone(0.25, 0, "imagenet")
    if supernet is None:
        return usual, None
    if (net := PUBLISHED.get(supernet)) is not None:
        return Backbone(net.width_mult, net.n_classes, "imagenet"), net.resolutions
    if not is_safetensors(Path(supernet)):
        return usual, None
    try:
        recipe = read_recipe(Path(supernet))
    except InputError as error:
        if "carries no" not in str(error):
            raise
        return usual, None
    return Backbone(recipe.width_mult, recipe.n_classes, recipe.stem), recipe.resolutions
