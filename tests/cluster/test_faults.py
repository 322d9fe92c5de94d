"""Nodes, heads and networks fail in the middle of an evaluation; nobody misses a result."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from riwoa.errors import OracleError
from riwoa.ipc.child import child_environment
from riwoa.oracle.kinds import build_oracle
from riwoa.oracle.protocol import EvaluationResult, ModuleSpec
from riwoa.oracle.ray_pool import RayPool
from riwoa.oracle.supernet_oracle import checkpoint_path
from riwoa.supernet.space import mobilenet_space
from riwoa.supernet.spec import SupernetSpec
from riwoa_storage.events import EvaluationAnsweredTwice, EvaluationAskedAgain, Event
from riwoa_storage.replay import compare, verify
from tests.cluster.conftest import a_pool
from tests.run.test_table_run import life, table_settings, write_table
from tests.service.test_service import SMALL, command, state, status, table, wait_for, whole
from tests.support.picture_files import picture_folder
from tests.support.ray_nodes import RayCluster

__all__ = ["state", "table", "whole"]  # fixtures
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
MakeCluster = Callable[..., RayCluster]


async def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    for _ in iter(condition, True):
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.05)


async def sleepers(pool: RayPool, count: int, seconds: float) -> list[asyncio.Future[EvaluationResult]]:
    return [await pool.submit(f"sleeper {i}", {"do": "sleep", "seconds": seconds}) for i in range(count)]


def busy_on(pool: RayPool, node: str) -> bool:
    return any(w.state == "busy" and w.node == node for w in pool.stats().workers)


async def test_a_node_that_dies_costs_its_evaluations_a_second_try_and_nothing_else(own_cluster: MakeCluster) -> None:
    cluster = own_cluster(one=2, two=2)
    async with a_pool(cluster, straggler_quantile=0.0) as pool:
        await until(lambda: len({w.node for w in pool.stats().workers if w.state == "idle"}) == 2)
        futures = await sleepers(pool, 8, 1.0)
        await until(lambda: busy_on(pool, "two"))
        cluster.kill("two")
        results = [await future for future in futures]
        assert [result.status for result in results] == ["ok"] * 8
        assert pool.stats().completed == 8
        await asyncio.sleep(1.5)  # the driver tells twice a second
        stats = pool.stats()
        assert stats.cluster is not None
        # Either the driver saw its node die, or it hung on it and died too; another was then given all the rest.
        assert stats.retried or stats.cluster.drivers > 1
        assert {result.worker for result in results[-2:]} == {"one"}


async def test_idle_workers_of_a_dead_node_cost_no_candidate_its_tries(own_cluster: MakeCluster) -> None:
    cluster = own_cluster(one=1, two=6)
    async with a_pool(cluster, workers=7, straggler_quantile=0.0) as pool:
        await until(lambda: sum(w.state == "idle" for w in pool.stats().workers) == 7)
        cluster.kill("two")
        results = [await future for future in await sleepers(pool, 3, 0.2)]
        assert [(result.status, result.worker) for result in results] == [("ok", "one")] * 3
        assert max(result.attempts for result in results) <= 3


async def test_a_head_that_dies_and_comes_back_costs_no_result(own_cluster: MakeCluster) -> None:
    cluster = own_cluster(one=2)
    async with a_pool(cluster, workers=2) as pool:
        futures = await sleepers(pool, 6, 1.0)
        await until(lambda: busy_on(pool, "one"))
        cluster.close()
        await until(lambda: pool.stats().cluster.lost is not None)  # type: ignore[union-attr]
        done_before = sum(future.done() for future in futures)
        assert done_before < 6
        cluster.start("head", "--num-cpus=0", head=True)
        cluster.node("one", 2)
        assert [(await future).status for future in futures] == ["ok"] * 6
        assert pool.stats().completed == 6


async def test_a_straggler_is_asked_twice_the_first_answer_wins_and_both_are_told(
    cluster: RayCluster, tmp_path: Path
) -> None:
    events: list[Event] = []
    async with a_pool(cluster, events=events) as pool:
        await until(lambda: len({w.node for w in pool.stats().workers if w.state == "idle"}) == 2)
        for future in [await pool.submit(f"usual {i}", {}) for i in range(12)]:
            await future
        began_s = time.monotonic()
        slow = await pool.submit("slow", {"do": "lag_once", "marker": str(tmp_path / "lag"), "seconds": 6.0})
        result = await slow
        assert result.status == "ok"
        assert time.monotonic() - began_s < 5.0
        await until(lambda: len(events) == 3)
        assert pool.stats().cluster.asked_twice == 1  # type: ignore[union-attr]
    asked, first, second = events
    assert isinstance(asked, EvaluationAskedAgain)
    assert isinstance(first, EvaluationAnsweredTwice)
    assert isinstance(second, EvaluationAnsweredTwice)
    assert asked.job == first.job == second.job == "slow"
    assert asked.node != asked.again_on
    assert (first.first, first.node) == (True, asked.again_on)
    assert (second.first, second.node) == (False, asked.node)
    assert second.duration_s > 5.0
    assert result.worker == asked.again_on


async def test_a_driver_that_is_killed_or_stopped_is_replaced(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riwoa.oracle.ray_pool._SILENT_S", 4.0)
    async with a_pool(cluster, workers=2) as pool:
        for number in (signal.SIGKILL, signal.SIGSTOP):
            futures = await sleepers(pool, 4, 0.5)
            assert pool._driver is not None
            os.kill(pool._driver.pid, number)
            assert [(await future).status for future in futures] == ["ok"] * 4
        assert pool.stats().cluster.drivers == 3  # type: ignore[union-attr]


async def test_nodes_with_another_oracle_version_are_not_mixed_unless_told(cluster: RayCluster) -> None:
    spec = ModuleSpec(factory="pool_oracles:different_versions")
    async with a_pool(cluster, workers=4, spec=spec) as pool:
        await until(lambda: sum(w.says is not None for w in pool.stats().workers) >= 1)
        results = [await future for future in [await pool.submit(f"{i}", {}) for i in range(12)]]
        assert len({result.metrics["pid"] for result in results}) == 1
        stats = pool.stats()
        assert stats.cluster is not None
        refused = [node.refused for node in stats.cluster.nodes if node.refused]
        assert refused
        assert "its oracle version is" in refused[0]
        assert "set ray.mixed = true" in refused[0]
    async with a_pool(cluster, workers=4, spec=spec, mixed=True) as pool:
        await until(lambda: all(w.state == "idle" for w in pool.stats().workers))
        results = [await future for future in await sleepers(pool, 12, 0.2)]
        assert len({result.worker for result in results}) == 2


async def test_nodes_with_other_libraries_are_named_and_left_out(own_cluster: MakeCluster, tmp_path: Path) -> None:
    other = tmp_path / "other" / "numpy-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    cluster = own_cluster()
    cluster.start("odd", "--num-cpus=2", path=other.parent)
    cluster.started("odd")
    with pytest.raises(OracleError, match=r"no node of the cluster can be used: odd: it has numpy 0\.0\.1, this"):
        await a_pool(cluster, workers=2).start()
    cluster.node("one", 2)
    cluster.started("one")
    async with a_pool(cluster, workers=2) as pool:
        assert {(await (await pool.submit(f"{i}", {}))).worker for i in range(8)} == {"one"}
        await until(lambda: all(w.state == "idle" for w in pool.stats().workers))
        assert {w.node for w in pool.stats().workers} == {"one"}
    async with a_pool(cluster, workers=4, mixed=True) as pool:
        await until(lambda: {w.node for w in pool.stats().workers if w.state == "idle"} == {"one", "odd"})


async def test_another_token_is_no_way_in(cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("1" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(
        OracleError, match=r"does not let this machine in; .* copy ~/\.ray/auth_token from its head"
    ) as failed:
        await a_pool(cluster).start()
    assert "\n" not in str(failed.value)


async def test_an_oracle_that_cannot_be_made_ends_the_start_with_its_own_error(cluster: RayCluster) -> None:
    with pytest.raises(OracleError, match="gone") as failed:
        await a_pool(cluster, spec=ModuleSpec(factory="pool_oracles:gone")).start()
    assert "\n" not in str(failed.value)


def test_a_run_whose_nodes_and_head_die_ends_in_the_local_digest(
    own_cluster: MakeCluster, state: Path, whole: Path, tmp_path: Path
) -> None:
    """The embedded supernet; ``whole`` is the same run on this machine's own workers."""
    cluster = own_cluster(one=1, two=1)
    more = ("oracle.pool=ray", "oracle.workers=2", f"ray.address={cluster.address}", f"ray.cache={tmp_path / 'cache'}")
    settings = (*(s for s in SMALL if not s.startswith("oracle.workers")), *more)
    process = subprocess.Popen(
        command(state, settings=settings), env=child_environment(1), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        wait_for(state, lambda seen: (seen.get("evaluations") or {}).get("unique", 0) >= 2)
        cluster.kill("two")
        wait_for(state, lambda seen: (seen.get("evaluations") or {}).get("unique", 0) >= 8)
        cluster.close()
        time.sleep(2.0)
        cluster.start("head", "--num-cpus=0", head=True)
        cluster.node("one", 2)
        assert process.wait(timeout=240) == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        _, said = process.communicate()
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, (found.message, said)
    assert verify(state / "journal.db").ok
    assert status(state)["state"] == "finished"


async def test_weights_and_pictures_reach_nodes_that_lack_them_and_are_judged_there_as_here(
    cluster: RayCluster, tmp_path: Path
) -> None:
    folder = picture_folder(tmp_path / "pictures", 10, 12, 6)
    weights = tmp_path / "mine.safetensors"
    shutil.copy(checkpoint_path(SupernetSpec()), weights)
    spec = SupernetSpec(checkpoint=str(weights), data=str(folder), resolutions=(24,), recalibration_images=60)
    here = build_oracle(spec.to_json())
    architecture = {gene.name: gene.choices[0] for gene in mobilenet_space((24,)).genes}
    cache = tmp_path / "cache"
    async with a_pool(cluster, workers=2, spec=spec, cache=str(cache), straggler_quantile=0.0) as pool:
        info = await pool.start()
        await until(lambda: all(w.state == "idle" for w in pool.stats().workers))
        shutil.rmtree(folder)  # what is there is enough
        weights.unlink()
        results = [await future for future in [await pool.submit(f"{i}", architecture) for i in range(4)]]
    assert info.version == here.version
    assert [dict(result.metrics) for result in results] == [dict(here.evaluate(architecture))] * 4
    assert sorted(file.name for file in cache.glob("*/*")) == ["mine.safetensors", "pictures"]
    assert len(list(cache.glob("*/pictures/*/*/*.png"))) == 180


def test_a_run_goes_from_this_machine_to_a_cluster_and_back_and_ends_in_the_same_digest(
    cluster: RayCluster, tmp_path: Path
) -> None:
    settings = table_settings(write_table(tmp_path))
    clustered = (*settings, "oracle.pool=ray", "oracle.workers=2", f"ray.address={cluster.address}")
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    assert life(whole, settings, "") == 0
    assert life(moved, settings, "journal.after_commit:2") == -signal.SIGKILL
    assert life(moved, clustered, "journal.before_commit:2") == -signal.SIGKILL
    assert life(moved, clustered, "conductor.evaluated:1") == -signal.SIGKILL
    assert life(moved, settings, "") == 0
    found = compare(whole / "journal.db", moved / "journal.db")
    assert found.same, found.message


# -- a partition -------------------------------------------------------------------------------------------------------

SPACE = "riwoa-ray"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def apart() -> Iterator[str]:
    """A network namespace with an address of its own, 10.213.7.2; this machine is 10.213.7.1 there."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("a network namespace needs root and Debian's iproute2")
    try:
        ip("netns", "add", SPACE)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace to be had: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", "riwoa0", "type", "veth", "peer", "name", "riwoa1", "netns", SPACE)
        ip("addr", "add", "10.213.7.1/24", "dev", "riwoa0")
        ip("link", "set", "riwoa0", "up")
        ip("-n", SPACE, "addr", "add", "10.213.7.2/24", "dev", "riwoa1")
        ip("-n", SPACE, "link", "set", "riwoa1", "up")
        ip("-n", SPACE, "link", "set", "lo", "up")
        yield SPACE
    finally:
        with suppress(subprocess.CalledProcessError):
            ip("netns", "delete", SPACE)


async def test_a_node_behind_a_broken_network_costs_only_its_evaluations(
    own_cluster: MakeCluster, apart: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"period_ms": "1000", "timeout_ms": "1000", "failure_threshold": "3"}.items():
        monkeypatch.setenv(f"RAY_health_check_{name}", value)
    cluster = own_cluster()
    cluster.close()
    cluster.address = f"10.213.7.1:{cluster.port}"
    cluster.start("head", "--num-cpus=1", "--node-ip-address=10.213.7.1", head=True)
    cluster.node("far", 1, "--node-ip-address=10.213.7.2", within=("ip", "netns", "exec", apart))
    cluster.started("far")
    async with a_pool(cluster, workers=2, straggler_quantile=0.0) as pool:
        await until(lambda: len({w.node for w in pool.stats().workers if w.state == "idle"}) == 2)
        futures = await sleepers(pool, 6, 2.0)
        await until(lambda: busy_on(pool, "far"))
        ip("link", "set", "riwoa0", "down")
        results = [await future for future in futures]
        assert [result.status for result in results] == ["ok"] * 6
        assert pool.stats().retried >= 1
        ip("link", "set", "riwoa0", "up")
        assert {(await (await pool.submit(f"after {i}", {}))).status for i in range(3)} == {"ok"}
