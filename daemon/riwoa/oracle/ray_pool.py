"""A Ray cluster as an ``EvaluationBackend``: the daemon's side, which keeps the jobs. asyncio, no Ray.

Ray lives in a child process, the driver (``riwoa.oracle.ray_driver``). Where it dies, hangs or loses its cluster,
another is started, and is given every job that has no answer yet: a job is evaluated at least once, and its first
answer counts. What a job's result is does not depend on who computed it; who did is told beside it.

Frames to the driver: ``{"address", "spec", "settings", "limits"}`` once, then ``{"submit": {"id", "architecture",
...}}``, ``{"cancel": id}``, ``{"hold": bool}``, ``{"limits": ...}``. From it: ``{"ready": ...}`` or ``{"fatal":
error}``, ``{"result": ...}``, ``{"event": ...}``, ``{"stats": ...}`` at least every few seconds.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Literal

from riwoa.errors import ConfigError, OracleError, RiwoaError
from riwoa.ipc.child import child_environment, error_from_json
from riwoa.ipc.frames import encode_frame
from riwoa.ipc.process import ChildProcess, ProcessLostError
from riwoa.log import get_logger
from riwoa.oracle.pool import LogLine, PoolSettings
from riwoa.oracle.protocol import (
    MAX_FRAME_BYTES,
    BackendStats,
    ClusterState,
    EvaluationResult,
    NodeState,
    OracleInfo,
    OracleSpec,
    WorkerState,
)
from riwoa.oracle.ray_nodes import DriverSettings
from riwoa_storage.events import EvaluationAnsweredTwice, EvaluationAskedAgain, Event

OnEvent = Callable[[Event], None]

_log = get_logger("cluster")
_SILENT_S = 30.0  # of a driver that is ready: it tells how it stands every few seconds
_CONNECT_S = 120.0  # for a driver to be connected; beyond what loading an oracle may take
_LOST_S = 180.0  # that a cluster may be away before the search is told
_AGAIN_S = 3.0  # between two attempts to reach it
_DRIVER = "riwoa.oracle.ray_driver"


def require_ray() -> None:
    """Refuse where Ray is not installed; does not import it.

    Raises:
        ConfigError: says how to install it.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError('oracle.pool = "ray" needs Ray, which is not installed: pip install "riwoa[ray]"')


def _environment() -> dict[str, str]:
    """A driver's: it reports to nobody, and shows a token where there is one."""
    token = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    has_token = "RAY_AUTH_TOKEN" in os.environ or os.path.exists(token)
    shown = {"RAY_AUTH_MODE": "token"} if has_token else {}  # as `ray start --head` does of itself
    return {"RAY_USAGE_STATS_ENABLED": "0", **shown, **child_environment(1)}


