"""``riwoactl pareto``: the non-dominated networks of the latest run, from the journal alone."""

from __future__ import annotations

from typing import Any

from riwoa.ctl import Options
from riwoa.ctl.command import Parser, columns, emit
from riwoa.ctl.wanted import PREFER_HELP, WEIGHTS, add_within, wanted_view, wanted_words, weighed
from riwoa.hardware.interval import advice, interval_of, plus_minus
from riwoa.oracle.protocol import accuracy_error
from riwoa.paths import client_state
from riwoa.run.front import Front, FrontNetwork, TargetWinner, chosen_run, read_front
from riwoa.run.preference import Preference, preferred
from riwoa.service.front_view import (
    LEGEND,
    against_cell,
    fastest_line,
    limit_lines,
    measured_cell,
    measured_words,
    target_table,
    test_cell,
    test_view,
    test_words,
    timed_view,
    validation_words,
    value_cell,
    value_head,
)
from riwoa.service.limit_text import limits_view
from riwoa.text import measured, printable
from riwoa_storage.reader import JournalReader

_DESCRIPTION = """The networks that no other of the run beats in both accuracy and latency, fastest first. A star marks
the leader: the best within every limit, as soon as one is. Once the run has ended, the accuracies on test
pictures come first, which chose nothing, and how far each is from the leader's on the same pictures; those that cannot
be told apart are marked. --within and --prefer name the one network that is wanted instead; any run answers, whatever
it looked for. Read from the journal; the daemon need not run."""


def run(verb: str, arguments: list[str], options: Options) -> int:
    """Print the front."""
    parser = Parser(verb, description=_DESCRIPTION)
    parser.add_argument("--run", type=int, metavar="ID", help="the run (default: the latest)")
    add_within(parser)
    parser.add_argument("--prefer", type=weighed, default={}, metavar=WEIGHTS, help=PREFER_HELP)
    given = parser.parse_args(arguments)
    paths = client_state(options.state)
    with JournalReader(paths.journal) as reader:
        front = read_front(reader, chosen_run(reader, given.run))
    interval = interval_of(paths.latency_table, front.run.provenance.get("latency_table_sha256"))
    if wish := Preference(given.within, given.prefer):
        network = preferred(front, wish)
        found = {**wanted_view(front, wish), "latency_interval": interval, "network": _row(network)}
        emit(options, found, wanted_words(front, wish, network, interval, given.run))
    else:
        emit(options, to_json(front, interval), render(front, interval))
    return 0


def to_json(front: Front, latency_interval: float | None) -> dict[str, Any]:
    """The front of a run as a JSON object, with its leader and latency target."""
    leader = front.leader
    oracle = front.run.provenance.get("oracle", {})
    return {
        "run_id": front.run.run_id,
        "digest": front.run.digest,
        "generations": front.run.generations,
        "target_ms": leader.get("target_ms") if leader else None,
        "metric": front.objective.raised,
        "limits": limits_view(front.limits),
        "leader": leader,
        "leader_accuracy_error": accuracy_error(leader["metrics"], oracle) if leader else None,
        "tries": front.tries,
        "test": test_view(front),
        "timed": timed_view(front),
        "latency_interval": latency_interval,
        "front": [_row(network) for network in front.networks],
        "targets": [_target(target) for target in front.targets],
    }


def _target(target: TargetWinner) -> dict[str, Any]:
    test = target.test
    return {
        "name": target.name,
        "within_ms": target.within_ms,
        "generation": target.place[0] if target.place else None,
        "slot": target.place[1] if target.place else None,
        "latency_ms": target.latency_ms,
        "metrics": dict(target.metrics),
        "test": None if test is None else {"accuracy": test.value, "accuracy_error": test.error},
    }


