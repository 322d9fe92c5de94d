"""What the doctor says of clusters that nobody has at hand: clocks that are off, nodes that do not fit, full stores.

What it finds on a real one is shown in tests/cluster.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from riwoa.config.loading import load
from riwoa.oracle.ray_actor import facts
from riwoa.service import cluster_doctor
from riwoa.service.cluster_doctor import examined_cluster
from riwoa.service.doctor import Finding


def node(name: str, cpus: float = 4.0, refused: str | None = None, offset_s: float | None = 0.001) -> dict[str, Any]:
    found = {"name": name, "address": "10.0.0.1", "resources": {"CPU": cpus}, "refused": refused, "offset_s": offset_s}
    return {**found, "facts": facts()} if refused is None else found


def examined(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, Any], **told: Any) -> dict[str, Finding]:
    free = {"CPU": sum(n["resources"]["CPU"] for n in nodes), "object_store_memory": 2.0**30}
    found = {"ray": "2.60.0", "nodes": list(nodes), "lacking": None, "free": free, "total": free, **told}

    async def look(*_: object) -> dict[str, Any]:
        return found

    monkeypatch.setattr(cluster_doctor, "look_at_cluster", look)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    config = load(None, ["oracle.pool=ray", "oracle.workers=8"], {}).config
    return dict(examined_cluster(config))


def test_a_cluster_that_fits_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, node("a"), node("b"))
    assert {finding.level for finding in found.values()} == {"ok"}
    assert "one evaluation reserves 1 CPU; room for 8 at once, oracle.workers = 8" in found["resources"].says


def test_a_clock_that_is_off_is_told_with_what_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, node("a"), node("b", offset_s=-86_400.0))
    assert found["node b, clock"].level == "warn"
    assert "-86400.000 s from this machine's" in found["node b, clock"].says
    assert found["node a, clock"].level == "ok"


def test_a_node_that_does_not_fit_fails_and_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, node("a"), node("b", refused="it has numpy 1.0, this machine 2.4.0", offset_s=None))
    assert found["node b"].level == "fail"
    assert "it has numpy 1.0" in found["node b"].says
    assert found["resources"].level == "warn"
    assert "room for 4 at once" in found["resources"].says
    assert "oracle.workers = 4" in found["resources"].mend


def test_what_others_use_and_a_full_object_store_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"CPU": 0.5, "object_store_memory": 2.0**20}
    found = examined(monkeypatch, node("a"), node("b"), free=free)
    assert found["resources"].level == "warn"
    assert "others use the cluster: 0.5 CPU free" in found["resources"].says
    assert found["object store"].level == "warn"
    assert "--object-store-memory" in found["object store"].mend


def test_what_one_evaluation_lacks_is_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, node("a"), lacking="no node of the cluster has room: a lacks 1 GPU (it has 0)")
    assert found["resources"] == Finding("fail", "no node of the cluster has room: a lacks 1 GPU (it has 0)")


def test_without_ray_nothing_else_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (found,) = examined_cluster(load(None, [], {}).config)
    assert found == ("Ray", Finding("fail", "it is not installed", "pip install 'riwoa[ray]'"))
