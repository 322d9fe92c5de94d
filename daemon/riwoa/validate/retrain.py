"""One architecture trained from scratch, and its accuracy on pictures that chose nothing.

``python -m riwoa.validate.retrain FOLDER`` does what ``FOLDER/spec.json`` says. The loop is that of every training
(``supernet.training``): its state is saved every 20 s, and killed and started again it continues; on a CPU at a fixed
thread count it ends in the weights of an uninterrupted one, bit for bit. On a GPU the order of sums is the library's.

Nothing is chosen by the pictures that judge: they are looked at once, after the last step. The network judged is the
exponential average of the weights. Its BatchNorm statistics are not an average of other networks' statistics but its
own: measured on training images at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from riwoa.datasets.catalogue import task_of
from riwoa.errors import InputError, OracleError, StateDirectoryError, StateLockedError
from riwoa.files.lock import locked
from riwoa.files.ownership import unwritable
from riwoa.ipc.child import die_with_parent, watch_stdin
from riwoa.ipc.job import answer
from riwoa.oracle.supernet_export import winning_net
from riwoa.parsing import parse_json
from riwoa.paths import StatePaths
from riwoa.search.paired import accuracy_of
from riwoa.supernet.finetuning import answers, averaged
from riwoa.supernet.geometry import Backbone, macs, parameters
from riwoa.supernet.job import JobProgress, OnProgress, tell_parent
from riwoa.supernet.network import ArchitectureError, checked_config, weights_sha256
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.space import OfaConfig, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa.supernet.training import Losses, Trainer, TrainingProgress, new_subnet, train
from riwoa.validate.pictures import TrainingPictures, judging_split
from riwoa.validate.recipes import Retraining
from riwoa_storage.durable import replace_durably

if TYPE_CHECKING:
    from riwoa.datasets.catalogue import ImageTask

_REPORT_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Spec:
    """All that decides a trained network, besides library versions and the processor.

    Attributes:
        architecture: of the network.
        oracle: pictures, backbone, device and threads; for inherited weights the checkpoint.
        retraining: how it is trained.
    """

    architecture: Mapping[str, Any]
    oracle: SupernetSpec
    retraining: Retraining

    def to_json(self) -> dict[str, Any]:
        """What ``spec.json`` holds."""
        told = {"architecture": dict(self.architecture), "oracle": self.oracle.to_json()}
        return {**told, "retraining": asdict(self.retraining)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """The specification of ``to_json``."""
        return cls(data["architecture"], SupernetSpec.from_json(data["oracle"]), Retraining(**data["retraining"]))

    @property
    def config(self) -> OfaConfig:
        """The architecture in OFA's form."""
        return ofa_config(self.architecture)

    @property
    def backbone(self) -> Backbone:
        """Widths, classes and strides."""
        return Backbone(self.oracle.width_mult, self.oracle.n_classes, self.oracle.stem)


# -- training ----------------------------------------------------------------------------------------------------------


