"""Every file of a folder of pictures is read, whatever it is called, or counted and named; nothing is cut to white."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riwoa.datasets import decoding as pictures
from riwoa.datasets.catalogue import task_of
from riwoa.datasets.folder import FolderTask
from riwoa.datasets.image_file import IMAGENET
from riwoa.errors import InputError
from riwoa.supernet.spec import SupernetSpec
from tests.support.picture_files import picture_folder

CLASS = Path("val/class001")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "riwoa" / "pictures"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 30 judging pictures: one file may be left out, two may not."""
    return picture_folder(tmp_path / "data", 2, 3, 30)


def loaded(root: Path, **fields: Any) -> FolderTask:
    task = task_of(SupernetSpec(data=str(root), **{"n_classes": 2, "resolutions": (16,), **fields}))
    assert isinstance(task, FolderTask)
    return task


def pixels_of(task: FolderTask, name: str) -> Any:
    """One judging picture as it was decoded, by the name of its file."""
    return task.views("validation", 16)[0][:][task._found["validation"].names.index(name)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("WEBP", "{}.webp"),
        ("TIFF", "{}.TIFF"),
        ("BMP", "{}.bmp"),
        ("PNG", "{}"),
        ("PNG", "{}.txt"),
        ("PPM", "{}.JPG"),
        ("PNG", "{}.PNG"),
        ("GIF", "{}.dat"),
    ],
)
def test_a_class_of_pictures_of_any_kind_and_name_is_read(root: Path, kind: str, name: str) -> None:
    for file in sorted((root / CLASS).iterdir()):
        with Image.open(file) as picture:
            file.unlink()
            picture.save(file.with_name(name.format(file.stem)), kind, **({"lossless": True} if kind == "WEBP" else {}))
    task = loaded(root)
    assert np.bincount(task.labels("validation")).tolist() == [30, 30]


def test_what_a_picture_holds_does_not_depend_on_what_its_file_is_called(root: Path) -> None:
    before = pixels_of(loaded(root), "class001/7.png")
    (root / CLASS / "7.png").rename(root / CLASS / "7.docx")
    assert np.array_equal(pixels_of(loaded(root), "class001/7.docx"), before)


def deep(file: Path, grey: Any, kind: str) -> None:
    """The picture of 8 bits again with more of them, black and white where they were."""
    if kind == "16 bits":
        Image.fromarray(grey.astype(np.uint16) * 257).save(file)
    elif kind == "16 bits TIFF":
        Image.fromarray(grey.astype(np.uint16) * 257).save(file, "TIFF")
    elif kind == "16 bits PGM":
        head = f"P5 {grey.shape[1]} {grey.shape[0]} 65535\n".encode()
        file.write_bytes(head + (grey.astype(">u2") * 257).astype(">u2").tobytes())
    else:
        Image.fromarray((grey / 255).astype(np.float32)).save(file, "TIFF")


@pytest.mark.parametrize("kind", ["16 bits", "16 bits TIFF", "16 bits PGM", "floats"])
def test_grey_of_more_than_8_bits_is_scaled(root: Path, kind: str) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 12), np.uint8)
    file = root / CLASS / "7.png"
    Image.fromarray(grey).save(file)
    expected = pixels_of(loaded(root), "class001/7.png")
    deep(file, grey, kind)
    assert np.array_equal(pixels_of(loaded(root), "class001/7.png"), expected)


def test_numbers_of_32_bits_of_which_none_is_white_are_counted_and_named(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.arange(108, dtype=np.int32).reshape(9, 12)).save(root / CLASS / "7.png", "TIFF")
    assert len(loaded(root).labels("validation")) == 59
    assert "class001/7.png (numbers of 32 bits, and nothing says which is white" in capfd.readouterr().err
    Image.fromarray(np.full((9, 12), 200, np.float32)).save(root / CLASS / "8.png", "TIFF")
    with pytest.raises(InputError, match=r"2 of the first .* cannot be read"):
        loaded(root).labels("validation")


def test_the_hash_of_usual_pictures_is_what_it_was_and_of_deep_ones_another(root: Path) -> None:
    """Accuracies that were measured on pictures cut to white must not be taken for those of scaled ones."""

    def as_before(task: FolderTask) -> str:
        contents = []
        for split, place in (("train", "train"), ("validation", "val")):
            files = [root / place / name for name in task._found[split].names]  # type: ignore[index]
            digest = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
            contents.append(hashlib.sha256(digest).hexdigest())
        facts = ["ofa-validation-1", metadata.version("pillow"), IMAGENET, *contents]
        facts.append(task.labels("validation").tolist())
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    task = loaded(root)
    assert task.sha256 == as_before(task)
    deep(root / CLASS / "7.png", np.zeros((9, 12), np.uint8), "16 bits")
    task = loaded(root)
    assert task.sha256 != as_before(task)


