"""The layer list of an OFA MobileNetV3 subnet: shapes, multiply-accumulates, parameters. No torch.

Reproduces ``OFAMobileNetV3.__init__`` and the subnets it extracts (Cai et al., ICLR 2020), so that the daemon can look
latencies up and count MACs without building a network. Tested against the real subnets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal, get_args

from riwoa.supernet.space import BLOCKS, EXPANSIONS, KERNELS, STAGES, OfaConfig

_DIVISOR = 8
_SE_REDUCTION = 4
_BASE_WIDTHS = (16, 16, 24, 40, 80, 112, 160, 960, 1280)
# Of the stem, the fixed first block, and the searched stages 1-5.
_STRIDES: dict[str, tuple[int, ...]] = {
    # OFA's own: 224 px end as 7 px.
    "imagenet": (2, 1, 2, 2, 2, 1, 2),
    # 32 px end as 4 px rather than 1, as in the MobileNetV2 that is usual for CIFAR, whose stem does not stride either.
    # That one keeps stage 1 at 32 px too (strides 1 1 1 2 2 1 2), which takes 1.7 times the multiply-accumulates.
    "small": (1, 1, 2, 2, 1, 1, 2),
}
Stem = Literal["imagenet", "small"]
STEMS: tuple[Stem, ...] = get_args(Stem)
_ACTIVATIONS = ("relu", "relu", "relu", "h_swish", "h_swish", "h_swish")
_SQUEEZE_EXCITE = (False, False, True, False, True, True)


@dataclass(frozen=True, slots=True)
class Operator:
    """One timed piece of a network: what decides how long it takes, and nothing else (ruling 6).

    ``kind``: "stem", "sepconv" (the first block: depthwise and pointwise, no expansion), "mbconv", "head_conv", "pool",
    "feature_mix" or "classifier", in the order of the forward pass.
    """

    kind: str
    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    out_c: int
    mid_c: int
    kernel: int
    stride: int
    skip: bool
    se: bool
    act: str

    @property
    def key(self) -> str:
        """The name of the operator in a latency table; equal operators have equal keys."""
        flags = ("_se" if self.se else "") + ("_skip" if self.skip else "")
        return (
            f"{self.kind}_i{self.in_h}x{self.in_w}x{self.in_c}_o{self.out_h}x{self.out_w}x{self.out_c}"
            f"_m{self.mid_c}_k{self.kernel}_s{self.stride}_{self.act}{flags}"
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers for one image; the rest is not counted."""
        area_in, area_out = self.in_h * self.in_w, self.out_h * self.out_w
        if self.kind == "pool":
            return 0
        if self.kind not in ("mbconv", "sepconv"):
            return area_out * self.in_c * self.out_c * self.kernel**2
        expand = area_in * self.in_c * self.mid_c if self.kind == "mbconv" else 0
        depthwise = area_out * self.mid_c * self.kernel**2
        return expand + depthwise + 2 * self.mid_c * self.se_mid_c + area_out * self.mid_c * self.out_c

    @property
    def parameters(self) -> int:
        """Trainable parameters, BatchNorm's scale and shift included."""
        if self.kind == "pool":
            return 0
        if self.kind not in ("mbconv", "sepconv"):
            bias_or_norm = {"feature_mix": 0, "classifier": self.out_c}.get(self.kind, 2 * self.out_c)
            return self.in_c * self.out_c * self.kernel**2 + bias_or_norm
        expand = self.in_c * self.mid_c + 2 * self.mid_c if self.kind == "mbconv" else 0
        depthwise = self.mid_c * self.kernel**2 + 2 * self.mid_c
        squeeze = 2 * self.mid_c * self.se_mid_c + self.se_mid_c + self.mid_c if self.se else 0
        return expand + depthwise + squeeze + self.mid_c * self.out_c + 2 * self.out_c

    @property
    def se_mid_c(self) -> int:
        """Channels of the squeeze-and-excitation bottleneck; 0 without one."""
        return squeezed_channels(self.mid_c) if self.se else 0


@dataclass(frozen=True, slots=True)
class Backbone:
    """What fixes every width and every stride of the supernet."""

    width_mult: float
    n_classes: int
    stem: Stem = "imagenet"  # how soon the picture shrinks; "small" is for pictures of some 32 px

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of stem, first block and the first block of each of the stages 1-5; later blocks have 1."""
        return _STRIDES[self.stem]

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of stem, first block, stages 1-5, final expansion and feature mix, as OFA rounds them."""
        return tuple(make_divisible(base * self.width_mult) for base in _BASE_WIDTHS)

    def to_json(self) -> dict[str, object]:
        """JSON object; OFA's own stem goes without saying, so that hashes of before there was another still hold."""
        stem = {} if self.stem == STEMS[0] else {"stem": self.stem}
        return {"width_mult": self.width_mult, "n_classes": self.n_classes, **stem}


