"""The schema of the status object: what riwoactl reads it for is what typing would say, and what the daemon writes."""

from __future__ import annotations

import json
import typing
from pathlib import Path

import pytest

from riwoa.service import status_object
from riwoa.service.status_check import checked_status
from riwoa.service.status_object import StatusObject

from .support import daemon_parts

SOURCE = Path(status_object.__file__).read_text()
PARTS = [name for name, part in vars(status_object).items() if name.endswith(("Status", "Object"))]


@pytest.mark.parametrize("name", PARTS)
def test_the_classes_describe_what_they_would_as_dicts_of_typing(name: str) -> None:
    typed: dict[str, typing.Any] = {"__name__": status_object.__name__}
    source = SOURCE.replace("TYPE_CHECKING = False", "TYPE_CHECKING = True")
    exec(compile(source, "status_object", "exec", dont_inherit=True), typed)
    light = vars(status_object)[name]
    hints = typing.get_type_hints(typed[name])
    assert light.__required_keys__ == typed[name].__required_keys__
    assert {field: str(kind) for field, kind in light.__annotations__.items()} == {
        field: str(kind) for field, kind in hints.items()
    }


def test_a_daemon_writes_known_keys_alone_and_reads_back_what_it_wrote(tmp_path: Path) -> None:
    board = daemon_parts(tmp_path).board
    board.sources.socket = lambda: None
    board.sources.operators = dict
    board.sources.screening = lambda: None
    board.sources.experience = lambda: None
    status = board.look()
    assert {*status} == {*StatusObject.__annotations__} - {"source", "alive", "champion"}  # which riwoactl adds
    board.write()
    written = json.loads((tmp_path / "status.json").read_text())
    checked = checked_status(written)
    assert checked is not None
    assert {*checked} == {*status}


def test_a_field_of_another_kind_is_left_out_and_a_part_without_what_it_needs_is_none() -> None:
    found = checked_status(
        {
            "state": "running",
            "pid": "seven",
            "run": {"run_id": 1, "generation": 2, "phase": 3},
            "leader": {"accuracy": 0.5, "feasible": True, "latency_ms": 1.0, "origin": [1, 2, 3]},
            "latency": {"verdict": "steady", "sentinels": [{"name": "network", "ratio": 1.0}, {"ratio": 1.0}, 5]},
            "governor": {"holds": {"disk": "full", "load": 3}, "readings": {"load_per_core": 0.5, "swap": None}},
            "from_the_future": [1],
        }
    )
    assert found == {
        "state": "running",
        "leader": {"accuracy": 0.5, "feasible": True, "latency_ms": 1.0},
        "latency": {"verdict": "steady", "sentinels": [{"name": "network", "ratio": 1.0}]},
        "governor": {"holds": {"disk": "full"}, "readings": {"load_per_core": 0.5}},
        "from_the_future": [1],
    }
