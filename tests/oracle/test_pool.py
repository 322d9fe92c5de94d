"""Workers die, hang, leak, babble and fail to start; candidates and the conductor never notice more than they must."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riwoa.errors import InputError, OracleError
from riwoa.ipc.child import child_environment
from riwoa.oracle.pool import PoolSettings, WorkerPool
from riwoa.oracle.protocol import EvaluationBackend, EvaluationResult, ModuleSpec
from riwoa.supernet.spec import SupernetSpec

SUPPORT = Path(__file__).resolve().parent.parent / "support"


@pytest.fixture(autouse=True)
def _test_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_ORACLES", "1")


def scripted(**arguments: Any) -> ModuleSpec:
    return ModuleSpec(factory="pool_oracles:scripted", arguments=arguments)


def a_pool(
    spec: ModuleSpec | None = None, *, log: Callable[[int, str], None] | None = None, **settings: Any
) -> WorkerPool:
    values = {"backoff_s": 0.01, "poll_s": 0.05, "start_timeout_s": 20.0, "evaluation_timeout_s": 20.0, **settings}
    return WorkerPool(spec or scripted(), PoolSettings(**values), log)


async def evaluate(pool: WorkerPool, job_id: str, **architecture: Any) -> EvaluationResult:
    return await (await pool.submit(job_id, architecture))


async def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    for _ in iter(condition, True):
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    """A zombie that nobody has reaped yet is not running."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_results_come_back_to_whoever_submitted_them() -> None:
    async with a_pool(workers=2) as pool:
        results = await asyncio.gather(*(evaluate(pool, f"j{i}", accuracy=i / 100) for i in range(40)))
        assert [r.metrics["accuracy"] for r in results] == [i / 100 for i in range(40)]
        assert {r.status for r in results} == {"ok"}
        stats = pool.stats()
        assert (stats.completed, stats.failed, stats.retried, stats.queued) == (40, 0, 0, 0)
        assert sum(w.evaluations for w in stats.workers) == 40


async def test_the_oracle_introduces_itself_and_threads_are_held() -> None:
    pool: EvaluationBackend = WorkerPool(ModuleSpec(factory="pool_oracles:scripted", threads=3))
    info = await pool.start()
    assert (info.version, info.threads) == ("scripted-1", 3)
    assert info.load_s < 20
    result = await (await pool.submit("a", {"do": "threads"}))
    assert result.metrics["omp"] == 3
    await pool.close()


async def test_the_queue_is_bounded_and_submitting_waits() -> None:
    async with a_pool(queue_size=2) as pool:
        futures = [await pool.submit("busy", {"do": "sleep", "seconds": 0.5})]
        await until(lambda: pool.stats().workers[0].state == "busy")
        futures += [await pool.submit(f"j{i}", {}) for i in range(2)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.submit("late", {}), 0.1)
        assert pool.stats().queued == 2
        futures.append(await pool.submit("later", {}))
        assert {r.status for r in await asyncio.gather(*futures)} == {"ok"}


async def test_a_job_id_may_be_pending_only_once() -> None:
    async with a_pool() as pool:
        first = await pool.submit("a", {"do": "sleep", "seconds": 0.2})
        with pytest.raises(ValueError, match="already pending"):
            await pool.submit("a", {})
        assert (await first).status == "ok"
        assert (await evaluate(pool, "a")).status == "ok"


async def test_an_architecture_without_a_json_form_is_refused_and_harms_nobody() -> None:
    async with a_pool() as pool:
        for bad in (float("nan"), object()):
            with pytest.raises((ValueError, TypeError), match="JSON"):
                await pool.submit("a", {"kernel": bad})
        assert (await evaluate(pool, "a")).status == "ok"


async def test_a_worker_that_dies_is_replaced_and_its_candidate_tried_once_more(tmp_path: Path) -> None:
    async with a_pool() as pool:
        before = (await evaluate(pool, "a")).metrics["pid"]
        result = await evaluate(pool, "b", do="die_once", marker=str(tmp_path / "died"))
        assert (result.status, result.attempts) == ("ok", 2)
        assert result.metrics["pid"] != before
        stats = pool.stats()
        assert (stats.retried, stats.failed, stats.workers[0].restarts) == (1, 0, 1)


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("die", "worker died: signal 9"),
        ("leave", "worker died: exit status 3"),
        ("mute", "worker died: it closed its output"),
        ("sleep", "timeout"),
        ("leak", "memory"),
    ],
)
async def test_a_candidate_that_takes_two_workers_down_fails_with_the_reason(do: str, reason: str) -> None:
    limits = {"evaluation_timeout_s": 0.4} if do == "sleep" else {"memory_limit_bytes": 200 * 2**20}
    async with a_pool(**limits) as pool:
        result = await evaluate(pool, "bad", do=do, seconds=60)
        assert (result.status, result.reason, result.attempts) == ("failed", reason, 2)
        assert (await evaluate(pool, "good")).status == "ok"
        assert pool.stats().retried == 1


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("raise", "error: RuntimeError: no such layer second line"),
        ("nan", "error: ValueError: accuracy is not a finite number (nan)"),
    ],
)
async def test_an_error_of_the_candidate_is_reported_without_retry_and_the_worker_lives(do: str, reason: str) -> None:
    async with a_pool() as pool:
        before = (await evaluate(pool, "a")).metrics["pid"]
        result = await evaluate(pool, "b", do=do)
        assert (result.status, result.reason, result.attempts) == ("failed", reason, 1)
        assert (await evaluate(pool, "c")).metrics["pid"] == before