def test_what_another_decoder_left_in_the_cache_is_not_used(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing, sha256 = loaded(root)._found["validation"], loaded(root).sha256
    key = listing.key
    monkeypatch.setattr(pictures, "_DECODER_VERSION", 1)
    again = loaded(root)
    assert again._found["validation"].key != key
    assert again.sha256 == sha256


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link in circles": (lambda p: p.symlink_to(p.name), "Too many levels of symbolic links"),
    "a link to nothing": (lambda p: p.symlink_to("nowhere"), "a link to nothing"),
    "a pipe": (os.mkfifo, "no regular file"),
    "a link to a device": (lambda p: p.symlink_to("/dev/zero"), "no regular file"),
    "a folder": (Path.mkdir, "a folder in a class folder"),
    "text": (lambda p: p.write_text("who took these pictures, and when"), "no picture that Pillow knows"),
    "nothing": (Path.touch, "no picture that Pillow knows"),
    "a thumbnail cache": (
        lambda p: p.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)),
        "no picture that Pillow knows",
    ),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ODD)
def test_one_odd_thing_in_a_class_is_counted_and_named(
    root: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, why = ODD[kind]
    sha256 = loaded(root).sha256
    make(root / CLASS / "odd")
    assert loaded(root).sha256 == sha256  # the choice among the pictures is the same
    assert f"val: left out 1 of 61 files: class001/odd ({why}" in capfd.readouterr().err


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "a folder"])
def test_an_odd_thing_beside_the_classes_is_named(root: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, why = ODD[kind]
    make(root / "val" / "loop")
    assert len(loaded(root).labels("validation")) == 60
    assert f"val: left out 1 beside the class folders: loop ({why}" in capfd.readouterr().err


def test_more_than_a_few_odd_things_are_refused_with_their_names(root: Path) -> None:
    for i in (1, 2):
        (root / CLASS / f"{i}.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(64))
    with pytest.raises(InputError, match=r"2 of 62 files are no pictures .* at most 2 % .*class001/1\.heic") as caught:
        loaded(root)
    assert "\n" not in str(caught.value)


def test_a_class_that_has_no_picture_and_one_that_is_not_trained_on_are_told(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for file in (root / CLASS).iterdir():
        file.unlink()
    (root / "train" / "class001").rename(root / "train" / "klass001")
    loaded(root)
    told = capfd.readouterr().err
    assert "val: 1 class has no picture: class001; " in told
    assert "train lacks 1 of its classes: class001; " in told
    assert "train has 1 more: klass001" in told


def test_hidden_files_and_pictures_of_no_class_are_named(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for place in (root / "val", root / CLASS):
        (place / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    shutil.copy(root / CLASS / "1.png", root / "val")
    assert len(loaded(root).labels("validation")) == 60
    told = capfd.readouterr().err
    assert "left out 2 hidden: .DS_Store, class001/.DS_Store" in told
    assert "beside the class folders: 1.png (a picture of no class)" in told


@pytest.mark.timeout(20)
def test_what_became_a_pipe_after_it_was_listed_holds_nobody_up(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = loaded(root)
    (root / CLASS / "7.png").unlink()
    os.mkfifo(root / CLASS / "7.png")
    assert len(task.labels("validation")) == 59
    assert "class001/7.png (no regular file)" in capfd.readouterr().err


def test_reasons_are_the_same_from_one_reading_to_the_next(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An address in one made a wider set of resolutions "images that changed while they were read"."""
    (root / CLASS / "7.png").write_text("no picture")
    told = set()
    for resolutions in ((16,), (16, 24), (16, 24, 32)):
        task = loaded(root, resolutions=resolutions)
        assert len(task.views("validation", resolutions[-1])[1]) == 59
        told.add(capfd.readouterr().err)
    assert len(told) == 1
    assert "7.png (no picture that Pillow knows" in (line := told.pop())
    assert not re.search("0x[0-9a-f]{4}", line)


def test_a_picture_that_declares_absurd_sizes_is_named_whatever_it_is_called(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (root / CLASS / "huge.dat").write_bytes(b"P6 30000 30000 255\n")
    loaded(root)
    assert "huge.dat (Image size (900000000 pixels) exceeds limit" in capfd.readouterr().err


def test_names_reach_the_terminal_without_what_they_do_to_it(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / CLASS / "\x1b[2J\n\u202e").write_text("no picture")
    (root / "val" / "class000" / "\udcff").write_text("no picture")
    for i in range(60):
        shutil.copy(root / CLASS / "0.png", root / CLASS / f"more{i}.png")
    loaded(root)
    told = capfd.readouterr().err
    assert r"class001/\x1b[2J \u202e (no picture that Pillow knows" in told
    assert r"class000/\udcff (no picture that Pillow knows" in told
    assert "\x1b" not in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everywhere")
def test_a_folder_that_may_not_be_read_is_named(root: Path) -> None:
    (root / CLASS).chmod(0)
    with pytest.raises(InputError, match=r"cannot read the folder .*class001 \(Permission denied\)"):
        loaded(root)
    (root / CLASS).chmod(0o700)
    root.chmod(0)
    with pytest.raises(InputError, match=r"cannot read the folder .*data \(Permission denied\)"):
        loaded(root)
    root.chmod(0o700)


def test_a_class_folder_that_is_a_link_to_nothing_is_named_where_classes_are_counted(root: Path) -> None:
    (root / "val" / "class002").symlink_to(root / "elsewhere")
    with pytest.raises(InputError, match=r"2 class folders .*left out beside them: class002 \(a link to nothing\)"):
        loaded(root, n_classes=3)
