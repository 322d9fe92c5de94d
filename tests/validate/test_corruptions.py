from __future__ import annotations

import colorsys
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from riwoa.datasets.cifar import load_cifar100
from riwoa.errors import InputError
from riwoa.ipc.child import child_environment
from riwoa.validate.corruptions import (
    BLOCK_IMAGES,
    CORRUPTIONS,
    SEVERITIES,
    _moved,
    bilinear,
    corrupt,
    disk_kernel,
    frost_photographs,
    frost_procedural,
    plasma,
    zoom_matrix,
)
from tests.support.official import official_data

from .support import pictures

FROST = frost_procedural()
# By the published parameters a stronger severity need not lie further from the clean image in pixels: glass smooths
# away what it shuffles, elastic moves less and wrinkles more, frost darkens while it whitens.
NOT_BY_DISTANCE = {"glass_blur", "elastic_transform", "frost"}


def distances(images: np.ndarray, name: str) -> list[float]:
    """Root mean square from the clean images by severity, where severities are ordered at all."""
    # Motion blur's severities 3 and 4 share their sigma; the longer kernel's tail weighs next to nothing.
    severities = [s for s in SEVERITIES if (name, s) != ("motion_blur", 4)]
    found = [corrupt(images, name, s, 0, FROST).astype(float) - images for s in severities]
    return [float(np.sqrt((d**2).mean())) for d in found]


def test_the_fifteen_are_the_papers_in_its_order() -> None:
    assert CORRUPTIONS == (
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog"),
        *("brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_and_type_stay_and_the_given_images_are_not_written_to(name: str) -> None:
    images = pictures(7)
    before = images.copy()
    for severity in SEVERITIES:
        out = corrupt(images, name, severity, 0, FROST)
        assert out.shape == images.shape
        assert out.dtype == np.uint8
        assert (out != images).any()
    assert (images == before).all()


@pytest.mark.parametrize("side_px", [8, 45, 96])
def test_pictures_of_another_size_are_corrupted_as_hard(side_px: int) -> None:
    """A length is a share of the picture: what is enlarged after it was corrupted differs no more than before."""

    def resized(images: np.ndarray, size: int) -> np.ndarray:
        return np.stack(
            [np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR)) for i in images]
        )

    small = pictures(30)
    images = resized(small, side_px)
    for name in CORRUPTIONS:
        out = corrupt(images, name, 5, 0, FROST)
        assert out.shape == images.shape
        if side_px > 32 and name in ("defocus_blur", "motion_blur", "zoom_blur", "frost", "fog", "elastic_transform"):
            usual = np.abs(resized(corrupt(small, name, 5, 0, FROST), side_px).astype(float) - images).mean()
            assert 0.7 * usual < np.abs(out.astype(float) - images).mean() < 1.4 * usual, name


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_whatever_follows_its_block(name: str) -> None:
    images = pictures(BLOCK_IMAGES + 5)
    whole = corrupt(images, name, 3, 1, FROST)
    assert (corrupt(images[:BLOCK_IMAGES], name, 3, 1, FROST) == whole[:BLOCK_IMAGES]).all()
    # The same picture in another block meets other random numbers.
    again = corrupt(np.concatenate([images[:BLOCK_IMAGES], images[:5]]), name, 3, 1, FROST)
    random = name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
    assert (again[BLOCK_IMAGES:] != again[:5]).any() == random


def test_another_process_makes_the_same_and_another_seed_does_not(tmp_path: Path) -> None:
    images = pictures(9)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import hashlib, sys, numpy as np; from riwoa.validate.corruptions import *\n"
        "x = np.load(sys.argv[1])\n"
        "y = [corrupt(x, n, s, 5, frost_procedural()) for n in CORRUPTIONS for s in (1, 5)]\n"
        "np.save(sys.argv[2], np.stack(y)); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "images.npy"), str(tmp_path / "out.npy")]
    subprocess.run(command, env=child_environment(1), check=True)
    here = np.stack([corrupt(images, n, s, 5, FROST) for n in CORRUPTIONS for s in (1, 5)])
    assert (np.load(tmp_path / "out.npy") == here).all()
    assert (corrupt(images, "fog", 1, 6, FROST) != corrupt(images, "fog", 1, 5, FROST)).any()


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - NOT_BY_DISTANCE))
def test_each_severity_lies_further_from_the_clean_image(name: str) -> None:
    assert (np.diff(distances(pictures(300), name)) > 0).all()


