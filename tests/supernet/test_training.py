from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from riwoa.datasets.arrays import resize_pixels
from riwoa.datasets.cifar import Cifar100Task
from riwoa.datasets.digits import load_digits_task
from riwoa.datasets.image_file import ImageFileTask
from riwoa.errors import InputError
from riwoa.supernet import training
from riwoa.supernet.batches import ImageBatches
from riwoa.supernet.network import Supernet
from riwoa.supernet.ranking import RankSettings, agreement, rank
from riwoa.supernet.recipe import CIFAR100, Recipe, read_recipe
from riwoa.supernet.space import OfaConfig
from riwoa.supernet.training import Trainer, TrainingProgress, train_supernet
from tests.support.cifar_files import small_archive

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


def test_a_state_of_other_data_or_of_another_network_is_refused(cifar: Cifar100Task, tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    Trainer(SMALL, cifar, about="one").save(state)
    with pytest.raises(InputError, match="other data"):
        Trainer(SMALL, cifar, about="another").load(state)
    (tmp_path / "other").mkdir()
    other = Cifar100Task.open(small_archive(tmp_path / "other", per_class=21))
    with pytest.raises(InputError, match="other data"):
        Trainer(SMALL, other, about="one").load(state)
    Trainer(SMALL, cifar, about="one").load(state)


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


# --- images ----------------------------------------------------------------------------------------------------------

SMALL = replace(
    CIFAR100, width_mult=0.1, resolutions=(8, 12), steps=4, batch_images=16, random_subnets=1, warmup_steps=1, seed=3
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Cifar100Task:
    return Cifar100Task.open(small_archive(tmp_path_factory.mktemp("cifar")))


def drawn(batches: ImageBatches, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    return batches.batch(step, np.random.Generator(np.random.Philox(key=1, counter=[0, 0, 0, step])))


def image_batches(pixels: Any, labels: Any, **settings: Any) -> ImageBatches:
    plain = replace(SMALL, resolutions=(32,), crop_px=0, flip=False, cutout_px=0)
    return ImageBatches(pixels, labels, ((0.5,) * 3, (0.25,) * 3), replace(plain, **settings), CPU)


def test_an_epoch_shows_every_image_once_and_the_next_one_in_another_order(cifar: Cifar100Task) -> None:
    pixels, labels = cifar.pixels("train")[:70], np.arange(70)
    batches = image_batches(pixels, labels)
    # Four steps of 16; six images wait for another epoch.
    epochs = [torch.cat([drawn(batches, 4 * e + i)[1] for i in range(4)]).tolist() for e in range(2)]
    assert len(set(epochs[0])) == len(set(epochs[1])) == 64
    assert epochs[0] != epochs[1]
    images, shown = drawn(batches, 2)
    assert torch.equal(drawn(image_batches(pixels, labels), 2)[0], images)  # whatever was drawn before
    expected = (pixels[shown.numpy()].transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-5)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_shifts_mirror_the_edge_and_flips_mirror_the_image(cifar: Cifar100Task) -> None:
    pixels, labels = cifar.pixels("train")[:64], np.arange(64)
    images, shown = drawn(image_batches(pixels, labels, crop_px=4, flip=True, batch_images=64), 0)
    found = np.rint((images.numpy() * 0.25 + 0.5) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    seen = set()
    for image, label in zip(found, shown, strict=True):
        padded = np.pad(pixels[int(label)], ((4, 4), (4, 4), (0, 0)), mode="reflect")
        shifted = {(y, x): padded[y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
        views = {(*key, flip): view[:, ::flip] for key, view in shifted.items() for flip in (1, -1)}
        matching = [key for key, view in views.items() if np.array_equal(view, image)]
        assert len(matching) == 1
        seen.add(matching[0])
    assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(range(9))
    assert {flip for _, _, flip in seen} == {1, -1}


def test_a_square_is_blanked_and_the_image_resized_as_for_the_search(cifar: Cifar100Task) -> None:
    pixels, labels = np.full((40, 32, 32, 3), 255, np.uint8), np.zeros(40, np.int64)
    images, _ = drawn(image_batches(pixels, labels, cutout_px=8), 0)
    blanked = (images == 0).all(1).float().sum((1, 2))
    assert blanked.max() == 49  # 7 by 7 around a pixel, where it does not meet the edge
    assert blanked.min() >= 16
    assert set(images.flatten().tolist()) == {0.0, 2.0}
    pixels = cifar.pixels("train")[:16]
    images, shown = drawn(image_batches(pixels, np.arange(16), resolutions=(20,)), 0)
    smaller = resize_pixels(np.ascontiguousarray(pixels[shown.numpy()].transpose(0, 3, 1, 2)), 20)
    np.testing.assert_allclose(images.numpy(), (smaller / 255 - 0.5) / 0.25, atol=1e-4)


def test_killed_and_resumed_training_on_images_gives_the_same_weights(cifar: Cifar100Task, tmp_path: Path) -> None:
    whole = train_supernet(SMALL, tmp_path / "whole.safetensors", task=cifar)

    def cut(progress: TrainingProgress) -> None:
        if progress.step == 3:
            raise PowerCutError

    parts = tmp_path / "parts.safetensors"
    with pytest.raises(PowerCutError):
        train_supernet(SMALL, parts, task=cifar, progress=cut, save_every_steps=2)
    train_supernet(SMALL, parts, task=cifar)
    weights, found = load_file(whole), load_file(parts)
    assert weights.keys() == found.keys()
    assert all(torch.equal(weights[name], found[name]) for name in weights)
    halves = {name for name, tensor in weights.items() if tensor.dtype == torch.float16}
    assert halves == {name for name, _ in Trainer(SMALL, cifar).net.named_parameters()}
    assert Supernet.load(whole, 0.1, 100, "small").network.first_conv.stride == 1


def test_bfloat16_and_sgd_train_too(cifar: Cifar100Task, tmp_path: Path) -> None:
    losses: list[TrainingProgress] = []
    recipe = replace(SMALL, precision="bfloat16", optimiser="sgd", learning_rate=0.1, steps=2, random_subnets=0)
    path = train_supernet(recipe, tmp_path / "net.safetensors", task=cifar, progress=losses.append)
    assert all(np.isfinite((p.loss_largest, p.loss_distilled)).all() for p in losses)
    assert read_recipe(path) == recipe


def test_training_on_images_learns(cifar: Cifar100Task, tmp_path: Path) -> None:
    losses: list[float] = []
    recipe = replace(SMALL, resolutions=(8,), steps=40, batch_images=50, learning_rate=0.2, random_subnets=0)
    train_supernet(recipe, tmp_path / "a.safetensors", task=cifar, progress=lambda p: losses.append(p.loss_largest))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2


def test_a_time_limit_fixes_the_number_of_steps_once_and_a_resumed_training_keeps_it(
    cifar: Cifar100Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock_s[0])
    recipe = replace(SMALL, minutes=1.0, steps=10**6, random_subnets=0, batch_images=100)
    seen: list[TrainingProgress] = []

    def tick(progress: TrainingProgress) -> None:
        seen.append(progress)
        clock_s[0] += 2.5
        if progress.step == 6:
            raise PowerCutError

    out = tmp_path / "net.safetensors"
    with pytest.raises(PowerCutError):
        train_supernet(recipe, out, task=cifar, progress=tick)
    # 2.5 s a step: settled after 3 s, measured after 6 s, and 54 s are left: 21 steps after the third or fourth.
    [planned] = {p.steps for p in seen if p.steps}
    assert seen[0].steps == 0
    assert 23 <= planned <= 25
    clock_s[0] += 1000.0  # the pause between, and another machine's speed, change nothing
    seen.clear()
    monkeypatch.setattr(training, "_SETTLING_SHARE", 0.0)
    train_supernet(recipe, out, task=cifar, progress=seen.append)
    assert {p.steps for p in seen} == {planned}
    assert seen[-1].step == planned
    assert read_recipe(out).steps == planned
    trainer = Trainer(replace(recipe, minutes=0.0, steps=planned), cifar)
    trainer.step = planned - 1
    assert trainer._learning_rate() < 0.01 * recipe.learning_rate  # the schedule ends with the training


def test_a_time_limit_that_is_over_at_once_lets_every_picture_be_met(cifar: Cifar100Task, tmp_path: Path) -> None:
    recipe = replace(SMALL, minutes=1e-6, random_subnets=0, batch_images=100, head_only_steps=2, warmup_steps=100)
    out = train_supernet(recipe, tmp_path / "net.safetensors", task=cifar)
    assert read_recipe(out).steps == 2 + len(cifar.labels("train")) // 100
    trainer = Trainer(recipe, cifar)
    trainer.step, trainer.steps = 10, 20
    assert trainer._learning_rate() > 0.5 * recipe.learning_rate  # warmed up in the tenth of so short a training


def test_pictures_without_training_labels_cannot_train(tmp_path: Path) -> None:
    pixels, labels = np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int64)
    np.savez(tmp_path / "a.npz", train_images=pixels, validation_images=pixels, validation_labels=labels)
    with pytest.raises(InputError, match="no labels for its training images"):
        Trainer(SMALL, ImageFileTask.open(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    "recipe",
    [
        '{"width_mult": 1e9, "resolutions": []}',
        '{"resolutions": [8], "stem": "x"}',
        "[]",
        '{"resolutions": [1e9]}',
        "{",
    ],
)
def test_an_absurd_recipe_is_refused_before_a_network_of_it_is_made(recipe: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"recipe": recipe})
    with pytest.raises(InputError, match="damaged training recipe"):
        read_recipe(tmp_path / "a.safetensors")


def test_weights_that_diverged_are_not_written(cifar: Cifar100Task) -> None:
    trainer = Trainer(SMALL, cifar)
    next(iter(trainer.average.values()))[0] = 1e6  # beyond float16
    with pytest.raises(InputError, match="diverged"):
        trainer.averaged_weights()


def test_a_training_that_diverges_ends_at_once(cifar: Cifar100Task, tmp_path: Path) -> None:
    steps: list[int] = []
    recipe = replace(SMALL, learning_rate=1e9, warmup_steps=0, steps=40)
    with pytest.raises(InputError, match=r"diverged by step .* lower the learning rate"):
        train_supernet(recipe, tmp_path / "net.safetensors", task=cifar, progress=lambda p: steps.append(p.step))
    assert len(steps) < 39


# --- ranks -----------------------------------------------------------------------------------------------------------


def test_ranks_are_compared_and_a_killed_check_continues(cifar: Cifar100Task, tmp_path: Path) -> None:
    path = train_supernet(replace(SMALL, steps=2), tmp_path / "net.safetensors", task=cifar)
    supernet = Supernet.load(path, 0.1, 100, "small")
    settings = RankSettings(replace(SMALL, batch_images=450), supernet.weights_sha256(), cifar.sha256, 1, 0, 100, "cpu")
    configs = [OfaConfig((3,) * 20, (e,) * 20, (2,) * 5, 8) for e in (3, 4, 6)]
    trained: list[tuple[int, int]] = []

    def cut(done: int, p: TrainingProgress) -> None:
        trained.append((done, p.step))
        if trained[-1] == (1, 3):
            raise PowerCutError

    results = tmp_path / "rank.json"
    with pytest.raises(PowerCutError):
        rank(supernet, cifar, settings, configs, results, cut)
    assert trained == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (1, 3)]  # 1,800 images in batches of 450
    trained.clear()
    found = rank(supernet, cifar, settings, configs, results, lambda done, p: trained.append((done, p.step)))
    assert {done for done, _ in trained} == {1, 2}
    assert [row["e"][0] for row in found["subnets"]] == [3, 4, 6]
    assert all(0 <= row[name] <= 1 for row in found["subnets"] for name in ("inherited", "standalone"))
    assert found["subnets"] == json.loads(results.read_bytes())["subnets"]
    alone = rank(supernet, cifar, settings, configs[1:2], tmp_path / "alone.json")
    assert alone["subnets"] == found["subnets"][1:2]  # whatever was trained before
    with pytest.raises(InputError, match="other settings"):
        rank(supernet, cifar, replace(settings, epochs=2), configs, results)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone.json", "net.safetensors", "rank.json"]


def test_agreement_says_how_many_and_nothing_of_ties() -> None:
    found = agreement([0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.3, 0.4])
    assert (found["n"], found["spearman"], found["kendall"]) == (4, pytest.approx(0.8), pytest.approx(4 / 6))
    assert agreement([0.1, 0.1, 0.1], [0.1, 0.2, 0.3])["spearman"] is None
    assert agreement([0.1, 0.2], [0.1, 0.2]) == {
        "n": 2, "spearman": None, "spearman_p": None, "kendall": None, "kendall_p": None
    }  # fmt: skip
