"""The end of a run in the runtime itself: real networks, a table that lies, a kill, and the file that is exported."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from riwoa.ctl import main
from riwoa.export import export_run
from riwoa.hardware.calibration import Interval
from riwoa.hardware.deployed import DeployedNetwork, time_deployed
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.runtime import COMMAND, Settings, runtime_of
from riwoa.ipc.child import child_environment
from riwoa.oracle.kind import FoundNetwork
from riwoa.oracle.supernet import SupernetKind
from riwoa.run.history import Best
from riwoa.run.journal import RunJournal
from riwoa.search.fitness import Constraint, Objective
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa.service.finalists import EndedSearch, time_finalists
from riwoa.supernet.space import mobilenet_space
from riwoa.supernet.spec import SupernetSpec
from riwoa_storage.events import FinalistsTimed
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord
from riwoa_storage.replay import verify
from riwoa_storage.writer import JournalWriter
from tests.bench.support import a_table
from tests.ctl.support import Point, individual, write_journal
from tests.service.test_service import SMALL, command, run, status
from tests.service.test_service import state as state
from tests.service.test_service import table as table

IN_ONNXRUNTIME = Settings(
    "cpu", 1, 12, regime="session", runtime="onnxruntime", runtime_version="1", providers="CPUExecutionProvider",
    graph_level="all",
)  # fmt: skip
# accuracy to the search, and every kernel, expansion and depth
SIZES: Mapping[str, tuple[float, int, int, int]] = {
    "large": (0.9, 7, 6, 4), "middle": (0.8, 5, 6, 4), "small": (0.7, 3, 3, 2)
}  # fmt: skip


SPEC = SupernetSpec(recalibration_images=20, validation_views=1)


def architecture(kernel: int, expand: int, depth: int) -> tuple[str, dict[str, Any]]:
    """Key and architecture of a network whose blocks are all alike."""
    space = mobilenet_space((24, 32, 40))
    choices = {"kernel": kernel, "expand": expand, "depth": depth, "resolution": 40}
    given = [space.choice_index(i, choices[gene.name.rpartition(".")[2]]) for i, gene in enumerate(space.genes)]
    indices = space.canonical(np.array(given))
    return space.key(indices), space.architecture(indices)


def deployed(found: Mapping[str, Any]) -> DeployedNetwork:
    return SupernetKind().deployed(FoundNetwork(SPEC.to_json(), found, {}, {}))


def sized(slot: int, point: Point, parameters: float, found: Mapping[str, Any] | None = None) -> IndividualRecord:
    """An evaluated network of so many parameters."""
    plain = individual(slot, point, found)
    return replace(plain, metrics={**plain.metrics, "parameters": parameters})


@dataclass(frozen=True)
class Ended:
    """A run at its end, whose table says half of what networks take.

    ``first`` is the winner by the clock, ``second`` what is answered when it is asked again.
    """

    state: Path
    target_ms: float
    keys: Mapping[str, str]
    first: Mapping[str, Any]
    second: Mapping[str, Any]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    state = tmp_path_factory.mktemp("ended")
    replace(a_table(), settings=IN_ONNXRUNTIME, interval=Interval(0.9, 2.0, 2.0, 0.0, 24, 1)).save(
        state / "latency_lut.json"
    )
    made = {name: architecture(*sizes) for name, (_, *sizes) in SIZES.items()}
    networks = [deployed(found) for _, found in made.values()]
    true = time_deployed(networks, [0.1] * len(networks), IN_ONNXRUNTIME, runtime_of(IN_ONNXRUNTIME))
    predicted_ms = {name: time.ms / 2 for name, time in zip(made, true, strict=True)}
    rows = tuple(
        sized(slot, (made[name][0], SIZES[name][0], predicted_ms[name]), 1e6, made[name][1])
        for slot, name in enumerate(made)
    )
    # Better than "middle" in accuracy and latency, and beyond a limit: it takes nobody's place, nor keeps it from it.
    beyond = ("beyond", 0.85, (predicted_ms["middle"] + predicted_ms["small"]) / 2)
    rows += (sized(len(rows), beyond, 9e6),)
    sha256 = LatencyTable.load(state / "latency_lut.json").sha256
    provenance: dict[str, Any] = {"oracle": SPEC.to_json(), "oracle_version": "v", "latency_table_sha256": sha256}
    write_journal(state / "journal.db", [rows], **provenance, objective={"constraints": ["parameters <= 2e6"]})
    target_ms = 1.2 * true[0].ms / 2  # all are within it, as the table has it
    winner = Best(0, rows[0], 0.9, True, target_ms)
    found = [asyncio.run(end(state, winner, target_ms)) for _ in range(2)]
    return Ended(state, target_ms, {name: key for name, (key, _) in made.items()}, *found)


async def end(state: Path, winner: Best, target_ms: float) -> Mapping[str, Any]:
    limits = (Constraint("latency_ms", target_ms), Constraint("parameters", 2e6))
    objective = Objective(target_ms, constraints=limits)
    async with await JournalWriter.open(state / "journal.db") as writer:
        run = RunJournal(writer, state / "journal.db", 1)
        search = EndedSearch(run, winner, front(run, objective), objective, 0.02, most=2)
        return await time_finalists(search, lambda words, done, total: None)


def front(run: RunJournal, objective: Objective) -> Sequence[ParetoPoint]:
    """As the search has it at its end."""
    archive = ParetoArchive()
    with run.reader() as reader:
        for generation, found in reader.individuals(run.run_id):
            origin = (generation, found.slot)
            archive.add(ParetoPoint(found.architecture_key, *objective.standing(found.metrics), origin))
    return archive.front()


def events(state: Path) -> list[FinalistsTimed]:
    with JournalReader(state / "journal.db") as reader:
        return reader.events(1, FinalistsTimed)


def test_by_a_table_that_says_half_the_winner_gives_way_to_the_one_that_keeps_the_target(ended: Ended) -> None:
    (event,) = events(ended.state)  # asked twice, timed once
    assert ended.first["architecture_key"] == ended.keys["small"]
    assert ended.second["architecture_key"] == ended.keys["small"]
    by_key = {network["architecture_key"]: network for network in event.networks}
    assert list(by_key) == list(ended.keys.values())  # by every limit; the last only when the first two had missed
    small, large = (by_key[ended.keys[name]] for name in ("small", "large"))
    assert small["ms"] < ended.target_ms < large["ms"]
    assert large["ms"] == pytest.approx(2 * large["predicted_ms"], rel=0.2)
    assert event.runtime.startswith("onnxruntime ")
    assert "beyond the target" in event.note
    assert verify(ended.state / "journal.db").ok


def test_the_file_that_is_exported_is_the_one_that_was_timed(ended: Ended, tmp_path: Path) -> None:
    done = export_run(ended.state / "journal.db", tmp_path / "out")
    assert done.architecture["architecture_key"] == ended.keys["small"]
    timed = done.architecture["timed"]
    model = onnx.load(tmp_path / "out" / "model.onnx")
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["latency_measured_ms"] == f"{timed['ms']:.3f}"
    del model.metadata_props[:]
    bare = model.SerializeToString(deterministic=True)
    assert hashlib.sha256(bare).hexdigest() == timed["sha256"] == told["latency_measured_sha256"]
    assert f"measured there: {timed['ms']:.3f} ms" in (tmp_path / "out" / "README.md").read_text()
    assert "this very graph with its weights" in (tmp_path / "out" / "README.md").read_text()


def test_everybody_shows_the_network_that_took_the_place(ended: Ended, capsys: pytest.CaptureFixture[str]) -> None:
    (event,) = events(ended.state)
    ms = event.networks[-1]["ms"]
    at = ["--state", str(ended.state)]
    assert main(["pareto", *at]) == 0
    assert main(["status", *at]) in (0, 3)
    told = capsys.readouterr().out
    assert told.count(event.note) == 2
    assert told.count(f"{ms:.3f} ms (") == 2
    assert main(["pareto", "--json", *at]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["leader"]["architecture_key"] == ended.keys["small"]
    assert found["timed"]["latency_ms"] == ms
    assert main(["status", "--json", *at]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["timed"] == found["timed"]
    assert [row["leader"] for row in found["front"]] == [row["measured_ms"] == ms for row in found["front"]]


@pytest.mark.parametrize(
    "failpoint",
    ["finalists.after_journal", pytest.param("finalists.before_journal", marks=pytest.mark.crash)],
)
def test_killed_between_the_clock_and_the_export_it_ends_with_what_the_journal_holds(
    state: Path, failpoint: str
) -> None:
    settings = (*SMALL, "run.finalists=2", "run.export=true", "run.generations=1", "run.polish_evaluations=0")
    killed = subprocess.run(
        command(state, settings=settings),
        env={**child_environment(1), "RIWOA_FAILPOINT": failpoint},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    before = events(state)
    assert len(before) == (failpoint == "finalists.after_journal")
    assert run(state, settings=settings).returncode == 0
    (event,) = events(state)
    assert event in before or not before
    told = json.loads((state / "export" / "architecture.json").read_text())
    winner = told["architecture_key"] if event.leader is None else event.leader["architecture_key"]
    assert told["architecture_key"] == winner == status(state)["leader"]["architecture_key"]
    assert event.runtime.startswith("eager torch ")
    assert any(network["sha256"] == told["timed"]["sha256"] for network in event.networks)


def test_a_program_that_is_the_runtime_times_the_file(tmp_path: Path) -> None:
    program = tmp_path / "judge.py"
    program.write_text("import pathlib, sys; print(len(pathlib.Path(sys.argv[1]).read_bytes()) / 1e5)")
    settings = replace(IN_ONNXRUNTIME, runtime=COMMAND, command=f"{sys.executable} {program}")
    network = deployed(architecture(3, 3, 2)[1])
    (found,) = time_deployed([network], [1.0], settings, runtime_of(settings))
    assert found.ms == found.low_ms == found.high_ms == len(network.onnx) / 1e5


def test_an_oracle_without_networks_is_not_timed_and_nothing_is_said_of_it(tmp_path: Path) -> None:
    replace(a_table(), settings=IN_ONNXRUNTIME).save(tmp_path / "latency_lut.json")
    row = sized(0, ("a", 0.9, 1.0), 1e6)
    write_journal(tmp_path / "journal.db", [(row,)], oracle={"kind": "table", "path": "gone"})
    found = asyncio.run(end(tmp_path, Best(0, row, 0.9, True, 2.0), 2.0))
    assert found["architecture_key"] == "a"
    assert events(tmp_path) == []


def test_what_cannot_be_timed_is_journaled_with_its_reason_and_the_winner_stays(tmp_path: Path) -> None:
    row = sized(0, ("a", 0.9, 1.0), 1e6)
    write_journal(tmp_path / "journal.db", [(row,)], oracle=SPEC.to_json())
    found = asyncio.run(end(tmp_path, Best(0, row, 0.9, True, 2.0), 2.0))  # there is no table any more
    assert found["architecture_key"] == "a"
    (event,) = events(tmp_path)
    assert "latency_lut.json" in str(event.error)


def test_a_process_that_cannot_be_started_is_such_a_reason_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = sized(0, ("a", 0.9, 1.0), 1e6)
    write_journal(tmp_path / "journal.db", [(row,)], oracle=SPEC.to_json())
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    found = asyncio.run(end(tmp_path, Best(0, row, 0.9, True, 2.0), 2.0))
    assert found["architecture_key"] == "a"
    (event,) = events(tmp_path)
    assert "gone" in str(event.error)


def test_anybody_may_have_networks_timed_and_nothing_is_journaled(
    ended: Ended, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (ended.state / "journal.db").read_bytes()
    assert main(["--state", str(ended.state), "--json", "time", "0/0", "0/2", "0/0"]) == 0
    found = json.loads(capsys.readouterr().out)
    large, small = found["networks"]
    assert (large["architecture_key"], small["architecture_key"]) == (ended.keys["large"], ended.keys["small"])
    assert 0 < small["ms"] < large["ms"]
    assert large["ms"] > 1.3 * large["predicted_ms"]  # the table says half
    assert large["low_ms"] <= large["ms"] <= large["high_ms"]
    assert main(["--state", str(ended.state), "time"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("onnxruntime")
    assert [line.split()[0] for line in lines[2:3]] == [
        "0/0" if ended.first["slot"] == 0 else f"0/{ended.first['slot']}"
    ]
    assert (ended.state / "journal.db").read_bytes() == before
