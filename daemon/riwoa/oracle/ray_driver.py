"""The driver of a Ray cluster: ``python -m riwoa.oracle.ray_driver``, JSON frames on its pipes.

Ray ends a driver whose cluster is lost, and has threads and signal handlers of its own: the daemon stays clear of all
that, and starts another driver (``riwoa.oracle.ray_pool``, which says what the frames are).

Each slot is an actor somewhere. A job is given to an idle one; when an actor or its node is lost, the job is given to
another, and the slot gets a new actor wherever there is room. One that takes far longer than others is asked twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if "RAY_AUTH_TOKEN" in os.environ or os.path.exists(
    os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
):
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start --head` does of itself
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # an actor without a GPU sees what its node shows

import ray
from ray.exceptions import GetTimeoutError, ObjectStoreFullError, OutOfDiskError, RayActorError, RayError

from riwoa.errors import OracleError, RiwoaError
from riwoa.ipc.child import error_from_json, error_to_json
from riwoa.ipc.frames import ParentPipe
from riwoa.oracle import ray_actor
from riwoa.oracle.protocol import OWN_ERROR
from riwoa.oracle.ray_nodes import DriverSettings, Durations, Node, nodes_of, unsuitable, without_room
from riwoa.oracle.shipping import Tree, trees_of, with_places
from riwoa.text import printable

_MOST_LOSSES = 5  # of workers on one candidate, before it is held to be the cause
_LOOK_S = 0.25  # how often stragglers are looked for
_TELL_S = 0.5  # how often the daemon is told how it stands
_NODES_S = 5.0  # how often the cluster is asked for its nodes
_AGAIN_S = 20.0  # before another actor is tried, where one could not be had
_GRACE_S = 30.0  # beyond all limits of a node's own, before an actor is given up
_FACTS_S = 60.0
_SILENT_S = 30.0  # of the head, before the cluster is given up
_MISSED = 2  # times in a row that nobody listens there, before the same


class _Job:
    __slots__ = ("architecture", "asked_twice", "copies", "done", "how", "id", "losses", "tries")

    def __init__(self, frame: Mapping[str, Any]) -> None:
        self.id: str = frame["id"]
        self.architecture = frame["architecture"]
        self.how: dict[str, Any] = {key: frame[key] for key in ("rung", "judging") if key in frame}
        self.copies: dict[_Slot, float] = {}  # who evaluates it, since when
        self.done = self.asked_twice = False
        self.losses = self.tries = 0

    @property
    def rung(self) -> str:
        return str(self.how.get("rung", ""))


class _Slot:
    """A place for an actor, with its counters; actors come and go in it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.actor: Any = None
        self.node: Node | None = None
        self.pid: int | None = None
        self.job: _Job | None = None
        self.state = "starting"
        self.says: str | None = None
        self.since_s = time.monotonic()
        self.busy_s = 0.0
        self.evaluations = self.starts = 0

    def enter(self, state: str, job: _Job | None = None, says: str | None = None) -> None:
        now_s = time.monotonic()
        if self.state == "busy":
            self.busy_s += now_s - self.since_s
        self.state, self.job, self.says, self.since_s = state, job, says, now_s

    def drop(self) -> None:
        """Have done with the actor, whatever it does."""
        if self.actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(self.actor)
        self.actor = None

    def told(self, now_s: float, began_s: float) -> list[Any]:
        busy_s = self.busy_s + (now_s - self.since_s if self.state == "busy" else 0.0)
        share = min(1.0, busy_s / max(now_s - began_s, 1e-9))
        job, node = self.job.id if self.job else None, self.node.name if self.node else None
        restarts = max(0, self.starts - 1)
        return [self.pid, self.state, job, now_s - self.since_s, self.evaluations, restarts, share, node, self.says]


class _UnfitError(Exception):
    """A node cannot be used; the message says why."""