def test_severities_of_real_images_too() -> None:
    images = load_cifar100(official_data("cifar-100/cifar-100-python.tar.gz")).test_images[:500]
    for name in sorted(set(CORRUPTIONS) - NOT_BY_DISTANCE):
        assert (np.diff(distances(images, name)) > 0).all(), name
    assert min(distances(images, "glass_blur")[3:]) > max(distances(images, "glass_blur")[:3])
    assert (np.diff(distances(images, "elastic_transform")) < 0).all()


@pytest.mark.parametrize(
    ("images", "name", "severity"),
    [
        (np.zeros((1, 32, 32, 3)), "fog", 1),
        (np.zeros((1, 3, 32, 32), np.uint8), "fog", 1),
        (np.zeros((1, 7, 7, 3), np.uint8), "fog", 1),
        (np.zeros((1, 32, 32, 3), np.uint8), "fig", 1),
        (np.zeros((1, 32, 32, 3), np.uint8), "fog", 6),
    ],
)
def test_what_is_no_image_corruption_or_severity_is_refused(images: np.ndarray, name: str, severity: int) -> None:
    with pytest.raises(ValueError, match=r"uint8 of shape|no corruption"):
        corrupt(images, name, severity, 0, FROST)


# -- against the published definitions --------------------------------------------------------------------------------


def test_noise_has_the_published_moments() -> None:
    grey = np.full((400, 32, 32, 3), 128, np.uint8)
    values = corrupt(grey, "gaussian_noise", 5, 0, FROST) / 255
    assert values.std() == pytest.approx(0.10, rel=0.01)
    photons = corrupt(grey, "shot_noise", 1, 0, FROST) / 255
    assert photons.std() == pytest.approx((128 / 255 / 500) ** 0.5, rel=0.02)
    salted = corrupt(grey, "impulse_noise", 5, 0, FROST)
    assert (salted == 0).mean() == pytest.approx(0.035, rel=0.03)
    assert (salted == 255).mean() == pytest.approx(0.035, rel=0.03)
    assert stats.kstest((values.ravel()[:5000] - values.mean()) / values.std(), "norm").pvalue > 1e-4


def test_defocus_is_a_convolution_with_the_smoothed_disk() -> None:
    kernel = disk_kernel(1, 0.2)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]) / 5
    taps = np.exp(-np.array([1, 0, 1]) / (2 * 0.2**2))
    taps /= taps.sum()
    smooth = ndimage.convolve(np.pad(cross, 1), np.outer(taps, taps), mode="constant")
    np.testing.assert_allclose(kernel, smooth, atol=1e-12)
    image = pictures(1)
    expected = np.stack([ndimage.convolve(image[0, ..., c] / 255, kernel, mode="mirror") for c in range(3)], -1) * 255
    found = corrupt(image, "defocus_blur", 4, 0, FROST)[0]
    assert np.abs(found - np.floor(expected)).max() <= 1


