"""Gumbel-softmax over the choices of a trained supernet, its weights fixed: a DARTS-like rival for supernets.

Liu et al. ("DARTS", ICLR 2019) relax the choice; here a step draws one subnet by Gumbel-softmax, straight through: the
pass is the subnet's own, the gradient that of the softmax (Jang et al., ICLR 2017; Dong and Yang, "GDAS", CVPR 2019).
The gradient of the loss on the pictures that a search is judged by reaches kernels, expansions and depths
(``riwoa.supernet.relaxed``). Resolutions are pictures of other sizes, through which none goes: theirs is estimated by
the score function (Williams, 1992) with a running mean as baseline. Latency's expectation is exact, since the table
adds blocks up, and what of it is beyond the target is added to the loss.

Then queries: the likeliest subnet first, and with what is left of the budget samples of what was learnt, as Wu et al.
do ("FBNet", CVPR 2019), each brought within the limit by the changes that lose least likelihood a millisecond. Training
is no query, and takes its seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from riwoa.bench.arena import Arena
from riwoa.bench.subnets import SubnetLandscape
from riwoa.errors import UsageError
from riwoa.hardware.lut import LatencyTable
from riwoa.oracle.supernet_oracle import SupernetOracle
from riwoa.search.fitness import FloatArray
from riwoa.search.space import IntArray
from riwoa.supernet.relaxed import RelaxedSupernet, Weights
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig

STEPS = 200
_BATCH_IMAGES = 64
_LEARNING_RATE = 0.1
_TEMPERATURES = (2.0, 0.5)  # of the Gumbel-softmax, at the beginning and at the end
_PENALTY = 2.0  # of a latency of twice the target
_BASELINE_MEMORY = 0.9


class ExpectedLatency:
    """The expectation of a table's latency over independent choices, in milliseconds."""

    def __init__(self, table: LatencyTable, resolutions: Sequence[int]) -> None:
        blocks, fixed = [], []
        for r in resolutions:
            of_r = np.zeros((STAGES * BLOCKS, len(KERNELS), len(EXPANSIONS)))
            for k, kernel in enumerate(KERNELS):
                for e, expansion in enumerate(EXPANSIONS):
                    n = STAGES * BLOCKS
                    config = OfaConfig((kernel,) * n, (expansion,) * n, (max(DEPTHS),) * STAGES, r)
                    of_r[:, k, e] = list(table.layers_ms(config).values())
            blocks.append(of_r)
            fixed.append(table.latency_ms(config) - of_r[:, -1, -1].sum())
        self._blocks = torch.from_numpy(np.array(blocks)).float()  # (resolutions, blocks, kernels, expansions)
        self._fixed = torch.tensor(fixed).float()
        self._exists = torch.tensor([[float(b < d) for d in DEPTHS] for b in range(BLOCKS)])  # (blocks, depths)

    def __call__(self, resolutions: Tensor, weights: Weights) -> Tensor:
        """Of probabilities, those of the resolutions (choices,) among them."""
        exists = (weights.depths @ self._exists.T).flatten()
        each = torch.einsum("b,bk,be,rbke->r", exists, weights.kernels, weights.expansions, self._blocks)
        return resolutions @ (self._fixed + each)


@dataclass(frozen=True, slots=True, eq=False)
class Logits:
    """What was learnt of each gene; every gene but the resolution has three choices."""

    resolution: Tensor
    kernels: Tensor
    expansions: Tensor
    depths: Tensor

    def probabilities(self) -> Weights:
        """Of the choices that a gradient reaches."""
        return Weights(self.kernels.softmax(1), self.expansions.softmax(1), self.depths.softmax(1))

    def drawn(self, temperature: float, generator: torch.Generator) -> Weights:
        """One choice a gene, straight through."""
        of = (_straight_through(logits, temperature, generator) for logits in self.learnt[1:])
        return Weights(*of)

    @property
    def learnt(self) -> list[Tensor]:
        """All of them."""
        return [self.resolution, self.kernels, self.expansions, self.depths]

    def by_gene(self) -> list[FloatArray]:
        """Log-probabilities of each gene's choices, in the order of the space."""
        resolution, kernels, expansions, depths = (
            logits.detach().log_softmax(-1).double().numpy() for logits in self.learnt
        )
        blocks = [row for pair in zip(kernels, expansions, strict=True) for row in pair]
        return [resolution, *depths, *blocks]


