"""Convolution with bias and activation in one call: oneDNN's fused kernels where they exist, plain torch elsewhere.

A BatchNorm whose statistics are known is a scale and a shift, so it folds into the convolution before it; what is left
(convolution, bias, activation) is one oneDNN primitive. torch reaches these through the operators that its own
compiler emits for CPUs (``torch.ops.mkldnn``); they are probed once, and where the probe fails, or the device is not
a CPU, the plain operators do the same work in two or three passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Apply = Callable[[Tensor], Tensor]

# Names as oneDNN's operators know them.
RELU = "relu"
HARDSWISH = "hardswish"
HARDSIGMOID = "hardsigmoid"
IDENTITY = "none"

_ACTIVATIONS: dict[str, Apply] = {
    RELU: torch.relu_,
    HARDSWISH: lambda x: F.hardswish(x, inplace=True),
    HARDSIGMOID: lambda x: F.hardsigmoid(x, inplace=True),
    IDENTITY: lambda x: x,
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution without its weights. Padding keeps the size at stride 1 (kernels are odd)."""

    kernel: int
    stride: int
    groups: int
    activation: str

    @property
    def padding(self) -> int:
        """Pixels of zeros on each side."""
        return self.kernel // 2

    @property
    def pointwise(self) -> bool:
        """Whether this is a matrix product over channels."""
        return self.kernel == 1 and self.stride == 1 and self.groups == 1


class Kernels(Protocol):
    """Turns weights into a function from activations to activations, both channels-last (N, C, H, W)."""

    name: str

    def convolution(self, g: Geometry, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Apply:
        """``x -> act(conv(x) + bias)``; weight (out, in / groups, k, k) and bias (out,) are float32."""
        ...

    def linear(self, weight: Tensor, bias: Tensor | None, activation: str, dtype: torch.dtype) -> Apply:
        """``x -> act(x Wᵀ + b)`` over the last dimension; weight (out, in) and bias (out,) are float32."""
        ...


def activate(x: Tensor, activation: str) -> Tensor:
    """Apply an activation in place."""
    return _ACTIVATIONS[activation](x)


class PlainKernels:
    """torch's public operators, on any device."""

    name = "plain"

    def convolution(self, g: Geometry, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Apply:
        """See ``Kernels``."""
        w = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        b = None if bias is None else bias.to(dtype)
        return lambda x: activate(F.conv2d(x, w, b, g.stride, g.padding, 1, g.groups), g.activation)

    def linear(self, weight: Tensor, bias: Tensor | None, activation: str, dtype: torch.dtype) -> Apply:
        """See ``Kernels``."""
        w, b = weight.to(dtype), None if bias is None else bias.to(dtype)
        return lambda x: activate(F.linear(x, w, b), activation)


class OneDnnKernels:
    """oneDNN with weights packed once and bias and activation fused; the bias stays float32 in every precision."""

    name = "onednn"

    def __init__(self) -> None:
        self._ops: Any = torch.ops.mkldnn

    def convolution(self, g: Geometry, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Apply:
        """See ``Kernels``."""
        if g.pointwise:
            return self._pointwise(weight.flatten(1), bias, g.activation, dtype)
        padding, stride, dilation = [g.padding] * 2, [g.stride] * 2, [1, 1]
        packed = self._ops._reorder_convolution_weight(weight.to(dtype), padding, stride, dilation, g.groups, None)
        run = self._ops._convolution_pointwise
        return lambda x: run(x, packed, bias, padding, stride, dilation, g.groups, g.activation, [], "")

    def linear(self, weight: Tensor, bias: Tensor | None, activation: str, dtype: torch.dtype) -> Apply:
        """See ``Kernels``."""
        packed = self._ops._reorder_linear_weight(weight.to(dtype).contiguous(), None)
        run = self._ops._linear_pointwise
        return lambda x: run(x, packed, bias, activation, [], "")

    def _pointwise(self, weight: Tensor, bias: Tensor | None, activation: str, dtype: torch.dtype) -> Apply:
        # A channels-last tensor is a matrix of pixels by channels, and the matrix product is the faster primitive.
        product = self.linear(weight, bias, activation, dtype)
        return lambda x: product(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def best_kernels(device: torch.device, dtype: torch.dtype) -> Kernels:
    """The fused kernels where this torch has them and they are right in float32 and ``dtype``, else the plain ones."""
    fused = device.type == "cpu" and all(_fused_works(precision) for precision in {dtype, torch.float32})
    return OneDnnKernels() if fused else PlainKernels()


@cache
def _fused_works(dtype: torch.dtype) -> bool:
    """Try every kind of fused call on a small input against the plain one. Private operators: trust nothing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 5, 5, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    bias = torch.randn(8, generator=generator)
    try:
        with torch.inference_mode():
            return all(
                _agree(Geometry(kernel, stride, groups, act), x, bias, generator)
                for kernel, stride, groups in ((3, 2, 8), (5, 1, 8), (1, 1, 1), (3, 2, 1))
                for act in (RELU, HARDSWISH, HARDSIGMOID, IDENTITY)
            )
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


def _agree(g: Geometry, x: Tensor, bias: Tensor, generator: torch.Generator) -> bool:
    weight = torch.randn(8, 8 // g.groups, g.kernel, g.kernel, generator=generator)
    fused = OneDnnKernels().convolution(g, weight, bias, x.dtype)(x).float()
    plain = PlainKernels().convolution(g, weight, bias, x.dtype)(x).float()
    tolerance = 0.05 if x.dtype == torch.bfloat16 else 1e-4
    return torch.allclose(fused, plain, rtol=tolerance, atol=tolerance * float(plain.abs().max()))
