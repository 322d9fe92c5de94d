"""What the protocol is asked for: settings, the paths among them, and the search's configuration that follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from riwoa.config.renamed import new_name
from riwoa.datasets.cifar import find_cifar100
from riwoa.errors import InputError
from riwoa.paths import StatePaths
from riwoa.supernet.geometry import Backbone
from riwoa.validate.corrupted import PublishedSet
from riwoa.validate.corruptions import frost_photographs
from riwoa.validate.retrain import Recipe


@dataclass(frozen=True, slots=True)
class Settings:
    """All that decides the outcome, besides library versions and the processor."""

    data: str  # the archive
    backbone: Backbone
    resolutions: tuple[int, ...]
    supernet: str | None = None  # a checkpoint; None: trained here, where one is needed
    supernet_options: tuple[str, ...] = ()  # of `riwoactl supernet train cifar100`
    architecture: Mapping[str, Any] | None = None  # instead of a search
    state: str | None = None  # of a finished search, instead of one here
    table: str | None = None  # this device's latency table; None: the search's
    search: Mapping[str, Any] = field(default_factory=dict)  # configuration keys of the daemon
    recipe: Recipe = field(default_factory=Recipe)
    controls: bool = True
    corrupted: str | None = None  # the published archive's folder
    frost: str | None = None  # a folder with the published photographs
    images: int | None = None  # test images that are corrupted; None for all
    device: str = "cpu"
    threads: int = 1
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """What ``job.json`` holds."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


def check_paths(s: Settings) -> None:
    """Look at every path that was named, before a folder is bound to it.

    Raises:
        InputError: one leads nowhere, or to something else.
    """
    searched = s.state if s.architecture is None else None  # beside an architecture it is not read
    named: list[tuple[str, str | None, str, Callable[[Path], object]]] = [
        ("--data", s.data, "CIFAR-100", find_cifar100),
        ("--supernet", s.supernet, "checkpoint", Path.is_file),
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


def search_toml(s: Settings, checkpoint: Path) -> str:
    """The search's configuration as TOML: dotted keys, and values that JSON writes alike."""
    keys: dict[str, Any] = {
        "run.seed": s.seed,
        "run.export": False,
        "oracle.supernet.checkpoint": str(checkpoint.absolute()),
        "oracle.supernet.width_mult": s.backbone.width_mult,
        "oracle.supernet.n_classes": s.backbone.n_classes,
        "oracle.supernet.stem": s.backbone.stem,
        "oracle.supernet.resolutions": list(s.resolutions),
        "oracle.supernet.data": s.data,
        "oracle.supernet.device": s.device,
        **{new_name(key, "supernet"): value for key, value in s.search.items()},
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
