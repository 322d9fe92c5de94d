"""From a folder of pictures to a network that runs without riwoa, by the quick start's own commands."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from riwoa.ipc.child import child_environment
from tests.folders import make_photos

# Nothing of what is done is left out; all of it is short.
SHORT = {
    "RIWOA_TRAIN__EPOCHS": "2",
    "RIWOA_TRAIN__START": "scratch",
    "RIWOA_TRAIN__WIDTH": "0.1",
    "RIWOA_LATENCY__REPEATS": "3",
    "RIWOA_LATENCY__NETWORKS": "12",
    "RIWOA_RUN__GENERATIONS": "2",
    "RIWOA_RUN__POLISH_EVALUATIONS": "2",
    "RIWOA_SEARCH__POPULATION": "6",
    "RIWOA_ORACLE__WORKERS": "1",
}


def commands_of_the_quick_start() -> list[list[str]]:
    page = (files("riwoa") / "data/handbook/quickstart.md").read_text()
    block = page.split("in three commands")[1].split("```sh\n")[1].split("```")[0]
    return [line.split("#")[0].split() for line in block.splitlines()]


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("one_core")
def test_three_commands_lead_from_a_folder_to_a_network_whose_numbers_hold_without_riwoa(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", classes=4, per_class=30)
    environment = {**child_environment(1), **SHORT, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    commands = commands_of_the_quick_start()
    assert [verb for _, verb, *_ in commands] == ["init", "train", "run"]
    for _, *words in commands:
        command = [sys.executable, "-m", "riwoa.ctl", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    export = tmp_path / ".riwoa" / "export"
    told = json.loads((export / "architecture.json").read_text())

    # A program that knows only the export's README sees the held-out pictures as the report says.
    listing = [sys.executable, "-m", "riwoa.ctl", "pictures", "test", "--classes"]
    listed = subprocess.run(listing, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    held_out = [line.split("\t") for line in listed.stdout.splitlines()]
    assert {named for _, named in held_out} == set(photos.class_names)
    assert "`riwoactl pictures test`" in (export / "README.md").read_text()
    program = re.findall(r"```python\n(.*?)```", (export / "README.md").read_text(), re.DOTALL)[0]
    pictures = [picture for picture, _ in held_out]
    isolated = [
        sys.executable,
        "-I",
        "-c",
        'import sys; sys.modules["riwoa"] = sys.modules["torch"] = None\n' + program,
    ]
    seen = subprocess.run([*isolated, *pictures], cwd=export, capture_output=True, text=True, check=False)
    assert seen.returncode == 0, seen.stderr
    labels = [line.rsplit(": ", 1)[1].rsplit(" ", 2)[0] for line in seen.stdout.splitlines()]
    correct = sum(label == named for label, (_, named) in zip(labels, held_out, strict=True))
    reported = told["exported"]["test"]
    assert reported["images"] == len(pictures)
    assert abs(correct - reported["correct"]) <= 1
    assert f"on {len(pictures)} pictures that chose nothing" in done.stdout
    assert "  measured     " in done.stdout

    # What it is worth by itself, on the same pictures, is asked by one more command.
    command = [sys.executable, "-m", "riwoa.ctl", "validate", "--out", "validated", "--json"]
    command += ["--epochs", "1", "--images", "4", "--jobs", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["judged_on"], report["random_matches"]) == ("test", "latency_ms")
    assert list(report["networks"]) == ["winner", "largest", "random", "inherited"]
    assert report["networks"]["inherited"]["test"] == reported
    assert {network["test"]["images"] for network in report["networks"].values()} == {len(pictures)}

    # Its time is the table's, as far as three visits of each operator beside other tests can tell.
    ms = median_ms(export / "model.onnx")
    assert told["journaled"]["metrics"]["latency_ms"] == pytest.approx(ms, rel=0.5)
    # And by the clock, unless the machine was too busy for one: the very file, a minute earlier, beside other tests.
    assert told["timed"] is None or told["timed"]["ms"] == pytest.approx(ms, rel=0.5)


def median_ms(model: Path) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    images = np.zeros([1, *given.shape[1:]], dtype=np.float32)
    times_ms = []
    for _ in range(300):
        start_ns = time.thread_time_ns()
        session.run(None, {given.name: images})
        times_ms.append((time.thread_time_ns() - start_ns) / 1e6)
    return statistics.median(times_ms)
