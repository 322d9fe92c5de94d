"""Convolutions of a training whose shapes hardly repeat, without cuDNN.

cuDNN plans every shape it meets: the first step of the largest and the smallest subnet took 17.2 s on an H100, and a
supernet has thousands of shapes. Here 1x1 convolutions, most of the arithmetic, are matrix products, and depthwise ones
take torch's own kernels, which plan nothing: the first step took 0.9 s, later ones 88 ms instead of 72.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@contextmanager
def without_plans() -> Iterator[None]:
    """While it lasts, ``F.conv2d``, and so every module, convolves in this way, forwards and backwards.

    Not thread-safe: it replaces a function of torch, and switches cuDNN off for autograd's own thread, too.
    """
    plain, enabled = F.conv2d, torch.backends.cudnn.enabled
    F.conv2d = _planless(plain)
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        F.conv2d, torch.backends.cudnn.enabled = plain, enabled


def _planless(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def conv2d(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        if groups > 1:
            return plain(x, weight, bias, stride, padding, dilation, groups)
        kernel, step, border = weight.shape[-1], _one(stride), _one(padding)
        if kernel > 1 or step > 1:
            x = _patches(x, kernel, step, border)
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)

    return conv2d


def _one(both: int | tuple[int, int]) -> int:
    return both if isinstance(both, int) else both[0]


def _patches(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """What each output pixel sees, as channels: (n, C k k, H', W')."""
    height, width = ((size + 2 * padding - kernel) // stride + 1 for size in x.shape[2:])
    patches = F.unfold(x, kernel, padding=padding, stride=stride)
    return patches.view(*patches.shape[:2], height, width)
