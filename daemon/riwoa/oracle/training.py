"""Train an Once-for-All supernet (``riwoactl supernet train``): sandwich rule, distillation from the largest subnet.

Each step draws one input resolution and trains the largest subnet on the labels, then the smallest and random ones on
the largest one's softened predictions ("sandwich rule" and in-place distillation: Yu & Huang, ICCV 2019; BigNAS, 2020).
Weights are averaged exponentially (EMA); BatchNorm statistics are not kept, since every subnet is recalibrated anyway.

Reproducible by seed at a fixed thread count: each step's images and subnets come from a counter-based generator keyed
by (seed, step). Resumable: the whole state goes to one file (tmp, fsync, rename) and training continues from its step.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save

from riwoa.errors import InputError
from riwoa.oracle.data import (
    CLASSES,
    CLEAN,
    RESOLUTIONS,
    DigitsTask,
    between,
    load_digits_task,
    quantise,
    render,
    resize,
)
from riwoa.oracle.mobilenet import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES
from riwoa.oracle.ofa_import import import_ofa
from riwoa_storage.durable import flush, replace_durably


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the trained weights, besides library versions and the thread count."""

    width_mult: float = 0.25
    n_classes: int = CLASSES
    resolutions: tuple[int, ...] = RESOLUTIONS
    steps: int = 5000
    largest_only_steps: int = 1500  # the teacher learns first; then every step is a whole sandwich
    batch_images: int = 128
    curriculum_steps: int = 1200  # corruption grows linearly from none to full
    clean_share: float = 0.08  # of a batch; the rest are corrupted views
    random_subnets: int = 1
    learning_rate: float = 0.004
    weight_decay: float = 0.02
    warmup_steps: int = 100
    temperature: float = 1.0
    ema: float = 0.998
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of news a step, for the progress bar."""

    step: int
    steps: int
    loss_largest: float
    loss_distilled: float


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
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out")
    assert isinstance(net, torch.nn.Module)
    return net


def _rng(seed: int, step: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, step]))


def _batch(task: DigitsTask, recipe: Recipe, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """One training batch at one of the resolutions, (n, 3, r, r), and its labels."""
    scans, labels = task.scans("train"), task.labels("train")
    chosen = rng.integers(0, len(scans), recipe.batch_images)
    n_clean = round(recipe.clean_share * recipe.batch_images)
    severity = between(min(1.0, (step + 1) / max(1, recipe.curriculum_steps)))
    hard = render(rng, scans[chosen[n_clean:]], scans, severity)
    clean = render(rng, scans[chosen[:n_clean]], scans, CLEAN)
    resolution = int(rng.choice(recipe.resolutions))
    images = torch.from_numpy(resize(quantise(np.concatenate([clean, hard])), resolution))
    return images.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels[chosen])


def _settings(recipe: Recipe, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The distilled subnets of a step: the smallest, then random ones."""
    yield {"ks": min(KERNELS), "e": min(EXPANSIONS), "d": min(DEPTHS)}
    for _ in range(recipe.random_subnets):
        yield {
            "ks": [int(k) for k in rng.choice(KERNELS, STAGES * BLOCKS)],
            "e": [int(e) for e in rng.choice(EXPANSIONS, STAGES * BLOCKS)],
            "d": [int(d) for d in rng.choice(DEPTHS, STAGES)],
        }


