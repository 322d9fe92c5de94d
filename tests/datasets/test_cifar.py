"""CIFAR-100's archive: read as it is, never executed, and refused in one line when it is something else."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from riwoa.datasets import cifar
from riwoa.datasets.catalogue import check_task, load_task
from riwoa.datasets.cifar import Cifar100Task, find_cifar100, load_cifar100
from riwoa.errors import InputError
from riwoa.supernet.spec import SupernetSpec
from tests.support.cifar_files import archive, pictures, python2_pickle, python3_pickle, small_archive
from tests.support.official import official_data

PIXELS, LABELS = pictures(10, seed=0)
GOOD = python3_pickle(PIXELS, LABELS.tolist())


def test_both_encodings_a_plain_tar_and_the_folder_give_the_same_pictures(tmp_path: Path) -> None:
    new = load_cifar100(archive(tmp_path / "new.tar.gz", {"meta": b"not read", "train": GOOD, "test": GOOD}))
    assert new.train_images.shape == (1000, 32, 32, 3)
    assert np.array_equal(new.train_images.transpose(0, 3, 1, 2).reshape(1000, 3072), PIXELS)
    assert new.train_labels.dtype == np.int64
    assert np.array_equal(new.test_labels, LABELS)
    official = python2_pickle(PIXELS, LABELS.tolist())
    arrays = pickle.dumps({"fine_labels": LABELS.astype(np.int32), "data": np.asfortranarray(PIXELS)}, 3)
    (tmp_path / "plain.tar").write_bytes(gzip.decompress((tmp_path / "new.tar.gz").read_bytes()))
    (tmp_path / cifar.FOLDER).mkdir()
    for name in ("train", "test"):
        (tmp_path / cifar.FOLDER / name).write_bytes(arrays)
    places = (
        archive(tmp_path / "old.tar.gz", {"test": official, "train": official}),
        tmp_path / "plain.tar",
        tmp_path / cifar.FOLDER,
        tmp_path,
    )
    assert {load_cifar100(place).sha256 for place in places} == {new.sha256}


@pytest.mark.parametrize(
    ("prefix", "mode"),
    [
        ("./cifar-100-python/", "w:gz"),
        ("data/cifar-100-python/", "w:xz"),
        ("", "w:bz2"),
        ("./", "w:"),
        ("my pictures/", "w:gz"),
    ],
)
def test_an_archive_is_read_however_it_was_packed_again(
    tmp_path: Path, prefix: str, mode: Literal["w:gz", "w:xz", "w:bz2", "w:"]
) -> None:
    pixels, labels = pictures(1, seed=0)
    content = python3_pickle(pixels, labels.tolist())
    expected = load_cifar100(archive(tmp_path / "new.tar.gz", {"train": content, "test": content})).sha256
    path = tmp_path / "again"
    with tarfile.open(path, mode) as tar:
        tar.addfile(_info(f"elsewhere/{cifar.FOLDER}/train", 0, type=tarfile.DIRTYPE))
        for name in ("._train", "meta", "test", "train"):
            tar.addfile(_info(prefix + name, len(content)), io.BytesIO(content))
    for name in ("CIFAR.TGZ", "a.npz", "again"):
        path = path.rename(tmp_path / name)
        assert load_cifar100(path).sha256 == expected
    folder = tmp_path / "folder"
    folder.mkdir()
    path.rename(folder / "CIFAR-100-python.TGZ")
    assert load_cifar100(folder).sha256 == expected


def test_train_and_test_of_different_folders_are_not_put_together(tmp_path: Path) -> None:
    members = (_info("a/train", len(GOOD)), GOOD), (_info("b/test", len(GOOD)), GOOD)
    with pytest.raises(InputError, match="there is no cifar-100-python/test"):
        load_cifar100(_tar(tmp_path / "a.tar.gz", *members))


def test_images_in_an_npz_file_are_read_whatever_it_is_called(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for name in ("a.npz", "A.NPZ", "a", "a.tar"):
        with (tmp_path / name).open("wb") as stream:
            np.savez(stream, train_images=images, validation_images=images, validation_labels=np.array([0, 1]))
        assert load_task(str(tmp_path / name)).labels("validation").tolist() == [0, 1]


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "train").write_bytes(GOOD)
    os.mkfifo(tmp_path / "test")
    os.mkfifo(tmp_path / "cifar-100-python.tar.gz")
    assert find_cifar100(tmp_path) is None
    with pytest.raises(InputError, match="there is no image file"):
        load_task(str(tmp_path / "test"))


def test_a_folder_of_something_else_is_not_taken_for_cifar(tmp_path: Path) -> None:
    assert find_cifar100(tmp_path) is None
    (tmp_path / "train").mkdir()  # as an ImageNet-style folder has it
    (tmp_path / "test").mkdir()
    assert find_cifar100(tmp_path) is None
    (tmp_path / "a.npz").touch()
    assert find_cifar100(tmp_path / "a.npz") is None
    with pytest.raises(InputError, match=r"no CIFAR-100 at .*; name cifar-100-python\.tar\.gz"):
        load_cifar100(tmp_path)


class _Command:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def _object_array() -> bytes:
    return python3_pickle(np.array([None] * 10, dtype=object), [0] * 10)


def _declares(opcode: bytes, size: bytes) -> bytes:
    return b"\x80\x02}(" + opcode + size + b"abc"


HOSTILE = {
    "another opcode": b"\x80\x04\x95" + struct.pack("<Q", 2**60),
    "a huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40),
    "a huge string": _declares(b"T", struct.pack("<i", 2**31 - 1)),
    "huge bytes": _declares(b"B", struct.pack("<I", 2**32 - 1)),
    "a huge memo index": _declares(b"r", struct.pack("<I", 2**32 - 1)),
    "an attribute of a function": b"\x80\x02c_codecs\nencode\n}U\x01aK\x01sb.",
    "attributes of a class": b"\x80\x02cnumpy\ndtype\nN}U\x01aK\x01s\x86b.",
    "bytes made of a number": b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",
    "an object array": _object_array(),
    "no dict": pickle.dumps([1], 2),
    "no pickle": b"\x00" * 100,
    "nothing": b"",
    "truncated": GOOD[: len(GOOD) // 2],
    "nested": b"\x80\x02" + b"(" * 100_000 + b".",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pickle_is_refused_at_once(content: bytes, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", {"train": content, "test": GOOD})
    start_s = time.monotonic()
    with pytest.raises(InputError, match=r"not an intact CIFAR-100|should be uint8"):
        load_cifar100(path)
    assert time.monotonic() - start_s < 2


def test_a_pickle_that_calls_a_function_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    for protocol in (2, 3, 4):
        content = pickle.dumps({b"data": _Command(f"touch {proof}"), b"fine_labels": [0]}, protocol)
        path = archive(tmp_path / "a.tar.gz", {"train": content, "test": GOOD})
        with pytest.raises(InputError, match=r"names posix.system|unexpected opcode"):
            load_cifar100(path)
    assert not proof.exists()


def test_a_text_that_is_made_bytes_of_over_and_over_is_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20
    again = b"h\x00h\x01\x85R" * 100  # the remembered function of the remembered text
    content = b"\x80\x02](c_codecs\nencode\nq\x00" + text + b"q\x01\x85R" + again + b"e."
    path = archive(tmp_path / "a.tar.gz", {"train": content, "test": GOOD})
    tracemalloc.start()
    with pytest.raises(InputError, match="makes more bytes than it holds"):
        load_cifar100(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 32 * 2**20


WRONG = {
    "few columns": (PIXELS[:, :3000], LABELS.tolist(), "uint8 \\(1000, 3000\\), should be"),
    "three dimensions": (PIXELS.reshape(-1, 3, 1024), LABELS.tolist(), "not an intact"),
    "floats": (PIXELS[:20].astype(np.float32), [0] * 20, "not an intact"),
    "wide pixels": (PIXELS[:20].astype(np.int32), [0] * 20, "data is int32"),
    "no pictures": (PIXELS[:0], [], "should be uint8"),
    "a label too large": (PIXELS, [*LABELS.tolist()[:-1], 100], "0 to 99"),
    "a negative label": (PIXELS, [*LABELS.tolist()[:-1], -1], "0 to 99"),
    "a huge label": (PIXELS, [*LABELS.tolist()[:-1], 2**70], "0 to 99"),
    "a truth value": (PIXELS, [*LABELS.tolist()[:-1], True], "0 to 99"),
    "a label less": (PIXELS, LABELS.tolist()[:-1], "1000 numbers"),
    "words": (PIXELS, "apple", "1000 numbers"),
}


@pytest.mark.parametrize(("pixels", "labels", "complaint"), WRONG.values(), ids=WRONG)
def test_arrays_that_are_not_cifars_are_named(pixels: Any, labels: Any, complaint: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", {"test": GOOD, "train": python3_pickle(pixels, labels)})
    with pytest.raises(InputError, match=complaint):
        load_cifar100(path)


def _tar(path: Path, *infos: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for info, content in infos:
            tar.addfile(info, io.BytesIO(content))
    return path


def _info(name: str, size: int, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def test_members_elsewhere_are_never_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    good = ((_info(f"{cifar.FOLDER}/{name}", len(GOOD)), GOOD) for name in ("train", "test"))
    escape = _info("../escaped", 4), b"evil"
    link = _info("link", 0, type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""
    path = _tar(tmp_path / "in" / "a.tar.gz", escape, link, *good)
    before = sorted(tmp_path.rglob("*"))
    assert len(load_cifar100(path).train_labels) == 1000
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_in_place_of_a_member_is_refused(tmp_path: Path) -> None:
    link = _info(f"{cifar.FOLDER}/train", 0, type=tarfile.SYMTYPE, linkname="/etc/passwd")
    path = _tar(tmp_path / "a.tar.gz", (link, b""), (_info(f"{cifar.FOLDER}/test", len(GOOD)), GOOD))
    with pytest.raises(InputError, match="no plain file"):
        load_cifar100(path)


def test_a_small_file_that_unpacks_to_more_than_any_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "MAX_UNPACKED_BYTES", 4 << 20)
    zeros = bytes(5 << 20)
    other = _info("a name", len(zeros)), zeros
    long_name = _info("././@LongLink", len(zeros), type=tarfile.GNUTYPE_LONGNAME), zeros
    member = _info(f"{cifar.FOLDER}/train", len(zeros)), zeros
    for first in (other, long_name, member):
        with pytest.raises(InputError, match=r"at most 4 MiB|more than 4 MiB"):
            load_cifar100(_tar(tmp_path / "a.tar.gz", first, (_info(f"{cifar.FOLDER}/test", len(GOOD)), GOOD)))
    header = _info(f"{cifar.FOLDER}/train", 2**50).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(header + GOOD)
    with pytest.raises(InputError, match="at most 4 MiB"):
        load_cifar100(tmp_path / "a.tar")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.98])
def test_a_truncated_archive_is_refused(share: float, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", {"train": GOOD, "test": GOOD})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match="fetch cifar-100-python"):
        load_cifar100(path)


def test_an_archive_without_the_test_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no cifar-100-python/test"):
        load_cifar100(archive(tmp_path / "a.tar.gz", {"train": GOOD}))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Cifar100Task:
    found = load_task(str(small_archive(tmp_path_factory.mktemp("cifar"))))
    assert isinstance(found, Cifar100Task)
    return found


def test_a_tenth_of_every_class_validates_and_nothing_is_in_two_splits(task: Cifar100Task) -> None:
    train, validation = task.indices("train"), task.indices("validation")
    assert sorted([*train, *validation]) == list(range(2000))
    assert np.array_equal(np.bincount(task.labels("validation")), [2] * 100)
    assert np.array_equal(task.pixels("validation"), task.pictures.train_images[validation])
    assert len(task.labels("test")) == 200


def test_pictures_are_standardised_by_the_training_pixels(task: Cifar100Task) -> None:
    exact = task.pictures.train_images.astype(np.float64) / 255
    np.testing.assert_allclose(task.mean, exact.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(task.std, exact.std((0, 1, 2)), rtol=1e-9)
    images, labels = task.views("test", 32, 8)
    expected = (task.pictures.test_images / 255 - np.array(task.mean)) / np.array(task.std)
    np.testing.assert_allclose(images, expected.transpose(0, 3, 1, 2), atol=1e-5)
    assert np.array_equal(labels, task.pictures.test_labels)
    halved = expected.reshape(200, 16, 2, 16, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(task.views("test", 16, 1)[0], halved, atol=1e-5)


def test_recalibration_never_shows_a_validation_picture(task: Cifar100Task) -> None:
    images = task.recalibration(32, 1800)
    assert np.array_equal(task.recalibration(32, 7), images[:7])
    mean, std = (np.array(moment)[:, None, None] for moment in (task.mean, task.std))
    back = np.rint((images * std + mean) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert sorted(i.tobytes() for i in back) == sorted(i.tobytes() for i in task.pixels("train"))


def test_a_head_of_too_few_classes_is_refused(task: Cifar100Task) -> None:
    check_task(task, SupernetSpec(n_classes=100))
    with pytest.raises(InputError, match=r"n_classes"):
        check_task(task, SupernetSpec(n_classes=10))


def test_the_official_archive_holds_what_it_is_known_for() -> None:
    task = Cifar100Task.open(official_data("cifar-100/cifar-100-python.tar.gz"))
    assert task.class_names[:2] == ("apple", "aquarium_fish")
    assert np.array_equal(np.bincount(task.labels("train")), [450] * 100)
    assert np.array_equal(np.bincount(task.labels("validation")), [50] * 100)
    assert np.array_equal(np.bincount(task.labels("test")), [100] * 100)
    np.testing.assert_allclose(task.mean, (0.50708, 0.48655, 0.44092), atol=1e-5)


def test_classes_have_the_archives_names_where_it_gives_a_hundred(tmp_path: Path) -> None:
    names = [f"thing_{i}".encode() for i in range(100)]
    train, test = pictures(10, 0), pictures(1, 1)
    members = {name: python3_pickle(p, labels.tolist()) for name, (p, labels) in (("train", train), ("test", test))}
    for given, expected in ((names, "thing_7"), (names[:99], "7"), ([b"x"] * 100, "7"), (None, "7")):
        meta = b"garbage" if given is None else pickle.dumps({b"fine_label_names": given}, 2)
        place = archive(tmp_path / "cifar-100-python.tar.gz", {**members, "meta": meta})
        assert Cifar100Task.open(place).class_names[7] == expected