class Driver:
    """Jobs, slots and nodes of one connection; all in one event loop."""

    def __init__(self, pipe: ParentPipe, frame: Mapping[str, Any]) -> None:
        self._pipe = pipe
        self._spec: dict[str, Any] = frame["spec"]
        self._settings = DriverSettings(**frame["settings"])
        self._limits: dict[str, Any] = frame["limits"]
        self._wanted_version: str | None = frame.get("oracle_version")
        self._here = ray_actor.facts()
        self._actor: Any = ray.remote(ray_actor.NodeWorker)
        self._slots = [_Slot(i) for i in range(self._settings.workers)]
        self._jobs: dict[str, _Job] = {}
        self._queue: deque[_Job] = deque()
        self._idle: deque[_Slot] = deque()
        self._held = False
        self._durations = Durations(self._settings.straggler_quantile)
        self._running: set[_Job] = set()
        self._trees: dict[str, Tree] = {}
        self._nodes: dict[str, Node] = {}
        self._refused: dict[str, str] = {}  # node id -> why
        self._sending: dict[tuple[str, str], asyncio.Lock] = {}
        self._version: str | None = None
        self._failed: asyncio.Future[RiwoaError] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._began_s = time.monotonic()
        self._retried = self._asked_twice = 0

    # -- frames --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until the cluster or the oracle fails; the daemon ends it otherwise.

        Raises:
            RiwoaError: what it failed for.
        """
        self._trees = await asyncio.to_thread(trees_of, self._spec) if self._settings.ship else {}
        await self._look()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), name="frames", daemon=True).start()
        for slot in self._slots:
            self._spawn(self._settle(slot), f"slot-{slot.index}")
        for work, name in ((self._watch_nodes(), "nodes"), (self._watch_stragglers(), "stragglers")):
            self._spawn(work, name)
        self._spawn(self._tell(), "tell")
        raise await self._failed

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            frame = self._pipe.frame()
            loop.call_soon_threadsafe(self._take, frame)

    def _take(self, frame: Mapping[str, Any]) -> None:
        if "submit" in frame:
            job = _Job(frame["submit"])
            if job.id not in self._jobs:  # else it is asked for already: a name is one evaluation
                self._jobs[job.id] = job
                self._queue.append(job)
                self._dispatch()
        elif "cancel" in frame:
            self._cancel(str(frame["cancel"]))
        elif "hold" in frame:
            self._held = bool(frame["hold"])
            self._dispatch()
        elif "limits" in frame:
            self._limits |= frame["limits"]
            for slot in self._slots:
                if slot.actor is not None and slot.state != "starting":
                    slot.actor.set_limits.remote(**frame["limits"])

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            said = error if isinstance(error, RiwoaError) else _as_error(error)
            self._failed.set_result(said)

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        while self._queue and self._idle and not self._held:
            self._begin(self._idle.popleft(), self._queue.popleft())

    def _begin(self, slot: _Slot, job: _Job) -> None:
        slot.enter("busy", job)
        job.copies[slot] = time.monotonic()
        job.tries += 1
        self._running.add(job)
        self._spawn(self._evaluate(slot, job), f"evaluate-{slot.index}")

    async def _evaluate(self, slot: _Slot, job: _Job) -> None:
        # The node has limits of its own, and tries twice: this one is for nodes that say nothing any more.
        most_s = 2 * (self._limits["evaluation_timeout_s"] + self._limits["start_timeout_s"]) + _GRACE_S
        answer: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(most_s):
                answer = await slot.actor.evaluate.remote(job.id, job.architecture, job.how)
        except (RayError, TimeoutError) as error:
            reason = _reason(error)
        job.copies.pop(slot, None)
        if not job.copies:
            self._running.discard(job)
        if answer is None:
            self._lost(slot, job, reason)
        else:
            slot.evaluations += 1
            slot.pid = answer.pop("pid", None)
            slot.enter("idle")
            self._idle.append(slot)
            self._answered(slot, job, answer)
        self._dispatch()

    def _answered(self, slot: _Slot, job: _Job, answer: dict[str, Any]) -> None:
        node = slot.node.name if slot.node else "?"
        final = answer["status"] == "ok" or str(answer["reason"]).startswith(OWN_ERROR)
        counts = not job.done and (final or not job.copies)  # what a node failed at, the other may still answer
        if job.asked_twice:
            told = {"job": job.id, "node": node, "first": counts, "status": answer["status"]}
            self._pipe.send({"event": {"kind": "answered", **told, "duration_s": answer["duration_s"]}})
        if not counts:
            return
        if answer["status"] == "ok":
            self._durations.add(job.rung, answer["duration_s"])
        # Worker processes that died on the node and actors that were lost count alike.
        self._finish(job, {**answer, "attempts": answer["attempts"] + job.losses, "worker": node})

    def _lost(self, slot: _Slot, job: _Job, reason: str) -> None:
        node = slot.node.name if slot.node else "?"
        _say(f"worker {slot.index} on {node} is lost: {reason}")
        job.losses += 1
        slot.drop()
        slot.enter("starting", says=f"lost on {node}: {reason}")
        for other in [other for other in self._idle if other.node is slot.node]:
            self._idle.remove(other)  # nothing is given to it before it is known to live
            self._spawn(self._check(other), f"check-{other.index}")
        self._spawn(self._settle(slot), f"slot-{slot.index}")
        if job.done or job.copies:
            return  # somebody else has answered, or will
        if job.losses >= _MOST_LOSSES:
            told = {"status": "failed", "reason": f"worker died: {job.losses} workers were lost, the last: {reason}"}
            self._finish(job, {"job_id": job.id, "metrics": {}, "attempts": job.losses, "duration_s": 0.0, **told})
        else:
            self._retried += 1
            self._queue.appendleft(job)

    def _finish(self, job: _Job, result: Mapping[str, Any]) -> None:
        job.done = True
        self._jobs.pop(job.id, None)
        self._pipe.send({"result": result})

    def _cancel(self, job_id: str) -> None:
        job = self._jobs.get(job_id)
        if job is None:
            return
        if job in self._queue:
            self._queue.remove(job)
        for slot in job.copies:
            if slot.actor is not None:
                slot.actor.cancel.remote(job_id)
        result = {"status": "cancelled", "reason": "cancelled", "metrics": {}, "duration_s": 0.0}
        self._finish(job, {"job_id": job_id, "attempts": job.tries, **result})

    async def _watch_stragglers(self) -> None:
        while self._settings.straggler_quantile > 0:
            await asyncio.sleep(_LOOK_S)
            if self._queue or self._held:
                continue  # nobody is idle for long
            now_s = time.monotonic()
            for job in list(self._running):
                if job.asked_twice or job.done or len(job.copies) != 1 or job.how.get("judging"):
                    continue
                ((slow, since_s),) = job.copies.items()
                limit_s = self._durations.limit_s(job.rung)
                if limit_s is None or now_s - since_s <= limit_s:
                    continue
                # Another worker of the same node may suffer from the same: it is asked where there is no other.
                others = [slot for slot in self._idle if slot.node is not slow.node] or list(self._idle)
                if not others:
                    break
                self._idle.remove(others[0])
                self._ask_again(job, slow, others[0], now_s - since_s, limit_s)

    def _ask_again(self, job: _Job, slow: _Slot, other: _Slot, after_s: float, limit_s: float) -> None:
        job.asked_twice = True
        self._asked_twice += 1
        nodes = [slot.node.name if slot.node else "?" for slot in (slow, other)]
        told = {"job": job.id, "after_s": after_s, "limit_s": limit_s, "node": nodes[0], "again_on": nodes[1]}
        self._pipe.send({"event": {"kind": "asked again", **told}})
        self._begin(other, job)

    # -- slots ---------------------------------------------------------------------------------------------------------

    async def _check(self, slot: _Slot) -> None:
        """Have an idle slot whose node lost another worker back, or settle it anew."""
        try:
            async with asyncio.timeout(_SILENT_S):
                await slot.actor.alive.remote()
        except (RayError, TimeoutError) as error:
            slot.drop()
            slot.enter("starting", says=_reason(error))
            await self._settle(slot)
        else:
            self._idle.append(slot)
            self._dispatch()

    async def _settle(self, slot: _Slot) -> None:
        """Have a worker in a slot, however often it takes."""
        while not self._failed.done():
            slot.enter("starting", says=slot.says)
            try:
                await self._place(slot)
                break
            except _UnfitError as unfit:
                reason = str(unfit)
                if slot.node is not None and slot.node.id not in self._refused:
                    _say(f"node {slot.node.name} is not used: {reason}")
                    self._refused[slot.node.id] = reason
                self._check_any_fit()
            except (RayError, TimeoutError) as error:
                if isinstance(error, ObjectStoreFullError | OutOfDiskError):
                    raise _store_full() from None
                reason = _reason(error)
            slot.drop()
            slot.enter("starting", says=reason)
            if slot.node is None or slot.node.id not in self._refused:  # else on another node, at once
                await asyncio.sleep(_AGAIN_S if self._version else 1.0)
        slot.starts += 1
        slot.enter("idle")
        self._idle.append(slot)
        self._dispatch()

    async def _place(self, slot: _Slot) -> None:
        """Start an actor where there is room, look at its node, send it what it lacks, and load the oracle.

        Raises:
            _UnfitError: the node cannot be used.
            RayError, TimeoutError: it was lost meanwhile.
            RiwoaError: the oracle cannot be made.
        """
        slot.node = None
        slot.actor = self._new_actor()
        found = await slot.actor.facts.remote()  # waits for room
        slot.node = node = self._nodes.get(found["node"]) or await self._known(found["node"])
        if reason := unsuitable(self._here, found, mixed=self._settings.mixed):
            raise _UnfitError(reason)
        spec = with_places(self._spec, {key: await self._send(slot, node, tree) for key, tree in self._trees.items()})
        async with asyncio.timeout(3 * self._limits["start_timeout_s"] + _GRACE_S):
            ready = await slot.actor.load.remote(spec, self._limits)
        if "error" in ready:
            error = error_from_json(ready["error"])
            if self._version is None:
                raise type(error)(f"on node {node.name}: {error}")
            raise _UnfitError(printable(error))
        self._accept(node, ready)

    def _accept(self, node: Node, ready: Mapping[str, Any]) -> None:
        version = str(ready["oracle_version"])
        wanted = self._version or self._wanted_version
        if wanted is not None and version != wanted and not self._settings.mixed:
            raise _UnfitError(
                f"its oracle version is {version[:12]}, the run's is {wanted[:12]}: threads, processor, files or "
                "libraries differ; leave the node out, or set ray.mixed = true"
            )
        if self._version is None:
            self._version = wanted if wanted is not None and self._settings.mixed else version
            self._pipe.send({"ready": {**ready, "oracle_version": self._version}})

    def _new_actor(self) -> Any:
        s = self._settings
        options: dict[str, Any] = {"num_cpus": s.cpus, "num_gpus": s.gpus, "resources": s.resources or None}
        if self._refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._refused)})"}
        options["scheduling_strategy"] = "SPREAD" if s.spread else "DEFAULT"
        # Evaluating, cancelling and new limits go on at once; a lost one is replaced here, where its job is known.
        return self._actor.options(max_restarts=0, max_concurrency=8, **options).remote(s.cache)

    async def _send(self, slot: _Slot, node: Node, tree: Tree) -> str:
        """Where a tree lies on a node, sent if it does not yet; one worker of the node receives it for all."""
        lock = self._sending.setdefault((node.id, tree.sha256), asyncio.Lock())
        async with lock:
            if (place := await slot.actor.place.remote(tree.sha256)) is None:
                _say(f"sending {tree.entry} ({tree.bytes} bytes) to {node.name}")
                packets = tree.packets()
                while (packet := await asyncio.to_thread(next, packets, None)) is not None:
                    await slot.actor.receive.remote(tree.sha256, packet)
                try:
                    place = await slot.actor.settle.remote(tree.sha256, tree.hashes)
                except OSError as error:
                    raise _UnfitError(f"{tree.entry} did not arrive: {_reason(error)}") from None
        return os.path.join(place, tree.entry)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask the cluster for its nodes; refuse one where none could ever hold a worker."""
        self._nodes = await asyncio.to_thread(nodes_of, ray.nodes)
        s = self._settings
        if self._version is None and (lacking := without_room(self._nodes.values(), s.needs)):
            raise OracleError(lacking)

    async def _known(self, node_id: str) -> Node:
        self._nodes = await asyncio.to_thread(nodes_of, ray.nodes)
        return self._nodes.get(node_id) or Node(node_id, node_id[:8], "?", 0.0, 0.0, {})

    async def _watch_nodes(self) -> None:
        began_s, missed, head = time.monotonic(), 0, ray.get_runtime_context().gcs_address
        while True:
            await asyncio.sleep(_NODES_S)
            # A head that is gone would show in Ray's own time, a minute: nobody listens where it was.
            missed = 0 if await asyncio.to_thread(_listens, head) else missed + 1
            if missed >= _MISSED:
                raise OracleError(f"the head of the cluster at {head} is gone")
            if missed:
                continue
            try:
                async with asyncio.timeout(_SILENT_S):
                    self._nodes = await asyncio.to_thread(nodes_of, ray.nodes)
            except (RayError, OSError) as error:  # which a TimeoutError is, too
                raise OracleError(f"the head of the cluster does not answer any more ({_reason(error)})") from None
            waited_s = time.monotonic() - began_s
            most_s = 3 * self._limits["start_timeout_s"] + 2 * _GRACE_S
            if self._version is None and waited_s > most_s:
                free = await asyncio.to_thread(ray.available_resources)
                raise OracleError(self._nobody_ready(waited_s, free))

    def _nobody_ready(self, waited_s: float, free: Mapping[str, float]) -> str:
        needs = ", ".join(f"{amount:g} {name}" for name, amount in self._settings.needs.items())
        left = ", ".join(f"{free.get(name, 0.0):g} {name}" for name in self._settings.needs)
        said = "; ".join(dict.fromkeys(slot.says for slot in self._slots if slot.says))
        return (
            f"no worker of the cluster was ready in {waited_s:.0f} s: one needs {needs}, all nodes together have "
            f"{left} free{f'; {said}' if said else ''}; see `riwoactl doctor --cluster`"
        )

    def _check_any_fit(self) -> None:
        able = [node for node in self._nodes.values() if without_room([node], self._settings.needs) is None]
        if self._version is None and all(node.id in self._refused for node in able):
            told = "; ".join(f"{node.name}: {self._refused[node.id]}" for node in able)
            raise OracleError(f"no node of the cluster can be used: {told}")

    # -- telling -------------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            now_s = time.monotonic()
            nodes = [
                [
                    *(node.name, node.address, node.cpus, node.gpus),
                    sum(slot.node is not None and slot.node.id == node.id for slot in self._slots),
                    sum(s.state == "busy" and s.node is not None and s.node.id == node.id for s in self._slots),
                    self._refused.get(node.id),
                ]
                for node in self._nodes.values()
            ]
            told = {
                "workers": [slot.told(now_s, self._began_s) for slot in self._slots],
                "nodes": nodes,
                "queued": len(self._queue),
                "retried": self._retried,
                "asked_twice": self._asked_twice,
            }
            self._pipe.send({"stats": told})
            await asyncio.sleep(max(_TELL_S, len(self._slots) / 200))  # of a thousand it is a long line


