"""Importing the Once-for-All package without torchvision.

``ofa`` imports torchvision for ImageNet data loaders that riwoa never uses. The registry's torchvision does not load
beside a CPU build of torch (``operator torchvision::nms does not exist``), and once it has been tried transformers
cannot be imported either. So a placeholder stands in ``sys.modules`` while ``ofa`` is imported, and only then.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from riwoa.errors import OracleError

_PLACEHOLDERS = (
    "torchvision",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.datasets",
)
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Ofa:
    """What riwoa uses of the ``ofa`` package (untyped: the package carries no annotations)."""

    OFAMobileNetV3: Any
    MobileNetV3: Any
    DynamicSeparableConv2d: Any
    IdentityLayer: Any
    set_running_statistics: Any


def import_ofa() -> Ofa:
    """The names riwoa uses of ``ofa``, imported without loading torchvision.

    ``sys.modules`` is left as it was found, besides ``ofa`` itself: a torchvision that somebody had already imported
    is used and stays, and one that nobody had imported is still unimported afterwards.

    Raises:
        OracleError: ``ofa`` is not installed or cannot be imported.
    """
    with _LOCK:
        return _import_ofa()


@cache
def _import_ofa() -> Ofa:
    try:
        with _torchvision_placeholder():
            networks = importlib.import_module("ofa.imagenet_classification.elastic_nn.networks")
            static = importlib.import_module("ofa.imagenet_classification.networks")
            dynamic = importlib.import_module("ofa.imagenet_classification.elastic_nn.modules.dynamic_op")
            utils = importlib.import_module("ofa.imagenet_classification.elastic_nn.utils")
            layers = importlib.import_module("ofa.utils.layers")
    except ImportError as error:
        raise OracleError(
            f"the ofa package cannot be imported ({error}); reinstall riwoa with its dependencies"
        ) from error
    return Ofa(
        OFAMobileNetV3=networks.OFAMobileNetV3,
        MobileNetV3=static.MobileNetV3,
        DynamicSeparableConv2d=dynamic.DynamicSeparableConv2d,
        IdentityLayer=layers.IdentityLayer,
        set_running_statistics=utils.set_running_statistics,
    )


@contextmanager
def _torchvision_placeholder() -> Iterator[None]:
    if "torchvision" in sys.modules:  # somebody's working torchvision: ofa may have it
        yield
        return
    placeholders = {name: _placeholder(name) for name in _PLACEHOLDERS}
    placeholders["torchvision"].__dict__["transforms"] = placeholders["torchvision.transforms"]
    placeholders["torchvision"].__dict__["datasets"] = placeholders["torchvision.datasets"]
    placeholders["torchvision.transforms"].__dict__["functional"] = placeholders["torchvision.transforms.functional"]
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for name, module in placeholders.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _placeholder(name: str) -> ModuleType:
    module = ModuleType(name, "Stands in for torchvision while ofa is imported.")
    # Whoever asks importlib.util.find_spec in the meantime gets a spec rather than a ValueError.
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    # Any name is a class, since ofa derives from torchvision.transforms.RandomResizedCrop.
    module.__dict__["__getattr__"] = lambda attribute: _missing(name, attribute)
    return module


def _missing(module: str, attribute: str) -> type:
    if attribute.startswith("__"):
        raise AttributeError(f"module {module!r} has no attribute {attribute!r}")
    return object
