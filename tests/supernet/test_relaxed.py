"""A relaxed supernet with one choice a gene is the subnet; its gradient reaches every choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from riwoa.supernet.geometry import Backbone
from riwoa.supernet.network import Supernet, build_network
from riwoa.supernet.relaxed import RelaxedSupernet, Weights
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig

RESOLUTION = 24
N = STAGES * BLOCKS


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    backbone = Backbone(0.25, 10)
    network = build_network(backbone)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # kernel transformations and BatchNorm's scales of a trained one are no identities
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return Supernet(network, backbone)


def a_config(seed: int) -> OfaConfig:
    rng = np.random.default_rng(seed)
    ks, es = (tuple(int(x) for x in rng.choice(choices, N)) for choices in (KERNELS, EXPANSIONS))
    return OfaConfig(ks, es, tuple(int(x) for x in rng.choice(DEPTHS, STAGES)), RESOLUTION)


def weights_of(config: OfaConfig) -> Weights:
    """All weight on the choices of a subnet."""

    def rows(values: tuple[int, ...], choices: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor([[float(v == c) for c in choices] for v in values], requires_grad=True)

    return Weights(rows(config.ks, KERNELS), rows(config.e, EXPANSIONS), rows(config.d, DEPTHS))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_one_choice_a_gene_it_is_the_subnet(supernet: Supernet, seed: int) -> None:
    images = torch.randn(6, 3, RESOLUTION, RESOLUTION, generator=torch.Generator().manual_seed(seed))
    config = a_config(seed)
    with torch.no_grad():
        expected = supernet.get_net_for_config(config).train()(images)  # BatchNorm by the batch
        found = RelaxedSupernet(supernet).logits(images, weights_of(config))
    assert float((found - expected).abs().max()) < 1e-3 * float(expected.abs().max())


def test_the_gradient_reaches_every_choice_and_no_weight(supernet: Supernet) -> None:
    before = supernet.weights_sha256()
    images = torch.randn(6, 3, RESOLUTION, RESOLUTION, generator=torch.Generator().manual_seed(0))
    config = OfaConfig((5,) * N, (4,) * N, (4,) * STAGES, RESOLUTION)
    weights = weights_of(config)
    RelaxedSupernet(supernet).logits(images, weights).square().sum().backward()  # type: ignore[no-untyped-call]
    for of in (weights.kernels, weights.expansions, weights.depths):
        assert of.grad is not None
        assert bool((of.grad != 0).all())
    assert all(parameter.grad is None for parameter in supernet.network.parameters())
    assert supernet.weights_sha256() == before
