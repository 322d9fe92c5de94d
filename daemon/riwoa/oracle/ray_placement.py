"""Where workers go: actors are started on nodes that are fit, and given what they lack. Imports Ray."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from riwoa.errors import OracleError
from riwoa.ipc.child import error_from_json
from riwoa.oracle import ray_actor
from riwoa.oracle.ray_cluster import listens, reason_of
from riwoa.oracle.ray_nodes import DriverSettings, Node, nodes_of, unsuitable, without_room
from riwoa.oracle.ray_slots import Slot
from riwoa.oracle.shipping import Tree, trees_of, with_places
from riwoa.text import printable

GRACE_S = 30.0  # beyond all limits of a node's own, before an actor is given up
_NODES_S = 5.0  # how often the cluster is asked for its nodes
_SILENT_S = 30.0  # of the head, before the cluster is given up
_MISSED = 2  # times in a row that nobody listens there, before the same


class UnfitError(Exception):
    """A node cannot be used; the message says why."""


class Placer:
    """Puts workers on nodes.

    Args:
        spec: of the oracle.
        settings: how the cluster is asked.
        limits: of evaluations, as they are now; the driver changes them.
        wanted_version: of the oracle; None: that of the first node.
        on_ready: told of the first worker.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        settings: DriverSettings,
        limits: Mapping[str, Any],
        wanted_version: str | None,
        on_ready: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self.refused: dict[str, str] = {}  # node id -> why
        self.version: str | None = None
        self._spec = spec
        self._settings = settings
        self._limits = limits
        self._wanted_version = wanted_version
        self._on_ready = on_ready
        self._here = ray_actor.facts()
        self._actor: Any = ray.remote(ray_actor.NodeWorker)
        self._trees: dict[str, Tree] = {}
        self._sending: dict[tuple[str, str], asyncio.Lock] = {}

    async def prepare(self) -> None:
        """Read what is to be sent, and ask the cluster for its nodes.

        Raises:
            InputError: a file cannot be read.
            OracleError: no node could ever hold a worker.
        """
        self._trees = await asyncio.to_thread(trees_of, self._spec) if self._settings.ship else {}
        await self.look()

    def refuse(self, slot: Slot, reason: str) -> None:
        """Use the node of a slot no more.

        Raises:
            OracleError: there is none left to begin with.
        """
        if slot.node is not None and slot.node.id not in self.refused:
            say(f"node {slot.node.name} is not used: {reason}")
            self.refused[slot.node.id] = reason
        self._check_any_fit()

    async def place(self, slot: Slot) -> None:
        """Start an actor where there is room, look at its node, send it what it lacks, and load the oracle.

        Raises:
            UnfitError: the node cannot be used.
            RayError, TimeoutError: it was lost meanwhile.
            RiwoaError: the oracle cannot be made.
        """
        slot.node = None
        slot.actor = self._new_actor()
        found = await slot.actor.facts.remote()  # waits for room
        slot.node = node = self.nodes.get(found["node"]) or await self._known(found["node"])
        if reason := unsuitable(self._here, found, mixed=self._settings.mixed):
            raise UnfitError(reason)
        spec = with_places(self._spec, {key: await self._send(slot, node, tree) for key, tree in self._trees.items()})
        async with asyncio.timeout(3 * self._limits["start_timeout_s"] + GRACE_S):
            ready = await slot.actor.load.remote(spec, self._limits)
        if "error" in ready:
            error = error_from_json(ready["error"])
            if self.version is None:
                raise type(error)(f"on node {node.name}: {error}")
            raise UnfitError(printable(error))
        self._accept(node, ready)

    def _accept(self, node: Node, ready: Mapping[str, Any]) -> None:
        version = str(ready["oracle_version"])
        wanted = self.version or self._wanted_version
        if wanted is not None and version != wanted and not self._settings.mixed:
            raise UnfitError(
                f"its oracle version is {version[:12]}, the run's is {wanted[:12]}: threads, processor, files or "
                "libraries differ; leave the node out, or set ray.mixed = true"
            )
        if self.version is None:
            self.version = wanted if wanted is not None and self._settings.mixed else version
            self._on_ready({**ready, "oracle_version": self.version})

    def _new_actor(self) -> Any:
        s = self._settings
        options: dict[str, Any] = {"num_cpus": s.cpus, "num_gpus": s.gpus, "resources": s.resources or None}
        if self.refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self.refused)})"}
        options["scheduling_strategy"] = "SPREAD" if s.spread else "DEFAULT"
        # Evaluating, cancelling and new limits go on at once; a lost one is replaced here, where its job is known.
        return self._actor.options(max_restarts=0, max_concurrency=8, **options).remote(s.cache)

    async def _send(self, slot: Slot, node: Node, tree: Tree) -> str:
        """Where a tree lies on a node, sent if it does not yet; one worker of the node receives it for all."""
        lock = self._sending.setdefault((node.id, tree.sha256), asyncio.Lock())
        async with lock:
            if (place := await slot.actor.place.remote(tree.sha256)) is None:
                say(f"sending {tree.entry} ({tree.bytes} bytes) to {node.name}")
                packets = tree.packets()
                while (packet := await asyncio.to_thread(next, packets, None)) is not None:
                    await slot.actor.receive.remote(tree.sha256, packet)
                try:
                    place = await slot.actor.settle.remote(tree.sha256, tree.hashes)
                except OSError as error:
                    raise UnfitError(f"{tree.entry} did not arrive: {reason_of(error)}") from None
        return os.path.join(place, tree.entry)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Ask the cluster for its nodes; refuse one where none could ever hold a worker."""
        self.nodes = await asyncio.to_thread(nodes_of, ray.nodes)
        s = self._settings
        if self.version is None and (lacking := without_room(self.nodes.values(), s.needs)):
            raise OracleError(lacking)

    async def _known(self, node_id: str) -> Node:
        self.nodes = await asyncio.to_thread(nodes_of, ray.nodes)
        return self.nodes.get(node_id) or Node(node_id, node_id[:8], "?", 0.0, 0.0, {})

    async def watch(self, slots: Sequence[Slot]) -> None:
        """Look at the nodes now and then.

        Raises:
            OracleError: the head is gone, or no worker gets ready.
        """
        began_s, missed, head = time.monotonic(), 0, ray.get_runtime_context().gcs_address
        while True:
            await asyncio.sleep(_NODES_S)
            # A head that is gone would show in Ray's own time, a minute: nobody listens where it was.
            missed = 0 if await asyncio.to_thread(listens, head) else missed + 1
            if missed >= _MISSED:
                raise OracleError(f"the head of the cluster at {head} is gone")
            if missed:
                continue
            try:
                async with asyncio.timeout(_SILENT_S):
                    self.nodes = await asyncio.to_thread(nodes_of, ray.nodes)
            except (RayError, OSError) as error:  # which a TimeoutError is, too
                raise OracleError(f"the head of the cluster does not answer any more ({reason_of(error)})") from None
            waited_s = time.monotonic() - began_s
            most_s = 3 * self._limits["start_timeout_s"] + 2 * GRACE_S
            if self.version is None and waited_s > most_s:
                free = await asyncio.to_thread(ray.available_resources)
                raise OracleError(self._nobody_ready(slots, waited_s, free))

    def _nobody_ready(self, slots: Sequence[Slot], waited_s: float, free: Mapping[str, float]) -> str:
        needs = ", ".join(f"{amount:g} {name}" for name, amount in self._settings.needs.items())
        left = ", ".join(f"{free.get(name, 0.0):g} {name}" for name in self._settings.needs)
        said = "; ".join(dict.fromkeys(slot.says for slot in slots if slot.says))
        return (
            f"no worker of the cluster was ready in {waited_s:.0f} s: one needs {needs}, all nodes together have "
            f"{left} free{f'; {said}' if said else ''}; see `riwoactl doctor --cluster`"
        )

    def _check_any_fit(self) -> None:
        able = [node for node in self.nodes.values() if without_room([node], self._settings.needs) is None]
        if self.version is None and all(node.id in self.refused for node in able):
            told = "; ".join(f"{node.name}: {self.refused[node.id]}" for node in able)
            raise OracleError(f"no node of the cluster can be used: {told}")


def say(text: str) -> None:
    """Put a line into the daemon's log."""
    print(text, file=sys.stderr, flush=True)
