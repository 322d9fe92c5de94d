"""A supernet through which the gradient reaches the choices of an architecture, its weights fixed.

One pass of the largest subnet holds every choice: kernels are mixed before the depthwise convolution, which is linear
in them (Stamoulis et al., "Single-Path NAS", 2019); an expansion is a mask over channels, the narrower being the first
of the wider (Wan et al., "FBNetV2", CVPR 2020); a depth picks among what a stage's blocks put out. With one choice a
gene that has all the weight, the result is the subnet's own, its BatchNorm in the statistics of the batch.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from riwoa.supernet.geometry import Backbone, make_divisible, squeezed_channels
from riwoa.supernet.network import Supernet
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES


@dataclass(frozen=True, slots=True)
class Weights:
    """What each choice of each gene weighs: kernels and expansions (blocks, choices), depths (stages, choices)."""

    kernels: Tensor
    expansions: Tensor
    depths: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """A block, its kernels padded to the largest (choices, C, 1, k, k), and masks (choices, C) of its expansions."""

    conv: Any
    shortcut: bool
    kernels: Tensor
    channels: Tensor
    squeezed: Tensor


class RelaxedSupernet:
    """Logits as a function of pictures and of the weights of choices."""

    def __init__(self, supernet: Supernet) -> None:
        # Of a copy: the evaluator's own must not change, and its weights ask for gradients.
        self._net: Any = copy.deepcopy(supernet.network).requires_grad_(False)
        widths = _input_widths(supernet.backbone)
        self._blocks = [_block(b, width) for b, width in zip(self._net.blocks[1:], widths, strict=True)]

    def logits(self, images: Tensor, weights: Weights) -> Tensor:
        """(n, 3, r, r) -> (n, classes)."""
        net = self._net
        x = _layer(net.first_conv, images)
        first = net.blocks[0]
        y = _layer(first.conv.point_linear, _layer(first.conv.depth_conv, x))
        x = y if first.shortcut is None else x + y
        for stage in range(STAGES):
            outputs = []
            for i in range(stage * BLOCKS, (stage + 1) * BLOCKS):
                x = _run(self._blocks[i], x, weights.kernels[i], weights.expansions[i])
                outputs.append(x)
            x = torch.einsum("d,dnchw->nchw", weights.depths[stage], torch.stack([outputs[d - 1] for d in DEPTHS]))
        x = _layer(net.final_expand_layer, x).mean((2, 3), keepdim=True)
        logits: Tensor = net.classifier(net.feature_mix_layer(x).flatten(1))
        return logits


def _input_widths(backbone: Backbone) -> list[int]:
    """Channels that each searched block is given."""
    widths = backbone.widths
    return [widths[stage + (block > 0)] for stage in range(1, STAGES + 1) for block in range(BLOCKS)]


def _block(block: Any, in_channels: int) -> _Block:
    conv = block.conv
    middles = [make_divisible(round(in_channels * e)) for e in EXPANSIONS]
    depthwise = conv.depth_conv.conv
    most = max(middles)
    kernels = [depthwise.get_active_filter(most, k).detach() for k in KERNELS]
    padded = torch.stack([F.pad(w, [(max(KERNELS) - w.shape[-1]) // 2] * 4) for w in kernels])
    squeezed = [squeezed_channels(m) for m in middles]
    return _Block(conv, block.shortcut is not None, padded, _masks(middles), _masks(squeezed))


def _masks(counts: list[int]) -> Tensor:
    return (torch.arange(max(counts))[None, :] < torch.tensor(counts)[:, None]).float()


def _run(block: _Block, x: Tensor, kernels: Tensor, expansions: Tensor) -> Tensor:
    conv = block.conv
    y = _layer(conv.inverted_bottleneck, x)
    # Of a kernel only the part that can meet the picture: small pictures are otherwise the slowest.
    reach = min(max(KERNELS), 2 * y.shape[-1] - 1)
    cut = (max(KERNELS) - reach) // 2
    seen = block.kernels[..., cut : cut + reach, cut : cut + reach]
    weight = torch.einsum("k,kcihw->cihw", kernels, seen)
    depth = conv.depth_conv
    y = F.conv2d(y, weight, None, depth.conv.stride, reach // 2, 1, len(weight))
    y = depth.act(_normalised(y, depth.bn)) * (expansions @ block.channels)[:, None, None]
    if conv.use_se:
        fc = depth.se.fc
        hidden = fc.relu(fc.reduce(y.mean((2, 3), keepdim=True))) * (expansions @ block.squeezed)[:, None, None]
        y = y * fc.h_sigmoid(fc.expand(hidden))
    y = _layer(conv.point_linear, y)
    return x + y if block.shortcut else y


def _layer(layer: Any, x: Tensor) -> Tensor:
    """Convolution, BatchNorm by the batch's own statistics, activation where there is one."""
    conv = getattr(layer.conv, "conv", layer.conv)  # dynamic layers wrap theirs
    x = _normalised(conv(x), layer.bn)
    return x if getattr(layer, "act", None) is None else layer.act(x)


def _normalised(x: Tensor, norm: Any) -> Tensor:
    norm = getattr(norm, "bn", norm)
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
