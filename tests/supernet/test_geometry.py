"""The torch-free layer list agrees with the real Once-for-All networks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import pytest

from riwoa.supernet import geometry
from riwoa.supernet.geometry import Backbone, Operator
from riwoa.supernet.space import OfaConfig


def random_config(rng: random.Random, resolution: int) -> OfaConfig:
    return OfaConfig(
        ks=tuple(rng.choice((3, 5, 7)) for _ in range(20)),
        e=tuple(rng.choice((3, 4, 6)) for _ in range(20)),
        d=tuple(rng.choice((2, 3, 4)) for _ in range(5)),
        r=resolution,
    )


BACKBONES = [
    Backbone(0.25, 10),
    Backbone(0.5, 7),
    Backbone(1.0, 1000),
    Backbone(1.2, 100),
    Backbone(0.5, 100, "small"),
    Backbone(0.1, 10, "small"),  # so thin that stage 3, which keeps its size here, keeps its width too
]


@pytest.fixture(scope="module", params=BACKBONES, ids=str)
def supernet(request: pytest.FixtureRequest) -> tuple[Backbone, Any]:
    from riwoa.supernet.network import build_network

    return request.param, build_network(request.param)


def test_ofas_own_strides_are_left_as_its_class_has_them() -> None:
    from riwoa.supernet.network import build_network
    from riwoa.supernet.ofa_import import import_ofa

    choices = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
    untouched = import_ofa().OFAMobileNetV3(n_classes=10, dropout_rate=0, width_mult=0.25, **choices)
    ours: Any = build_network(Backbone(0.25, 10))
    assert ours.config == untouched.config
    assert str(ours) == str(untouched)


def test_small_pictures_end_as_four_pixels_and_a_stage_that_keeps_its_shape_has_a_shortcut() -> None:
    config = OfaConfig(ks=(3,) * 20, e=(3,) * 20, d=(2,) * 5, r=32)
    sizes = [op.out_h for op in geometry.operators(config, Backbone(0.5, 100, "small"))]
    assert sizes == [32, 32, 16, 16, 8, 8, 8, 8, 8, 8, 4, 4, 4, 1, 1, 1]
    thin = geometry.operators(config, Backbone(0.1, 10, "small"))
    assert thin[6].skip  # the first block of stage 3
    assert not geometry.operators(config, Backbone(0.1, 10))[6].skip


def test_a_backbone_says_its_stem_only_where_it_is_not_ofas() -> None:
    assert Backbone(0.25, 10).to_json() == {"width_mult": 0.25, "n_classes": 10}
    assert Backbone(0.25, 10, "small").to_json() == {"width_mult": 0.25, "n_classes": 10, "stem": "small"}


def traced(subnet: Any, resolution: int) -> tuple[int, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """MACs counted by hooks on every convolution and linear layer, and (input, output) shapes a block, CHW."""
    import torch

    counted = 0
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def count(module: Any, _: Any, out: Any) -> None:
        nonlocal counted
        counted += out.numel() * module.weight[0].numel()

    def note(_: Any, inputs: Any, out: Any) -> None:
        shapes.append((tuple(inputs[0].shape[1:]), tuple(out.shape[1:])))

    leaves = [m for m in subnet.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    parts = [subnet.first_conv, *subnet.blocks, subnet.final_expand_layer, subnet.global_avg_pool]
    handles = [m.register_forward_hook(count) for m in leaves] + [m.register_forward_hook(note) for m in parts]
    with torch.inference_mode():
        subnet(torch.zeros(1, 3, resolution, resolution))
    for handle in handles:
        handle.remove()
    return counted, shapes


@pytest.mark.parametrize("resolution", [24, 40, 65])
def test_macs_parameters_and_shapes_equal_those_of_the_real_subnet(
    supernet: tuple[Backbone, Any], resolution: int
) -> None:
    backbone, net = supernet
    rng = random.Random(resolution)
    for _ in range(2):
        config = random_config(rng, resolution)
        net.set_active_subnet(ks=list(config.ks), e=list(config.e), d=list(config.d))
        subnet = net.get_active_subnet(preserve_weight=False).eval()
        real_macs, shapes = traced(subnet, resolution)
        ours = geometry.operators(config, backbone)
        assert geometry.macs(config, backbone) == real_macs
        assert geometry.parameters(config, backbone) == sum(p.numel() for p in subnet.parameters())
        assert [((o.in_c, o.in_h, o.in_w), (o.out_c, o.out_h, o.out_w)) for o in ours[: len(shapes)]] == shapes
        for op, block in zip(ours[1:], subnet.blocks, strict=False):
            assert block_facts(op) == real_block_facts(block)


def block_facts(op: Operator) -> tuple[object, ...]:
    return op.kind == "mbconv", op.mid_c, op.kernel, op.stride, op.act, op.se, op.skip


def real_block_facts(block: Any) -> tuple[object, ...]:
    conv = block.conv
    return (
        conv.inverted_bottleneck is not None,
        conv.depth_conv.conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.act_func,
        conv.use_se,
        block.shortcut is not None,
    )


def test_blocks_beyond_the_depth_change_nothing() -> None:
    shallow = OfaConfig(ks=(3,) * 20, e=(3,) * 20, d=(2,) * 5, r=32)
    edited = OfaConfig(ks=(3, 3, 7, 7) * 5, e=(3, 3, 6, 6) * 5, d=(2,) * 5, r=32)
    backbone = Backbone(0.25, 10)
    assert geometry.operators(shallow, backbone) == geometry.operators(edited, backbone)
    assert len(geometry.operators(shallow, backbone)) == 2 + 10 + 4


def test_all_operators_are_distinct_and_cover_random_subnets() -> None:
    backbone = Backbone(0.25, 10)
    every = geometry.all_operators((24, 32, 40), backbone)
    keys = {op.key for op in every}
    assert len(keys) == len(every)
    rng = random.Random(0)
    used = set()
    for _ in range(2000):
        ops = geometry.operators(random_config(rng, rng.choice((24, 32, 40))), backbone)
        used |= {op.key for op in ops}
    assert used == keys


def test_geometry_needs_no_torch() -> None:
    code = "import sys, riwoa.supernet.geometry as g; sys.exit(bool({'torch', 'ofa', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=_environment()).returncode == 0


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
