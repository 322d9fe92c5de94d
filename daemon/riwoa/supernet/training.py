"""Train an Once-for-All supernet (``riwoactl supernet train``): sandwich rule, distillation from the largest subnet.

Each step draws one input resolution and trains the largest subnet on the labels, then the smallest and random ones on
the largest one's softened predictions ("sandwich rule" and in-place distillation: Yu & Huang, ICCV 2019; BigNAS, 2020).
Weights are averaged exponentially (EMA); BatchNorm statistics are not kept, since every subnet is recalibrated anyway.

Reproducible by seed at a fixed thread count and device: each step's images and subnets come from a counter-based
generator keyed by (seed, step). Resumable: the whole state goes to one file (tmp, fsync, rename) and training continues
from its step. A recipe bounded by time measures its first steps and fixes their number once, in that file.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from riwoa.datasets.digits import load_digits_task
from riwoa.errors import InputError
from riwoa.files.ownership import opened_file
from riwoa.ipc.job import JobLeftError, Orders
from riwoa.supernet.batches import Batches, batches_of, class_weights, steps_per_epoch, training_labels
from riwoa.supernet.checkpoint import is_safetensors, safetensors_bytes
from riwoa.supernet.checks import Checks, EarlyStop
from riwoa.supernet.convolutions import without_plans
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.network import Supernet, set_strides
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.published import PUBLISHED
from riwoa.supernet.recipe import DIGITS, Recipe, read_recipe, recipe_from
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig
from riwoa.supernet.transfer import HEAD, take_over
from riwoa_storage.durable import replace_durably, replacement

if TYPE_CHECKING:
    from riwoa.datasets.catalogue import ImageTask

_REPORT_STEPS_GPU = 50  # reading a loss waits for the GPU
_SGD_MOMENTUM = 0.9
_SAVE_EVERY_S = 20.0  # a kill costs no more than this, where steps are slow
# Of the time that training may take: at first memory grows and kernels load; then the speed is measured.
_SETTLING_SHARE, _MEASURED_SHARE = 0.05, 0.10
_WARMUP_SHARE = 10  # one step in so many
_LEAST_STEPS = 100  # of a supernet: fewer, unless all pictures are met before, are no training


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a training is: told at every step on a CPU, at every 50th on a GPU."""

    step: int
    steps: int  # 0 while their number is still being measured
    loss_largest: float
    loss_distilled: float  # mean of the step's distilled subnets
    images_per_s: float  # of the data set, each seen by the whole sandwich


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """Losses of one step, on the device; ``distilled`` is a sum over subnets."""

    largest: Tensor
    distilled: Tensor
    distilled_subnets: int


def new_supernet(recipe: Recipe) -> torch.nn.Module:
    """OFA's supernet with seeded initial weights (He initialisation by fan-out, as OFA's)."""
    ofa = import_ofa()
    torch.manual_seed(recipe.seed)  # consumed here only: nothing later draws from torch's generator
    net = ofa.OFAMobileNetV3(
        n_classes=recipe.n_classes,
        bn_param=(0.1, 1e-5),
        dropout_rate=0.0,
        width_mult=recipe.width_mult,
        ks_list=list(KERNELS),
        expand_ratio_list=list(EXPANSIONS),
        depth_list=list(DEPTHS),
    )
    initialise(net)
    set_strides(net, Backbone(recipe.width_mult, recipe.n_classes, recipe.stem))
    if recipe.start == "identity":
        begin_as_identity(net)
    assert isinstance(net, torch.nn.Module)
    return net


