from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from riwoa.datasets.cifar import Cifar100Task
from riwoa.errors import InputError, OracleError, StateLockedError
from riwoa.ipc.child import child_environment
from riwoa.search.space import Choice
from riwoa.supernet.checks import recalibrate
from riwoa.supernet.evaluator import SubnetEvaluator
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.network import Supernet, build_network, weights_sha256
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa.validate.retrain import (
    Folder,
    Pixels,
    Recipe,
    Spec,
    Trainer,
    alone,
    fresh_network,
    inherit,
    load_network,
    retrain,
)
from tests.support.cifar_files import small_archive

BACKBONE = Backbone(0.1, 100, "small")
RECIPE = Recipe(epochs=3, batch_images=64, learning_rate=0.1, warmup_epochs=1, training_images=192, seed=3)


def architecture(resolution: int = 8, choice: int = 0) -> dict[str, Choice]:
    space = mobilenet_space((resolution,))
    return space.architecture(np.array([(len(gene.choices) - 1) * choice for gene in space.genes]))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_archive(tmp_path_factory.mktemp("cifar"), 10, 1)


@pytest.fixture(scope="module")
def task(archive: Path) -> Cifar100Task:
    return Cifar100Task.open(archive)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def folder(path: Path, spec: Spec) -> Folder:
    path.mkdir(parents=True)
    made = Folder(path)
    made.spec.write_text(json.dumps(spec.to_json()))
    return made


def spec_of(archive: Path, recipe: Recipe = RECIPE) -> Spec:
    return Spec(architecture(), BACKBONE, recipe, str(archive), "cpu", 1)


# -- resume ------------------------------------------------------------------------------------------------------------


def test_killed_after_any_epoch_it_ends_in_the_weights_of_an_uninterrupted_training(
    tmp_path: Path, archive: Path
) -> None:
    whole = retrain(folder(tmp_path / "whole", spec_of(archive)))
    parts = folder(tmp_path / "parts", spec_of(archive))

    class PowerCutError(Exception):
        pass

    def cut(news: object) -> None:
        raise PowerCutError

    for _ in range(2):
        with pytest.raises(PowerCutError):
            retrain(parts, cut)
    assert not parts.result.exists()
    epochs: list[int] = []
    found = retrain(parts, lambda news: epochs.append(news.epoch))
    assert epochs == [3]
    assert found["weights_sha256"] == whole["weights_sha256"]
    assert found["losses"] == whole["losses"]
    assert found["test"] == whole["test"]
    expected, kept = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(expected[name], kept[name]) for name in expected)
    assert not parts.training.exists()


def test_sigkill_of_the_process_loses_at_most_an_epoch(tmp_path: Path, archive: Path) -> None:
    whole = retrain(folder(tmp_path / "whole", spec_of(archive)))
    parts = folder(tmp_path / "parts", spec_of(archive))
    command = [sys.executable, "-m", "riwoa.validate.retrain", str(parts.path)]
    environment, pipe = child_environment(1), subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["epoch"] == 1
        process.send_signal(signal.SIGKILL)
    assert parts.training.exists()
    epochs: list[int] = []
    found = retrain(parts, lambda news: epochs.append(news.epoch))  # whoever goes on: the state is the file's alone
    assert 1 not in epochs
    assert found["weights_sha256"] == whole["weights_sha256"]


def test_a_finished_training_is_not_begun_again(tmp_path: Path, archive: Path) -> None:
    done = folder(tmp_path / "net", spec_of(archive))
    first = retrain(done)
    epochs: list[int] = []
    assert retrain(done, lambda news: epochs.append(news.epoch)) == first
    assert epochs == []


