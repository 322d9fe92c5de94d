"""The winner of a supernet trained on: one file of weights, which says what they are and what the training brought.

``WEIGHTS`` holds them beside its run's journal once the training is done; the training's state lies beside it before.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from riwoa.datasets.arrays import Split
from riwoa.datasets.catalogue import check_every_split, task_of
from riwoa.ipc.job import Orders
from riwoa.oracle.kind import FineTuning, FoundNetwork
from riwoa.oracle.supernet_export import top_1, winning_net
from riwoa.search.paired import Difference, difference_of
from riwoa.supernet.batches import steps_per_epoch
from riwoa.supernet.finetuning import TEACHER_SHARE, BestEpoch, FineTuner, answers, averaged
from riwoa.supernet.job import JobProgress, OnProgress, pictures_of
from riwoa.supernet.network import weights_sha256
from riwoa.supernet.plan import Wishes, plan
from riwoa.supernet.recipe import Recipe
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa.supernet.training import TrainingProgress, train, unfinished, write_safetensors

if TYPE_CHECKING:
    from riwoa.datasets.catalogue import ImageTask

_WARMUP_SHARE = 10  # one step in so many warms up
_REPORT_EVERY_S = 0.25


def finetune_subnet(
    found: FoundNetwork, how: FineTuning, out: Path, progress: OnProgress, orders: Orders | None = None
) -> dict[str, Any]:
    """Train a winner on, or continue, to the written file; returns what it says of the training.

    Args:
        found: the winner.
        how: how long, how fast.
        out: the file of the weights.
        progress: is told how it goes.
        orders: that may end it before.

    Raises:
        JobLeftError: it was ordered to leave.
        InputError: the training pictures have no labels, or a state beside ``out`` is of another training.
    """
    spec, config = SupernetSpec.from_json(found.spec), ofa_config(found.architecture)
    torch.set_num_threads(how.threads)
    task = task_of(spec)
    check_every_split(task, spec)
    recipe = finetuning_recipe(task, spec, config, how)
    student, teacher = (winning_net(spec, c, task) for c in (config, largest(config.r)))
    recalibration = task.recalibration(config.r, spec.recalibration_images)
    kept = BestEpoch(
        task.views("validation", config.r, spec.validation_views),
        recalibration,
        steps_per_epoch(task, recipe),
        spec.device,
    )
    about = f"{found.notes['architecture_key']} {weights_sha256(student)} {TEACHER_SHARE}"
    tuner = FineTuner(recipe, task, copy.deepcopy(student), teacher, kept, spec.device, about)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not unfinished(out).exists():
        kept.look(tuner.net, tuner.average)
    train(tuner, unfinished(out), progress=_Pace(kept, progress).training, orders=orders)
    weights = kept.kept(tuner.average)
    tuned = averaged(tuner.net, weights, recalibration, tuner.device).cpu()
    told = {
        "epochs": how.epochs,
        "steps": tuner.steps,
        "kept_epoch": kept.epoch,
        "validation_by_epoch": kept.accuracies,
        "teacher_share": TEACHER_SHARE,
        "recipe": asdict(recipe),
        **_judged(student, tuned, task, spec, config),
    }
    state = {name: tensor.detach().contiguous() for name, tensor in tuned.state_dict().items()}
    write_safetensors(state, out, {**found.notes, "format": "pt", "finetuning": json.dumps(told)})
    unfinished(out).unlink(missing_ok=True)
    return told


def largest(resolution: int) -> OfaConfig:
    """The largest subnet at an input size."""
    blocks = STAGES * BLOCKS
    return OfaConfig(
        ks=(max(KERNELS),) * blocks, e=(max(EXPANSIONS),) * blocks, d=(max(DEPTHS),) * STAGES, r=resolution
    )


def finetuning_recipe(task: ImageTask, spec: SupernetSpec, config: OfaConfig, how: FineTuning) -> Recipe:
    """How the network is trained: augmented as a supernet of these pictures is, at its own input size."""
    pictures = pictures_of(task, spec.n_classes)
    wishes = Wishes(
        epochs=how.epochs, width_mult=spec.width_mult, stem=spec.stem, resolutions=(config.r,), seed=how.seed
    )
    recipe = plan(pictures, wishes, None)
    return replace(
        recipe,
        learning_rate=how.learning_rate,
        warmup_steps=max(1, recipe.steps // _WARMUP_SHARE),
        curriculum_steps=1,  # digits as corrupted as they will be
        checks=0,
        stored="float32",
    )


def _judged(before: nn.Module, after: nn.Module, task: ImageTask, spec: SupernetSpec, config: OfaConfig) -> Any:
    """Accuracies before and after by split, and the paired difference; the test pictures are looked at once, here."""
    splits: tuple[Split, ...] = ("validation", "test")
    device, told = torch.device("cpu"), {}
    for split in (split for split in splits if split in task.splits):
        images, labels = task.views(split, config.r, spec.validation_views)
        pictures = len(task.labels(split))
        right = [answers(net.cpu(), images, labels, device) for net in (before, after)]
        views = [a.reshape(-1, pictures).T for a in right]
        told[split] = {
            **{name: top_1(a) for name, a in zip(("before", "after"), right, strict=True)},
            "gain": _gain(difference_of(views[1], views[0])),
            "pictures": pictures,
        }
    return told


def _gain(difference: Difference) -> Mapping[str, float]:
    return {"value": difference.value, "error": difference.error, "p": difference.p}


class _Pace:
    """Reports a fine-tuning a few times a second, with the time left by the speed of this process."""

    def __init__(self, kept: BestEpoch, progress: OnProgress) -> None:
        self._kept = kept
        self._progress = progress
        self._told_s = 0.0
        self._first: tuple[int, float] | None = None

    def training(self, p: TrainingProgress) -> None:
        """A step was done."""
        now_s = time.monotonic()
        if self._first is None:
            self._first = p.step, now_s
        if now_s - self._told_s < _REPORT_EVERY_S and p.step != p.steps:
            return
        self._told_s = now_s
        accuracies, (first, since_s) = self._kept.accuracies, self._first
        left_s = (now_s - since_s) / (p.step - first) * (p.steps - p.step) if p.step > first else None
        best = f"{100 * max(accuracies):.2f} % after epoch {self._kept.epoch}"
        words = f"loss {p.loss_largest:.3f}, validation {100 * accuracies[-1]:.2f} %, best {best}"
        self._progress(JobProgress(p.step, p.steps, left_s, words))
