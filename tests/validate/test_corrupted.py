from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from riwoa.errors import InputError
from riwoa.validate.corrupted import UNITS, MadeSet, PublishedSet
from riwoa.validate.corruptions import CORRUPTIONS, SEVERITIES, corrupt, frost_procedural

from .support import pictures

COUNT = 4


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The published layout with four images a severity; each file's pixels tell corruption and severity."""
    for i, name in enumerate(CORRUPTIONS):
        rows = np.repeat(10 * i + np.arange(5), COUNT).astype(np.uint8)
        np.save(tmp_path / f"{name}.npy", np.broadcast_to(rows[:, None, None, None], (5 * COUNT, 32, 32, 3)).copy())
    np.save(tmp_path / "labels.npy", np.tile(np.arange(COUNT, dtype=np.uint8), 5))
    return tmp_path


def test_the_published_archive_is_read_by_severity(published: Path) -> None:
    found = list(PublishedSet(published).each(UNITS, 1))
    assert [one.unit for one in found] == [(name, s) for name in CORRUPTIONS for s in SEVERITIES]
    for one in found:
        name, severity = one.unit
        assert one.images.shape == (COUNT, 32, 32, 3)
        assert (one.images == 10 * CORRUPTIONS.index(name) + severity - 1).all()
        assert one.labels.tolist() == [0, 1, 2, 3]
    assert PublishedSet(published).source == "published"
    (few,) = PublishedSet(published, images=3).each([("fog", 2)], 1)
    assert len(few.images) == len(few.labels) == 3


def test_a_hostile_archive_is_refused_before_anything_is_judged(published: Path) -> None:
    def refused(name: str, array: npt.ArrayLike, message: str) -> None:
        before = (published / name).read_bytes()
        np.save(published / name, array, allow_pickle=True)
        with pytest.raises(InputError, match=message):
            PublishedSet(published)
        (published / name).write_bytes(before)

    refused(
        "fog.npy", np.zeros((20, 32, 32), np.uint8), r"fog.*\(20, 32, 32\) uint8, should be \(20, 32, 32, 3\) uint8"
    )
    refused("fog.npy", np.zeros((20, 3, 32, 32), np.uint8), r"\(20, 3, 32, 32\)")
    refused("fog.npy", np.zeros((20, 32, 32, 3)), "float64")
    refused("fog.npy", np.zeros((15, 32, 32, 3), np.uint8), r"\(15, 32, 32, 3\)")
    refused("snow.npy", np.array([{"a": 1}], dtype=object), "snow.npy cannot be read")
    refused("labels.npy", np.zeros(19, np.uint8), r"\(19,\) uint8, should be")
    refused("labels.npy", np.zeros(0, np.uint8), "should be")
    refused("labels.npy", np.zeros((20, 1), np.uint8), "should be")
    refused("labels.npy", np.zeros(20), "float64")
    refused("labels.npy", np.full(20, 100, np.uint8), "labels go from 100 to 100")
    labels = (published / "labels.npy").read_bytes()
    np.savez(published / "labels.npz", labels=np.zeros(20, np.uint8))
    for archive in ((published / "labels.npz").read_bytes(), b"PK\x03\x04 and no more"):
        (published / "labels.npy").write_bytes(archive)
        with pytest.raises(InputError, match=r"labels\.npy cannot be read"):
            PublishedSet(published)
    (published / "labels.npy").write_bytes(labels)
    (published / "frost.npy").write_bytes((published / "frost.npy").read_bytes()[:500])
    with pytest.raises(InputError, match=r"frost\.npy cannot be read"):
        PublishedSet(published)
    (published / "frost.npy").unlink()
    with pytest.raises(InputError, match="leave --corrupted out"):
        PublishedSet(published)
    (published / "labels.npy").unlink()
    with pytest.raises(InputError, match=r"labels\.npy cannot be read"):
        PublishedSet(published)


def test_two_processes_make_what_one_call_makes_in_order() -> None:
    images, labels, frost = pictures(6), np.arange(6), frost_procedural()
    made = MadeSet(images, labels, "hash", 7, frost)
    units = [("fog", 3), ("gaussian_noise", 1), ("frost", 5), ("jpeg_compression", 2), ("glass_blur", 4)]
    found = list(made.each(units, 2))
    assert [one.unit for one in found] == units
    for one in found:
        assert (one.images == corrupt(images, *one.unit, 7, frost)).all()
        assert (one.labels == labels).all()
    assert made.facts == {"source": "made", "data_sha256": "hash", "images": 6, "seed": 7, "frost": "procedural"}
