"""A start from other classes against from scratch: what the answers say, and a tiny bench that goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from riwoa.bench.transfer import Settings, bench_transfer, summary, words
from riwoa.supernet.recipe import read_recipe
from tests.support.cifar_files import small_archive

TINY = Settings(
    seeds=1, classes=3, pictures=10, epochs=1, source_epochs=1, source_pictures=1, width_mult=0.1, random_subnets=1
)


def test_the_gain_is_paired_on_the_same_pictures_and_by_seed() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(400)  # how hard a picture is, for both alike
    scratch = np.broadcast_to(hard < 0.4, (3, 3, 400)).copy()
    transfer = np.broadcast_to(hard < 0.5, (3, 3, 400)).copy()
    transfer[2] = hard < 0.45
    found = summary({"transfer": transfer, "scratch": scratch}, Settings())
    told = found["difference"]["largest"]
    by_seed = [(transfer[s, 0].mean() - scratch[s, 0].mean()) for s in range(3)]
    assert told["by_seed"] == pytest.approx(by_seed)
    assert told["value"] == pytest.approx(np.mean(by_seed))
    low, high = told["over_pictures"]
    assert low < told["value"] < high
    assert high - low < 0.07  # unpaired it would be 0.13
    assert "over seeds" in words(found)
    assert found["ratio"] == pytest.approx(np.mean(transfer[:, 0]) / np.mean(scratch[:, 0]))


def test_a_bench_is_done_once_and_its_source_has_not_seen_the_classes(tmp_path: Path) -> None:
    archive = small_archive(tmp_path, 20, 2)
    first = bench_transfer(archive, tmp_path / "out", TINY)
    assert first["test_pictures"] == 3 * 2
    (place,) = (tmp_path / "out").iterdir()
    recipe = read_recipe(place / "transfer-0.safetensors")
    assert (recipe.source, recipe.n_classes) == ("source.safetensors", 3)
    assert read_recipe(place / "scratch-0.safetensors").steps == recipe.steps
    assert read_recipe(place / "source.safetensors").n_classes == 97
    pixels = [np.load(place / f"{name}.npz")["train_images"] for name in ("source", "transfer-0")]
    assert not {p.tobytes() for p in pixels[0]} & {p.tobytes() for p in pixels[1]}
    said: list[str] = []
    assert json.dumps(bench_transfer(archive, tmp_path / "out", TINY, lambda *told: said.append(told[2]))) == (
        json.dumps(first)
    )
    assert said == []
