"""The ONNX graph of a subnet in 8 bits as onnxruntime's static quantisation lays it out, made in milliseconds.

How long a quantised network takes does not depend on its scales, so to be timed it needs no pictures: each activation
gets a pair of QuantizeLinear and DequantizeLinear with a scale that is nobody's, and weights are rounded by channel.
The graph is that of ``quantize_static`` node for node, which a test compares; that one takes a second a network, and
is what writes the model that is exported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

_SCALE = np.float32(1 / 32)
_MIDDLE = 128  # of the 256 values of an activation
_LARGEST = 127  # of a weight


def in_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of ``onnx_graph`` in 8 bits, with the scales of no picture: to be timed, not to be asked.

    Raises:
        ValueError: a Relu follows something else than a convolution of its own.
    """
    return _Rewriter(model).model()


class _Rewriter:
    """Nodes and weights of the quantised graph under construction."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._of = model
        self._weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._made: list[onnx.TensorProto] = []
        self._scales: dict[str, list[str]] = {}  # of an activation: the names of its scale and of its zero point

    def model(self) -> onnx.ModelProto:
        """The model; its input and output stay what they were."""
        graph = self._of.graph
        output = graph.output[0].name
        (images,) = graph.input
        self._dequantised(images.name, self._scale(images.name, _MIDDLE))
        nodes = list(graph.node)
        rectified = {node.input[0]: node.output[0] for node in nodes if node.op_type == "Relu"}
        for node in nodes:
            if node.op_type != "Relu":
                self._layer(node, rectified.pop(node.output[0], None), output)
        if rectified:
            raise ValueError(f"a Relu follows {min(rectified)}, which is another's input, or no layer")
        made = helper.make_graph(self._nodes, graph.name, list(graph.input), list(graph.output), self._made)
        return helper.make_model(
            made, opset_imports=list(self._of.opset_import), ir_version=self._of.ir_version, producer_name="riwoa"
        )

    def _layer(self, node: onnx.NodeProto, rectified: str | None, output: str) -> None:
        """Write a node with quantised inputs and output; 8 bits that begin at zero are a Relu too."""
        name = rectified or node.output[0]
        if node.op_type == "Flatten":
            self._scales[name] = self._scales[node.input[0]]  # it moves values, and changes none
        scale = self._scales.get(name) or self._scale(name, _MIDDLE if rectified is None else 0)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend([self._input(node, i) for i in range(len(node.input))])
        copy.output[0] = f"{name}.float"
        self._nodes.append(copy)
        self._dequantised(name, scale, copy.output[0], name if name == output else None)

    def _input(self, node: onnx.NodeProto, place: int) -> str:
        name = node.input[place]
        if name not in self._weights:
            return f"{name}.dequantised"
        values = self._weights[name]
        largest = np.maximum(np.abs(self._weights[node.input[1]]).reshape(len(values), -1).max(axis=1), 1e-6)
        scale = (largest / _LARGEST).astype(np.float32)
        if place == 1:
            shape = (-1, *[1] * (values.ndim - 1))
            rounded: npt.NDArray[Any] = np.rint(values / scale.reshape(shape)).astype(np.int8)
        else:  # a bias, in the scale of the products
            scale = scale * _SCALE
            rounded = np.rint(values / scale).astype(np.int32)
        inputs = self._named(name, {"rounded": rounded, "scale": scale, "zero": np.zeros(len(scale), rounded.dtype)})
        self._nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}.dequantised"], axis=0))
        return f"{name}.dequantised"

    def _scale(self, name: str, zero: int) -> list[str]:
        self._scales[name] = self._named(name, {"scale": np.array(_SCALE), "zero": np.array(zero, np.uint8)})
        return self._scales[name]

    def _dequantised(self, name: str, scale: list[str], source: str | None = None, target: str | None = None) -> None:
        """An activation through 8 bits and back."""
        pair = [f"{name}.quantised", target or f"{name}.dequantised"]
        self._nodes.append(helper.make_node("QuantizeLinear", [source or name, *scale], pair[:1]))
        self._nodes.append(helper.make_node("DequantizeLinear", [pair[0], *scale], pair[1:]))

    def _named(self, name: str, arrays: dict[str, npt.NDArray[Any]]) -> list[str]:
        names = [f"{name}.{part}" for part in arrays]
        self._made += [numpy_helper.from_array(a, n) for n, a in zip(names, arrays.values(), strict=True)]
        return names