def _learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class Trainer:
    """The training state: weights, their moving average, the optimiser, and the step it has reached."""

    def __init__(self, recipe: Recipe, task: DigitsTask) -> None:
        self.recipe = recipe
        self.task = task
        self.step = 0
        self.net = new_supernet(recipe).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        decayed = [p for n, p in self.net.named_parameters() if p.ndim > 1]
        plain = [p for n, p in self.net.named_parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
        )
        self.average = {n: p.detach().clone() for n, p in self.net.named_parameters()}

    def train_step(self) -> Progress:
        """One sandwich: the largest on labels, the smallest and random ones on the largest one's predictions."""
        recipe, net = self.recipe, self.net
        rng = _rng(recipe.seed, self.step)
        images, labels = _batch(self.task, recipe, self.step, rng)
        for group in self.optimiser.param_groups:
            group["lr"] = _learning_rate(recipe, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        net.train()
        net.set_max_net()
        logits = net(images)
        loss_largest = F.cross_entropy(logits, labels, label_smoothing=0.05)
        loss_largest.backward()  # type: ignore[no-untyped-call]
        soft = F.softmax(logits.detach() / recipe.temperature, dim=1)
        distilled = 0.0
        for setting in _settings(recipe, rng) if self.step >= recipe.largest_only_steps else ():
            net.set_active_subnet(**setting)
            loss = F.cross_entropy(net(images) / recipe.temperature, soft)
            loss.backward()  # type: ignore[no-untyped-call]
            distilled += loss.item() / (1 + recipe.random_subnets)
        # Shared weights collect the gradients of every subnet of the sandwich: bound their sum.
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return Progress(self.step, recipe.steps, loss_largest.item(), distilled)

    def _update_average(self) -> None:
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                self.average[name].lerp_(parameter, 1 - keep)

    def save(self, path: Path) -> None:
        """Everything needed to continue, atomically."""
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
        }
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as handle:
            torch.save(state, handle)
        flush(temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a saved state.

        Raises:
            InputError: the file is damaged or belongs to another recipe.
        """
        try:
            state = torch.load(path, weights_only=True)
            saved = {**state["recipe"], "resolutions": tuple(state["recipe"]["resolutions"])}
        except Exception as error:
            raise InputError(f"cannot resume from {path}: {error}; delete it to start over") from error
        if saved != asdict(self.recipe):
            raise InputError(f"{path} was trained with another recipe; delete it or give --out another folder")
        torch.nn.Module.load_state_dict(self.net, state["net"])  # OFA's own override renames keys of old releases
        self.optimiser.load_state_dict(state["optimiser"])
        self.average = state["average"]
        self.step = int(state["step"])

    def averaged_weights(self) -> dict[str, torch.Tensor]:
        """The supernet's state dict with averaged parameters; BatchNorm buffers as they are."""
        weights = {k: v.detach().clone().contiguous() for k, v in self.net.state_dict().items()}
        for name, value in self.average.items():
            weights[name] = value.detach().clone().contiguous()
        return weights


def train_supernet(
    recipe: Recipe,
    out: Path,
    *,
    progress: Callable[[Progress], None] | None = None,
    save_every_steps: int = 250,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Train (or continue) and write ``out`` as safetensors, with the recipe in its metadata.

    A state file ``<out>.training.pt`` lies beside it until training ends.

    Raises:
        InputError: the state file is damaged or belongs to another recipe.
    """
    task = load_digits_task()
    trainer = Trainer(recipe, task)
    state_path = out.with_name(out.name + ".training.pt")
    out.parent.mkdir(parents=True, exist_ok=True)
    if state_path.exists():
        trainer.load(state_path)
    while trainer.step < recipe.steps:
        news = trainer.train_step()
        if progress is not None:
            progress(news)
        if trainer.step % save_every_steps == 0:
            trainer.save(state_path)
    notes = {"recipe": json.dumps(asdict(recipe)), "data": task.sha256, **(metadata or {})}
    write_safetensors(trainer.averaged_weights(), out, notes)
    with contextlib.suppress(FileNotFoundError):
        state_path.unlink()
    return out


def write_safetensors(weights: dict[str, torch.Tensor], out: Path, metadata: dict[str, str]) -> None:
    """Write whole or not at all."""
    replace_durably(out, save(weights, metadata))


def read_recipe(path: Path) -> Recipe:
    """The recipe a supernet was trained with.

    Raises:
        InputError: the file carries none.
    """
    with safe_open(path, framework="np") as handle:
        notes = handle.metadata() or {}
    if "recipe" not in notes:
        raise InputError(f"{path} carries no training recipe; it was not written by 'riwoactl supernet train'")
    data = json.loads(notes["recipe"])
    return replace(Recipe(), **{**data, "resolutions": tuple(data["resolutions"])})
