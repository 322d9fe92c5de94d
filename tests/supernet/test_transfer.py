from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from riwoa.datasets.image_file import ImageFileTask
from riwoa.errors import InputError
from riwoa.supernet.batches import ImageBatches, class_weights
from riwoa.supernet.checkpoint import read_checkpoint, safetensors_bytes
from riwoa.supernet.checks import EarlyStop
from riwoa.supernet.plan import Pictures, Wishes, plan, resolutions_for, settled, source_of
from riwoa.supernet.recipe import Recipe
from riwoa.supernet.training import Trainer, new_supernet, write_safetensors
from riwoa.supernet.transfer import HEAD
from tests.support.tiny_pictures import CLASSES, SIDE_PX, tiny_file

CPU = torch.device("cpu")
PICTURES = Pictures(CLASSES, 72, SIDE_PX)
TINY = replace(
    plan(PICTURES, Wishes(epochs=4, width_mult=0.1, resolutions=(12,)), None),
    batch_images=16,
    random_subnets=0,
    checks=0,
)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ImageFileTask:
    return ImageFileTask.open(tiny_file(tmp_path_factory.mktemp("pictures") / "tiny.npz"), data_rules=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supernet of five other classes, as another training would have left it."""
    path = tmp_path_factory.mktemp("source") / "source.safetensors"
    recipe = replace(TINY, n_classes=5, seed=9)
    weights = {k: v.detach().clone() for k, v in new_supernet(recipe).state_dict().items()}
    write_safetensors(weights, path, {})
    return path


def test_a_transfer_takes_all_weights_over_but_the_classifiers(task: ImageFileTask, source: Path) -> None:
    found = Trainer(TINY, task, source=source).net.state_dict()
    begun_with = read_checkpoint(source)
    same = {name for name, tensor in found.items() if torch.equal(tensor, begun_with[name])}
    assert found.keys() - same == {name for name in found if name.startswith(HEAD)}
    assert found[HEAD + "linear.weight"].shape[0] == CLASSES


def test_what_is_taken_over_is_held_until_the_new_classifier_has_learned(task: ImageFileTask, source: Path) -> None:
    trainer = Trainer(replace(TINY, head_only_steps=2, warmup_steps=1, steps=8), task, source=source)
    before = {name: p.detach().clone() for name, p in trainer.net.named_parameters()}
    trainer.train_step()
    losses = trainer.train_step()
    moved = {name for name, p in trainer.net.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.startswith(HEAD) for name in moved)
    assert losses.distilled_subnets == 0
    assert trainer.train_step().distilled_subnets == 1
    moved = {name for name, p in trainer.net.named_parameters() if not torch.equal(p, before[name])}
    assert "first_conv.conv.weight" in moved


def test_weights_of_another_width_are_refused_with_the_reason(task: ImageFileTask, source: Path) -> None:
    with pytest.raises(InputError, match=r"width 0\.1, and one of width 0\.25 .* leave train\.width out"):
        Trainer(replace(TINY, width_mult=0.25), task, source=source)
    with pytest.raises(InputError, match=r"of width 1, and one of width 0\.5 is asked for"):
        source_of("ofa_mbv3_d234_e346_k357_w1.0", 0.5)
    assert source_of("auto", 0.5) is None  # nobody named one
    found = source_of("auto", None)
    assert found is not None
    assert settled(Wishes(), 32, found).width_mult == 0.25
    with pytest.raises(InputError, match="no supernet at"):
        source_of("nowhere.pth", None)


def test_a_source_that_changed_since_is_refused(task: ImageFileTask, source: Path) -> None:
    with pytest.raises(InputError, match="not the file that this training began from"):
        Trainer(replace(TINY, source="a", source_sha256="0" * 64), task, source=source)


def test_a_recipe_follows_from_the_pictures() -> None:
    assert resolutions_for(32) == (24, 28, 32)
    assert resolutions_for(3000) == (64, 80, 96)
    small = plan(Pictures(10, 1000, 32), Wishes(), None)
    large = plan(Pictures(10, 1000, 96, unevenness=4.0), Wishes(epochs=2), None)
    assert (small.crop_px, small.zoom, small.minutes, small.balance) == (4, 1.0, 10.0, 0.0)
    assert (large.crop_px, large.zoom, large.minutes, large.balance) == (0, 0.35, 0.0, 0.5)
    assert large.steps == 2 * (1000 // large.batch_images)
    assert plan(Pictures(2, 5, 32), Wishes(), None).batch_images == 2


def test_rare_classes_weigh_more_and_the_loss_stays_as_large() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    weights = class_weights(labels, 3, 0.5)
    assert weights[1] / weights[0] == pytest.approx(3.0, rel=1e-5)
    assert weights[2] == 0
    assert weights[labels].mean() == pytest.approx(1.0, rel=1e-5)


def test_windows_lie_inside_the_picture_and_show_what_lies_there() -> None:
    ramp = np.arange(48, dtype=np.uint8)[None, :, None, None] * 4 + np.zeros((1, 48, 48, 3), np.uint8)
    pixels, labels = np.repeat(ramp, 16, 0), np.arange(16)
    recipe = replace(TINY, zoom=0.2, resolutions=(24,), crop_px=0, cutout_px=0, colour=0.0, flip=False)
    batches = ImageBatches(pixels, labels, ((0.0,) * 3, (1.0,) * 3), recipe, CPU)
    images, _ = batches.batch(0, np.random.Generator(np.random.Philox(key=1)))
    assert images.shape == (16, 3, 24, 24)
    rows = images.mean((1, 3)) * 255 / 4  # of the ramp: which line of the picture is seen
    assert float(rows.min()) >= 0
    assert float(rows.max()) <= 47
    steps = rows.diff(dim=1)
    assert float(steps.min()) >= 0
    heights = (rows[:, -1] - rows[:, 0]) / 47
    assert float(heights.min()) < 0.6 < float(heights.max())


def test_training_ends_where_it_helps_no_longer_and_keeps_the_better_weights(
    task: ImageFileTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(TINY, checks=4, patience=2)
    found = iter([0.5, 0.9, 0.85, 0.2, 0.3, 0.1])  # the third is within a standard error of the second
    stop = EarlyStop(task, recipe, CPU)
    monkeypatch.setattr(stop, "_accuracy", lambda net, average: next(found))
    weights = [{"w": torch.tensor(float(i))} for i in range(5)]
    assert [stop.look(None, w) for w in weights] == [False, False, False, False, True]
    assert stop.kept(weights[-1]) == weights[2]
    again = EarlyStop(task, recipe, CPU)
    again.restore(stop.state())
    assert again.kept(weights[-1]) == weights[2]
    assert [step for step in range(1, 42) if stop.due(step, 41)] == [10, 20, 30, 40, 41]
    assert not EarlyStop(task, Recipe(), CPU).due(1, 1)


def test_a_judged_network_trains_on_unchanged(task: ImageFileTask) -> None:
    plain, judged = (Trainer(replace(TINY, checks=checks, steps=4), task) for checks in (0, 2))
    for trainer in (plain, judged):
        for _ in range(4):
            trainer.train_step()
            trainer.check()
    one, other = plain.net.state_dict(), judged.net.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_file_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    notes = {name: name * 3 for name in "abcdefgh"}
    weights = {"w": torch.arange(3.0), "b": torch.ones(1)}
    contents = {safetensors_bytes(weights, notes) for _ in range(10)}
    assert len(contents) == 1
    (tmp_path / "a.safetensors").write_bytes(contents.pop())
    assert torch.equal(read_checkpoint(tmp_path / "a.safetensors")["w"], weights["w"])
