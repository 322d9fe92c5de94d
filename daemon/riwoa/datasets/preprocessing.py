"""From a picture's file to a network's input, as one rule that an export can carry. Pillow and numpy only, no torch.

Two steps. To bytes: the shorter side to ``shorter_side_px``, the middle square of ``crop_px`` (``datasets.decoding``).
To floats: by area to ``resolution`` where that is another size (``datasets.arrays``), then standardised. A folder's
pictures are cropped at the network's own size; those of CIFAR, of a file of arrays and the digits are kept at theirs,
and made smaller by area.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from riwoa.datasets.arrays import ByteArray, FloatArray, quantise, standardise
from riwoa.datasets.decoding import coloured, cropped_to, opened, shorter_side_px

SCHEMA = 1
_MOST_PX = 4096
_CHANNELS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How pictures become the input of one network; lengths in pixels, mean and std on the scale of 0 to 1."""

    shorter_side_px: int
    crop_px: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rules: int = 2  # of ``decoding.coloured``; by 1, torchvision's, EXIF and transparency are not followed

    @classmethod
    def cropping(cls, resolution: int, mean: Sequence[float], std: Sequence[float], rules: int) -> Self:
        """OFA's rule for photographs: a middle square of the network's own size."""
        sizes = {"shorter_side_px": shorter_side_px(resolution), "crop_px": resolution, "resolution": resolution}
        return cls(**sizes, mean=tuple(mean), std=tuple(std), rules=rules)

    @classmethod
    def shrinking(cls, side_px: int, resolution: int, mean: Sequence[float], std: Sequence[float]) -> Self:
        """The rule for square pictures that are all of one size."""
        return cls(shorter_side_px=side_px, crop_px=side_px, resolution=resolution, mean=tuple(mean), std=tuple(std))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The rule of ``to_json``.

        Raises:
            ValueError: it is of another version, incomplete, or out of bounds.
        """
        if content.get("schema") != SCHEMA:
            raise ValueError(f"a preprocessing of schema {content.get('schema')!r}, not {SCHEMA}")
        try:
            sizes = {name: content[name] for name in ("shorter_side_px", "crop_px", "resolution")}
            mean, std = ([float(value) for value in content[name]] for name in ("mean", "std"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"a preprocessing without a usable {error}") from None
        if not all(type(size) is int and 0 < size <= _MOST_PX for size in sizes.values()):
            raise ValueError(f"a preprocessing to sizes that no picture has: {sizes}")
        if sizes["crop_px"] > sizes["shorter_side_px"]:
            raise ValueError("a preprocessing that crops more than it keeps")
        if len(mean) != _CHANNELS or len(std) != _CHANNELS or not all(np.isfinite([*mean, *std])) or min(std) <= 0:
            raise ValueError("a preprocessing without three means and deviations")
        if content.get("rules") not in (1, 2):
            raise ValueError(f"a preprocessing by rules {content.get('rules')!r}, not 1 or 2")
        return cls(**sizes, mean=tuple(mean), std=tuple(std), rules=content["rules"])

    def to_json(self) -> dict[str, Any]:
        """The rule in numbers, and in words for whoever writes it anew."""
        return {
            "schema": SCHEMA,
            "shorter_side_px": self.shorter_side_px,
            "crop_px": self.crop_px,
            "resolution": self.resolution,
            "mean": list(self.mean),
            "std": list(self.std),
            "rules": self.rules,
            "to_bytes": self._to_bytes(),
            "to_floats": self._to_floats(),
        }

    def _to_bytes(self) -> list[str]:
        short, crop = self.shorter_side_px, self.crop_px
        deep = "colours as RGB, 8 bits; grey of more bits is scaled to 8"
        turned = "turned as the EXIF orientation says; what is transparent over white; of what moves the first frame"
        return [
            *([turned] if self.rules > 1 else []),
            deep,
            f"the shorter side to {short} px, the longer one to int({short} * longer / shorter); bilinear with "
            f"antialiasing, as Pillow's resize; a picture whose shorter side is {short} px already is left as it is",
            f"the middle {crop} x {crop} px, from round((width - {crop}) / 2), round((height - {crop}) / 2)",
        ]

    def _to_floats(self) -> list[str]:
        crop, r = self.crop_px, self.resolution
        smaller = f"{crop} px to {r} px by area: each new pixel is the mean of what it covers; not rounded"
        larger = f"{crop} px to {r} px, bilinear, centres of pixels aligned, edges repeated; not rounded"
        resized = [] if r == crop else [smaller if r < crop else larger]
        return [*resized, "value / 255, minus mean, divided by std, by channel; float32"]

    def pixels(self, data: bytes) -> ByteArray:
        """The bytes (crop_px, crop_px, 3) of a picture's file.

        Raises:
            Exception: of Pillow's many kinds; ValueError for one of absurd size.
        """
        return cropped_to(coloured(opened(data), self.rules), self.shorter_side_px, self.crop_px)

    def images(self, pixels: ByteArray) -> FloatArray:
        """The network's input (n, 3, resolution, resolution) of bytes (n, crop_px, crop_px, 3)."""
        return standardise(pixels, self.mean, self.std, self.resolution)

    def pixels_of(self, images: FloatArray) -> ByteArray:
        """The bytes (n, crop_px, crop_px, 3) that were standardised to ``images`` (n, 3, crop_px, crop_px)."""
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        return quantise(images * std + mean).transpose(0, 2, 3, 1)
