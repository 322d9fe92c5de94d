from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from riwoa.datasets.catalogue import task_of
from riwoa.datasets.cifar import Cifar100Task
from riwoa.errors import InputError, OracleError, StateLockedError
from riwoa.ipc.child import child_environment
from riwoa.search.space import Choice
from riwoa.supernet import training
from riwoa.supernet.checks import recalibrate
from riwoa.supernet.evaluator import SubnetEvaluator
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.network import Supernet, build_network, weights_sha256
from riwoa.supernet.plan import Pictures
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa.supernet.training import new_subnet
from riwoa.validate.judging import FinishedNetwork
from riwoa.validate.pictures import TrainingPictures, judging_pictures, judging_split
from riwoa.validate.recipes import Retraining
from riwoa.validate.retrain import Folder, Spec, alone, inherit, load_network, retrain
from tests.support.cifar_files import small_archive

BACKBONE = Backbone(0.1, 100, "small")
RETRAINING = Retraining(
    protocol="cifar100",
    epochs=3,
    warmup_epochs=1,
    training_images=192,
    seed=3,
    changes={"batch_images": 64, "learning_rate": 0.1},
)


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


def spec_of(archive: Path, retraining: Retraining = RETRAINING) -> Spec:
    oracle = SupernetSpec(n_classes=100, data=str(archive), resolutions=(8, 16, 32), width_mult=0.1, stem="small")
    return Spec(architecture(), oracle, retraining)


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> tuple[Folder, dict[str, object]]:
    """A training that nobody interrupted."""
    torch.set_num_threads(1)
    made = folder(tmp_path_factory.mktemp("whole") / "net", spec_of(archive))
    return made, retrain(made)


