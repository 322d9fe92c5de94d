"""Follows a run's committed generations and tells a sink of them, at least once each; the journal stays the truth.

It only reads the journal, in a process of its own: a search neither waits for it nor knows of it. How far a sink was
told lies in the state directory, so a process that is started again goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from riwoa.files.ownership import json_object, unwritable
from riwoa.run.limits import journaled_objective
from riwoa.service.sinks import Sink, SinkError, ToldEnd, ToldGeneration, ToldRun
from riwoa_storage.durable import replace_durably
from riwoa_storage.history import RunSummary, architecture_name
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationSummary, Json, RunRecord

CURSORS = "told.json"
_BATCH = 200  # generations told at a time
_COUNTED = ("evaluations", "cache_hits", "failures", "dropped", "replies", "successes")


class Cursor:
    """How many generations of a run a place was told, in a file.

    Args:
        file: holds those of every run and place.
        place: of a sink.
        key: of a run.
    """

    def __init__(self, file: Path, place: str, key: str) -> None:
        self._file = file
        self._name = f"{key} {place}"
        found: Any = json_object(file).get(self._name)
        self.next, self.is_over = (int(found["next"]), bool(found["over"])) if _is_cursor(found) else (0, False)

    def move(self, to: int, *, is_over: bool = False) -> None:
        """Keep how far it is.

        Raises:
            StateDirectoryError, FullDiskError: it cannot be written.
        """
        self.next, self.is_over = to, is_over
        content = {**json_object(self._file), self._name: {"next": to, "over": is_over}}
        try:
            replace_durably(self._file, json.dumps(content, indent=1).encode())
        except OSError as error:
            raise unwritable(self._file, error, "run it as the user whose state directory that is") from None


def _is_cursor(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("next"), int) and "over" in found


class Follower:
    """Tells one sink of one run, from where an earlier process stopped; a context that closes the sink.

    Args:
        journal: of the state directory; opened for each look, for it may be compacted or restored in between.
        run_id: of the run.
        sink: opened.

    Raises:
        SinkError: the sink could not be told that the run has begun.
    """

    def __init__(self, journal: Path, run_id: int, sink: Sink) -> None:
        self._journal = journal
        self._run_id = run_id
        self._sink = sink
        with JournalReader(journal) as reader:
            run = _told_run(reader, run_id)
        self._cursor = Cursor(journal.with_name(CURSORS), sink.place, run.key)
        self.told, self.is_over = self._cursor.next, self._cursor.is_over
        if not self.is_over:
            sink.begin(run)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._sink.close()
        except SinkError:
            if kind is None:
                raise
            return
        self._keep()

    def look(self) -> bool:
        """Tell what is new; whether the run is over, and all of it told.

        Raises:
            SinkError: the sink could not be told; the next look tells it again.
            StorageError: the journal cannot be read.
        """
        with JournalReader(self._journal) as reader:
            while not self.is_over:
                run = _summary(reader, self._run_id)
                batch = list(reader.history.generations(self._run_id, self.told, _BATCH))
                if batch:
                    self._sink.put([_told_generation(run, one) for one in batch])
                    self.told = batch[-1].generation + 1
                elif run.record.status != "running":
                    self._sink.end(_told_end(run))
                    self.is_over = True
                else:
                    break
                if self._sink.is_durable:
                    self._keep()
        return self.is_over

    def _keep(self) -> None:
        if (self._cursor.next, self._cursor.is_over) != (self.told, self.is_over):
            self._cursor.move(self.told, is_over=self.is_over)


# -- what is told ------------------------------------------------------------------------------------------------------


def _summary(reader: JournalReader, run_id: int) -> RunSummary:
    found = reader.history.run(run_id)
    assert found is not None, "a run is never removed"
    return found


def _told_run(reader: JournalReader, run_id: int) -> ToldRun:
    run = _summary(reader, run_id).record
    names = ("seed", "strategy", "model", "oracle_version", "latency_table_sha256", "riwoa")
    tags = {f"riwoa.{name}": str(run.provenance[name]) for name in names if run.provenance.get(name) is not None}
    settings = dict(_dotted("", reader.config_revisions(run_id)[0].config))
    return ToldRun(run_key(run), f"riwoa run {run_id}", settings, tags)


def run_key(run: RunRecord) -> str:
    """The same for the same run of the same journal, whoever reads it."""
    known = json.dumps([run.run_id, run.created_unix_s, run.provenance], sort_keys=True)
    return sha256(known.encode()).hexdigest()[:16]


def _dotted(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _dotted(f"{prefix}{key}.", inner)
        else:
            yield f"{prefix}{key}", inner


def _told_generation(run: RunSummary, one: GenerationSummary) -> ToldGeneration:
    found = {**_best(run, one.leader), **{name: one.counters.get(name) for name in _COUNTED}}
    return ToldGeneration(one.generation, one.committed_unix_s, _numbers({**found, "generation_s": one.duration_s}))


def _told_end(run: RunSummary) -> ToldEnd:
    metrics = {**_best(run, run.leader), "evaluations": run.evaluations}
    if run.test is not None:
        metrics |= {"test_accuracy": run.test.accuracy, "test_accuracy_error": run.test.accuracy_error}
    tags = {"riwoa.digest": run.record.digest}
    if run.leader is not None and "architecture_key" in run.leader:
        tags["riwoa.winner"] = architecture_name(run.leader["architecture_key"])
    return ToldEnd(run.record.status == "finished", _numbers(metrics), tags)


def _best(run: RunSummary, leader: Json | None) -> dict[str, Any]:
    """The best so far: what is optimised, its latency, its fitness, and whether it keeps the limits."""
    if leader is None:
        return {}
    metric = journaled_objective(run.record.provenance, leader.get("target_ms")).raised
    metrics = {f"best_{name}": leader["metrics"].get(name) for name in (metric, "latency_ms")}
    return {**metrics, "best_fitness": leader.get("fitness"), "best_within_limits": leader.get("feasible")}


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """What is a finite number of it."""
    known = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
    return {name: value for name, value in known.items() if math.isfinite(value)}
