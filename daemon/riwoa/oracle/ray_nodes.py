"""What a driver knows of its cluster, apart from Ray itself: nodes, what they lack, and how long evaluations take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_KEPT = 200  # durations of a rung that are remembered
_LEAST = 10  # of them before any is called slow
_SLACK = 1.5  # times the quantile: half as long again
_LEAST_S = 0.5  # nothing shorter is worth asking twice


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """How a driver asks its cluster.

    Attributes:
        workers: evaluations under way at once.
        cpus: cores that one reserves.
        gpus: GPUs that one reserves.
        resources: further resources by name.
        spread: as many nodes as there are.
        ship: send the oracle's files.
        cache: directory on the nodes for them; "" for the user's own.
        mixed: nodes with other versions too.
        straggler_quantile: of durations; 0: nothing is asked twice.
    """

    workers: int
    cpus: float
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    spread: bool = True
    ship: bool = True
    cache: str = ""
    mixed: bool = False
    straggler_quantile: float = 0.95

    @property
    def needs(self) -> dict[str, float]:
        """What one evaluation reserves, by Ray's names; nothing that is 0."""
        found = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return {name: amount for name, amount in found.items() if amount > 0}


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive."""

    id: str
    name: str
    address: str
    cpus: float
    gpus: float
    resources: Mapping[str, float]


def nodes_of(ask: Callable[[], Sequence[Mapping[str, Any]]]) -> dict[str, Node]:
    """The nodes that are alive, by id; two of one name are told apart by their ids."""
    alive = [node for node in ask() if node["Alive"]]
    names = [str(node.get("NodeName") or node["NodeManagerHostname"]) for node in alive]
    found = {}
    for node, name in zip(alive, names, strict=True):
        node_id, resources = str(node["NodeID"]), node["Resources"]
        shown = name if names.count(name) == 1 else f"{name}/{node_id[:6]}"
        cpus, gpus = float(resources.get("CPU", 0.0)), float(resources.get("GPU", 0.0))
        found[node_id] = Node(node_id, shown, str(node["NodeManagerAddress"]), cpus, gpus, dict(resources))
    return found


def without_room(nodes: Iterable[Node], needs: Mapping[str, float]) -> str | None:
    """Why no node could ever hold one evaluation, what is missing on the one that lacks least; None where one could."""
    lacking = []
    for node in nodes:
        missing = {name: amount for name, amount in needs.items() if node.resources.get(name, 0.0) < amount}
        if not missing:
            return None
        lacking.append((len(missing), node, missing))
    if not lacking:
        return "the Ray cluster has no node that is alive; start one with `ray start`"
    _, node, missing = min(lacking, key=lambda one: one[0])
    said = ", ".join(
        f"{amount:g} {name} (it has {node.resources.get(name, 0.0):g})" for name, amount in missing.items()
    )
    return (
        f"no node of the cluster has room for one evaluation: {node.name} lacks {said}; lower ray.cpus, ray.gpus or "
        "ray.resources, or start a node that has them"
    )


def unsuitable(here: Mapping[str, Any], there: Mapping[str, Any], *, mixed: bool) -> str | None:
    """Why a node cannot evaluate for this machine, by the facts of both (``ray_actor.facts``); None where it can."""
    if there["riwoa"] is None or there["code"] is None:
        missing = f"the package riwoa is not installed in its Python {there['python']}"
        return f"{missing}; in a clone there: pip install '.[ray]'"
    if mixed:
        return None
    for name, wanted in {"riwoa": here["riwoa"], **here["libraries"]}.items():
        found = there["riwoa"] if name == "riwoa" else there["libraries"][name]
        if found != wanted:
            return f"it has {name} {found or 'not at all'}, this machine {wanted}; install the same there"
    if there["code"] != here["code"]:
        return f"its riwoa {there['riwoa']} has other source than this machine's; install the same there"
    minor = [str(facts["python"]).rpartition(".")[0] for facts in (here, there)]
    return None if minor[0] == minor[1] else f"it has Python {there['python']}, this machine {here['python']}"


class Durations:
    """How long the last evaluations took, by rung.

    Args:
        quantile: of them, beyond half as much again of which one is late; 0: none ever is.
    """

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._seconds: dict[str, deque[float]] = {}

    def add(self, rung: str, seconds: float) -> None:
        """Remember one."""
        self._seconds.setdefault(rung, deque(maxlen=_KEPT)).append(seconds)

    def limit_s(self, rung: str) -> float | None:
        """Seconds after which one is late; None while too few are known."""
        known = sorted(self._seconds.get(rung, ()))
        if not self._quantile or len(known) < _LEAST:
            return None
        return max(_LEAST_S, _SLACK * known[min(len(known) - 1, int(self._quantile * len(known)))])
