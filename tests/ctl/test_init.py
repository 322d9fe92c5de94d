"""``riwoactl init``: what it sees in a folder, what it writes, and that it replaces nothing of anybody else's."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riwoa.config.loading import load
from riwoa.ctl import main
from riwoa.paths import client_state, daemon_state
from tests.folders import Photos, make_photos, make_split_photos


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory of a user of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("RIWOA_STATE", "RIWOA_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return make_photos(tmp_path / "photos", 3, 24, source="digits")


def written(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``init --json`` says, and the file that it wrote."""
    capsys.readouterr()
    assert main(["init", *arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    return said, tomllib.loads(Path(said["file"]).read_text(encoding="utf-8"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["init", *arguments]) in (64, 66)
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("riwoactl:")]) == 1
    return lines[-1]


def test_what_is_odd_in_a_folder_is_counted_and_named(photos: Photos, capsys: pytest.CaptureFixture[str]) -> None:
    said, _ = written(capsys, str(photos.root))
    data = said["data"]
    assert data["class_names"] == list(photos.class_names)
    assert data["held_out"] == ["test", "validation"]
    assert {"JPEG", "PNG", "WEBP", "GIF"} == set(data["formats"])
    odd = (
        "turned by EXIF",
        "transparent",
        "CMYK",
        "grey of 16 bits",
        "of a palette",
        "moving, the first frame is taken",
    )
    assert {word: data["converted"][word] for word in odd} == dict.fromkeys(odd, 1)
    assert set(data["left_out"]) == set(photos.unreadable)
    told = " ".join(data["remarks"])
    assert all(part in told for part in (*photos.foreign, "hidden", "nothing yet"))
    assert data["copies"] == []  # the copy lies in one split with its original
    assert said["next"] == ["riwoactl train", "riwoactl run"]
    assert said["device"]["cores"] > 0
    assert "riwoa_cifar100_w0.25" in said["supernets"]


def test_copies_between_given_splits_and_between_classes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_split_photos(tmp_path / "photos", 2, {"train": 6, "val": 3, "test": 3}).root
    first, second = sorted(folder.name for folder in (root / "train").iterdir())
    picture = next((root / "train" / first).iterdir()).read_bytes()
    (root / "test" / first / "seen before.png").write_bytes(picture)
    (root / "train" / second / "of another class.png").write_bytes(picture)
    said, _ = written(capsys, str(root))
    assert len(said["data"]["copies"]) == 2
    assert said["data"]["held_out"] == []
    assert main(["init", str(root)]) == 0
    assert "exact copies in two splits or two classes, 2: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [("20ms", 20.0), ("0.5ms", 0.5), (".5 MS", 0.5), ("2s", 2000.0), ("500us", 0.5), ("500µs", 0.5), ("auto", "auto")],
)
def test_the_file_names_what_was_asked_for_and_a_start_takes_it(
    photos: Photos, capsys: pytest.CaptureFixture[str], given: str, milliseconds: float | str
) -> None:
    _, content = written(capsys, str(photos.root), "--latency", given, "--minutes", "3", "--seed", "5")
    assert content["objective"] == {"latency_ms": milliseconds}
    assert content["oracle"]["supernet"] == {"data": str(photos.root), "checkpoint": "trained", "data_seed": 5}
    assert content["train"] == {"minutes": 3}
    assert "latency" not in content
    config = load(Path("riwoa.toml"), (), {}).config
    assert (config.oracle.supernet.n_classes, config.objective.latency_ms) == (3, milliseconds)


def test_the_runtime_is_written_where_it_is_named(photos: Photos, capsys: pytest.CaptureFixture[str]) -> None:
    _, content = written(capsys, str(photos.root), "--runtime", "onnxruntime")
    assert content["latency"] == {"runtime": "onnxruntime"}
    _, content = written(capsys, str(photos.root), "--precision", "int8")
    assert content["latency"] == {"precision": "int8"}