def make_divisible(channels: float) -> int:
    """OFA's rounding to a multiple of 8: at least 8, and never more than 10 % below ``channels``."""
    rounded = max(_DIVISOR, int(channels + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * channels else rounded


def squeezed_channels(channels: int) -> int:
    """Channels between the two layers of a squeeze-and-excitation."""
    return make_divisible(channels // _SE_REDUCTION)


def operators(config: OfaConfig, backbone: Backbone) -> tuple[Operator, ...]:
    """The operators of a subnet in the order of its forward pass; blocks beyond a stage's depth do not exist."""
    blocks = (
        block_operator(backbone, config.r, stage, block == 0, config.ks[i], config.e[i])
        for stage in range(1, STAGES + 1)
        for block, i in enumerate(range((stage - 1) * BLOCKS, (stage - 1) * BLOCKS + config.d[stage - 1]))
    )
    start, end = fixed_operators(backbone, config.r)
    return (*start, *blocks, *end)


def all_operators(resolutions: Sequence[int], backbone: Backbone) -> tuple[Operator, ...]:
    """Every distinct operator of the whole space, in a fixed order."""
    return tuple(dict.fromkeys(op for r in resolutions for op in _operators_at(r, backbone)))


def macs(config: OfaConfig, backbone: Backbone) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image."""
    return sum(op.macs for op in operators(config, backbone))


def parameters(config: OfaConfig, backbone: Backbone) -> int:
    """Trainable parameters of the extracted subnet."""
    return sum(op.parameters for op in operators(config, backbone))


@lru_cache(maxsize=4096)
def block_operator(
    backbone: Backbone, resolution: int, stage: int, first: bool, kernel: int, expansion: int
) -> Operator:
    """A searched block: stage 1-5, its first block (which changes width and stride) or any later one."""
    widths = backbone.widths
    out_c = widths[stage + 1]
    in_c = widths[stage] if first else out_c
    stride = backbone.strides[stage + 1] if first else 1
    out = _size_after(backbone, resolution, stage)
    size = _size_after(backbone, resolution, stage - 1) if first else out
    return Operator(
        kind="mbconv",
        in_h=size,
        in_w=size,
        in_c=in_c,
        out_h=out,
        out_w=out,
        out_c=out_c,
        mid_c=make_divisible(round(in_c * expansion)),
        kernel=kernel,
        stride=stride,
        skip=stride == 1 and in_c == out_c,
        se=_SQUEEZE_EXCITE[stage],
        act=_ACTIVATIONS[stage],
    )


@lru_cache(maxsize=256)
def fixed_operators(backbone: Backbone, resolution: int) -> tuple[tuple[Operator, ...], tuple[Operator, ...]]:
    """The operators that every subnet of a resolution begins with, and those it ends with."""
    stem_c, first_c, *_, last_c, expand_c, mix_c = backbone.widths
    size, last = _size_after(backbone, resolution, 0), _size_after(backbone, resolution, STAGES)
    start = (
        _plain("stem", resolution, 3, size, stem_c, kernel=3, stride=backbone.strides[0], act="h_swish"),
        Operator(
            "sepconv", size, size, stem_c, size, size, first_c, stem_c, 3, 1, stem_c == first_c, False, _ACTIVATIONS[0]
        ),
    )
    end = (
        _plain("head_conv", last, last_c, last, expand_c, act="h_swish"),
        _plain("pool", last, expand_c, 1, expand_c),
        _plain("feature_mix", 1, expand_c, 1, mix_c, act="h_swish"),
        _plain("classifier", 1, mix_c, 1, backbone.n_classes),
    )
    return start, end


def _operators_at(resolution: int, backbone: Backbone) -> Iterator[Operator]:
    start, end = fixed_operators(backbone, resolution)
    yield from start
    for stage, first, kernel, expansion in product(range(1, STAGES + 1), (True, False), KERNELS, EXPANSIONS):
        yield block_operator(backbone, resolution, stage, first, kernel, expansion)
    yield from end


def _plain(
    kind: str, size: int, in_c: int, out: int, out_c: int, kernel: int = 1, stride: int = 1, act: str = "none"
) -> Operator:
    return Operator(kind, size, size, in_c, out, out, out_c, 0, kernel, stride, False, False, act)


def _size_after(backbone: Backbone, resolution: int, stage: int) -> int:
    """Height (= width) of the feature map after the first block (stage 0) or a searched stage.

    A convolution with OFA's padding rounds up.
    """
    size = resolution
    for stride in backbone.strides[: stage + 2]:
        size = -(-size // stride)
    return size