class RayPool:
    """Workers on the nodes of a Ray cluster: ``async with RayPool(...)``, or start and close.

    Args:
        spec: of the oracle.
        settings: limits, and how many evaluations may be under way.
        driver: how the cluster is asked.
        address: of the cluster's head, or "auto".
        on_log: gets the lines that driver and workers write.
        on_event: gets what is worth journaling: which evaluations were asked twice, and both answers.
        oracle_version: that the run has; nodes with another are not used. None: the first node's.
    """

    def __init__(
        self,
        spec: OracleSpec,
        settings: PoolSettings,
        driver: DriverSettings,
        address: str = "auto",
        on_log: LogLine | None = None,
        on_event: OnEvent | None = None,
        *,
        oracle_version: str | None = None,
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._driver_settings = driver
        self._address = address
        self._on_log = on_log
        self._on_event = on_event
        self._wanted_version = oracle_version
        self._driver: ChildProcess | None = None
        self._connected = False
        self._jobs: dict[str, _Job] = {}
        self._told: dict[str, Any] = {}  # the driver's last stats
        self._serving: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._info: OracleInfo | None = None
        self._error: RiwoaError | None = None
        self._lost: str | None = None
        self._closed = self._held = False
        self._completed = self._failed = self._drivers = 0
        self._earlier = {"retried": 0, "asked_twice": 0}  # by drivers that are gone

    async def __aenter__(self) -> RayPool:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> OracleInfo:
        """Connect; returns when the first worker is ready, the others join as they come.

        Raises:
            ConfigError: Ray is not installed.
            RiwoaError: there is no such cluster, no node that can be used, or no oracle.
        """
        require_ray()
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve(), name="oracle-cluster")
        async with self._changed:
            await self._changed.wait_for(lambda: self._info is not None or self._error is not None)
        if self._error is not None:
            raise self._error
        assert self._info is not None
        return self._info

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None, *, judging: bool = False
    ) -> asyncio.Future[EvaluationResult]:
        """Queue a candidate, waiting while the queue is full; ``await`` the future for its result.

        Raises:
            RiwoaError: the pool has failed, or is closed.
            ValueError: a job of this id is pending, or the architecture has no JSON form.
        """
        how = {"judging": True} if judging else {} if rung is None else {"rung": rung}
        frame = encode_frame({"submit": {"id": job_id, "architecture": architecture, **how}})
        most = self._settings.workers + self._settings.queue_size
        if len(self._jobs) >= most:
            async with self._changed:
                await self._changed.wait_for(lambda: self._unusable() or len(self._jobs) < most)
        if unusable := self._unusable():
            raise unusable
        if job_id in self._jobs:
            raise ValueError(f"job {job_id!r} is already pending")
        job = self._jobs[job_id] = _Job(frame, asyncio.get_running_loop().create_future())
        # Whoever awaits the future may itself be cancelled: the job then has no reader and gives its worker back.
        job.future.add_done_callback(lambda future: self.cancel(job_id) if future.cancelled() else None)
        self._send(frame)
        return job.future

    def cancel(self, job_id: str) -> bool:
        """Give a job up, even while it runs. False when it is not pending."""
        job = self._jobs.get(job_id)
        if job is None or job.cancelled:
            return False
        job.cancelled = True
        self._send(encode_frame({"cancel": job_id}))
        self._finish(job_id, EvaluationResult(job_id, "cancelled", {}, "cancelled", 0, 0.0))
        return True

    def set_limits(self, evaluation_timeout_s: float, memory_limit_bytes: int | None) -> None:
        """Other limits, for the evaluations that begin from now on."""
        limits = {"evaluation_timeout_s": evaluation_timeout_s, "memory_limit_bytes": memory_limit_bytes}
        self._settings = replace(
            self._settings, evaluation_timeout_s=evaluation_timeout_s, memory_limit_bytes=memory_limit_bytes
        )
        self._send(encode_frame({"limits": limits}))

    def hold(self, held: bool) -> None:
        """Begin nothing while held; what is under way ends."""
        self._held = held
        self._send(encode_frame({"hold": held}))

    def stats(self) -> BackendStats:
        """What the driver told last, and what is known here."""
        told = self._told if self._connected else {}
        workers = tuple(_worker(slot, values) for slot, values in enumerate(told.get("workers", ())))
        if not workers:
            nothing = WorkerState(0, None, "starting", None, 0.0, 0, 0, 0.0, says=self._lost)
            workers = tuple(replace(nothing, slot=i) for i in range(self._settings.workers))
        counts = {name: count + told.get(name, 0) for name, count in self._earlier.items()}
        nodes = tuple(NodeState(*values) for values in told.get("nodes", ()))
        cluster = ClusterState(self._address, nodes, counts["asked_twice"], self._drivers, self._lost)
        queued = told.get("queued", 0) if self._connected else len(self._jobs)
        return BackendStats(workers, queued, self._completed, self._failed, counts["retried"], cluster)

    async def close(self) -> None:
        """End the driver, and with it its workers; pending jobs end as "cancelled". Idempotent."""
        self._closed = True
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait({self._serving})
        for job_id in list(self._jobs):
            self._finish(job_id, EvaluationResult(job_id, "cancelled", {}, "the pool was closed", 0, 0.0))
        await self._notify()

    # --- the driver's life ------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        lost_s: float | None = None  # since when there is no cluster
        try:
            while True:
                try:
                    await self._drive()
                except ProcessLostError as lost:
                    self._lost = f"the driver {lost}"
                except OracleError as error:
                    if self._info is None:  # a start that fails, fails: the daemon says so, and tries again
                        raise
                    self._lost = str(error)
                if self._connected:
                    lost_s = None
                self._connected = False
                now_s = time.monotonic()
                lost_s = now_s if lost_s is None else lost_s
                if now_s - lost_s > _LOST_S or (self._info is None and self._drivers >= self._settings.start_attempts):
                    raise OracleError(f"the Ray cluster is lost: {self._lost}")
                _log.warning("cluster_lost", reason=self._lost, jobs=len(self._jobs))
                await asyncio.sleep(_AGAIN_S)
        except RiwoaError as error:
            await self._fail(error)
        except Exception as error:  # a bug here must not leave the conductor waiting for ever
            said = f"{type(error).__name__}: {error}"
            await self._fail(OracleError(f"the cluster's pool failed: {said}; please report it"))

    async def _drive(self) -> None:
        """One driver's life.

        Raises:
            ProcessLostError: it died, or says nothing any more.
            RiwoaError: what it ended for.
        """
        driver = self._driver = await ChildProcess.spawn(
            _DRIVER, _environment(), self._log_line, name="oracle-driver", max_frame_bytes=64 * MAX_FRAME_BYTES
        )
        self._drivers += 1
        try:
            driver.send(encode_frame(self._first_frame()))
            while True:
                silent_s = _SILENT_S if self._connected else _CONNECT_S
                self._take(await driver.receive(silent_s))
                await self._notify()
        finally:
            for name in self._earlier:
                self._earlier[name] += self._told.get(name, 0)
            self._told, self._driver = {}, None
            await driver.stop()

    def _first_frame(self) -> dict[str, Any]:
        s = self._settings
        limits = {
            "evaluation_timeout_s": s.evaluation_timeout_s,
            "memory_limit_bytes": s.memory_limit_bytes,
            "start_timeout_s": s.start_timeout_s,
        }
        version = self._info.version if self._info is not None else self._wanted_version
        return {
            "address": self._address,
            "spec": self._spec.to_json(),
            "settings": {**asdict(self._driver_settings), "workers": s.workers},
            "limits": limits,
            **({"oracle_version": version} if version is not None else {}),
        }

    def _take(self, frame: Mapping[str, Any]) -> None:
        """Act on what the driver says.

        Raises:
            RiwoaError: what it ended for.
        """
        if "result" in frame:
            self._deliver(frame["result"])
        elif "stats" in frame:
            self._told = dict(frame["stats"])
        elif "event" in frame:
            self._told_event(frame["event"])
        elif "ready" in frame:
            self._begin(frame["ready"])
        elif "fatal" in frame:
            raise error_from_json(frame["fatal"])

    def _begin(self, ready: Mapping[str, Any]) -> None:
        """A driver's first worker is ready: it is given all that has no answer."""
        info = OracleInfo(str(ready["oracle_version"]), int(ready["threads"]), float(ready["load_s"]))
        self._info = self._info or info
        self._connected, self._lost = True, None
        if self._held:
            self._send(encode_frame({"hold": True}))
        for job in self._jobs.values():
            self._send(job.frame)

    def _send(self, frame: bytes) -> None:
        if self._driver is not None and self._connected:  # else it is told once it is connected
            self._driver.send(frame)

    def _deliver(self, told: Mapping[str, Any]) -> None:
        fields = {name: told[name] for name in ("job_id", "status", "reason", "attempts", "duration_s")}
        result = EvaluationResult(
            **fields, metrics=told["metrics"], correct=told.get("correct", ""), worker=str(told.get("worker", "?"))
        )
        if result.job_id in self._jobs:  # else somebody answered before, or it was given up
            self._completed += result.status == "ok"
            self._failed += result.status == "failed"
            self._finish(result.job_id, result)

    def _finish(self, job_id: str, result: EvaluationResult) -> None:
        job = self._jobs.pop(job_id)
        if not job.future.done():
            job.future.set_result(result)

    def _told_event(self, told: Mapping[str, Any]) -> None:
        if self._on_event is None:
            return
        fields = {name: value for name, value in told.items() if name != "kind"}
        kinds: dict[str, type[Event]] = {"asked again": EvaluationAskedAgain, "answered": EvaluationAnsweredTwice}
        self._on_event(kinds[told["kind"]](**fields))

    def _log_line(self, line: str) -> None:
        if self._on_log is not None:
            self._on_log(0, line)

    async def _fail(self, error: RiwoaError) -> None:
        """The cluster or the oracle is unusable: everybody who waits is told."""
        self._error = self._error or error
        for job_id in list(self._jobs):
            job = self._jobs.pop(job_id)
            if not job.future.done():
                job.future.set_exception(self._error)
                job.future.exception()  # marks it as seen: the conductor may be waiting for another one
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _unusable(self) -> RiwoaError | None:
        if self._error is not None:
            return self._error
        return OracleError("the worker pool is closed") if self._closed else None


