"""What a search needs of a Ray cluster, looked at one thing after the other (`riwoactl doctor --cluster`)."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from riwoa.config.schema import Config
from riwoa.errors import RiwoaError
from riwoa.oracle.backend import driver_settings
from riwoa.oracle.ray_pool import look_at_cluster
from riwoa.oracle.workers import worker_count
from riwoa.service.doctor import Finding
from riwoa.text import printable

_OFFSET_S = 2.0  # of a clock; nothing of a result depends on it, but logs are read side by side
_GIB = 2**30


def examined_cluster(config: Config) -> Iterator[tuple[str, Finding]]:
    """The name of each check and what it found; the first that fails may leave nothing for the others."""
    if importlib.util.find_spec("ray") is None:
        yield "Ray", Finding("fail", "it is not installed", "pip install 'riwoa[ray]'")
        return
    workers = worker_count(config.oracle)
    settings = driver_settings(config, workers)
    if config.oracle.pool != "ray":
        yield "pool", Finding("warn", "oracle.pool is local: the cluster is not used", 'set oracle.pool = "ray"')
    try:
        found = asyncio.run(look_at_cluster(config.ray.address, settings))
    except RiwoaError as error:
        yield "cluster", Finding("fail", printable(error))
        return
    nodes = found["nodes"]
    yield "Ray", Finding("ok", f"{found['ray']}, the same version on all {len(nodes)} nodes, or they could not join")
    yield "resources", _resources(found, settings.needs, workers)
    for node in nodes:
        yield f"node {node['name']}", _node(node)
        if node["offset_s"] is not None:
            yield f"node {node['name']}, clock", _clock(node["offset_s"])
    yield "object store", _store(found)


def _resources(found: Mapping[str, Any], needs: Mapping[str, float], workers: int) -> Finding:
    wanted = ", ".join(f"{amount:g} {name}" for name, amount in needs.items()) or "nothing"
    if found["lacking"] is not None:
        return Finding("fail", found["lacking"])
    able = [node for node in found["nodes"] if node["refused"] is None]
    room = sum(min(int(node["resources"].get(name, 0.0) / amount) for name, amount in needs.items()) for node in able)
    says = f"one evaluation reserves {wanted}; room for {room} at once, oracle.workers = {workers}"
    if not room:
        return Finding("fail", says, "mend the nodes that are not used, or start others")
    if room != workers:
        return Finding("warn", says, f"set oracle.workers = {room}: others wait for room, or room stays empty")
    free = {name: found["free"].get(name, 0.0) for name in needs}
    busy = {name: amount for name, amount in free.items() if amount < needs[name]}
    if busy:
        left = ", ".join(f"{amount:g} {name}" for name, amount in busy.items())
        return Finding("warn", f"{says}; others use the cluster: {left} free", "wait, or end what else runs there")
    return Finding("ok", says)


def _node(node: Mapping[str, Any]) -> Finding:
    facts = node.get("facts")
    if node["refused"] is not None:
        return Finding("fail", f"{node['address']}: {node['refused']}", "or set ray.mixed = true" * (facts is not None))
    assert facts is not None
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    return Finding("ok", f"{node['address']}: riwoa {facts['riwoa']}, {libraries}, {facts['processor']}")


def _clock(offset_s: float) -> Finding:
    says = f"{offset_s:+.3f} s from this machine's"
    if abs(offset_s) > _OFFSET_S:
        return Finding("warn", f"{says}: no result depends on it, logs do", "timedatectl set-ntp true, there")
    return Finding("ok", says)


def _store(found: Mapping[str, Any]) -> Finding:
    free, total = (found[which].get("object_store_memory", 0.0) for which in ("free", "total"))
    says = f"{free / _GIB:.2f} of {total / _GIB:.2f} GiB free; files go through it 16 MiB at a time"
    if free < 2**26:
        return Finding("warn", says, "start Ray with a larger --object-store-memory, or set ray.ship = false")
    return Finding("ok", says)
