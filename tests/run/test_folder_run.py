"""A run that a folder of pictures judges: two workers decode it once, a kill changes nothing, a winner is exported."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from riwoa.datasets.arrays import Split
from riwoa.datasets.digits import load_digits_task
from riwoa_storage.replay import compare, verify
from tests.bench.support import a_table
from tests.service.test_service import ctl, daemon, evaluating, one_line, run, status, wait_for


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Views of the embedded digits as a user would keep photographs; the folders are the classes."""
    root, task = tmp_path_factory.mktemp("digits"), load_digits_task()
    splits: tuple[tuple[str, Split, int], ...] = (("train", "train", 120), ("val", "validation", 200))
    for folder, split, count in splits:
        for i, (pixels, label) in enumerate(zip(task.canvas(split, 0)[:count], task.labels(split), strict=False)):
            (root / folder / f"class{label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(
                root / folder / f"class{label}" / f"{i}.png"
            )
    return root


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "latency_lut.json"
    a_table().save(path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "riwoa" / "pictures"


def settings(digits: Path, *others: str) -> Sequence[str]:
    return (
        f"oracle.supernet.data={digits}",
        "oracle.supernet.resolutions=[24]",
        "oracle.supernet.validation_images=150",
        "oracle.supernet.recalibration_images=100",
        "oracle.workers=2",
        "run.generations=3",
        "run.polish_evaluations=4",
        "search.population=6",
        "cognition.provider=none",
        *others,
    )


RACED = ("oracle.rungs=[40]", "run.generations=9", "oracle.rung_confidence=0.5")


@pytest.mark.timeout(240)
def test_two_workers_share_the_decoded_pictures_and_a_kill_changes_no_digest(
    digits: Path, table: Path, tmp_path: Path, cache: Path
) -> None:
    whole, state = tmp_path / "whole", tmp_path / "state"
    for place in (whole, state):
        place.mkdir()
        shutil.copy(table, place / "latency_lut.json")
    done = run(whole, "--foreground", settings=settings(digits, *RACED))
    assert done.returncode == 0, done.stderr
    assert "on 100 pictures that chose nothing" in done.stdout  # half of what judges, held out
    assert "on 100 validation images" in done.stdout
    assert len(list(cache.glob("*.rgb"))) == 3  # training, validation and test
    with daemon(state, settings=settings(digits, *RACED)) as process:
        wait_for(state, evaluating)
        time.sleep(1.5)
        process.send_signal(signal.SIGKILL)
        process.wait()
    shutil.rmtree(cache)  # it is a cache: nothing may depend on its being there
    assert run(state, settings=settings(digits, *RACED)).returncode == 0
    assert status(state)["evaluations"]["dropped"] > 0
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, found.message
    assert verify(state / "journal.db").ok
    exported = json.loads((state / "export" / "architecture.json").read_text())
    assert exported["exported"]["validation"]["images"] == 100
    assert exported["test"]["accuracy"] == exported["exported"]["test"]["accuracy"]
    assert exported["exported"]["validation"]["accuracy"] > 0.3  # chance is 0.1
    assert "standard error of its accuracy" in ctl(state, "pareto").stdout


def test_a_folder_of_other_classes_is_refused_in_one_line(digits: Path, table: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    shutil.copy(table, state / "latency_lut.json")
    refused = run(state, settings=settings(digits / "val" / "class0"))
    assert refused.returncode == 66
    assert "no class folder" in one_line(refused.stderr)
    fewer = tmp_path / "fewer"
    shutil.copytree(digits, fewer)
    for split in ("train", "val"):
        shutil.rmtree(fewer / split / "class3")
    refused = run(state, settings=settings(fewer))
    assert refused.returncode == 66
    assert "has 9 class folders" in one_line(refused.stderr)
