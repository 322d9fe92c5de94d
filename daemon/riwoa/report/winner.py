"""The winner's card: what to deploy, how sure that is, how it is built and what it came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.errors import TableError
from riwoa.export import made_export
from riwoa.files.ownership import json_object
from riwoa.hardware.lut import LatencyTable
from riwoa.oracle.protocol import accuracy_error, views_of
from riwoa.report.facts import (
    Z95,
    Ancestor,
    Change,
    DeviceWinner,
    Files,
    FrontPoint,
    Judged,
    Layer,
    LineShare,
    Timed,
    Winner,
)
from riwoa.report.landscape import largest, same_space
from riwoa.run.front import Front, FrontNetwork
from riwoa.search.paired import Accuracy
from riwoa.search.space import gene_changes
from riwoa.supernet.space import ofa_config
from riwoa_storage.history import PlacedIndividual, architecture_name
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import Json

_REST = "stem, head"
_MOST_ANCESTORS = 24  # told one by one


def used_table(path: Path, sha256: Any) -> LatencyTable | None:
    """The latency table that a run used; None where another lies there, or none that can be read."""
    try:
        table = LatencyTable.load(path)
    except (TableError, OSError):
        return None
    return table if table.sha256 == sha256 else None


def winner_of(
    reader: JournalReader, front: Front, table: LatencyTable | None, export: Path, ties: int | None
) -> Winner | None:
    """The winner's card; None before anything was evaluated.

    Args:
        reader: of the journal.
        front: of the run.
        table: that the run used.
        export: where the state directory's export lies, if there is one.
        ties: see ``Winner``.
    """
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
        first=descent[0].value if descent else None,
        line=_line(descent),
        ties=ties,
        files=_files(export, front.run.digest, leader["architecture_key"]),
        note=finalists.note if finalists is not None else "",
    )


def device_winners(front: Front) -> tuple[DeviceWinner, ...]:
    """The best network for each of several devices; none where the run serves one."""
    return tuple(
        DeviceWinner(
            device=target.name,
            within_ms=target.within_ms,
            place="" if target.place is None else "{}/{}".format(*target.place),
            value=None if target.place is None else validated(front, target.metrics),
            latency_ms=target.latency_ms,
            test=None if target.test is None else _judged(target.test),
        )
        for target in front.targets
    )


def validated(front: Front, metrics: Json) -> Judged:
    """A network's value as the search saw it."""
    value = front.objective.value(metrics)
    value = -value if front.objective.lowered else value
    spec = front.run.provenance.get("oracle", {})
    error = accuracy_error(metrics, spec) if front.objective.raised == "accuracy" else None
    images = metrics.get("images")
    views = views_of(spec)
    share = _share_of_views(front) if views > 1 else 1.0
    if error is not None and share is not None:
        error *= share
    return Judged(value, error, None if images is None else int(images) // views, views, share is None)


def _share_of_views(front: Front) -> float | None:
    """The error of a mean over views as a share of one picture's, by the networks that test pictures have judged.

    The journal has how many views the validation pictures got right together, not which; so their error is that of as
    many pictures in one view, times how much less the test pictures' was. None where nothing was judged so.
    """
    judged = [n.test for n in front.networks if n.test is not None and n.test.views > 1 and 0 < n.test.value < 1]
    if not judged:
        return None
    shares = [t.error / (t.value * (1 - t.value) / t.pictures) ** 0.5 for t in judged]
    return min(1.0, float(np.median(shares)))


def _tested(front: Front, metrics: Json) -> Judged | None:
    if front.test is not None:
        return _judged(front.test)
    reported = metrics.get("report")  # a table's own
    return None if reported is None else Judged(float(reported))


def _judged(found: Accuracy) -> Judged:
    return Judged(found.value, found.error, found.pictures, found.views)


def _changes(before: Json, after: Json) -> tuple[Change, ...]:
    return tuple(Change(gene, *pair) for gene, pair in gene_changes(before, after).items())


def _from_largest(space: Any, architecture: Json) -> tuple[Change, ...] | None:
    known = same_space(space)
    if known is None:
        return None
    most = largest(known)
    if not most:  # of names there is no largest
        return None
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
        steps.append(Ancestor(place, record.operator, value, gain, changes, record.operator == "semantic"))
    return tuple(steps)


def _line(descent: tuple[Ancestor, ...]) -> tuple[LineShare, ...]:
    """What a line gained by operator; a step whose gain cannot be said counts as one that gained nothing."""
    gains: dict[str, list[float]] = {}
    for step in descent[1:]:
        gains.setdefault(step.operator, []).append(step.gain or 0.0)
    shares = [LineShare(operator, len(found), sum(found)) for operator, found in gains.items()]
    return tuple(sorted(shares, key=lambda share: (-share.gain, share.operator)))


def _files(export: Path, digest: str, architecture_key: str) -> Files:
    """The files of an export, where it is of this very run's winner."""
    names = made_export(export)
    if names is None or json_object(export / "provenance.json").get("digest") != digest:
        return Files()
    found = json_object(export / "architecture.json")
    if found.get("architecture_key") != architecture_key:
        return Files()
    given, judged = found.get("input"), found.get("exported") or {}
    takes = f"{given['dtype']}, {' × '.join(map(str, given['shape']))}" if isinstance(given, dict) else ""
    split = next((split for split in ("test", "validation") if split in judged), "")
    return Files(tuple(names), takes, judged[split]["accuracy"] if split else None, split)


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


def front_points(front: Front, evaluations: Sequence[int]) -> tuple[FrontPoint, ...]:
    """The front, fastest first, each network beside the winner; ``evaluations``: after so many generations."""
    chosen = None if front.leader is None else validated(front, front.leader["metrics"])
    return tuple(_front_point(front, network, chosen, evaluations) for network in front.networks)


def _front_point(front: Front, network: FrontNetwork, chosen: Judged | None, evaluations: Sequence[int]) -> FrontPoint:
    value, paired = validated(front, network.individual.metrics), network.difference
    less = error = None
    alike = network.is_equal
    if paired is not None:
        less, error = paired.value, paired.error
    elif front.test is None and chosen is not None and not network.is_winner:
        less = value.value - chosen.value
        if value.error is not None and chosen.error is not None:  # unpaired: too wide rather than too narrow
            error = (value.error**2 + chosen.error**2) ** 0.5
            alike = abs(less) <= Z95 * error
    within = front.keeps_limits(network)
    wanted = within or front.leader is None or not front.leader["feasible"]  # beyond the limits it is no alternative
    return FrontPoint(
        place="{}/{}".format(*network.point.origin),
        value=value,
        latency_ms=network.individual.metrics["latency_ms"],
        measured_ms=None if network.timed is None else network.timed.ms,
        measured_high_ms=None if network.timed is None else network.timed.high_ms,
        test=None if network.test is None else _judged(network.test),
        less=less,
        less_error=error,
        alike=alike and wanted,
        within=within,
        is_winner=network.is_winner,
        found_after=evaluations[min(network.point.origin[0] + 1, len(evaluations) - 1)],
    )
