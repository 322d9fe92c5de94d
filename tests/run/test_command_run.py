"""The daemon with a judge and a space of the user's: killed and continued, limited, checked; and the handbook's own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from riwoa.ctl.help import read_page
from riwoa.ipc.child import child_environment
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare
from tests.service.test_service import command, ctl, daemon, run, wait_for

SPACE = """
[[genes]]
name = "depth"
choices = [1, 2, 3, 4]

[[genes]]
name = "width"
choices = [8, 16, 24, 32, 40, 48, 56, 64]

[[genes]]
name = "act"
kind = "nominal"
choices = ["relu", "silu", "tanh"]

[[genes]]
name = "skip"
choices = [0, 1, 2]
active_if = { gene = "act", among = ["silu", "tanh"] }
"""
JUDGE = """
import os, time

def judge(architecture, fidelity, seed):
    time.sleep(0.01)
    size = architecture["depth"] * architecture["width"]
    accuracy = size / 300 + {"relu": 0.0, "silu": 0.05, "tanh": 0.02}[architecture["act"]] * architecture.get("skip", 1)
    answer = {"accuracy": accuracy, "latency_ms": size / 10, "energy_mj": size / 20 + 3 * architecture["depth"]}
    if fidelity == "early":
        answer["accuracy"] *= 0.8
    return answer
"""


@pytest.fixture
def settings(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "space.toml").write_text(SPACE)
    (tmp_path / "judge_of_sizes.py").write_text(JUDGE)
    return (
        "oracle.kind=command",
        "oracle.command.function=judge_of_sizes:judge",
        f"oracle.command.path={tmp_path}",
        f"oracle.command.space={tmp_path / 'space.toml'}",
        "oracle.workers=1",
        "run.generations=8",
        "run.polish_evaluations=6",
        "search.population=6",
        "cognition.provider=scripted",
        "cognition.role=slot",
        'oracle.rungs=["early"]',
        'objective.constraints=["energy_mj <= 9"]',
        "objective.latency_ms=12.0",
    )


def best(state: Path) -> dict[str, float]:
    with JournalReader(state / "journal.db") as reader:
        last = reader.last_generation(1)
    assert last is not None
    assert last.leader is not None
    return dict(last.leader["metrics"])


def test_killed_and_continued_it_ends_in_the_same_digest_within_every_limit(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    assert run(tmp_path / "whole", settings=settings).returncode == 0
    killed = subprocess.Popen(command(tmp_path / "killed", settings=settings), env=child_environment(1))
    while killed.poll() is None:
        try:
            with JournalReader(tmp_path / "killed/journal.db") as reader:
                if reader.generation_count(1) >= 3:
                    break
        except Exception:  # not there yet
            time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = run(tmp_path / "killed", settings=settings)
    assert done.returncode == 0, done.stderr
    found = compare(tmp_path / "whole/journal.db", tmp_path / "killed/journal.db")
    assert found.same, found.message
    metrics = best(tmp_path / "whole")
    assert metrics["latency_ms"] <= 12
    assert metrics["energy_mj"] <= 9
    winner = json.loads((tmp_path / "whole/export/architecture.json").read_text())
    assert winner["journaled"]["metrics"]["energy_mj"] == metrics["energy_mj"]
    nobody_knows = [*settings, 'objective.constraints=["watts <= 3"]']
    with daemon(tmp_path / "whole", "--new-run", settings=nobody_knows):  # nor does what was stored of the run before
        seen = wait_for(tmp_path / "whole", lambda s: s["state"] == "unhealthy")
    assert "the oracle gave no watts, which [objective] names" in json.dumps(seen)
    checks(tmp_path)


def checks(folder: Path) -> None:
    """What ``riwoactl check`` says of architectures that keep the limits, miss one, or are not known."""
    state = folder / "killed"
    with JournalReader(state / "journal.db") as reader:
        met = [i.architecture for _, i in reader.individuals(1)]
    every = ({"depth": depth, "width": width, "act": "relu"} for depth in (4, 3) for width in range(64, 0, -8))
    (folder / "wide.json").write_text(json.dumps(next(one for one in every if one not in met)))
    unknown = ctl(state, "check", str(folder / "wide.json"))
    assert unknown.returncode == 3
    assert "energy_mj <= 9 mJ    -  not known" in unknown.stdout
    winner = ctl(state, "check", str(state / "export/architecture.json"), "--json")
    data = json.loads(winner.stdout)
    assert (winner.returncode, data["evaluated"], [limit["met"] for limit in data["limits"]]) == (0, True, [True, True])
    assert [ctl(state, "check", place).returncode for place in ("7777/0", "no.json")] == [66, 64]
    (folder / "wide.json").write_text('{"depth": 5}')
    assert "has no choice 5" in ctl(state, "check", str(folder / "wide.json")).stderr


def test_any_metric_may_be_lowered_and_is_shown_as_what_it_is(tmp_path: Path, settings: tuple[str, ...]) -> None:
    module = tmp_path / "judge_of_sizes.py"  # which has no accuracy to give
    module.write_text(module.read_text().replace('"accuracy": accuracy', '"f1": accuracy'))
    wanted = ('objective.constraints=["f1 >= 0.2"]', "objective.minimize=energy_mj", "objective.latency_ms=none")
    lowered = (
        *settings,
        "oracle.rungs=[]",
        "cognition.provider=none",
        "run.generations=12",
        "run.export=false",
        *wanted,
    )
    done = run(tmp_path / "state", "--foreground", settings=lowered)
    assert done.returncode == 0, done.stderr
    metrics = best(tmp_path / "state")
    assert metrics["f1"] >= 0.2
    assert metrics["energy_mj"] <= 8.0
    told = [done.stdout, *(ctl(tmp_path / "state", verb).stdout for verb in ("status", "pareto"))]
    for text in told:
        assert f"energy_mj {metrics['energy_mj']:g} mJ, the best of" in text
        assert f"f1 >= 0.2: {metrics['f1']:.6g}, met" in text
        (line,) = [line for line in text.splitlines() if "the best of" in line]
        assert "%" not in line
    exported = ctl(tmp_path / "state", "export")
    assert f"energy_mj {metrics['energy_mj']:g} mJ, the best of" in exported.stdout


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.mark.timeout(300)
def test_the_handbooks_own_example_runs_killed_and_continued(tmp_path: Path) -> None:
    page = read_page("space").partition("## A program of your own")[2].partition("## What is wanted")[0]
    space, config = blocks(page, "toml")
    (program,) = blocks(page, "python")
    for name, text in (("space.toml", space), ("riwoa.toml", config), ("train.py", program)):
        (tmp_path / name).write_text(text)
    small = ("run.generations=1", "search.population=4", "run.polish_evaluations=0", "oracle.workers=1")
    sets = [part for setting in small for part in ("--set", setting)]
    line = [sys.executable, "-m", "riwoa.service", "--config", "riwoa.toml", "--state", "state", *sets]
    started = subprocess.Popen(line, cwd=tmp_path, env=child_environment(1), stderr=subprocess.DEVNULL)
    while started.poll() is None and not (tmp_path / "state/journal.db").exists():
        time.sleep(0.05)
    time.sleep(1)
    started.kill()
    started.wait()
    done = subprocess.run(line, cwd=tmp_path, env=child_environment(1), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert best(tmp_path / "state")["accuracy"] > 0.5
    check = [sys.executable, "-m", "riwoa.ctl", "--state", "state", "check", "0/3"]
    told = subprocess.run(check, cwd=tmp_path, env=child_environment(1), capture_output=True, text=True, check=False)
    assert "parameters <= 4,000 " in told.stdout
