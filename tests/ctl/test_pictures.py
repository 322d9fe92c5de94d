"""``riwoactl pictures``: the pictures of a split, by a configuration or by the latest run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from riwoa.ctl import main
from riwoa.datasets.catalogue import task_of
from riwoa.datasets.spec import DataSpec
from riwoa.supernet.spec import SupernetSpec
from tests.folders import make_photos
from tests.support.tiny_pictures import CLASSES, tiny_file

from .support import individual, write_journal


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["pictures", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_folders_pictures_are_paths_in_one_split_each_with_their_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photos = make_photos(tmp_path / "photos", classes=3, per_class=12)
    config = tmp_path / "riwoa.toml"
    data = f'oracle.supernet.data = "{photos.root}"\n'
    config.write_text(f'{data}oracle.supernet.checkpoint = "trained"\noracle.supernet.resolutions = [16]\n')
    found = {split: listed(capsys, split, "--config", str(config)) for split in ("train", "validation", "test")}
    together = [path for paths in found.values() for path in paths]
    assert len(set(together)) == len(together)
    assert len(found["train"]) > len(found["test"]) > 2
    for path in together:
        Image.open(path).load()
    pairs = [line.split("\t") for line in listed(capsys, "test", "--classes", "--config", str(config))]
    assert [path for path, _ in pairs] == found["test"]
    assert all(Path(path).parent.name == name for path, name in pairs)


def test_of_a_file_of_arrays_they_are_rows_and_those_of_the_latest_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tiny_file(tmp_path / "tiny.npz")
    spec = SupernetSpec(data=str(file), n_classes=CLASSES, data_rules=2)
    write_journal(tmp_path / "journal.db", [(individual(0, ("k", 0.5, 1.0)),)], oracle=spec.to_json())
    capsys.readouterr()
    assert main(["pictures", "test", "--state", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["pictures"]
    arrays, task = np.load(file), task_of(DataSpec(data=str(file), n_classes=CLASSES, data_rules=2))
    assert len(rows) == len(task.labels("test"))
    for row, label in zip(rows, task.labels("test"), strict=True):
        array, index = row["picture"].removeprefix(f"{file}:").rstrip("]").split("[")
        assert arrays[array.replace("images", "labels")][int(index)] == label
        assert row["class"] == task.class_names[label]


def test_what_has_no_such_pictures_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RIWOA_CONFIG", raising=False)
    assert main(["pictures", "test", "--state", str(tmp_path)]) == 66
    assert "name --config" in capsys.readouterr().err
    assert main(["pictures", "test", "--set", "oracle.kind=predictor"]) == 66
    assert "judged on no pictures" in capsys.readouterr().err
