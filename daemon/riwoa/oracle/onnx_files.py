"""A subnet's ONNX file as it is deployed: preprocessing and softmax inside, quantised, described, and checked.

The graph itself is ``supernet.onnx_graph``'s, the one that is timed. What is put around it here changes none of its
nodes, and every file is run in onnxruntime beside torch before anybody gets it.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from riwoa.datasets.arrays import FloatArray, Images, IntArray, resize_matrix
from riwoa.datasets.preprocessing import Preprocessing
from riwoa.search.paired import BoolArray

IMAGES, PIXELS = "images", "pixels"  # inputs: standardised floats, bytes
LOGITS, PROBABILITIES = "logits", "probabilities"  # outputs
_BATCH = "batch"
_CALIBRATED_TOGETHER = 25  # pictures


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """A model and what it was made for."""

    model: onnx.ModelProto
    rule: Preprocessing

    @property
    def input(self) -> dict[str, Any]:
        """Its input, as preprocess.json and the metadata tell it."""
        name = str(self.model.graph.input[0].name)
        side = self.rule.crop_px if name == PIXELS else self.rule.resolution
        shape: list[int | str] = [_BATCH, side, side, 3] if name == PIXELS else [_BATCH, 3, side, side]
        layout, dtype, step = ("NHWC", "uint8", "to_bytes") if name == PIXELS else ("NCHW", "float32", "to_floats")
        return {"name": name, "layout": layout, "dtype": dtype, "shape": shape, "after": step}

    @property
    def output(self) -> str:
        """What its output is called, and is: logits or probabilities."""
        return str(self.model.graph.output[0].name)

    def fed(self, images: FloatArray, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Of the same pictures the form that it takes."""
        return pixels if self.input["name"] == PIXELS else images

    @property
    def bare(self) -> bytes:
        """The file without a word in its metadata: what is timed."""
        model = _copy(self.model)
        del model.metadata_props[:]
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    @property
    def sha256(self) -> str:
        """Identity of graph and weights, whatever the metadata say."""
        return hashlib.sha256(self.bare).hexdigest()

    def described(self, facts: Mapping[str, str]) -> bytes:
        """The file, with facts in its metadata."""
        model = _copy(self.model)
        helper.set_model_props(model, dict(facts))
        onnx.checker.check_model(model)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def with_preprocessing(network: OnnxNetwork) -> OnnxNetwork:
    """The network, which now takes bytes (batch, crop_px, crop_px, 3): sizes by area, mean and std are inside."""
    rule = network.rule
    scale, shift = [1 / (255 * s) for s in rule.std], [m / s for m, s in zip(rule.mean, rule.std, strict=True)]
    weights = {"scale": _by_channel(scale), "shift": _by_channel(shift)}
    nodes = [
        helper.make_node("Cast", [PIXELS], ["preprocess.float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["preprocess.float"], ["preprocess.planes"], perm=[0, 3, 1, 2]),
    ]
    last = "preprocess.planes"
    if rule.crop_px != rule.resolution:
        matrix = resize_matrix(rule.crop_px, rule.resolution)
        weights |= {"rows": matrix, "columns": np.ascontiguousarray(matrix.T)}
        nodes += [
            helper.make_node("MatMul", ["preprocess.rows", last], ["preprocess.lower"]),
            helper.make_node("MatMul", ["preprocess.lower", "preprocess.columns"], ["preprocess.smaller"]),
        ]
        last = "preprocess.smaller"
    nodes += [
        helper.make_node("Mul", [last, "preprocess.scale"], ["preprocess.scaled"]),
        helper.make_node("Sub", ["preprocess.scaled", "preprocess.shift"], [IMAGES]),
    ]
    for node in nodes:
        node.name = node.output[0] + ".node"
    shape: list[int | str] = [_BATCH, rule.crop_px, rule.crop_px, 3]
    model = _copy(network.model)
    graph = model.graph
    kept = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *kept])
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, shape))
    graph.initializer.extend(numpy_helper.from_array(array, f"preprocess.{name}") for name, array in weights.items())
    return OnnxNetwork(model, rule)


def _by_channel(values: list[float]) -> FloatArray:
    return np.array(values, np.float32).reshape(1, 3, 1, 1)


def with_softmax(network: OnnxNetwork) -> OnnxNetwork:
    """The network, which now puts out probabilities."""
    model = _copy(network.model)
    graph = model.graph
    shape = [_BATCH, graph.output[0].type.tensor_type.shape.dim[1].dim_value]
    graph.node.append(helper.make_node("Softmax", [LOGITS], [PROBABILITIES], name="softmax", axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, shape))
    return OnnxNetwork(model, network.rule)


def quantised(network: OnnxNetwork, images: FloatArray) -> OnnxNetwork:
    """The network with weights and activations in 8 bits, scaled by what standardised pictures make of them."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Pictures(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
        def __init__(self) -> None:
            self._rest = iter(np.array_split(images, max(1, len(images) // _CALIBRATED_TOGETHER)))

        def get_next(self) -> dict[str, FloatArray] | None:
            batch = next(self._rest, None)
            return None if batch is None else {IMAGES: batch}

    with tempfile.TemporaryDirectory(prefix="riwoa-int8-") as directory, _silent_root_log():
        file = Path(directory, "int8.onnx")
        taken_apart = _copy(network.model)  # onnxruntime moves its weights into a file beside it
        kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(taken_apart, file, Pictures(), per_channel=True, **kinds)
        return OnnxNetwork(onnx.load(file), network.rule)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


@contextmanager
def _silent_root_log() -> Iterator[None]:
    """Nothing of onnxruntime's advice, which it logs to the root."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class Session:
    """A file in onnxruntime, on one thread of the CPU."""

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(self, pictures: npt.NDArray[Any]) -> FloatArray:
        """What it puts out, (n, classes)."""
        (found,) = self._session.run(None, {self._session.get_inputs()[0].name: pictures})
        return np.asarray(found, np.float32)

    def right(self, images: Images, labels: IntArray, batch: int = 200) -> BoolArray:
        """Which standardised pictures it names rightly."""
        starts = range(0, len(labels), batch)
        return np.concatenate([self.run(images[i : i + batch]).argmax(1) == labels[i : i + batch] for i in starts])
