"""Loading a supernet: OFA's format in every container, and one line for every way it can be wrong."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from riwoa.errors import InputError
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.network import ArchitectureError, Supernet, build_network
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.space import OfaConfig, mobilenet_space

BACKBONE = Backbone(0.25, 10)
MIXED = OfaConfig(ks=(3, 5, 7, 5) * 5, e=(3, 4, 6, 4) * 5, d=(2, 3, 4, 3, 2), r=24)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in build_network(BACKBONE, seed=3).state_dict().items()}


def refused(path: Path, width_mult: float = 0.25, n_classes: int = 10) -> str:
    """The message of the refusal, which must be one line that names the file."""
    with pytest.raises(InputError) as caught:
        Supernet.load(path, width_mult, n_classes)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_every_container_gives_the_same_weights(tmp_path: Path, weights: dict[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"supernet{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    loaded = Supernet.load(path, 0.25, 10)
    assert loaded.weights_sha256() == Supernet(build_network(BACKBONE, seed=3), BACKBONE).weights_sha256()
    assert loaded.weights_sha256() != Supernet(build_network(BACKBONE, seed=4), BACKBONE).weights_sha256()


def test_state_dict_inside_and_the_old_key_names_are_accepted(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    old = {name.replace("blocks.1.conv.", "blocks.1.mobile_inverted_conv."): t for name, t in weights.items()}
    assert old.keys() != weights.keys()
    torch.save({"state_dict": old, "epoch": 3}, tmp_path / "old.pth")
    assert Supernet.load(tmp_path / "old.pth", 0.25, 10).network is not None


def trainer_checkpoint(weights: dict[str, Tensor]) -> dict[str, object]:
    """What OFA's own trainer keeps, and some of what others do."""
    return {
        "epoch": 3,
        "best_acc": np.float64(89.7),
        "top1": np.float32(89.5),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "dataset": "imagenet",
        "state_dict": weights,
    }


@pytest.mark.parametrize("name", ["checkpoint.pth.tar", "model_best.pth", "checkpoint", "A.PTH"])
def test_what_ofas_trainer_writes_is_read_under_any_name(tmp_path: Path, weights: dict[str, Tensor], name: str) -> None:
    torch.save(trainer_checkpoint(weights), tmp_path / name)
    assert Supernet.load(tmp_path / name, 0.25, 10).weights_sha256() == _sha256_of(tmp_path, weights)


