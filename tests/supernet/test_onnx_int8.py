"""The graph in 8 bits that is timed is the one that onnxruntime's static quantisation writes."""

from __future__ import annotations

import hashlib
import statistics

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from riwoa.hardware.bench import operator_modules, operator_shapes, subnets
from riwoa.hardware.onnx_clock import visit_ms
from riwoa.hardware.runtime import Runtime
from riwoa.oracle.onnx_files import OnnxNetwork, quantised
from riwoa.supernet.geometry import Backbone, all_operators
from riwoa.supernet.onnx_graph import module_graph, subnet_graph
from riwoa.supernet.onnx_int8 import in_int8
from riwoa.supernet.space import BLOCKS, STAGES, OfaConfig
from tests.supernet.test_onnx_graph import LARGEST, MIXED, SMALLEST

BACKBONE = Backbone(0.25, 10)
RULE = None  # of preprocessing: no picture is opened here


def outline(model: onnx.ModelProto) -> str:
    """A hash of what computes the output: operators, attributes, sizes and types; values and names are not in it."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    known = {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
    known |= {images.name: "images" for images in model.graph.input}
    for node in model.graph.node:
        given = sorted((a.name, str(onnx.helper.get_attribute_value(a))) for a in node.attribute)
        text = f"{node.op_type} {given} {[known[name] for name in node.input]}"
        known[node.output[0]] = hashlib.sha256(text.encode()).hexdigest()
    return known[model.graph.output[0].name]


def as_onnxruntime_does(model: onnx.ModelProto, shape: tuple[int, ...]) -> onnx.ModelProto:
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return quantised(OnnxNetwork(model, RULE), images).model  # type: ignore[arg-type]


@pytest.mark.parametrize("genes", [SMALLEST, MIXED, LARGEST])
def test_a_network_is_laid_out_as_static_quantisation_does(genes: tuple[tuple[int, ...], ...]) -> None:
    (net,) = subnets([OfaConfig(*genes, 24)], BACKBONE)  # type: ignore[arg-type, call-arg]
    ours = in_int8(subnet_graph(net, 24))
    onnx.checker.check_model(ours, full_check=True)
    assert outline(ours) == outline(as_onnxruntime_does(subnet_graph(net, 24, batch=None), (1, 3, 24, 24)))


def test_so_is_every_kind_of_operator() -> None:
    kinds = {(op.kind, op.se, op.act, op.skip): op for op in all_operators((24,), BACKBONE)}
    operators = list(kinds.values())
    for op, module in zip(operators, operator_modules(operators), strict=True):
        shapes = [(1, *shape) for shape in operator_shapes(op)]
        graph = module_graph(module, *shapes)
        assert outline(in_int8(graph)) == outline(as_onnxruntime_does(graph, shapes[0])), op.key


def test_it_takes_as_long_as_what_is_exported() -> None:
    (net,) = subnets([OfaConfig((5,) * STAGES * BLOCKS, (4,) * STAGES * BLOCKS, (3,) * STAGES, 40)], BACKBONE)
    ours = in_int8(subnet_graph(net, 40)).SerializeToString()
    theirs = as_onnxruntime_does(subnet_graph(net, 40, batch=None), (1, 3, 40, 40)).SerializeToString()
    visits = [
        [statistics.median(visit_ms(m, (1, 3, 40, 40), Runtime("onnxruntime"))) for m in (ours, theirs)]
        for _ in range(6)
    ]
    ratio = min(pair[0] for pair in visits) / min(pair[1] for pair in visits)
    assert 0.8 < ratio < 1.25  # 0.97 to 1.02 on a machine that was not busy