@pytest.mark.parametrize("severity", [3, 5])
def test_glass_blur_copies_as_the_published_loop_does(severity: int) -> None:
    """The published loop, with the numbers of our stream laid out in its order."""
    sigma, rounds = {3: (0.4, 1), 5: (0.4, 2)}[severity]
    image = pictures(1)
    from riwoa.search.rng import generator

    rng = generator(0, severity, "corruption.glass_blur", 0)
    x = (ndimage.gaussian_filter(image[0] / 255.0, (sigma, sigma, 0), mode="nearest") * 255).astype(np.uint8)
    for _ in range(rounds):
        steps = rng.integers(-1, 1, (2, 1, 30, 30))[:, 0]
        for h in range(31, 1, -1):
            for w in range(31, 1, -1):
                dy, dx = steps[:, h - 2, w - 2]
                x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
    expected = ndimage.gaussian_filter(x / 255.0, (sigma, sigma, 0), mode="nearest") * 255
    assert (
        np.abs(corrupt(image, "glass_blur", severity, 0, FROST)[0] - expected.astype(np.uint8).astype(int)).max() <= 1
    )


def test_motion_blur_sums_shifted_copies_along_the_angle() -> None:
    image = pictures(1).astype(np.float32)
    level = _moved(image, 6, 2, np.array([0.0]))
    taps = np.exp(-(np.arange(13) ** 2) / 8)
    columns = np.minimum(np.arange(32)[:, None] + np.arange(13), 31)
    expected = (image[:, :, columns] * (taps / taps.sum())[:, None]).sum(axis=3)
    np.testing.assert_allclose(level, expected, atol=0.02)
    # A quarter turn is the same of the turned image.
    upright = _moved(np.swapaxes(image, 1, 2), 6, 2, np.array([90.0]))
    np.testing.assert_allclose(np.swapaxes(upright, 1, 2), level, atol=0.02)


@pytest.mark.parametrize("factor", [1.0, 1.07, 1.25, 2.25])
def test_zoom_is_scipys_on_every_axis(factor: float) -> None:
    image = pictures(1)[0].astype(float)
    side = int(np.ceil(32 / factor))
    top = (32 - side) // 2
    zoomed = ndimage.zoom(image[top : top + side, top : top + side], (factor, factor, 1), order=1)
    trim = (zoomed.shape[0] - 32) // 2
    matrix = zoom_matrix(factor, 32)
    found = np.einsum("ij,jkc,lk->ilc", matrix, image, matrix)
    np.testing.assert_allclose(found, zoomed[trim : trim + 32, trim : trim + 32], atol=1e-9)


def test_zoom_blur_averages_the_image_and_its_magnifications() -> None:
    image = pictures(1)
    zooms = [zoom_matrix(float(f), 32) for f in np.arange(1, 1.11, 0.01)]
    total = image[0] + sum(np.einsum("ij,jkc,lk->ilc", m, image[0], m) for m in zooms)
    assert np.abs(corrupt(image, "zoom_blur", 2, 0, FROST)[0] - total / (len(zooms) + 1)).max() <= 1.01


def test_brightness_raises_hsvs_value_alone() -> None:
    image = pictures(2)
    image[0, 0, 0] = 0  # black: no hue
    found = corrupt(image, "brightness", 3, 0, FROST)
    for at in [(0, 0, 0), (0, 5, 9), (1, 30, 2), (1, 17, 17)]:
        h, s, v = colorsys.rgb_to_hsv(*(image[at] / 255))
        expected = np.array(colorsys.hsv_to_rgb(h, s, min(1.0, v + 0.15))) * 255
        assert np.abs(found[at] - expected).max() <= 1


def test_contrast_keeps_means_and_shrinks_deviations() -> None:
    image = pictures(3)
    found = corrupt(image, "contrast", 4, 0, FROST)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), image.mean(axis=(1, 2)), atol=0.6)
    np.testing.assert_allclose(found.std(axis=(1, 2)), 0.3 * image.std(axis=(1, 2)), rtol=0.05)


