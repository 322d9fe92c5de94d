from __future__ import annotations

import statistics
from xml.etree import ElementTree

import pytest

from riwoa.ctl.validate import render
from riwoa.validate.corruptions import CORRUPTIONS, SEVERITIES
from riwoa.validate.report import Judged, summary, svg, told_source

MADE = {"source": "made", "data_sha256": "x", "images": 50, "seed": 3, "frost": "procedural"}
FACTS = {"task": "cifar100", "settings": {}}


def judged(name: str, shift: int) -> Judged:
    correct = {c: [40 - 5 * s + i % 4 - shift for s in range(5)] for i, c in enumerate(CORRUPTIONS)}
    result = {
        "test": {"accuracy": 0.66, "correct": 66, "images": 100},
        "weights_sha256": "w",
        "architecture": {"resolution": 32},
        "resolution": 32,
        "macs": 1000,
        "parameters": 10,
        "device": "cpu",
        "test_error": 0.047,
        "split": "test",
    }
    return Judged(name, f"the {name}", result, 1.5 if shift else None, 50, correct)


@pytest.fixture
def networks() -> list[Judged]:
    return [judged("winner", 0), judged("random", 3)]


def test_every_number_follows_from_the_counts(networks: list[Judged]) -> None:
    data = summary(networks, FACTS, MADE)
    for network in networks:
        found = data["networks"][network.name]
        errors = [statistics.fmean(1 - k / 50 for k in network.correct[c]) for c in CORRUPTIONS]
        assert found["mce"] == pytest.approx(statistics.fmean(errors))
        assert found["mean_corruption_accuracy"] == pytest.approx(1 - statistics.fmean(errors))
        for c, error in zip(CORRUPTIONS, errors, strict=True):
            assert found["corruption_accuracy"][c] == pytest.approx(1 - error)
        for s in SEVERITIES:
            total = sum(network.correct[c][s - 1] for c in CORRUPTIONS)
            assert found["severity_accuracy"][s - 1] == pytest.approx(total / 50 / 15)
    assert data["mce"]["normalised"] is False
    assert data["corrupted"]["source"] == "made"


def test_the_text_says_made_or_published_and_that_mce_is_not_normalised(networks: list[Judged]) -> None:
    made = render(summary(networks, FACTS, MADE))
    assert "made here from the test images (seed 3), not the published archive" in made
    assert "frost from textures made here" in made
    assert "mCE is unnormalised" in made
    assert "66.00 % ± 4.70" in made
    own = summary(networks, {**FACTS, "task": "photos"}, MADE)
    assert told_source(own).startswith("The corruptions of CIFAR-100-C, made here from the test images (seed 3); frost")
    published = summary(networks, FACTS, {"source": "published", "folder": "/data/CIFAR-100-C", "images": 10000})
    assert told_source(published).startswith("CIFAR-100-C: the published archive at /data/CIFAR-100-C; 10000 images")
    photographs = summary(networks, FACTS, {**MADE, "frost": "photographs"})
    assert "frost from the published photographs" in told_source(photographs)


def test_the_picture_has_a_bar_for_every_accuracy_at_its_height(networks: list[Judged]) -> None:
    data = summary(networks, FACTS, MADE)
    tree = ElementTree.fromstring(svg(data))
    bars = [r for r in tree.iter("{http://www.w3.org/2000/svg}rect") if len(r)]
    assert len(bars) == 2 * 16
    heights = [float(bar.get("height", "nan")) for bar in bars]
    expected = [
        network["test"]["accuracy"] if c == "clean" else network["corruption_accuracy"][c]
        for c in ("clean", *CORRUPTIONS)
        for network in data["networks"].values()
    ]
    scale = heights[0] / expected[0]
    assert heights == pytest.approx([scale * share for share in expected], abs=0.02)
    assert all(float(bar.get("y", "nan")) >= 50 for bar in bars)