def main() -> int:
    """Connect to the cluster that the first frame names, and serve; or look at it, where the frame asks for that."""
    pipe = ParentPipe()
    frame = pipe.frame()
    try:
        _connect(str(frame["address"]))
        if "look" in frame:
            settings = DriverSettings(**frame["settings"])
            pipe.send({"cluster": look(settings)})
            return 0

        asyncio.run(_serve(pipe, frame))
    except RiwoaError as error:
        pipe.send({"fatal": error_to_json(error)})
        return error.exit_code
    except RayError as error:
        pipe.send({"fatal": error_to_json(_as_error(error))})
        return OracleError.exit_code
    return 0


async def _serve(pipe: ParentPipe, frame: Mapping[str, Any]) -> None:
    """Serve, and end the process with what it ends for: threads that ask a lost head would keep it for long."""
    try:
        await Driver(pipe, frame).run()
    except RiwoaError as error:
        pipe.send({"fatal": error_to_json(error)})
        os._exit(error.exit_code)


def _connect(address: str) -> None:
    """Connect to a running cluster.

    Raises:
        OracleError: there is none, or it has another version of Ray or Python.
    """
    ray.cloudpickle.register_pickle_by_value(ray_actor)
    try:
        if address.rpartition(":")[2].isdecimal() and not _listens(address):
            raise ConnectionError("nobody listens there")  # Ray itself takes half a minute to find out
        ray.init(address=address, log_to_driver=True, logging_level="ERROR", include_dashboard=False, namespace="riwoa")
    except (ConnectionError, RuntimeError, ValueError, RayError, OSError) as error:
        said = " ".join(str(error).split())
        if "ersion mismatch" in said:
            raise OracleError(
                f"the Ray cluster at {address} has another version than riwoa's environment (Ray {ray.__version__}, "
                f"Python {sys.version.split()[0]}): {printable(said, 300)}"
            ) from None
        if "uthenticat" in said or "Failed to connect" in said:  # somebody listens there
            raise OracleError(
                f"the Ray cluster at {address} does not let this machine in; if it has a token, copy "
                "~/.ray/auth_token from its head, or name that file in RAY_AUTH_TOKEN_PATH "
                f"({printable(said, 200)})"
            ) from None
        raise OracleError(
            f"no Ray cluster answers at {address} ({printable(said, 200) or type(error).__name__}); start one with "
            "`ray start --head`, join this machine to it with `ray start --address=HOST:PORT`, or set ray.address"
        ) from None


