"""What a new run knows from the earlier runs of its journal, pinned so that a resumed run knows exactly the same.

An accuracy depends on neither target nor device: an evaluation of the same oracle is knowledge, whichever run made it
(the newest 5,000 are). It counts as none of this run's. Evaluations by another oracle (other pictures, a newer library)
are a hint, which is followed while it predicts (``riwoa.surrogate.related``); its space needs the same genes, and what
lies in this run's space counts.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.errors import ConfigError
from riwoa.run.task import KeptTargetLoads, SearchTask
from riwoa.search.driver import lesson
from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space, SpaceError
from riwoa.search.targets import in_turns, with_told
from riwoa.surrogate.gaussian_process import Examples
from riwoa_storage.events import MemoryInherited
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import EvaluationRecord, Json, RunRecord

MOST = 5000  # evaluations of an oracle that are remembered, the newest
MOST_RELATED = 3  # other oracles, those of the most evaluations
FEWEST_RELATED = 10  # evaluations of one that are worth a look
START = 10  # of the best that are known, of whom half of the first generation are


@dataclass(frozen=True, slots=True)
class Lessons:
    """What an oracle's evaluations say: values as a predictor of this run learns them, first seen first."""

    oracle_version: str
    runs: tuple[int, ...]
    examples: Examples

    def said(self) -> dict[str, Any]:
        """As provenance names it."""
        return {"oracle_version": self.oracle_version, "evaluations": len(self.examples), "runs": list(self.runs)}

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        found = self.examples
        return {**self.said(), "indices": _text(found.indices, "<i4"), "values": _text(found.accuracies, "<f8")}

    @classmethod
    def from_json(cls, space: Space, data: Mapping[str, Any]) -> Lessons:
        """What ``to_json`` gave."""
        indices = _array(data["indices"], "<i4").astype(np.int64).reshape(-1, len(space))
        examples = Examples(space, indices, _array(data["values"], "<f8").astype(np.float64))
        return cls(str(data["oracle_version"]), tuple(data["runs"]), examples)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a run knows as it begins.

    Attributes:
        known: of its own oracle.
        related: of other oracles of its space.
        start: whom to evaluate first: the best of these by this run's objective, canonical indices (n, genes).
        left_out: why something was not taken, a line each.
        is_journaled: whether the run has it written down.
    """

    known: Lessons
    related: tuple[Lessons, ...]
    start: IntArray
    left_out: tuple[str, ...] = ()
    is_journaled: bool = False

    @property
    def sha256(self) -> str:
        """Hash of all that a search makes of it."""
        hashes = [self.known.examples.sha256, *(r.examples.sha256 for r in self.related)]
        return hashlib.sha256("\n".join(hashes).encode() + self.start.astype("<i8").tobytes()).hexdigest()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known."""
        return not len(self.known.examples) and not self.related

    def provenance(self) -> dict[str, Any]:
        """As the run's record names it."""
        told = self.known.said()
        del told["oracle_version"]  # the run's own
        return {"sha256": self.sha256, **told, "related": [r.said() for r in self.related]}

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        related = [r.to_json() for r in self.related]
        return {"known": self.known.to_json(), "related": related, "start": self.start.tolist()}

    @classmethod
    def from_json(cls, space: Space, data: Mapping[str, Any]) -> Memory:
        """What ``to_json`` gave."""
        start = np.array(data["start"], dtype=np.int64).reshape(-1, len(space))
        related = tuple(Lessons.from_json(space, r) for r in data["related"])
        return cls(Lessons.from_json(space, data["known"]), related, start, is_journaled=True)

    @property
    def words(self) -> str:
        """In a line, for people."""
        return words(self.provenance())


def words(provenance: Mapping[str, Any]) -> str:
    """What a run's record says of its memory, in a line."""
    parts = []
    if count := provenance["evaluations"]:
        parts.append(f"{_count(count)} of {named_runs(provenance['runs'])}")
    for other in provenance["related"]:
        parts.append(f"{_count(other['evaluations'])} of {named_runs(other['runs'])} by another oracle, as a hint")
    return f"{'; '.join(parts)} ({provenance['sha256'][:12]})"


def _count(evaluations: int) -> str:
    return f"{evaluations} evaluation{'s' if evaluations > 1 else ''}"


def named_runs(numbers: Sequence[int]) -> str:
    """Runs by their numbers, ascending, in words."""
    named = ", ".join(map(str, numbers)) if len(numbers) <= 3 else f"{numbers[0]} to {numbers[-1]}"
    return f"run{'s' if len(numbers) > 1 else ''} {named}"


def memory_of(
    reader: JournalReader, run: RunRecord | None, task: SearchTask, objective: Objective, oracle_version: str
) -> Memory | None:
    """What a new run is to know (``run`` None), or what the one that is continued knew when it began; None for nothing.

    Args:
        reader: of the journal.
        run: that is continued.
        task: of the run.
        objective: of the run; the best by it are evaluated first.
        oracle_version: of the run.

    Raises:
        ConfigError: the journal no longer has what the run was begun with.
    """
    if run is None:
        found = _Remembering(reader, reader.runs(), task, objective).memory(oracle_version)
        return None if found.is_empty else found
    told = run.provenance.get("memory")
    if told is None:
        return None
    written = reader.events(run.run_id, MemoryInherited)
    if written:
        found = _read(run, task.space, written[0].content)
    else:  # killed before that was written, and before anything was evaluated
        before = [r for r in reader.runs() if r.run_id < run.run_id]
        found = _Remembering(reader, before, task, objective).memory(oracle_version)
    if found.sha256 != told["sha256"]:
        raise _not_the_same(run, "its hash is another")
    return found


