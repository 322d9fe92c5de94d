"""What of a cluster the suite shows wherever Ray is installed; the rest is in test_faults.py and test_scale.py."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.errors import OracleError
from riwoa.oracle.pool import PoolSettings, WorkerPool
from riwoa.oracle.protocol import EvaluationResult, ModuleSpec, Pool
from riwoa_storage.replay import compare
from tests.cluster.conftest import a_pool
from tests.run.test_table_run import table_settings
from tests.service.test_service import ctl, run
from tests.support.ray_nodes import RayCluster, free_port

pytestmark = pytest.mark.timeout(300)


async def answers(pool: Pool, tmp_path: Path) -> list[EvaluationResult]:
    """How a pool ends candidates of all kinds, but for who did it and how long it took."""
    jobs: dict[str, dict[str, Any]] = {
        "fine": {"accuracy": 0.25},
        "own error": {"do": "raise"},
        "not finite": {"do": "nan"},
        "dies": {"do": "die"},
        "dies once": {"do": "die_once", "marker": str(tmp_path / "died")},
        "late": {"do": "sleep", "seconds": 60},
        "threads": {"do": "threads"},
    }
    futures = [await pool.submit(name, architecture) for name, architecture in jobs.items()]
    futures += [await pool.submit("judged", {"right": 7}, judging=True), await pool.submit("rung", {}, "cheap")]
    return [await future for future in futures]


def told(result: EvaluationResult) -> tuple[object, ...]:
    metrics = {name: value for name, value in result.metrics.items() if name != "pid"}
    return result.job_id, result.status, metrics, result.reason, result.attempts, result.correct


async def test_candidates_end_on_a_cluster_as_they_end_here(cluster: RayCluster, tmp_path: Path) -> None:
    timeout_s = 3.0
    (tmp_path / "here").mkdir()
    settings = PoolSettings(workers=1, backoff_s=0.01, evaluation_timeout_s=timeout_s)
    async with WorkerPool(ModuleSpec(factory="pool_oracles:scripted"), settings) as pool:
        here = await answers(pool, tmp_path / "here")
    async with a_pool(cluster, limits={"evaluation_timeout_s": timeout_s}) as on_cluster:
        there = await answers(on_cluster, tmp_path)
        with pytest.raises(ValueError, match="already pending"):
            await asyncio.gather(on_cluster.submit("twice", {}), on_cluster.submit("twice", {}))
        slow = await on_cluster.submit("given up", {"do": "sleep", "seconds": 60})
        await asyncio.sleep(0.5)
        assert on_cluster.cancel("given up")
        assert (await slow).status == "cancelled"
        # A worker that was busy with it is free again for what comes next.
        assert {(await (await on_cluster.submit(f"after {i}", {}))).status for i in range(4)} == {"ok"}
        on_cluster.hold(True)
        held = await on_cluster.submit("held", {})
        await asyncio.sleep(1.0)
        assert not held.done()
        assert on_cluster.stats().queued == 1
        on_cluster.hold(False)
        assert (await held).worker in ("one", "two")
        stats = on_cluster.stats()
    assert [told(result) for result in there] == [told(result) for result in here]
    assert stats.cluster is not None
    assert {node.name: node.workers for node in stats.cluster.nodes} == {"head": 0, "one": 2, "two": 2}
    assert {worker.node for worker in stats.workers} == {"one", "two"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    ops = np.array(list(itertools.product(range(5), repeat=4)), dtype=np.uint8)
    np.savez(tmp_path / "cells.npz", ops=ops, acc=50.0 + 2 * ops.sum(axis=1) + np.cos(np.arange(625.0)))
    return tmp_path / "cells.npz"


def test_a_daemon_on_a_cluster_ends_in_the_local_digest_and_sends_its_table_once(
    cluster: RayCluster, tmp_path: Path, table: Path
) -> None:
    settings = table_settings(table)
    done = run(tmp_path / "local", settings=settings)
    assert done.returncode == 0, done.stderr
    clustered = (*settings, "oracle.pool=ray", f"ray.address={cluster.address}", "oracle.workers=3")
    cache = tmp_path / "nodes"
    done = run(tmp_path / "ray", settings=(*clustered, f"ray.cache={cache}"))
    assert done.returncode == 0, done.stderr
    found = compare(tmp_path / "local" / "journal.db", tmp_path / "ray" / "journal.db")
    assert found.same, found.message
    assert len(list(cache.iterdir())) == 1
    assert [file.name for file in cache.rglob("*.npz")] == ["cells.npz"]
    with closing(sqlite3.connect(tmp_path / "ray" / "journal.db")) as db:
        nodes = {node for (node,) in db.execute("SELECT DISTINCT worker FROM evaluations")}
    assert nodes
    assert nodes <= {"one", "two"}
    report = json.loads(ctl(tmp_path / "ray", "report", "--json").stdout)
    assert {node["node"] for node in report["nodes"]} == nodes
    assert json.loads(ctl(tmp_path / "local", "report", "--json").stdout)["nodes"] == []
    status = json.loads(ctl(tmp_path / "ray", "status", "--json").stdout)
    assert status["cluster"] is None  # it is done with


def test_the_doctor_tells_what_a_cluster_is_and_what_it_lacks(cluster: RayCluster, tmp_path: Path) -> None:
    sets = ["--set", "oracle.pool=ray", "--set", f"ray.address={cluster.address}", "--set", "oracle.workers=4"]
    done = ctl(tmp_path, "doctor", "--cluster", "--json", *sets)
    checks = {row["check"]: row for row in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0, done.stdout
    assert {row["level"] for row in checks.values()} == {"ok"}, done.stdout
    assert "one evaluation reserves 1 CPU; room for 4 at once" in checks["resources"]["says"]
    assert {"node head", "node one", "node two"} <= set(checks)
    done = ctl(tmp_path, "doctor", "--cluster", *sets, "--set", "ray.cpus=64", "--set", 'ray.resources=["board=1"]')
    assert done.returncode == 4
    assert "lacks 64 CPU (it has" in " ".join(done.stdout.split())


async def test_not_enough_resources_and_no_cluster_are_refused_in_one_line(cluster: RayCluster) -> None:
    with pytest.raises(OracleError, match=r"no node of the cluster has room for one evaluation: \w+ lacks 64 CPU"):
        await a_pool(cluster, cpus=64.0).start()
    cluster_gone = RayCluster(cluster.home)
    cluster_gone.address = f"127.0.0.1:{free_port()}"
    with pytest.raises(OracleError, match="no Ray cluster answers at") as failed:
        await a_pool(cluster_gone).start()
    assert "\n" not in str(failed.value)