def test_another_trainings_state_and_a_damaged_one_are_refused(tmp_path: Path, archive: Path) -> None:
    task = Cifar100Task.open(archive)
    one = Trainer(spec_of(archive), task)
    one.save(tmp_path / "training.pt")
    other = Trainer(spec_of(archive, replace(RECIPE, learning_rate=0.05)), task)
    with pytest.raises(InputError, match="of another training"):
        other.load(tmp_path / "training.pt")
    (tmp_path / "training.pt").write_bytes((tmp_path / "training.pt").read_bytes()[:3000])
    with pytest.raises(InputError, match="delete it to start over"):
        one.load(tmp_path / "training.pt")


def test_a_second_process_in_the_folder_is_refused_by_number(tmp_path: Path, archive: Path) -> None:
    taken = folder(tmp_path / "net", spec_of(archive))
    with alone(taken.path), pytest.raises(StateLockedError, match=r"process \d+ works in .*net already"):
        retrain(taken)


def test_a_training_that_diverges_says_so(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(OracleError, match="lower --learning-rate"):
        retrain(folder(tmp_path / "net", spec_of(archive, replace(RECIPE, learning_rate=1e30, warmup_epochs=0))))


def test_a_damaged_specification_or_network_is_refused(tmp_path: Path, archive: Path) -> None:
    made = folder(tmp_path / "net", spec_of(archive))
    retrain(made)
    weights = load_file(made.weights)
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, made.weights)
    with pytest.raises(InputError, match=r"is not what .* tells of"):
        load_network(made, torch.device("cpu"))
    made.weights.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        load_network(made, torch.device("cpu"))
    made.spec.write_text("{}")
    with pytest.raises(InputError, match="cannot be used"):
        retrain(made)


# -- what is trained ---------------------------------------------------------------------------------------------------


