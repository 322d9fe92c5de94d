"""A network that a search found goes on training: on the labels, and on what the largest subnet says of the pictures.

Its inherited weights serve a whole space of networks; a short training makes them this network's own. The loop, the
optimiser, the averaged weights and the state that survives a kill are those of ``training``: only the loss is another,
and which weights are kept. They are those of the epoch that read the most validation images right, of the beginning
too, so that a training that does harm changes nothing. The teacher is the largest subnet at the same input size
(Hinton et al., "Distilling the Knowledge in a Neural Network", 2015).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riwoa.datasets.arrays import Images, IntArray
from riwoa.supernet.checks import recalibrate
from riwoa.supernet.evaluator import RECALIBRATION_BATCH_IMAGES, exact_arithmetic
from riwoa.supernet.training import Trainer

if TYPE_CHECKING:
    from riwoa.datasets.catalogue import ImageTask
    from riwoa.supernet.recipe import Recipe

BoolArray = npt.NDArray[np.bool_]

TEACHER_SHARE = 0.5  # of the loss; the labels have the rest
_BATCH_IMAGES = 200


class FineTuner(Trainer):
    """A found network in training beside its teacher.

    Args:
        recipe: how; of one resolution.
        task: on what.
        student: the network, with the weights that the search judged.
        teacher: the supernet's largest subnet, recalibrated; it does not change.
        kept: decides which weights are kept.
        device: where.
        about: tells fine-tunings of one recipe apart.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: ImageTask,
        student: nn.Module,
        teacher: nn.Module,
        kept: BestEpoch,
        device: str = "cpu",
        about: str = "",
    ) -> None:
        super().__init__(recipe, task, device, network=student, about=about)
        self._teacher: Any = teacher.eval().to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.early_stop = kept

    def _loss(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with the labels, and with the teacher's softened predictions."""
        temperature = self.recipe.temperature
        with torch.no_grad():
            soft = F.softmax(self._teacher(images) / temperature, dim=1)
        taught = temperature**2 * F.cross_entropy(logits / temperature, soft)
        return (1 - TEACHER_SHARE) * super()._loss(images, logits, labels) + TEACHER_SHARE * taught


class BestEpoch:
    """Keeps the averaged weights of the epoch that reads the most validation images right, the first among equals.

    Args:
        validation: images (n, 3, r, r) and labels that judge.
        recalibration: training images, (n, 3, r, r), for BatchNorm's statistics.
        epoch_steps: after so many steps the network is judged.
        device: where.
    """

    def __init__(
        self, validation: tuple[Images, IntArray], recalibration: Images, epoch_steps: int, device: str = "cpu"
    ) -> None:
        self.accuracies: list[float] = []  # of the beginning and of each epoch
        self._validation = validation
        self._recalibration = recalibration
        self._epoch_steps = epoch_steps
        self._device = torch.device(device)
        self._kept: dict[str, Tensor] | None = None

    @property
    def epoch(self) -> int:
        """The one that is kept; 0 for the weights that the training began with."""
        return max(range(len(self.accuracies)), key=lambda epoch: (self.accuracies[epoch], -epoch))

    def due(self, step: int, steps: int) -> bool:
        """Whether the network is judged after this step."""
        return step == steps or step % self._epoch_steps == 0

    def look(self, net: nn.Module, average: Mapping[str, Tensor]) -> bool:
        """Judge the network of averaged weights; never ends the training, whose learning rate has an end of its own."""
        images, labels = self._validation
        judged = averaged(net, average, self._recalibration, self._device)
        self.accuracies.append(float(answers(judged, images, labels, self._device).mean()))
        if self.epoch == len(self.accuracies) - 1:
            self._kept = {name: tensor.detach().clone() for name, tensor in average.items()}
        return False

    def kept(self, average: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights to write, where the last ones are ``average``."""
        return average if self._kept is None else self._kept

    def state(self) -> dict[str, Any]:
        """What a continued training must know."""
        return {"accuracies": self.accuracies, "kept": self._kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Stand where ``state`` was taken."""
        self.accuracies, self._kept = list(state["accuracies"]), state["kept"]


def averaged(net: nn.Module, average: Mapping[str, Tensor], recalibration: Images, device: torch.device) -> nn.Module:
    """A copy of a network with averaged weights, BatchNorm recalibrated on training images; in evaluation mode."""
    judged = copy.deepcopy(net)  # the one that trains keeps its weights and its statistics
    with torch.no_grad(), exact_arithmetic():
        for name, parameter in judged.named_parameters():
            parameter.copy_(average[name])
        starts = range(0, len(recalibration), RECALIBRATION_BATCH_IMAGES)
        recalibrate(judged, (_batch(recalibration, s, RECALIBRATION_BATCH_IMAGES, device) for s in starts))
    return judged


def answers(net: nn.Module, images: Images, labels: IntArray, device: torch.device) -> BoolArray:
    """Which images a network in evaluation mode reads right, (n,)."""
    with torch.inference_mode(), exact_arithmetic():
        found = [
            net(_batch(images, start, _BATCH_IMAGES, device)).argmax(1).cpu().numpy()
            for start in range(0, len(images), _BATCH_IMAGES)
        ]
    return np.asarray(np.concatenate(found) == labels)


def _batch(images: Images, start: int, size: int, device: torch.device) -> Tensor:
    batch = torch.from_numpy(np.require(images[start : start + size], np.float32, ["C", "W"]))
    return batch.to(device).contiguous(memory_format=torch.channels_last)