@pytest.mark.parametrize("key", ["state_dict", "state_dict_ema", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_are_found_where_trainers_put_them(
    tmp_path: Path, weights: dict[str, Tensor], key: str, prefix: str
) -> None:
    torch.save({"epoch": 3, key: {prefix + name: t for name, t in weights.items()}}, tmp_path / "a.pth")
    assert Supernet.load(tmp_path / "a.pth", 0.25, 10).weights_sha256() == _sha256_of(tmp_path, weights)


def test_the_container_follows_from_the_content_not_from_the_name(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    expected = _sha256_of(tmp_path, weights)
    torch.save(weights, tmp_path / "torch.safetensors")
    torch.save(weights, tmp_path / "old", _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / "tensors.pth")
    for name in ("torch.safetensors", "old", "tensors.pth"):
        assert Supernet.load(tmp_path / name, 0.25, 10).weights_sha256() == expected


def test_what_is_no_tensor_and_no_number_is_refused_by_its_name_and_not_called_damage(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    torch.save({"args": argparse.Namespace(lr=0.1), "state_dict": weights}, tmp_path / "a.pth")
    message = refused(tmp_path / "a.pth")
    assert "it holds argparse.Namespace, and nothing but tensors, numbers and texts is loaded" in message
    assert "truncated" not in message
    assert "\x1b" not in message


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_no_checkpoint(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.pth"
    {"pipe": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](path)
    refused(path)


def _sha256_of(folder: Path, weights: dict[str, Tensor]) -> str:
    save_file(weights, folder / "plain.safetensors")
    return Supernet.load(folder / "plain.safetensors", 0.25, 10).weights_sha256()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path: Path, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
    halved = {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights.items()}
    save_file(halved, tmp_path / "half.safetensors")
    found = Supernet.load(tmp_path / "half.safetensors", 0.25, 10).network.state_dict()
    assert all(torch.equal(found[name], tensor.to(found[name].dtype)) for name, tensor in halved.items())
    assert {t.dtype for t in found.values() if t.is_floating_point()} == {torch.float32}


def test_missing_file_says_where_to_get_one(tmp_path: Path) -> None:
    assert "riwoactl supernet train" in refused(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
def test_truncated_file_is_refused(tmp_path: Path, weights: dict[str, Tensor], suffix: str, keep: float) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert "truncated" in refused(path)


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    refused(tmp_path / "text.pth")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    assert "state_dict" in refused(tmp_path / "numbers.pth")
    (tmp_path / "net.onnx").write_bytes(b"")
    assert "neither safetensors nor what torch saves" in refused(tmp_path / "net.onnx")


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pth")
    refused(tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


def test_wrong_width_and_wrong_class_count_name_the_weight(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, tmp_path / "a.pth")
    assert "width 0.5" in refused(tmp_path / "a.pth", width_mult=0.5)
    assert "classifier.linear" in refused(tmp_path / "a.pth", n_classes=7)


def test_missing_weight_is_refused_though_ofa_would_load_it(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    gone = "blocks.7.conv.depth_conv.conv.5to3_matrix"
    torch.save({name: t for name, t in weights.items() if name != gone}, tmp_path / "a.pth")
    message = refused(tmp_path / "a.pth")
    assert gone in message
    assert "1 weights are missing" in message


def test_unknown_weight_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save({**weights, "transformer.0.bias": torch.zeros(3)}, tmp_path / "a.pth")
    assert "unknown weight" in refused(tmp_path / "a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, weights: dict[str, Tensor], value: float
) -> None:
    spoiled = {name: tensor.clone() for name, tensor in weights.items()}
    spoiled["blocks.3.conv.point_linear.conv.conv.weight"][0, 0] = value
    save_file(spoiled, tmp_path / "a.safetensors")
    assert "blocks.3.conv.point_linear.conv.conv.weight is not finite" in refused(tmp_path / "a.safetensors")


def test_subnet_computes_what_the_supernet_computes_with_that_choice_active() -> None:
    supernet = Supernet(build_network(BACKBONE, seed=3), BACKBONE)
    images = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    supernet.network.set_active_subnet(ks=list(MIXED.ks), e=list(MIXED.e), d=list(MIXED.d))
    with torch.no_grad():
        expected = supernet.network(images)
        found = supernet.get_net_for_config(MIXED)(images)
    torch.testing.assert_close(found, expected)


def test_extraction_leaves_the_active_choice_and_the_weights_alone() -> None:
    supernet = Supernet(build_network(BACKBONE, seed=3), BACKBONE)
    before = supernet.weights_sha256(), list(supernet.network.runtime_depth), supernet.network.module_str
    subnet = supernet.get_net_for_config(MIXED)
    with torch.no_grad():
        for parameter in subnet.parameters():
            parameter.add_(1.0)
    assert (supernet.weights_sha256(), list(supernet.network.runtime_depth), supernet.network.module_str) == before


def test_architecture_object_of_the_space_is_the_same_as_ofas_form() -> None:
    supernet = Supernet(build_network(BACKBONE, seed=3), BACKBONE)
    space = mobilenet_space((24, 32))
    architecture = space.architecture(space.canonical(space.cardinalities - 1))
    largest = OfaConfig((7,) * 20, (6,) * 20, (4,) * 5, 32)
    assert supernet.get_net_for_config(architecture).module_str == supernet.get_net_for_config(largest).module_str


@pytest.mark.parametrize(
    "config",
    [
        OfaConfig((9, *(3,) * 19), (3,) * 20, (2,) * 5, 24),
        OfaConfig((3,) * 20, (5, *(3,) * 19), (2,) * 5, 24),
        OfaConfig((3,) * 20, (3,) * 20, (1, 2, 2, 2, 2), 24),
        OfaConfig((3,) * 19, (3,) * 20, (2,) * 5, 24),
        {"resolution": 24},
    ],
)
def test_choice_that_the_supernet_lacks_is_refused(config: OfaConfig | dict[str, int]) -> None:
    with pytest.raises(ArchitectureError):
        Supernet(build_network(BACKBONE), BACKBONE).get_net_for_config(config)


def test_building_is_reproducible_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    build_network(BACKBONE, seed=5)
    assert torch.equal(torch.rand(3), expected)
    assert isinstance(build_network(BACKBONE, seed=5), import_ofa().OFAMobileNetV3)


def test_a_subnet_of_other_strides_is_rebuilt_from_its_description() -> None:
    supernet = Supernet(build_network(Backbone(0.1, 10, "small")), Backbone(0.1, 10, "small"))
    subnet: Any = supernet.get_net_for_config(OfaConfig((5,) * 20, (4,) * 20, (3,) * 5, 16))
    again = import_ofa().MobileNetV3.build_from_config(subnet.config)  # as an export is loaded
    torch.nn.Module.load_state_dict(again, subnet.state_dict())
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.eval()(images), subnet(images))
        assert subnet.first_conv(images).shape[-1] == 16
