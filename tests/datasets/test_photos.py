"""A user's pictures by rules 2: splits held out of each class, training pictures with labels, every picture upright."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from riwoa.datasets.arrays import Split
from riwoa.datasets.catalogue import LabelledPixels, check_task, task_of
from riwoa.datasets.folder import FolderTask
from riwoa.datasets.spec import DataSpec
from riwoa.datasets.splits import folder_splits
from riwoa.errors import InputError
from riwoa.supernet.batches import training_labels
from riwoa.supernet.spec import SupernetSpec
from tests.folders import Photos, make_photos, make_split_photos

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return make_photos(tmp_path / "photos", 3, 20, source="digits")


def spec_of(root: Path, **fields: Any) -> DataSpec:
    return DataSpec(data=str(root), **{"n_classes": 0, "data_rules": 2, "resolutions": (16, 24), **fields})


def loaded(root: Path, **fields: Any) -> FolderTask:
    spec = spec_of(root, **fields)
    task = task_of(spec)
    assert isinstance(task, FolderTask)
    return task


def names(task: FolderTask) -> dict[Split, set[str]]:
    return {split: set(files.names) for split, files in task._files.items()}


def test_a_flat_folder_is_split_by_class_and_every_readable_picture_is_in_one_split(photos: Photos) -> None:
    task = loaded(photos.root)
    assert task.splits == SPLITS
    assert task.class_names == photos.class_names
    counts = {split: np.bincount(task.labels(split), minlength=3) for split in SPLITS}
    assert sum(int(each.sum()) for each in counts.values()) == photos.pictures
    assert all(2 <= count <= 5 for split in ("validation", "test") for count in counts[split])
    by_split = names(task)
    assert by_split["train"].isdisjoint(by_split["validation"] | by_split["test"])
    assert by_split["validation"].isdisjoint(by_split["test"])


def test_training_pictures_have_labels_and_look_as_those_that_judge(photos: Photos) -> None:
    task = loaded(photos.root)
    assert isinstance(task, LabelledPixels)
    pixels, labels = task.pixels("train"), training_labels(task)
    assert pixels.shape == (len(labels), 24, 24, 3)
    assert pixels.dtype == np.uint8
    assert isinstance(pixels, np.memmap)
    whole = loaded(photos.root, recalibration_images=1000)  # the same pictures, in another order
    assert len(whole.recalibration(24, 1000)) == len(pixels)
    standardised = ((pixels / 255 - task.mean) / task.std).transpose(0, 3, 1, 2)
    assert np.allclose(np.sort(standardised.sum((1, 2, 3))), np.sort(whole.recalibration(24, 1000)[:].sum((1, 2, 3))))
    images, judged = task.views("test", 24)
    assert len(images) == len(judged) == len(task.pixels("test"))


def test_the_split_follows_from_the_seed_and_a_picture_more_moves_few(photos: Photos) -> None:
    before = names(loaded(photos.root))
    assert names(loaded(photos.root)) == before
    assert names(loaded(photos.root, data_seed=1)) != before
    Image.new("RGB", (32, 32), "red").save(photos.root / "apple" / "another.png")
    after = names(loaded(photos.root))
    assert sum(len(after[split] - before[split]) for split in SPLITS) <= 3


def test_copies_of_a_picture_are_never_on_both_sides(tmp_path: Path) -> None:
    root = make_photos(tmp_path / "photos", 2, 12, odd=False, source="digits").root
    for folder in root.iterdir():
        for file in sorted(folder.iterdir()):
            (folder / f"zz copy {file.name}").write_bytes(file.read_bytes())
    by_split = names(loaded(root))
    for those in by_split.values():
        assert {name.replace("zz copy ", "") for name in those} <= those | set()
    assert all(by_split.values())


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_small_class_keeps_at_least_one_picture_in_each_split(tmp_path: Path, count: int) -> None:
    root = make_photos(tmp_path / "photos", 2, 12, odd=False, source="digits").root
    for file in sorted((root / "apple").iterdir())[count:]:
        file.unlink()
    task = loaded(root)
    found = [int(np.sum(task.labels(split) == 0)) for split in SPLITS]
    assert found == {1: [1, 0, 0], 2: [1, 0, 1], 3: [1, 1, 1], 4: [2, 1, 1]}[count]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"train": 8, "val": 4, "test": 3}, [16, 8, 6]),
        ({"train": 8, "validation": 4}, [16, 4, 4]),  # half of what judges: a published network has seen all of train
        ({"train": 8, "test": 3}, [14, 2, 6]),
        ({"train": 8}, [12, 2, 2]),
    ],
)
def test_a_split_that_is_missing_is_held_out_and_one_that_is_there_stays(
    tmp_path: Path, counts: dict[str, int], expected: list[int]
) -> None:
    task = loaded(make_split_photos(tmp_path / "photos", 2, counts).root)
    assert [len(task.labels(split)) for split in SPLITS] == expected
    assert [len(task.pixels(split)) for split in SPLITS] == expected


def test_a_class_may_be_called_as_a_split(tmp_path: Path) -> None:
    root = make_photos(tmp_path / "photos", 2, 6, odd=False, source="digits").root
    (root / "apple").rename(root / "train")
    assert loaded(root).class_names == ("bridge", "train") or "train" in loaded(root).class_names


def test_training_pictures_of_no_class_recalibrate_and_train_nothing(tmp_path: Path) -> None:
    root = make_split_photos(tmp_path / "photos", 2, {"train": 4, "val": 4}).root
    for file in sorted((root / "train").glob("*/*")):
        file.rename(root / "train" / f"{file.parent.name} {file.name}")
    for folder in (root / "train").iterdir():
        if folder.is_dir():
            folder.rmdir()
    task = loaded(root)
    assert len(task.recalibration(16, 100)) == 8
    with pytest.raises(InputError, match="no labels for its training images"):
        training_labels(task)


# -- how a picture is read ---------------------------------------------------------------------------------------------


def one_picture(root: Path, save: Callable[[Path], None], rules: int = 2) -> Any:
    """The pixels that a file of a picture becomes, 24 px."""
    for split in ("train", "val"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (28, 28), "green").save(root / split / name / "plain.png")
    save(root / "train" / "a")
    task = loaded(root, data_rules=rules, n_classes=2)
    listing = sorted(name for name in task._files["train"].names)
    return task.pixels("train")[listing.index(next(name for name in listing if "odd" in name))]


def halves() -> Image.Image:
    """Red above, blue below."""
    picture = Image.new("RGB", (28, 28), "red")
    picture.paste("blue", (0, 14, 28, 28))
    return picture


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    stored = halves().transpose(Image.Transpose.ROTATE_90)

    def save(folder: Path) -> None:
        stored.save(folder / "odd.png", exif=exif)

    expected = np.asarray(halves())[2:26, 2:26]
    assert np.array_equal(one_picture(tmp_path / "new", save), expected)
    assert np.array_equal(one_picture(tmp_path / "old", save, rules=1), np.rot90(expected))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "RGB"])
def test_what_is_transparent_shows_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (28, 28), (0, 0, 0, 0)) if mode in ("RGBA", "LA") else Image.new("RGB", (28, 28))
    settings: dict[str, Any] = {} if mode in ("RGBA", "LA") else {"transparency": (0, 0, 0) if mode == "RGB" else 0}

    def save(folder: Path) -> None:
        picture.convert(mode).save(folder / "odd.png", **settings)

    assert np.all(one_picture(tmp_path / "new", save) == 255)


def test_a_moving_picture_is_its_first_frame(tmp_path: Path) -> None:
    def save(folder: Path) -> None:
        Image.new("RGB", (28, 28), "red").save(
            folder / "odd.gif", save_all=True, append_images=[Image.new("RGB", (28, 28), "blue")]
        )

    assert np.all(one_picture(tmp_path, save) == (255, 0, 0))


def test_inks_become_colours_and_sixteen_bits_eight(tmp_path: Path) -> None:
    def inks(folder: Path) -> None:
        halves().convert("CMYK").save(folder / "odd.tiff")

    assert np.array_equal(one_picture(tmp_path / "inks", inks), np.asarray(halves())[2:26, 2:26])

    def deep(folder: Path) -> None:
        Image.fromarray(np.full((28, 28), 257 * 100, np.uint16)).save(folder / "odd.png")

    assert np.all(one_picture(tmp_path / "deep", deep) == 100)


def test_metadata_that_cannot_be_read_turn_nothing(tmp_path: Path) -> None:
    def save(folder: Path) -> None:
        halves().save(folder / "odd.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(range(256)))

    assert np.array_equal(one_picture(tmp_path, save), np.asarray(halves())[2:26, 2:26])


# -- what is refused, what is told -------------------------------------------------------------------------------------


def test_odd_files_are_counted_and_named_and_nothing_stops(photos: Photos, capfd: pytest.CaptureFixture[str]) -> None:
    task = loaded(photos.root)
    for split in SPLITS:
        task.pixels(split)
    told = capfd.readouterr().err
    for name in (*photos.unreadable, *photos.foreign):
        assert name in told
    assert "hidden" in told
    assert "nothing yet" in told  # the empty class


def test_an_empty_class_counts_where_the_supernet_has_it(photos: Photos) -> None:
    assert len(loaded(photos.root, n_classes=4).class_names) == 4
    assert len(loaded(photos.root, n_classes=3).class_names) == 3
    with pytest.raises(InputError, match=r"has 3 class folders .* the supernet has 5 classes"):
        loaded(photos.root, n_classes=5)


def flat(root: Path) -> None:
    root.mkdir()
    Image.new("RGB", (9, 9)).save(root / "a.png")


def one_class(root: Path) -> None:
    (root / "cats").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (9, 9), (i, 0, 0)).save(root / "cats" / f"{i}.png")


def single_pictures(root: Path) -> None:
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(root / name / "a.png")


def mostly_text(root: Path) -> None:
    single_pictures(root)
    for i in range(9):
        (root / "cats" / f"{i}.md").write_text("no picture")


def two_validations(root: Path) -> None:
    for split in ("train", "val", "validation"):
        single_pictures(root / split)


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (flat, "no class folder with pictures; put the pictures of each class in a folder of its own"),
        (one_class, r"one class alone \(cats\)"),
        (single_pictures, "no class has two pictures"),
        (mostly_text, "9 of 11 files are no pictures .* at most 10 %"),
        (two_validations, "both val and validation"),
        (lambda root: root.mkdir(), "no class folder with pictures"),
        (lambda root: (root / "cats").mkdir(parents=True), r"\(cats hold no picture\)"),
        (lambda root: os.symlink("loop", root), "cannot read the folder|no image file"),
        (lambda root: None, "no image file at"),
    ],
)
def test_a_folder_of_which_nothing_can_be_learnt_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], hint: str
) -> None:
    make(tmp_path / "photos")
    with pytest.raises(InputError, match=hint) as caught:
        loaded(tmp_path / "photos")
    assert "\n" not in str(caught.value)


def test_names_of_any_bytes_are_split_and_read(tmp_path: Path) -> None:
    root = make_photos(tmp_path / "photos", 2, 6, odd=False, source="digits").root
    (root / "apple" / "IMG_0001.png").rename(root / "apple" / os.fsdecode(b"\xff\xfe\n.png"))
    task = loaded(root)
    assert sum(len(task.pixels(split)) for split in SPLITS) == 12
    assert len(task.sha256) == 64


def test_fewer_training_pictures_than_recalibrate_are_all_used(photos: Photos) -> None:
    spec = SupernetSpec(data=str(photos.root), n_classes=3, data_rules=2, recalibration_images=400)
    check_task(task_of(spec), spec)
    assert len(task_of(spec).recalibration(16, 400)) < 60


def test_a_run_of_before_reads_its_folder_as_it_did(tmp_path: Path) -> None:
    root = make_split_photos(tmp_path / "photos", 2, {"train": 4, "val": 4}).root
    spec = SupernetSpec(data=str(root), n_classes=2)
    assert "data_rules" not in spec.to_json()
    assert SupernetSpec.from_json(spec.to_json()).data_rules == 1
    assert task_of(spec).splits == ("train", "validation")
    assert folder_splits(spec).held_out == ()
    assert folder_splits(spec_of(root)).held_out == ("test",)


# -- an .npz file ------------------------------------------------------------------------------------------------------


def npz(path: Path, **arrays: Any) -> Path:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    usual = {"train_images": rng.integers(0, 256, (60, 8, 8, 3), np.uint8), "train_labels": labels}
    np.savez(path, **{**usual, **arrays})
    return path


def test_the_splits_of_an_npz_file_are_held_out_of_its_labelled_training_images(tmp_path: Path) -> None:
    task = task_of(spec_of(npz(tmp_path / "a.npz", class_names=np.array(["ant", "bee", "cow"]))))
    assert task.class_names == ("ant", "bee", "cow")
    assert [np.bincount(task.labels(split)).tolist() for split in SPLITS] == [[14] * 3, [3] * 3, [3] * 3]
    assert isinstance(task, LabelledPixels)
    seen = {image.tobytes() for split in SPLITS for image in task.pixels(split)}
    assert len(seen) == 60
    assert task_of(spec_of(tmp_path / "a.npz", data_seed=1)).sha256 != task.sha256


def test_an_npz_file_with_all_splits_is_what_it_was(tmp_path: Path) -> None:
    few = {"images": np.zeros((4, 8, 8, 3), np.uint8), "labels": np.array([0, 1, 2, 0])}
    arrays = {f"{split}_{name}": array for split in ("validation", "test") for name, array in few.items()}
    path = npz(tmp_path / "a.npz", **arrays)
    one, other = task_of(spec_of(path, data_rules=1)), task_of(spec_of(path))
    assert one.sha256 == other.sha256
    assert other.splits == SPLITS
    assert len(training_labels(other)) == 60


@pytest.mark.parametrize(
    ("arrays", "hint"),
    [
        ({"train_labels": np.arange(60)}, "no class has two training images"),
        ({"class_names": np.array(["a", "b"])}, "class_names holds 2 names, the labels go up to 2"),
        ({"class_names": np.array(["a", "b", "a"])}, "class_names holds 2 names"),
        ({"class_names": np.array([1, 2, 3])}, r"class_names is int64 .* should be \(classes,\) strings"),
        ({"train_labels": np.zeros(3, int)}, r"train_labels .* should be integers \(60,\)"),
        ({"validation_labels": np.zeros(3, int)}, "no array 'validation_images'"),
    ],
)
def test_wrong_labels_in_an_npz_file_are_refused_in_one_line(tmp_path: Path, arrays: Any, hint: str) -> None:
    with pytest.raises(InputError, match=hint) as caught:
        task_of(spec_of(npz(tmp_path / "a.npz", **arrays)))
    assert "\n" not in str(caught.value)
