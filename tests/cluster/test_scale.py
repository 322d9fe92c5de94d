"""How fast a cluster is: against this machine's own pool, from 1 to 16 workers, and where one conductor ends.

`make test-cluster ARGS="-s -k scale"` prints the numbers of the results page.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from riwoa.ipc.process import ChildProcess
from riwoa.oracle.pool import PoolSettings, WorkerPool
from riwoa.oracle.protocol import ModuleSpec, Pool
from riwoa.oracle.ray_pool import RayPool
from tests.cluster.conftest import a_pool
from tests.support.ray_nodes import SUPPORT, RayCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
SCRIPTED = ModuleSpec(factory="pool_oracles:scripted")


async def rate_of(pool: Pool, workers: int, count: int, seconds: float) -> tuple[float, float]:
    """Evaluations a second, kept as many as there are workers under way; milliseconds of this process for each."""
    stats = pool.stats  # all ready, or a start would be measured
    for _ in range(3000):
        if sum(w.state == "idle" for w in stats().workers) == workers:
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError(stats())
    next_one = iter(range(count))

    async def one_after_the_other() -> None:
        for i in next_one:
            result = await (await pool.submit(f"{count} {seconds} {i}", {"do": "sleep", "seconds": seconds}))
            assert result.status == "ok"

    began_s, cpu_s = time.monotonic(), time.process_time()
    await asyncio.gather(*(one_after_the_other() for _ in range(workers)))
    return count / (time.monotonic() - began_s), 1000 * (time.process_time() - cpu_s) / count


def cpu_s(pool: RayPool) -> float:
    assert pool._driver is not None
    times = psutil.Process(pool._driver.pid).cpu_times()
    return float(times.user + times.system)


async def test_scale_from_one_to_sixteen_workers(own_cluster: Callable[..., RayCluster]) -> None:
    cluster, found = own_cluster(one=8, two=8), {}
    for workers in (1, 4, 16):
        async with a_pool(cluster, workers, limits={"start_timeout_s": 300.0}, straggler_quantile=0.0) as pool:
            await rate_of(pool, workers, workers, 0.01)  # imports of the first evaluation
            before_s = cpu_s(pool)
            per_s, ms = await rate_of(pool, workers, 12 * workers, 1.0)
            driver_ms = 1000 * (cpu_s(pool) - before_s) / (12 * workers)
            found[workers] = per_s / workers
            print(f"\n{workers} workers, 1 s: {per_s:.2f} a second, {ms:.2f} ms conductor, {driver_ms:.2f} ms driver")
            assert ms <= 2.0
    assert found[16] >= 0.9 * found[1], found


async def test_scale_on_one_machine_is_that_of_its_own_pool(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with WorkerPool(SCRIPTED, PoolSettings(workers=4)) as pool:
        here, _ = await rate_of(pool, 4, 48, 0.5)
    async with a_pool(cluster, 4) as on_cluster:
        there, _ = await rate_of(on_cluster, 4, 48, 0.5)
    print(f"\n4 workers, 0.5 s: {here:.2f} a second here, {there:.2f} by Ray, {there / here:.3f}")
    assert there >= 0.9 * here


async def test_scale_of_calls_that_take_no_time(cluster: RayCluster) -> None:
    async with a_pool(cluster, 4, straggler_quantile=0.0) as pool:
        await rate_of(pool, 4, 200, 0.0)
        before_s = cpu_s(pool)
        per_s, ms = await rate_of(pool, 4, 2000, 0.0)
        driver_ms = 1000 * (cpu_s(pool) - before_s) / 2000
    print(f"\n4 workers, 0 s: {per_s:.0f} a second, {ms:.2f} ms conductor, {driver_ms:.2f} ms driver")
    assert ms <= 2.0


async def test_scale_to_a_thousand_simulated_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("riwoa.oracle.ray_pool._DRIVER", "simulated_driver")
    monkeypatch.setenv("PYTHONPATH", f"{SUPPORT}{os.pathsep}{SUPPORT.parent.parent}")
    cluster = RayCluster(tmp_path)
    for workers, seconds in ((16, 1.0), (1000, 10.0), (1000, 2.0), (1000, 0.1)):
        async with a_pool(cluster, workers, ship=False, straggler_quantile=0.0, limits={}) as pool:
            assert isinstance(pool._driver, ChildProcess)
            await rate_of(pool, workers, workers, 0.1)
            before_s, count = cpu_s(pool), max(3, int(2 / seconds)) * workers
            per_s, ms = await rate_of(pool, workers, count, seconds)
            driver_ms = 1000 * (cpu_s(pool) - before_s) / count
            ideal = workers / seconds
            print(
                f"\n{workers} simulated, {seconds:g} s: {per_s:.0f} of {ideal:.0f} a second, {ms:.2f} ms conductor, "
                f"{driver_ms:.2f} ms driver"
            )
            if seconds >= 10.0:
                assert per_s >= 0.9 * ideal
                assert ms <= 2.0
