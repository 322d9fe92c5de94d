"""The subnets of a supernet as a landscape: accuracies measured for real, latencies of a table, times in seconds.

Every evaluation is kept in a file of JSON lines with the seconds that it took, keyed by oracle version and
architecture. A search is a function of its seed and of these numbers, so another strategy, or a changed one, pays only
for architectures that nobody met before. A kept evaluation still counts, as a query and with the seconds of when it was
measured. What subnets share is shared then (``riwoa.supernet.prefix_cache``), as it would be in a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.bench.landscape import Measured, Plain
from riwoa.files.results import ResultFile
from riwoa.hardware.lut import LatencyTable
from riwoa.oracle.protocol import CandidateError, Oracle
from riwoa.run.task import KeptLatencies
from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space
from riwoa.supernet.space import mobilenet_space, ofa_config

Architecture = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured of a subnet: ``accuracy`` is a fraction, NaN where it has none."""

    accuracy: float
    seconds: float


class EvaluationFile:
    """Evaluations that were made before, by oracle version and architecture.

    Lines of older versions, which hold no seconds, are passed over.

    Raises:
        UsageError, StateDirectoryError: as ``ResultFile``.
    """

    def __init__(self, path: Path) -> None:
        self._file = ResultFile(path, "evaluations of a benchmark", b'{"oracle_version": "')
        self._known: dict[tuple[str, str], Evaluation] = {}
        for row in self._file.rows():
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a line of something else
                evaluation = Evaluation(float(row["accuracy"]), float(row["seconds"]))
                self._known[row["oracle_version"], row["key"]] = evaluation

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def get(self, version: str, key: str) -> Evaluation | None:
        """The evaluation, if it is known."""
        return self._known.get((version, key))

    def put(self, version: str, key: str, architecture: Architecture, evaluation: Evaluation) -> None:
        """Keep an evaluation, durably."""
        self._known[version, key] = evaluation
        row = {"oracle_version": version, "key": key, "architecture": dict(architecture)}
        self._file.append({**row, "accuracy": evaluation.accuracy, "seconds": evaluation.seconds})


class Evaluator:
    """Evaluations by an oracle, which is made when it is first needed; none that the file holds is made again.

    Args:
        make: the oracle.
        file: keeps what it says.
    """

    def __init__(self, make: Callable[[], Oracle], file: EvaluationFile) -> None:
        self._make = make
        self._file = file
        self.measured = 0

    @cached_property
    def oracle(self) -> Oracle:
        """Who evaluates.

        Raises:
            RiwoaError: it cannot be made.
        """
        return self._make()

    def evaluation(self, key: str, architecture: Architecture) -> Evaluation:
        """The evaluation of an architecture; one that failed is not kept.

        Raises:
            RiwoaError: the oracle cannot be made, or the file cannot be written.
        """
        known = self._file.get(self.oracle.version, key)
        if known is not None:
            return known
        started_s = time.perf_counter()
        try:
            accuracy = float(self.oracle.evaluate(architecture)["accuracy"])
        except (CandidateError, ValueError):  # of this architecture: its logits are not finite, for one
            return Evaluation(math.nan, time.perf_counter() - started_s)
        found = Evaluation(accuracy, time.perf_counter() - started_s)
        self._file.put(self.oracle.version, key, architecture, found)
        self.measured += 1
        return found


class SubnetLandscape(Plain):
    """Accuracies in per cent, and latencies in milliseconds.

    Args:
        evaluator: on the pictures that a search is judged by.
        judge: on the test pictures.
        table: latencies.
        aim: with the target.
        resolutions: of the space.
    """

    time_unit = "s"
    own_time_counts = True

    def __init__(
        self, evaluator: Evaluator, judge: Evaluator, table: LatencyTable, aim: Objective, resolutions: tuple[int, ...]
    ) -> None:
        self.evaluator = evaluator
        self.table = table
        self.space: Space = mobilenet_space(resolutions)
        self.aim = aim
        self.resolutions = resolutions
        self.judge = judge
        self._latency_ms = KeptLatencies(self.space, lambda a: table.latency_ms(ofa_config(a)))
        self._seconds: dict[int, float] = {}  # of what was measured

    @cached_property
    def key(self) -> str:
        """See ``Landscape``."""
        facts = [self.evaluator.oracle.version, self.table.sha256, self.aim.version, self.space.to_json()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def measure(self, indices: IntArray) -> Measured:
        """See ``Landscape``; the row is the architecture's number in the space."""
        row = self.number(indices)
        found = self.evaluator.evaluation(self.space.key(indices), self.space.architecture(indices))
        self._seconds[row] = found.seconds
        return Measured(100.0 * found.accuracy, self.free_load(indices), row)

    def free_load(self, indices: IntArray) -> float:
        """See ``Landscape``."""
        return self._latency_ms(indices)

    def layers_ms(self, architecture: Architecture) -> Mapping[str, float]:
        """Latencies of an architecture's blocks."""
        return self.table.layers_ms(ofa_config(architecture))

    def time_of(self, measured: Measured) -> float:
        """See ``Landscape``."""
        assert measured.row is not None
        return self._seconds[measured.row]

    def report(self, row: int) -> float:
        """Accuracy on the test pictures, in per cent."""
        indices = self.indices(row)
        return 100.0 * self.judge.evaluation(self.space.key(indices), self.space.architecture(indices)).accuracy

    def number(self, indices: IntArray) -> int:
        """An architecture's number: its canonical indices, -1 included, as digits."""
        number = 0
        for index, choices in zip(indices.tolist(), self.space.cardinalities.tolist(), strict=True):
            number = number * (choices + 1) + index + 1
        return number

    def indices(self, number: int) -> IntArray:
        """The canonical indices of a number."""
        digits = []
        for choices in reversed(self.space.cardinalities.tolist()):
            number, digit = divmod(number, choices + 1)
            digits.append(digit - 1)
        return np.array(digits[::-1], dtype=np.int64)
