"""A user's own images: read as described, refused in one line when they are not, and judged like the digits."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riwoa.config.kinds.supernet import SupernetSettings
from riwoa.config.loading import load
from riwoa.config.schema import Oracle
from riwoa.datasets import digits as data
from riwoa.datasets.arrays import ByteArray, Split, resize_pixels
from riwoa.datasets.catalogue import ImageTask, check_task, load_task
from riwoa.datasets.digits import DigitsTask, load_digits_task
from riwoa.datasets.image_file import IMAGENET, ImageFileTask
from riwoa.errors import InputError
from riwoa.hardware.accelerator import Accelerator
from riwoa.oracle import protocol
from riwoa.oracle import supernet as spec_module
from riwoa.oracle.kinds import build_oracle
from riwoa.oracle.protocol import accuracy_error
from riwoa.oracle.supernet import supernet_spec
from riwoa.oracle.supernet_oracle import checkpoint_path
from riwoa.oracle.workers import worker_count
from riwoa.supernet.space import mobilenet_space
from riwoa.supernet.spec import SupernetSpec

Arrays = dict[str, Any]


def plain_arrays(side: int = 8) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (7, side, side, 3), np.uint8),
        "validation_images": rng.integers(0, 256, (5, side, side, 3), np.uint8),
        "validation_labels": np.array([0, 1, 2, 1, 0]),
    }


def saved(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)
    return path


def spec_of(path: Path, **fields: Any) -> SupernetSpec:
    return SupernetSpec(**{"data": str(path), "n_classes": 3, "recalibration_images": 5, **fields})


def loaded(path: Path, **fields: Any) -> ImageTask:
    spec = spec_of(path, **fields)
    task = load_task(spec.data)
    check_task(task, spec)
    return task


def test_the_digits_hash_is_the_one_that_journals_already_hold() -> None:
    task = load_task("digits")
    assert isinstance(task, DigitsTask)
    assert task.sha256 == "983b4dfba3f027d8b6de5bc0f17242467eeb905c82f869c0f026150a1a1ae2ad"


def test_half_the_resolution_is_the_mean_of_two_by_two_pixels() -> None:
    task = load_digits_task()
    canvas = task.canvas("validation", 0)
    halved = canvas.reshape(-1, 3, 20, 2, 20, 2).mean((3, 5)) / 255
    np.testing.assert_allclose(task.views("validation", 20, 1)[0], (halved - data.MEAN) / data.STD, atol=1e-5)


def test_images_are_standardised_by_channel_and_stay_as_they_are_at_their_own_size(tmp_path: Path) -> None:
    arrays = plain_arrays()
    task = loaded(saved(tmp_path / "a.npz", arrays))
    images, labels = task.views("validation", 8, 3)
    mean, std = (np.array(IMAGENET[name])[:, None, None] for name in ("mean", "std"))
    expected = (arrays["validation_images"].transpose(0, 3, 1, 2) / 255 - mean) / std
    assert images[:].dtype == np.float32
    np.testing.assert_allclose(images[:], expected, atol=1e-5)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 2, 1, 0]


def test_the_files_own_mean_and_deviation_are_used(tmp_path: Path) -> None:
    arrays = plain_arrays() | {"mean": np.array([0.1, 0.2, 0.3]), "std": np.array([0.5, 0.6, 0.7])}
    task = loaded(saved(tmp_path / "a.npz", arrays))
    assert (task.mean, task.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    byte = arrays["validation_images"][2, 3, 4, 1]
    assert task.views("validation", 8, 1)[0][:][2, 1, 3, 4] == pytest.approx((byte / 255 - 0.2) / 0.6, abs=1e-5)


def test_recalibration_takes_a_fixed_choice_of_training_images_of_which_a_smaller_one_is_the_beginning(
    tmp_path: Path,
) -> None:
    arrays = plain_arrays()
    path = saved(tmp_path / "a.npz", arrays)
    few, all_of_them = loaded(path).recalibration(8, 3)[:], loaded(path).recalibration(8, 7)[:]
    assert np.array_equal(few, all_of_them[:3])
    scale = 255 * np.array(IMAGENET["std"])[:, None, None]
    shift = 255 * np.array(IMAGENET["mean"])[:, None, None]
    back = np.rint(all_of_them * scale + shift).astype(np.uint8).transpose(0, 2, 3, 1)
    assert sorted(i.tobytes() for i in back) == sorted(i.tobytes() for i in arrays["train_images"])
    assert not np.array_equal(back, arrays["train_images"])


def test_a_compressed_file_gives_the_same_images(tmp_path: Path) -> None:
    plain = loaded(saved(tmp_path / "a.npz", plain_arrays()))
    np.savez_compressed(tmp_path / "b.npz", **plain_arrays())
    packed = loaded(tmp_path / "b.npz")
    assert np.array_equal(plain.recalibration(6, 4)[:], packed.recalibration(6, 4)[:])
    assert np.array_equal(plain.views("validation", 6, 1)[0][:], packed.views("validation", 6, 1)[0][:])


@pytest.mark.parametrize("resolution", [3, 5, 8, 11, 16, 33])
def test_resizing_keeps_a_flat_image_flat_and_a_shrunk_ones_mean(resolution: int) -> None:
    flat = np.full((1, 3, 8, 8), 200, np.uint8)
    np.testing.assert_allclose(resize_pixels(flat, resolution), 200, rtol=1e-6)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), np.uint8)
    resized = resize_pixels(image, resolution)
    assert resized.shape == (1, 3, resolution, resolution)
    if resolution < 8:
        np.testing.assert_allclose(resized.mean((2, 3)), image.mean((2, 3)), rtol=1e-5)


def test_enlarging_interpolates_between_pixels() -> None:
    ramp = np.broadcast_to(np.array([0, 100], np.uint8), (1, 3, 2, 2))
    assert resize_pixels(ramp, 4)[0, 0, 0].tolist() == [0, 25, 75, 100]


def test_without_test_images_there_is_no_test_split_and_asking_for_it_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", plain_arrays())
    assert loaded(path).splits == ("train", "validation")
    with pytest.raises(InputError, match="no test split"):
        loaded(path, split="test")
    with_test = plain_arrays() | {"test_images": plain_arrays()["train_images"], "test_labels": np.zeros(7, np.uint8)}
    task = loaded(saved(tmp_path / "b.npz", with_test), split="test")
    assert task.splits == ("train", "validation", "test")
    assert len(task.views("test", 8, 1)[0]) == 7


def test_the_hash_moves_with_the_file(tmp_path: Path) -> None:
    one = loaded(saved(tmp_path / "a.npz", plain_arrays())).sha256
    assert loaded(saved(tmp_path / "b.npz", plain_arrays())).sha256 == one
    assert loaded(saved(tmp_path / "c.npz", plain_arrays() | {"mean": np.full(3, 0.5)})).sha256 != one


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"train_images": None}, "no array 'train_images'"),
        ({"validation_labels": None}, "no array 'validation_labels'"),
        ({"test_images": np.zeros((2, 8, 8, 3), np.uint8)}, "no array 'test_labels'"),
        ({"test_labels": np.zeros(2, int)}, "no array 'test_images'"),
        ({"Std": np.ones(3)}, "unknown array 'Std'"),
        ({"train_images": np.zeros((7, 8, 8, 3), np.float32)}, r"train_images is float32 .* should be uint8"),
        ({"train_images": np.zeros((7, 3, 8, 8), np.uint8)}, r"train_images is uint8 .* square"),
        ({"validation_images": np.zeros((5, 8, 9, 3), np.uint8)}, "validation_images is uint8 .* square"),
        ({"validation_images": np.zeros((5, 8, 8), np.uint8)}, "validation_images is uint8"),
        ({"train_images": np.zeros((0, 8, 8, 3), np.uint8)}, "train_images is empty"),
        ({"train_images": np.asfortranarray(np.ones((7, 8, 8, 3), np.uint8))}, "ascontiguousarray"),
        ({"validation_labels": np.zeros(4, int)}, r"validation_labels .* should be integers \(5,\)"),
        ({"validation_labels": np.zeros(5)}, "validation_labels is float64"),
        ({"validation_labels": np.array([0, 1, -1, 0, 0])}, "from -1 to 1; classes are counted from 0"),
        ({"validation_labels": np.full(5, 2**64 - 1, np.uint64)}, "classes are counted from 0"),
        ({"validation_labels": np.array([0, 1, 2, 3, 0])}, "labels go up to 3.*oracle.supernet.n_classes"),
        ({"validation_labels": np.array([0, 1, 2, None, 0], object)}, "pickled"),
        ({"train_images": plain_arrays()["train_images"][:4]}, "4 training images are too few"),
        ({"mean": np.array([123.0, 116.0, 103.0])}, "scale of 0 to 1"),
        ({"std": np.array([0.2, 0.0, 0.2])}, "scale of 0 to 1"),
        ({"std": np.array([0.2, np.nan, 0.2])}, "scale of 0 to 1"),
        ({"std": np.array([0.2])}, "3 numbers"),
    ],
)
def test_arrays_that_are_not_as_described_are_refused_by_name_in_one_line(
    tmp_path: Path, change: Arrays, hint: str
) -> None:
    arrays = {name: array for name, array in (plain_arrays() | change).items() if array is not None}
    with pytest.raises(InputError, match=hint) as caught:
        loaded(saved(tmp_path / "a.npz", arrays))
    assert str(tmp_path / "a.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_npz_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image file at"):
        load_task(str(tmp_path / "none.npz"))
    with pytest.raises(InputError, match="no image file at"):
        load_task(str(tmp_path))
    np.save(tmp_path / "a.npy", plain_arrays()["train_images"])
    with pytest.raises(InputError, match=r"no intact \.npz file"):
        load_task(str(tmp_path / "a.npy"))


def bomb(shape: tuple[int, ...], content: bytes) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue() + content


@pytest.mark.parametrize(
    ("shape", "hint"),
    [((10**6, 10**5, 10**5, 3), "not what the file holds"), ((-1, 8, 8, -3), "not what the file holds")],
)
def test_an_array_that_declares_more_than_the_file_holds_is_refused_unread(
    tmp_path: Path, shape: tuple[int, ...], hint: str
) -> None:
    path = saved(tmp_path / "a.npz", {k: v for k, v in plain_arrays().items() if k != "train_images"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", bomb(shape, b"x"))
    with pytest.raises(InputError, match=hint):
        load_task(str(path))


def test_more_than_the_limit_is_refused_before_any_pixel_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.npz", plain_arrays())
    monkeypatch.setattr("riwoa.datasets.image_file.MAX_DECLARED_BYTES", 2**10)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("an array was read"))
    with pytest.raises(InputError, match="GiB"):
        load_task(str(path))


@pytest.mark.parametrize("header", [b"{'descr': '|u1', (", b"{b'a': 1, 'b': 2}", b"(" * 200, b"{} " * 9000])
def test_a_header_that_numpy_cannot_parse_is_damage_like_any_other(tmp_path: Path, header: bytes) -> None:
    path = saved(tmp_path / "a.npz", {k: v for k, v in plain_arrays().items() if k != "train_images"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InputError, match=r"no intact \.npz file") as caught:
        load_task(str(path))
    assert len(str(caught.value)) - len(str(path)) < 200


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_raises_nothing_but_input_errors(tmp_path: Path, draw: st.DataObject) -> None:
    whole = saved(tmp_path / "whole.npz", plain_arrays(4)).read_bytes()
    place = draw.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole if draw.draw(st.booleans()) else whole[:place])
    if len(damaged) > place:
        damaged[place] ^= draw.draw(st.integers(1, 255))
    path = tmp_path / "damaged.npz"
    path.write_bytes(damaged)
    with contextlib.suppress(InputError):
        task = loaded(path)
        task.views("validation", 4, 1)
        task.recalibration(4, 5)


def test_the_configuration_names_a_file_and_the_specification_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "a.npz", plain_arrays())
    monkeypatch.chdir(tmp_path)
    config = load(None, ["oracle.supernet.data=a.npz", "oracle.supernet.resolutions=[8, 12]"], {}).config
    spec = supernet_spec(config.oracle)
    assert (spec.data, spec.resolutions) == (str(tmp_path / "a.npz"), (8, 12))
    assert SupernetSpec.from_json(spec.to_json()) == spec
    assert supernet_spec(load(None, [], {}).config.oracle).data == "digits"


def test_a_gpu_is_taken_where_torch_finds_one_and_asking_for_one_elsewhere_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolved(**settings: Any) -> SupernetSpec:
        return supernet_spec(Oracle(supernet=SupernetSettings(**settings)))

    monkeypatch.setattr(spec_module, "probe_accelerator", lambda: None)
    assert (resolved().device, resolved().batch_size) == ("cpu", 200)
    with pytest.raises(InputError, match=r"oracle\.supernet\.device = cuda"):
        resolved(device="cuda")
    monkeypatch.setattr(spec_module, "probe_accelerator", lambda: Accelerator("H100", 80 << 30, True, None))
    assert (resolved().device, resolved().dtype, resolved().batch_size) == ("cuda", "bfloat16", None)
    assert resolved(device="cpu").device == "cpu"
    assert resolved(dtype="float32").dtype == "float32"
    assert worker_count(Oracle()) == 1


@pytest.fixture(scope="module")
def own_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Canvases of the embedded task as a user would save them: 32 px, channels last."""

    def pictures(split: Split, n: int) -> ByteArray:
        shrunk = resize_pixels(load_digits_task().canvas(split, 0)[:n], 32)
        return np.ascontiguousarray(np.rint(shrunk).astype(np.uint8).transpose(0, 2, 3, 1))

    arrays = {
        "train_images": pictures("train", 200),
        "validation_images": pictures("validation", 200),
        "validation_labels": load_digits_task().labels("validation")[:200].astype(np.uint8),
        "mean": np.full(3, data.MEAN),
        "std": np.full(3, data.STD),
    }
    return saved(tmp_path_factory.mktemp("own") / "digits.npz", arrays)


