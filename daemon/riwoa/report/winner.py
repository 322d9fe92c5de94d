"""The winner's card: what to deploy, how sure that is, how it is built and what it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from riwoa.errors import TableError
from riwoa.hardware.lut import LatencyTable
from riwoa.oracle.protocol import accuracy_error, views_of
from riwoa.report.facts import Ancestor, Change, FrontPoint, Judged, Layer, Timed, Winner
from riwoa.report.landscape import largest, same_space
from riwoa.run.front import Front, FrontNetwork
from riwoa.search.paired import Accuracy
from riwoa.search.space import gene_changes
from riwoa.supernet.space import ofa_config
from riwoa_storage.history import PlacedIndividual, architecture_name
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import Json

_ALIKE_ERRORS = 1.96  # standard errors within which two validation accuracies are not told apart
_REST = "stem, head"
_MOST_ANCESTORS = 24  # told one by one


def used_table(path: Path, sha256: Any) -> LatencyTable | None:
    """The latency table that a run used; None where another lies there, or none that can be read."""
    try:
        table = LatencyTable.load(path)
    except (TableError, OSError):
        return None
    return table if table.sha256 == sha256 else None


def winner_of(reader: JournalReader, front: Front, table: LatencyTable | None) -> Winner | None:
    """The winner's card; None before anything was evaluated."""
    leader = front.leader
    if leader is None or "architecture" not in leader:
        return None
    metrics: Json = leader["metrics"]
    lineage = reader.history.lineage(front.run.run_id, (leader["generation"], leader["slot"]))
    descent = _descent(front, lineage)
    told = descent if len(descent) <= _MOST_ANCESTORS else (descent[0], *descent[1 - _MOST_ANCESTORS :])
    interval = table.interval if table is not None else None
    finalists = front.finalists
    timed = finalists.winner if finalists is not None and finalists.winner.is_clear else None
    runtime = finalists.runtime if finalists is not None else ""
    level = interval.level if interval is not None and interval.sessions > 1 else None  # one tells nothing of others
    return Winner(
        name=architecture_name(leader["architecture_key"]),
        place=f"{leader['generation']}/{leader['slot']}",
        operator=lineage[0].record.operator if lineage else "",
        validation=validated(front, metrics),
        test=_tested(front, metrics),
        untested=front.untested or "",
        latency_ms=metrics.get("latency_ms") or None,
        interval=None if interval is None else interval.half_width_percent / 100,
        timed=None if timed is None else Timed(timed.ms, timed.low_ms, timed.high_ms, runtime, level),
        within=bool(leader["feasible"]),
        metrics=dict(metrics),
        architecture=dict(leader["architecture"]),
        layers=layers_of(table, leader["architecture"]),
        from_parent=descent[-1].changes if descent else (),
        from_largest=_from_largest(front.run.provenance.get("space"), leader["architecture"]),
        descent=told,
        ancestors=max(0, len(descent) - 1),
        note=finalists.note if finalists is not None else "",
    )


def validated(front: Front, metrics: Json) -> Judged:
    """A network's value as the search saw it."""
    value = front.objective.value(metrics)
    value = -value if front.objective.lowered else value
    spec = front.run.provenance.get("oracle", {})
    error = accuracy_error(metrics, spec) if front.objective.raised == "accuracy" else None
    images = metrics.get("images")
    views = views_of(spec)
    return Judged(value, error, None if images is None else int(images) // views, views)


def _tested(front: Front, metrics: Json) -> Judged | None:
    if front.test is not None:
        return _judged(front.test)
    reported = metrics.get("report")  # a table's own
    return None if reported is None else Judged(float(reported))


def _judged(found: Accuracy) -> Judged:
    return Judged(found.value, found.error, found.pictures, found.views, views_told=True)


def _changes(before: Json, after: Json) -> tuple[Change, ...]:
    return tuple(Change(gene, *pair) for gene, pair in gene_changes(before, after).items())


def _from_largest(space: Any, architecture: Json) -> tuple[Change, ...] | None:
    known = same_space(space)
    if known is None:
        return None
    most = largest(known)
    return tuple(c for c in _changes(most, architecture) if c.gene in most)


def _descent(front: Front, lineage: list[PlacedIndividual]) -> tuple[Ancestor, ...]:
    """Oldest first."""
    oldest_first = lineage[::-1]
    steps = []
    for parent, child in zip([None, *oldest_first[:-1]], oldest_first, strict=True):
        record = child.record
        before = None if parent is None else parent.record
        changes = () if before is None else _changes(before.architecture, record.architecture)
        same = before is not None and before.fitness_version == record.fitness_version
        gain = None
        if same and before is not None and record.fitness is not None and before.fitness is not None:
            gain = record.fitness - before.fitness
        value = record.metrics.get(front.objective.raised)
        place = f"{child.generation}/{record.slot}"
        steps.append(Ancestor(place, record.operator, value, gain, changes, record.request_id is not None))
    return tuple(steps)


def layers_of(table: LatencyTable | None, architecture: Json) -> tuple[Layer, ...]:
    """The blocks with their milliseconds and what stem and head take together; none where the table has no such."""
    if table is None or "stage1.depth" not in architecture:
        return ()
    try:
        config = ofa_config(architecture)
        blocks, total = table.layers_ms(config), table.latency_ms(config)
    except (TableError, KeyError, ValueError):
        return ()
    layers = [
        Layer(
            name,
            f"stage {name.removeprefix('stage').partition('.')[0]}",
            ms,
            architecture.get(f"{name}.kernel"),
            architecture.get(f"{name}.expand"),
        )
        for name, ms in blocks.items()
    ]
    return (*layers, Layer(_REST, _REST, total - sum(blocks.values())))


def front_points(front: Front) -> tuple[FrontPoint, ...]:
    """The front, fastest first, each network beside the winner."""
    chosen = None if front.leader is None else validated(front, front.leader["metrics"])
    return tuple(_front_point(front, network, chosen) for network in front.networks)


def _front_point(front: Front, network: FrontNetwork, chosen: Judged | None) -> FrontPoint:
    value, paired = validated(front, network.individual.metrics), network.difference
    less = error = None
    alike = network.is_equal
    if paired is not None:
        less, error = paired.value, paired.error
    elif front.test is None and chosen is not None and not network.is_winner:
        less = value.value - chosen.value
        if value.error is not None and chosen.error is not None:  # unpaired: too wide rather than too narrow
            error = (value.error**2 + chosen.error**2) ** 0.5
            alike = abs(less) <= _ALIKE_ERRORS * error
    within = front.keeps_limits(network)
    wanted = within or front.leader is None or not front.leader["feasible"]  # beyond the limits it is no alternative
    return FrontPoint(
        place="{}/{}".format(*network.point.origin),
        value=value,
        latency_ms=network.individual.metrics["latency_ms"],
        measured_ms=None if network.timed is None else network.timed.ms,
        test=None if network.test is None else _judged(network.test),
        less=less,
        less_error=error,
        alike=alike and wanted,
        within=within,
        is_winner=network.is_winner,
    )
