"""What a driver keeps of each evaluation and of each worker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import ray

from riwoa.oracle.ray_nodes import Node


class Job:
    """An evaluation, and who is at it."""

    __slots__ = ("architecture", "asked_twice", "copies", "done", "how", "id", "losses", "tries")

    def __init__(self, frame: Mapping[str, Any]) -> None:
        self.id: str = frame["id"]
        self.architecture = frame["architecture"]
        self.how: dict[str, Any] = {key: frame[key] for key in ("rung", "judging") if key in frame}
        self.copies: dict[Slot, float] = {}  # who evaluates it, since when
        self.done = self.asked_twice = False
        self.losses = self.tries = 0

    @property
    def rung(self) -> str:
        """The lower one that is asked; "" for a full evaluation."""
        return str(self.how.get("rung", ""))


class Slot:
    """A place for an actor, with its counters; actors come and go in it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.actor: Any = None
        self.node: Node | None = None
        self.pid: int | None = None
        self.job: Job | None = None
        self.state = "starting"
        self.says: str | None = None
        self.since_s = time.monotonic()
        self.busy_s = 0.0
        self.evaluations = self.starts = 0

    @property
    def node_id(self) -> str | None:
        """Of the node that the actor is on."""
        return self.node.id if self.node is not None else None

    @property
    def node_name(self) -> str:
        """As it is told."""
        return self.node.name if self.node is not None else "?"

    def enter(self, state: str, job: Job | None = None, says: str | None = None) -> None:
        """Be in another state from now on."""
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
        """As the fields of a ``WorkerState`` after its slot, at a time of a driver that began at another."""
        busy_s = self.busy_s + (now_s - self.since_s if self.state == "busy" else 0.0)
        share = min(1.0, busy_s / max(now_s - began_s, 1e-9))
        job, node = self.job.id if self.job else None, self.node.name if self.node else None
        restarts = max(0, self.starts - 1)
        return [self.pid, self.state, job, now_s - self.since_s, self.evaluations, restarts, share, node, self.says]
