"""The Once-for-All MobileNetV3 space and its mapping to OFA's own configuration. No torch.

20 kernels, 20 expansions, 5 depths and the resolution: 46 genes (Cai et al., ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from riwoa.search.space import Condition, Gene, Space

STAGES = 5
BLOCKS = 4
KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
DEPTHS = (2, 3, 4)
_MOST_PX = 10**5
_DEPTHS = [f"stage{s}.depth" for s in range(1, STAGES + 1)]
_KERNELS, _EXPANSIONS = (
    [f"stage{s}.block{b}.{what}" for s in range(1, STAGES + 1) for b in range(1, BLOCKS + 1)]
    for what in ("kernel", "expand")
)


@dataclass(frozen=True, slots=True)
class OfaConfig:
    """OFA's own form of a subnet: 20 kernels, 20 expansions, 5 depths, and the input resolution in pixels."""

    ks: tuple[int, ...]
    e: tuple[int, ...]
    d: tuple[int, ...]
    r: int

    def to_json(self) -> dict[str, Any]:
        """The object that OFA's tutorials write: {"ks": [...], "e": [...], "d": [...], "r": [r]}."""
        return {"ks": list(self.ks), "e": list(self.e), "d": list(self.d), "r": [self.r]}

    @staticmethod
    def from_json(data: object) -> OfaConfig:
        """The configuration that ``to_json`` wrote.

        Raises:
            ValueError: not such an object, or a choice that the space does not have.
        """
        sizes = {"ks": STAGES * BLOCKS, "e": STAGES * BLOCKS, "d": STAGES, "r": 1}
        choices = {"ks": KERNELS, "e": EXPANSIONS, "d": DEPTHS}
        if not isinstance(data, Mapping) or set(data) != set(sizes):
            raise ValueError(f"an architecture needs exactly {sorted(sizes)}")
        for name, size in sizes.items():
            values = data[name]
            if not isinstance(values, list) or len(values) != size or not all(type(v) is int for v in values):
                raise ValueError(f"{name!r} needs {size} whole numbers")
            if name in choices and not set(values) <= set(choices[name]):
                raise ValueError(f"{name!r} needs choices from {choices[name]}")
        if not 1 <= data["r"][0] <= _MOST_PX:
            raise ValueError(f"the resolution needs 1 to {_MOST_PX} pixels")
        return OfaConfig(tuple(data["ks"]), tuple(data["e"]), tuple(data["d"]), data["r"][0])


def mobilenet_space(resolutions: Sequence[int], name: str = "ofa-mobilenetv3") -> Space:
    """The 46-gene space with the given input resolutions (pixels, ascending)."""
    genes = [Gene("resolution", tuple(resolutions))]
    genes += [Gene(f"stage{s}.depth", DEPTHS) for s in range(1, STAGES + 1)]
    for s in range(1, STAGES + 1):
        for b in range(1, BLOCKS + 1):
            condition = Condition(f"stage{s}.depth", b) if b > min(DEPTHS) else None
            genes.append(Gene(f"stage{s}.block{b}.kernel", KERNELS, active_if=condition))
            genes.append(Gene(f"stage{s}.block{b}.expand", EXPANSIONS, active_if=condition))
    return Space(name, tuple(genes))


def ofa_config(architecture: Mapping[str, Any]) -> OfaConfig:
    """OFA's form of an architecture; blocks beyond a stage's depth take the smallest choice (they do not exist)."""
    return OfaConfig(
        ks=tuple([int(architecture.get(name, KERNELS[0])) for name in _KERNELS]),
        e=tuple([int(architecture.get(name, EXPANSIONS[0])) for name in _EXPANSIONS]),
        d=tuple([int(architecture[name]) for name in _DEPTHS]),
        r=int(architecture["resolution"]),
    )
