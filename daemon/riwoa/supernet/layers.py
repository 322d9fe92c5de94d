"""The supernet's weights as the evaluator uses them: sliced, kernel-transformed, packed, and kept.

OFA builds a new network for every subnet it looks at. Here a subnet is a list of blocks whose weights are cut out of
the supernet once: a convolution depends on its own block's kernel and expansion and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from riwoa.supernet.geometry import Backbone, Operator, operators
from riwoa.supernet.kernels import HARDSIGMOID, HARDSWISH, IDENTITY, RELU, Apply, Geometry, Kernels, activate
from riwoa.supernet.prefix_cache import Key
from riwoa.supernet.space import BLOCKS, STAGES, OfaConfig

_ACTIVATION = {"relu": RELU, "h_swish": HARDSWISH, "none": IDENTITY}

# Stem, first block and this many searched blocks are float32 in every precision: what is rounded there reaches
# everything after (in a simulation stem and first block caused 40 % of bfloat16's squared error in the logits, the
# first stage 35 %, the last two stages and the head 5 %), and subnets share these blocks, so they are seldom computed.
# Two blocks bring no more accuracy, and without shared prefixes cost more.
_EXACT_SEARCHED_BLOCKS = 1
# Positions: searched blocks are 0-19.
_START = -1
_FINAL = STAGES * BLOCKS


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Mean and biased variance of a BatchNorm's input, each (C,) in float32."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """Convolution, BatchNorm, activation, and possibly squeeze-and-excitation after it.

    ``bare`` is the convolution alone (no bias, no activation), packed; weight is (out, in / groups, k, k) in float32,
    ``dtype`` what it computes in.
    """

    dtype: torch.dtype
    geometry: Geometry
    weight: Tensor
    gamma: Tensor
    beta: Tensor
    eps: float
    bare: Apply
    squeeze: Apply | None = None

    def normalise(self, x: Tensor, batch_images: int) -> tuple[Tensor, Statistics]:
        """Convolve, normalise each batch by its own statistics, activate; the statistics averaged over the images.

        Args:
            x: (n, C, H, W), a whole number of batches (the last may be shorter).
            batch_images: images that are normalised together.
        """
        y = self.bare(x)
        batches = torch.split(y, batch_images)
        normalised = [
            torch.native_batch_norm(batch, self.gamma, self.beta, None, None, True, 0.0, self.eps) for batch in batches
        ]
        # torch hands out 1 / sqrt(variance + eps), of the biased variance.
        found = [Statistics(mean, inverse**-2 - self.eps) for _, mean, inverse in normalised]
        out = activate(concatenate([y for y, _, _ in normalised]), self.geometry.activation)
        return out if self.squeeze is None else self.squeeze(out), average(found, [len(b) / len(x) for b in batches])

    def folded(self, kernels: Kernels, statistics: Statistics) -> Apply:
        """The whole layer as one function, its BatchNorm folded into weight and bias."""
        scale = self.gamma * torch.rsqrt(statistics.variance + self.eps)
        bias = torch.addcmul(self.beta, statistics.mean, scale, value=-1)
        apply = kernels.convolution(self.geometry, self.weight * scale[:, None, None, None], bias, self.dtype)
        squeeze = self.squeeze
        return apply if squeeze is None else lambda x: squeeze(apply(x))


@dataclass(frozen=True, slots=True)
class Output:
    """What a block hands on: the precision its successor computes in, and the memory of one image."""

    dtype: torch.dtype
    elements: int

    @property
    def n_bytes(self) -> int:
        """Memory of one image."""
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Convolutions in a row. ``skip_from``: the one whose input is added to the last one's output, None without."""

    key: Hashable
    convolutions: tuple[Convolution, ...]
    skip_from: int | None
    out: Output

    def run(self, layers: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
        """Apply one function a convolution. The input is never written to: it may be shared."""
        kept = x
        for i, layer in enumerate(layers):
            if i == self.skip_from:
                kept = x
            x = layer(x)
        return (x if self.skip_from is None else x.add_(kept)).to(self.out.dtype)


class SupernetLayers:
    """Blocks and head of a supernet's subnets, for one kind of kernels, one precision and one device."""

    def __init__(
        self, network: Any, backbone: Backbone, kernels: Kernels, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._net = network
        self._backbone = backbone
        self.kernels = kernels
        self._dtype = dtype
        self._device = device
        self._kept: dict[Key, Convolution] = {}
        mix, classifier = self._net.feature_mix_layer.conv, self._net.classifier.linear
        self._mix = kernels.linear(self._weight(mix.weight).flatten(1), None, HARDSWISH, dtype)
        self._classifier = self._weight(classifier.weight), self._weight(classifier.bias)

    def blocks(self, config: OfaConfig) -> list[Block]:
        """The subnet's blocks: stem and first block as one, the searched blocks, the final expansion."""
        ops = operators(config, self._backbone)
        indices = [stage * BLOCKS + block for stage, depth in enumerate(config.d) for block in range(depth)]
        searched = [op for op in ops if op.kind == "mbconv"]
        blocks = [self._searched(i, op, config.ks[i], config.e[i]) for i, op in zip(indices, searched, strict=True)]
        final = next(op for op in ops if op.kind == "head_conv")
        return [self._start(ops[0], ops[1]), *blocks, self._final(final)]

    def head(self, x: Tensor) -> Tensor:
        """Pooling, feature mix and classifier: (n, C, H, W) -> logits (n, classes) in float32."""
        features = self._mix(_pool(x))
        return F.linear(features.float(), *self._classifier)

    def _start(self, stem: Operator, first: Operator) -> Block:
        net, conv = self._net, self._net.blocks[0].conv
        convolutions = (
            self._keep(
                _START,
                ("stem",),
                lambda: (net.first_conv.conv.weight, net.first_conv.bn),
                stem.act,
                3,
                stride=stem.stride,
            ),
            self._keep(
                _START,
                ("depthwise",),
                lambda: (conv.depth_conv.conv.weight, conv.depth_conv.bn),
                first.act,
                3,
                groups=first.mid_c,
            ),
            self._keep(_START, ("project",), lambda: (conv.point_linear.conv.weight, conv.point_linear.bn)),
        )
        return Block("start", convolutions, 1 if first.skip else None, self._output(first, _START))

    def _searched(self, i: int, op: Operator, kernel: int, expansion: int) -> Block:
        conv = self._net.blocks[i + 1].conv
        mid, reach = op.mid_c, _reach(kernel, op.in_h)
        expand = self._keep(
            i,
            ("expand", expansion),
            lambda: (conv.inverted_bottleneck.conv.conv.weight[:mid, : op.in_c], conv.inverted_bottleneck.bn.bn),
            op.act,
        )
        depthwise = self._keep(
            i,
            ("depthwise", kernel, reach, expansion),
            lambda: (_centre(conv.depth_conv.conv.get_active_filter(mid, kernel), reach), conv.depth_conv.bn.bn),
            op.act,
            reach,
            stride=op.stride,
            groups=mid,
            squeeze=(lambda: self._squeeze(i, conv.depth_conv.se.fc, mid, op.se_mid_c)) if op.se else None,
        )
        project = self._keep(
            i, ("project", expansion), lambda: (conv.point_linear.conv.conv.weight[:, :mid], conv.point_linear.bn.bn)
        )
        return Block((i, kernel, expansion), (expand, depthwise, project), 0 if op.skip else None, self._output(op, i))

    def _final(self, op: Operator) -> Block:
        layer = self._net.final_expand_layer
        conv = self._keep(_FINAL, (), lambda: (layer.conv.weight, layer.bn), op.act)
        return Block("final", (conv,), None, self._output(op, _FINAL))

    def _precision(self, position: int) -> torch.dtype:
        return torch.float32 if position < _EXACT_SEARCHED_BLOCKS else self._dtype

    def _output(self, op: Operator, position: int) -> Output:
        """What a block hands on: the precision that its successor computes in, and the memory of one image."""
        return Output(self._precision(position + 1), op.out_c * op.out_h * op.out_w)

    def _keep(
        self,
        position: int,
        name: Key,
        weight_and_norm: Callable[[], tuple[Tensor, Any]],
        act: str = "none",
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        squeeze: Callable[[], Apply] | None = None,
    ) -> Convolution:
        """A convolution by position and name; it is cut out and packed at its first use."""
        key = (position, *name)
        if key not in self._kept:
            dtype = self._precision(position)
            weight, norm = weight_and_norm()
            weight = self._weight(weight)
            geometry = Geometry(kernel, stride, groups, _ACTIVATION[act])
            bare = replace(geometry, activation=IDENTITY)
            self._kept[key] = Convolution(
                dtype=dtype,
                geometry=geometry,
                weight=weight,
                gamma=self._weight(norm.weight[: len(weight)]),
                beta=self._weight(norm.bias[: len(weight)]),
                eps=norm.eps,
                bare=self.kernels.convolution(bare, weight, None, dtype),
                squeeze=squeeze() if squeeze is not None else None,
            )
        return self._kept[key]

    def _squeeze(self, position: int, fc: Any, channels: int, mid_c: int) -> Apply:
        """Squeeze-and-excitation (Hu et al., CVPR 2018), in place."""
        down, up = self._weight(fc.reduce.weight[:mid_c, :channels]), self._weight(fc.expand.weight[:channels, :mid_c])
        down_bias, up_bias = self._weight(fc.reduce.bias[:mid_c]), self._weight(fc.expand.bias[:channels])
        dtype = self._precision(position)
        reduce = self.kernels.linear(down.flatten(1), down_bias, RELU, dtype)
        expand = self.kernels.linear(up.flatten(1), up_bias, HARDSIGMOID, dtype)
        return lambda x: x.mul_(expand(reduce(_pool(x)))[:, :, None, None])

    def _weight(self, weight: Tensor) -> Tensor:
        return weight.detach().to(self._device, torch.float32).contiguous()


def concatenate(parts: Sequence[Tensor]) -> Tensor:
    """``torch.cat`` over images, without a copy where there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def average(statistics: Sequence[Statistics], shares: Sequence[float]) -> Statistics:
    """The weighted average, added up in the given order; shares sum to 1."""
    mean, variance = torch.zeros_like(statistics[0].mean), torch.zeros_like(statistics[0].variance)
    for one, share in zip(statistics, shares, strict=True):
        mean.add_(one.mean, alpha=share)
        variance.add_(one.variance, alpha=share)
    return Statistics(mean, variance)


def _pool(x: Tensor) -> Tensor:
    """Mean over the picture, (n, C). avg_pool2d: 3 times as fast as ``mean`` on channels-last bfloat16 on a CPU."""
    return F.avg_pool2d(x, (x.shape[2], x.shape[3])).flatten(1)


def _reach(kernel: int, size: int) -> int:
    """The part of a kernel that can meet the picture: what lies further than size - 1 from its centre sees zeros."""
    return min(kernel, 2 * size - 1)


def _centre(weight: Tensor, kernel: int) -> Tensor:
    cut = (weight.shape[-1] - kernel) // 2
    return weight[..., cut : cut + kernel, cut : cut + kernel]