@pytest.mark.parametrize("given", ["20", "fast", "0ms", "-1ms", "1e99s", "nanms", "ms", "20 parsecs", ""])
def test_a_time_without_a_unit_or_of_nonsense_is_refused_with_an_example(
    photos: Photos, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    said = refused(capsys, str(photos.root), f"--latency={given}")
    assert "20ms" in said or "more than 0 ms" in said
    assert not Path("riwoa.toml").exists()


def test_what_init_wrote_is_written_anew_and_what_was_edited_stays(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    written(capsys, str(photos.root), "--latency", "20ms")
    _, content = written(capsys, str(photos.root), "--latency", "5ms")
    assert content["objective"]["latency_ms"] == 5.0
    edited = Path("riwoa.toml").read_text(encoding="utf-8") + "# mine\n"
    Path("riwoa.toml").write_text(edited, encoding="utf-8")
    assert "was edited since" in refused(capsys, str(photos.root))
    assert Path("riwoa.toml").read_text(encoding="utf-8") == edited
    Path("riwoa.toml").write_text("[run]\nseed = 1\n")
    assert "was not written by `riwoactl init`" in refused(capsys, str(photos.root))
    assert "move it away, or name another --out" in refused(capsys, str(photos.root))


def test_another_place_is_written_and_named_in_what_comes_next(
    photos: Photos, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said, _ = written(capsys, str(photos.root), "--out", str(tmp_path / "other.toml"))
    assert said["next"][1] == f"riwoactl run --config {tmp_path / 'other.toml'}"
    assert not Path(".riwoa").exists()


def test_what_follows_keeps_its_state_beside_the_file(photos: Photos, capsys: pytest.CaptureFixture[str]) -> None:
    users = client_state(None).directory
    written(capsys, str(photos.root))
    assert client_state(None).directory == daemon_state(None).directory == os.path.realpath(".riwoa") != users


@pytest.mark.parametrize("out", [".", "/dev/null", "nowhere/riwoa.toml"])
def test_a_place_that_is_no_file_is_refused(photos: Photos, capsys: pytest.CaptureFixture[str], out: str) -> None:
    assert "--out" in refused(capsys, str(photos.root), "--out", out)


def test_a_folder_that_is_none_or_holds_nothing_is_refused(
    photos: Photos, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "there is no folder" in refused(capsys, str(tmp_path / "nowhere"))
    assert "no class folder with pictures" in refused(capsys, str(photos.root / photos.class_names[0]))
    (tmp_path / "empty").mkdir()
    assert "no class folder with pictures" in refused(capsys, str(tmp_path / "empty"))
    os.symlink("loop", tmp_path / "loop")
    refused(capsys, str(tmp_path / "loop"))
    (tmp_path / "a.txt").write_text("no pictures")
    assert "no intact .npz file" in refused(capsys, str(tmp_path / "a.txt"))
    for file in sorted(photos.root.glob("*/*"))[::3]:
        file.write_bytes(b"cut")
    assert "are no pictures that can be read, at most 10 % may be left out" in refused(capsys, str(photos.root))


def test_names_of_any_kind_are_written_so_that_they_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / 'my "photos" \\ \x7f größer\n'
    make_photos(root, 2, 6, odd=False, source="digits")
    (root / "sunflower").rename(root / "\x1b[2Jbridge ' \"")
    _, content = written(capsys, str(root))
    assert content["oracle"]["supernet"]["data"] == str(root)
    assert main(["init", str(root)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    undecodable = tmp_path / os.fsdecode(b"\xff")
    root.rename(undecodable)
    assert "link to it by another name" in refused(capsys, str(undecodable))


def test_files_that_would_fill_the_memory_or_hold_a_reader_up_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_photos(tmp_path / "photos", 2, 30, odd=False, source="digits").root
    Image.new("1", (20_000, 20_000)).save(root / "apple" / "bomb.png")
    os.mkfifo(root / "apple" / "pipe.jpg")
    os.symlink("circle", root / "sunflower" / "circle")
    said, _ = written(capsys, str(root))
    assert "pixels" in said["data"]["left_out"]["apple/bomb.png"]
    assert "pipe.jpg (no regular file)" in " ".join(said["data"]["remarks"])
    assert "circle" in " ".join(said["data"]["remarks"])


def test_an_npz_file_is_taken_as_a_folder_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=np.arange(40) % 2)
    said, content = written(capsys, str(tmp_path / "a.npz"))
    assert content["oracle"]["supernet"]["data"] == str(tmp_path / "a.npz")
    assert said["data"]["pictures"]["test"] == {"0": 3, "1": 3}
    np.savez(tmp_path / "b.npz", train_images=images, validation_images=images, validation_labels=np.arange(40) % 2)
    assert "no labels for its training images" in refused(capsys, str(tmp_path / "b.npz"))


def test_run_asks_for_a_configuration_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 64
    assert "riwoactl init FOLDER" in capsys.readouterr().err
