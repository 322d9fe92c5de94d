"""The supernets that OFA's authors published, by the names of ``ofa.model_zoo``, and riwoa's own. No torch.

``ofa.model_zoo`` itself cannot be asked: importing it wants a download client for a Drive that riwoa does not need.
Their authors publish no checksums, so the first pull records the file's, and every later load verifies it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from riwoa.errors import InputError
from riwoa.files.model_store import SUPERNETS, models_home
from riwoa.files.ownership import opened_file

FOLDER_URL = "https://raw.githubusercontent.com/han-cai/files/master/ofa/ofa_nets/"  # as in ofa.model_zoo.ofa_net
_CLASSES = 1000  # ImageNet's
_RESOLUTIONS_PX = (128, 160, 192, 224)  # of the sizes 128, 132, ..., 224 that they were trained on


@dataclass(frozen=True, slots=True)
class Published:
    """A published MobileNetV3 supernet of the full choices (kernels 3/5/7, expansions 3/4/6, depths 2/3/4)."""

    name: str
    width_mult: float
    n_classes: int = _CLASSES
    resolutions: tuple[int, ...] = _RESOLUTIONS_PX
    shipped: str | None = None  # a file of the package, instead of one to be pulled
    licence: str = "MIT, Once-for-All (Cai et al., 2020)"  # of the weights

    @property
    def url(self) -> str:
        """The address that OFA's own code fetches it from."""
        return FOLDER_URL + self.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """What [oracle] is for it; a configuration may choose other resolutions, and nothing else."""
        fixed = {"width_mult": self.width_mult, "n_classes": self.n_classes, "stem": "imagenet"}
        return {**fixed, "resolutions": self.resolutions}

    @property
    def path(self) -> Path:
        """Where ``riwoactl supernet pull`` puts it, or where it lies in the package."""
        if self.shipped is not None:
            return Path(str(resources.files("riwoa"))) / "data" / self.shipped
        return supernets_home() / f"{self.name}.pth"


PUBLISHED = {
    net.name: net
    for net in (
        Published("ofa_mbv3_d234_e346_k357_w1.0", 1.0),
        Published("ofa_mbv3_d234_e346_k357_w1.2", 1.2),
        # Trained here, for CIFAR-100: its recipe is in its metadata.
        Published("riwoa_cifar100_w0.25", 0.25, 100, (24, 28, 32), "cifar100_supernet.safetensors", "MIT, riwoa"),
    )
}
_OTHER_FAMILIES = {
    "ofa_proxyless_d234_e346_k357_w1.3": "a ProxylessNAS (21 searched blocks, ReLU6, no squeeze-and-excitation)",
    "ofa_resnet50": "a ResNet",
}


def supernets_home() -> Path:
    """Where pulled supernets lie."""
    return models_home() / SUPERNETS


def check_name(checkpoint: str) -> str:
    """Return the setting, unless it names a published supernet that riwoa cannot evaluate.

    Raises:
        ValueError: it does; says which ones it can.
    """
    if checkpoint in _OTHER_FAMILIES:
        raise ValueError(
            f"one of {', '.join(PUBLISHED)}: {checkpoint} is {_OTHER_FAMILIES[checkpoint]}, and riwoa evaluates "
            "Once-for-All MobileNetV3 alone"
        )
    return checkpoint


def published_path(net: Published) -> Path:
    """The pulled file, its content what it was when it was pulled.

    Raises:
        InputError: it was not pulled, or has changed since.
    """
    if not net.path.is_file():
        raise InputError(f"{net.name} is not here; run `riwoactl supernet pull {net.name}`, or put it in {net.path}")
    record = recorded_file(net.path)
    if record.is_file() and sha256_of(net.path) != recorded_sha256(record):
        raise InputError(
            f"{net.path} is not the file whose SHA-256 is in {record.name}: it changed since it was pulled; remove "
            f"both and run `riwoactl supernet pull {net.name}`"
        )
    return net.path


def recorded_file(path: Path) -> Path:
    """Where the SHA-256 of a pulled file is kept, as ``sha256sum`` writes it."""
    return path.with_name(f"{path.name}.sha256")


def recorded_sha256(record: Path) -> str:
    """The recorded SHA-256 of a file; empty where there is none."""
    return (record.read_text(encoding="utf-8", errors="replace").split() or [""])[0]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with opened_file(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror})") from None
