"""Ray clusters of small nodes on this machine, and pools on them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from riwoa.oracle.pool import PoolSettings
from riwoa.oracle.protocol import ModuleSpec, OracleSpec
from riwoa.oracle.ray_nodes import DriverSettings
from riwoa.oracle.ray_pool import RayPool
from riwoa_storage.events import Event
from tests.support.ray_nodes import RayCluster, ray_cluster

WITHOUT_RAY = "Ray is not installed: pip install 'riwoa[ray]', or make test-cluster"


@pytest.fixture(scope="session", autouse=True)
def _needs_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip(WITHOUT_RAY)


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory, _needs_ray: None) -> Iterator[RayCluster]:
    """Two nodes of two cores that no test harms."""
    with ray_cluster(tmp_path_factory.mktemp("ray"), one=2, two=2) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """The shared one, with the environment of its users."""
    return known(shared_cluster, monkeypatch)


@pytest.fixture
def own_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _needs_ray: None
) -> Iterator[Callable[..., RayCluster]]:
    """Makes a cluster of named nodes for this test alone."""
    made = []

    def make(**nodes: int) -> RayCluster:
        home = tmp_path / "ray"
        home.mkdir()
        context = ray_cluster(home, **nodes)
        made.append(context)
        return known(context.__enter__(), monkeypatch)

    yield make
    for context in made:
        context.__exit__(None, None, None)


def known(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """The cluster, once this process has what its driver needs."""
    changed = {name: value for name, value in cluster.environment().items() if os.environ.get(name) != value}
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    return cluster


def a_pool(
    cluster: RayCluster,
    workers: int = 4,
    spec: OracleSpec | None = None,
    events: list[Event] | None = None,
    limits: dict[str, Any] | None = None,
    **settings: Any,
) -> RayPool:
    spec = spec or ModuleSpec(factory="pool_oracles:scripted")
    return RayPool(
        spec,
        PoolSettings(workers=workers, **{"start_timeout_s": 60.0, "evaluation_timeout_s": 60.0, **(limits or {})}),
        DriverSettings(workers=workers, **{"cpus": 1.0, **settings}),
        cluster.address,
        on_event=None if events is None else events.append,
    )