def _row(network: FrontNetwork) -> dict[str, Any]:
    point, individual, test, less = network.point, network.individual, network.test, network.difference
    return {
        "architecture_key": point.key,
        "accuracy": individual.metrics.get("accuracy"),
        "latency_ms": individual.metrics["latency_ms"],
        "generation": point.origin[0],
        "slot": point.origin[1],
        "operator": individual.operator,
        "leader": network.is_winner,
        "measured_ms": None if network.timed is None else network.timed.ms,
        "test": None if test is None else {"accuracy": test.value, "accuracy_error": test.error},
        "against_leader": None
        if less is None
        else {"difference": less.value, "difference_error": less.error, "p": less.p, "equal": network.is_equal},
        "metrics": dict(individual.metrics),
        "architecture": dict(individual.architecture),
    }


def render(front: Front, latency_interval: float | None) -> str:
    """The front as a table."""
    if not front.networks:
        return f"run {front.run.run_id}: no evaluation was committed yet"
    target = front.leader.get("target_ms") if front.leader else None
    aim = "no latency target" if target is None else f"latency target {target:.3f} ms"
    head = f"run {front.run.run_id}, {front.run.generations} generations, {aim}"
    legend = LEGEND if front.test is not None else ""
    targets = target_table(front)
    lines = (head, _table(front, target, latency_interval), legend, *_leader(front), fastest_line(front), targets)
    return "\n".join(filter(None, (*lines, advice(latency_interval))))


def _table(front: Front, target_ms: float | None, latency_interval: float | None) -> str:
    """Latency and accuracies, then what the networks are; what is known of none has no column."""
    in_limits = bool(limit_lines(front))
    limited = [s.limit.metric for s in front.limits if s.limit.metric != "latency_ms"] if in_limits else []
    rows = [["", "latency", "measured", *limited, "in limits" if in_limits else "in target", "test", "less the leader"]]
    rows[0] += [value_head(front), "resolution", "depths", "found by", "at"]
    for network in front.networks:
        point, architecture = network.point, network.individual.architecture
        latency_ms = network.individual.metrics["latency_ms"]
        latency = f"{latency_ms:.3f} ms{plus_minus(latency_interval)}" if latency_ms else ""
        depths = [printable(value, 20) for name, value in architecture.items() if name.endswith(".depth")]
        rows.append(
            [
                "*" if network.is_winner else "",
                latency,
                measured_cell(network),
                *(measured(name, network.individual.metrics[name]) for name in limited),
                "" if target_ms is None and not in_limits else ("yes" if front.keeps_limits(network) else "no"),
                test_cell(network),
                against_cell(network) if front.test is not None else "",
                value_cell(front, network),
                printable(architecture.get("resolution", ""), 20),
                "-".join(depths),
                network.individual.operator,
                "{}/{}".format(*point.origin),
            ]
        )
    known = [i for i in range(len(rows[0])) if i == 0 or any(row[i] for row in rows[1:])]
    return columns([[row[i] for i in known] for row in rows])


def _leader(front: Front) -> list[str]:
    """What the leader is worth. It may be off the front: as accurate as another, and slower."""
    if front.leader is None:
        return ["no leader yet"]
    metrics = front.leader["metrics"]
    starred = any(network.is_winner for network in front.networks)
    at = f", {metrics['latency_ms']:.3f} ms" if metrics["latency_ms"] and not starred else ""
    error = accuracy_error(metrics, front.run.provenance.get("oracle", {}))
    about = f" (standard error of its accuracy: {100 * error:.2f} %)" if error is not None else ""
    lines = [f"{'* ' if starred else ''}the leader{at}: {validation_words(front)}{about}"]
    lines += [f"  {line}" for line in limit_lines(front)]
    ended = front.test is not None or front.untested is not None or "report" in metrics
    if ended:
        lines = [f"on test pictures: {test_words(front)}", *lines]
    note = front.finalists.note if front.finalists is not None else ""
    return [*lines, *(f"measured: {words}" for words in (measured_words(front), note) if words)]
