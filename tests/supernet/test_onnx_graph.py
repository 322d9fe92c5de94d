"""The ONNX graph that is written by hand says what the torch network says."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from riwoa.paths import shipped
from riwoa.supernet.geometry import Backbone, Stem
from riwoa.supernet.network import Supernet
from riwoa.supernet.onnx_graph import INPUT, OUTPUT, subnet_graph
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig

N = STAGES * BLOCKS
SMALLEST = ((KERNELS[0],) * N, (EXPANSIONS[0],) * N, (DEPTHS[0],) * STAGES)
LARGEST = ((KERNELS[-1],) * N, (EXPANSIONS[-1],) * N, (DEPTHS[-1],) * STAGES)
MIXED = ((3, 5, 7, 5) * STAGES, (6, 4, 3, 4) * STAGES, (2, 3, 4, 3, 2))
SHIPPED = [
    ("digits_supernet.safetensors", 0.25, 10, "imagenet", (24, 32, 40)),
    ("cifar100_supernet.safetensors", 0.25, 100, "imagenet", (24, 28, 32)),
]


def session(model: onnx.ModelProto, level: str = "ORT_ENABLE_ALL") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def difference(net: torch.nn.Module, model: onnx.ModelProto, resolution: int, batch: int, level: str) -> float:
    """The largest difference of any logit, by the range of all: two networks that say nothing do not agree."""
    images = np.random.default_rng(batch).normal(size=(batch, 3, resolution, resolution)).astype(np.float32)
    (found,) = session(model, level).run([OUTPUT], {INPUT: images})
    with torch.inference_mode():
        expected = net(torch.from_numpy(images)).numpy()
    return float(np.abs(found - expected).max() / np.ptp(expected))


@pytest.mark.parametrize(("name", "width", "classes", "stem", "resolutions"), SHIPPED)
def test_every_resolution_and_both_extremes_agree_with_torch(
    name: str, width: float, classes: int, stem: Stem, resolutions: tuple[int, ...]
) -> None:
    supernet = Supernet.load(shipped(name), width, classes, stem)
    for genes in (SMALLEST, LARGEST, MIXED):
        for resolution in resolutions:
            net = supernet.get_net_for_config(OfaConfig(*genes, resolution))
            model = subnet_graph(net, resolution)
            assert difference(net, model, resolution, 1, "ORT_ENABLE_ALL") < 2e-5
    assert difference(net, model, resolution, 1, "ORT_DISABLE_ALL") < 2e-5
    assert difference(net, subnet_graph(net, resolution, batch=None), resolution, 5, "ORT_ENABLE_ALL") < 2e-5
    onnx.checker.check_model(model, full_check=True)


def test_another_stem_is_written_as_it_strides() -> None:
    from riwoa.supernet.network import build_network

    supernet = Supernet(build_network(Backbone(0.25, 7, "small"), seed=1), Backbone(0.25, 7, "small"))
    net = supernet.get_net_for_config(OfaConfig(*MIXED, 32))
    for module in net.modules():  # random weights alone fade to nothing within twenty layers
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1.0, 2.0, generator=torch.Generator().manual_seed(0))
            torch.nn.init.uniform_(module.bias, -0.5, 0.5, generator=torch.Generator().manual_seed(1))
    assert difference(net, subnet_graph(net, 32), 32, 1, "ORT_ENABLE_ALL") < 2e-5


def test_a_layer_that_is_not_of_the_space_is_refused() -> None:
    net = Supernet.load(shipped(SHIPPED[0][0]), 0.25, 10).get_net_for_config(OfaConfig(*SMALLEST, 24))
    net.blocks[0] = torch.nn.Identity()  # type: ignore[operator, assignment]
    with pytest.raises(TypeError, match=r"blocks\.0 is a Identity"):
        subnet_graph(net, 24)
