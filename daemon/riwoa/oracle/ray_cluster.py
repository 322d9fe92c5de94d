"""The connection to a Ray cluster: made, looked at, and what goes wrong with it in one line each. Imports Ray."""

from __future__ import annotations

import dataclasses
import socket
import statistics
import sys
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectStoreFullError, OutOfDiskError, RayActorError, RayError

from riwoa.errors import OracleError
from riwoa.oracle import ray_actor
from riwoa.oracle.ray_nodes import DriverSettings, nodes_of, unsuitable, without_room
from riwoa.text import printable

_FACTS_S = 60.0  # for a node to say what it is
_LISTENS_S = 5.0


def connect(address: str) -> None:
    """Connect to a running cluster.

    Raises:
        OracleError: there is none, or it has another version of Ray or Python.
    """
    ray.cloudpickle.register_pickle_by_value(ray_actor)
    try:
        if address.rpartition(":")[2].isdecimal() and not listens(address):
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


def listens(address: str) -> bool:
    """Whether somebody accepts connections at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS_S).close()
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
            about["refused"] = f"does not answer: {reason_of(error)}"
        finally:
            ray.kill(actor)
        told.append(about)
    lacking = without_room(nodes_of(ray.nodes).values(), settings.needs)
    free = ray.available_resources()
    total = ray.cluster_resources()
    return {"ray": ray.__version__, "nodes": told, "lacking": lacking, "free": free, "total": total}


def reason_of(error: BaseException) -> str:
    """What was wrong, in one line."""
    if isinstance(error, TimeoutError) and not isinstance(error, GetTimeoutError):
        return "no answer in time"
    if isinstance(error, RayActorError):
        return "the worker or its node died"
    error = getattr(error, "cause", None) or error  # without the traceback of the other side
    return printable(" ".join(str(error).split()), 200) or type(error).__name__


def as_error(error: BaseException) -> OracleError:
    """What an error of Ray's, or a bug here, is to the daemon."""
    if isinstance(error, ObjectStoreFullError | OutOfDiskError):
        return store_full()
    if isinstance(error, RayError):
        return OracleError(f"the Ray cluster failed: {reason_of(error)}; see `riwoactl doctor --cluster`")
    return OracleError(f"the Ray driver failed: {type(error).__name__}: {printable(error)}; please report it")


def store_full() -> OracleError:
    """That nothing more can be sent."""
    return OracleError(
        "Ray's object store is full, so the oracle's files cannot be sent: start Ray with a larger "
        "--object-store-memory, or put the files on every node and set ray.ship = false"
    )
