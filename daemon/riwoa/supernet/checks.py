"""Judging a supernet while it trains: whether more of it still helps, which weights are kept when it does not."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from riwoa.supernet.evaluator import RECALIBRATION_BATCH_IMAGES, exact_arithmetic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from riwoa.datasets.catalogue import ImageTask
    from riwoa.supernet.recipe import Recipe

_MOST_IMAGES = 1000  # validation images that judge
_RECALIBRATION_IMAGES = 200
_BATCH_IMAGES = 250


class Checks(Protocol):
    """What a trainer asks while it trains: whether to end, and which weights are worth keeping."""

    def due(self, step: int, steps: int) -> bool:
        """Whether the network is judged after this step."""

    def look(self, net: Any, average: Mapping[str, Tensor]) -> bool:
        """Judge the network of averaged weights; True where the training is to end."""

    def kept(self, average: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights to write, where the last ones are ``average``."""

    def state(self) -> dict[str, Any]:
        """What a continued training must know."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Stand where ``state`` was taken."""


class EarlyStop:
    """Keeps the averaged weights of the newest check, unless it was worse than the best one by a standard error.

    So a lucky check half way is not preferred to a training that went on to its end, and one that overfits ends.

    Args:
        task: its validation images judge; where there are none, nothing is checked.
        recipe: how often, and how many worse ones in a row end the training.
        device: where it is trained.
    """

    def __init__(self, task: ImageTask, recipe: Recipe, device: torch.device) -> None:
        self._every = recipe.checks if "validation" in task.splits else 0
        self._patience = recipe.patience
        self._device = device
        self._best, self._worse = -1.0, 0
        self._kept: dict[str, Tensor] | None = None
        if self._every:
            resolution = max(recipe.resolutions)
            count = min(_RECALIBRATION_IMAGES, task.training_images)
            self._recalibration = torch.from_numpy(task.recalibration(resolution, count)[:])
            images, labels = task.views("validation", resolution, 1)
            self._images = torch.from_numpy(images[:_MOST_IMAGES])
            self._labels = torch.from_numpy(labels[:_MOST_IMAGES])

    def due(self, step: int, steps: int) -> bool:
        """Whether the network is judged after this step: a fixed number of times over a training of known length."""
        return bool(self._every and steps) and (step == steps or step % max(1, steps // self._every) == 0)

    def look(self, net: Any, average: Mapping[str, Tensor]) -> bool:
        """Judge the largest subnet of averaged weights; True where the training is to end."""
        accuracy = self._accuracy(net, average)
        error = (max(0.0, self._best * (1 - self._best)) / len(self._labels)) ** 0.5
        if accuracy < self._best - error:
            self._worse += 1
            return self._worse >= self._patience
        self._best, self._worse = max(self._best, accuracy), 0
        self._kept = {name: tensor.detach().clone() for name, tensor in average.items()}
        return False

    def kept(self, average: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights to write, where the last ones are ``average``."""
        return average if self._kept is None or not self._worse else self._kept

    def state(self) -> dict[str, Any]:
        """What a continued training must know."""
        return {"best": self._best, "worse": self._worse, "kept": self._kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Stand where ``state`` was taken."""
        self._best, self._worse, self._kept = state["best"], state["worse"], state["kept"]

    def _accuracy(self, net: Any, average: Mapping[str, Tensor]) -> float:
        judged = copy.deepcopy(net)  # the one that trains keeps its weights and its statistics
        judged.set_max_net()
        with torch.no_grad(), exact_arithmetic():
            for name, parameter in judged.named_parameters():
                parameter.copy_(average[name])
            drawn = torch.split(self._recalibration, RECALIBRATION_BATCH_IMAGES)
            recalibrate(judged, (batch.to(self._device) for batch in drawn))
            batches = torch.split(self._images, _BATCH_IMAGES)
            found = torch.cat([judged(batch.to(self._device)).argmax(1).cpu() for batch in batches])
        return float((found == self._labels).double().mean())


def recalibrate(network: torch.nn.Module, batches: Iterable[Tensor]) -> None:
    """Set BatchNorm's statistics to the average over batches of standardised training images; in place, float32."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
    network.train()
    with torch.no_grad():
        for batch in batches:
            network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
