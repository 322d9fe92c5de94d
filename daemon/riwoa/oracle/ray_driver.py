"""The driver of a Ray cluster: ``python -m riwoa.oracle.ray_driver``, JSON frames on its pipes.

Ray ends a driver whose cluster is lost, and has threads and signal handlers of its own: the daemon stays clear of all
that, and starts another driver (``riwoa.oracle.ray_pool``, which says what the frames are).

Each slot is an actor somewhere. A job is given to an idle one; when an actor or its node is lost, the job is given to
another, and the slot gets a new actor wherever there is room. One that takes far longer than others is asked twice.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayError

from riwoa.errors import InputError, OracleError, RiwoaError
from riwoa.ipc.child import error_to_json
from riwoa.ipc.frames import ParentPipe
from riwoa.oracle.protocol import OWN_ERROR
from riwoa.oracle.ray_cluster import as_error, connect, look, reason_of, store_full
from riwoa.oracle.ray_nodes import DriverSettings, Durations
from riwoa.oracle.ray_placement import GRACE_S, Placer, UnfitError, say
from riwoa.oracle.ray_slots import Job, Slot

_MOST_LOSSES = 5  # of workers on one candidate, before it is held to be the cause
_LOOK_S = 0.25  # how often stragglers are looked for
_TELL_S = 0.5  # how often the daemon is told how it stands
_AGAIN_S = 20.0  # before another actor is tried, where one could not be had
_ALIVE_S = 30.0  # for an idle worker to say that it lives


class Driver:
    """Jobs, slots and nodes of one connection; all in one event loop."""

    def __init__(self, pipe: ParentPipe, frame: Mapping[str, Any], placer: type[Placer] = Placer) -> None:
        self._pipe = pipe
        self._settings = DriverSettings(**frame["settings"])
        self._limits: dict[str, Any] = frame["limits"]
        self._placer = placer(
            frame["spec"],
            self._settings,
            self._limits,
            frame.get("oracle_version"),
            lambda ready: pipe.send({"ready": ready}),
        )
        self._slots = [Slot(i) for i in range(self._settings.workers)]
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._idle: deque[Slot] = deque()
        self._held = False
        self._durations = Durations(self._settings.straggler_quantile)
        self._running: set[Job] = set()
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
        self._spawn(self._tell(), "tell")  # first: to hash a large data set takes a while, and silence is a fault
        await self._placer.prepare()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop,), name="frames", daemon=True).start()
        for slot in self._slots:
            self._spawn(self._settle(slot), f"slot-{slot.index}")
        for work, name in ((self._placer.watch(self._slots), "nodes"), (self._watch_stragglers(), "stragglers")):
            self._spawn(work, name)
        raise await self._failed

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            frame = self._pipe.frame()
            loop.call_soon_threadsafe(self._take, frame)

    def _take(self, frame: Mapping[str, Any]) -> None:
        if "submit" in frame:
            job = Job(frame["submit"])
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
            said = error if isinstance(error, RiwoaError) else as_error(error)
            self._failed.set_result(said)

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        while self._queue and self._idle and not self._held:
            self._begin(self._idle.popleft(), self._queue.popleft())

    def _begin(self, slot: Slot, job: Job) -> None:
        slot.enter("busy", job)
        job.copies[slot] = time.monotonic()
        job.tries += 1
        self._running.add(job)
        self._spawn(self._evaluate(slot, job), f"evaluate-{slot.index}")

    async def _evaluate(self, slot: Slot, job: Job) -> None:
        # The node has limits of its own, and tries twice: this one is for nodes that say nothing any more.
        most_s = 2 * (self._limits["evaluation_timeout_s"] + self._limits["start_timeout_s"]) + GRACE_S
        answer: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(most_s):
                answer = await slot.actor.evaluate.remote(job.id, job.architecture, job.how)
        except (RayError, TimeoutError) as error:
            reason = reason_of(error)
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

    def _answered(self, slot: Slot, job: Job, answer: dict[str, Any]) -> None:
        node = slot.node_name
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

    def _lost(self, slot: Slot, job: Job, reason: str) -> None:
        node = slot.node_name
        say(f"worker {slot.index} on {node} is lost: {reason}")
        job.losses += 1
        slot.drop()
        slot.enter("starting", says=f"lost on {node}: {reason}")
        for other in [other for other in self._idle if other.node_id == slot.node_id]:
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

    def _finish(self, job: Job, result: Mapping[str, Any]) -> None:
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
                others = [slot for slot in self._idle if slot.node_id != slow.node_id] or list(self._idle)
                if not others:
                    break
                self._idle.remove(others[0])
                self._ask_again(job, slow, others[0], now_s - since_s, limit_s)

    def _ask_again(self, job: Job, slow: Slot, other: Slot, after_s: float, limit_s: float) -> None:
        job.asked_twice = True
        self._asked_twice += 1
        nodes = [slot.node_name for slot in (slow, other)]
        told = {"job": job.id, "after_s": after_s, "limit_s": limit_s, "node": nodes[0], "again_on": nodes[1]}
        self._pipe.send({"event": {"kind": "asked again", **told}})
        self._begin(other, job)

    # -- slots ---------------------------------------------------------------------------------------------------------

    async def _check(self, slot: Slot) -> None:
        """Have an idle slot whose node lost another worker back, or settle it anew."""
        try:
            async with asyncio.timeout(_ALIVE_S):
                await slot.actor.alive.remote()
        except (RayError, TimeoutError) as error:
            slot.drop()
            slot.enter("starting", says=reason_of(error))
            await self._settle(slot)
        else:
            self._idle.append(slot)
            self._dispatch()

    async def _settle(self, slot: Slot) -> None:
        """Have a worker in a slot, however often it takes."""
        while not self._failed.done():
            slot.enter("starting", says=slot.says)
            try:
                await self._placer.place(slot)
                break
            except UnfitError as unfit:
                reason = str(unfit)
                self._placer.refuse(slot, reason)
            except InputError as error:  # what is to be sent is gone meanwhile: those who have it go on
                if self._placer.version is None:
                    raise
                reason = str(error)
            except (RayError, TimeoutError) as error:
                if isinstance(error, ObjectStoreFullError | OutOfDiskError):
                    raise store_full() from None
                reason = reason_of(error)
            slot.drop()
            slot.enter("starting", says=reason)
            if slot.node_id not in self._placer.refused:  # else on another node, at once
                await asyncio.sleep(_AGAIN_S if self._placer.version else 1.0)
        slot.starts += 1
        slot.enter("idle")
        self._idle.append(slot)
        self._dispatch()

    # -- telling -------------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            now_s = time.monotonic()
            nodes = [
                [
                    *(node.name, node.address, node.cpus, node.gpus),
                    sum(slot.node_id == node.id for slot in self._slots),
                    sum(s.state == "busy" and s.node_id == node.id for s in self._slots),
                    self._placer.refused.get(node.id),
                ]
                for node in self._placer.nodes.values()
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
        connect(str(frame["address"]))
        if "look" in frame:
            settings = DriverSettings(**frame["settings"])
            pipe.send({"cluster": look(settings)})
            return 0

        asyncio.run(_serve(pipe, frame))
    except RiwoaError as error:
        pipe.send({"fatal": error_to_json(error)})
        return error.exit_code
    except RayError as error:
        pipe.send({"fatal": error_to_json(as_error(error))})
        return OracleError.exit_code
    return 0


async def _serve(pipe: ParentPipe, frame: Mapping[str, Any]) -> None:
    """Serve, and end the process with what it ends for: threads that ask a lost head would keep it for long."""
    try:
        await Driver(pipe, frame).run()
    except RiwoaError as error:
        pipe.send({"fatal": error_to_json(error)})
        os._exit(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
