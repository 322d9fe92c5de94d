"""A folder of pictures as a task: OFA's crop, decoded once, and refused in one line when it cannot be judged on."""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riwoa.datasets import decoding as pictures
from riwoa.datasets.arrays import ByteArray
from riwoa.datasets.catalogue import check_every_split, check_task, task_of
from riwoa.datasets.decoding import cropped
from riwoa.datasets.folder import FolderTask
from riwoa.datasets.image_file import IMAGENET
from riwoa.errors import InputError, StateDirectoryError
from riwoa.oracle.supernet import supernet_spec
from riwoa.oracle.workers import pool_settings
from riwoa.supernet.spec import SupernetSpec

WNIDS = ("n01440764", "n01443537", "n02119789")


def picture(seed: int, size: tuple[int, int] = (40, 52)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def folder(root: Path, each: int = 4, train: int = 6) -> Path:
    for c, wnid in enumerate(reversed(WNIDS)):  # written in another order than they are counted
        for split, count in (("val", each), ("train", train)):
            place = root / split / wnid
            place.mkdir(parents=True)
            for i in range(count):
                suffix = ("JPEG", "png", "jpg")[i % 3]
                picture(100 * c + i + (50 if split == "train" else 0)).save(place / f"{i}.{suffix}")
    return root


def spec_of(root: Path, **fields: Any) -> SupernetSpec:
    defaults = {"n_classes": 3, "recalibration_images": 5, "resolutions": (16, 24)}
    return SupernetSpec(data=str(root), **{**defaults, **fields})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "riwoa" / "pictures"


def loaded(root: Path, **fields: Any) -> FolderTask:
    spec = spec_of(root, **fields)
    task = task_of(spec)
    check_task(task, spec)
    assert isinstance(task, FolderTask)
    return task


def test_images_are_ofas_crops_standardised_with_the_labels_of_their_sorted_folders(tmp_path: Path) -> None:
    task = loaded(folder(tmp_path / "data"))
    images, labels = task.views("validation", 24, 8)
    assert images.shape == (12, 3, 24, 24)
    assert sorted(labels.tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    mean, std = (np.array(IMAGENET[name])[:, None, None] for name in ("mean", "std"))
    for i, name in enumerate(task._found["validation"].names):
        assert name.startswith(WNIDS[labels[i]])
        crop = cropped(Image.open(tmp_path / "data" / "val" / name).convert("RGB"), 24)
        expected = (crop.transpose(2, 0, 1) / 255 - mean) / std
        np.testing.assert_allclose(images[i : i + 1][0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "resolution", "resized"),
    [((40, 52), 24, (28, 36)), ((52, 40), 24, (36, 28)), ((28, 31), 24, (28, 31)), ((301, 200), 224, (385, 256))],
)
def test_the_crop_is_the_middle_of_the_picture_resized_by_its_shorter_side(
    size: tuple[int, int], resolution: int, resized: tuple[int, int]
) -> None:
    """By hand what torchvision documents: the longer side is cut to a whole number, halves round to even."""
    image = picture(1, size)
    small = image if min(size) == math.ceil(resolution / 0.875) else image.resize(resized, Image.Resampling.BILINEAR)
    left, top = round((resized[0] - resolution) / 2), round((resized[1] - resolution) / 2)
    expected = np.asarray(small)[top : top + resolution, left : left + resolution]
    assert np.array_equal(cropped(image, resolution), expected)


def test_grey_transparent_and_palette_pictures_become_three_channels(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    odd = {"L": "1.png", "RGBA": "1.png", "P": "1.png", "CMYK": "0.JPEG"}
    for mode, wnid in zip(odd, (*WNIDS, WNIDS[0]), strict=True):
        picture(0).convert(mode).save(root / "val" / wnid / odd[mode])
    task = loaded(root)
    images, _ = task.views("validation", 16, 8)
    mean, std = (np.array(IMAGENET[name])[:, None, None] for name in ("mean", "std"))
    for image, name in zip(images[:], task._found["validation"].names, strict=True):
        crop = cropped(Image.open(root / "val" / name).convert("RGB"), 16)
        assert np.allclose(image, (crop.transpose(2, 0, 1) / 255 - mean) / std, atol=1e-5), name


def test_without_a_folder_val_the_classes_lie_in_the_folder_itself(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    plain = loaded(root / "val", recalibration_data=str(root / "train"))
    assert plain.sha256 == loaded(root).sha256
    assert np.array_equal(plain.recalibration(16, 5)[:], loaded(root).recalibration(16, 5)[:])


def test_a_smaller_choice_is_the_beginning_of_a_larger_one_and_the_seed_changes_it(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    whole, few = loaded(root), loaded(root, validation_images=5)
    images, labels = few.views("validation", 16)
    assert np.array_equal(images[:], whole.views("validation", 16)[0][:5])
    assert np.array_equal(labels, whole.labels("validation")[:5])
    assert len(whole.views("validation", 16)[0]) == 12  # all there are, though 2,000 were asked for
    other = loaded(root, validation_images=5, data_seed=1)
    assert other.sha256 != few.sha256 != whole.sha256
    assert not np.array_equal(other.views("validation", 16)[0][:], images[:])


def test_recalibration_takes_training_images_only(tmp_path: Path) -> None:
    task = loaded(folder(tmp_path / "data"), recalibration_images=18)
    judged = {i.tobytes() for i in task.views("validation", 16)[0][:]}
    training = {i.tobytes() for i in task.recalibration(16, 18)[:]}
    assert len(training) == 18
    assert judged.isdisjoint(training)
    assert len(task.recalibration(16, 5)) == 5


def test_the_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    root = folder(tmp_path / "data")
    first = loaded(root)
    expected, sha256 = first.views("validation", 24)[0][:], first.sha256
    monkeypatch.setattr(pictures, "opened", lambda _: pytest.fail("a picture was decoded"))
    again = loaded(root)
    assert np.array_equal(again.views("validation", 24)[0][:], expected)
    assert again.sha256 == sha256
    assert not list(cache.glob("*.tmp"))


def test_another_resolution_is_added_beside_and_changes_no_hash(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    first = loaded(root)
    sha256, images = first.sha256, first.views("validation", 16)[0][:]
    wider = loaded(root, resolutions=(16, 24, 32))
    assert wider.views("validation", 32)[0].shape == (12, 3, 32, 32)
    assert wider.sha256 == sha256
    assert np.array_equal(wider.views("validation", 16)[0][:], images)
    assert first.views("validation", 20)[0].shape == (12, 3, 20, 20)  # one that the specification did not name


def test_a_changed_file_is_decoded_again_and_changes_the_hash(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    before = loaded(root).sha256
    file = root / "val" / WNIDS[0] / "1.png"
    picture(999).save(file)
    assert loaded(root).sha256 != before


def test_a_copy_elsewhere_with_other_times_has_the_same_hash(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "one"), folder(tmp_path / "other")
    for file in other.rglob("*.png"):
        os.utime(file, (1, 1))
    assert loaded(one).sha256 == loaded(other).sha256


@pytest.mark.parametrize("harm", ["cut pixels", "no pixels", "cut manifest", "foreign manifest"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path, harm: str) -> None:
    root = folder(tmp_path / "data")
    expected = loaded(root).views("validation", 16)[0][:]
    for file in cache.glob("*.16.rgb" if "pixels" in harm else "*.json"):
        if harm == "no pixels":
            file.unlink()
        else:
            file.write_bytes(b'{"kept": [1]}' if harm == "foreign manifest" else file.read_bytes()[:-1])
    assert np.array_equal(loaded(root).views("validation", 16)[0][:], expected)


def _worker(spec: SupernetSpec, answers: Any) -> None:
    task = task_of(spec)
    answers.put((task.sha256, task.views("validation", 24, 1)[0][:].tobytes()))


def test_processes_that_start_at_once_get_the_same_whole_pictures(tmp_path: Path, cache: Path) -> None:
    spec = spec_of(folder(tmp_path / "data", each=12))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_worker, args=(spec, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    found = {answers.get(timeout=30) for _ in processes}
    for process in processes:
        process.join(timeout=30)
    assert len(found) == 1
    assert not list(cache.glob("*.tmp"))


def declared_png(side: int) -> bytes:
    """A few bytes that declare a square picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def strip_png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (1, 400_000)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no picture that Pillow knows"),
        (b"no picture", "no picture that Pillow knows"),
        (b"\xff\xd8\xff\xe0 cut", ""),  # Pillow's words depend on its version
        (declared_png(12_000), "12000x12000 pixels are more than"),
        (declared_png(30_000), "Image size (900000000 pixels) exceeds limit"),
        (strip_png(), "1x400000 pixels are too narrow a picture"),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "no picture that Pillow knows"),
    ],
    ids=["empty", "text", "cut JPEG", "large", "a bomb", "a strip", "GIF"],
)
def test_a_few_unreadable_images_are_left_out_and_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes, why: str
) -> None:
    root = folder(tmp_path / "data", each=17)
    bad = root / "val" / WNIDS[1] / "4.png"
    bad.write_bytes(content)
    task = loaded(root, resolutions=(128,) if "narrow" in why else (16,))
    assert len(task.labels("validation")) == 50
    assert sorted(task.labels("validation").tolist()) == [0] * 17 + [1] * 16 + [2] * 17
    told = capfd.readouterr().err
    assert f"left out 1 of 51 images: {WNIDS[1]}/4.png ({why}" in told
    assert loaded(root, resolutions=task.resolutions).sha256 == task.sha256


def test_too_many_unreadable_images_are_refused_with_their_names(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", each=17)
    for i in (1, 4):
        (root / "val" / WNIDS[1] / f"{i}.png").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"2 of the first \d+ images cannot be read, at most 2 % of 51") as caught:
        loaded(root)
    assert f"{WNIDS[1]}/1.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_that_vanishes_between_listing_and_reading_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    task = task_of(spec_of(root))
    (root / "val" / WNIDS[0] / "0.JPEG").unlink()
    with pytest.raises(InputError, match=r"cannot read .*0\.JPEG"):
        task.labels("validation")


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        (
            {"n_classes": 10},
            r"val has 3 class folders \(n01440764, .*the supernet has 10 classes.*oracle.supernet.n_classes",
        ),
        ({"n_classes": 2}, "3 class folders .* the supernet has 2 classes"),
        ({"recalibration_images": 19}, "18 training images are too few"),
        ({"split": "test"}, "no test split"),
    ],
)
def test_what_does_not_fit_the_supernet_is_refused(tmp_path: Path, fields: dict[str, Any], hint: str) -> None:
    with pytest.raises(InputError, match=hint) as caught:
        loaded(folder(tmp_path / "data"), **fields)
    assert "\n" not in str(caught.value)


def test_without_training_images_the_folder_is_refused_and_the_way_out_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    with pytest.raises(InputError, match=r"no folder train.*oracle\.supernet\.recalibration_data"):
        loaded(root / "val")
    for judging in (root / "val", root, root / "val" / WNIDS[0]):
        with pytest.raises(InputError, match="must not be recalibrated on the images that judge"):
            loaded(root, recalibration_data=str(judging))
    with pytest.raises(InputError, match=r"recalibration_data = .*nowhere"):
        loaded(root, recalibration_data=str(tmp_path / "nowhere"))
    (root / "val").rename(root / "validation")
    with pytest.raises(InputError, match="none called val"):
        loaded(root)


def test_class_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", each=0)
    with pytest.raises(InputError, match="hold no picture"):
        loaded(root)


def test_a_test_folder_is_a_test_split(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    for wnid in WNIDS:
        (root / "test" / wnid).mkdir(parents=True)
        picture(7).save(root / "test" / wnid / "a.png")
    task = loaded(root, split="test")
    assert task.splits == ("train", "validation", "test")
    assert sorted(task.views("test", 16)[1].tolist()) == [0, 1, 2]


def test_a_test_folder_of_plain_files_is_no_test_split_and_blocks_nothing(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    (root / "test").mkdir()
    picture(7).save(root / "test" / "ILSVRC2012_test_00000001.JPEG")
    assert loaded(root).splits == ("train", "validation")
    with pytest.raises(InputError, match="no test split"):
        loaded(root, split="test")


def test_a_search_decodes_no_picture_of_a_split_that_it_does_not_judge_on(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    for wnid in WNIDS:
        (root / "test" / wnid).mkdir(parents=True)
        (root / "test" / wnid / "a.png").write_bytes(b"cut")
    loaded(root)
    with pytest.raises(InputError, match="cannot be read"):
        loaded(root, split="test")
    with pytest.raises(InputError, match="cannot be read"):
        check_every_split(task_of(spec_of(root)), spec_of(root))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    with pytest.raises(StateDirectoryError, match="XDG_CACHE_HOME"):
        loaded(folder(tmp_path / "data"))


def test_the_configuration_names_the_folder_and_the_workers_get_time_to_decode_it(tmp_path: Path) -> None:
    from riwoa.config.loading import load

    root = folder(tmp_path / "data")
    sets = [
        f"oracle.supernet.data={root}",
        "oracle.supernet.validation_images=7",
        "oracle.supernet.data_seed=3",
        "oracle.supernet.n_classes=3",
    ]
    oracle = load(None, [*sets, f"oracle.supernet.recalibration_data={root / 'train'}"], {}).config.oracle
    spec = supernet_spec(oracle)
    assert (spec.data, spec.validation_images, spec.data_seed) == (str(root), 7, 3)
    assert spec.recalibration_data == str(root / "train")
    assert SupernetSpec.from_json(spec.to_json()) == spec
    assert pool_settings(oracle).start_timeout_s > pool_settings(load(None, [], {}).config.oracle).start_timeout_s


def test_a_slice_of_the_images_reads_no_more_than_itself() -> None:
    pixels: ByteArray = np.zeros((1000, 8, 8, 3), np.uint8)
    images = pictures.StandardisedImages(pixels, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    assert images.shape == (1000, 3, 8, 8)
    found = images[10:13]
    assert found.shape == (3, 3, 8, 8)
    assert found.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(found[0, :, 0, 0], [-2.0, -1.0, -0.5])
