"""Subnet evaluations a second against OFA's own way: the same subnets, images, batch size and threads.

The subnets are a search's generation: random ones, and children that differ from one of them in a few genes. OFA's own
way is ``get_active_subnet``, ``set_running_statistics`` and a forward pass, as its tutorials do it. Every contender
evaluates a subnet before anybody goes on to the next one, so that a machine that slows down slows everybody down; what
subnets share is forgotten before each round; times are medians over rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.stats
import torch
from torch import Tensor

from riwoa.datasets.arrays import FloatArray
from riwoa.datasets.catalogue import task_of
from riwoa.hardware.bench import thread_count
from riwoa.hardware.probe import fastest_dtype
from riwoa.oracle.supernet_oracle import checkpoint_path
from riwoa.search.rng import generator
from riwoa.supernet.evaluator import RECALIBRATION_BATCH_IMAGES, IntArray, SubnetEvaluator
from riwoa.supernet.network import Supernet
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.space import OfaConfig, mobilenet_space, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa.supernet.training import load_trained

ROUNDS = 3
BATCH_IMAGES = 400  # of 50, 100, 200, 400 and 800 the one that OFA's own way is fastest with on the reference machine
RECALIBRATION_IMAGES = 400
VIEWS = 8  # of each digit; other images are shown once
PREFIX_CACHE_BYTES = 256 << 20  # the daemon's
SEPARATED = 0.01  # subnets whose accuracies differ by more must be ranked alike
_CHANGED_GENES = 3  # of a child

Images = dict[int, FloatArray]
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Task:
    """What is evaluated, on what."""

    supernet: Supernet
    recalibration: Images
    validation: dict[int, tuple[FloatArray, IntArray]]


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to evaluate; ``shares`` says whether subnets may share what they compute."""

    name: str
    shares: bool
    logits: Callable[[OfaConfig], Tensor]
    forget: Callable[[], None]


def bench_evaluation(
    checkpoint: Path | None = None,
    data: str = "digits",
    *,
    subnets: int = 12,
    threads: int = 1,
    rounds: int = ROUNDS,
    seed: int = 0,
    task: Task | None = None,
    progress: Report = lambda done, total: None,
) -> dict[str, Any]:
    """Measure; ``ratio`` is the fastest setting's throughput by OFA's.

    Args:
        checkpoint: a supernet for the data; None is the embedded one.
        data: as ``oracle.supernet.data``.
        subnets: random ones; half as many children come on top.
        threads: of torch, for every contender.
        rounds: timings of each subnet.
        seed: of the subnets.
        task: evaluate this instead.
        progress: told evaluations done and in all.

    Raises:
        InputError: the checkpoint or the data is missing or damaged.
    """
    task = task or _task(checkpoint, data)
    with thread_count(threads):
        contenders = _contenders(task)
        configs = generation(sorted(task.validation), subnets, seed)
        seconds, logits = _race(contenders, configs, rounds, progress)
    labels = [task.validation[config.r][1] for config in configs]
    rows = [_row(c, seconds, logits, labels) for c in contenders]
    fastest = max((row for row in rows if row["prefixes_shared"]), key=lambda row: float(row["ratio"]))
    some = next(iter(task.validation.values()))
    return {
        "ratio": fastest["ratio"],
        "fastest": fastest["name"],
        "rows": rows,
        "subnets": len(configs),
        "rounds": rounds,
        "threads": threads,
        "batch_images": BATCH_IMAGES,
        "recalibration_images": len(next(iter(task.recalibration.values()))),
        "validation_images": len(some[1]),
        "prefix_cache_bytes": PREFIX_CACHE_BYTES,
        "weights_sha256": task.supernet.weights_sha256(),
        "torch": torch.__version__,
    }


