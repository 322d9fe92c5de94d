"""Does a supernet trained on other classes give a training a head start? Against scratch, at equal steps, by seeds.

The classes of CIFAR-100 are dealt once: the source learns eighty of them, and what is trained of the other twenty, on
few pictures a class, has been seen by nobody. Equal steps are of equal cost, but for a transfer's first ones, which
train the classifier alone and are cheaper. Nothing is chosen by the test pictures that tell both ways apart; they are
the same in every seed, which decides the pictures that train and all that a training draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from riwoa.bench.paired import student_interval
from riwoa.datasets.cifar import Cifar100Task
from riwoa.datasets.image_file import ImageFileTask
from riwoa.search.paired import difference_of
from riwoa.search.rng import generator
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.job import JobProgress, TrainingJob, train_job
from riwoa.supernet.lead import drawn_subnets
from riwoa.supernet.plan import SCRATCH, Wishes
from riwoa.supernet.spec import SupernetSpec

if TYPE_CHECKING:
    from riwoa.datasets.arrays import Split

BoolArray = npt.NDArray[np.bool_]
Report = Callable[[int, int, str], None]

ARMS = ("transfer", "scratch")
_RESOLUTIONS_PX = (24, 28, 32)
_RECALIBRATION_IMAGES = 400
_VALIDATION_EACH = 10  # of a class; they end a training that overfits, in both ways alike


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the numbers, besides data and library versions."""

    seeds: int = 3
    classes: int = 20  # that nobody has seen
    pictures: int = 50  # of each, that train
    epochs: int = 20  # over them
    source_epochs: int = 2
    source_pictures: int = 450  # of each other class
    width_mult: float = 0.25
    random_subnets: int = 15


def bench_transfer(data: Path, out: Path, settings: Settings, say: Report = lambda *_: None) -> dict[str, Any]:
    """Train the source, then both ways in each seed; killed and run again it continues.

    Args:
        data: CIFAR-100.
        out: a folder of its own: pictures, supernets, results.
        settings: how much of what.
        say: told what is trained, and how far that is.

    Returns:
        ``difference``: the largest subnet's and the mean random one's, transfer less scratch, with 95 % intervals over
        pictures (the seeds' mean on the same ones) and over seeds (t, few degrees of freedom).

    Raises:
        InputError: no CIFAR-100, or what lies in ``out`` is of other settings.
    """
    task = Cifar100Task.open(data)
    order = generator(0, 0, "bench.transfer").permutation(100)
    others, unseen = sorted(order[settings.classes :]), sorted(order[: settings.classes])
    trained = _Trainings(task, out / _folder_name(settings), settings, say)
    source = trained.supernet("source", others, settings.source_pictures, settings.source_epochs, SCRATCH, 0)
    right: dict[str, list[BoolArray]] = {arm: [] for arm in ARMS}  # (subnets, pictures) each
    for seed in range(settings.seeds):
        for arm, start in zip(ARMS, (str(source), SCRATCH), strict=True):
            name = f"{arm}-{seed}"
            file = trained.supernet(name, unseen, settings.pictures, settings.epochs, start, seed)
            right[arm].append(trained.answers(name, file))
    return summary({arm: np.stack(rows) for arm, rows in right.items()}, settings)


class _Trainings:
    """The supernets of one bench, and their answers, each made once."""

    def __init__(self, task: Cifar100Task, out: Path, settings: Settings, say: Report) -> None:
        self._task = task
        self._out = out
        self._settings = settings
        self._say = say
        out.mkdir(parents=True, exist_ok=True)

    def supernet(self, name: str, classes: Sequence[int], each: int, epochs: int, start: str, seed: int) -> Path:
        """The file of a supernet of these classes, trained on so many pictures of each."""
        file, pictures = self._out / f"{name}.safetensors", self._pictures(name)
        if file.exists():
            return file
        wanted: dict[Split, int] = {"train": each, "validation": _VALIDATION_EACH, "test": 100}
        _write_part(self._task, classes, wanted, seed, pictures)
        spec = SupernetSpec(
            n_classes=len(classes),
            data=str(pictures.absolute()),
            resolutions=_RESOLUTIONS_PX,
            width_mult=self._settings.width_mult,
        )
        wishes = Wishes(
            epochs=epochs, width_mult=spec.width_mult, stem="imagenet", resolutions=_RESOLUTIONS_PX, seed=seed
        )

        def progress(p: JobProgress) -> None:
            self._say(p.done, p.total, f"{name}: {p.words}")

        train_job(TrainingJob(file, spec, wishes, start, threads=1), progress)
        return file

    def answers(self, name: str, file: Path) -> BoolArray:
        """Which test pictures the largest and each random subnet read right, (subnets, pictures)."""
        kept = self._out / f"{name}.answers.npy"
        if not kept.exists():
            rows = _judged(file, ImageFileTask.open(self._pictures(name)), self._settings)
            with kept.with_suffix(".tmp").open("wb") as stream:
                np.save(stream, rows)
            kept.with_suffix(".tmp").replace(kept)
        found: BoolArray = np.load(kept)
        return found

    def _pictures(self, name: str) -> Path:
        return self._out / f"{name}.npz"