def test_the_supernet_reads_its_digits_from_a_users_file(own_digits: Path) -> None:
    embedded = str(checkpoint_path(SupernetSpec()))
    spec = SupernetSpec(checkpoint=embedded, data=str(own_digits), resolutions=(32,), recalibration_images=200)
    oracle = build_oracle(spec.to_json())
    space = mobilenet_space((32,))
    largest = space.architecture(np.array([len(gene.choices) - 1 for gene in space.genes]))
    metrics = oracle.evaluate(largest)
    assert metrics["images"] == 200
    assert metrics["accuracy"] > 0.5  # chance is 0.1


def test_a_result_keeps_its_version_and_value_whatever_other_resolutions_are_prepared() -> None:
    def oracle(*resolutions: int) -> protocol.Oracle:
        fields: Arrays = {"recalibration_images": 50, "validation_views": 1, "batch_size": 200}
        return build_oracle(SupernetSpec(resolutions=resolutions, **fields).to_json())

    smallest = mobilenet_space((24,)).architecture(np.zeros(46, dtype=np.int64))
    alone, among = oracle(24), oracle(24, 40)
    assert alone.version == among.version
    assert alone.evaluate(smallest) == among.evaluate(smallest)


def test_opening_reads_no_pixels(own_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbidden: Callable[..., Any] = lambda *_, **__: pytest.fail("pixels were read")  # noqa: E731
    monkeypatch.setattr(ImageFileTask, "_read", forbidden)
    check_task(load_task(str(own_digits)), SupernetSpec(recalibration_images=200))


def test_the_error_of_an_accuracy_is_that_of_its_distinct_images() -> None:
    on_file = {"accuracy": 0.75, "images": 1200}
    assert accuracy_error(on_file, {"data": "/a/folder", "validation_views": 8}) == pytest.approx(0.0125)
    assert accuracy_error(on_file, {"data": "digits", "validation_views": 4}) == pytest.approx(0.025)
    assert accuracy_error({"accuracy": 0.75}, {"kind": "predictor"}) is None  # nothing was drawn