class _Job:
    __slots__ = ("cancelled", "frame", "future")

    def __init__(self, frame: bytes, future: asyncio.Future[EvaluationResult]) -> None:
        self.frame, self.future = frame, future
        self.cancelled = False


def _worker(slot: int, told: list[Any]) -> WorkerState:
    state: Literal["starting", "idle", "busy", "stopped"] = told[1]
    return WorkerState(slot, told[0], state, *told[2:])


async def look_at_cluster(address: str, driver: DriverSettings) -> dict[str, Any]:
    """What the nodes of a cluster are and have (``riwoa.oracle.ray_driver.look``), by a driver that ends with it.

    Raises:
        ConfigError: Ray is not installed.
        RiwoaError: there is no such cluster.
    """
    require_ray()
    process = await ChildProcess.spawn(
        _DRIVER, _environment(), lambda line: None, name="ray-look", max_frame_bytes=64 * MAX_FRAME_BYTES
    )
    try:
        process.send(encode_frame({"address": address, "look": True, "settings": asdict(driver)}))
        answer = await process.receive(_CONNECT_S)
    except ProcessLostError as lost:
        raise OracleError(f"the Ray cluster at {address} cannot be looked at: the driver {lost}") from None
    finally:
        await process.stop()
    if "fatal" in answer:
        raise error_from_json(answer["fatal"])
    found: dict[str, Any] = answer["cluster"]
    return found