def _folder_name(settings: Settings) -> str:
    return "-".join(f"{name[0]}{value:g}" for name, value in asdict(settings).items() if name != "seeds")


def _write_part(task: Cifar100Task, classes: Sequence[int], wanted: Mapping[Split, int], seed: int, out: Path) -> None:
    """Some pictures of some classes as an ``.npz``; of the test pictures, in their order, as many as there are."""
    arrays: dict[str, Any] = {"mean": task.mean, "std": task.std}
    for split, each in wanted.items():
        labels, rng = task.labels(split), generator(seed, 0, f"bench.transfer.{split}")
        members = [np.flatnonzero(labels == label) for label in classes]
        chosen = [m if len(m) <= each else np.sort(rng.permutation(m)[:each]) for m in members]
        arrays[f"{split}_images"] = task.pixels(split)[np.concatenate(chosen)]
        arrays[f"{split}_labels"] = np.repeat(np.arange(len(classes)), [len(rows) for rows in chosen])
    np.savez(out, **arrays)


def _judged(file: Path, task: ImageFileTask, settings: Settings) -> BoolArray:
    from riwoa.supernet.evaluator import SubnetEvaluator  # torch
    from riwoa.supernet.network import Supernet

    backbone = Backbone(settings.width_mult, len(task.class_names), "imagenet")
    supernet = Supernet.load(file, backbone.width_mult, backbone.n_classes, backbone.stem)
    recalibration = {r: task.recalibration(r, _RECALIBRATION_IMAGES) for r in _RESOLUTIONS_PX}
    evaluator = SubnetEvaluator(supernet, recalibration, {r: task.views("test", r) for r in _RESOLUTIONS_PX})
    largest, _, *drawn = drawn_subnets(_RESOLUTIONS_PX, settings.random_subnets, seed=0)
    return np.stack([evaluator.judge(config)[1] for config in (largest, *drawn)])


def summary(right: Mapping[str, BoolArray], settings: Settings) -> dict[str, Any]:
    """What the answers say: by arm (seeds, subnets, pictures), the largest subnet first."""
    rows = {
        arm: {
            "largest": found[:, 0].mean(axis=1).tolist(),
            "mean_random": found[:, 1:].mean(axis=(1, 2)).tolist(),
        }
        for arm, found in right.items()
    }
    differences = {
        "largest": _difference(*(right[arm][:, :1] for arm in ARMS)),
        "mean_random": _difference(*(right[arm][:, 1:] for arm in ARMS)),
    }
    ratios = [np.mean(rows[arm]["largest"]) for arm in ARMS]
    return {
        "bench": "transfer",
        "ratio": float(ratios[0] / ratios[1]) if ratios[1] else None,
        "test_pictures": int(right["transfer"].shape[2]),
        "accuracy": rows,
        "difference": differences,
        "settings": asdict(settings),
    }


def _difference(ours: BoolArray, theirs: BoolArray) -> dict[str, Any]:
    """Of (seeds, subnets, pictures): the mean, and its 95 % intervals over pictures and over seeds."""
    by_seed = (ours.mean(axis=(1, 2)) - theirs.mean(axis=(1, 2))).tolist()
    pictures = [found.reshape(-1, found.shape[2]).T for found in (ours, theirs)]
    found = difference_of(pictures[0], pictures[1])
    reach = 1.96 * found.error
    told = {"value": found.value, "over_pictures": [found.value - reach, found.value + reach], "by_seed": by_seed}
    if len(by_seed) > 1:
        over_seeds = student_interval(by_seed)
        told["over_seeds"] = [over_seeds["low"], over_seeds["high"]]
    return told


def words(found: Mapping[str, Any]) -> str:
    """Accuracies by seed, and the differences."""
    lines = []
    for subnet, title in (("largest", "largest subnet"), ("mean_random", "mean of random ones")):
        for arm in ARMS:
            values = found["accuracy"][arm][subnet]
            lines.append(f"{title:20} {arm:9}" + "".join(f"{100 * value:7.2f} %" for value in values))
        told = found["difference"][subnet]
        spans = [f"{100 * told['value']:+.2f} points"]
        for name in ("over_pictures", "over_seeds"):
            if name in told:
                low, high = told[name]
                spans.append(f"{name.replace('_', ' ')} {100 * low:+.2f} to {100 * high:+.2f}")
        lines.append(f"{title:20} gain      {', '.join(spans)} (95 %)")
    return "\n".join(lines)
