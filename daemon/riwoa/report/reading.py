"""A report read from a journal: of a finished run, or of one that goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from riwoa import __version__
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.runtime import spoken
from riwoa.paths import StatePaths
from riwoa.report.advice import advice_of, commands_of, findings_of
from riwoa.report.course import Course, incidents_of, stopped_s
from riwoa.report.facts import (
    Aim,
    Cloud,
    Cost,
    DriftCheck,
    NodeWork,
    OperatorCredit,
    Report,
    Shadow,
    Since,
    Step,
    Table,
    Visited,
)
from riwoa.report.journal import (
    MOST_SAMPLED,
    objective_of,
    read_columns,
    read_sample,
    read_summaries,
)
from riwoa.report.landscape import Sample, gene_shares, shadow_of, spread_evenly, visited_map
from riwoa.report.learning import learning_of
from riwoa.report.task import task_of
from riwoa.report.winner import device_winners, front_points, used_table, winner_of
from riwoa.run.credit import tallies_from_json, wilson
from riwoa.run.front import chosen_run, read_front
from riwoa.search.fitness import Objective
from riwoa_storage.events import FinalistsTimed, LatencyDrift, NetworkJudged
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationSummary, RunRecord

MOST_CLOUD, MOST_MAPPED = 1_200, 1_200
_CPU_NAME = "model name "
_SEARCHED = ("run", "objective", "search", "cognition")  # sections that hold no address and no secret
_PROVENANCE = (
    "seed",
    "strategy",
    "oracle_version",
    "latency_table_sha256",
    "model",
    "riwoa",
    "versions",
    "oracle",
    "target_ms",
)


def read_report(
    journal: Path, latency_table: Path, run_id: int | None = None, since_unix_s: float | None = None
) -> Report:
    """Everything that is told of a run (the latest).

    Args:
        journal: which may be written meanwhile; an export that lies beside it is told of where it is the winner's.
        latency_table: where the run's lies, if it is still there.
        run_id: another run.
        since_unix_s: from when on it is told apart what happened; None for no such time.

    Raises:
        InputError: no run was begun.
        StorageError: the journal cannot be read, or there is no such run.
    """
    with JournalReader(journal) as reader:
        run = chosen_run(reader, run_id)
        return _Reading(reader, run, latency_table, StatePaths(journal.absolute().parent).export).report(since_unix_s)


class _Reading:
    """What several chapters need of one run, read once."""

    def __init__(self, reader: JournalReader, run: RunRecord, latency_table: Path, export: Path) -> None:
        self._reader = reader
        self._export = export
        self._run = run
        self._summaries = read_summaries(reader, run)
        self._objective = objective_of(run, self._summaries)
        self._course = Course(run, self._summaries)
        self._columns = read_columns(reader, run, self._objective)
        self._front = read_front(reader, run)
        self._table = used_table(latency_table, run.provenance.get("latency_table_sha256"))
        self._sample = read_sample(reader, run, self._columns, self._objective.latency_target_ms)

    def report(self, since_unix_s: float | None) -> Report:
        last = self._summaries[-1] if self._summaries else None
        winner = winner_of(self._reader, self._front, self._table, self._export, self._ties())
        architecture = winner.architecture if winner is not None else {}
        steps = self._steps()
        counters = last.counters if last is not None else {}
        evaluations = int(counters.get("evaluations", 0))
        shown = self._shown(self._sample)
        found = Report(
            run_id=self._run.run_id,
            status=self._run.status,
            made_unix_s=time.time(),
            aim=self._aim(),
            task=task_of(self._reader, self._run),
            cost=self._cost(counters),
            nodes=self._nodes(),
            since=None if since_unix_s is None else self._since(since_unix_s),
            winner=winner,
            devices=device_winners(self._front),
            front=front_points(self._front, self._course.evaluations),
            cloud=self._cloud(),
            steps=steps,
            incidents=incidents_of(self._reader, self._run, self._course),
            shadow=_signed(shadow_of(self._sample, evaluations), self._objective),
            operators=_credit(counters.get("operators", {})),
            learning=learning_of(self._reader, self._run, counters),
            visited=None if shown is None or winner is None else self._map(shown, architecture),
            genes=gene_shares(self._sample, architecture),
            table=_table(self._table, self._reader.events(self._run.run_id, LatencyDrift)),
            advice=(),
            findings=(),
            provenance=self._provenance(),
            commands=(),
            remarks=self._remarks(),
        )
        return replace(found, advice=advice_of(found), findings=findings_of(found), commands=commands_of(found))

    def _shown(self, sample: Sample | None) -> Sample | None:
        """A thinner sample, for the map."""
        if sample is None:
            return None
        at = spread_evenly(len(sample.values), MOST_MAPPED)
        names = ("indices", "values", "latencies_ms", "generations", "uniform")
        return replace(sample, **{name: getattr(sample, name)[at] for name in names})

    def _map(self, sample: Sample, architecture: Any) -> Visited | None:
        found = visited_map(sample, architecture, len(self._columns.values))
        if found is None or not self._objective.lowered:
            return found
        return replace(found, points=tuple((x, y, -value, g) for x, y, value, g in found.points))

    def _aim(self) -> Aim:
        o = self._objective
        journaled = self._run.provenance.get("objective") or {}
        limits = tuple(map(str, o.constraints))
        if o.targets:
            names = ", ".join(target.name for target in o.targets)
            limits += (f"the latency of one device at least, the best for each of {names}",)
        whole, chosen = journaled.get("kind") == "front", journaled.get("latency_ms") == "auto"
        return Aim(o.raised, o.lowered, o.latency_target_ms, limits, whole, chosen)

    def _cost(self, counters: Any) -> Cost:
        return Cost(
            evaluations=int(counters.get("evaluations", 0)),
            failures=int(counters.get("failures", 0)),
            generations=len(self._summaries),
            working_s=self._course.seconds[-1],
            began_unix_s=self._run.created_unix_s,
            ended_unix_s=max((self._course.ended_unix_s, *self._happened())),
            candidates=self._columns.candidates,
            repeats=self._columns.repeats,
            dropped=self._columns.dropped,
            changed=sum(tally.valid for tally in tallies_from_json(counters["operators"]).values())
            if "operators" in counters
            else None,
            stopped_s=stopped_s(self._reader, self._run, self._course),
        )

    def _nodes(self) -> tuple[NodeWork, ...]:
        """Who evaluated, the busiest first."""
        work = self._reader.work_by_worker(str(self._run.provenance.get("oracle_version")), self._run.created_unix_s)
        if set(work) <= {"pool"}:
            return ()
        named = {"this machine" if name == "pool" else name: of for name, of in work.items()}
        return tuple(NodeWork(name, *named[name]) for name in sorted(named, key=lambda name: -named[name][1]))

    def _happened(self) -> list[float]:
        """When the winner was judged and timed, which comes after the last generation."""
        events = (NetworkJudged, FinalistsTimed)
        return [e.created_unix_s for kind in events for e in self._reader.events(self._run.run_id, kind)]

    def _ties(self) -> int | None:
        """How many other networks within the latency target have the winner's value; None where others limits count."""
        leader, target_ms = self._front.leader, self._objective.latency_target_ms
        further = self._objective.constraints or self._objective.targets
        if leader is None or further or not leader["feasible"]:
            return None
        c = self._columns
        equal = np.isclose(c.values, self._objective.value(leader["metrics"]), rtol=1e-12, atol=0.0)
        if target_ms is not None:
            equal &= c.latencies_ms <= target_ms
        return max(0, int(equal.sum()) - 1)

    def _steps(self) -> tuple[Step, ...]:
        """Whenever the leader changed; what the operators were is asked of these alone."""
        new: list[tuple[int, GenerationSummary]] = []
        for at, summary in enumerate(self._summaries):
            if summary.leader is not None and (not new or new[-1][1].leader != summary.leader):
                new.append((at, summary))
        leaders = [summary.leader for _, summary in new if summary.leader is not None]
        places = [(int(leader["generation"]), int(leader["slot"])) for leader in leaders]
        found = {i.place: i.record.operator for i in self._reader.history.individuals_at(self._run.run_id, places)}
        return tuple(
            Step(
                evaluations=self._course.evaluations[at + 1],
                seconds=self._course.seconds[at + 1],
                value=float(leader["metrics"].get(self._objective.raised, 0.0)) if "metrics" in leader else 0.0,
                within=bool(leader.get("feasible")),
                operator=found.get(place, ""),
                place="{}/{}".format(*place),
            )
            for (at, _), leader, place in zip(new, leaders, places, strict=True)
        )

    def _since(self, unix_s: float) -> Since:
        at = self._course.at(unix_s)
        metric = self._objective.raised

        def best(number: int) -> float | None:
            leader = self._summaries[number - 1].leader if number > 0 else None
            return None if leader is None else leader.get("metrics", {}).get(metric)

        return Since(
            unix_s=unix_s,
            evaluations=self._course.evaluations[-1] - self._course.evaluations[at],
            working_s=self._course.seconds[-1] - self._course.seconds[at],
            before=best(at),
            now=best(len(self._summaries)),
        )

    def _cloud(self) -> Cloud:
        c = self._columns
        sign = -1.0 if self._objective.lowered else 1.0
        at = spread_evenly(len(c.values), MOST_CLOUD)
        points = zip(c.latencies_ms[at].tolist(), (sign * c.values[at]).tolist(), strict=True)
        return Cloud(tuple(points), len(c.values))

    def _provenance(self) -> dict[str, Any]:
        p = self._run.provenance
        known = {name: p[name] for name in _PROVENANCE if name in p}
        config = self._reader.config_revisions(self._run.run_id)[-1].config
        searched = {name: config[name] for name in _SEARCHED if name in config}
        latency = self._table.settings if self._table is not None else None
        measured = {} if latency is None else {"latency": {"runtime": spoken(latency), "batch": latency.batch_size}}
        return {**known, **searched, **measured, "digest": self._run.digest, "reported_by": __version__}

    def _remarks(self) -> tuple[str, ...]:
        """What the report leaves out, or could not know."""
        found, count = [], len(self._columns.values)
        if count > min(MOST_CLOUD, MOST_MAPPED):
            found.append(
                f"Of {count:,} candidates the charts show {MOST_CLOUD:,}, evenly spread over the run; "
                "the front and the curve of the best are complete."
            )
        if count > MOST_SAMPLED:
            found.append(f"The linear model of the genes was learned from {MOST_SAMPLED:,} of them.")
        if self._table is None and self._run.provenance.get("latency_table_sha256"):
            found.append("The latency table that the run used is not at hand: layers and the interval are not shown.")
        return tuple(found)


