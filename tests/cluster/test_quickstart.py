"""The handbook's way from one machine to three, word for word, with three Ray processes on this one."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from riwoa.ctl.help import read_page
from riwoa.ipc.child import child_environment
from tests.service.test_service import SMALL, table
from tests.support.ray_nodes import free_port

__all__ = ["table"]  # a fixture
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
PAGE = read_page("cluster")
MARK = "QUICKSTART_OF"


def block(after: str) -> list[str]:
    """The lines of the first code block after some words."""
    found = re.search(r"^```\n(.*?)^```", PAGE[PAGE.index(after) :], re.MULTILINE | re.DOTALL)
    assert found is not None
    return found.group(1).splitlines()


@pytest.fixture
def environment(tmp_path: Path, _needs_ray: None) -> Iterator[dict[str, str]]:
    """A user's own: a home that knows no token, and commands by their names. What it starts ends with the test."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    modules = {"riwoad": "riwoa.service", "riwoactl": "riwoa.ctl", "ray": "ray.scripts.scripts"}
    for name, module in modules.items():
        start = "from ray.scripts.scripts import main; main()" if name == "ray" else None
        how = f"-c {shlex.quote(start)}" if start else f"-m {module}"
        (bin_ / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {how} "$@"\n')
        (bin_ / name).chmod(0o755)
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
    mark = str(tmp_path)
    yield {**child_environment(1), "HOME": str(tmp_path), "PATH": path, MARK: mark, "RAY_USAGE_STATS_ENABLED": "0"}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                process.kill()


def test_the_quick_start_works_word_for_word(environment: dict[str, str], tmp_path: Path, table: Path) -> None:
    state, port = tmp_path / "state", free_port()
    state.mkdir()
    shutil.copy(table, state / "latency_lut.json")
    alone = " ".join(PAGE.split()).partition("give each `")[2].partition("`")[0]
    assert alone.startswith("--num-cpus=1")
    small = " ".join(f"--set {shlex.quote(setting)}" for setting in SMALL if "workers" not in setting)

    def here(line: str) -> str:
        line = line.replace("FIRST", "127.0.0.1").replace("6379", str(port))
        if line.startswith("ray start"):
            return f"{line} {alone} --object-store-memory=80000000 </dev/null"
        if line.startswith("riwoad"):
            return f"{line} --state {state} {small}"
        if line.startswith("riwoactl status"):
            return f"{line} --state {state}"
        return line

    lines = [*map(here, block("Then a head, and on each of")), *map(here, block("Look at it, and search"))]
    assert sum(line.startswith("ray start") for line in lines) == 3
    log = tmp_path / "said.log"
    with log.open("wb") as said:
        done = subprocess.run(
            ["bash", "-ec", "\n".join(lines)], env=environment, stdout=said, stderr=said, timeout=360, check=False
        )
    text = log.read_text()
    assert done.returncode == 0, text
    assert "room for 3 at once" in " ".join(text.split())
    assert all(f"node {name}" in text for name in ("first", "second", "third"))
    report = subprocess.run(
        ["riwoactl", "report", "--json", "--state", str(state)], env=environment, capture_output=True, check=True
    )
    assert {node["node"] for node in json.loads(report.stdout)["nodes"]} <= {"first", "second", "third"}
    assert json.loads(report.stdout)["nodes"]
