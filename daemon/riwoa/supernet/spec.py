"""What decides an accuracy of a supernet's subnets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from riwoa.datasets.spec import DataSpec
from riwoa.supernet.geometry import Stem


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetSpec(DataSpec):
    """An oracle over a supernet checkpoint and images; with ``DataSpec``, everything that decides an accuracy."""

    checkpoint: str | None = None  # a path, or a published name; None: the supernet that ships inside the package
    width_mult: float = 0.25
    stem: Stem = "imagenet"
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: int | None = None  # None: what fits the processor's cache
    validation_views: int = 8  # of the digits; the images of a file or a folder are shown once
    rung_images: tuple[int, ...] = ()  # validation images of each lower rung, ascending
    prefix_cache_bytes: int = 256 * 2**20  # changes the speed of an evaluation, never its result
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint_sha256: str | None = None  # of the file, where its place is no part of what it is
    trained_on: str | None = None  # hash of the pictures that the checkpoint was trained on, where they must be these

    def to_json(self) -> dict[str, Any]:
        """The JSON object that a worker gets first, and that is a part of a run's digest.

        What is as it was before there was a choice goes without saying.
        """
        usual = {"stem": "imagenet", "device": "cpu", "validation_images": 2000, "data_seed": 0}
        usual |= {
            "recalibration_data": None,
            "rung_images": (),
            "data_rules": 1,
            "trained_on": None,
            "checkpoint_sha256": None,
        }
        fields = {name: value for name, value in asdict(self).items() if name not in usual or usual[name] != value}
        lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
        return {"kind": "supernet", **fields, **lists}

    @classmethod
    def from_json(cls, frame: Mapping[str, Any]) -> SupernetSpec:
        """The specification of ``to_json``; what older ones did not say takes its default."""
        fields: dict[str, Any] = {name: value for name, value in frame.items() if name != "kind"}
        return cls(**fields | {name: tuple(value) for name, value in fields.items() if isinstance(value, list)})
