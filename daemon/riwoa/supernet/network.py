"""The Once-for-All supernet: a checkpoint in OFA's format, and the subnets in it.

Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riwoa.errors import InputError
from riwoa.supernet.checkpoint import read_checkpoint
from riwoa.supernet.geometry import Backbone, Stem
from riwoa.supernet.ofa_import import import_ofa
from riwoa.supernet.space import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, STAGES, OfaConfig, ofa_config


class ArchitectureError(ValueError):
    """An architecture that the supernet does not contain; the message names the choice."""


class Supernet:
    """An ``OFAMobileNetV3`` with its weights.

    Not thread-safe: extracting a subnet sets the network's active choices for a moment.
    """

    def __init__(self, network: nn.Module, backbone: Backbone) -> None:
        self.network: Any = network.eval()
        self.backbone = backbone

    @classmethod
    def load(cls, path: Path, width_mult: float, n_classes: int, stem: Stem = "imagenet") -> Supernet:
        """The supernet of a checkpoint in OFA's format.

        Args:
            path: weights as ``read_checkpoint`` finds them; OFA's older key names are accepted, and half precision,
                which becomes float32.
            width_mult: width multiplier that the checkpoint was trained with.
            n_classes: classes of its classifier.
            stem: the strides that it was trained with.

        Raises:
            InputError: the file is missing, damaged, of another network, or holds weights that are not finite.
        """
        backbone = Backbone(width_mult, n_classes, stem)
        weights = read_checkpoint(path)
        _refuse_non_finite(weights, path)
        network = build_network(backbone)
        _load_whole(network, weights, path, backbone)
        return cls(network, backbone)

    def get_net_for_config(self, config: OfaConfig | Mapping[str, Any]) -> nn.Module:
        """The standalone subnet of an architecture: OFA's ``get_active_subnet``, weights copied, BatchNorm as trained.

        Its BatchNorm statistics are the supernet's: recalibrate before measuring accuracy. The supernet's own active
        choices are as before when this returns.

        Args:
            config: OFA's form, or an architecture object of the space.

        Raises:
            ArchitectureError: the supernet has no such choice.
        """
        with self._active(checked_config(config)):
            subnet: nn.Module = self.network.get_active_subnet(preserve_weight=True)
        return subnet.eval()

    def weights_sha256(self) -> str:
        """Hash of every weight's name, shape and value; the same whatever container they were read from."""
        return weights_sha256(self.network)

    @contextmanager
    def _active(self, config: OfaConfig) -> Iterator[None]:
        blocks = [block.conv for block in self.network.blocks[1:]]
        before = ([b.active_kernel_size for b in blocks], [b.active_expand_ratio for b in blocks])
        depths = list(self.network.runtime_depth)
        self.network.set_active_subnet(ks=list(config.ks), e=list(config.e), d=list(config.d))
        try:
            yield
        finally:
            self.network.set_active_subnet(ks=before[0], e=before[1], d=depths)


def weights_sha256(network: nn.Module) -> str:
    """Hash of every weight's name, shape and value."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def build_network(backbone: Backbone, seed: int = 0) -> nn.Module:
    """A freshly initialised ``OFAMobileNetV3`` of the full kernel, expansion and depth choices, in evaluation mode.

    Random initialisation uses ``seed`` alone and leaves torch's global generator as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = import_ofa().OFAMobileNetV3(
            n_classes=backbone.n_classes,
            dropout_rate=0,
            width_mult=backbone.width_mult,
            ks_list=list(KERNELS),
            expand_ratio_list=list(EXPANSIONS),
            depth_list=list(DEPTHS),
        )
    set_strides(network, backbone)
    return network.eval()


def set_strides(network: Any, backbone: Backbone) -> None:
    """Give OFA's class, whose strides are fixed, those of the backbone; its own are left as they are.

    No weight depends on a stride. The first block of a stage has a shortcut by the rule of OFA's constructor: where
    neither size nor width changes.
    """
    stem, _, *stages = backbone.strides
    network.first_conv.stride = stem
    network.first_conv.conv.stride = (stem, stem)
    for (first, *_), stride in zip(network.block_group_info, stages, strict=True):
        block = network.blocks[first]
        conv = block.conv
        conv.stride = conv.depth_conv.conv.stride = stride
        conv.depth_conv.conv.conv.stride = (stride, stride)
        keeps_shape = stride == 1 and conv.in_channels == conv.out_channels
        block.shortcut = import_ofa().IdentityLayer(conv.in_channels, conv.in_channels) if keeps_shape else None


def checked_config(config: OfaConfig | Mapping[str, Any]) -> OfaConfig:
    """OFA's form of an architecture, every choice one that the supernet has.

    Raises:
        ArchitectureError: a kernel, expansion or depth is none of the supernet's, or one is missing.
    """
    if not isinstance(config, OfaConfig):
        try:
            config = ofa_config(config)
        except (KeyError, TypeError, ValueError) as error:
            raise ArchitectureError(f"not an architecture of the Once-for-All space: {error!r}") from error
    genes = (
        ("kernel", config.ks, KERNELS, STAGES * BLOCKS),
        ("expansion", config.e, EXPANSIONS, STAGES * BLOCKS),
        ("depth", config.d, DEPTHS, STAGES),
    )
    for gene, values, choices, count in genes:
        if len(values) != count:
            raise ArchitectureError(f"{gene}: {len(values)} values, the Once-for-All space has {count}")
        wrong = [value for value in values if value not in choices]
        if wrong:
            raise ArchitectureError(f"{gene} {wrong[0]} is none of the supernet's {choices}")
    return config


def _refuse_non_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"checkpoint {path}: weight {name} is not finite; its training diverged, train it again")


def _load_whole(network: nn.Module, weights: Mapping[str, Tensor], path: Path, backbone: Backbone) -> None:
    """Load through OFA's own key variants, and refuse what OFA lets pass: weights that are missing.

    OFA starts from the network's own values and overwrites those it finds, so a half checkpoint would load silently
    with random weights in the other half. Values that are not a number beforehand show which were never written.
    """
    state = network.state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
    expected = f"a Once-for-All MobileNetV3 of width {backbone.width_mult} and {backbone.n_classes} classes"
    hint = f"the checkpoint must be {expected} (kernels 3/5/7, expansions 3/4/6, depths 2/3/4)"
    try:
        network.load_state_dict(weights)
    except (AssertionError, ValueError, KeyError) as error:
        raise InputError(f"checkpoint {path}: unknown weight {str(error) or '(unnamed)'}; {hint}") from error
    except RuntimeError as error:
        mismatch = next((line.strip() for line in str(error).splitlines() if "mismatch" in line), str(error)[:200])
        raise InputError(f"checkpoint {path}: {mismatch.rstrip('.')}; {hint}") from error
    missing = [n for n, t in network.state_dict().items() if t.is_floating_point() and bool(torch.isnan(t).any())]
    if missing:
        raise InputError(f"checkpoint {path}: {len(missing)} weights are missing, the first is {missing[0]}; {hint}")
