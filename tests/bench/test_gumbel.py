"""The gradient's rival: what it expects of latencies, and a whole search in miniature."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from riwoa.bench.contest import search
from riwoa.bench.contestants import Contestant
from riwoa.bench.embedded import Task
from riwoa.bench.peers import by_gradient
from riwoa.bench.peers.by_gradient import ExpectedLatency, _within, trained
from riwoa.bench.subnets import SubnetLandscape
from riwoa.bench.table import Question, TableLandscape
from riwoa.errors import UsageError
from riwoa.oracle.supernet_oracle import SupernetOracle
from riwoa.supernet.relaxed import Weights
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig

from .support import RESOLUTIONS, a_table
from .test_embedded import tiny_config

TABLE = a_table()
N = STAGES * BLOCKS


@pytest.fixture(scope="module")
def landscape(tmp_path_factory: pytest.TempPathFactory) -> SubnetLandscape:
    folder = tmp_path_factory.mktemp("gumbel")
    return Task(tiny_config(folder), TABLE, folder / "e.jsonl").landscape()


def test_the_expected_latency_is_the_mean_over_all_that_may_be_drawn() -> None:
    """One stage is left to chance, with unequal chances; the others are certain."""
    kernels, expansions, depths = (np.zeros((n, 3)) for n in (N, N, STAGES))
    kernels[:, 1] = expansions[:, 2] = depths[:, 0] = 1.0
    kernels[0], expansions[1], depths[0] = (0.2, 0.5, 0.3), (0.6, 0.1, 0.3), (0.1, 0.4, 0.5)
    kernels[3] = (0.3, 0.3, 0.4)
    sizes = (0.2, 0.3, 0.5)
    expected = 0.0
    for r, k0, k3, e1, d in product(range(3), repeat=5):
        ks, es, ds = [KERNELS[1]] * N, [EXPANSIONS[2]] * N, [DEPTHS[0]] * STAGES
        ks[0], ks[3], es[1], ds[0] = KERNELS[k0], KERNELS[k3], EXPANSIONS[e1], DEPTHS[d]
        chance = sizes[r] * kernels[0, k0] * kernels[3, k3] * expansions[1, e1] * depths[0, d]
        expected += chance * TABLE.latency_ms(OfaConfig(tuple(ks), tuple(es), tuple(ds), RESOLUTIONS[r]))
    weights = Weights(*(torch.from_numpy(of).float() for of in (kernels, expansions, depths)))
    assert float(ExpectedLatency(TABLE, RESOLUTIONS)(torch.tensor(sizes), weights)) == pytest.approx(expected, rel=1e-5)


def test_what_is_too_slow_gives_up_what_is_least_likely_for_what_it_saves(landscape: SubnetLandscape) -> None:
    space = landscape.space
    largest = space.cardinalities - 1
    sure = [np.log(np.array([*[1e-9] * (len(g.choices) - 1), 1.0])) for g in space.genes]
    doubtful = space.gene_index("stage3.block1.expand")
    sure[doubtful] = np.log(np.array([0.3, 0.3, 0.4]))
    limit = landscape.aim.limit
    assert limit is not None
    found = _within(landscape, sure, largest)
    assert landscape.free_load(space.canonical(found)) <= limit < landscape.free_load(space.canonical(largest))
    assert found[doubtful] == 0


def test_a_search_trains_first_then_queries_within_the_limit(
    landscape: SubnetLandscape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_gradient, "STEPS", 3)
    monkeypatch.setattr(by_gradient, "_BATCH_IMAGES", 16)
    oracle = landscape.evaluator.oracle
    assert isinstance(oracle, SupernetOracle)
    before = oracle.subnets.supernet.weights_sha256()
    found, again = (search(Contestant.parse("gumbel"), 0, landscape, 3) for _ in range(2))
    assert found.improvements == again.improvements
    assert found.queries == 3
    assert oracle.subnets.supernet.weights_sha256() == before
    assert 0 < found.own_s < found.times[0]  # nothing is known before it has trained
    assert found.row is not None
    assert landscape.free_load(landscape.indices(found.row)) <= landscape.aim.limit  # type: ignore[operator]
    other = trained(landscape, oracle, 1, steps=2)
    assert not torch.equal(other.kernels, trained(landscape, oracle, 0, steps=2).kernels)


def test_where_there_is_no_supernet_it_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", ops=np.arange(6)[:, None], value=np.arange(6.0))
    landscape = TableLandscape(tmp_path / "t.npz", Question("ops", "ordered", "value"))
    with pytest.raises(UsageError, match="gumbel needs the supernet itself"):
        search(Contestant.parse("gumbel"), 0, landscape, 3)
