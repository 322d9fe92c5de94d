"""``riwoactl pareto``: the non-dominated networks of the latest run, from the journal alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit
from riwoa.errors import InputError
from riwoa.hardware.interval import advice, interval_of, plus_minus
from riwoa.oracle.protocol import accuracy_error
from riwoa.paths import client_state
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa.text import printable
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord, RunRecord

_DESCRIPTION = """The networks that no other of the run beats in both accuracy and latency, fastest first. A star marks
the leader: the best within the latency target, as soon as one is. Read from the journal; the daemon need not run."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the front."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("--run", type=int, metavar="ID", help="the run (default: the latest)")
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    data = pareto_front(paths.journal, given.run, paths.latency_table)
    emit(options, data, render(data))
    return 0


def pareto_front(journal: Path, run_id: int | None = None, latency_table: Path | None = None) -> dict[str, Any]:
    """The front of a run as a JSON object, with its leader and latency target.

    Args:
        journal: of the run.
        run_id: the latest by default.
        latency_table: which may tell how wide its latencies' interval is.

    Raises:
        StorageError: the journal or the run is missing, or damaged.
        InputError: no run was begun.
    """
    with JournalReader(journal) as reader:
        record = chosen_run(reader, run_id)
        archive, known = ParetoArchive(), dict[str, IndividualRecord]()
        for generation, individual in reader.individuals(record.run_id):
            accuracy, latency_ms = (individual.metrics.get(name) for name in ("accuracy", "latency_ms"))
            if individual.status != "ok" or accuracy is None or latency_ms is None:
                continue
            point = ParetoPoint(individual.architecture_key, accuracy, latency_ms, (generation, individual.slot))
            if archive.add(point):
                known[point.key] = individual
        last = reader.last_generation(record.run_id)
    leader = last.leader if last else None
    leader_key = leader["architecture_key"] if leader else None
    return {
        "run_id": record.run_id,
        "digest": record.digest,
        "generations": record.generations,
        "target_ms": leader.get("target_ms") if leader else None,
        "leader": leader,
        "leader_accuracy_error": accuracy_error(leader["metrics"], record.provenance.get("oracle", {}))
        if leader
        else None,
        "latency_interval": interval_of(latency_table, record.provenance.get("latency_table_sha256"))
        if latency_table is not None
        else None,
        "front": [_row(point, known[point.key], leader_key) for point in archive.front()],
    }


def chosen_run(reader: JournalReader, run_id: int | None) -> RunRecord:
    """The named run, or the latest.

    Raises:
        JournalMissingError: there is no such run.
        InputError: no run was begun.
    """
    record = reader.run(run_id) if run_id is not None else reader.latest_run()
    if record is None:
        raise InputError(f"{reader.name} holds no run yet; start riwoad (or make run) first")
    return record


def _row(point: ParetoPoint, individual: IndividualRecord, leader_key: str | None) -> dict[str, Any]:
    return {
        "architecture_key": point.key,
        "accuracy": point.accuracy,
        "latency_ms": point.latency_ms,
        "generation": point.origin[0],
        "slot": point.origin[1],
        "operator": individual.operator,
        "leader": point.key == leader_key,
        "metrics": dict(individual.metrics),
        "architecture": dict(individual.architecture),
    }


def render(data: dict[str, Any]) -> str:
    """The front as a table."""
    if not data["front"]:
        return f"run {data['run_id']}: no evaluation was committed yet"
    target = data["target_ms"]
    rows = [["", "accuracy", "latency", "in target", "resolution", "depths", "found by", "at"]]
    for point in data["front"]:
        architecture = point["architecture"]
        depths = [printable(value, 20) for name, value in architecture.items() if name.endswith(".depth")]
        rows.append(
            [
                "*" if point["leader"] else "",
                f"{100 * point['accuracy']:6.2f} %",
                f"{point['latency_ms']:.3f} ms{plus_minus(data['latency_interval'])}"
                if point["latency_ms"]
                else "none",
                "" if target is None else ("yes" if point["latency_ms"] <= target else "no"),
                printable(architecture.get("resolution", ""), 20),
                "-".join(depths),
                point["operator"],
                f"{point['generation']}/{point['slot']}",
            ]
        )
    aim = "no latency target" if target is None else f"latency target {target:.3f} ms"
    star = "* the leader" if any(point["leader"] for point in data["front"]) else _leader_line(data["leader"])
    if data["leader_accuracy_error"] is not None:
        star += f" (standard error of its accuracy: {100 * data['leader_accuracy_error']:.2f} %)"
    head = f"run {data['run_id']}, {data['generations']} generations, {aim}"
    return "\n".join(filter(None, (head, columns(rows), star, advice(data["latency_interval"]))))


def _leader_line(leader: dict[str, Any] | None) -> str:
    """The leader may be off the front: as accurate as another, and slower."""
    if leader is None:
        return "no leader yet"
    metrics = leader["metrics"]
    at = f" at {metrics['latency_ms']:.3f} ms" if metrics["latency_ms"] else ""
    return f"leader: {100 * metrics['accuracy']:.2f} %{at}"