def _listens(address: str) -> bool:
    """Whether somebody accepts connections at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_NODES_S).close()
    except OSError:
        return False
    return True


def look(settings: DriverSettings) -> dict[str, Any]:
    """What every node of the cluster would evaluate with, and how its clock goes; for the doctor."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray_actor.facts()
    told = []
    for node in nodes_of(ray.nodes).values():
        where = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        actor = ray.remote(ray_actor.NodeWorker).options(num_cpus=0, scheduling_strategy=where).remote(settings.cache)
        about: dict[str, Any] = {**dataclasses.asdict(node), "refused": None, "offset_s": None}
        try:
            found = ray.get(actor.facts.remote(), timeout=_FACTS_S)
            about["refused"] = unsuitable(here, found, mixed=settings.mixed)
            offsets = []
            for _ in range(5):
                asked_s = time.time()
                found = ray.get(actor.facts.remote(), timeout=_FACTS_S)
                offsets.append(found["unix_s"] - (asked_s + time.time()) / 2)
            about["offset_s"], about["facts"] = statistics.median(offsets), found
        except (RayError, GetTimeoutError) as error:
            about["refused"] = f"does not answer: {_reason(error)}"
        finally:
            ray.kill(actor)
        told.append(about)
    lacking = without_room(nodes_of(ray.nodes).values(), settings.needs)
    free = ray.available_resources()
    total = ray.cluster_resources()
    return {"ray": ray.__version__, "nodes": told, "lacking": lacking, "free": free, "total": total}


def _reason(error: BaseException) -> str:
    """What was wrong, in one line."""
    if isinstance(error, TimeoutError) and not isinstance(error, GetTimeoutError):
        return "no answer in time"
    if isinstance(error, RayActorError):
        return "the worker or its node died"
    error = getattr(error, "cause", None) or error  # without the traceback of the other side
    return printable(" ".join(str(error).split()), 200) or type(error).__name__


def _as_error(error: BaseException) -> OracleError:
    if isinstance(error, ObjectStoreFullError | OutOfDiskError):
        return _store_full()
    if isinstance(error, RayError):
        return OracleError(f"the Ray cluster failed: {_reason(error)}; see `riwoactl doctor --cluster`")
    return OracleError(f"the Ray driver failed: {type(error).__name__}: {printable(error)}; please report it")


def _store_full() -> OracleError:
    return OracleError(
        "Ray's object store is full, so the oracle's files cannot be sent: start Ray with a larger "
        "--object-store-memory, or put the files on every node and set ray.ship = false"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