async def test_stray_output_corrupts_no_frame_and_log_lines_are_bounded() -> None:
    lines: list[str] = []
    async with a_pool(log=lambda _, line: lines.append(line)) as pool:
        assert (await evaluate(pool, "a", do="print")).status == "ok"
        assert (await evaluate(pool, "b")).status == "ok"
    assert any("forged" in line for line in lines)
    assert max(map(len, lines)) <= 500


async def test_a_worker_that_keeps_too_much_is_replaced_after_it_has_answered() -> None:
    async with a_pool(memory_limit_bytes=200 * 2**20, poll_s=5.0) as pool:
        first = await evaluate(pool, "a", do="keep")
        second = await evaluate(pool, "b")
        assert (first.status, second.status) == ("ok", "ok")
        assert first.metrics["pid"] != second.metrics["pid"]


async def test_an_idle_worker_that_is_killed_is_replaced_and_costs_no_candidate_an_attempt() -> None:
    async with a_pool() as pool:
        pid = pool.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pool.stats().workers[0].pid not in (None, pid) and pool.stats().workers[0].state == "idle")
        assert (await evaluate(pool, "a")).attempts == 1


async def test_cancelling_frees_the_worker_at_once() -> None:
    async with a_pool() as pool:
        running = await pool.submit("running", {"do": "sleep", "seconds": 60})
        queued = await pool.submit("queued", {})
        await until(lambda: pool.stats().workers[0].job_id == "running")
        assert pool.cancel("queued")
        assert pool.cancel("running")
        assert not pool.cancel("unknown")
        assert [(await f).status for f in (running, queued)] == ["cancelled", "cancelled"]
        assert (await evaluate(pool, "next")).status == "ok"
        assert pool.stats().retried == 0


async def test_a_caller_that_is_cancelled_while_waiting_cancels_its_job() -> None:
    async with a_pool() as pool:
        waiting = asyncio.create_task(evaluate(pool, "a", do="sleep", seconds=60))
        await until(lambda: pool.stats().workers[0].state == "busy")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await asyncio.wait_for(evaluate(pool, "b"), 15)).status == "ok"


async def test_the_state_of_each_worker_is_visible() -> None:
    async with a_pool() as pool:
        job = await pool.submit("a", {"do": "sleep", "seconds": 0.4})
        await until(lambda: pool.stats().workers[0].state == "busy")
        await asyncio.sleep(0.2)
        busy = pool.stats().workers[0]
        assert (busy.job_id, busy.slot, busy.evaluations) == ("a", 0, 0)
        assert 0.15 < busy.since_s < 0.5
        assert 0 < busy.busy_share < 1
        assert busy.pid is not None
        assert is_running(busy.pid)
        await job
        await until(lambda: pool.stats().workers[0].state == "idle")
        idle = pool.stats().workers[0]
        assert (idle.job_id, idle.evaluations, idle.restarts) == (None, 1, 0)


async def test_closing_ends_the_workers_and_cancels_what_is_pending() -> None:
    pool = a_pool(workers=2)
    await pool.start()
    jobs = [await pool.submit(str(i), {"do": "sleep", "seconds": 60}) for i in range(5)]
    await until(lambda: all(w.state == "busy" for w in pool.stats().workers))
    pids = [w.pid for w in pool.stats().workers]
    start = time.monotonic()
    await pool.close()
    await pool.close()
    assert time.monotonic() - start < 5
    assert {(await j).status for j in jobs} == {"cancelled"}
    assert not any(is_running(pid) for pid in pids if pid is not None)
    with pytest.raises(OracleError, match="closed"):
        await pool.submit("x", {})


async def test_what_a_worker_cannot_start_for_is_raised_with_its_class_and_message() -> None:
    pool = a_pool(ModuleSpec(factory="pool_oracles:bad_checkpoint"))
    with pytest.raises(InputError, match=r"checkpoint /x.pth is truncated; download it again") as caught:
        await pool.start()
    assert caught.value.exit_code == InputError.exit_code
    with pytest.raises(InputError):
        await pool.submit("a", {})
    await pool.close()


