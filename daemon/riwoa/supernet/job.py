"""One training of a supernet on somebody's pictures; also the command that the torch-free daemon runs as a child.

``python -m riwoa.supernet.job JOB`` takes the job as a JSON object and prints one object a line: progress, then either
``{"event": "done", ...}`` or ``{"event": "error", ...}``. Torch is imported only when it begins.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from riwoa.datasets.catalogue import LabelledPixels, task_of
from riwoa.datasets.digits import RESOLUTIONS
from riwoa.errors import InputError
from riwoa.files.ownership import safetensors_notes, unwritable
from riwoa.ipc.child import die_with_parent, watch_stdin
from riwoa.ipc.job import Orders, answer, report
from riwoa.parsing import parse_json_object
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.lead import judged_lead
from riwoa.supernet.plan import Pictures, Wishes, plan, source_of
from riwoa.supernet.recipe import Recipe, recipe_from
from riwoa.supernet.spec import SupernetSpec

if TYPE_CHECKING:
    from torch import Tensor

    from riwoa.datasets.catalogue import ImageTask
    from riwoa.supernet.training import TrainingProgress

_RANDOM_SUBNETS = 7
_REPORT_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What is trained, on what, and where it goes.

    Attributes:
        out: the supernet's file.
        judged: the specification of the oracle that will judge its subnets: the same pictures, split alike.
        wishes: what is asked for; the pictures say the rest.
        start: the supernet to start from: "auto", "scratch", a published name, or a path.
        threads: of the processor.
    """

    out: Path
    judged: SupernetSpec
    wishes: Wishes
    start: str
    threads: int

    def to_json(self) -> dict[str, Any]:
        """The job as a child is given it."""
        return {**asdict(self), "out": str(self.out), "judged": self.judged.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainingJob:
        """The job of ``to_json``."""
        wishes = dict(data["wishes"])
        wishes["resolutions"] = None if wishes["resolutions"] is None else tuple(wishes["resolutions"])
        judged = SupernetSpec.from_json(data["judged"])
        return cls(Path(data["out"]), judged, Wishes(**wishes), data["start"], data["threads"])


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is; ``total`` is 0, and ``left_s`` None, while nobody knows."""

    done: int
    total: int
    left_s: float | None
    words: str


OnProgress = Callable[[JobProgress], None]


def train_job(job: TrainingJob, progress: OnProgress, orders: Orders | None = None) -> dict[str, Any]:
    """Train, or continue, to the written file; returns what the file says of its subnets, and the last losses.

    Args:
        job: what is trained.
        progress: is told how it goes.
        orders: that may end it before.

    Raises:
        InputError: the pictures cannot train, or the training state beside the file is of another job.
        StateDirectoryError, FullDiskError: the file cannot be written.
        JobLeftError: it was ordered to leave.
    """
    task = task_of(job.judged)
    source = source_of(job.start, job.wishes.width_mult)
    recipe = plan(pictures_of(task, job.judged.n_classes), job.wishes, source)
    import torch

    from riwoa.supernet.training import train_supernet

    torch.set_num_threads(job.threads)
    pace = _Pace(60 * recipe.minutes, progress)

    def notes(weights: dict[str, Tensor], recipe: Recipe) -> dict[str, str]:
        pace.tell("judging its subnets")
        found = _judged(weights, recipe, task, job.judged)
        kept = {name: found[name] for name in ("random_subnets", "images", "accuracy", "lead", "lead_standard_errors")}
        classes = [str(name) for name in getattr(task, "class_names", ())]
        return {"check": json.dumps(kept), **({"classes": json.dumps(classes)} if classes else {})}

    try:
        train_supernet(
            recipe,
            job.out,
            task=task,
            device=job.judged.device,
            progress=pace.training,
            notes=notes,
            source=None if source is None else source.path,
            orders=orders,
        )
    except OSError as error:
        raise unwritable(job.out, error, "choose another place with --state") from None
    last = pace.last
    losses = {} if last is None else {"loss_largest": last.loss_largest, "loss_distilled": last.loss_distilled}
    return {"supernet": str(job.out), "steps": recipe_steps(job.out), **losses, **told_check(job.out)}


def recipe_steps(file: Path) -> int:
    """Steps that the supernet of a file was trained for; 0 where it does not say."""
    try:
        return recipe_from(parse_json_object(safetensors_notes(file).get("recipe", "").encode())).steps
    except (ValueError, TypeError, KeyError):
        return 0


def told_check(file: Path) -> dict[str, Any]:
    """What the supernet of a file reached when it was trained, as it says itself; empty where it says nothing."""
    try:
        return parse_json_object(safetensors_notes(file).get("check", "").encode())
    except ValueError:
        return {}


def told_finetuning(file: Path, winner: Mapping[str, str]) -> dict[str, Any] | None:
    """What a file of fine-tuned weights says of its training; None where it is missing, or of another winner.

    Args:
        file: that ``oracle.supernet_finetune`` wrote.
        winner: what is noted of the network that is meant.
    """
    notes = safetensors_notes(file)
    if any(notes.get(name) != winner[name] for name in ("architecture_key", "oracle_version")):
        return None
    try:
        return parse_json_object(notes.get("finetuning", "").encode())
    except ValueError:
        return None


def pictures_of(task: ImageTask, n_classes: int) -> Pictures:
    """What the task's training images are.

    Raises:
        InputError: they have no labels.
    """
    labels = task.labels("train")
    counts = np.bincount(labels, minlength=n_classes)
    filled = counts[counts > 0]
    side_px = task.pixels("train").shape[1] if isinstance(task, LabelledPixels) else RESOLUTIONS[-1]
    return Pictures(n_classes, len(labels), side_px, float(filled.max() / filled.min()))


def _judged(weights: dict[str, Tensor], recipe: Recipe, task: ImageTask, spec: SupernetSpec) -> dict[str, Any]:
    from riwoa.supernet.evaluator import SubnetEvaluator
    from riwoa.supernet.network import Supernet, build_network

    backbone = Backbone(recipe.width_mult, recipe.n_classes, recipe.stem)
    network: Any = build_network(backbone)
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    recalibration = {r: task.recalibration(r, spec.recalibration_images) for r in recipe.resolutions}
    validation = {r: task.views("validation", r, spec.validation_views) for r in recipe.resolutions}
    evaluator = SubnetEvaluator(
        Supernet(network, backbone), recalibration, validation, prefix_cache_bytes=0, device=spec.device
    )
    return judged_lead({"validation": evaluator}, _RANDOM_SUBNETS, seed=0)


class _Pace:
    """Reports a training a few times a second, with the time left by the speed of this process."""

    def __init__(self, allowed_s: float, progress: OnProgress) -> None:
        self.last: TrainingProgress | None = None
        self._progress = progress
        self._allowed_s = allowed_s
        self._begun_s = self._told_s = time.monotonic()
        self._known: tuple[int, float] | None = None  # since there are steps to count to

    def training(self, p: TrainingProgress) -> None:
        """A step was done."""
        self.last, now_s = p, time.monotonic()
        if p.steps and self._known is None:
            self._known = p.step, now_s
        if now_s - self._told_s >= _REPORT_EVERY_S or p.step == p.steps:
            self._told_s = now_s
            speed = "" if p.steps else "finding its pace, "
            words = f"{speed}loss {p.loss_largest:.3f}, {p.images_per_s:,.0f} images/s"
            self._progress(JobProgress(p.step if p.steps else 0, p.steps, self._left_s(now_s), words))

    def tell(self, words: str) -> None:
        """Report what else is going on."""
        steps = 0 if self.last is None else self.last.steps
        self._progress(JobProgress(steps, steps, None, words))

    def _left_s(self, now_s: float) -> float | None:
        if self._known is None:
            return max(0.0, self._allowed_s - (now_s - self._begun_s)) if self._allowed_s else None
        (first, since_s), step = self._known, self.last.step if self.last is not None else 0
        steps = self.last.steps if self.last is not None else 0
        return (now_s - since_s) / (step - first) * (steps - step) if step > first else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m riwoa.supernet.job", description=__doc__)
    parser.add_argument("--child", action="store_true", help="end with the parent, or when standard input ends")
    parser.add_argument("job", help="a JSON object")
    given = parser.parse_args(argv)
    orders = Orders()
    if given.child:
        die_with_parent()
        watch_stdin(orders.take)

    return answer(lambda: train_job(_job(given.job), tell_parent, orders))


def tell_parent(p: JobProgress) -> None:
    """Report progress to the process that started this job."""
    report("progress", **asdict(p))


def _job(text: str) -> TrainingJob:
    try:
        return TrainingJob.from_json(parse_json_object(text.encode()))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"no training job: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