def test_killed_in_an_epoch_it_ends_in_the_weights_and_losses_of_an_uninterrupted_training(
    tmp_path: Path, archive: Path, whole: tuple[Folder, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_SAVE_EVERY_S", 0.0)
    parts = folder(tmp_path / "parts", spec_of(archive))
    command = [sys.executable, "-c", "from riwoa.supernet import training; training._SAVE_EVERY_S = 0.0\n"]
    command[-1] += "import sys; from riwoa.validate.retrain import main; main(sys.argv[1:])"
    with subprocess.Popen(
        [*command, str(parts.path)], stdout=subprocess.PIPE, text=True, env=child_environment(1)
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "progress"
        while not parts.training.exists():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    steps: list[int] = []
    found = retrain(parts, lambda p: steps.append(p.done))  # whoever goes on: the state is the file's alone
    assert steps[-1] == 9
    expected = whole[1]
    assert {k: found[k] for k in ("weights_sha256", "losses", "test")} == {
        k: expected[k] for k in ("weights_sha256", "losses", "test")
    }
    weights = [load_file(place.weights) for place in (whole[0], parts)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not parts.training.exists()


def test_a_finished_training_is_not_begun_again(whole: tuple[Folder, dict[str, object]]) -> None:
    steps: list[int] = []
    assert retrain(whole[0], lambda p: steps.append(p.done)) == whole[1]
    assert steps == []


def test_a_second_process_in_the_folder_is_refused_by_number(tmp_path: Path, archive: Path) -> None:
    taken = folder(tmp_path / "net", spec_of(archive))
    with alone(taken.path), pytest.raises(StateLockedError, match=r"process \d+ works in .*net already"):
        retrain(taken)


def test_a_training_that_diverges_says_so(tmp_path: Path, archive: Path) -> None:
    wild = replace(RETRAINING, warmup_epochs=0, changes={**RETRAINING.changes, "learning_rate": 1e30})
    with pytest.raises(OracleError, match="lower --learning-rate"):
        retrain(folder(tmp_path / "net", spec_of(archive, wild)))


def test_a_damaged_specification_or_network_is_refused(tmp_path: Path, whole: tuple[Folder, dict[str, object]]) -> None:
    made = Folder(tmp_path)
    for name in ("spec", "weights", "result"):
        getattr(made, name).write_bytes(getattr(whole[0], name).read_bytes())
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


def test_new_weights_come_from_the_seed_alone() -> None:
    config = ofa_config(architecture(choice=1))
    recipes = [Retraining(seed=seed).recipe(Pictures(100, 100, 32), BACKBONE, 8, "cpu") for seed in (1, 1, 2)]
    one, two, other = (new_subnet(recipe, config) for recipe in recipes)
    assert weights_sha256(one) == weights_sha256(two) != weights_sha256(other)


def test_cifar100_is_trained_by_its_protocol_and_other_pictures_as_suits_them() -> None:
    many = Retraining(protocol="cifar100").recipe(Pictures(100, 50_000, 32), Backbone(0.5, 100, "small"), 28, "cuda")
    assert (many.batch_images, many.steps, many.warmup_steps) == (512, 97 * 100, 97 * 3)
    assert (many.optimiser, many.learning_rate, many.weight_decay, many.ema) == ("sgd", 0.2, 5e-4, 0.999)
    assert (many.width_mult, many.stem, many.resolutions, many.precision) == (0.5, "small", (28,), "bfloat16")
    few = Retraining(epochs=10, changes={"ema": 0.5}).recipe(Pictures(3, 90, 300, 4.0), BACKBONE, 96, "cpu")
    assert (few.batch_images, few.steps, few.optimiser, few.ema) == (45, 20, "adamw", 0.5)
    assert few.zoom < 1  # photographs are cut
    assert few.balance > 0  # classes of which one has four times as many
    assert few.checks == many.checks == 0  # nothing is chosen


def test_all_pictures_train_but_those_that_judge(tmp_path: Path, task: Cifar100Task) -> None:
    found = TrainingPictures.of(task)
    assert len(found.labels) == len(task.pictures.train_labels)
    assert judging_split(task) == "test"
    some = TrainingPictures.of(task, 100, seed=1)
    assert len(set(some.labels.tolist())) > 30  # of all classes
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 16, 16, 3), np.uint8)
    arrays: dict[str, Any] = {"train_images": pixels, "train_labels": np.arange(12) % 2}
    arrays |= {"validation_images": pixels[:6], "validation_labels": np.arange(6) % 2}
    arrays |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    np.savez(tmp_path / "a.npz", **arrays)
    alone = task_of(SupernetSpec(data=str(tmp_path / "a.npz"), n_classes=2, data_rules=1))
    assert judging_split(alone) == "validation"
    assert len(TrainingPictures.of(alone).labels) == 12
    judging, labels = judging_pictures(alone, 3)
    assert (judging == pixels[[0, 2, 4]]).all()
    assert labels.tolist() == [0, 0, 0]


def test_it_learns(tmp_path: Path, archive: Path) -> None:
    """The archive's classes are colours; chance is 1 %."""
    changes = {"batch_images": 32, "learning_rate": 0.1, "ema": 0.95}
    longer = replace(RETRAINING, epochs=4, training_images=None, recalibration_images=500, changes=changes)
    result = retrain(folder(tmp_path / "net", spec_of(archive, longer)))
    assert result["losses"][-1] < result["losses"][0] - 0.5
    assert result["test"]["accuracy"] >= 0.08


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


# -- judging -----------------------------------------------------------------------------------------------------------


def test_uncorrupted_pictures_are_judged_as_the_result_says(
    whole: tuple[Folder, dict[str, object]], task: Cifar100Task
) -> None:
    network = FinishedNetwork.load(whole[0], task, torch.device("cpu"))
    pixels, labels = judging_pictures(task)
    test = whole[1]["test"]
    assert isinstance(test, dict)
    assert (network.count_correct(pixels, labels), len(labels)) == (test["correct"], test["images"])


def test_inherited_weights_are_judged_as_the_oracle_judges_them(
    tmp_path: Path, archive: Path, task: Cifar100Task
) -> None:
    network = build_network(BACKBONE, seed=5)
    checkpoint = tmp_path / "supernet.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, checkpoint)
    usual = spec_of(archive)
    spec = replace(usual, architecture=architecture(16), oracle=replace(usual.oracle, checkpoint=str(checkpoint)))
    result = inherit(folder(tmp_path / "net", spec))
    images, labels = task.views("test", 16)
    recalibration = {16: task.recalibration(16, 400)}
    evaluator = SubnetEvaluator(
        Supernet(network, BACKBONE), recalibration, {16: (images, labels.copy())}, dtype="float32"
    )
    expected = evaluator.evaluate(spec.architecture)
    assert abs(result["test"]["accuracy"] - expected["accuracy"]) <= 0.01  # one image: sums in another order
    assert result["macs"] == expected["macs"]
    assert result["parameters"] == expected["parameters"]
