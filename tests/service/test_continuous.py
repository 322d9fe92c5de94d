"""``riwoad --continuous``: real searches of the embedded supernet, digits as the fresh pictures, fog as their drift."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from PIL import Image

from riwoa.ctl.status import collect
from riwoa.datasets.digits import load_digits_task
from riwoa.hardware.build import build_table_in_child
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.runtime import Runtime
from riwoa.ipc.child import child_environment
from riwoa.paths import StatePaths
from riwoa.service.champions import Champions
from riwoa.service.continuous import Plan, Rounds, latest_run
from riwoa.supernet.geometry import Backbone
from riwoa.validate.corruptions import corrupt, frost_procedural
from riwoa_storage.reader import JournalReader

SETTINGS = (
    "run.generations=1",
    "run.polish_evaluations=1",
    "run.finalists=0",
    "oracle.workers=1",
    "search.population=4",
    "search.offspring=4",
    "search.riwoa.first=4",
    "cognition.provider=none",
    "oracle.supernet.validation_views=1",
    "oracle.supernet.recalibration_images=100",
)


def digits(root: Path, *, foggy: bool = False) -> Path:
    task = load_digits_task()
    canvases = task.canvas("test", 0).transpose(0, 2, 3, 1)
    pictures = corrupt(canvases, "fog", 5, 0, frost_procedural()) if foggy else canvases
    for number, (pixels, label) in enumerate(zip(pictures, task.labels("test").tolist(), strict=True)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / str(label) / f"{number}.png")
    return root


def begin(state: Path, fresh: Path) -> subprocess.Popen[bytes]:
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [sys.executable, "-m", "riwoa.service", "--state", str(state), *sets, "--continuous", str(fresh)]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, env=child_environment(1), stdout=nowhere, stderr=nowhere)


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end_s
        assert process.poll() is None
        time.sleep(0.2)


def record(state: Path) -> list[dict[str, Any]]:
    """As it is on the disk, also while somebody writes."""
    file = state / "champions/record.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def decided(state: Path) -> list[str]:
    return [row["decision"] for row in record(state)]


def test_it_finds_a_champion_and_when_that_falls_a_challenger_whatever_kills_it(tmp_path: Path) -> None:
    state, fresh = tmp_path / "state", digits(tmp_path / "fresh")
    state.mkdir()
    table = state / "latency_lut.json"
    asyncio.run(build_table_in_child(table, Backbone(0.25, 10), (24, 32, 40), Runtime(), repeats=10, sessions=0))
    process = begin(state, fresh)
    until(lambda: (state / "champions/watch.json").exists(), process)
    assert decided(state) == ["searching", "promoted"]
    assert latest_run(StatePaths(state)) == (1, True)
    look = json.loads((state / "champions/watch.json").read_text())
    gate = record(state)[1]["gate"]["challenger"]
    assert look["now"]["pictures"] + gate["pictures"] == 400  # no picture is in both halves
    shown = collect(StatePaths(state))["champion"]
    assert shown is not None
    assert shown["watched"] is not None
    assert shown["name"] == record(state)[1]["champion"]
    assert (shown["watched"]["accuracy"], shown["watched"]["verdict"]) == (look["now"]["value"], "holds")
    assert min(look["now"]["pictures"], gate["pictures"]) > 150
    assert (state / "champion/model.onnx").is_file()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    shutil.rmtree(fresh)
    digits(fresh, foggy=True)
    champion = (state / "champion").resolve()
    process = begin(state, fresh)
    until(lambda: latest_run(StatePaths(state)) == (2, False), process)
    process.kill()
    process.wait()
    assert (state / "champion").resolve() == champion
    process = begin(state, fresh)
    until(lambda: len(decided(state)) == 4, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert decided(state)[:3] == ["searching", "promoted", "searching"]
    assert "below" in record(state)[2]["why"]
    look = json.loads((state / "champions/watch.json").read_text())
    gate = record(state)[3]["gate"]
    assert look["now"]["pictures"] + gate["challenger"]["pictures"] == 400
    assert gate["challenger"]["pictures"] == gate["champion"]["pictures"]
    assert (gate["difference"]["p"] < 0.05) or decided(state)[3] == "refused"
    assert latest_run(StatePaths(state)) == (2, True)  # the killed search was gone on with, no third was begun
    with Champions(StatePaths(state)) as champions:
        assert champions.champion is not None
        deployed = champions.files(champions.champion.champion)
        again = Rounds(Plan(StatePaths(state), fresh, None, ["false"], ["false"], None), threading.Event()).due(
            champions
        )
    assert again is None  # the same pictures call for one search
    assert (state / "champion").resolve() == deployed.resolve()


@pytest.mark.parametrize("arguments", [("--nightly", "21:00-07:00"), ("--new-run",)])
def test_it_goes_round_by_itself(arguments: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "riwoa.service", "--state", str(tmp_path), "--continuous", str(tmp_path)]
    done = subprocess.run([*command, *arguments], env=child_environment(1), capture_output=True, text=True, timeout=60)
    assert done.returncode == 64
    assert "without --nightly and --new-run" in done.stderr


def test_without_a_folder_of_pictures_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "riwoa.service", "--state", str(tmp_path), "--continuous", str(tmp_path / "no")]
    done = subprocess.run(command, env=child_environment(1), capture_output=True, text=True, timeout=60)
    assert done.returncode == 64
    assert "there is no such folder" in done.stderr


def test_a_drifted_table_is_measured_anew_and_a_search_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    state.mkdir()
    paths = StatePaths(state)
    runtime = Runtime(networks=10)
    build = asyncio.run(
        build_table_in_child(paths.latency_table, Backbone(0.25, 10), (24, 32, 40), runtime, repeats=10, sessions=0)
    )
    halved = [replace(network, ms=network.ms / 2) for network in build.known]
    old = replace(build, known=tuple(halved))
    old.save(paths.latency_table)
    options = "--networks 10 --repeats 10 --sessions 0"
    measure = [sys.executable, "-m", "riwoa.ctl", "lut", "build", "--state", str(state), *options.split()]
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    search = [sys.executable, "-m", "riwoa.service.main", "--foreground", "--state", str(state), *sets]
    plan = Plan(paths, tmp_path, None, search, measure, 0.0)
    load = 0.9 * (os.cpu_count() or 1)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    rounds = Rounds(plan, threading.Event())
    with structlog.testing.capture_logs() as said:
        assert rounds.due_to_drift() is None
        assert rounds.due_to_drift() is None
    assert [line["reason"] for line in said] == ["the machine is busy: 0.90 runnable threads a core"]
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert Rounds(replace(plan, drift_every_s=3600.0), threading.Event()).due_to_drift() is None  # not yet
    due = rounds.due_to_drift()
    assert due is not None
    assert due.why.startswith("the latency table has drifted: every latency and the target: networks take ")
    assert record(state)[-1]["gate"]["drift"]["table_sha256"] == old.sha256
    paths.latency_table.rename(paths.latency_table.with_suffix(".previous.json"))  # killed while it measured
    again = Rounds(plan, threading.Event())
    with Champions(paths) as champions:
        assert again.due(champions) == due
    assert again._search(due) == 0
    assert latest_run(paths) == (1, True)
    new = LatencyTable.load(paths.latency_table)
    assert LatencyTable.load(paths.latency_table.with_suffix(".previous.json")).sha256 == old.sha256
    assert new.known[0].ms > 1.3 * old.known[0].ms
    with JournalReader(paths.journal) as reader:
        run = reader.latest_run()
    assert run is not None
    assert run.provenance["latency_table_sha256"] == new.sha256
    assert not again._needs_table(due)
