"""Correct answers of finished networks on corrupted test images, kept by the line so that a kill costs one count."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from riwoa.datasets.arrays import ByteArray, IntArray, standardise
from riwoa.files.results import ResultFile
from riwoa.supernet.finetuning import answers
from riwoa.validate.corrupted import UNITS, Corrupted, CorruptedSet
from riwoa.validate.corruptions import CORRUPTIONS, SEVERITIES
from riwoa.validate.retrain import Folder, load_network, read_result

if TYPE_CHECKING:
    from riwoa.datasets.catalogue import ImageTask

Advance = Callable[[int, int, str], None]  # done, of how many, what
_BLOCK_IMAGES = 1000  # that become floats together


@dataclass(frozen=True, slots=True)
class FinishedNetwork:
    """A network to be judged, and what turns bytes into its input."""

    module: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resolution: int
    device: torch.device
    weights_sha256: str

    @classmethod
    def load(cls, folder: Folder, task: ImageTask, device: torch.device) -> FinishedNetwork:
        """The network of a folder.

        Raises:
            InputError: a file is missing or damaged.
        """
        result = read_result(folder)
        resolution, sha256 = int(result["resolution"]), str(result["weights_sha256"])
        return cls(load_network(folder, device), task.mean, task.std, resolution, device, sha256)

    def count_correct(self, pixels: ByteArray, labels: IntArray) -> int:
        """How many pictures (n, s, s, 3) it reads right, in float32; resized by area, as the search's were."""
        total = 0
        for start in range(0, len(pixels), _BLOCK_IMAGES):
            part = slice(start, start + _BLOCK_IMAGES)
            images = standardise(pixels[part], self.mean, self.std, self.resolution)
            total += int(answers(self.module, images, labels[part], self.device).sum())
        return total


class Counts:
    """Correct answers by corruption, severity and weights; lines about other pictures (``facts``) are passed over.

    Raises:
        UsageError, StateDirectoryError: as ``ResultFile``.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)
        self._file = ResultFile(path, "counts of correct answers", b'{"corruption": "')
        self._known: dict[tuple[str, int, str], int] = {}
        for row in self._file.rows():
            with contextlib.suppress(KeyError, TypeError):  # a line of something else
                if row["of"] == self._facts:
                    self._known[row["corruption"], row["severity"], row["weights_sha256"]] = row["correct"]

    def get(self, corruption: str, severity: int, weights_sha256: str) -> int | None:
        """The count; None where it is not known."""
        return self._known.get((corruption, severity, weights_sha256))

    def known(self, corruption: str, severity: int, weights_sha256: str) -> int:
        """The count.

        Raises:
            KeyError: it is not known.
        """
        return self._known[corruption, severity, weights_sha256]

    def put(self, one: Corrupted, weights_sha256: str, correct: int) -> None:
        """Keep a count, durably."""
        corruption, severity = one.unit
        row = {"corruption": corruption, "severity": severity, "weights_sha256": weights_sha256, "correct": correct}
        self._file.append({**row, "of": self._facts})
        self._known[corruption, severity, weights_sha256] = correct

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def count_all(
    corrupted: CorruptedSet, networks: Mapping[str, FinishedNetwork], counts: Counts, jobs: int, advance: Advance
) -> dict[str, dict[str, list[int]]]:
    """Correct answers by network and corruption, a number a severity; only what ``counts`` lacks is counted."""
    weights = {name: network.weights_sha256 for name, network in networks.items()}
    left = [unit for unit in UNITS if any(counts.get(*unit, sha) is None for sha in weights.values())]
    for done, one in enumerate(corrupted.each(left, jobs)):
        for network in networks.values():
            if counts.get(*one.unit, network.weights_sha256) is None:
                counts.put(one, network.weights_sha256, network.count_correct(one.images, one.labels))
        advance(len(UNITS) - len(left) + done + 1, len(UNITS), "{} {}".format(*one.unit))
    return {
        name: {c: [counts.known(c, severity, sha) for severity in SEVERITIES] for c in CORRUPTIONS}
        for name, sha in weights.items()
    }
