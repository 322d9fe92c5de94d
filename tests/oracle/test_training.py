from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from riwoa.errors import InputError
from riwoa.oracle.training import Recipe, Trainer, load_digits_task, read_recipe, train_supernet

TINY = Recipe(steps=4, largest_only_steps=1, curriculum_steps=2, batch_images=8, warmup_steps=1, seed=3)


class PowerCutError(Exception):
    pass


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_killed_and_resumed_training_gives_the_same_weights(tmp_path: Path) -> None:
    whole = train_supernet(TINY, tmp_path / "whole.safetensors")

    def cut(progress: object) -> None:
        if progress.step == 3:  # type: ignore[attr-defined]
            raise PowerCutError

    parts = tmp_path / "parts.safetensors"
    with pytest.raises(PowerCutError):
        train_supernet(TINY, parts, progress=cut, save_every_steps=2)
    assert not parts.exists()
    steps: list[int] = []
    train_supernet(TINY, parts, progress=lambda p: steps.append(p.step))
    assert steps == [3, 4]  # it continued from the state saved after step 2
    expected, found = load_file(whole), load_file(parts)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [f.name for f in tmp_path.iterdir() if "training" in f.name] == []


def test_the_file_carries_its_recipe(tmp_path: Path) -> None:
    assert read_recipe(train_supernet(TINY, tmp_path / "net.safetensors")) == TINY


def test_the_shipped_supernet_was_trained_by_the_default_recipe() -> None:
    shipped = Path(__file__).resolve().parents[2] / "daemon" / "riwoa" / "data" / "digits_supernet.safetensors"
    assert read_recipe(shipped) == Recipe()
    assert shipped.stat().st_size <= 4 * 2**20


def test_another_recipes_state_is_refused_and_so_is_a_damaged_one(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    Trainer(TINY, load_digits_task()).save(state)
    with pytest.raises(InputError, match="another recipe"):
        Trainer(Recipe(steps=5), load_digits_task()).load(state)
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InputError, match="delete it to start over"):
        Trainer(TINY, load_digits_task()).load(state)


def test_training_learns(tmp_path: Path) -> None:
    recipe = Recipe(
        steps=30, largest_only_steps=30, curriculum_steps=10_000, batch_images=32, warmup_steps=5, resolutions=(24,)
    )
    losses: list[float] = []
    train_supernet(recipe, tmp_path / "net.safetensors", progress=lambda p: losses.append(p.loss_largest))
    assert sum(losses[-5:]) < sum(losses[:5])