def _read(run: RunRecord, space: Space, content: Json) -> Memory:
    try:
        return Memory.from_json(space, content)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise _not_the_same(run, " ".join(str(error).split())) from None


def _not_the_same(run: RunRecord, reason: str) -> ConfigError:
    return ConfigError(
        f"run {run.run_id} was begun with evaluations of earlier runs that the journal no longer has ({reason}); "
        "restore a backup or use --new-run"
    )


class _Remembering:
    """Reads what runs have evaluated, as one more run would judge it."""

    def __init__(
        self, reader: JournalReader, runs: Sequence[RunRecord], task: SearchTask, objective: Objective
    ) -> None:
        self._reader = reader
        self._runs = runs
        self._task = task
        self._objective = objective
        self._left_out: list[str] = []

    def memory(self, oracle_version: str) -> Memory:
        """Of the same oracle, and of others of the space."""
        known, best = self._lessons(oracle_version, [r for r in self._runs if _version(r) == oracle_version])
        related = []
        for version, runs in self._others(oracle_version).items():
            lessons, its_best = self._lessons(version, runs)
            if len(lessons.examples) >= FEWEST_RELATED:
                related.append((lessons, its_best))
        related = sorted(related, key=lambda r: -len(r[0].examples))[:MOST_RELATED]
        start = dict.fromkeys(map(tuple, itertools.chain(best.tolist(), *(b.tolist() for _, b in related))))
        rows = np.array(list(start)[:START], dtype=np.int64).reshape(-1, len(self._task.space))
        return Memory(known, tuple(lessons for lessons, _ in related), rows, tuple(self._left_out))

    def _others(self, oracle_version: str) -> dict[str, list[RunRecord]]:
        """The runs of the space's genes by other oracles, by their versions."""
        genes, found = [gene.name for gene in self._task.space.genes], dict[str, list[RunRecord]]()
        for run in self._runs:
            if _version(run) == oracle_version:
                continue
            if _genes(run) == genes:
                found.setdefault(_version(run), []).append(run)
            else:
                self._left_out.append(f"run {run.run_id} searched other genes by another oracle")
        return found

    def _lessons(self, oracle_version: str, runs: Sequence[RunRecord]) -> tuple[Lessons, IntArray]:
        """What the evaluations of an oracle say, and the best of them, canonical indices (n, genes)."""
        rows: list[tuple[IntArray, float, float, float]] = []
        elsewhere = 0
        for record in self._reader.evaluations(oracle_version, lambda e: self._left_out.append(str(e))):
            try:
                row = self._row(record)
            except SpaceError:
                elsewhere += 1
                continue
            if row is not None:
                rows.append(row)
        if elsewhere:
            whose = named_runs([r.run_id for r in runs])
            self._left_out.append(f"{_count(elsewhere)} of {whose} outside the space")
        rows = rows[-MOST:]
        columns = [np.array([row[k] for row in rows], dtype=np.float64) for k in (1, 2, 3)]
        space = self._task.space
        indices = np.array([row[0] for row in rows], dtype=np.int64).reshape(-1, len(space))
        order = self._objective.survival(columns[1], columns[2])
        if self._objective.targets and len(rows):
            loads = with_told(KeptTargetLoads(self._task, self._objective)(indices), columns[2])
            order = in_turns(columns[1], loads, order)
        lessons = Lessons(oracle_version, tuple(r.run_id for r in runs), Examples(space, indices, columns[0]))
        return lessons, indices[order[:START]]

    def _row(self, record: EvaluationRecord) -> tuple[IntArray, float, float, float] | None:
        """Indices, lesson, value and load; None where this run's objective cannot judge it.

        Raises:
            SpaceError: it lies outside the space.
        """
        indices = self._task.space.indices(record.architecture)
        known = self._task.known_metrics(record.architecture, self._objective)
        metrics = {**record.metrics, **known}
        needed = [metrics.get(name) for name in self._objective.metrics]
        if record.status != "ok" or not all(isinstance(m, int | float) and math.isfinite(m) for m in needed):
            return None
        value, load = self._objective.standing(metrics)
        return indices, lesson(self._objective, value, load, self._objective.known_load(known)), value, load


def _genes(run: RunRecord) -> list[str]:
    space = run.provenance.get("space") or {}
    return [str(gene["name"]) for gene in space.get("genes", ())]


def _version(run: RunRecord) -> str:
    return str(run.provenance["oracle_version"])


def with_memory(task: SearchTask, memory: Memory) -> SearchTask:
    """The task of a run that knows this; of what a predictor's file knows too, the evaluations count."""
    examples, file = memory.known.examples, task.prior
    if file is not None:
        known = {row.tobytes() for row in examples.indices}
        more = file.rows(np.array([row.tobytes() not in known for row in file.indices], dtype=np.bool_))
        accuracies = np.concatenate((more.accuracies, examples.accuracies))
        examples = Examples(task.space, np.concatenate((more.indices, examples.indices)), accuracies)
    related = tuple(lessons.examples for lessons in memory.related)
    return replace(task, prior=examples, related=related, start=memory.start if len(memory.start) else None)


def _text(values: npt.NDArray[Any], dtype: str) -> str:
    return base64.b64encode(zlib.compress(values.astype(dtype).tobytes())).decode("ascii")


def _array(text: str, dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype=dtype)
