"""The fast evaluator gives OFA's own result, and gives it whatever was evaluated before."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from riwoa.supernet import evaluator as evaluator_module
from riwoa.supernet.evaluator import NonFiniteLogitsError, SubnetEvaluator
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.kernels import PlainKernels
from riwoa.supernet.network import ArchitectureError, Supernet, build_network
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.space import DEPTHS, EXPANSIONS, KERNELS, OfaConfig

BACKBONE = Backbone(0.25, 10)
RESOLUTIONS = (24, 40)
SMALLEST = OfaConfig((3,) * 20, (3,) * 20, (2,) * 5, 24)
LARGEST = OfaConfig((7,) * 20, (6,) * 20, (4,) * 5, 40)
MIXED = OfaConfig((3, 5, 7, 5) * 5, (3, 4, 6, 4) * 5, (2, 3, 4, 3, 2), 40)


def lively_supernet(backbone: Backbone = BACKBONE, seed: int = 0) -> Supernet:
    """Random weights in which everything matters: kernel transforms off identity, BatchNorms off (1, 0)."""
    network = build_network(backbone, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("_matrix"):
                parameter.add_(noise, alpha=0.1)
            elif ".bn." in name:
                parameter.add_(noise, alpha=0.2)
    return Supernet(network, backbone)


def pictures(n: int, resolution: int, seed: int) -> npt.NDArray[np.float32]:
    """Smooth random images: neighbouring pixels agree, as in real ones."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((n, 3, 4, 4)).astype(np.float32)
    large = np.repeat(np.repeat(coarse, -(-resolution // 4), axis=2), -(-resolution // 4), axis=3)
    noise = rng.standard_normal((n, 3, resolution, resolution)).astype(np.float32)
    return np.ascontiguousarray(large[:, :, :resolution, :resolution] + 0.3 * noise, dtype=np.float32)


SUPERNET = lively_supernet()
RECALIBRATION = {r: pictures(450, r, seed=1) for r in RESOLUTIONS}  # batches of 200, 200 and 50
VALIDATION = {r: (pictures(330, r, seed=2), np.arange(330) % 10) for r in RESOLUTIONS}


def make(dtype: Literal["float32", "bfloat16"] = "float32", **settings: Any) -> SubnetEvaluator:
    return SubnetEvaluator(SUPERNET, RECALIBRATION, VALIDATION, dtype=dtype, **settings)


def ofas_own_net(supernet: Supernet, config: OfaConfig, recalibration: npt.NDArray[np.float32]) -> torch.nn.Module:
    net = supernet.get_net_for_config(config)
    images = torch.from_numpy(recalibration)
    import_ofa().set_running_statistics(net, [(batch, None) for batch in torch.split(images, 200)])
    return net.eval()


def ofas_own_logits(config: OfaConfig) -> Tensor:
    net = ofas_own_net(SUPERNET, config, RECALIBRATION[config.r])
    with torch.no_grad():
        logits: Tensor = net(torch.from_numpy(VALIDATION[config.r][0]))
    return logits


def random_configs(n: int, seed: int) -> list[OfaConfig]:
    rng = random.Random(seed)
    return [
        OfaConfig(
            tuple(rng.choices(KERNELS, k=20)),
            tuple(rng.choices(EXPANSIONS, k=20)),
            tuple(rng.choices(DEPTHS, k=5)),
            rng.choice(RESOLUTIONS),
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("config", [SMALLEST, LARGEST, MIXED, *random_configs(2, seed=7)])
def test_float32_logits_are_ofas_own_within_a_thousandth(config: OfaConfig) -> None:
    expected = ofas_own_logits(config)
    found = make().logits(config)
    assert (found - expected).abs().max() <= 1e-3
    assert (found - expected).abs().max() <= 5e-3 * expected.std()  # and the logits are not simply small


@pytest.mark.parametrize("config", [SMALLEST, MIXED])
def test_bfloat16_logits_follow_float32(config: OfaConfig) -> None:
    exact, rounded = make().logits(config), make("bfloat16").logits(config)
    stacked = torch.stack([exact.flatten(), rounded.flatten()])
    assert torch.corrcoef(stacked)[0, 1] > 0.97
    assert rounded.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_result_never_depends_on_what_was_evaluated_before(dtype: Literal["float32", "bfloat16"]) -> None:
    # Relatives that differ in one gene each, of a block in the middle or in depth or resolution, and two whose blocks
    # have the same choices in the same order and differ only in where a stage ends.
    family = [
        MIXED,
        replace(MIXED, ks=(*MIXED.ks[:4], 7, *MIXED.ks[5:])),
        replace(MIXED, e=(*MIXED.e[:4], 6, *MIXED.e[5:])),
        replace(MIXED, d=(*MIXED.d[:3], 4, 2)),
        replace(MIXED, r=24),
        replace(SMALLEST, d=(3, 2, 2, 2, 2)),
        replace(SMALLEST, d=(2, 3, 2, 2, 2)),
    ]
    assert len(set(family)) == 7
    fresh = {config: make(dtype, prefix_cache_bytes=0).logits(config) for config in family}
    for capacity in (256 << 20, 3 << 20):  # everything fits; most is evicted
        shared = make(dtype, prefix_cache_bytes=capacity)
        for config in [*family, *random_configs(1, seed=4), *reversed(family)]:
            found = shared.logits(config)
            if config in fresh:
                assert torch.equal(found, fresh[config])


def test_shared_prefix_is_not_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = make()
    computed = []
    original = evaluator_module._recalibrate

    def counting(blocks: Any, groups: Any, keep: Any) -> Any:
        computed.append(len(blocks))
        return original(blocks, groups, keep)

    monkeypatch.setattr(evaluator_module, "_recalibrate", counting)
    evaluator.logits(MIXED)
    last_kernel_differs = OfaConfig((*MIXED.ks[:17], 3, 3, 3), MIXED.e, MIXED.d, MIXED.r)
    assert last_kernel_differs.ks[17] != MIXED.ks[17]
    evaluator.logits(last_kernel_differs)
    evaluator.forget()
    evaluator.logits(last_kernel_differs)
    blocks = 1 + sum(MIXED.d) + 1
    assert computed == [blocks, 2, blocks]


def test_blocks_beyond_the_depth_do_not_matter() -> None:
    other = OfaConfig(
        tuple(7 if i % 4 >= MIXED.d[i // 4] else k for i, k in enumerate(MIXED.ks)), MIXED.e, MIXED.d, MIXED.r
    )
    assert other != MIXED
    assert torch.equal(make().logits(MIXED), make().logits(other))


def test_batch_size_changes_rounding_only() -> None:
    torch.testing.assert_close(make(batch_size=50).logits(MIXED), make(batch_size=330).logits(MIXED), atol=1e-4, rtol=0)


def test_evaluation_counts_what_the_subnet_has() -> None:
    found = make().evaluate(MIXED)
    labels = torch.from_numpy(VALIDATION[40][1])
    correct = int((ofas_own_logits(MIXED).argmax(1) == labels).sum())
    net = SUPERNET.get_net_for_config(MIXED)
    assert found["images"] == 330
    assert abs(found["correct"] - correct) <= 1  # a tie in the last bits may fall either way
    assert found["accuracy"] == found["correct"] / 330
    assert found["parameters"] == sum(p.numel() for p in net.parameters())
    assert found["macs"] > 0


def test_exported_net_is_recalibrated_as_ofa_does_it() -> None:
    expected = ofas_own_net(SUPERNET, MIXED, RECALIBRATION[40])
    for dtype in ("float32", "bfloat16"):
        found = make(dtype).recalibrated_net(MIXED)
        for (name, a), b in zip(found.state_dict().items(), expected.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3, msg=name)
    with torch.no_grad():
        logits = found(torch.from_numpy(VALIDATION[40][0]))
    assert (logits - make().logits(MIXED)).abs().max() <= 1e-3


def test_evaluating_leaves_supernet_and_images_alone() -> None:
    weights = SUPERNET.weights_sha256()
    recalibration, validation = copy.deepcopy(RECALIBRATION[24]), copy.deepcopy(VALIDATION[24][0])
    evaluator = make()
    evaluator.evaluate(SMALLEST)
    evaluator.recalibrated_net(SMALLEST)
    assert SUPERNET.weights_sha256() == weights
    assert np.array_equal(RECALIBRATION[24], recalibration)
    assert np.array_equal(VALIDATION[24][0], validation)


def test_read_only_images_are_accepted() -> None:
    images = VALIDATION[24][0].copy()
    images.flags.writeable = False
    evaluator = SubnetEvaluator(SUPERNET, {24: RECALIBRATION[24]}, {24: (images, VALIDATION[24][1])})
    assert torch.equal(evaluator.logits(SMALLEST), make().logits(SMALLEST))


def test_logits_that_are_not_finite_fail_the_candidate_only() -> None:
    supernet = lively_supernet(seed=1)
    with torch.no_grad():
        supernet.network.classifier.linear.weight[0, 0] = torch.nan
    evaluator = SubnetEvaluator(supernet, {24: RECALIBRATION[24]}, {24: VALIDATION[24]})
    with pytest.raises(NonFiniteLogitsError, match="not finite"):
        evaluator.evaluate(SMALLEST)


def test_architecture_that_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="resolution 32"):
        make().evaluate(OfaConfig(SMALLEST.ks, SMALLEST.e, SMALLEST.d, 32))
    with pytest.raises(ArchitectureError, match="kernel 4"):
        make().evaluate(OfaConfig((4,) * 20, SMALLEST.e, SMALLEST.d, 24))


def test_images_and_labels_that_do_not_fit_are_refused() -> None:
    images, labels = VALIDATION[24]
    with pytest.raises(ValueError, match="330 images but labels"):
        SubnetEvaluator(SUPERNET, {24: images}, {24: (images, labels[:-1])})
    with pytest.raises(ValueError, match="must be"):
        SubnetEvaluator(SUPERNET, {32: images}, {24: (images, labels)})


def test_plain_kernels_give_the_same_result_on_a_torch_without_fused_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = make()
    monkeypatch.setattr(evaluator_module, "best_kernels", lambda *_: PlainKernels())
    plain = make()
    assert plain.settings()["kernels"] == "plain"
    assert (plain.logits(MIXED) - fused.logits(MIXED)).abs().max() <= 1e-3


def test_settings_tell_apart_what_changes_bits() -> None:
    assert make().settings() == make().settings()
    assert make().settings() != make("bfloat16").settings()
    assert make().settings() != make(batch_size=100).settings()


def test_wider_net_larger_pictures_and_more_classes_agree_with_ofa() -> None:
    backbone = Backbone(1.2, 100)
    supernet = lively_supernet(backbone)
    config = OfaConfig(MIXED.ks, MIXED.e, (2,) * 5, 96)
    recalibration, validation = pictures(24, 96, seed=3), pictures(8, 96, seed=4)
    net = ofas_own_net(supernet, config, recalibration)
    with torch.no_grad():
        expected = net(torch.from_numpy(validation))
    evaluator = SubnetEvaluator(supernet, {96: recalibration}, {96: (validation, np.zeros(8, np.int64))})
    assert (evaluator.logits(config) - expected).abs().max() <= 1e-3


@pytest.mark.parametrize("config", [LARGEST, MIXED, replace(MIXED, d=(4, 2, 2, 3, 4))])
def test_the_strides_for_small_pictures_agree_with_ofa(config: OfaConfig) -> None:
    supernet = lively_supernet(Backbone(0.25, 100, "small"))
    config = replace(config, r=20)
    recalibration, validation = pictures(210, 20, seed=3), pictures(70, 20, seed=4)
    net = ofas_own_net(supernet, config, recalibration)
    with torch.no_grad():
        expected = net(torch.from_numpy(validation))
    evaluator = SubnetEvaluator(supernet, {20: recalibration}, {20: (validation, np.zeros(70, np.int64))})
    found = evaluator.logits(config)
    assert (found - expected).abs().max() <= 1e-3
    assert (found - expected).abs().max() <= 5e-3 * expected.std()
    assert evaluator.evaluate(config)["parameters"] == sum(p.numel() for p in net.parameters())


def test_images_that_stay_on_the_device_give_the_same_result() -> None:
    sent_each_time, resident = make(), make()
    resident._resident = {}  # as on a GPU with room
    for config in (MIXED, SMALLEST, MIXED):
        assert torch.equal(sent_each_time.logits(config), resident.logits(config))
    assert resident._resident
    assert {name: len(images) for name, images in resident._resident.items()} == {
        f"{split} {r}": n for r in RESOLUTIONS for split, n in (("recalibration", 450), ("validation", 330))
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here")
@pytest.mark.parametrize("config", [SMALLEST, LARGEST, MIXED])
def test_a_gpu_gives_the_cpus_logits(config: OfaConfig) -> None:
    gpu = make(device="cuda")
    assert gpu.settings()["kernels"] == "plain"
    assert (gpu.logits(config).cpu() - make().logits(config)).abs().max() <= 1e-3
    rounded = make("bfloat16", device="cuda")
    stacked = torch.stack([gpu.logits(config).flatten(), rounded.logits(config).flatten()])
    assert torch.corrcoef(stacked)[0, 1] > 0.97
    assert torch.equal(rounded.logits(config), make("bfloat16", device="cuda").logits(config))
