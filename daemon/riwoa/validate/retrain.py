"""One architecture trained from scratch on CIFAR-100, and its accuracy on the test images.

``python -m riwoa.validate.retrain FOLDER`` does what ``FOLDER/spec.json`` says. The whole state is saved after every
epoch (tmp, fsync, rename); killed and started again it continues with the next epoch. What an epoch shuffles, crops and
flips comes from a counter-based generator keyed by (seed, epoch), so on a CPU at a fixed thread count an interrupted
training ends in the weights of an uninterrupted one, bit for bit. On a GPU the order of sums is the library's.

All training images are trained on, none is held back, nothing is chosen by the test images: they are looked at once,
after the last epoch. The network judged is the exponential average of the weights. Its BatchNorm statistics are not an
average of other networks' statistics but its own: measured on training images at the end.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from riwoa.datasets.arrays import ByteArray, IntArray, resize_matrix
from riwoa.datasets.cifar import Cifar100Task
from riwoa.errors import InputError, OracleError, RiwoaError, StateDirectoryError, StateLockedError
from riwoa.files.lock import locked
from riwoa.files.ownership import unwritable
from riwoa.ipc.child import die_with_parent, error_to_json, take_stdout, watch_stdin
from riwoa.oracle.supernet_export import winning_net
from riwoa.parsing import parse_json
from riwoa.paths import StatePaths
from riwoa.search.rng import generator
from riwoa.supernet.checks import recalibrate
from riwoa.supernet.geometry import Backbone, macs, parameters
from riwoa.supernet.network import ArchitectureError, Supernet, build_network, checked_config, weights_sha256
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.space import OfaConfig, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa.supernet.training import begin_as_identity, parameter_groups, save_state
from riwoa_storage.durable import replace_durably
from riwoa_storage.errors import StorageError

SIDE_PX = 32
JUDGED_TOGETHER = 1000  # images of a batch in evaluation


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained. Defaults: 100 epochs, SGD with Nesterov momentum, a cosine to zero, crop and flip."""

    epochs: int = 100
    batch_images: int = 512
    learning_rate: float = 0.2
    warmup_epochs: float = 3.0  # linear, then half a cosine to zero, step by step
    momentum: float = 0.9
    weight_decay: float = 5e-4  # of convolutions and linear layers; biases and BatchNorm have none
    label_smoothing: float = 0.1
    padding_px: int = 4  # black, cropped at random to 32 px
    flip: bool = True
    cutout_px: int = 0  # side of a black square (DeVries & Taylor, 2017); 0 for none
    ema: float = 0.999  # of the weights, per step; shorter at the beginning
    recalibration_images: int = 10_000  # for BatchNorm statistics of the averaged weights
    training_images: int | None = None  # the first so many; None for all
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Spec:
    """All that decides a trained network, besides library versions and the processor."""

    architecture: Mapping[str, Any]
    backbone: Backbone
    recipe: Recipe
    data: str  # the archive
    device: str  # "cpu" or "cuda"
    threads: int

    def to_json(self) -> dict[str, Any]:
        """What ``spec.json`` holds."""
        return {**asdict(self), "architecture": dict(self.architecture)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """The specification of ``to_json``."""
        known = {"backbone": Backbone(**data["backbone"]), "recipe": Recipe(**data["recipe"])}
        return cls(**{**data, **known})


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is told after an epoch; ``seconds`` of this one alone."""

    epoch: int
    epochs: int
    loss: float
    seconds: float


class Pixels:
    """Bytes to a network's input, on its device: standardised, resized exactly as the oracle's task resizes."""

    def __init__(self, task: Cifar100Task, resolution: int, device: torch.device) -> None:
        self.device = device
        self._mean = torch.tensor([255 * m for m in task.mean], device=device)
        self._scale = torch.tensor([1 / (255 * s) for s in task.std], device=device)
        self._resize = (
            None if resolution == SIDE_PX else torch.tensor(resize_matrix(SIDE_PX, resolution), device=device)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 on the device -> (n, 3, r, r) float32, channels last."""
        x = ((images.float() - self._mean) * self._scale).permute(0, 3, 1, 2)
        if self._resize is not None:
            x = self._resize @ x.contiguous() @ self._resize.T
        return x.contiguous(memory_format=torch.channels_last)


# -- networks ----------------------------------------------------------------------------------------------------------


def fresh_network(backbone: Backbone, config: OfaConfig, seed: int) -> nn.Module:
    """The standalone subnet with new weights: He by fan-out for convolutions, as OFA trains its own.

    Random numbers come from ``seed`` alone; torch's global generator is left as it was.

    Raises:
        ArchitectureError: the supernet has no such choice.
    """
    with torch.random.fork_rng(devices=[]):  # OFA initialises what is overwritten below
        network = Supernet(build_network(backbone), backbone).get_net_for_config(config)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                module.weight.normal_(0, math.sqrt(2 / fan_out), generator=random)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                module.weight.uniform_(-bound, bound, generator=random)
                module.bias.zero_()
    begin_as_identity(network)
    return network


def count_correct(network: nn.Module, images: ByteArray, labels: IntArray, pixels: Pixels) -> int:
    """How many images a network in evaluation mode gets right, in float32; ``images`` (n, 32, 32, 3)."""
    total = torch.zeros((), dtype=torch.int64, device=pixels.device)
    with torch.inference_mode():
        for start in range(0, len(images), JUDGED_TOGETHER):
            part = slice(start, start + JUDGED_TOGETHER)
            # A copy: torch takes no arrays that may not be written to.
            logits = network(pixels(torch.from_numpy(images[part].copy()).to(pixels.device)))
            total += (logits.argmax(1) == torch.from_numpy(labels[part].copy()).to(pixels.device)).sum()
    return int(total)


# -- training ----------------------------------------------------------------------------------------------------------


class Trainer:
    """A network in training: weights, momentum, the average of the weights, and the epochs done."""

    def __init__(self, spec: Spec, task: Cifar100Task) -> None:
        self.spec = spec
        self.epoch = 0
        self.losses: list[float] = []
        self.seconds = 0.0
        recipe, config = spec.recipe, checked_config(ofa_config(spec.architecture))
        self._device = torch.device(spec.device)
        self.pixels = Pixels(task, config.r, self._device)
        self.network = fresh_network(spec.backbone, config, recipe.seed).to(self._device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._parameters: list[Tensor] = list(self.network.parameters())
        self._average = [p.detach().clone() for p in self._parameters]
        self._optimiser = torch.optim.SGD(
            parameter_groups(self.network, recipe.weight_decay),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=True,
            fused=self._device.type == "cuda",
        )
        images, labels = task.pictures.train_images, task.pictures.train_labels
        taken = slice(0, recipe.training_images)
        border = ((0, 0), (recipe.padding_px,) * 2, (recipe.padding_px,) * 2, (0, 0))
        self._padded = torch.from_numpy(np.pad(images[taken], border)).to(self._device)
        self._labels = torch.from_numpy(labels[taken].copy()).to(self._device)

    @property
    def steps_an_epoch(self) -> int:
        """Whole batches in an epoch: what is left over waits for the next one's order."""
        return max(1, len(self._padded) // self.spec.recipe.batch_images)

    def train_epoch(self) -> Epoch:
        """Train on every training image once, in an order of this epoch's own.

        Raises:
            OracleError: the loss is no number any more.
        """
        started = time.monotonic()
        total = torch.zeros((), device=self._device)
        self.network.train()
        for step, (images, labels) in enumerate(self._batches(self.epoch)):
            self._set_learning_rate(self.epoch * self.steps_an_epoch + step)
            self._optimiser.zero_grad(set_to_none=True)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
                loss = F.cross_entropy(self.network(images), labels, label_smoothing=self.spec.recipe.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            self._update_average(self.epoch * self.steps_an_epoch + step)
            total += loss.detach()
        loss_mean = float(total) / self.steps_an_epoch  # the epoch's one wait for the device
        if not math.isfinite(loss_mean):
            raise OracleError(f"the loss became {loss_mean} in epoch {self.epoch + 1}; lower --learning-rate")
        self.epoch += 1
        self.losses.append(loss_mean)
        seconds = time.monotonic() - started
        self.seconds += seconds
        return Epoch(self.epoch, self.spec.recipe.epochs, loss_mean, seconds)

    def averaged(self) -> nn.Module:
        """The averaged weights as a network of their own, BatchNorm's statistics measured on training images."""
        network = copy.deepcopy(self.network)
        with torch.no_grad():
            for parameter, average in zip(network.parameters(), self._average, strict=True):
                parameter.copy_(average)
        recipe = self.spec.recipe
        batches = max(1, min(recipe.recalibration_images, len(self._padded)) // recipe.batch_images)
        drawn = self._batches(recipe.epochs)  # one epoch further: augmented as in training, in an order of its own
        recalibrate(network, (images for images, _ in (next(drawn) for _ in range(batches))))
        return network

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented images (n, 3, r, r) and their labels; the arrangement of the whole epoch is drawn at once."""
        recipe, count = self.spec.recipe, len(self._padded)
        rng = generator(recipe.seed, epoch, "retrain.augment")
        order = self._sent(rng.permutation(count))
        shifts = self._sent(rng.integers(0, 2 * recipe.padding_px + 1, (count, 2)))
        flips = self._sent(rng.integers(0, 2, count) * int(recipe.flip))
        holes = self._sent(rng.integers(0, SIDE_PX, (count, 2)))
        grid = torch.arange(SIDE_PX, device=self._device)
        for step in range(self.steps_an_epoch):
            part = slice(step * recipe.batch_images, (step + 1) * recipe.batch_images)
            chosen, (down, right), flip = order[part], shifts[part].T, flips[part, None]
            columns = right[:, None] + grid + flip * (SIDE_PX - 1 - 2 * grid)
            images = self._padded[chosen[:, None, None], (down[:, None] + grid)[:, :, None], columns[:, None, :]]
            if recipe.cutout_px:
                images = images * ~_squares(holes[part], recipe.cutout_px, grid)
            yield self.pixels(images), self._labels[chosen]

    def _sent(self, numbers: IntArray) -> Tensor:
        return torch.from_numpy(numbers).to(self._device)

    def _set_learning_rate(self, step: int) -> None:
        recipe = self.spec.recipe
        warmup = recipe.warmup_epochs * self.steps_an_epoch
        left = max(1.0, recipe.epochs * self.steps_an_epoch - warmup)
        share = (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / left))
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.learning_rate * share

    def _update_average(self, step: int) -> None:
        keep = min(self.spec.recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, self._parameters, 1 - keep)

    # -- what survives a kill ------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything needed to continue, whole or not at all."""
        state = {
            "spec": json.dumps(self.spec.to_json(), sort_keys=True),
            "epoch": self.epoch,
            "losses": self.losses,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self._average,
        }
        save_state(state, path)

    def load(self, path: Path) -> None:
        """Continue from a saved state.

        Raises:
            InputError: the file is damaged or of another training.
        """
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            if state["spec"] != json.dumps(self.spec.to_json(), sort_keys=True):
                raise InputError(f"{path} is of another training; delete it to start over")
            nn.Module.load_state_dict(self.network, state["network"])  # OFA's override renames keys of old releases
            self._optimiser.load_state_dict(state["optimiser"])
            with torch.no_grad():
                for mine, saved in zip(self._average, state["average"], strict=True):
                    mine.copy_(saved)
            self.epoch, self.losses, self.seconds = int(state["epoch"]), list(state["losses"]), float(state["seconds"])
        except RiwoaError:
            raise
        except Exception as error:  # a damaged pickle can raise anything: this is the boundary to a file
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise InputError(f"cannot continue from {path} ({reason}); delete it to start over") from error


def _squares(centres: Tensor, side_px: int, grid: Tensor) -> Tensor:
    """Squares about centres (n, 2), cut at the border: (n, 32, 32, 1), True inside."""
    offsets = grid[None, None, :] - centres[:, :, None] + side_px // 2
    inside = (offsets >= 0) & (offsets < side_px)
    return (inside[:, 0, :, None] & inside[:, 1, None, :])[..., None]


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


def retrain(folder: Folder, progress: Callable[[Epoch], None] = lambda epoch: None) -> dict[str, Any]:
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
        prepare(spec)
        task = Cifar100Task.open(Path(spec.data))
        trainer = Trainer(spec, task)
        if folder.training.exists():
            trainer.load(folder.training)
        while trainer.epoch < spec.recipe.epochs:
            news = trainer.train_epoch()
            trainer.save(folder.training)
            progress(news)
        facts = {"losses": trainer.losses, "training_s": trainer.seconds}
        result = keep_network(folder, spec, trainer.averaged(), task, trainer.pixels, facts)
        folder.training.unlink(missing_ok=True)
    return result


def inherit(folder: Folder, checkpoint: Path, recalibration_images: int) -> dict[str, Any]:
    """Judge the subnet of ``spec.json`` with the supernet's own weights, recalibrated as a search does.

    Raises:
        InputError: the specification, the data or the checkpoint cannot be used.
        StateLockedError, StateDirectoryError, FullDiskError: as ``retrain``.
    """
    spec = read_spec(folder)
    with alone(folder.path), _writing(folder.path):
        if folder.result.exists():
            return read_result(folder)
        prepare(spec)
        task = Cifar100Task.open(Path(spec.data))
        config = ofa_config(spec.architecture)
        named = SupernetSpec(
            checkpoint=str(checkpoint),
            width_mult=spec.backbone.width_mult,
            n_classes=spec.backbone.n_classes,
            stem=spec.backbone.stem,
            recalibration_images=min(recalibration_images, task.training_images),
        )
        network = winning_net(named, config, task).to(spec.device)
        return keep_network(folder, spec, network, task, Pixels(task, config.r, torch.device(spec.device)), {})


def keep_network(
    folder: Folder, spec: Spec, network: Any, task: Cifar100Task, pixels: Pixels, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the weights, judge them on the test images, write the result and return it."""
    config = ofa_config(spec.architecture)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    replace_durably(folder.weights, save(weights, {"format": "pt", "resolution": str(config.r)}))
    images, labels = task.pictures.test_images, task.pictures.test_labels
    correct = count_correct(network, images, labels, pixels)
    result = {
        "test": {"accuracy": correct / len(images), "correct": correct, "images": len(images)},
        "weights_sha256": weights_sha256(network),
        "architecture": dict(spec.architecture),
        "resolution": config.r,
        "macs": macs(config, spec.backbone),
        "parameters": parameters(config, spec.backbone),
        "network": network.config,
        "data_sha256": task.pictures.sha256,
        "device": _device_name(spec.device),
        **facts,
    }
    replace_durably(folder.result, json.dumps(result, indent=1, allow_nan=False).encode() + b"\n")
    return result


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
        checked_config(ofa_config(spec.architecture))
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


def prepare(spec: Spec) -> None:
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


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


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


def main(arguments: list[str]) -> int:
    """Train in a folder; a JSON line an epoch on standard output. A child of the job, which does not outlive it."""
    die_with_parent()
    watch_stdin()
    lines = take_stdout()

    def tell(content: Mapping[str, Any]) -> None:
        lines.write(json.dumps(content).encode() + b"\n")
        lines.flush()

    try:
        retrain(Folder(Path(arguments[0])), lambda news: tell(asdict(news)))
    except (RiwoaError, StorageError) as error:
        tell({"error": error_to_json(error)})
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
