"""Accuracy of a subnet: OFA's recalibration and evaluation, several times faster than OFA's own way.

The result is that of ``get_active_subnet``, ``set_running_statistics`` on the recalibration images in batches of 200,
and a forward pass over the validation images (within 1e-3 on logits in float32). The time goes down because

- nothing is extracted: weights are cut from the supernet and packed once (``layers``);
- activations are channels-last and, if asked for, bfloat16 (worth it where the processor multiplies it natively);
- statistics are found in one pass, and then folded into the weights, so that validation runs one fused kernel a layer
  (``kernels``);
- depthwise kernels are cut to the part that can meet the picture (a 7x7 kernel on a 2x2 picture is a 3x3 one);
- subnets that begin alike share what they compute there (``prefix_cache``), which never changes a result;
- on a GPU, images are sent there once, and as many go through at a time as its memory suggests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from riwoa.datasets.arrays import FloatArray, Images
from riwoa.supernet import geometry
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.kernels import Apply, best_kernels
from riwoa.supernet.layers import Block, Convolution, Statistics, SupernetLayers, average
from riwoa.supernet.network import ArchitectureError, Supernet, checked_config
from riwoa.supernet.prefix_cache import Activations, Key, PrefixCache
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Precision = Literal["float32", "bfloat16"]

RECALIBRATION_BATCH_IMAGES = 200  # OFA's
_DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Larger groups of images fall out of the last-level cache (float32 then takes up to twice as long), smaller ones pay
# for more calls.
_WIDEST_ACTIVATION_BYTES = 32 << 20
# On a GPU a group should be large: each layer is one launch. What one pass holds at a time is a few such activations.
_GPU_MEMORY_SHARE = 64  # of the card's memory, one part in so many for the widest activation
_GPU_IMAGES_SHARE = 4  # likewise for all images: more than that are sent anew for every evaluation


class NonFiniteLogitsError(ValueError):
    """The subnet computed a logit that is not a number: the candidate fails, the search goes on."""


class Evaluation(TypedDict):
    """The outcome of evaluating a subnet; ``accuracy`` is a fraction of ``images``."""

    accuracy: float
    correct: int
    images: int
    macs: int
    parameters: int


class SubnetEvaluator:
    """Evaluates subnets of one supernet on fixed images. Not thread-safe.

    A result depends on the supernet, the images, ``settings()``, and on nothing that was evaluated before.

    Args:
        supernet: its weights are read at first use of each and must not change afterwards.
        recalibration_images: training images by resolution, (n, 3, r, r) float32.
        validation: by resolution, images (n, 3, r, r) float32 and labels (n,).
        dtype: precision of activations and weights; the first blocks, statistics, biases and the classifier are
            float32 always.
        batch_size: validation images a forward pass; None: as many as keep the widest activation in a CPU's cache, or
            in a fixed share of a GPU's memory.
        prefix_cache_bytes: bound on the shared activations; 0 computes everything anew.
        device: where to compute, "cpu" or "cuda".
    """

    def __init__(
        self,
        supernet: Supernet,
        recalibration_images: Mapping[int, Images],
        validation: Mapping[int, tuple[Images, IntArray]],
        *,
        dtype: Precision = "float32",
        batch_size: int | None = None,
        prefix_cache_bytes: int = 256 << 20,
        device: str = "cpu",
    ) -> None:
        _check_images(recalibration_images, validation)
        self.supernet = supernet
        self._recalibration = recalibration_images
        self._validation = validation
        self._precision: Precision = dtype
        self._dtype = _DTYPES[dtype]
        self._device = torch.device(device)
        self._batch_size = batch_size
        self._widest_bytes = _WIDEST_ACTIVATION_BYTES
        self._resident: dict[str, Tensor] | None = None
        if self._device.type == "cuda":
            # The whole card's memory, not what is free of it now: a result may depend on the size of a group.
            memory_bytes = torch.cuda.get_device_properties(self._device).total_memory
            self._widest_bytes = memory_bytes // _GPU_MEMORY_SHARE
            if _bytes_of(recalibration_images, validation) <= memory_bytes // _GPU_IMAGES_SHARE:
                self._resident = {}
        self._prefix_cache_bytes = prefix_cache_bytes
        self.forget()
        self._layers = self._layers_in(self._dtype)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Input sizes that can be evaluated, pixels, ascending."""
        return tuple(sorted(set(self._recalibration) & set(self._validation)))

    def validation(self, resolution: int) -> tuple[Images, IntArray]:
        """The images that judge at a resolution, and their labels."""
        return self._validation[resolution]

    def settings(self) -> dict[str, Any]:
        """Everything besides weights and images that decides the last bits of a result, as a JSON object."""
        return {
            "dtype": self._precision,
            "batch_images": {str(r): self._batch_images(r) for r in self.resolutions},
            "recalibration_batch_images": RECALIBRATION_BATCH_IMAGES,
            "kernels": self._layers.kernels.name,
            "threads": torch.get_num_threads(),
            "device": str(self._device),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
            **self._gpu_settings(),
        }

    def _gpu_settings(self) -> dict[str, Any]:
        if self._device.type != "cuda":
            return {}
        cudnn: Any = torch.backends.cudnn  # its functions are untyped
        return {
            "gpu": torch.cuda.get_device_name(self._device),
            "cudnn": cudnn.version(),
            "widest_activation_bytes": self._widest_bytes,
        }

    def forget(self) -> None:
        """Drop the activations shared between evaluations: frees memory, changes no result."""
        self._cache = PrefixCache(self._prefix_cache_bytes)

    def evaluate(self, config: OfaConfig | Mapping[str, Any]) -> Evaluation:
        """Accuracy of a subnet on the validation images, its BatchNorm recalibrated; its size.

        Args:
            config: OFA's form, or an architecture object of the space.

        Raises:
            ArchitectureError: a choice that the supernet does not have, or a resolution without images.
            NonFiniteLogitsError: the subnet computed a logit that is not finite.
        """
        return self.judge(config)[0]

    def judge(self, config: OfaConfig | Mapping[str, Any]) -> tuple[Evaluation, BoolArray]:
        """``evaluate``, and which of the validation images were read right, (n,). Raises as ``evaluate``."""
        config = checked_config(config)
        logits = self.logits(config)
        labels = torch.tensor(self._validation[config.r][1]).to(logits.device)
        right = (logits.argmax(1) == labels).cpu().numpy()
        correct = int(right.sum())
        evaluation = Evaluation(
            accuracy=correct / len(labels),
            correct=correct,
            images=len(labels),
            macs=geometry.macs(config, self.supernet.backbone),
            parameters=geometry.parameters(config, self.supernet.backbone),
        )
        return evaluation, right

    def logits(self, config: OfaConfig | Mapping[str, Any]) -> Tensor:
        """Logits of the recalibrated subnet on the validation images, (n, classes) float32. Raises as ``evaluate``."""
        config = checked_config(config)
        self._check_resolution(config.r)
        with torch.inference_mode(), exact_arithmetic():
            logits = self._forward(config)
            if not bool(torch.isfinite(logits).all()):
                raise NonFiniteLogitsError(f"subnet {config.to_json()} computes logits that are not finite")
        return logits

    def recalibrated_net(self, config: OfaConfig | Mapping[str, Any]) -> nn.Module:
        """The standalone subnet in float32 with recalibrated BatchNorm, for export. Raises as ``evaluate``.

        It is recalibrated in float32 whatever the evaluator's precision: its accuracy is that of a float32 evaluator,
        and may differ from a bfloat16 one's by a few images.
        """
        config = checked_config(config)
        self._check_resolution(config.r)
        net = self.supernet.get_net_for_config(config)
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        with torch.inference_mode(), exact_arithmetic():
            statistics = self._recalibrate_exactly(config)
        for norm, found in zip(norms, statistics, strict=True):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(found.mean)
            norm.running_var.copy_(found.variance)
        return net

    def _forward(self, config: OfaConfig) -> Tensor:
        blocks = self._layers.blocks(config)
        prefixes = _prefixes(config.r, blocks)
        known = self._cache.longest(prefixes)
        done = 0 if known is None else known[0] + 1
        keep = [i for i in self._affordable(blocks, config.r) if i >= done and prefixes[i] not in self._cache]

        groups = known[1].recalibration if known else self._recalibration_groups(config.r)
        recalibrated, statistics = _recalibrate(blocks[done:], groups, {i - done for i in keep})
        folded = self._fold(blocks[done:], statistics)

        logits: list[Tensor] = []
        kept: dict[int, list[Tensor]] = {i: [] for i in keep}
        for images in known[1].validation if known else self._validation_groups(config.r):
            x = images
            for i, (block, layers) in enumerate(zip(blocks[done:], folded, strict=True), start=done):
                x = block.run(layers, x)
                if i in kept:
                    kept[i].append(x)
            logits.append(self._layers.head(x))
        for i, validation in kept.items():
            self._cache.add(prefixes[i], Activations(tuple(recalibrated[i - done]), tuple(validation)))
        return torch.cat(logits)

    def _fold(self, blocks: Sequence[Block], statistics: Sequence[Statistics]) -> list[list[Apply]]:
        rest = iter(statistics)
        return [[c.folded(self._layers.kernels, next(rest)) for c in block.convolutions] for block in blocks]

    def _recalibrate_exactly(self, config: OfaConfig) -> list[Statistics]:
        layers = self._layers if self._dtype == torch.float32 else self._layers_in(torch.float32)
        return _recalibrate(layers.blocks(config), self._recalibration_groups(config.r), frozenset())[1]

    def _affordable(self, blocks: Sequence[Block], resolution: int) -> list[int]:
        """The blocks, from the first on, whose outputs the cache can hold together: no memory is spent on others."""
        images = len(self._recalibration[resolution]) + len(self._validation[resolution][0])
        left, positions = self._cache.probation_bytes, []
        for i, block in enumerate(blocks[:-1]):
            left -= images * block.out.n_bytes
            if left < 0:
                break
            positions.append(i)
        return positions

    def _layers_in(self, dtype: torch.dtype) -> SupernetLayers:
        kernels = best_kernels(self._device, dtype)
        return SupernetLayers(self.supernet.network, self.supernet.backbone, kernels, dtype, self._device)

    def _recalibration_groups(self, resolution: int) -> Iterator[Tensor]:
        whole_batches = max(1, self._batch_images(resolution) // RECALIBRATION_BATCH_IMAGES)
        images = self._recalibration[resolution]
        return self._groups(f"recalibration {resolution}", images, whole_batches * RECALIBRATION_BATCH_IMAGES)

    def _validation_groups(self, resolution: int) -> Iterator[Tensor]:
        images = self._validation[resolution][0]
        return self._groups(f"validation {resolution}", images, self._batch_images(resolution))

    def _groups(self, name: str, images: Images, size: int) -> Iterator[Tensor]:
        """The images on the device, channels-last, ``size`` at a time; nobody may write to them."""
        if self._resident is not None:
            if name not in self._resident:
                self._resident[name] = self._sent(images[:])
            yield from torch.split(self._resident[name], size)
            return
        for start in range(0, len(images), size):
            yield self._sent(images[start : start + size])

    def _sent(self, images: FloatArray) -> Tensor:
        group = torch.from_numpy(np.require(images, np.float32, ["C", "W"]))
        return group.to(self._device).contiguous(memory_format=torch.channels_last)

    def _batch_images(self, resolution: int) -> int:
        if self._batch_size is not None:
            return self._batch_size
        total = len(self._validation[resolution][0])
        most = max(1, self._widest_bytes // (_widest(self.supernet.backbone, resolution) * self._dtype.itemsize))
        return math.ceil(total / math.ceil(total / most))  # equal groups: each size is a set of kernels to generate

    def _check_resolution(self, resolution: int) -> None:
        if resolution not in self.resolutions:
            raise ArchitectureError(f"resolution {resolution} has no images, only {self.resolutions} have")


def _recalibrate(
    blocks: Sequence[Block], groups: Iterable[Tensor], keep: Set[int]
) -> tuple[dict[int, list[Tensor]], list[Statistics]]:
    """The outputs by group of the blocks to keep, and the statistics of every convolution, averaged over all images."""
    outputs: dict[int, list[Tensor]] = {i: [] for i in keep}
    sizes: list[int] = []
    found: list[list[Statistics]] = []
    for x in groups:
        statistics: list[Statistics] = []
        sizes.append(len(x))
        for i, block in enumerate(blocks):
            x = block.run([_collecting(c, statistics) for c in block.convolutions], x)
            if i in outputs:  # others are not held: at 224 px all of them are gigabytes
                outputs[i].append(x)
        found.append(statistics)
    share = [n / sum(sizes) for n in sizes]
    return outputs, [average(of_groups, share) for of_groups in zip(*found, strict=True)]


def _collecting(convolution: Convolution, statistics: list[Statistics]) -> Apply:
    def apply(x: Tensor) -> Tensor:
        y, found = convolution.normalise(x, RECALIBRATION_BATCH_IMAGES)
        statistics.append(found)
        return y

    return apply


def _prefixes(resolution: int, blocks: Sequence[Block]) -> list[Key]:
    """For each block but the final expansion: the choices that its output depends on."""
    keys = [resolution, *(block.key for block in blocks[:-1])]
    return [tuple(keys[: i + 1]) for i in range(1, len(keys))]


def exact_arithmetic() -> AbstractContextManager[None]:
    """CuDNN without TF32, which would round float32 convolutions to 10 bits, and with one algorithm every time."""
    flags: Any = torch.backends.cudnn.flags  # untyped in torch
    exact: AbstractContextManager[None] = flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    return exact


def _bytes_of(recalibration: Mapping[int, Images], validation: Mapping[int, tuple[Images, IntArray]]) -> int:
    every = (*recalibration.values(), *(pair[0] for pair in validation.values()))
    return sum(math.prod(images.shape) * torch.float32.itemsize for images in every)


@lru_cache
def _widest(backbone: Backbone, resolution: int) -> int:
    """Elements of the widest activation of the largest subnet, one image."""
    n = STAGES * BLOCKS
    largest = OfaConfig((max(KERNELS),) * n, (max(EXPANSIONS),) * n, (max(DEPTHS),) * STAGES, resolution)
    return max(max(op.mid_c, op.in_c) * op.in_h * op.in_w for op in geometry.operators(largest, backbone))


def _check_images(recalibration: Mapping[int, Images], validation: Mapping[int, tuple[Images, IntArray]]) -> None:
    for resolution, images in (*recalibration.items(), *((r, pair[0]) for r, pair in validation.items())):
        if len(images) == 0 or images.shape[1:] != (3, resolution, resolution):
            raise ValueError(
                f"images of resolution {resolution} must be (n, 3, {resolution}, {resolution}), got {images.shape}"
            )
    for resolution, (images, labels) in validation.items():
        if labels.shape != (len(images),):
            raise ValueError(f"resolution {resolution}: {len(images)} images but labels of shape {labels.shape}")
