"""What a driver decides about its nodes, without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from riwoa.oracle.ray_actor import facts
from riwoa.oracle.ray_nodes import DriverSettings, Durations, Node, nodes_of, unsuitable, without_room

HERE = facts()


def there(**changed: Any) -> Mapping[str, Any]:
    return {**HERE, **changed}


def node(name: str, **resources: float) -> Node:
    return Node(name, name, "10.0.0.1", resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources)


def test_a_node_of_the_same_versions_is_used() -> None:
    assert unsuitable(HERE, there(host="other", processor="another"), mixed=False) is None
    assert set(HERE["libraries"]) == {"torch", "numpy", "ofa"}
    assert len(HERE["code"]) == 64


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"riwoa": None}, "riwoa is not installed in its Python"),
        ({"code": None}, "riwoa is not installed in its Python"),
        ({"riwoa": "9.9"}, "it has riwoa 9.9, this machine"),
        ({"libraries": {**HERE["libraries"], "numpy": "1.0"}}, "it has numpy 1.0, this machine"),
        ({"libraries": {**HERE["libraries"], "torch": None}}, "it has torch not at all, this machine"),
        ({"code": "0" * 64}, "has other source than this machine's"),
        ({"python": "3.99.1"}, "it has Python 3.99.1, this machine"),
    ],
)
def test_a_node_of_other_versions_is_refused_in_one_line(changed: dict[str, Any], said: str) -> None:
    reason = unsuitable(HERE, there(**changed), mixed=False)
    assert reason is not None
    assert said in reason
    assert "\n" not in reason


def test_mixed_takes_other_versions_but_not_a_node_without_riwoa() -> None:
    assert unsuitable(HERE, there(libraries={**HERE["libraries"], "numpy": "1.0"}), mixed=True) is None
    assert unsuitable(HERE, there(riwoa=None), mixed=True) is not None


def test_what_is_missing_for_one_evaluation_is_said_of_the_node_that_lacks_least() -> None:
    nodes = [node("empty"), node("big", CPU=8.0), node("gpu", CPU=2.0, GPU=1.0)]
    assert without_room(nodes, {"CPU": 8.0}) is None
    said = without_room(nodes, {"CPU": 4.0, "GPU": 1.0})
    assert said is not None
    assert "big lacks 1 GPU (it has 0)" in said
    assert "has no node that is alive" in str(without_room([], {"CPU": 1.0}))


def test_nothing_reserved_is_no_need() -> None:
    assert DriverSettings(workers=1, cpus=0.5, resources={"board": 1.0}).needs == {"CPU": 0.5, "board": 1.0}


def test_dead_nodes_are_left_out_and_namesakes_told_apart() -> None:
    def told(node_id: str, name: str, *, alive: bool = True) -> dict[str, Any]:
        about = {"NodeName": name, "NodeManagerHostname": "h", "NodeManagerAddress": "10.0.0.1"}
        return {"NodeID": node_id, "Alive": alive, "Resources": {"CPU": 2.0}, **about}

    found = nodes_of(
        lambda: [told("aaaaaaaa", "x"), told("bbbbbbbb", "x"), told("c", "y"), told("d", "y", alive=False)]
    )
    assert [n.name for n in found.values()] == ["x/aaaaaa", "x/bbbbbb", "y"]
    assert found["c"].cpus == 2.0


def test_nothing_is_late_before_ten_are_known_and_never_when_switched_off() -> None:
    durations, never = Durations(0.9), Durations(0.0)
    for i in range(9):
        durations.add("", 1.0 + i)
        never.add("", 1.0)
    assert durations.limit_s("") is None
    durations.add("", 10.0)
    never.add("", 1.0)
    assert durations.limit_s("") == 15.0  # half as long again as the longest, the 0.9 quantile of ten
    assert durations.limit_s("cheap") is None
    assert never.limit_s("") is None


def test_short_evaluations_are_not_asked_twice_for_a_hiccup() -> None:
    durations = Durations(0.5)
    for _ in range(20):
        durations.add("", 0.001)
    assert durations.limit_s("") == 0.5
