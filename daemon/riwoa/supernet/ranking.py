"""Does a supernet rank its subnets as training each one alone would (``riwoactl supernet rank``)?

The whole search rests on it: accuracies with inherited weights stand for those of the trained network (Cai et al., ICLR
2020; Yu et al., "Evaluating the Search Phase of NAS", ICLR 2020, doubt it in general). A few random subnets are trained
from scratch by the supernet's own recipe, and both accuracies' ranks are compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from riwoa.datasets.arrays import Images, IntArray
from riwoa.datasets.catalogue import ImageTask
from riwoa.errors import InputError
from riwoa.parsing import parse_json
from riwoa.supernet import geometry
from riwoa.supernet.batches import steps_per_epoch
from riwoa.supernet.checks import recalibrate
from riwoa.supernet.evaluator import RECALIBRATION_BATCH_IMAGES, SubnetEvaluator, exact_arithmetic
from riwoa.supernet.network import Supernet
from riwoa.supernet.recipe import Recipe, recipe_from
from riwoa.supernet.space import OfaConfig
from riwoa.supernet.training import Trainer, TrainingProgress, new_subnet, train
from riwoa_storage.durable import replace_durably

_WARMUP_SHARE = 10  # of a short training, one step in so many warms up
_EVALUATION_IMAGES = 500
_LEAST_FOR_RANKS = 3


@dataclass(frozen=True, slots=True)
class RankSettings:
    """What decides the numbers; a results file of other settings is not continued."""

    recipe: Recipe  # the supernet's
    weights_sha256: str
    data_sha256: str
    epochs: int
    seed: int
    recalibration_images: int
    device: str


def rank(
    supernet: Supernet,
    task: ImageTask,
    settings: RankSettings,
    configs: Sequence[OfaConfig],
    results: Path,
    progress: Callable[[int, TrainingProgress], None] = lambda done, p: None,
) -> dict[str, Any]:
    """Accuracies of each subnet with inherited weights and trained alone, and how alike they rank.

    Killed and run again it continues, within a subnet too: finished ones are in ``results``, the present one's training
    state lies beside it.

    Args:
        supernet: whose weights are inherited.
        task: trained on its training images, judged on the validation images.
        settings: the recipe, the epochs of each training.
        configs: the subnets.
        results: JSON file, written after each subnet.
        progress: how many are done, and how the present one's training goes.

    Raises:
        InputError: ``results`` is of other settings or damaged, or the task has no training labels.
    """
    known = _read(results, settings)
    evaluators: dict[int, SubnetEvaluator] = {}
    rows: list[dict[str, Any]] = []
    for i, config in enumerate(configs):
        key = json.dumps(config.to_json())
        if key not in known:
            recalibration = task.recalibration(config.r, settings.recalibration_images)
            validation = task.views("validation", config.r, 1)
            if config.r not in evaluators:
                evaluators[config.r] = SubnetEvaluator(
                    supernet, {config.r: recalibration}, {config.r: validation}, device=settings.device
                )
            trainer = _alone(config, task, settings)
            state = results.with_name(f"{results.name}.{i}.training.pt")
            train(trainer, state, progress=lambda p, done=i: progress(done, p))  # type: ignore[misc]
            known[key] = {
                **config.to_json(),
                "macs": geometry.macs(config, supernet.backbone),
                "steps": trainer.steps,
                "inherited": evaluators[config.r].evaluate(config)["accuracy"],
                "standalone": _accuracy(trainer, recalibration, validation),
            }
            _write(results, settings, known)
            state.unlink(missing_ok=True)
        rows.append(known[key])
    return {"subnets": rows, **agreement([r["inherited"] for r in rows], [r["standalone"] for r in rows])}


def agreement(inherited: Sequence[float], standalone: Sequence[float]) -> dict[str, Any]:
    """Spearman's and Kendall's coefficients with two-sided p-values and n; None where ranks cannot be compared."""
    from scipy import stats

    n = len(inherited)
    if n < _LEAST_FOR_RANKS or min(len(set(inherited)), len(set(standalone))) < 2:
        return {"n": n, "spearman": None, "spearman_p": None, "kendall": None, "kendall_p": None}
    spearman, kendall = stats.spearmanr(inherited, standalone), stats.kendalltau(inherited, standalone)
    return {
        "n": n,
        "spearman": float(spearman.statistic),
        "spearman_p": float(spearman.pvalue),
        "kendall": float(kendall.statistic),
        "kendall_p": float(kendall.pvalue),
    }


def known_agreement(results: Path) -> dict[str, Any] | None:
    """How alike the ranks of an earlier check are; None where there is none at ``results``."""
    try:
        rows = parse_json(results.read_bytes())["subnets"]
        return agreement([row["inherited"] for row in rows], [row["standalone"] for row in rows])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _alone(config: OfaConfig, task: ImageTask, settings: RankSettings) -> Trainer:
    """A trainer of the subnet by itself, of new weights, by the supernet's recipe at its own resolution."""
    recipe = replace(settings.recipe, seed=settings.seed, resolutions=(config.r,), minutes=0.0, largest_only_steps=0)
    net = new_subnet(recipe, config)
    steps = settings.epochs * steps_per_epoch(task, recipe)
    recipe = replace(recipe, steps=steps, warmup_steps=min(recipe.warmup_steps, steps // _WARMUP_SHARE))
    return Trainer(recipe, task, settings.device, net, about=json.dumps(config.to_json()))


def _accuracy(trainer: Trainer, recalibration: Images, validation: tuple[Images, IntArray]) -> float:
    """Accuracy of the averaged weights, BatchNorm recalibrated on the same images as the evaluator's subnets."""
    net, device = trainer.net, trainer.device
    images, labels = validation
    with torch.no_grad(), exact_arithmetic():
        for name, parameter in net.named_parameters():
            parameter.copy_(trainer.average[name])
        drawn = torch.split(torch.from_numpy(recalibration[:]), RECALIBRATION_BATCH_IMAGES)
        recalibrate(net, (batch.to(device) for batch in drawn))
        batches = torch.split(torch.from_numpy(images[:]), _EVALUATION_IMAGES)
        found = torch.cat([net(batch.to(device)).argmax(1).cpu() for batch in batches])
    return float((found == torch.from_numpy(labels)).double().mean())


def _read(path: Path, settings: RankSettings) -> dict[str, dict[str, Any]]:
    """Finished subnets by their configuration."""
    if not path.exists():
        return {}
    try:
        content = parse_json(path.read_bytes())
        settings_then: Mapping[str, Any] = content["settings"]
        found = {**settings_then, "recipe": asdict(recipe_from(settings_then["recipe"]))}  # an older one said less
        subnets = {json.dumps({name: row[name] for name in ("ks", "e", "d", "r")}): row for row in content["subnets"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no rank check ({error}); delete it or name another --out") from error
    if json.dumps(found, sort_keys=True) != json.dumps(asdict(settings), sort_keys=True):
        raise InputError(f"{path} is a rank check of other settings; delete it or name another --out")
    return subnets


def _write(path: Path, settings: RankSettings, known: Mapping[str, Any]) -> None:
    content = {"settings": asdict(settings), "subnets": list(known.values())}
    replace_durably(path, json.dumps(content, indent=1, allow_nan=False).encode())
