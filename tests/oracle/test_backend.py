"""Which pool a configuration gets, and what it is refused for before anything starts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from riwoa.config.loading import load
from riwoa.config.schema import Config
from riwoa.errors import ConfigError
from riwoa.oracle.backend import driver_settings, make_pool
from riwoa.oracle.pool import WorkerPool
from riwoa.oracle.protocol import GivenSpec
from riwoa.oracle.ray_pool import RayPool
from riwoa.oracle.workers import pool_settings, worker_count
from riwoa.run.preflight import refusals
from riwoa.supernet.spec import SupernetSpec


def config(*settings: str) -> Config:
    return load(None, list(settings), {}).config


def test_workers_are_this_machines_unless_a_cluster_is_named() -> None:
    assert isinstance(make_pool(config(), SupernetSpec(), pool_settings(config().oracle)), WorkerPool)
    clustered = config("oracle.pool=ray")
    assert isinstance(make_pool(clustered, SupernetSpec(), pool_settings(clustered.oracle)), RayPool)


def test_a_cluster_gets_what_a_search_asks_at_once_unless_a_number_is_named() -> None:
    assert worker_count(config("oracle.pool=ray").oracle) == 4
    assert worker_count(config("oracle.pool=ray", "oracle.workers=16").oracle) == 16


def test_an_evaluation_reserves_its_threads_unless_told_otherwise() -> None:
    assert driver_settings(config("oracle.threads=3"), 2).needs == {"CPU": 3.0}
    told = config("ray.cpus=0.5", "ray.gpus=1", 'ray.resources=["board=1", "disk=0.5"]')
    assert driver_settings(told, 2).needs == {"CPU": 0.5, "GPU": 1.0, "board": 1.0, "disk": 0.5}


@pytest.mark.parametrize("text", ["board", "board=x", "=1", "board=-1"])
def test_a_resource_that_is_no_name_and_amount_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"ray\.resources"):
        config(f'ray.resources=["{text}"]')


async def test_without_ray_the_start_is_refused_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else found(name, *more))
    clustered = config("oracle.pool=ray")
    with pytest.raises(ConfigError, match=r'pip install "riwoa\[ray\]"'):
        await make_pool(clustered, SupernetSpec(), pool_settings(clustered.oracle)).start()
    assert any("riwoa[ray]" in line for line in refusals(clustered, tmp_path / "none.json"))
    assert not any("riwoa[ray]" in line for line in refusals(config(), tmp_path / "none.json"))


def test_an_oracle_on_a_gpu_that_reserves_none_is_refused() -> None:
    clustered, spec = config("oracle.pool=ray"), SupernetSpec(device="cuda")
    with pytest.raises(ConfigError, match=r"set ray\.gpus = 1"):
        make_pool(clustered, spec, pool_settings(clustered.oracle))
    make_pool(config("oracle.pool=ray", "ray.gpus=1"), spec, pool_settings(clustered.oracle))


def test_a_node_is_given_the_specification_as_it_is() -> None:
    frame: dict[str, Any] = SupernetSpec(threads=2).to_json()
    assert GivenSpec(frame).to_json() == frame
    assert GivenSpec(frame).threads == 2