def test_fog_is_plasma_over_a_rescaled_image() -> None:
    heights = plasma(np.random.default_rng(0), 20, 2.0, 32)
    assert heights.min(axis=(1, 2)).max() == 0
    assert heights.max(axis=(1, 2)).min() == 1
    # A slower decay is rougher: neighbours differ more.
    rough = plasma(np.random.default_rng(0), 20, 1.3, 32)
    assert np.abs(np.diff(rough)).mean() > 1.5 * np.abs(np.diff(heights)).mean()
    image = pictures(20)
    brightest = image.max(axis=(1, 2, 3))
    assert (corrupt(image, "fog", 5, 0, FROST).max(axis=(1, 2, 3)) <= brightest).all()


@pytest.mark.parametrize("border", ["mirror", "reflect"])
def test_bilinear_samples_as_scipy_does(border: str) -> None:
    rng = np.random.default_rng(0)
    image = pictures(1).astype(np.float32)
    rows, columns = rng.uniform(-20, 50, (2, 1, 32, 32))
    found = bilinear(image, rows, columns, border)[0]
    for channel in range(3):
        expected = ndimage.map_coordinates(image[0, ..., channel], [rows[0], columns[0]], order=1, mode=border)
        np.testing.assert_allclose(found[..., channel], expected, atol=0.02)


def test_elastic_at_severity_1_is_affine_alone() -> None:
    """Straight lines stay straight: second differences of a ramp vanish where no border is near."""
    ramp = np.broadcast_to((np.arange(32) * 7)[None, None, :, None], (50, 32, 32, 3)).astype(np.uint8)
    inner = corrupt(ramp, "elastic_transform", 1, 0, FROST)[:, 12:20, 12:20, 0].astype(int)
    assert np.abs(np.diff(inner, 2, axis=2)).max() <= 1
    wrinkled = corrupt(ramp, "elastic_transform", 5, 0, FROST)[:, 12:20, 12:20, 0].astype(int)
    assert np.abs(np.diff(wrinkled, 2, axis=2)).max() > 5


def test_jpeg_and_pixelate_are_pillows() -> None:
    image = pictures(1)
    stream = io.BytesIO()
    Image.fromarray(image[0]).save(stream, "JPEG", quality=58)
    assert (corrupt(image, "jpeg_compression", 3, 0, FROST)[0] == np.asarray(Image.open(stream))).all()
    small = Image.fromarray(image[0]).resize((24, 24), Image.Resampling.BOX)
    assert (
        corrupt(image, "pixelate", 4, 0, FROST)[0] == np.asarray(small.resize((32, 32), Image.Resampling.BOX))
    ).all()


# -- frost -------------------------------------------------------------------------------------------------------------


def test_frost_from_photographs_takes_every_fifth_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"):
        Image.fromarray(rng.integers(0, 256, (180, 240, 3), dtype=np.uint8)).save(tmp_path / name)
    frost = frost_photographs(tmp_path)
    assert frost.source == "photographs"
    assert [texture.shape for texture in frost.textures] == [(36, 48, 3)] * 5
    whole = np.asarray(Image.open(tmp_path / "frost1.png"))
    assert (frost.textures[0] == whole[2::5, 2::5]).all()
    black = np.zeros((20, 32, 32, 3), np.uint8)
    assert corrupt(black, "frost", 5, 0, frost).max() <= 0.45 * 255


def test_a_missing_small_or_broken_photograph_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"frost1\.png cannot be read.*leave --frost out"):
        frost_photographs(tmp_path)
    Image.new("RGB", (40, 40)).save(tmp_path / "frost1.png")
    with pytest.raises(InputError, match="has \\(40, 40\\) pixels"):
        frost_photographs(tmp_path)
    (tmp_path / "frost1.png").write_bytes(os.urandom(100))
    with pytest.raises(InputError, match="cannot be read"):
        frost_photographs(tmp_path)


def test_procedural_frost_says_that_it_is_and_looks_like_no_flat_colour() -> None:
    assert FROST.source == "procedural"
    assert len(FROST.textures) == 5
    for texture in FROST.textures:
        assert texture.shape == (200, 200, 3)
        assert texture.std(axis=(0, 1)).min() > 30
    assert (FROST.textures[0] != FROST.textures[1]).any()