async def test_workers_that_crash_at_start_are_tried_with_pauses_and_then_given_up(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    pool = a_pool(ModuleSpec(factory="pool_oracles:crash_at_start", arguments={"log": str(log)}), backoff_s=0.3)
    with pytest.raises(OracleError, match=r"did not start in 3 attempts \(worker died: exit status 1\).*libgomp"):
        await pool.start()
    await pool.close()
    starts = [float(line) for line in log.read_text().split()]
    assert len(starts) == 3
    assert starts[1] - starts[0] > 0.3
    assert starts[2] - starts[1] > 0.6


async def test_a_worker_that_crashes_at_start_now_and_then_is_not_given_up(tmp_path: Path) -> None:
    spec = ModuleSpec(factory="pool_oracles:crash_at_start_twice", arguments={"log": str(tmp_path / "starts")})
    async with a_pool(spec) as pool:
        assert (await evaluate(pool, "a")).status == "ok"


async def test_a_worker_that_a_signal_stops_while_it_starts_is_replaced_long_before_the_start_is_late(
    tmp_path: Path,
) -> None:
    starts = tmp_path / "starts"
    spec = ModuleSpec(factory="pool_oracles:slow_to_start_once", arguments={"log": str(starts)})
    pool = a_pool(spec, start_timeout_s=60.0, stopped_s=0.5)
    starting = asyncio.create_task(pool.start())
    await until(starts.exists)
    pid = pool.stats().workers[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(20):
        await starting
    assert not is_running(pid)
    assert (await evaluate(pool, "a")).status == "ok"
    await pool.close()


async def test_a_worker_that_a_signal_stops_for_a_moment_is_let_be() -> None:
    async with a_pool(stopped_s=5.0) as pool:
        job = asyncio.create_task(evaluate(pool, "a", do="sleep", seconds=0.5))
        await until(lambda: pool.stats().workers[0].state == "busy")
        pid = pool.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(1.0)
        os.kill(pid, signal.SIGCONT)
        result = await job
        assert (result.status, result.attempts, pool.stats().workers[0].pid) == ("ok", 1, pid)


async def test_a_worker_that_a_signal_stops_while_it_evaluates_is_replaced_and_its_candidate_tried_once_more(
    tmp_path: Path,
) -> None:
    async with a_pool(stopped_s=0.5) as pool:
        job = asyncio.create_task(evaluate(pool, "a", do="sleep", seconds=1.0))
        await until(lambda: pool.stats().workers[0].state == "busy")
        pid = pool.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(15):
            result = await job
        assert (result.status, result.attempts) == ("ok", 2)


async def test_a_worker_that_is_never_ready_is_given_up() -> None:
    pool = a_pool(ModuleSpec(factory="pool_oracles:never_ready"), start_timeout_s=0.5, start_attempts=2)
    with pytest.raises(OracleError, match=r"did not start in 2 attempts \(start timeout\)"):
        await pool.start()
    await pool.close()


async def test_jobs_that_wait_when_the_oracle_becomes_unusable_get_the_error() -> None:
    pool = a_pool(ModuleSpec(factory="pool_oracles:different_versions"), queue_size=1)
    await pool.start()
    await until(lambda: pool.stats().workers[0].state == "idle")
    waiting = [asyncio.create_task(evaluate(pool, str(i), do="die")) for i in range(4)]
    for outcome in await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20):
        assert isinstance(outcome, OracleError)
        assert "oracle version" in str(outcome)
    await pool.close()


async def test_test_oracles_are_refused_outside_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIWOA_TEST_ORACLES")
    pool = a_pool()
    with pytest.raises(OracleError, match="no oracle of kind 'module'"):
        await pool.start()
    await pool.close()


async def test_a_missing_checkpoint_is_an_input_error(tmp_path: Path) -> None:
    pool = WorkerPool(SupernetSpec(checkpoint=str(tmp_path / "none.safetensors")))
    with pytest.raises(InputError, match=r"none\.safetensors"):
        await pool.start()
    await pool.close()


PARENT = """
import asyncio, sys
from riwoa.oracle.pool import WorkerPool, PoolSettings
from riwoa.oracle.protocol import ModuleSpec

async def main():
    pool = WorkerPool(ModuleSpec(factory="pool_oracles:scripted"), PoolSettings(workers=2))
    await pool.start()
    for i in range(2):
        await pool.submit(str(i), {"do": "sleep", "seconds": 60})
    while any(w.state != "busy" for w in pool.stats().workers):
        await asyncio.sleep(0.01)
    print(*(w.pid for w in pool.stats().workers), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_busy_workers_die_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=child_environment(1))
    assert parent.stdout is not None
    pids = [int(p) for p in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(is_running(p) for p in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 5
    while any(is_running(p) for p in pids):
        assert time.monotonic() < end, "an orphan lives"
        time.sleep(0.02)


def test_the_pool_needs_no_torch() -> None:
    code = "import sys, riwoa.oracle.pool as p; sys.exit(bool({'torch', 'ofa', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=child_environment(1)).returncode == 0
