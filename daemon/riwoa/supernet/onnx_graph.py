"""The ONNX graph of a standalone OFA MobileNetV3 subnet, written node by node in milliseconds.

The graph that is timed is the one that is exported, so it is written as onnxruntime runs it best. On one core it takes
less than half the time of what torch's tracer writes of the same network (0.29 to 0.60 ms, of 0.30 to 0.61 and 1.33):

- BatchNorm is folded into its convolution, at every graph level, as quantisers want it.
- Hard-swish is ``x * HardSigmoid(x)``, two nodes where the tracer writes five. The operator HardSwish takes as long,
  and needs a newer opset.
- Pooling is GlobalAveragePool, which knows the blocked layout of onnxruntime's convolutions; ReduceMean does not.

Opset 13 is of 2020, and the file says no newer IR version: whatever reads ONNX today reads this.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 13
_IR_VERSION = 7  # the one that opset 13 came with
INPUT, OUTPUT = "images", "logits"

_Array = npt.NDArray[np.float32]


def subnet_graph(net: nn.Module, resolution: int, *, batch: int | None = 1) -> onnx.ModelProto:
    """The graph of a subnet in evaluation mode: ``images`` (batch, 3, resolution, resolution) to ``logits``.

    Args:
        net: an OFA ``MobileNetV3``, as ``SubnetEvaluator.recalibrated_net`` returns it.
        resolution: pixels of a side.
        batch: images at once; None for any number.
    """
    parts: Any = net
    writer = _GraphWriter()
    x = writer.layer("first_conv", parts.first_conv, INPUT)
    for i, block in enumerate(parts.blocks):
        x = writer.layer(f"blocks.{i}", block, x)
    x = writer.layer("final_expand_layer", parts.final_expand_layer, x)
    x = writer.layer("global_avg_pool", parts.global_avg_pool, x)
    x = writer.layer("feature_mix_layer", parts.feature_mix_layer, x)
    x = writer.node("Flatten", [x], "flatten")
    x = writer.layer("classifier", parts.classifier, x)
    classes = parts.classifier.linear.out_features
    return writer.model(x, [batch or "batch", 3, resolution, resolution], [batch or "batch", classes])


def module_graph(module: nn.Module, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> onnx.ModelProto:
    """The graph of one layer of such a subnet: ``images`` of ``shape`` to ``logits`` of ``out_shape``."""
    writer = _GraphWriter()
    return writer.model(writer.layer("layer", module, INPUT), list(shape), list(out_shape))


class _GraphWriter:
    """Nodes and weights of a graph under construction; tensors go by name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def model(self, last: str, shape: list[int | str], out_shape: list[int | str]) -> onnx.ModelProto:
        """The finished model, whose output is the tensor ``last``."""
        self._nodes[-1].output[0] = OUTPUT
        assert last != INPUT, "a graph needs a node"
        graph = helper.make_graph(
            self._nodes,
            "subnet",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, out_shape)],
            self._weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="riwoa")

    def layer(self, name: str, module: Any, x: str) -> str:
        """Write one of OFA's layers.

        Raises:
            TypeError: a subnet holds no such layer.
        """
        match type(module).__name__:
            case "ConvLayer":
                x = self._convolution(name, module.conv, getattr(module, "bn", None), x)
                return self._activation(name, getattr(module, "act", None), x)
            case "ResidualBlock":
                y = self._inverted_residual(name, module.conv, x)
                return y if module.shortcut is None else self.node("Add", [y, x], f"{name}.add")
            case "MyGlobalAvgPool2d":
                return self.node("GlobalAveragePool", [x], name)
            case "LinearLayer":
                linear = module.linear
                arrays = {"weight": _array(linear.weight), "bias": _array(linear.bias)}
                return self.node("Gemm", [x, *self._named(name, arrays)], name, transB=1)
        raise TypeError(f"{name} is a {type(module).__name__}, which a MobileNetV3 of OFA's has not")

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Write one node and return the name of what it puts out."""
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def _inverted_residual(self, name: str, conv: Any, x: str) -> str:
        """Expansion, depthwise convolution, squeeze-and-excitation and projection, those that there are."""
        if conv.inverted_bottleneck is not None:
            x = self._part(f"{name}.expand", conv.inverted_bottleneck, x)
        x = self._part(f"{name}.depthwise", conv.depth_conv, x)
        if hasattr(conv.depth_conv, "se"):
            x = self._squeeze_excitation(f"{name}.se", conv.depth_conv.se, x)
        return self._part(f"{name}.project", conv.point_linear, x)

    def _part(self, name: str, part: Any, x: str) -> str:
        x = self._convolution(name, part.conv, part.bn, x)
        return self._activation(name, getattr(part, "act", None), x)

    def _squeeze_excitation(self, name: str, module: Any, x: str) -> str:
        y = self.node("GlobalAveragePool", [x], f"{name}.pool")
        y = self._convolution(f"{name}.reduce", module.fc.reduce, None, y)
        y = self.node("Relu", [y], f"{name}.reduce.relu")
        y = self._convolution(f"{name}.expand", module.fc.expand, None, y)
        y = self._hard_sigmoid(f"{name}.expand", y)
        return self.node("Mul", [x, y], f"{name}.scale")

    def _convolution(self, name: str, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, x: str) -> str:
        """A convolution, with the BatchNorm after it folded into weight and bias."""
        arrays = _folded(conv, norm)
        pad, stride = int(conv.padding[0]), conv.stride[0]
        return self.node(
            "Conv",
            [x, *self._named(name, arrays)],
            f"{name}.conv",
            kernel_shape=list(conv.kernel_size),
            pads=[pad] * 4,
            strides=[stride, stride],
            group=conv.groups,
        )

    def _activation(self, name: str, act: nn.Module | None, x: str) -> str:
        match type(act).__name__:
            case "NoneType":
                return x
            case "ReLU":
                return self.node("Relu", [x], f"{name}.relu")
            case "Hswish":
                return self.node("Mul", [x, self._hard_sigmoid(name, x)], f"{name}.hard_swish")
        raise TypeError(f"{name} ends in a {type(act).__name__}, which a MobileNetV3 of OFA's has not")

    def _hard_sigmoid(self, name: str, x: str) -> str:
        return self.node("HardSigmoid", [x], f"{name}.hard_sigmoid", alpha=1 / 6, beta=0.5)

    def _named(self, name: str, arrays: dict[str, _Array]) -> list[str]:
        names = [f"{name}.{part}" for part in arrays]
        self._weights += [numpy_helper.from_array(a, n) for n, a in zip(names, arrays.values(), strict=True)]
        return names


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> dict[str, _Array]:
    """Weight and bias (where there is one) of a convolution and the BatchNorm after it."""
    weight = _array(conv.weight)
    if norm is None:
        return {"weight": weight} if conv.bias is None else {"weight": weight, "bias": _array(conv.bias)}
    assert conv.bias is None, "OFA's convolutions have a BatchNorm or a bias"
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gamma, beta, mean, variance = (
        _array(t).astype(np.float64) for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    scale = gamma / np.sqrt(variance + norm.eps)
    folded = {"weight": weight * scale[:, None, None, None], "bias": beta - mean * scale}
    return {name: values.astype(np.float32) for name, values in folded.items()}


def _array(tensor: torch.Tensor) -> _Array:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float32)
