"""Where a training starts from: the weights of another supernet, all but its classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from riwoa.errors import InputError
from riwoa.supernet.checkpoint import read_checkpoint
from riwoa.supernet.network import Supernet
from riwoa.supernet.published import sha256_of

if TYPE_CHECKING:
    from riwoa.supernet.recipe import Recipe

HEAD = "classifier."  # what the names of its weights begin with
_HEAD_WEIGHT = "classifier.linear.weight"
_FEATURES = 1280  # into the classifier, at width 1


def take_over(net: Any, recipe: Recipe, source: Path) -> None:
    """Give a new supernet the weights of the one at ``source``; its classifier, of other classes, stays new.

    Raises:
        InputError: the file is missing, damaged, not the recipe's, no supernet, or one of another width.
    """
    if recipe.source_sha256 and (found := sha256_of(source)) != recipe.source_sha256:
        raise InputError(
            f"{source} is not the file that this training began from (SHA-256 {found[:12]}..., not "
            f"{recipe.source_sha256[:12]}...); put it back, or start over with --again"
        )
    head = read_checkpoint(source).get(_HEAD_WEIGHT)
    if head is None or head.ndim != 2:
        raise InputError(f"{source} has no {_HEAD_WEIGHT}: it is no Once-for-All MobileNetV3; name another train.start")
    width = head.shape[1] / _FEATURES
    if head.shape[1] != net.classifier.linear.weight.shape[1]:
        raise InputError(
            f"{source} is a supernet of width {width:g}, and one of width {recipe.width_mult:g} is to be trained: "
            f"every layer of theirs differs in size; leave train.width out, or set it to {width:g}"
        )
    # Loaded as a whole, so that a file of which half is missing is refused.
    weights = Supernet.load(source, recipe.width_mult, head.shape[0], recipe.stem).network.state_dict()
    kept = {name: tensor for name, tensor in net.state_dict().items() if name.startswith(HEAD)}
    torch.nn.Module.load_state_dict(net, {**weights, **kept})


def started_from(recipe: Recipe, name: str, source: Path) -> Recipe:
    """The recipe that says where it started, by name and SHA-256."""
    return replace(recipe, source=name, source_sha256=sha256_of(source))