def test_new_weights_come_from_the_seed_alone_and_leave_torchs_generator() -> None:
    before = torch.random.get_rng_state()
    config = ofa_config(architecture(choice=1))
    one, two, other = (fresh_network(BACKBONE, config, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert weights_sha256(one) == weights_sha256(two) != weights_sha256(other)
    # Nothing of the supernet it was cut from remains.
    subnet = Supernet(build_network(BACKBONE), BACKBONE).get_net_for_config(config)
    for (name, mine), theirs in zip(one.named_parameters(), subnet.parameters(), strict=True):
        assert mine.shape == theirs.shape
        if mine.ndim > 1:
            assert not torch.equal(mine, theirs), name


def test_it_learns(tmp_path: Path, archive: Path) -> None:
    """The archive's classes are colours; chance is 1 %."""
    recipe = replace(RECIPE, epochs=4, batch_images=32, training_images=None, recalibration_images=500, ema=0.95)
    result = retrain(folder(tmp_path / "net", spec_of(archive, recipe)))
    assert result["losses"][-1] < result["losses"][0] - 0.5
    assert result["test"]["accuracy"] >= 0.08


@pytest.mark.parametrize("resolution", [16, 28, 32])
def test_pixels_are_the_tasks_own_views(task: Cifar100Task, resolution: int) -> None:
    images = torch.from_numpy(task.pictures.test_images[:20].copy())
    found = Pixels(task, resolution, torch.device("cpu"))(images)
    expected, _ = task.views("test", resolution)
    np.testing.assert_allclose(found.numpy(), expected[:20], atol=2e-5)


def test_without_augmentation_an_epoch_is_every_image_once(task: Cifar100Task, archive: Path) -> None:
    recipe = replace(RECIPE, padding_px=0, flip=False, training_images=128, batch_images=64)
    trainer = Trainer(spec_of(archive, recipe), task)
    order = [label for _, labels in trainer._batches(0) for label in labels.tolist()]
    assert sorted(order) == sorted(task.pictures.train_labels[:128].tolist())
    assert order != [label for _, labels in trainer._batches(1) for label in labels.tolist()]
    plain = trainer.pixels(torch.from_numpy(task.pictures.train_images[:128].copy()))
    rows = {row.tobytes() for row in plain.numpy().reshape(128, -1)}
    drawn = torch.cat([images for images, _ in trainer._batches(0)])
    assert {row.tobytes() for row in drawn.contiguous().numpy().reshape(128, -1)} == rows


def test_crops_flips_and_holes_are_what_they_say(task: Cifar100Task, archive: Path) -> None:
    recipe = replace(RECIPE, padding_px=4, flip=True, cutout_px=6, training_images=64, batch_images=64)
    spec = replace(spec_of(archive, recipe), architecture=architecture(32))
    trainer = Trainer(spec, task)
    ((images, labels),) = trainer._batches(0)
    originals = task.pictures.train_images[:64]
    padded = np.pad(originals, ((0, 0), (4, 4), (4, 4), (0, 0)))
    mean, std = (np.array(m)[:, None, None] for m in (task.mean, task.std))
    bytes_back = np.rint((images.numpy() * std + mean) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    flipped = holes = 0
    for image, label in zip(bytes_back, labels.tolist(), strict=True):
        i = int(np.flatnonzero(task.pictures.train_labels[:64] == label)[0])
        seen = (image != 0).any(axis=2)
        matches = [
            (dy, dx, flip)
            for dy in range(9)
            for dx in range(9)
            for flip in (False, True)
            if (cut(padded[i], dy, dx, flip)[seen] == image[seen]).all()
        ]
        assert len(matches) == 1
        window = cut(padded[i], *matches[0])
        hole = (image == 0).all(axis=2) & (window != 0).any(axis=2)
        rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
        assert rows.size == 0 or (np.ptp(rows) < 6 and np.ptp(columns) < 6)
        holes += rows.size > 0
        flipped += matches[0][2]
    assert 15 < flipped < 50
    assert holes > 50


def cut(padded: np.ndarray, dy: int, dx: int, flip: bool) -> np.ndarray:
    window = padded[dy : dy + 32, dx : dx + 32]
    return window[:, ::-1] if flip else window


def test_recalibration_averages_the_batches_statistics() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    batches = [torch.randn(50, 3, 8, 8) * scale + scale for scale in (1.0, 3.0)]
    network(batches[0] * 7)  # what was there before must not count
    recalibrate(network, iter(batches))
    norm = network[0]
    expected = torch.stack([b.mean(dim=(0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        norm.running_var, torch.stack([b.var(dim=(0, 2, 3)) for b in batches]).mean(0), rtol=1e-4, atol=1e-4
    )
    assert norm.momentum == 0.1
    assert not network.training


def test_the_average_is_judged_with_statistics_of_its_own(task: Cifar100Task, archive: Path) -> None:
    trainer = Trainer(spec_of(archive), task)
    trainer.train_epoch()
    averaged = trainer.averaged()
    assert not averaged.training
    again = trainer.averaged()
    assert weights_sha256(averaged) == weights_sha256(again)
    for name, mine in averaged.named_buffers():
        if name.endswith("running_mean"):
            assert not torch.equal(mine, dict(trainer.network.named_buffers())[name]), name
    for (_, mine), kept in zip(averaged.named_parameters(), trainer._average, strict=True):
        assert torch.equal(mine, kept)


# -- inherited weights -------------------------------------------------------------------------------------------------


def test_inherited_weights_are_judged_as_the_oracle_judges_them(
    tmp_path: Path, archive: Path, task: Cifar100Task
) -> None:
    network = build_network(BACKBONE, seed=5)
    checkpoint = tmp_path / "supernet.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, checkpoint)
    spec = replace(spec_of(archive), architecture=architecture(16))
    result = inherit(folder(tmp_path / "net", spec), checkpoint, 400)
    images, labels = task.views("test", 16)
    recalibration = {16: task.recalibration(16, 400)}
    evaluator = SubnetEvaluator(
        Supernet(network, BACKBONE), recalibration, {16: (images, labels.copy())}, dtype="float32"
    )
    expected = evaluator.evaluate(spec.architecture)
    assert abs(result["test"]["accuracy"] - expected["accuracy"]) <= 0.01  # one image: sums in another order
    assert result["macs"] == expected["macs"]
    assert result["parameters"] == expected["parameters"]