def new_subnet(recipe: Recipe, config: OfaConfig) -> torch.nn.Module:
    """A subnet by itself, all its weights drawn from the recipe's seed."""
    backbone = Backbone(recipe.width_mult, recipe.n_classes, recipe.stem)
    net: torch.nn.Module = Supernet(new_supernet(recipe), backbone).get_net_for_config(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        initialise(net)
    return net


def initialise(net: torch.nn.Module) -> None:
    """He's initialisation by fan-out, from torch's generator, in the order of the modules."""
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out")


def begin_as_identity(net: Any) -> None:
    """Residual blocks that add nothing at first (Goyal et al., 2017): twenty of them learn sooner."""
    for block in net.blocks:
        if block.shortcut is not None:
            norm = block.conv.point_linear.bn
            torch.nn.init.zeros_(getattr(norm, "bn", norm).weight)  # dynamic layers wrap theirs


def _rng(seed: int, step: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, step]))


def _settings(recipe: Recipe, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The distilled subnets of a step: the smallest, then random ones."""
    yield {"ks": min(KERNELS), "e": min(EXPANSIONS), "d": min(DEPTHS)}
    for _ in range(recipe.random_subnets):
        yield {
            "ks": [int(k) for k in rng.choice(KERNELS, STAGES * BLOCKS)],
            "e": [int(e) for e in rng.choice(EXPANSIONS, STAGES * BLOCKS)],
            "d": [int(d) for d in rng.choice(DEPTHS, STAGES)],
        }


class Trainer:
    """The training state: weights, their moving average, the optimiser, and the step it has reached.

    Args:
        recipe: how.
        task: on what.
        device: where.
        source: the supernet that a new training starts from, if the recipe names one.
        network: None trains a new supernet; a plain network is trained alone, on the labels, by the same recipe.
        about: tells networks of one recipe apart; a saved state of another one is refused.
        batches: what trains; None: the task's training images.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: ImageTask,
        device: str = "cpu",
        network: torch.nn.Module | None = None,
        about: str = "",
        source: Path | None = None,
        batches: Batches | None = None,
    ) -> None:
        self.recipe = recipe
        self.device = torch.device(device)
        self.step = 0
        self._about = f"{task.sha256} {about}"
        self.steps = 0 if recipe.minutes else recipe.steps
        self.batches = batches_of(task, recipe, self.device) if batches is None else batches
        self._alone = network is not None
        net: Any = new_supernet(recipe) if network is None else network
        if source is not None:
            take_over(net, recipe, source)
        self.net = net.to(device=self.device, memory_format=torch.channels_last)
        self.optimiser = _optimiser(self.net, recipe, self.device)
        self.average = {n: p.detach().clone() for n, p in self.net.named_parameters()}
        self.early_stop: Checks = EarlyStop(task, recipe, self.device)
        # However little time there is, or seems to be on a busy machine.
        self.least_steps = 1 if network is not None else _least_steps(task, recipe)
        self._class_weights: Tensor | None = None
        if recipe.balance:
            weights = class_weights(training_labels(task), recipe.n_classes, recipe.balance)
            self._class_weights = torch.from_numpy(weights).to(self.device)

    def train_step(self) -> Losses:
        """One sandwich: the largest on labels, the smallest and random ones on the largest one's predictions."""
        # One network's shapes are worth cuDNN's plans, a supernet's are too many.
        many_shapes = self.device.type == "cuda" and not self._alone
        with without_plans() if many_shapes else contextlib.nullcontext():
            return self._sandwich()

    def _sandwich(self) -> Losses:
        recipe, net, alone = self.recipe, self.net, self._alone
        rng = _rng(recipe.seed, self.step)
        images, labels = self.batches.batch(self.step, rng)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        net.train()
        if not alone:
            net.set_max_net()
        if recipe.head_only_steps:
            self._freeze(self.step < recipe.head_only_steps)
        with self._precision():
            logits = net(images)
            largest = self._loss(images, logits, labels)
            soft = F.softmax(logits.detach() / recipe.temperature, dim=1)
        largest.backward()  # type: ignore[no-untyped-call]
        distilled, count = torch.zeros((), device=self.device), 0
        for setting in () if alone or self.step < largest_only_steps(recipe) else _settings(recipe, rng):
            net.set_active_subnet(**setting)
            with self._precision():
                loss = F.cross_entropy(net(images) / recipe.temperature, soft)
            loss.backward()  # type: ignore[no-untyped-call]
            distilled, count = distilled + loss.detach(), count + 1
        # Shared weights collect the gradients of every subnet of the sandwich: bound their sum.
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return Losses(largest.detach(), distilled, count)

    def _loss(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Of the largest subnet, or of a network that is trained alone, on a batch: cross-entropy with the labels."""
        smoothing = self.recipe.label_smoothing
        return F.cross_entropy(logits, labels, weight=self._class_weights, label_smoothing=smoothing)

    def wait(self) -> None:
        """Wait until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")

    def _learning_rate(self) -> float:
        """Linear warm-up, then half a cosine to zero; constant while the number of steps is not known yet."""
        recipe = self.recipe
        if self.step < recipe.head_only_steps:
            return recipe.learning_rate
        warm = recipe.head_only_steps + recipe.warmup_steps  # what was frozen warms up when it thaws
        if recipe.minutes and self.steps:  # a training that turned out short warms up for a tenth of it
            warm = min(warm, recipe.head_only_steps + (self.steps - recipe.head_only_steps) // _WARMUP_SHARE)
        if self.step < warm:
            return recipe.learning_rate * (self.step - recipe.head_only_steps + 1) / (warm - recipe.head_only_steps)
        if not self.steps:
            return recipe.learning_rate
        done = (self.step - warm) / max(1, self.steps - warm)
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def _freeze(self, frozen: bool) -> None:
        """Hold all but the classifier as it is, or no longer; what is held costs no backward pass."""
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(not frozen or name.startswith(HEAD))

    def finish(self) -> bool:
        """End with what there is, or as soon as that is worth anything; returns whether the end has moved."""
        end = max(self.step, self.least_steps)
        if self.steps and self.steps <= end:
            return False
        self.steps = end
        return True

    def check(self) -> bool:
        """Judge the network where that is due; True where the training ended with it."""
        if not self.early_stop.due(self.step, self.steps):
            return False
        if self.early_stop.look(self.net, self.average):
            self.steps = self.step
        return True

    def _update_average(self) -> None:
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        averaging: Any = get_ema_multi_avg_fn  # untyped in torch
        averaging(keep)(list(self.average.values()), [p.detach() for p in self.net.parameters()], None)

    def save(self, path: Path) -> None:
        """Write everything needed to continue, whole or not at all."""
        state = {
            "recipe": asdict(self.recipe),
            "about": self._about,
            "step": self.step,
            "steps": self.steps,
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "early_stop": self.early_stop.state(),
            "threads": torch.get_num_threads(),
        }
        save_state(state, path)

    def load(self, path: Path) -> None:
        """Continue from a saved state.

        Raises:
            InputError: the file is damaged or belongs to another recipe.
        """
        try:
            with opened_file(path) as stream:
                state = torch.load(stream, map_location=self.device, weights_only=True)
            saved = asdict(recipe_from(state["recipe"]))
        except Exception as error:
            raise InputError(f"cannot resume from {path}: {error}; delete it to start over") from error
        if saved != asdict(self.recipe):
            raise InputError(f"{path} was trained with another recipe; delete it to start over")
        if state.get("about", self._about) != self._about:
            raise InputError(f"{path} was trained on other data, or is of another network; delete it to start over")
        torch.nn.Module.load_state_dict(self.net, state["net"])  # OFA's own override renames keys of old releases
        self.optimiser.load_state_dict(state["optimiser"])
        self.average = state["average"]
        if "early_stop" in state:
            self.early_stop.restore(state["early_stop"])
        # Sums of another number of threads differ in their last bits.
        torch.set_num_threads(int(state.get("threads", torch.get_num_threads())))
        self.step = int(state["step"])
        self.steps = int(state.get("steps", self.steps))

    def averaged_weights(self) -> dict[str, Tensor]:
        """The state dict on the CPU with averaged parameters, stored as the recipe says; BatchNorm buffers as they are.

        Raises:
            InputError: a weight is not finite: training diverged.
        """
        dtype = {"float32": torch.float32, "float16": torch.float16}[self.recipe.stored]
        weights = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in self.net.state_dict().items()}
        for name, value in self.early_stop.kept(self.average).items():
            weights[name] = value.detach().to("cpu", dtype, copy=True).contiguous()
        spoiled = [name for name in self.average if not bool(torch.isfinite(weights[name]).all())]
        if spoiled:
            raise InputError(f"training diverged: {spoiled[0]} is not finite; lower the learning rate, or add warm-up")
        return weights


def _least_steps(task: ImageTask, recipe: Recipe) -> int:
    """Steps in which every picture is met once after the classifier has settled, at most a hundred."""
    return largest_only_steps(recipe) + min(_LEAST_STEPS, steps_per_epoch(task, recipe))


def largest_only_steps(recipe: Recipe) -> int:
    """Steps at the start in which the largest subnet trains alone."""
    return max(recipe.largest_only_steps, recipe.head_only_steps)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write a training's state whole or not at all, also after a power cut."""
    with replacement(path) as stream:
        torch.save(state, stream)


def parameter_groups(net: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for an optimiser: convolutions and linear layers decay; biases and BatchNorm do not."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def _optimiser(net: torch.nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    groups = parameter_groups(net, recipe.weight_decay)
    fused = True if device.type == "cuda" else None
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=_SGD_MOMENTUM, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=fused)


class _Pace:
    """The speed of a training: how many steps fit into the recipe's minutes, and images a second."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._allowed_s = 60 * trainer.recipe.minutes
        self._alone_steps = largest_only_steps(trainer.recipe)
        self._start_s = time.perf_counter()
        self._settled: tuple[int, float] | None = None
        self._reported = trainer.step, self._start_s

    def fix_steps(self) -> bool:
        """Fix the number of steps once it can be told; returns whether that happened now."""
        trainer, elapsed_s = self._trainer, self._elapsed_s()
        # Steps of the largest alone are cheaper: their speed says nothing.
        if trainer.steps or elapsed_s < _SETTLING_SHARE * self._allowed_s or trainer.step < self._alone_steps:
            return False
        if self._settled is None:
            trainer.wait()
            self._settled = trainer.step, self._elapsed_s()
            return False
        if elapsed_s - self._settled[1] < (_MEASURED_SHARE - _SETTLING_SHARE) * self._allowed_s:
            return False
        trainer.wait()
        elapsed_s, (step, settled_s) = self._elapsed_s(), self._settled
        steps_per_s = (trainer.step - step) / max(1e-9, elapsed_s - settled_s)
        fitting = trainer.step + max(0, int((self._allowed_s - elapsed_s) * steps_per_s))
        trainer.steps = max(fitting, trainer.least_steps)
        return True

    def images_per_s(self) -> float:
        """Images a second since this was asked last."""
        step, since_s = self._reported
        self._reported = self._trainer.step, time.perf_counter()
        images = (self._trainer.step - step) * self._trainer.recipe.batch_images
        return images / max(1e-9, self._reported[1] - since_s)

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self._start_s


def train(
    trainer: Trainer,
    state_path: Path,
    *,
    progress: Callable[[TrainingProgress], None] | None = None,
    save_every_steps: int = 250,
    orders: Orders | None = None,
) -> None:
    """Train to the last step, from the state at ``state_path`` if there is one, and keep it up to date.

    Args:
        trainer: what is trained.
        state_path: of the file that a continued training begins from.
        progress: is told how it goes.
        save_every_steps: how much may be lost.
        orders: that may end it before: to leave its state behind, or with what it has.

    Raises:
        InputError: the state file is damaged or belongs to another recipe.
        JobLeftError: it was ordered to leave, and its state is saved.
    """
    if state_path.exists():
        trainer.load(state_path)
    saved_s = time.monotonic()
    pace = _Pace(trainer)
    every = _REPORT_STEPS_GPU if trainer.device.type == "cuda" else 1
    while not trainer.steps or trainer.step < trainer.steps:
        losses = trainer.train_step()
        changed = pace.fix_steps()
        if orders is not None and orders.finish:
            changed = trainer.finish() or changed
        changed = trainer.check() or changed
        if progress is not None and (trainer.step % every == 0 or trainer.step == trainer.steps):
            largest, distilled = losses.largest.item(), losses.distilled.item() / max(1, losses.distilled_subnets)
            progress(TrainingProgress(trainer.step, trainer.steps, largest, distilled, pace.images_per_s()))
        if changed or trainer.step % save_every_steps == 0 or time.monotonic() - saved_s > _SAVE_EVERY_S:
            trainer.save(state_path)
            saved_s = time.monotonic()
        if orders is not None and orders.leave and trainer.step != trainer.steps:
            trainer.save(state_path)
            raise JobLeftError


def train_supernet(
    recipe: Recipe,
    out: Path,
    *,
    task: ImageTask | None = None,
    device: str = "cpu",
    progress: Callable[[TrainingProgress], None] | None = None,
    save_every_steps: int = 250,
    notes: Callable[[dict[str, Tensor], Recipe], dict[str, str]] | None = None,
    source: Path | None = None,
    orders: Orders | None = None,
) -> Path:
    """Train (or continue) and write ``out`` as safetensors, with the recipe in its metadata.

    A state file ``<out>.training.pt`` lies beside it until training ends.

    Args:
        recipe: how.
        out: the file.
        task: on what; None: the embedded digits.
        device: "cpu" or "cuda".
        progress: is told how it goes.
        save_every_steps: how much may be lost.
        notes: what the file says besides recipe and data, of the finished weights.
        source: the supernet that the recipe says it starts from.
        orders: as ``train`` takes them.

    Raises:
        InputError: the state file is damaged or belongs to another recipe, the task has no training labels, or
            training diverged.
        JobLeftError: as ``train``.
    """
    task = load_digits_task() if task is None else task
    state_path = unfinished(out)
    trainer = Trainer(recipe, task, device, source=None if state_path.exists() else source)
    out.parent.mkdir(parents=True, exist_ok=True)
    told = _while_finite(state_path, progress)
    train(trainer, state_path, progress=told, save_every_steps=save_every_steps, orders=orders)
    done = replace(recipe, steps=trainer.steps)
    weights = trainer.averaged_weights()
    facts = {"recipe": json.dumps(asdict(done)), "data": task.sha256}
    write_safetensors(weights, out, {**facts, **(notes(weights, done) if notes is not None else {})})
    with contextlib.suppress(FileNotFoundError):
        state_path.unlink()
    return out


def _while_finite(
    state_path: Path, progress: Callable[[TrainingProgress], None] | None
) -> Callable[[TrainingProgress], None]:
    """Hands progress on, and ends a training whose loss is no number any more: the rest of it would be in vain."""

    def told(p: TrainingProgress) -> None:
        if not math.isfinite(p.loss_largest + p.loss_distilled):
            raise InputError(
                f"training diverged by step {p.step}: its loss is no number any more; lower the learning rate, or add "
                f"warm-up, and delete {state_path}"
            )
        if progress is not None:
            progress(p)

    return told


def write_safetensors(weights: dict[str, Tensor], out: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all."""
    replace_durably(out, safetensors_bytes(weights, metadata))


def unfinished(out: Path) -> Path:
    """Where the state of a training lies until its file is written."""
    return out.with_name(out.name + ".training.pt")


def load_trained(path: Path) -> tuple[Supernet, Recipe]:
    """The supernet and the recipe that it carries; one that carries none is taken for one like the embedded.

    A published one is known by its file's name.

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    published = PUBLISHED.get(path.name.removesuffix(".pth"))
    recipe = DIGITS if published is None else replace(DIGITS, **published.settings)
    if is_safetensors(path):
        try:
            recipe = read_recipe(path)
        except InputError as error:
            if "carries no" not in str(error):
                raise
    return Supernet.load(path, recipe.width_mult, recipe.n_classes, recipe.stem), recipe
