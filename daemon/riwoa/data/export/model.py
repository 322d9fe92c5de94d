"""The network that riwoa found, in plain PyTorch: a MobileNetV3 with its sizes written in. Needs torch and safetensors.

import model

network = model.load()      # the weights of model.safetensors, beside this file
logits = network(images)    # (n, 3, model.RESOLUTION, model.RESOLUTION), made as preprocess.json says
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional


class Block(NamedTuple):
    """An inverted residual: expansion, depthwise convolution, squeeze-and-excitation, projection."""

    channels_in: int
    channels_mid: int  # as many as channels_in: nothing is expanded
    channels_out: int
    kernel: int
    stride: int
    squeezed: int  # channels of the squeeze-and-excitation; 0 without one
    hard_swish: bool  # else ReLU
    shortcut: bool


# -- sizes: written by the export --------------------------------------------------------------------------------------
RESOLUTION = 32
STEM_STRIDE = 2
STEM, EXPANDED, MIXED, CLASSES = 8, 240, 320, 10  # channels
NORM_EPS = 1e-05
BLOCKS = (Block(8, 8, 8, 3, 1, 0, False, True),)
# -- end of the sizes --------------------------------------------------------------------------------------------------


class Convolution(nn.Module):
    """A convolution that keeps the size but for its stride, and what there is after it: norm, activation, squeeze."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int = 1,
        stride: int = 1,
        *,
        groups: int = 1,
        norm: bool = True,
        act: str = "none",
        squeezed: int = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(*channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels[1], eps=NORM_EPS) if norm else nn.Identity()
        self.act = act
        self.se = SqueezeExcitation(channels[1], squeezed) if squeezed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c', h', w')."""
        x = self.bn(self.conv(x))
        if self.act == "hard swish":
            x = x * functional.relu6(x + 3) / 6
        elif self.act == "relu":
            x = functional.relu(x)
        y: Tensor = self.se(x)
        return y


class SqueezeExcitation(nn.Module):
    """Each channel scaled by a number that the means of all channels decide."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc = nn.ModuleDict(
            {"reduce": nn.Conv2d(channels, squeezed, 1), "expand": nn.Conv2d(squeezed, channels, 1)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c', h', w')."""
        y = functional.relu(self.fc["reduce"](mean_of_pixels(x)))
        return x * (functional.relu6(self.fc["expand"](y) + 3) / 6)


class InvertedResidual(nn.Module):
    """A block of the list above."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        act, mid = "hard swish" if block.hard_swish else "relu", block.channels_mid
        parts = {}
        if mid != block.channels_in:
            parts["inverted_bottleneck"] = Convolution((block.channels_in, mid), act=act)
        parts["depth_conv"] = Convolution(
            (mid, mid), block.kernel, block.stride, groups=mid, act=act, squeezed=block.squeezed
        )
        parts["point_linear"] = Convolution((mid, block.channels_out))
        self.conv = nn.ModuleDict(parts)
        self.shortcut = block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c', h', w')."""
        y = x
        for part in self.conv.values():
            y = part(y)
        return y + x if self.shortcut else y


class Network(nn.Module):
    """Pictures (n, 3, RESOLUTION, RESOLUTION) to logits (n, CLASSES)."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = Convolution((3, STEM), 3, STEM_STRIDE, act="hard swish")
        self.blocks = nn.ModuleList(InvertedResidual(block) for block in BLOCKS)
        self.final_expand_layer = Convolution((BLOCKS[-1].channels_out, EXPANDED), act="hard swish")
        self.feature_mix_layer = Convolution((EXPANDED, MIXED), norm=False, act="hard swish")
        self.classifier = nn.ModuleDict({"linear": nn.Linear(MIXED, CLASSES)})

    def forward(self, images: Tensor) -> Tensor:
        """Logits of standardised pictures."""
        x = self.first_conv(images)
        for block in self.blocks:
            x = block(x)
        x = self.feature_mix_layer(mean_of_pixels(self.final_expand_layer(x)))
        logits: Tensor = self.classifier["linear"](x.flatten(1))
        return logits


def mean_of_pixels(x: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, c, 1, 1)."""
    return x.mean(3, keepdim=True).mean(2, keepdim=True)


def load(weights: str | Path | None = None) -> nn.Module:
    """The network with its weights, to be used; ``network.train()`` makes it one to be trained further."""
    network = Network()
    network.load_state_dict(load_file(weights or Path(__file__).with_name("model.safetensors")))
    return network.eval()


if __name__ == "__main__":
    with torch.inference_mode():
        print(load()(torch.zeros(1, 3, RESOLUTION, RESOLUTION)).shape)