def gumbel(arena: Arena, seed: int) -> None:
    """Train the choices, then query.

    Raises:
        UsageError: there is no supernet behind the landscape, or no limit.
    """
    landscape = arena.landscape
    if not isinstance(landscape, SubnetLandscape) or not isinstance(landscape.evaluator.oracle, SupernetOracle):
        raise UsageError("--strategies: gumbel needs the supernet itself; bench embedded has one")
    likely = trained(landscape, landscape.evaluator.oracle, seed, STEPS).by_gene()
    rng = np.random.default_rng(seed)
    arena.query(_within(landscape, likely, np.array([np.argmax(row) for row in likely])))
    while True:
        drawn = [rng.choice(len(row), p=np.exp(row) / np.exp(row).sum()) for row in likely]
        arena.query(_within(landscape, likely, np.array(drawn)))


def trained(landscape: SubnetLandscape, oracle: SupernetOracle, seed: int, steps: int) -> Logits:
    """The logits after so many steps."""
    resolutions, target_ms = landscape.resolutions, landscape.aim.limit
    assert target_ms is not None
    net, latency_ms = RelaxedSupernet(oracle.subnets.supernet), ExpectedLatency(landscape.table, resolutions)
    shapes = ((len(resolutions),), (STAGES * BLOCKS, len(KERNELS)), (STAGES * BLOCKS, len(EXPANSIONS)))
    logits = Logits(*(torch.zeros(shape, requires_grad=True) for shape in (*shapes, (STAGES, len(DEPTHS)))))
    optimiser = torch.optim.Adam(logits.learnt, lr=_LEARNING_RATE)
    generator, rng, baseline = torch.Generator().manual_seed(seed), np.random.default_rng(seed), None
    for step in range(steps):
        temperature = _TEMPERATURES[0] * (_TEMPERATURES[1] / _TEMPERATURES[0]) ** (step / steps)
        shares = logits.resolution.softmax(0)
        chosen = int(torch.multinomial(shares.detach(), 1, generator=generator))
        images, labels = oracle.subnets.validation(resolutions[chosen])
        rows = rng.choice(len(labels), min(_BATCH_IMAGES, len(labels)), replace=False)
        batch = torch.from_numpy(images[rows]).contiguous(memory_format=torch.channels_last)
        found = net.logits(batch, logits.drawn(temperature, generator))
        loss = F.cross_entropy(found, torch.from_numpy(labels[rows]))
        seen = float(loss.detach())
        baseline = seen if baseline is None else baseline + (1 - _BASELINE_MEMORY) * (seen - baseline)
        beyond = torch.relu(latency_ms(shares, logits.probabilities()) / target_ms - 1.0)
        score = (seen - baseline) * shares[chosen].log()
        optimiser.zero_grad()
        (loss + score + _PENALTY * beyond).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return logits


def _straight_through(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Rows of one 1 among zeros; their gradient is that of the softmax of the same draw."""
    gumbels = -torch.empty_like(logits).exponential_(generator=generator).log()
    soft = ((logits + gumbels) / temperature).softmax(1)
    hard = F.one_hot(soft.argmax(1), logits.shape[1]).float()
    return hard - soft.detach() + soft


def _within(landscape: SubnetLandscape, likely: Sequence[FloatArray], indices: IntArray) -> IntArray:
    """The architecture, brought within the limit: each change loses the least log-probability for what it saves."""
    space, limit = landscape.space, landscape.aim.limit
    load = landscape.free_load(space.canonical(indices))
    while limit is not None and load > limit:
        least, found = np.inf, None
        for gene, row in enumerate(likely):
            for choice in range(len(row)):
                changed = indices.copy()
                changed[gene] = choice
                lighter = landscape.free_load(space.canonical(changed))
                if lighter < load and (lost := (row[indices[gene]] - row[choice]) / (load - lighter)) < least:
                    least, found = lost, (changed, lighter)
        if found is None:
            break
        indices, load = found
    return indices