def generation(resolutions: Sequence[int], subnets: int, seed: int) -> list[OfaConfig]:
    """Random subnets, then half as many children, each of one of them with three genes drawn anew."""
    space = mobilenet_space(resolutions)
    rng = generator(seed, 0, "bench eval")
    parents = rng.integers(0, space.cardinalities, (subnets, len(space)))
    children = parents[rng.integers(0, subnets, subnets // 2)]
    for child in children:
        genes = rng.choice(len(space), _CHANGED_GENES, replace=False)
        child[genes] = rng.integers(0, space.cardinalities[genes])
    return [ofa_config(space.architecture(row)) for row in np.concatenate([parents, children])]


def _task(checkpoint: Path | None, data: str) -> Task:
    path = checkpoint_path(SupernetSpec(checkpoint=None if checkpoint is None else str(checkpoint)))
    supernet, recipe = load_trained(path)
    spec = SupernetSpec(data=data, n_classes=supernet.backbone.n_classes, resolutions=recipe.resolutions)
    images = task_of(spec)
    return Task(
        supernet,
        {r: images.recalibration(r, RECALIBRATION_IMAGES)[:] for r in recipe.resolutions},
        {r: _whole(images.views("validation", r, VIEWS)) for r in recipe.resolutions},
    )


def _whole(views: tuple[Any, IntArray]) -> tuple[FloatArray, IntArray]:
    """OFA's own way wants arrays, some tasks give images that are standardised when they are looked at."""
    return np.ascontiguousarray(views[0][:], dtype=np.float32), np.array(views[1])


def _contenders(task: Task) -> list[Contender]:
    precisions: list[Literal["float32", "bfloat16"]] = ["float32"]
    if fastest_dtype() != "float32":
        precisions.append(fastest_dtype())
    ours = [_ours(task, precision, shares) for precision in precisions for shares in (True, False)]
    return [Contender("ofa", False, lambda config: _ofas_own_way(task, config), lambda: None), *ours]


def _ours(task: Task, precision: Literal["float32", "bfloat16"], shares: bool) -> Contender:
    evaluator = SubnetEvaluator(
        task.supernet,
        task.recalibration,
        task.validation,
        dtype=precision,
        batch_size=BATCH_IMAGES,
        prefix_cache_bytes=PREFIX_CACHE_BYTES if shares else 0,
    )
    return Contender(precision, shares, evaluator.logits, evaluator.forget)


def _ofas_own_way(task: Task, config: OfaConfig) -> Tensor:
    net = task.supernet.get_net_for_config(config)
    recalibration = torch.from_numpy(task.recalibration[config.r])
    batches = [(images, None) for images in torch.split(recalibration, RECALIBRATION_BATCH_IMAGES)]
    import_ofa().set_running_statistics(net, batches)
    with torch.no_grad():
        validation = torch.from_numpy(task.validation[config.r][0])
        return torch.cat([net(images) for images in torch.split(validation, BATCH_IMAGES)])


Key = tuple[str, bool]  # name and sharing of a contender


def _race(
    contenders: Sequence[Contender], configs: Sequence[OfaConfig], rounds: int, progress: Report
) -> tuple[dict[Key, list[float]], dict[Key, list[Tensor]]]:
    """Median seconds, and logits, of each contender for each subnet."""
    times: dict[Key, list[list[float]]] = {(c.name, c.shares): [[] for _ in configs] for c in contenders}
    logits: dict[Key, list[Tensor]] = {key: [] for key in times}
    done, total = 0, rounds * len(configs) * len(contenders)
    for repeat in range(rounds):
        for contender in contenders:
            contender.forget()
        for i, config in enumerate(configs):
            for contender in contenders:
                key = contender.name, contender.shares
                start = time.perf_counter()
                found = contender.logits(config)
                times[key][i].append(time.perf_counter() - start)
                if repeat == 0:
                    logits[key].append(found)
                done += 1
                progress(done, total)
    return {key: [statistics.median(t) for t in of_subnets] for key, of_subnets in times.items()}, logits


def _row(
    contender: Contender,
    seconds: dict[Key, list[float]],
    logits: dict[Key, list[Tensor]],
    labels: Sequence[IntArray],
) -> dict[str, Any]:
    reference, key = ("ofa", False), (contender.name, contender.shares)
    expected, found = _accuracies(logits[reference], labels), _accuracies(logits[key], labels)
    pairs = [(i, j) for i, j in combinations(range(len(labels)), 2) if abs(expected[i] - expected[j]) > SEPARATED]
    alike = sum(bool((expected[i] < expected[j]) == (found[i] < found[j])) for i, j in pairs)
    return {
        "name": contender.name,
        "prefixes_shared": contender.shares,
        "ratio": sum(seconds[reference]) / sum(seconds[key]),
        "evaluations_per_s": len(labels) / sum(seconds[key]),
        "slowest_s": max(seconds[key]),
        "logits_max_difference": max(
            float((a - b).abs().max()) for a, b in zip(logits[key], logits[reference], strict=True)
        ),
        "accuracy_max_difference_points": 100 * float(np.abs(found - expected).max()),
        "accuracy_spearman": _spearman(expected, found),
        "separated_pairs": len(pairs),
        "separated_pairs_ranked_alike": alike,
    }


def _accuracies(logits: Sequence[Tensor], labels: Sequence[IntArray]) -> npt.NDArray[np.float64]:
    return np.array([np.mean(x.argmax(1).numpy() == y) for x, y in zip(logits, labels, strict=True)])


def _spearman(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float | None:
    """Rank correlation, None where one of them is constant."""
    if len(set(a.tolist())) < 2 or len(set(b.tolist())) < 2:
        return None
    return float(scipy.stats.spearmanr(a, b).statistic)