class Retrainer(Trainer):
    """A network in training by itself, of new weights; the last ones are kept, whatever they are worth."""

    def __init__(self, spec: Spec, task: ImageTask) -> None:
        retraining = spec.retraining
        pictures = TrainingPictures.of(task, retraining.training_images, retraining.seed)
        device = torch.device(spec.oracle.device)
        config = checked_config(spec.config)
        recipe = retraining.recipe(
            pictures.described(spec.oracle.n_classes), spec.backbone, config.r, spec.oracle.device
        )
        super().__init__(
            recipe,
            task,
            spec.oracle.device,
            network=new_subnet(recipe, config),
            about=json.dumps([config.to_json(), len(pictures.labels)]),
            batches=pictures.batches(recipe, device),
        )
        self.progress = self.early_stop = EpochLosses(recipe.steps // retraining.epochs, device)

    def train_step(self) -> Losses:
        """One step on the labels, its loss counted."""
        losses = super().train_step()
        self.progress.add(losses.largest)
        return losses


class EpochLosses:
    """The mean loss of each epoch, and the seconds that all took; ends no training and keeps the last weights."""

    def __init__(self, epoch_steps: int, device: torch.device) -> None:
        self.values: list[float] = []
        self._epoch_steps = epoch_steps
        self._total = torch.zeros((), device=device)
        self._before_s, self._begun_s = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Of all processes that trained here."""
        return self._before_s + time.monotonic() - self._begun_s

    def add(self, loss: Tensor) -> None:
        """Count a step's loss."""
        self._total += loss

    def due(self, step: int, steps: int) -> bool:
        """Whether an epoch ends with this step."""
        return step % self._epoch_steps == 0

    def look(self, net: Any, average: Mapping[str, Tensor]) -> bool:
        """Note the epoch's loss.

        Raises:
            OracleError: it is no number any more.
        """
        loss = float(self._total) / self._epoch_steps
        if not math.isfinite(loss):
            raise OracleError(f"the loss became {loss} in epoch {len(self.values) + 1}; lower --learning-rate")
        self.values.append(loss)
        self._total.zero_()
        return False

    def kept(self, average: dict[str, Tensor]) -> dict[str, Tensor]:
        """The last weights."""
        return average

    def state(self) -> dict[str, Any]:
        """What a continued training must know."""
        return {"values": self.values, "total": self._total, "seconds": self.seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Stand where ``state`` was taken."""
        self.values, self._before_s = list(state["values"]), float(state["seconds"])
        self._total, self._begun_s = state["total"], time.monotonic()


# -- a folder ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Folder:
    """Where a network's files lie."""

    path: Path

    @property
    def spec(self) -> Path:
        """The file that says what to train."""
        return self.path / "spec.json"

    @property
    def training(self) -> Path:
        """The file with the state of an unfinished training."""
        return self.path / "training.pt"

    @property
    def weights(self) -> Path:
        """The file with the finished network."""
        return self.path / "model.safetensors"

    @property
    def result(self) -> Path:
        """The file that says what came of it; written last."""
        return self.path / "result.json"


def retrain(folder: Folder, progress: OnProgress = lambda p: None) -> dict[str, Any]:
    """Train what ``spec.json`` says, or continue, and judge it; returns what ``result.json`` holds.

    Raises:
        InputError: the specification, the data or a saved state cannot be used.
        StateLockedError: another process trains here.
        OracleError: the training diverged, or there is no such device.
        StateDirectoryError, FullDiskError: the folder cannot be written.
    """
    spec = read_spec(folder)
    with alone(folder.path), _writing(folder.path):
        if folder.result.exists():
            return read_result(folder)
        prepare(spec.oracle)
        task = task_of(spec.oracle)
        trainer = Retrainer(spec, task)
        train(trainer, folder.training, progress=_Pace(trainer, progress).training)
        recalibration = task.recalibration(spec.config.r, spec.retraining.recalibration_images)
        network = averaged(trainer.net, trainer.average, recalibration, trainer.device)
        facts = {"losses": trainer.progress.values, "training_s": trainer.progress.seconds}
        result = keep_network(folder, spec, network, task, {**facts, "recipe": asdict(trainer.recipe)})
        folder.training.unlink(missing_ok=True)
    return result


def inherit(folder: Folder) -> dict[str, Any]:
    """Judge the subnet of ``spec.json`` with the supernet's own weights, recalibrated as the search did.

    Raises:
        InputError: the specification, the data or the checkpoint cannot be used.
        StateLockedError, StateDirectoryError, FullDiskError: as ``retrain``.
    """
    spec = read_spec(folder)
    with alone(folder.path), _writing(folder.path):
        if folder.result.exists():
            return read_result(folder)
        prepare(spec.oracle)
        task = task_of(spec.oracle)
        network = winning_net(spec.oracle, spec.config, task).to(spec.oracle.device)
        return keep_network(folder, spec, network, task, {})


def keep_network(folder: Folder, spec: Spec, network: Any, task: ImageTask, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the weights, judge them on the pictures that judge, write the result and return it."""
    config, split, device = spec.config, judging_split(task), torch.device(spec.oracle.device)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    replace_durably(folder.weights, save(weights, {"format": "pt", "resolution": str(config.r)}))
    images, labels = task.views(split, config.r, spec.oracle.validation_views)
    right = answers(network, images, labels, device)
    views = right.reshape(-1, len(task.labels(split))).T  # of one picture, where it has several
    correct = int(right.sum())
    result = {
        "test": {"accuracy": correct / len(labels), "correct": correct, "images": len(labels)},
        "test_error": accuracy_of(views).error,
        "split": split,
        "weights_sha256": weights_sha256(network),
        "architecture": dict(spec.architecture),
        "resolution": config.r,
        "macs": macs(config, spec.backbone),
        "parameters": parameters(config, spec.backbone),
        "network": network.config,
        "data_sha256": task.sha256,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        **facts,
    }
    replace_durably(folder.result, json.dumps(result, indent=1, allow_nan=False).encode() + b"\n")
    return read_result(folder)


def load_network(folder: Folder, device: torch.device) -> nn.Module:
    """The finished network in evaluation mode, from the folder's files alone.

    Raises:
        InputError: a file is missing or damaged.
    """
    result = read_result(folder)
    try:
        network: nn.Module = import_ofa().MobileNetV3.build_from_config(result["network"])
        nn.Module.load_state_dict(network, load_file(folder.weights))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{folder.weights} is damaged ({reason}); delete {folder.path} to train again") from error
    if weights_sha256(network) != result["weights_sha256"]:
        raise InputError(f"{folder.weights} is not what {folder.result} tells of; delete {folder.path} to train again")
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval()


def read_spec(folder: Folder) -> Spec:
    """What ``spec.json`` says.

    Raises:
        InputError: it is missing or damaged, or its architecture is none.
    """
    try:
        spec = Spec.from_json(parse_json(folder.spec.read_bytes()))
        checked_config(spec.config)
    except (OSError, ValueError, KeyError, TypeError, ArchitectureError) as error:
        raise InputError(f"{folder.spec} cannot be used ({error}); delete {folder.path} and start again") from error
    return spec


def read_result(folder: Folder) -> dict[str, Any]:
    """What ``result.json`` holds.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        result: dict[str, Any] = parse_json(folder.result.read_bytes())
        float(result["test"]["accuracy"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder.result} cannot be read ({error}); delete {folder.path} to train again") from error
    return result


def prepare(spec: SupernetSpec) -> None:
    """Set this process up for the device.

    Raises:
        OracleError: there is no such device here.
    """
    torch.set_num_threads(spec.threads)
    if spec.device == "cuda":
        if not torch.cuda.is_available():
            raise OracleError("torch finds no CUDA device; use --device cpu")
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False  # training is bfloat16 anyway, and judging is to be float32


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the folder's lock, which goes with the process.

    Raises:
        StateLockedError: another process holds it.
        StateDirectoryError, FullDiskError: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(StatePaths(path)))
        except StateLockedError as error:
            holder = str(error).split()[1]
            raise StateLockedError(f"process {holder} works in {path} already; wait for it, or end it") from None
        except StateDirectoryError as error:
            raise StateDirectoryError(str(error).replace("--state", "--out")) from None
        yield


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error, "name another --out") from None


class _Pace:
    """Reports a retraining a few times a second."""

    def __init__(self, trainer: Retrainer, progress: OnProgress) -> None:
        self._losses = trainer.progress
        self._progress = progress
        self._told_s = 0.0

    def training(self, p: TrainingProgress) -> None:
        """A step was done."""
        now_s = time.monotonic()
        if now_s - self._told_s >= _REPORT_EVERY_S or p.step == p.steps:
            self._told_s = now_s
            words = f"epoch {len(self._losses.values)}, loss {p.loss_largest:.3f}, {p.images_per_s:,.0f} images/s"
            self._progress(JobProgress(p.step, p.steps, None, words))


def main(argv: Sequence[str] | None = None) -> int:
    """Train in a folder and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m riwoa.validate.retrain", description=__doc__)
    parser.add_argument("--child", action="store_true", help="end with the parent, or when standard input ends")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(argv)
    if given.child:
        die_with_parent()
        watch_stdin()
    return answer(lambda: {"test": retrain(Folder(given.folder), tell_parent)["test"]})


if __name__ == "__main__":
    sys.exit(main())