def _signed(shadow: Shadow, objective: Objective) -> Shadow:
    """In the metric's own sign: what is to be made smaller was judged as its negative."""
    if not objective.lowered:
        return shadow

    def turned(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(-value for value in values)

    front = tuple((ms, -value) for ms, value in shadow.front)
    low, middle, high = turned(shadow.high), turned(shadow.middle), turned(shadow.low)
    return replace(shadow, low=low, middle=middle, high=high, front=front)


def _credit(operators: Any) -> tuple[OperatorCredit, ...]:
    """What the operators' proposals brought, those first that won most often."""
    found = []
    for name, tally in tallies_from_json(operators).items():
        low, high = wilson(tally.wins, tally.proposals)
        rate = tally.wins / tally.proposals if tally.proposals else None
        found.append(OperatorCredit(name, tally.proposals, tally.wins, rate, low, high, tally.gain, tally.share))
    return tuple(sorted(found, key=lambda c: (-c.wins, -c.gain, c.proposals, c.operator)))


def _table(table: LatencyTable | None, checks: Sequence[LatencyDrift]) -> Table:
    drift = tuple(DriftCheck(c.created_unix_s, c.verdict, c.networks, tuple(c.affects)) for c in checks)
    if table is None:
        return Table("", "", "", None, None, 0, None, None, None, drift)
    calibration = table.calibration
    load = table.notes.get("load_average")
    return Table(
        device=_hardware(table),
        runtime=spoken(table.settings),
        dtype=table.settings.dtype,
        interval=None if table.interval is None else table.interval.half_width_percent / 100,
        level=None if table.interval is None else table.interval.level,
        networks=calibration.networks,
        rank_correlation=calibration.spearman,
        error_percent=calibration.mean_abs_error_percent,
        load_average=load if isinstance(load, float) else None,
        checks=drift,
    )


def _hardware(table: LatencyTable) -> str:
    """Board, processor and accelerator, those of which there are."""
    cpu = table.device.cpu
    name = next((part.removeprefix(_CPU_NAME) for part in cpu.split(", ") if part.startswith(_CPU_NAME)), cpu)
    gpus = table.device.gpus if table.settings.compute != "cpu" else ()
    return ", ".join(filter(None, (table.device.board, name, *gpus)))
